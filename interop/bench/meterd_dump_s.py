"""How long a field tool waits for a meter's whole memory over a serial line.

What    seconds from the start of `meterd tool dump` to its end, at 115,200 bit/s: both programs
        real, two pseudo-terminals between them joined at the rate of a real line. The meter has the
        default programme, 45 days of it, and as many entries in its log as there may be
Worry   above 10 s (B1-NFR-12, I2-NFR-07): somebody stands before the meter. A busy machine adds
        to it; the test of the same limit counts the octets of a line without one
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from amistack.identifiers import format_eui64
from amistack.model.event_catalogue import CATALOGUE
from amistack.session.fleet import encode_public_key
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.fleet import key_of
from interop.bench.measuring import all_cores_after
from interop.bench.meter_folder import METER, make_meter
from interop.bench.paced_line import paced_line
from interop.bench.processes import running
from interop.demo.processes import script
from meterd.recorder import RETENTION_DAYS
from meterd.storage import ENTRY_COUNT_MAX, Storage

NAME: Final = "meterd_dump_s"
GOAL: Final = 10.0
BAUD_RATE: Final = 115_200
ENTRIES: Final[Mapping[Size, int]] = {
    Size.FULL: ENTRY_COUNT_MAX,
    Size.QUICK: ENTRY_COUNT_MAX,
    Size.TINY: 100,
}
TRIES: Final = 5
PAUSE_S: Final = 2.0
TIMEOUT_S: Final = 120.0
DAY_S: Final = 86_400


def measure(size: Size) -> Figure:
    """Fill a meter, start it at one end of a line, and a tool at the other."""
    with tempfile.TemporaryDirectory(prefix="amistack-bench-") as name, all_cores_after():
        folder = Path(name)
        tool_key = _tool_key(folder)
        with paced_line(BAUD_RATE) as (here, there, ways):
            settings = make_meter(folder, "127.0.0.1:9")
            with settings.open("a") as file:
                file.write(
                    f'\n[local]\ndevice = "{here}"\nbaud_rate = {BAUD_RATE}\n'
                    f'readers = ["{tool_key}"]\n'
                )
            _fill_log(folder / "meter-data", ENTRIES[size])
            command = [script("meterd"), "run", "--config", str(settings), "--log-level", "warning"]
            with running(command, folder) as program:
                for _ in range(TRIES):
                    program.check()
                    before = sum(way.octets for way in ways)
                    began = time.perf_counter()
                    trouble = _dump(folder, there)
                    seconds = time.perf_counter() - began
                    if not trouble:
                        break
                    time.sleep(PAUSE_S)  # It takes up 45 days of history first.
                else:
                    raise BenchError(f"no dump: {trouble}")
                octets = sum(way.octets for way in ways) - before
        size_octets = (folder / "meter.dump").stat().st_size
    return Figure(
        NAME,
        seconds,
        "s",
        goal=GOAL,
        beside=f"{octets} octets on the line for {size_octets} of memory",
    )


def _tool_key(folder: Path) -> str:
    """The public key of a field tool that is made for this."""
    command = [script("meterd"), "tool", "key", "--key", str(folder / "tool-key.pem")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise BenchError(f"no tool key: {done.stderr.strip()}")
    return done.stdout.split()[-1]


def _dump(folder: Path, device: str) -> str:
    """Take it all; what hindered, or nothing."""
    command = [script("meterd"), "tool", "dump", "--meter", format_eui64(METER)]
    command += ["--meter-key", encode_public_key(key_of("meter").public_key()).hex()]
    command += ["--device", device, "--baud-rate", str(BAUD_RATE)]
    command += ["--key", str(folder / "tool-key.pem"), str(folder / "meter.dump")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.stderr.strip() if done.returncode else ""


def _fill_log(folder: Path, count: int) -> None:
    """As a meter's log is: many types, the same few again and again, some with a detail."""
    dice = random.Random(5)
    kinds = list(CATALOGUE)
    usual = dice.sample(kinds, 6)
    span = RETENTION_DAYS * DAY_S
    at = int(time.time()) - span
    storage = Storage.open(folder)
    with storage.together():
        for number in range(count):
            at += dice.randrange(2 * span // (count + 1))
            event = dice.choice(usual if dice.random() < 0.9 else kinds)
            detail = f"phase {dice.randrange(3)}: {dice.uniform(200, 260):.1f} V"
            storage.keep_entry(
                min(at, int(time.time()) - 1),
                event,
                detail if number % 3 == 0 else None,
                is_time_doubtful=False,
            )
    storage.close()
