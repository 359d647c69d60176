"""What a meter that says nothing costs the head-end in memory.

What    resident memory of a head-end process just started on a store of many enrolled, secured and
        registered meters, less that of one started on fewer, for each meter more
Worry   above 600 octets: five million meters are then 3 GB before the first of them reports
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from interop.bench.figure import Figure, Size
from interop.bench.fleet import stock
from interop.bench.headend_process import prepare, serving
from interop.bench.measuring import all_cores_after, memory_kib

NAME: Final = "headend_idle_meter_bytes"
GOAL: Final = 600.0
COUNTS: Final[Mapping[Size, tuple[int, int]]] = {
    Size.FULL: (20_000, 120_000),
    Size.QUICK: (5_000, 25_000),
    Size.TINY: (20, 220),
}


def measure(size: Size) -> Figure:
    """Start a head-end twice on a store that grows between."""
    few, many = COUNTS[size]
    with tempfile.TemporaryDirectory(prefix="amistack-bench-") as name, all_cores_after():
        folder = Path(name)
        store = prepare(folder)
        at = int(time.time()) - 60
        stock(store, 0, few, at=at)
        small = _resident_kib(folder)
        stock(store, few, many - few, at=at)
        large = _resident_kib(folder)
    # A negative figure can only be noise, at sizes that mean nothing.
    value = max(0, large - small) * 1024 / (many - few)
    return Figure(
        NAME,
        value,
        "octets",
        goal=GOAL,
        beside=f"{few} meters: {small / 1024:.1f} MiB, {many} meters: {large / 1024:.1f} MiB",
    )


def _resident_kib(folder: Path) -> int:
    with serving(folder) as (program, _):
        return memory_kib(program.pid, "Rss")
