"""Isolations under way: their probes as messages to collectors, the answers as outcomes.

Spec    docs/protocol/topology.md, "Isolation"; docs/protocol/backhaul.md, "Probe"
In      `begin`, `give_up`; `take_answer`, `handle_timer`
Out     what `Orders.probe` was asked to send; events `Tried` and `Isolated`
Raises  TooMany at the bound, MeshError for a meter that the topology does not know
Limit   RUNNING_MAX at a time, one a meter; a probe that a collector cannot send now is sent again
        UNSENT_MAX times, UNSENT_WAIT_S apart: that it was busy says nothing about any link
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from amistack.errors import TableFull
from amistack.identifiers import Eui64, format_eui64
from headend.dcc.events import Event, Isolated, RequestNumber, Tried
from headend.domain.refusals import TooMany
from mesh.backhaul import Outcome as Word
from mesh.backhaul import Probed
from mesh.topology.dcc import Dcc
from mesh.topology.isolate import Isolation
from mesh.topology.paths import Path
from mesh.topology.verdicts import (
    Answered,
    LostAfter,
    NoAnswer,
    NoConnection,
    NotPassed,
    Outcome,
    Probe,
)

RUNNING_MAX: Final = 64
UNSENT_MAX: Final = 3
UNSENT_WAIT_S: Final = 2.0


class Prober(Protocol):
    """Sends probes."""

    def probe(self, path: Path, *, now: float) -> RequestNumber | None:
        """Ask the end of `path` over exactly that way; None where its collector is not there."""


@dataclass(slots=True)
class _Run:
    """One isolation, and its probe that is under way."""

    isolation: Isolation
    probe: Probe | None = None
    again_at: float | None = None
    unsent: list[int] = field(default_factory=list)


class Isolating:
    """Every isolation of the head-end."""

    def __init__(self, dcc: Dcc, prober: Prober) -> None:
        self._dcc = dcc
        self._prober = prober
        self._runs: dict[Eui64, _Run] = {}
        self._asked: dict[RequestNumber, tuple[Eui64, _Run, Probe]] = {}
        self._events: list[Event] = []

    @property
    def depth(self) -> tuple[int, int]:
        """Isolations under way, and how many there may be."""
        return len(self._runs), RUNNING_MAX

    def is_running(self, meter: Eui64) -> bool:
        """Whether one of that meter is under way."""
        return meter in self._runs

    # Commands from above

    def begin(self, meter: Eui64, *, now: float) -> None:
        """Begin one, unless one of that meter is under way: both hear how that goes on."""
        if meter in self._runs:
            return
        if len(self._runs) >= RUNNING_MAX:
            raise TooMany(f"{RUNNING_MAX} isolations are under way already; try again later")
        run = _Run(self._dcc.isolate(meter, now=now, can_probe_collectors=True))
        self._runs[meter] = run
        self._turn(meter, run, now)

    def give_up(self, meter: Eui64) -> None:
        """Nobody waits for it any more: send no more probes."""
        self._runs.pop(meter, None)

    # Inputs from below

    def take_answer(self, number: RequestNumber, answer: Probed | None, *, now: float) -> bool:
        """Whether that was a probe of an isolation; None where its collector went away."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        meter, run, probe = asked
        if self._runs.get(meter) is not run:
            return True  # It has ended.
        outcome = outcome_of(answer, probe.path)
        if answer is not None and answer.outcome is Word.NOT_SENT:
            self._send_later(meter, run, probe, now)
        elif probe == run.probe or isinstance(outcome, Answered):
            self._take_outcome(meter, run, probe, outcome)
            self._turn(meter, run, now)
        return True

    def take_silence(self, number: RequestNumber) -> bool:
        """Whether that was one. No answer ever came: its time was over before."""
        return self._asked.pop(number, None) is not None

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        for meter, run in list(self._runs.items()):
            if run.again_at is not None:
                if now < run.again_at:
                    continue
                run.again_at = None
                if run.probe is not None:
                    run.isolation.sent_late(run.probe.number, now=now)
                self._send(meter, run, now)
                self._turn(meter, run, now)
                continue
            due = run.isolation.next_timer()
            if due is not None and now >= due:
                probe = run.isolation.asked
                run.isolation.handle_timer(now=now)
                if probe is not None:
                    self._events.append(Tried(meter, probe, NoAnswer()))
                self._turn(meter, run, now)

    # Outputs

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None."""
        times = (
            run.isolation.next_timer() if run.again_at is None else run.again_at
            for run in self._runs.values()
        )
        return min((time for time in times if time is not None), default=None)

    # Rules

    def _turn(self, meter: Eui64, run: _Run, now: float) -> None:
        """Send probes until one is under way, or it is over."""
        while run.again_at is None and (probe := run.isolation.probe_to_send(now=now)) is not None:
            run.probe, run.unsent = probe, []
            self._send(meter, run, now)
        verdict = run.isolation.verdict()
        if verdict is not None and self._runs.get(meter) is run:
            self.give_up(meter)
            self._dcc.isolation_ended(run.isolation, now=now)
            self._events.append(Isolated(meter, verdict))

    def _send(self, meter: Eui64, run: _Run, now: float) -> None:
        probe = run.probe
        assert probe is not None, "a probe is sent when there is one"
        try:
            number = self._prober.probe(probe.path, now=now)
        except TableFull:
            self._send_later(meter, run, probe, now)
            return
        if number is None:
            self._take_outcome(meter, run, probe, NoConnection())
        else:
            self._asked[number] = (meter, run, probe)

    def _send_later(self, meter: Eui64, run: _Run, probe: Probe, now: float) -> None:
        if run.probe != probe:
            return  # Its time was over already.
        run.unsent.append(probe.number)
        if len(run.unsent) > UNSENT_MAX:
            self.give_up(meter)
            collector = format_eui64(probe.path.collector)
            self._events.append(
                Isolated(meter, None, f"collector {collector} has no room for probes")
            )
            return
        run.again_at = now + UNSENT_WAIT_S

    def _take_outcome(self, meter: Eui64, run: _Run, probe: Probe, outcome: Outcome) -> None:
        run.isolation.take_outcome(probe.number, outcome)
        self._events.append(Tried(meter, probe, outcome))


def outcome_of(answer: Probed | None, path: Path) -> Outcome:
    """What a collector's answer says about a way.

    Without one its connection ended, or its word is overdue: nothing is known of what lies beyond.
    """
    if answer is None:
        return NoConnection()
    if answer.outcome is Word.ANSWERED:
        return Answered()
    if answer.hops < path.hops:
        if answer.outcome is Word.LOST_AFTER:
            return LostAfter(answer.hops)
        if answer.outcome is Word.NOT_PASSED:
            return NotPassed(answer.hops)
    return NoAnswer()
