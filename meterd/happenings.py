"""What an agent tells its driver: where the conversation stands, and what happened in it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amistack.session.credentials import IdCred


class Stage(enum.Enum):
    """Where the conversation stands."""

    SECURING = "securing"
    REGISTERING = "registering"
    REPORTING = "reporting"


@dataclass(frozen=True, slots=True)
class Secured:
    """There is a new session with the head-end."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The head-end has taken the registration."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The report of `day` is acknowledged; `verdicts` says what was not plainly accepted."""

    day: int
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadSent:
    """A read of the schedule `number`, up to the UTC second `until`, is acknowledged."""

    number: int
    until: int
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadAnswered:
    """An on-demand read was answered."""

    identifier: bytes


@dataclass(frozen=True, slots=True)
class Hindered:
    """Something did not work and is tried again in `retry_s` seconds."""

    stage: Stage
    reason: str
    retry_s: float
    may_be_elsewhere: bool = False
    """Whether another address may help: whoever is at this one did not prove to be the head-end."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a part had to say is acknowledged, after something had hindered the meter."""


@dataclass(frozen=True, slots=True)
class HeadEndWanted:
    """It has something to say and no address: `set_head_end_peer` or `miss_head_end` answers."""


@dataclass(frozen=True, slots=True)
class StorageFailed:
    """Something could not be made durable, so it was not said; tried again in `retry_s` seconds."""

    reason: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class StorageDamaged:
    """The storage had `lost_octets` that no start can read; what was behind them is lost."""

    lost_octets: int


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """Another key of the head-end's is trusted from now on: `id_cred`, of that epoch."""

    id_cred: IdCred
    epoch: int


@dataclass(frozen=True, slots=True)
class PlaceChanged:
    """In a mesh: the preferred parent is another node, None where there is none; with our rank."""

    parent: int | None
    rank: int


AgentEvent = (
    Secured
    | Registered
    | Reported
    | ReadSent
    | ReadAnswered
    | Hindered
    | Recovered
    | HeadEndWanted
    | StorageFailed
    | StorageDamaged
    | KeyChanged
)

MeterEvent = AgentEvent | PlaceChanged
