"""How much memory a meter takes in a street: a thousand meters in one process.

What    proportional set size of one `meterd street run`, divided by its meters, when every one has
        taken up 45 days of history, gone through its handshake, registered, and had its first
        report acknowledged: interpreter and libraries included. The loads are those that
        `meterd street init` gives, the head-end on the other end answers all of them. Beside it
        what one meter more takes, from a street of a few
Worry   above 300 KiB: a thousand meters on a device of 1 GiB would leave it less than two thirds
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from amistack.session.credentials import Credential
from amistack.session.fleet import encode_public_key, meter_credential
from interop.bench.figure import Figure, Size
from interop.bench.fleet import key_of
from interop.bench.measuring import all_cores_after, memory_kib
from interop.bench.processes import running
from interop.bench.stand_in import StandIn
from interop.demo.processes import script
from meterd.provision import Template, provision

NAME: Final = "meterd_street_kib"
GOAL: Final = 300.0
METERS: Final[Mapping[Size, int]] = {Size.FULL: 1000, Size.QUICK: 200, Size.TINY: 20}
FEWER: Final = 20
"""So many times fewer meters in the short street."""
TIMEOUT_S: Final = 900.0
SCHEDULE: Final = ("start_spread_s = 5", "catch_up_s = 86400")
"""The first report at once; the other 44 days are owed, and would take minutes for nothing."""


def measure(size: Size) -> Figure:
    """Run a street, and a short one."""
    count = METERS[size]
    few = count // FEWER
    base = _street_kib(few)
    whole = _street_kib(count)
    more = (whole - base) / (count - few)
    return Figure(
        NAME,
        whole / count,
        "KiB",
        goal=GOAL,
        beside=f"{count} meters: {whole / 1024:.1f} MiB in all; one more takes {more:.1f} KiB",
    )


def _street_kib(count: int) -> int:
    """The memory of a street of so many meters that have all begun their work."""
    with tempfile.TemporaryDirectory(prefix="amistack-bench-") as name, all_cores_after():
        folder = Path(name)
        stand_in = StandIn()
        try:
            for number in range(1, count + 1):
                stand_in.know(_make_meter(folder / f"meter-{number:04}", number, stand_in.address))
            command = [script("meterd"), "street", "run", name, "--log-level", "warning"]
            with running(command, folder) as program:
                stand_in.serve(lambda: stand_in.report_count >= count, timeout_s=TIMEOUT_S)
                return memory_kib(program.pid, "Pss")
        finally:
            stand_in.close()


def _make_meter(folder: Path, number: int, head_end: str) -> Credential:
    """A meter's folder; the credential by which its head-end knows it."""
    identity = provision(
        folder,
        Template(
            address=head_end,
            public_key=encode_public_key(key_of("head-end").public_key()).hex(),
            metrology=('source = "profile"', f"seed = {number}"),
            schedule=SCHEDULE,
        ),
    )
    return meter_credential(identity.meter, identity.public_key)
