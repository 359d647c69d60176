"""Probes and traces that the head-end asked for, and what came of them.

In      `probe`, `trace` with the way; `answered`, `failed` from the mesh, `handle_timer`
Out     `to_ask`: numbers and ways to send now; `results`, of a trace each row as it is decided
Limit   PROBE_COUNT_MAX open at a time, the next is NOT_SENT; a trace counts as one
Never   takes the answer over one way for that over another: each question has a number of its own;
        begins a request whose number is open: what it says of a trace would be a probe's result
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mesh.backhaul import Outcome, Probe, Probed, Trace, Traced, TraceRow
from mesh.routing.trickle import NEVER
from mesh.station.echo import Echo

PROBE_COUNT_MAX: Final = 64
TRACE_WAIT_S: Final = 5.0
TRACE_WAIT_HOP_S: Final = 1.0
"""How long one node of a trace may take to answer: so much, and for each hop."""
TRACE_TRIES: Final = 2
NUMBER_MAX: Final = 0xFFFF_FFFF


@dataclass(slots=True)
class _Asking:
    """One question under way, for a probe or for one row of a trace."""

    request: int
    way: tuple[int, ...]
    asked_at: float
    ends_at: float
    trace: _Tracing | None = None


@dataclass(slots=True)
class _Tracing:
    request: int
    way: tuple[int, ...]
    ends_at: float
    tries: int = 0
    rows: list[TraceRow] = field(default_factory=list)


class Probes:
    """All questions of one collector."""

    def __init__(self) -> None:
        self._asking: dict[int, _Asking] = {}
        self._number = 0
        self._to_ask: list[tuple[int, tuple[int, ...]]] = []
        self._results: list[Probed | Traced] = []

    def __len__(self) -> int:
        return len(self._asking)

    @property
    def deadline(self) -> float:
        """When something is overdue."""
        return min((asking.ends_at for asking in self._asking.values()), default=NEVER)

    # Commands from above

    def probe(self, message: Probe, way: Sequence[int] | None, *, now: float) -> None:
        """Ask along `way`, from here to the destination; None where no way is known."""
        if self._is_open(message.request):
            return
        if way is None or len(self._asking) >= PROBE_COUNT_MAX:
            self._results.append(Probed(message.request, Outcome.NOT_SENT, 0))
        elif len(way) == 1:
            # That is us.
            self._results.append(Probed(message.request, Outcome.ANSWERED, 0))
        else:
            self._ask(_Asking(message.request, tuple(way), now, now + message.deadline))

    def refuse(self, message: Probe) -> None:
        """Tell of a way that is not to be taken: nothing is tried beyond here."""
        self._results.append(Probed(message.request, Outcome.NOT_PASSED, 0))

    def trace(self, message: Trace, way: Sequence[int] | None, *, now: float) -> None:
        """Ask each node of `way`, from here to the destination, the nearest first."""
        if self._is_open(message.request):
            return
        if way is None or len(way) == 1 or len(self._asking) >= PROBE_COUNT_MAX:
            self._results.append(Traced(message.request, ()))
        else:
            self._next_row(_Tracing(message.request, tuple(way), now + message.deadline), now)

    def not_sent(self, number: int, *, now: float) -> None:
        """The node had no room for a question."""
        self._end(number, Outcome.NOT_SENT, 0, now)

    # Inputs from below

    def answered(self, echo: Echo, *, now: float) -> None:
        """An answer came: it counts for the question of its number, over the same way."""
        asking = self._asking.get(echo.number)
        if asking is not None and asking.way == echo.way:
            self._end(echo.number, Outcome.ANSWERED, echo.hops, now)

    def failed(
        self, echo: Echo, relay: int, neighbour: int, *, is_unknown: bool, now: float
    ) -> None:
        """A node of the way could not go on, with the question or with the answer.

        `is_unknown`: it has no such neighbour, so that nothing was tried.
        """
        asking = self._asking.get(echo.number)
        if asking is None or asking.way != echo.way:
            return
        for hops, (upper, lower) in enumerate(itertools.pairwise(asking.way)):
            if (relay, neighbour) == (upper, lower):
                outcome = Outcome.NOT_PASSED if is_unknown else Outcome.LOST_AFTER
                self._end(echo.number, outcome, hops, now)
                return
            if (relay, neighbour) == (lower, upper):
                # The answer is lost on its way back: where the relay is, the question was.
                outcome = Outcome.NOT_PASSED if is_unknown else Outcome.LOST_AFTER
                self._end(echo.number, outcome, hops + is_unknown, now)
                return

    def handle_timer(self, *, now: float) -> None:
        """Whoever did not answer in time does not answer."""
        for number, asking in list(self._asking.items()):
            if asking.ends_at <= now:
                self._end(number, Outcome.NO_ANSWER, len(asking.way) - 1, now)

    # Outputs

    def to_ask(self) -> list[tuple[int, tuple[int, ...]]]:
        """Numbers and ways of questions, in order. Each is handed over once."""
        to_ask, self._to_ask = self._to_ask, []
        return to_ask

    def results(self) -> list[Probed | Traced]:
        """What came of them; of a trace each row, as of a probe, and then all. Once each."""
        results, self._results = self._results, []
        return results

    # Steps

    def _is_open(self, request: int) -> bool:
        return any(asking.request == request for asking in self._asking.values())

    def _ask(self, asking: _Asking) -> None:
        self._number = self._number % NUMBER_MAX + 1
        self._asking[self._number] = asking
        self._to_ask.append((self._number, asking.way))

    def _end(self, number: int, outcome: Outcome, hops: int, now: float) -> None:
        asking = self._asking.pop(number, None)
        if asking is None:
            return
        round_trip_ms = round(1000 * (now - asking.asked_at)) if outcome is Outcome.ANSWERED else 0
        trace = asking.trace
        if trace is None:
            self._results.append(Probed(asking.request, outcome, hops, round_trip_ms))
            return
        trace.tries += 1
        is_last_try = trace.tries >= TRACE_TRIES or outcome is Outcome.ANSWERED
        if is_last_try or now >= trace.ends_at:
            trace.rows.append(TraceRow(asking.way[-1], outcome, round_trip_ms))
            trace.tries = 0
            self._results.append(Probed(trace.request, outcome, len(trace.rows), round_trip_ms))
        if outcome is Outcome.LOST_AFTER and trace.tries == 0:
            # What is behind a hop that cannot be made is not asked.
            self._results.append(Traced(trace.request, tuple(trace.rows)))
        else:
            self._next_row(trace, now)

    def _next_row(self, trace: _Tracing, now: float) -> None:
        hops = len(trace.rows) + 1
        if hops >= len(trace.way) or now >= trace.ends_at:
            self._results.append(Traced(trace.request, tuple(trace.rows)))
            return
        ends_at = min(now + TRACE_WAIT_S + hops * TRACE_WAIT_HOP_S, trace.ends_at)
        self._ask(_Asking(trace.request, trace.way[: hops + 1], now, ends_at, trace))
