"""EDHOC with lakers, an implementation in Rust: method 3, suite 2.

Gives   whole handshakes in both roles for connection identifiers of every encoding, and what both
        export; credentials by reference and by value; additional data both ways; impostors
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from amistack.session.credentials import AuthenticationKey, kccs_credential
from amistack.session.edhoc import EadItem, Fault, Initiator, Responder, State, ephemeral_from_bytes
from interop.conformance.suite import Case, VectorSuite, reason_of
from interop.peers.identities import HEAD_END, METER, scalar_of

if TYPE_CHECKING:
    import lakers

INSTALL: Final = "pip install lakers-python"
SUITE_2: Final = 2
IDENTIFIERS: Final = (
    b"\x00", b"\x17", b"\x18", b"\x20", b"\x37", b"\x38", b"\xff", b"\x00\x01", bytes(7)
)  # fmt: skip
# lakers 0.6.2 writes a label above 23 as one bare octet, which is no CBOR integer.
EXPORT_LABEL: Final = 23
EXPORT_SIZE: Final = 77


def missing() -> str | None:
    """The line that installs it, or None if it is there."""
    found = importlib.util.find_spec("lakers")
    return None if found is not None else f"lakers is not installed: {INSTALL}"


def version() -> str:
    """What judges."""
    try:
        return f"lakers {importlib.metadata.version('lakers-python')}"
    except importlib.metadata.PackageNotFoundError:
        return "lakers"


@dataclass(frozen=True, slots=True)
class Keys:
    """What a party exports at the end: for OSCORE, and again after a key update."""

    master_secret: bytes
    master_salt: bytes
    sender_id: bytes
    recipient_id: bytes
    exported_after_update: bytes


def _ours(machine: Initiator | Responder) -> Keys:
    parameters = machine.oscore_parameters()
    machine.key_update(b"again")
    exported = machine.export(EXPORT_LABEL, b"context", EXPORT_SIZE)
    return Keys(
        parameters.master_secret,
        parameters.master_salt,
        parameters.sender_id,
        parameters.recipient_id,
        exported,
    )


def _theirs(
    peer: lakers.EdhocInitiator | lakers.EdhocResponder, sender_id: bytes, recipient_id: bytes
) -> Keys:
    """Theirs, in the places that they have from our side."""
    secret = bytes(peer.edhoc_exporter(0, b"", 16))
    salt = bytes(peer.edhoc_exporter(1, b"", 8))
    peer.edhoc_key_update(b"again")
    exported = bytes(peer.edhoc_exporter(EXPORT_LABEL, b"context", EXPORT_SIZE))
    return Keys(secret, salt, sender_id, recipient_id, exported)


def _credential(octets: bytes) -> lakers.Credential:
    import lakers

    return lakers.Credential(octets)


@dataclass(frozen=True, slots=True)
class Run:
    """How a handshake ended: both agree if what each side has is the same."""

    state: State
    id_cred_seen: bytes
    do_agree: bool
    ead_seen: tuple[tuple[EadItem, ...], ...] = ()


def we_begin(c_i: bytes, c_r: bytes, ead: Sequence[EadItem] = ()) -> Run:
    """Our initiator, their responder, with message_4."""
    import lakers

    ours = Initiator(METER.key, c_i=c_i)
    peer = lakers.EdhocResponder(HEAD_END.scalar, _credential(HEAD_END.key.credential.octets))
    _, ead_1 = peer.process_message_1(
        ours.message_1(ephemeral_from_bytes(SUITE_2, scalar_of("x")), ead=ead)
    )
    message_2 = peer.prepare_message_2(
        lakers.CredentialTransfer.ByReference, c_r, _their_items(ead)
    )
    ours.receive_message_2(message_2)
    ours.authenticate_responder(HEAD_END.key.credential)
    id_cred_i, ead_3 = peer.parse_message_3(ours.message_3(ead=ead))
    peer.verify_message_3(_credential(METER.key.credential.octets))
    ead_4 = ours.receive_message_4(peer.prepare_message_4(_their_items(ead)))
    seen = (_our_items(ead_1), ours.ead_2, _our_items(ead_3), ead_4)
    do_agree = _ours(ours) == _theirs(peer, c_r, c_i)
    return Run(ours.state, bytes(id_cred_i), do_agree, seen if ead else ())


def they_begin(c_i: bytes, c_r: bytes, ead: Sequence[EadItem] = ()) -> Run:
    """Their initiator, our responder, with message_4."""
    import lakers

    ours = Responder(HEAD_END.key)
    peer = lakers.EdhocInitiator()
    facts = ours.receive_message_1(peer.prepare_message_1(c_i=c_i, ead_1=_their_items(ead)))
    message_2 = ours.message_2(ephemeral_from_bytes(SUITE_2, scalar_of("y")), c_r=c_r, ead=ead)
    _, id_cred_r, ead_2 = peer.parse_message_2(message_2)
    peer.verify_message_2(
        METER.scalar,
        _credential(METER.key.credential.octets),
        _credential(HEAD_END.key.credential.octets),
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference, _their_items(ead))
    ours.receive_message_3(message_3)
    ours.authenticate_initiator(METER.key.credential)
    ead_4 = peer.process_message_4(ours.message_4(ead=ead))
    seen = (facts.ead, _our_items(ead_2), ours.ead_3, _our_items(ead_4))
    do_agree = _ours(ours) == _theirs(peer, c_i, c_r)
    return Run(ours.state, bytes(id_cred_r), do_agree, seen if ead else ())


def _their_items(items: Sequence[EadItem]) -> list[lakers.EADItem] | None:
    import lakers

    if not items:
        return None
    return [
        lakers.EADItem(abs(item.label), is_critical=item.label < 0)
        if item.value is None
        else lakers.EADItem(abs(item.label), is_critical=item.label < 0, value=item.value)
        for item in items
    ]


def _our_items(items: Sequence[lakers.EADItem]) -> tuple[EadItem, ...]:
    found = []
    for item in items:
        label = -item.label() if item.is_critical() else item.label()
        value = item.value()
        found.append(EadItem(label, None if value is None else bytes(value)))
    return tuple(found)


def refuse_critical() -> object:
    """Their message_1 with additional data that must be understood. Raises EdhocError."""
    import lakers

    item = lakers.EADItem(7, is_critical=True, value=b"hello")
    message_1 = lakers.EdhocInitiator().prepare_message_1(c_i=b"\x01", ead_1=[item])
    return Responder(HEAD_END.key).receive_message_1(message_1)


def impostor_begins() -> str:
    """Their initiator names the meter's credential and has another key; our refusal."""
    import lakers

    ours, peer = Responder(HEAD_END.key), lakers.EdhocInitiator()
    ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01"))
    message_2 = ours.message_2(ephemeral_from_bytes(SUITE_2, scalar_of("y")), c_r=b"\x02")
    peer.parse_message_2(message_2)
    peer.verify_message_2(
        scalar_of("thief"),
        _credential(METER.key.credential.octets),
        _credential(HEAD_END.key.credential.octets),
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference)
    ours.receive_message_3(message_3)
    return reason_of(lambda: ours.authenticate_initiator(METER.key.credential))


def impostor_answers() -> str:
    """Their responder names the head-end's credential and has another key; our refusal."""
    import lakers

    ours = Initiator(METER.key, c_i=b"\x01")
    peer = lakers.EdhocResponder(scalar_of("thief"), _credential(HEAD_END.key.credential.octets))
    peer.process_message_1(ours.message_1(ephemeral_from_bytes(SUITE_2, scalar_of("x"))))
    ours.receive_message_2(peer.prepare_message_2(lakers.CredentialTransfer.ByReference, b"\x02"))
    return reason_of(lambda: ours.authenticate_responder(HEAD_END.key.credential))


def they_send_theirs_by_value() -> Run:
    """Their initiator puts its whole credential into message_3."""
    import lakers

    ours, peer = Responder(HEAD_END.key), lakers.EdhocInitiator()
    ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01"))
    message_2 = ours.message_2(ephemeral_from_bytes(SUITE_2, scalar_of("y")), c_r=b"\x02")
    peer.parse_message_2(message_2)
    peer.verify_message_2(
        METER.scalar,
        _credential(METER.key.credential.octets),
        _credential(HEAD_END.key.credential.octets),
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByValue)
    id_cred = ours.receive_message_3(message_3)
    ours.authenticate_initiator(kccs_credential(METER.key.credential.octets))
    peer.process_message_4(ours.message_4())
    do_agree = _ours(ours) == _theirs(peer, b"\x01", b"\x02")
    return Run(ours.state, id_cred.encode_map(), do_agree)


def we_send_ours_by_value() -> Run:
    """Our initiator puts its whole credential into message_3."""
    import lakers

    own = AuthenticationKey(METER.key.private_key, kccs_credential(METER.key.credential.octets))
    ours = Initiator(own, c_i=b"\x01")
    peer = lakers.EdhocResponder(HEAD_END.scalar, _credential(HEAD_END.key.credential.octets))
    peer.process_message_1(ours.message_1(ephemeral_from_bytes(SUITE_2, scalar_of("x"))))
    ours.receive_message_2(peer.prepare_message_2(lakers.CredentialTransfer.ByReference, b"\x02"))
    ours.authenticate_responder(HEAD_END.key.credential)
    id_cred, _ = peer.parse_message_3(ours.message_3())
    peer.verify_message_3(_credential(METER.key.credential.octets))
    ours.receive_message_4(peer.prepare_message_4())
    do_agree = _ours(ours) == _theirs(peer, b"\x02", b"\x01")
    return Run(ours.state, bytes(id_cred), do_agree)


def cases() -> list[Case]:
    """Both roles for each pair of neighbours in IDENTIFIERS; then additional data."""
    meter, head_end = METER.key.credential.id_cred, HEAD_END.key.credential.id_cred
    ead = (EadItem(7, b"hello"), EadItem(300))
    found = []
    for c_i, c_r in itertools.pairwise(IDENTIFIERS):
        names = f"C_I {c_i.hex()}, C_R {c_r.hex()}"
        ours = Run(State.CONFIRMED, meter.encode_map(), do_agree=True)
        theirs = Run(State.CONFIRMED, head_end.encode_map(), do_agree=True)
        found.append(Case(f"we begin, {names}", ours, functools.partial(we_begin, c_i, c_r)))
        found.append(Case(f"they begin, {names}", theirs, functools.partial(they_begin, c_i, c_r)))
    seen = (ead,) * 4
    value = kccs_credential(METER.key.credential.octets).id_cred
    by_value = Run(State.CONFIRMED, value.encode_map(), do_agree=True)
    return [
        *found,
        Case(
            "we begin, additional data in every message",
            Run(State.CONFIRMED, meter.encode_map(), do_agree=True, ead_seen=seen),
            lambda: we_begin(b"\x01", b"\x02", ead),
        ),
        Case(
            "they begin, additional data in every message",
            Run(State.CONFIRMED, head_end.encode_map(), do_agree=True, ead_seen=seen),
            lambda: they_begin(b"\x01", b"\x02", ead),
        ),
        Case("they send their credential by value", by_value, they_send_theirs_by_value),
        Case("we send our credential by value", by_value, we_send_ours_by_value),
        Case(
            "they read our credential's kid as we mean it",
            b"\x0a",
            lambda: bytes(_credential(METER.key.credential.octets).kid()),
        ),
        Case("their initiator is an impostor", str(Fault.NOT_AUTHENTIC), impostor_begins),
        Case("their responder is an impostor", str(Fault.NOT_AUTHENTIC), impostor_answers),
        Case(
            "their critical additional data is refused",
            str(Fault.CRITICAL_EAD),
            lambda: reason_of(refuse_critical),
        ),
    ]


SUITE: Final = VectorSuite(
    "edhoc-lakers",
    "EDHOC: whole handshakes, each side ours and theirs",
    version(),
    cases,
    missing,
    is_live=True,
)
