"""Meters as the head-end knows them: identity, security session, location, registration."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amistack.identifiers import Eui64


class MeterState(enum.IntEnum):
    """Where a meter stands in the registry; only an enrolled one may open a session."""

    ENROLLED = 1


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
