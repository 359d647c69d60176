"""The handshakes that the IETF published, as values by name, and our machines walking them.

Spec    RFC 9529 sections 2 and 3
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from amistack.session.cose import PrivateKey
from amistack.session.credentials import (
    AuthenticationKey,
    Credential,
    decode_ccs,
    x5t_credential,
)
from amistack.session.edhoc import (
    Initiator,
    Responder,
    encode_identifier,
    ephemeral_from_bytes,
)
from amistack.session.edhoc.proofs import Claim
from amistack.session.edhoc.schedule import (
    Label,
)
from amistack.session.edhoc.suites import Method, suite_of
from interop.vectors import load


class Invalid(TypedDict):
    """One published message that must be refused."""

    name: str
    part: str
    hex: str


class Published(TypedDict):
    """The file of vectors."""

    traces: Mapping[str, Mapping[str, str]]
    invalid: Sequence[Invalid]


def published() -> Published:
    """The values of RFC 9529."""
    return cast("Published", load("rfc9529"))


class Trace(dict[str, bytes]):
    """One published handshake: its values by their names, and what they are for us."""

    def __init__(self, name: str) -> None:
        super().__init__(
            {key: bytes.fromhex(text) for key, text in published()["traces"][name].items()}
        )
        self.name = name
        self.method = Method(cbor2.loads(self["METHOD"]))
        suites = cbor2.loads(self["SUITES_I"])
        self.suites_i: tuple[int, ...] = (suites,) if isinstance(suites, int) else tuple(suites)
        self.suite = suite_of(self.suites_i[-1])
        self.is_signed = self.method is Method.SIGN_SIGN

    def credential(self, role: str) -> Credential:
        """CRED_I or CRED_R, read by us."""
        octets = self[f"CRED_{role}"]
        return x5t_credential(octets) if self.is_signed else decode_ccs(octets)

    def key(self, role: str) -> AuthenticationKey:
        """SK_I or SK_R with its credential."""
        octets = self[f"SK_{role}"]
        key: PrivateKey = (
            Ed25519PrivateKey.from_private_bytes(octets)
            if self.is_signed
            else ec.derive_private_key(int.from_bytes(octets), ec.SECP256R1())
        )
        return AuthenticationKey(key, self.credential(role))

    def claim(self, role: str) -> Claim:
        """What Signature_or_MAC_2 or _3 covers."""
        if role == "R":
            prefix = encode_identifier(self["C_R"])
            return Claim(
                Label.MAC_2, self["PRK_3e2m"], prefix, self["TH_2"], self.credential("R"), b""
            )
        return Claim(Label.MAC_3, self["PRK_4e3m"], b"", self["TH_3"], self.credential("I"), b"")


@dataclass(frozen=True, slots=True)
class Walked:
    """Both machines after a whole handshake with the published keys, and what they sent."""

    initiator: Initiator
    responder: Responder
    messages: tuple[bytes, bytes, bytes, bytes]


def walk(trace: Trace) -> Walked:
    """Run the published handshake. Raises EdhocError where either machine refuses the other."""
    initiator = Initiator(
        trace.key("I"), method=trace.method, suites=trace.suites_i, c_i=trace["C_I"]
    )
    responder = Responder(trace.key("R"))
    number = trace.suite.number
    message_1 = initiator.message_1(ephemeral_from_bytes(number, trace["X"]))
    responder.receive_message_1(message_1)
    message_2 = responder.message_2(ephemeral_from_bytes(number, trace["Y"]), c_r=trace["C_R"])
    if initiator.receive_message_2(message_2) == trace.credential("R").id_cred:
        initiator.authenticate_responder(trace.credential("R"))
    message_3 = initiator.message_3()
    if responder.receive_message_3(message_3) == trace.credential("I").id_cred:
        responder.authenticate_initiator(trace.credential("I"))
    message_4 = responder.message_4()
    initiator.receive_message_4(message_4)
    return Walked(initiator, responder, (message_1, message_2, message_3, message_4))


def updated(trace: Trace) -> Walked:
    """The same after EDHOC_KeyUpdate on both sides (RFC 9528 appendix H)."""
    walked = walk(trace)
    for machine in (walked.initiator, walked.responder):
        machine.key_update(trace["key_update_context"])
    return walked
