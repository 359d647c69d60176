"""`meterd display`: the display of a running meter, on a terminal.

Gives   a page of any size from 20 by 4 on; `--once` prints every page and ends
Raises  ConfigError and StatusUnavailable, one line
"""

from __future__ import annotations

import argparse
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError
from meterd.provision import CONFIG_FILE

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # Nothing public names it.

COLUMNS_MIN: Final = 20
ROWS_MIN: Final = 4
COLUMNS_MAX: Final = 80
ROWS_MAX: Final = 24
SIZE_MAX: Final = 500
REFRESH_S: Final = 1.0
KEYS: Final = {"a": "acknowledge", "c": "close"}
QUIT: Final = "q"
_SIZE: Final = re.compile(r"([0-9]{1,3})x([0-9]{1,3})")


def add_display_command(commands: Commands) -> None:
    """`meterd display`."""
    display = commands.add_parser(
        "display", help="show the running meter's display; a: message read, c: close, q: quit"
    )
    display.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    display.add_argument("--size", help="COLUMNSxROWS, 20x4 or more (default: the terminal's)")
    display.add_argument("--once", action="store_true", help="print every page and end")
    display.set_defaults(run=_display)


def _display(options: argparse.Namespace) -> int:
    from meterd.daemon import load_settings
    from meterd.display import Terminal, Turner, pages
    from meterd.display.door import ask_view

    columns, rows = size_of(options.size)
    folder = load_settings(options.config).meter.storage
    if options.once or not sys.stdout.isatty():
        for page in pages(ask_view(folder), columns=columns, rows=rows):
            sys.stdout.write("\n".join(page) + "\n")
        return 0
    screen, turner = Terminal(sys.stdout, columns=columns, rows=rows), Turner()
    try:
        with _keys() as next_key:
            key: str | None = None
            while key != QUIT:
                view = ask_view(folder, press=KEYS.get(key or ""))
                made = pages(view, columns=columns, rows=rows)
                screen.show(turner.page(made, now=time.monotonic()))
                key = next_key()
    except KeyboardInterrupt:
        pass
    finally:
        screen.close()
    return 0


def size_of(text: str | None) -> tuple[int, int]:
    """Columns and rows. Raises ConfigError."""
    if text is None:
        return _terminal_size()
    match = _SIZE.fullmatch(text)
    if match is not None:
        columns, rows = int(match[1]), int(match[2])
        if COLUMNS_MIN <= columns <= SIZE_MAX and ROWS_MIN <= rows <= SIZE_MAX:
            return columns, rows
    raise ConfigError(f"--size is {text!r}, expected COLUMNSxROWS, from 20x4 on")


def _terminal_size() -> tuple[int, int]:
    import shutil

    size = shutil.get_terminal_size((COLUMNS_MAX, ROWS_MAX))
    return (
        max(min(size.columns, COLUMNS_MAX), COLUMNS_MIN),
        max(min(size.lines, ROWS_MAX), ROWS_MIN),
    )


class _Keys:
    """The next key, or None after REFRESH_S without one."""

    def __call__(self) -> str | None:
        ready, _, _ = select.select([sys.stdin], [], [], REFRESH_S)
        return sys.stdin.read(1) or QUIT if ready else None


@contextmanager
def _keys() -> Iterator[_Keys]:
    """Keys one by one, without Enter, as long as it lasts."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield _Keys()
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _Keys()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
