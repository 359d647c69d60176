"""How long a meter daemon computes before it says its first word.

What    CPU seconds of `meterd run`, from its start to the first datagram that arrives, with 45 days
        recorded and reported and a session kept from before: what happens after a power cut
Worry   above 1.5 s: on a small device it is ten times that, and after a blackout a whole area waits
        for it
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from interop.bench.figure import Figure, Size
from interop.bench.measuring import all_cores_after, cpu_s
from interop.bench.meter_folder import make_meter, meter_itself
from interop.bench.processes import running
from interop.bench.stand_in import StandIn
from interop.demo.processes import script
from meterd.recorder import RETENTION_DAYS

NAME: Final = "meterd_start_s"
GOAL: Final = 1.5
REPETITIONS: Final[Mapping[Size, int]] = {Size.FULL: 7, Size.QUICK: 3, Size.TINY: 1}
TIMEOUT_S: Final = 60.0


def measure(size: Size) -> Figure:
    """Let a meter live until all is reported, then start it again and again."""
    taken = []
    with tempfile.TemporaryDirectory(prefix="amistack-bench-") as name, all_cores_after():
        folder = Path(name)
        stand_in = StandIn(meter_itself())
        try:
            settings = make_meter(folder, stand_in.address)
            command = [script("meterd"), "run", "--config", str(settings), "--log-level", "warning"]
            with running(command, folder):
                stand_in.serve(lambda: stand_in.report_count >= RETENTION_DAYS, timeout_s=TIMEOUT_S)
            for _ in range(REPETITIONS[size]):
                with running(command, folder) as program:
                    stand_in.wait_for_datagram(TIMEOUT_S)
                    taken.append(cpu_s(program.pid))
                stand_in.discard()
        finally:
            stand_in.close()
    return Figure(
        NAME,
        statistics.median(taken),
        "s",
        goal=GOAL,
        beside=f"{len(taken)} starts, {min(taken):.2f} to {max(taken):.2f}",
    )
