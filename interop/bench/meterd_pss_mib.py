"""How much memory a meter daemon holds after a day of work.

What    proportional set size (its own pages, and its share of those that others use too) of a fresh
        process with the daemon's own code, after a day of the meter's life: 45 days of history
        taken up, a handshake, 45 reports of history, 96 intervals recorded, one more midnight and
        its report. Its loop does not wait for timers (`interop.bench.fast_meter`); the rest is what
        `meterd run` does. The share is smaller the more processes use the same libraries: beside it
        stand the two sizes between which it lies
Worry   above 48 MiB: a device of 512 MiB runs it beside an operating system and a collector's
        programs, and a leak would show here before it shows in a year
"""

from __future__ import annotations

import select
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from interop.bench.figure import BenchError, Figure, Size
from interop.bench.households import DAY_S
from interop.bench.measuring import KIB_PER_MIB, all_cores_after, memory_kib
from interop.bench.meter_folder import make_meter, meter_itself
from interop.bench.processes import running
from interop.bench.stand_in import StandIn

NAME: Final = "meterd_pss_mib"
GOAL: Final = 48.0
SECONDS: Final[Mapping[Size, int]] = {Size.FULL: DAY_S, Size.QUICK: DAY_S, Size.TINY: 2 * 3600}
TIMEOUT_S: Final = 120.0


def measure(size: Size) -> Figure:
    """Let a meter live for a day and look at its memory."""
    with tempfile.TemporaryDirectory(prefix="amistack-bench-") as name, all_cores_after():
        folder = Path(name)
        stand_in = StandIn(meter_itself())
        try:
            settings = make_meter(folder, stand_in.address)
            command = [
                sys.executable,
                "-m",
                "interop.bench.fast_meter",
                str(settings),
                str(SECONDS[size]),
            ]
            with running(command, folder) as program:
                stand_in.serve(
                    lambda: bool(select.select([program.said], [], [], 0)[0]),
                    timeout_s=TIMEOUT_S,
                )
                recorded, acknowledged = map(int, program.wait_line().split())
                kib = memory_kib(program.pid, "Pss")
                own = sum(memory_kib(program.pid, f"Private_{kind}") for kind in ("Clean", "Dirty"))
                resident = memory_kib(program.pid, "Rss")
        finally:
            stand_in.close()
    if recorded < SECONDS[size] // 900 - 1 or not acknowledged:
        raise BenchError(f"{recorded} intervals and {acknowledged} reports are no day's work")
    return Figure(
        NAME,
        kib / KIB_PER_MIB,
        "MiB",
        goal=GOAL,
        beside=f"{SECONDS[size] // 3600} h: {recorded} intervals, {acknowledged} reports; "
        f"its own alone {own / KIB_PER_MIB:.1f}, with all it shares {resident / KIB_PER_MIB:.1f}",
    )
