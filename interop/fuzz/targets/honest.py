"""The honest peer's part of handshakes, the same in every run: one answer to the same octets."""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.errors import AmiError
from amistack.identifiers import Eui64
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc import (
    Initiator,
    Responder,
    ephemeral_from_bytes,
    prepend_connection_id,
)
from amistack.session.fleet import encode_public_key, head_end_credential, meter_credential

METER: Final = Eui64(bytes.fromhex("02004c00000000a1"))
C_I: Final = b"\x05"


def _private_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(
        int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"), ec.SECP256R1()
    )


def _meter_key() -> AuthenticationKey:
    key = _private_key("meter")
    return AuthenticationKey(key, meter_credential(METER, encode_public_key(key.public_key())))


def _head_end_key() -> AuthenticationKey:
    key = _private_key("head-end")
    return AuthenticationKey(key, head_end_credential(encode_public_key(key.public_key())))


METER_KEY: Final = _meter_key()
HEAD_END_KEY: Final = _head_end_key()
KNOWN: Final[dict[IdCred, Credential]] = {
    key.credential.id_cred: key.credential for key in (METER_KEY, HEAD_END_KEY)
}


@functools.lru_cache(maxsize=1)
def message_1() -> bytes:
    return _honest_initiator().message_1(_ephemeral("x"))


@functools.lru_cache(maxsize=512)
def message_3(message_2: bytes) -> bytes | None:
    """What an honest meter says to `message_2`; None where it refuses."""
    initiator = _honest_initiator()
    initiator.message_1(_ephemeral("x"))
    try:
        id_cred = initiator.receive_message_2(message_2)
        initiator.authenticate_responder(KNOWN[id_cred])
    except (AmiError, KeyError):
        return None
    return prepend_connection_id(initiator.c_r, initiator.message_3())


@functools.lru_cache(maxsize=512)
def message_2(message_1: bytes) -> bytes | None:
    """What an honest head-end says to `message_1`; None where it refuses."""
    responder = Responder(HEAD_END_KEY)
    try:
        facts = responder.receive_message_1(message_1)
        return responder.message_2(
            ephemeral_from_bytes(facts.suite, hashlib.sha256(b"y").digest()), c_r=b"\x2a\x2b"
        )
    except AmiError:
        return None


def _honest_initiator() -> Initiator:
    return Initiator(METER_KEY, suites=(2,), c_i=C_I)


def _ephemeral(name: str) -> ec.EllipticCurvePrivateKey:
    key = ephemeral_from_bytes(2, hashlib.sha256(name.encode()).digest())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
