"""How a running meter is, as one value: what `meterd status` shows.

Never   touches the disk, or what is secret
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from amistack.identifiers import format_eui64
from meterd.agent import (
    STORAGE_RETRY_S,
    Agent,
    AgentEvent,
    Hindered,
    ReadAnswered,
    Recovered,
    Registered,
    Reported,
    Secured,
    StorageFailed,
)
from meterd.journal import Journal

if TYPE_CHECKING:
    from amistack.model.control import SwitchState
    from meterd.meshing.status import MeshStatus
    from meterd.sensor import SensorStatus

STALL_S: Final = 30.0
"""Seconds that something due may be late before the meter's work counts as standing still."""
REASON_SIZE_MAX: Final = 200
NAMES_MAX: Final = 200
"""Counters shown of each kind; there are some dozens."""


@dataclass(frozen=True, slots=True)
class SwitchStatus:
    """The switch, in the words of its protocol: where it was told to be, and what is measured.

    `position` holds since `since`, UTC seconds; `outcome` is what the metrology said of the last
    move, `current` and `load_side` what it sees now. `newest` is the last sequence number that a
    command has used up. A load limit goes from `limit_from` to `limit_until`, None for none;
    `closes` is how often it has closed in its present window.
    """

    position: str
    since: int
    outcome: str
    current: str
    load_side: str
    newest: int
    limit_from: int | None
    limit_until: int | None
    closes: int

    @classmethod
    def of(cls, state: SwitchState) -> SwitchStatus:
        """What that state is for people."""
        return cls(
            position=_word(state.position),
            since=state.since_s,
            outcome=_word(state.outcome),
            current=_word(state.current),
            load_side=_word(state.load_side),
            newest=state.newest,
            limit_from=None if state.limit is None else state.limit.starts_s,
            limit_until=None if state.limit is None else state.limit.ends_s,
            closes=state.closes,
        )


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """One meter. Times are UTC seconds by its own clock; days count from 1970-01-01.

    `stage` is where the conversation stands: securing, registering, reporting. `owed_days` are
    recorded whole and not acknowledged. `hindrance` is why it is not getting on, None if it is;
    `stall` why its work stands still. `clock_error_s`: how far behind the head-end's clock ours is,
    give or take `clock_bound_s`; None before the first comparison. `storage_failure` is None again
    once writing works. The counters are since the start, like `written_octets` and `flushes`, which
    a flash memory feels.
    """

    meter: str
    at: int
    started_at: int
    stage: str
    head_end: str | None
    owed_days: int
    oldest_owed_day: int | None
    recorded_until: int | None
    last_report_day: int | None
    last_report_at: int | None
    last_read_at: int | None
    hindrance: str | None
    hindered_until: int | None
    stall: str | None
    clock: str
    clock_error_s: float | None
    clock_bound_s: float | None
    storage: str
    written_octets: int
    flushes: int
    storage_failure: str | None
    counters: dict[str, int]
    refused: dict[str, int]
    link: dict[str, int]
    sensor: SensorStatus | None = None
    """The real meter behind it, if there is one."""
    switch: SwitchStatus | None = None
    """Its switch, if it has one."""
    mesh: MeshStatus | None = None
    """Its place in the mesh, if that carries it."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


class Lately:
    """What the agent's events said last: facts that nothing else keeps."""

    def __init__(self) -> None:
        self.report_day: int | None = None
        self.report_at: float | None = None
        self.read_at: float | None = None
        self.hindrance: tuple[str, float] | None = None
        """Why it is not getting on, and until when it waits."""
        self._failure: tuple[str, float] | None = None

    def take(self, event: AgentEvent, *, utc: float) -> None:
        """Note what happened at `utc`."""
        match event:
            case Reported(day):
                self.report_day, self.report_at = day, utc
                self.hindrance = None
            case ReadAnswered():
                self.read_at = utc
            case Secured() | Registered() | Recovered():
                self.hindrance = None
            case Hindered(_, reason, retry_s):
                self.hindrance = reason[:REASON_SIZE_MAX], utc + retry_s
            case StorageFailed(reason):
                self._failure = reason[:REASON_SIZE_MAX], utc
            case _:
                pass

    def storage_failure(self, utc: float) -> str | None:
        """Why nothing can be written; it is tried, and fails, every STORAGE_RETRY_S."""
        if self._failure is None or utc > self._failure[1] + 1.5 * STORAGE_RETRY_S:
            return None
        return self._failure[0]


class Timed(Protocol):
    """What has work that falls due: a machine."""

    def next_timer(self) -> float | None:
        """When."""


def stall_of(machine: Timed, *, now: float) -> str | None:
    """Why its work stands still: something has been due for more than STALL_S."""
    due = machine.next_timer()
    if due is None or now - due <= STALL_S:
        return None
    return f"what was due {now - due:.0f} s ago is not done"


def status_of(
    agent: Agent,
    lately: Lately,
    *,
    now: float,
    started: float,
    storage: Path,
    journal: Journal,
    link: dict[str, int],
    sensor: SensorStatus | None = None,
    switch: SwitchStatus | None = None,
    mesh: MeshStatus | None = None,
    more: Mapping[str, int] | None = None,
) -> MeterStatus:
    """How that meter is at `now`, monotonic seconds as the agent counts them, like `started`."""
    clock = agent.clock
    utc = clock.utc(now)
    best = clock.best_at(now)
    owed = agent.owed_days
    hindrance, until = lately.hindrance or (None, None)
    return MeterStatus(
        meter=format_eui64(agent.meter),
        at=int(utc),
        started_at=int(clock.utc(started)),
        stage=agent.stage.value,
        head_end=None if agent.head_end_peer is None else _address(agent.head_end_peer),
        owed_days=len(owed),
        oldest_owed_day=min(owed, default=None),
        recorded_until=agent.recorded_until,
        last_report_day=lately.report_day,
        last_report_at=_whole(lately.report_at),
        last_read_at=_whole(lately.read_at),
        hindrance=hindrance,
        hindered_until=_whole(until),
        stall=stall_of(agent, now=now),
        clock=clock.state_at(now).name.lower(),
        clock_error_s=None if best is None else round(best.error_s, 3),
        clock_bound_s=None if best is None else round(best.bound_at(now), 3),
        storage=str(storage),
        written_octets=journal.written_octets,
        flushes=journal.sync_count,
        storage_failure=lately.storage_failure(utc),
        counters=_some({**agent.counters, **(more or {})}),
        refused=_some(agent.refused),
        link=_some(link),
        sensor=sensor,
        switch=switch,
        mesh=mesh,
    )


def _word(one: enum.Enum) -> str:
    return one.name.lower().replace("_", " ")


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _some(counters: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counters.items())[:NAMES_MAX])


def _address(peer: object) -> str:
    """HOST:PORT of a socket address."""
    if not isinstance(peer, tuple) or len(peer) < 2:
        return str(peer)
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
