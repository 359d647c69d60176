"""What one CoAP exchange in the clear costs at both its ends, beside what aiocoap takes for it.

What    CPU of a confirmable POST of 300 octets and the 2.04 in its acknowledgement, over loopback
        UDP: a client and a server of ours in one process, sockets, event loop and system included;
        64 clients ask one server at once, each the next request when the last is answered
Limit   aiocoap's client and server at the same work: the same octets, the same number of sockets,
        the same event loop, a process of their own, its log silent
Worry   a ratio above an eighth: a head-end's day is such exchanges, and what is left of a core for
        everything above them shrinks
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from interop.bench.coap_exchanges import END_S, Outcome
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.measuring import all_cores_after, first_core
from interop.peers.aiocoap_plain import missing, version

NAME: Final = "coap_exchange_cpu_us"
GOAL: Final = 0.125
CLIENT_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 64, Size.QUICK: 64, Size.TINY: 2}
ROUNDS: Final[Mapping[Size, Mapping[str, int]]] = {
    Size.FULL: {"ours": 200, "aiocoap": 40},
    Size.QUICK: {"ours": 100, "aiocoap": 20},
    Size.TINY: {"ours": 3, "aiocoap": 3},
}
"""Exchanges of each client: some second of work for either."""
REPETITIONS: Final[Mapping[Size, int]] = {Size.FULL: 5, Size.QUICK: 3, Size.TINY: 1}
START_S: Final = 30.0
ERROR_SIZE: Final = 300


def measure(size: Size) -> Figure:
    """Both sides in turn, each time in a new process."""
    why = missing()
    if why is not None:
        raise BenchError(why)
    taken: dict[str, list[float]] = {"ours": [], "aiocoap": []}
    with all_cores_after():
        for _ in range(REPETITIONS[size]):
            ours, theirs = (
                _outcome(side, CLIENT_COUNTS[size], ROUNDS[size][side]) for side in taken
            )
            check(ours, theirs)
            taken["ours"].append(ours.cpu_us)
            taken["aiocoap"].append(theirs.cpu_us)
    value, limit = (statistics.median(each) for each in taken.values())
    return Figure(
        NAME,
        value,
        "us",
        limit,
        GOAL,
        f"{limit / value:.1f} times less than {version()}; {CLIENT_COUNTS[size]} clients, "
        f"{REPETITIONS[size]} x {CLIENT_COUNTS[size] * ROUNDS[size]['ours']} exchanges, "
        f"{min(taken['ours']):.3g} to {max(taken['ours']):.3g} us",
    )


def check(ours: Outcome, theirs: Outcome) -> None:
    """Both must say the same, or their ratio means nothing."""
    if (ours.request, ours.response) != (theirs.request, theirs.response):
        raise BenchError(
            f"aiocoap and ours send different octets: {theirs.request} and {theirs.response}, "
            f"{ours.request} and {ours.response}"
        )


def _outcome(side: str, client_count: int, rounds: int) -> Outcome:
    command = [sys.executable, "-m", "interop.bench.coap_exchanges", side]
    with first_core():
        process = subprocess.Popen(
            [*command, str(client_count), str(rounds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            said, errors = process.communicate(timeout=START_S + END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BenchError(f"{side}: not done after {START_S + END_S:g} s") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BenchError(f"{side}: {' '.join(errors.split())[-ERROR_SIZE:]}")
    return Outcome(**json.loads(said))
