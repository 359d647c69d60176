"""A fleet that a head-end knows already: its store filled, and the meters' side of each session.

Every key follows from a number, so that nothing needs to be kept: never for a real meter.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.identifiers import Eui64
from amistack.model import Registration, RegistrationReason
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from amistack.session.oscore import AES_CCM_16_64_128, ReplayWindow, SecurityContext
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.southbound.intake import record_of
from headend.store.interface import EnrolMeters, KeepDelivery, KeepSession
from headend.store.sqlite import SqliteStore
from interop.bench.households import CHANNEL_SET, CHANNELS

RESERVED: Final = 64
GROUP: Final = 4_000
"""Meters whose writes are queued together: well within the store's bound."""


@dataclass(frozen=True, slots=True)
class Known:
    """One meter and the session it has; the identifiers are as the head-end gave and got them."""

    meter: Eui64
    kid: bytes
    master_secret: bytes
    master_salt: bytes
    address: tuple[str, int]

    def meter_context(self) -> SecurityContext:
        """The meter's side, with numbers to spare."""
        context = self._context(sender_id=self.kid, recipient_id=METER_KID)
        context.reserve(RESERVED)
        return context

    def head_end_context(self) -> SecurityContext:
        """The head-end's side."""
        return self._context(sender_id=METER_KID, recipient_id=self.kid)

    def _context(self, *, sender_id: bytes, recipient_id: bytes) -> SecurityContext:
        return SecurityContext.derive(
            master_secret=self.master_secret,
            master_salt=self.master_salt,
            sender_id=sender_id,
            recipient_id=recipient_id,
        )


METER_KID: Final = b"\x05"
"""What every meter gave out (C_I): one octet, as meters do."""


def known(number: int, port: int = 5683) -> Known:
    """The meter of that number, at an address of its own on the loopback network."""
    chance = hashlib.sha256(b"meter %d" % number).digest()
    place = number + 256
    return Known(
        Eui64(b"\x02\x00\x00\x00" + number.to_bytes(4, "big")),
        (number + 1).to_bytes(4, "big"),
        chance[:16],
        chance[16:24],
        (f"127.{1 + (place >> 16)}.{place >> 8 & 0xFF}.{place & 0xFF}", port),
    )


@lru_cache(maxsize=8)
def key_of(name: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that depends on a name alone."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
    return ec.derive_private_key(number, ec.SECP256R1())


def identity_of(name: str) -> AuthenticationKey:
    """That key with a head-end's credential."""
    key = key_of(name)
    return AuthenticationKey(key, head_end_credential(encode_public_key(key.public_key())))


def stock(path: Path, first: int, count: int, *, at: int) -> None:
    """Put meters of those numbers into the store at `path`: enrolled, secured, registered.

    `at` is when, UTC s.
    """
    asyncio.run(_stock(path, first, count, at))


async def _stock(path: Path, first: int, count: int, at: int) -> None:
    # One key for all: nobody makes a handshake here.
    public_key = encode_public_key(key_of("meter").public_key())
    store = SqliteStore.open(path)
    try:
        for begin in range(first, first + count, GROUP):
            meters = [known(number) for number in range(begin, min(begin + GROUP, first + count))]
            await store.commit(
                EnrolMeters(
                    tuple(Meter(one.meter, public_key, MeterState.ENROLLED, at) for one in meters)
                )
            )
            await asyncio.gather(
                *(store.commit(write) for one in meters for write in _writes(one, at))
            )
    finally:
        await store.close()


def _writes(one: Known, at: int) -> Iterator[KeepSession | KeepDelivery]:
    path = f"udp:{one.address[0]}:{one.address[1]}"
    yield KeepSession(
        StoredSession(
            meter=one.meter,
            recipient_id=one.kid,
            sender_id=METER_KID,
            master_secret=one.master_secret,
            master_salt=one.master_salt,
            algorithm=AES_CCM_16_64_128,
            reserved_until=RESERVED,
            window=ReplayWindow().state,
            established_at=at,
        ),
        path,
    )
    registration = Registration(
        meter=one.meter,
        model_versions=(1,),
        software="bench",
        channel_set=CHANNEL_SET,
        standard_offset_min=0,
        channels=CHANNELS,
        reason=RegistrationReason.COLD_BOOT,
    )
    yield KeepDelivery(
        meter=one.meter,
        recipient_id=one.kid,
        window=ReplayWindow().state,
        path=path,
        received_ms=at * 1000,
        records=(record_of(registration, at),),
    )
