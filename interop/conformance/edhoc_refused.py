"""What EDHOC must refuse: the suite negotiation of the second trace, and the invalid messages.

Spec    RFC 9529 section 3 (the first message_1, its error), section 4 (invalid messages)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from amistack.errors import EdhocError
from amistack.session.cose import encode_bytes
from amistack.session.credentials import (
    AuthenticationKey,
    ccs_credential,
)
from amistack.session.edhoc import (
    ErrorMessage,
    Fault,
    Initiator,
    Responder,
    encode_error,
    encode_identifier,
    ephemeral_from_bytes,
    suites_after_refusal,
)
from amistack.session.edhoc.messages import (
    Message1,
    Plaintext2,
)
from amistack.session.edhoc.suites import suite_of
from interop.conformance.edhoc_trace import Invalid, Trace
from interop.conformance.suite import Case, reason_of

# What we call the fault of each published invalid message. P-384 is not ours: its suite is refused
# before its key is measured.
FAULTS: Final[Mapping[str, Fault]] = {
    "Surplus array encoding of message": Fault.WRONG_TYPE,
    "Surplus bstr encoding of connection identifier": Fault.NOT_DETERMINISTIC,
    "Surplus array encoding of ciphersuite": Fault.NOT_DETERMINISTIC,
    "Text string encoding of ephemeral key": Fault.WRONG_TYPE,
    "Wrong number of CBOR sequence elements": Fault.SURPLUS_OCTETS,
    "Surplus map encoding of ID_CRED field": Fault.NOT_DETERMINISTIC,
    "Surplus bstr encoding of ID_CRED field": Fault.NOT_DETERMINISTIC,
    "Error in length of ephemeral key": Fault.WRONG_SUITE,
    "Error in elliptic curve representation": Fault.BAD_EPHEMERAL_KEY,
    "Error in elliptic curve point": Fault.BAD_EPHEMERAL_KEY,
    "Curve point of low order": Fault.BAD_EPHEMERAL_KEY,
    "Error in length of MAC": Fault.WRONG_SIZE,
    "Error in elliptic curve encoding": Fault.WRONG_SIZE,
    "Unnecessary long encoding": Fault.NOT_DETERMINISTIC,
    "Indefinite-length array encoding": Fault.NOT_DETERMINISTIC,
}


def negotiation() -> list[Case]:
    """RFC 9529 section 3: suite 6 is refused with our own, and the initiator comes again with 2."""
    trace = Trace("static_dh_kid")
    responder_key = trace.key("R")

    def refusal() -> bytes:
        # Suite 6 is not ours, so that its message_1 comes from the trace.
        try:
            Responder(responder_key, suites=(2,)).receive_message_1(trace["first_message_1"])
        except EdhocError as error:
            return encode_error(error)
        return b""

    def again() -> tuple[int, ...]:
        info = ErrorMessage.decode(trace["error"]).info
        return suites_after_refusal((6, 2), info) if isinstance(info, tuple) else ()

    first = Message1(3, (6,), trace["first_G_X"], trace["first_C_I"])
    cases = [
        Case("negotiation error", trace["error"], refusal),
        Case("negotiation SUITES_I after the error", trace.suites_i, again),
        Case(
            "negotiation first message_1",
            first,
            lambda: Message1.decode(trace["first_message_1"]),
        ),
        Case("negotiation first message_1 written", trace["first_message_1"], first.encode),
        Case(
            "negotiation first C_I_item",
            trace["first_C_I_item"],
            lambda: encode_identifier(trace["first_C_I"]),
        ),
        Case(
            "negotiation first G_X_item",
            trace["first_G_X_item"],
            lambda: encode_bytes(trace["first_G_X"]),
        ),
        Case(
            "negotiation first G_X",
            trace["first_G_X"],
            lambda: suite_of(2).public_octets(ephemeral_from_bytes(2, trace["first_X"])),
        ),
    ]
    for role, kid, subject in (("R", b"2", "example.edu"), ("I", b"+", "42-50-31-FF-EF-37-32-39")):
        public = trace.key(role).private_key.public_key()
        ours = ccs_credential(kid, subject, public).octets
        written = functools.partial(bytes, ours)
        cases.append(Case(f"CRED_{role} written by us", trace[f"CRED_{role}"], written))
    return cases


def invalid_case(invalid: Invalid) -> Case:
    """One published message that must be refused, and our name for its fault."""
    name = invalid["name"].partition(": ")[2]
    octets = bytes.fromhex(invalid["hex"])
    return Case(
        f"invalid {invalid['part']}: {name}",
        str(FAULTS[name]),
        lambda: reason_of(lambda: _feed(invalid["part"], octets)),
    )


def _feed(part: str, octets: bytes) -> object:
    """Give `octets` to whoever takes that part. Raises EdhocError, as it should."""
    trace = Trace("static_dh_kid")
    match part:
        case "message_1":
            # The point of low order alone is of suite 0; it shows when it is used.
            is_suite_0 = octets.startswith(b"\x03\x00")
            responder = Responder(_x25519_key() if is_suite_0 else trace.key("R"))
            facts = responder.receive_message_1(octets)
            ephemeral = ephemeral_from_bytes(facts.suite, trace["Y"])
            return responder.message_2(ephemeral, c_r=b"\x01")
        case "message_2":
            initiator = Initiator(trace.key("I"), c_i=b"\x01")
            initiator.message_1(ephemeral_from_bytes(2, trace["X"]))
            return initiator.receive_message_2(octets)
        case _:
            return Plaintext2.decode(octets, 8)


def _x25519_key() -> AuthenticationKey:
    key = X25519PrivateKey.from_private_bytes(Trace("signatures_x5t")["SK_R"])
    return AuthenticationKey(key, ccs_credential(b"2", "example.edu", key.public_key()))
