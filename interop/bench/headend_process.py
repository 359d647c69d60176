"""A real head-end process, `headend serve` as an operator starts it, on a store of its own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from amistack.keystore import save_key
from headend.config import FILE_NAME, read_settings
from interop.bench.figure import BenchError
from interop.bench.fleet import key_of
from interop.bench.processes import Program, running
from interop.demo.processes import script

READY: Final = re.compile(r"headend is ready on udp ([0-9.]+):([0-9]+), api ")

SETTINGS: Final = """\
[server]
listen = "127.0.0.1:0"
"""


def prepare(folder: Path) -> Path:
    """Settings and key of a head-end in `folder`; where its store will be."""
    file = folder / FILE_NAME
    file.write_text(SETTINGS, encoding="utf-8")
    settings = read_settings(file)
    save_key(settings.identity.key, key_of("head-end"))
    return settings.store.path


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[Program, tuple[str, int]]]:
    """That head-end while the block lasts, and its UDP address."""
    command = [script("headend"), "serve", "--config", str(folder / FILE_NAME)]
    with running(command, folder) as program:
        line = program.wait_line()
        found = READY.match(line)
        if found is None:
            raise BenchError(f"headend said {line!r}, expected that it is ready")
        yield program, (found[1], int(found[2]))
