"""How much of one core a meter daemon takes while nothing happens.

What    CPU time of a real `meterd run` that is registered and has reported all its days, over real
        seconds in which nobody asks it anything: its loop, its timers, and what they find to do.
        Percent of one core. A service manager watches it, as on a device; its beats are counted
Worry   above 0.5 %: on a device a tenth as fast it is 5 %, all day long, and something spins or
        wakes where there is nothing to do
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from interop.bench.figure import BenchError, Figure, Size
from interop.bench.measuring import all_cores_after, cpu_s
from interop.bench.meter_folder import make_meter, meter_itself
from interop.bench.processes import running
from interop.bench.stand_in import StandIn
from interop.demo.processes import script
from meterd.recorder import RETENTION_DAYS

NAME: Final = "meterd_idle_cpu_share"
GOAL: Final = 0.5
SECONDS: Final[Mapping[Size, float]] = {Size.FULL: 60.0, Size.QUICK: 10.0, Size.TINY: 0.5}
WATCHDOG_S: Final = 15.0
"""A beat every 5 s, more than any unit file of ours asks for."""
SETTLE_S: Final = 1.0
TIMEOUT_S: Final = 60.0


def measure(size: Size) -> Figure:
    """Let a meter report everything, then watch it do nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="amistack-bench-") as name,
        all_cores_after(),
        _manager(Path(name) / "notify") as manager,
    ):
        folder = Path(name)
        stand_in = StandIn(meter_itself())
        try:
            settings = make_meter(folder, stand_in.address)
            command = [script("meterd"), "run", "--config", str(settings), "--log-level", "warning"]
            with running(command, folder) as program:
                stand_in.serve(lambda: stand_in.report_count >= RETENTION_DAYS, timeout_s=TIMEOUT_S)
                until = time.monotonic() + SETTLE_S
                stand_in.serve(lambda: time.monotonic() > until, timeout_s=TIMEOUT_S)
                stand_in.discard()
                beats = _beats(manager)
                begun, before = time.monotonic(), cpu_s(program.pid)
                while (left := begun + SECONDS[size] - time.monotonic()) > 0:
                    time.sleep(min(left, WATCHDOG_S))
                    beats += _beats(manager)
                taken, passed = cpu_s(program.pid) - before, time.monotonic() - begun
        finally:
            stand_in.close()
    if size is not Size.TINY and not beats:
        raise BenchError("the meter does not beat: it is not at work")
    return Figure(
        NAME,
        taken / passed * 100,
        "%",
        goal=GOAL,
        beside=f"{taken * 1000:.1f} ms in {passed:.0f} s, {beats} beats in its life",
    )


@contextlib.contextmanager
def _manager(path: Path) -> Iterator[socket.socket]:
    """A service manager's socket; programs started meanwhile tell it how they are."""
    asked = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    kept = {name: os.environ.get(name) for name in (*asked, "WATCHDOG_PID")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(0)
        os.environ.update(asked)
        os.environ.pop("WATCHDOG_PID", None)
        try:
            yield manager
        finally:
            for variable, value in kept.items():
                os.environ.pop(variable, None)
                if value is not None:
                    os.environ[variable] = value


def _beats(manager: socket.socket) -> int:
    """How many have come and were not counted; the kernel keeps about ten."""
    beats = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            beats += b"WATCHDOG=1" in manager.recv(4096)
    return beats
