"""What one report costs the head-end, from the socket to the disk and back.

What    CPU of a real head-end process (`headend serve` on its fastest loop, store on disk) for each
        report that is received over UDP, opened, checked, stored and acknowledged after its commit.
        Every report is another meter's, of the many whose sessions are known; a generator on
        another core keeps 256 under way. Every answer is opened and must say that all is stored
Limit   the unavoidable steps alone, as a process under the same load: receive and send, the least
        parsing, two AEAD operations with fresh objects, replay window, CBOR loaded, a row appended
        in SQLite (WAL, FULL) by groups; `interop.bench.bare_head_end`
Worry   a ratio above 3: five million reports are to be taken in well under an hour of one core, and
        a street that wakes after a blackout must not find a head-end that sheds it
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from interop.bench.figure import BenchError, Figure, Size
from interop.bench.fleet import known, stock
from interop.bench.headend_process import prepare as prepare_head_end
from interop.bench.headend_process import serving
from interop.bench.load import WINDOW, Load, check, prepare
from interop.bench.measuring import all_cores_after, cpu_s
from interop.bench.processes import running

NAME: Final = "report_udp_cpu_us"
GOAL: Final = 3.0
ROUND_SIZES: Final[Mapping[Size, int]] = {Size.FULL: 4_000, Size.QUICK: 2_000, Size.TINY: 30}
ROUND_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 7, Size.QUICK: 3, Size.TINY: 1}


def measure(size: Size) -> Figure:
    """Load the head-end and then the bare process with the same reports."""
    count, rounds = ROUND_SIZES[size], ROUND_COUNTS[size]
    with tempfile.TemporaryDirectory(prefix="amistack-bench-") as name, all_cores_after():
        folder = Path(name)
        total = count * (1 + rounds)  # The first round warms up and is not counted.
        store = prepare_head_end(folder)
        stock(store, 0, total, at=int(time.time()) - 60)
        with serving(folder) as (program, address):
            ours, again = _rounds(program.pid, address, count, rounds)
        stored = _stored(store)
        if stored != total:
            raise BenchError(f"{stored} reports are stored, {total} were acknowledged")
        bare, bare_again = _bare(folder, count, rounds)
    value, limit = statistics.median(ours), statistics.median(bare)
    spread = f"{min(ours):.0f} to {max(ours):.0f}, bare {min(bare):.1f} to {max(bare):.1f}"
    return Figure(
        NAME,
        value,
        "us",
        limit,
        GOAL,
        f"{rounds} x {count} reports, {total} sessions, window {WINDOW}; {spread}; "
        f"sent again: {again + bare_again}",
    )


def _rounds(pid: int, address: tuple[str, int], count: int, rounds: int) -> tuple[list[float], int]:
    """CPU microseconds for a report in each round, and how many had to be sent again."""
    taken = []
    load = Load(address)
    try:
        for number in range(1 + rounds):
            meters = [known(index) for index in range(number * count, (number + 1) * count)]
            reports = prepare(meters, utc=time.time())
            begun = cpu_s(pid)
            answers = load.run(reports)
            taken.append((cpu_s(pid) - begun) / count * 1e6)
            check(reports, answers)
    finally:
        load.close()
    return taken[1:], load.again_count


def _bare(folder: Path, count: int, rounds: int) -> tuple[list[float], int]:
    sessions = folder / "sessions"
    with sessions.open("wb") as file:
        for number in range(count * (1 + rounds)):
            one = known(number).head_end_context()
            file.write(one.recipient_id + one.recipient_key + one.sender_key + one.common_iv)
    command = [
        sys.executable,
        "-m",
        "interop.bench.bare_head_end",
        str(sessions),
        str(folder / "bare.sqlite"),
    ]
    with running(command, folder) as program:
        address = ("127.0.0.1", int(program.wait_line()))
        return _rounds(program.pid, address, count, rounds)


def _stored(store: Path) -> int:
    connection = sqlite3.connect(store)
    try:
        (count,) = connection.execute("SELECT count(*) FROM report").fetchone()
    finally:
        connection.close()
    return int(count)
