"""Keys, credentials and whole handshakes for the EDHOC tests. Nothing here is random."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from amistack.session.cose import PrivateKey
from amistack.session.credentials import AuthenticationKey, Credential, IdCred, ccs_credential
from amistack.session.edhoc import Initiator, Responder, ephemeral_from_bytes

C_I: Final = b"\x05"
C_R: Final = b"\x2a\x2b"
SUITES: Final = (0, 2, 3)
METHODS: Final = (0, 3)
EVERY_PAIR: Final = tuple(itertools.product(SUITES, METHODS))

Tamper = Callable[[bytes], bytes]


class Unknown(Exception):
    """The registry of a test has no such credential."""


def scalar(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def private_key(name: str, suite: int, method: int) -> PrivateKey:
    if suite != 0:
        return ec.derive_private_key(int.from_bytes(scalar(name)), ec.SECP256R1())
    if method == 0:
        return Ed25519PrivateKey.from_private_bytes(scalar(name))
    return X25519PrivateKey.from_private_bytes(scalar(name))


def authentication_key(name: str, suite: int = 2, method: int = 3) -> AuthenticationKey:
    key = private_key(name, suite, method)
    return AuthenticationKey(key, ccs_credential(scalar(name)[:3], name, key.public_key()))


def registry_of(keys: Iterable[AuthenticationKey]) -> Mapping[IdCred, Credential]:
    return {key.credential.id_cred: key.credential for key in keys}


def unchanged(octets: bytes) -> bytes:
    return octets


class Pair:
    """An initiator and a responder who know each other, and the wire between them."""

    def __init__(self, suite: int = 2, method: int = 3) -> None:
        self.suite = suite
        self.meter = authentication_key("meter", suite, method)
        self.head_end = authentication_key("head-end", suite, method)
        self.registry = registry_of([self.meter, self.head_end])
        self.initiator = Initiator(self.meter, method=method, suites=(suite,), c_i=C_I)
        self.responder = Responder(self.head_end)

    def credential_of(self, id_cred: IdCred) -> Credential:
        try:
            return self.registry[id_cred]
        except KeyError:
            raise Unknown(str(id_cred)) from None

    def run(self, *tampers: Tamper) -> list[bytes]:
        """Messages 1 to 3, each through its tamper; what was sent."""
        first, second, third = (*tampers, unchanged, unchanged, unchanged)[:3]
        message_1 = self.initiator.message_1(ephemeral_from_bytes(self.suite, scalar("x")))
        facts = self.responder.receive_message_1(first(message_1))
        message_2 = self.responder.message_2(
            ephemeral_from_bytes(facts.suite, scalar("y")), c_r=C_R
        )
        id_cred_r = self.initiator.receive_message_2(second(message_2))
        self.initiator.authenticate_responder(self.credential_of(id_cred_r))
        message_3 = self.initiator.message_3()
        id_cred_i = self.responder.receive_message_3(third(message_3))
        self.responder.authenticate_initiator(self.credential_of(id_cred_i))
        return [message_1, message_2, message_3]
