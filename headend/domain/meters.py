"""Meters as the head-end knows them: identity, security session, location, registration."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amistack.identifiers import Eui64


class MeterState(enum.IntEnum):
    """Where a meter stands in the registry; only an enrolled one may open a session.

    The numbers are stored; headend/domain/standing.py has the moves between them.
    """

    ENROLLED = 1
    KNOWN = 2
    """Its key came in a shipment; it may not join yet."""
    SUSPENDED = 3
    """For now: nothing of it is taken; its session waits."""
    REVOKED = 4
    """For ever: its key is not trusted any more."""
    RETIRED = 5
    """Out of service; what it reported stays."""

    @property
    def word(self) -> str:
        """As it is written in commands and documents."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Meter:
    """A row of the asset registry.

    `public_key` is the device's P-256 key as a compressed point (33 octets); `enrolled_at` UTC s.
    """

    id: Eui64
    public_key: bytes
    state: MeterState
    enrolled_at: int


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A security context as it must survive a restart (RFC 8613 section 3 and appendix B.1).

    `recipient_id` is the identifier that the meter's requests carry and the head-end gave out;
    `reserved_until` is the first sender sequence number that must not be used; `window` is the
    base and bitmap of the replay window; `established_at` UTC s. After a backup was put back the
    window may be older than what was accepted: it is doubtful until the meter proves to be new.
    """

    meter: Eui64
    recipient_id: bytes
    sender_id: bytes
    master_secret: bytes
    master_salt: bytes
    algorithm: int
    reserved_until: int
    window: tuple[int, int]
    established_at: int
    is_window_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class FormerSession:
    """The security context that a meter had before its present one; `replaced_at` UTC s."""

    meter: Eui64
    recipient_id: bytes
    sender_id: bytes
    master_secret: bytes
    master_salt: bytes
    algorithm: int
    window: tuple[int, int]
    replaced_at: int


class CloneSign(enum.Enum):
    """What showed that two devices hold the keys of one meter."""

    NUMBER_TAKEN = "two messages under one number"
    NUMBER_BEHIND = "numbers out of order"
    FORMER_SESSION = "speaks in a session that was replaced"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A meter of which there seem to be two, one perhaps a copy of the other.

    `path` is where the message came from that showed it last, `other_path` where the meter had
    been heard before; `count` how often it was seen. UTC s.
    """

    meter: Eui64
    sign: CloneSign
    first_at: int
    last_at: int
    count: int
    path: str
    other_path: str


@dataclass(frozen=True, slots=True)
class Location:
    """The path on which a meter was last heard, such as `udp:192.0.2.7:5683`; UTC s."""

    meter: Eui64
    path: str
    confirmed_at: int


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """One channel of a meter as declared at registration.

    The reading types are dotted CIM codes; `multiplier` is a power of ten on `unit`.
    """

    number: int
    reading_type: str
    register_type: str
    multiplier: int
    unit: str
    interval_s: int


@dataclass(frozen=True, slots=True)
class RegistrationRecord:
    """What a meter declared when it registered; `registered_at` UTC s, offset in minutes."""

    meter: Eui64
    registered_at: int
    reason: int
    software: str
    model_version: int
    channel_set: int
    standard_offset_min: int
    channels: tuple[ChannelRecord, ...]
