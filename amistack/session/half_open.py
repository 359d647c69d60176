"""Handshakes under way at a responder: bounded for each source and in all, the oldest out first.

Spec    RFC 9528 5.3.1 (C_R is the responder's alone), 9.7 (denial of service)
Limit   HALF_OPEN_MAX in all and SOURCE_MAX of one source; beyond, the oldest, or that source's
        oldest, is dropped and counted. Each lives HALF_OPEN_LIFETIME s. CONCLUDED_MAX answers to
        message_3 are kept as long, the oldest dropped. Every operation is of constant cost
Never   reads a clock or makes a message
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from amistack.machine import Peer
from amistack.session.edhoc import Responder

HALF_OPEN_MAX: Final = 4_096
HALF_OPEN_LIFETIME: Final = 60.0
SOURCE_MAX: Final = 1_024
"""Of one source, a quarter of all: behind a carrier's address, or a collector's, there are many
meters, which all come back at once when the power does."""
CONCLUDED_MAX: Final = 4_096

Source = Hashable
"""What one sender cannot have many of: an address without its port."""


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """A handshake that waits for message_3, by the identifier that we gave out for it."""

    c_r: bytes
    responder: Responder
    message_2: bytes
    until: float
    source: Source
    repetition: tuple[Peer, bytes]


@dataclass(frozen=True, slots=True)
class _Concluded:
    """A handshake that ended well: who sends the same message_3 again has missed the answer."""

    message_3: bytes
    until: float


class HalfOpenTable:
    """The handshakes that wait for message_3, and those that ended well a moment ago."""

    def __init__(
        self,
        *,
        count_max: int = HALF_OPEN_MAX,
        source_max: int = SOURCE_MAX,
        lifetime: float = HALF_OPEN_LIFETIME,
    ) -> None:
        self.dropped_count = 0
        self.dropped_of_source_count = 0
        self.count_max = count_max
        self._source_max = source_max
        self._lifetime = lifetime
        # Dictionaries in the order of age, as all live equally long.
        self._by_c_r: dict[bytes, HalfOpen] = {}
        self._by_source: dict[Source, dict[bytes, None]] = {}
        self._by_message: dict[tuple[Peer, bytes], bytes] = {}
        self._concluded: dict[bytes, _Concluded] = {}

    def __len__(self) -> int:
        return len(self._by_c_r)

    def __contains__(self, c_r: bytes) -> bool:
        return c_r in self._by_c_r

    @property
    def concluded_count(self) -> int:
        """Answers that are kept for a repeated message_3."""
        return len(self._concluded)

    def add(
        self,
        c_r: bytes,
        responder: Responder,
        *,
        peer: Peer,
        source: Source,
        message_1: bytes,
        message_2: bytes,
        now: float,
    ) -> None:
        """Keep a handshake that was answered; at a bound the oldest makes room for it."""
        of_source = self._by_source.get(source, {})
        if len(of_source) >= self._source_max:
            self.take(next(iter(of_source)))
            self.dropped_of_source_count += 1
        elif len(self._by_c_r) >= self.count_max:
            self.take(next(iter(self._by_c_r)))
            self.dropped_count += 1
        repetition = peer, _digest(message_1)
        until = now + self._lifetime
        self._by_c_r[c_r] = HalfOpen(c_r, responder, message_2, until, source, repetition)
        self._by_source.setdefault(source, {})[c_r] = None
        self._by_message[repetition] = c_r

    def repeated(self, message_1: bytes, peer: Peer) -> bytes | None:
        """The message_2 that answered those very octets from that peer, or None."""
        c_r = self._by_message.get((peer, _digest(message_1)))
        return None if c_r is None else self._by_c_r[c_r].message_2

    def find(self, c_r: bytes) -> HalfOpen | None:
        """The handshake of that identifier, or None."""
        return self._by_c_r.get(c_r)

    def take(self, c_r: bytes) -> None:
        """Forget the handshake of that identifier. Raises KeyError if there is none."""
        entry = self._by_c_r.pop(c_r)
        of_source = self._by_source[entry.source]
        del of_source[c_r]
        if not of_source:
            del self._by_source[entry.source]
        del self._by_message[entry.repetition]

    def conclude(self, c_r: bytes, message_3: bytes, *, now: float) -> None:
        """Remember that this message_3 ended a handshake well."""
        if len(self._concluded) >= CONCLUDED_MAX:
            del self._concluded[next(iter(self._concluded))]
        self._concluded[c_r] = _Concluded(_digest(message_3), now + self._lifetime)

    def is_concluded(self, c_r: bytes, message_3: bytes) -> bool:
        """Whether those very octets ended the handshake of that identifier well."""
        concluded = self._concluded.get(c_r)
        return concluded is not None and concluded.message_3 == _digest(message_3)

    def expire(self, now: float) -> None:
        """Forget what is over."""
        while self._by_c_r:
            oldest = next(iter(self._by_c_r.values()))
            if oldest.until > now:
                break
            self.take(oldest.c_r)
        while self._concluded:
            c_r, concluded = next(iter(self._concluded.items()))
            if concluded.until > now:
                break
            del self._concluded[c_r]


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()
