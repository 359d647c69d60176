"""EDHOC against lakers, an independent implementation (Rust, Inria).

The contract under test: with method 3, suite 2 and credentials by reference, either side
of ours completes a handshake with the other side of theirs, and both export the same keys.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from amistack.errors import EdhocError
from amistack.session.credentials import Kid
from amistack.session.edhoc import EadItem, Initiator, Responder, State, ephemeral_from_bytes
from tests.session.edhoc_pairs import authentication_key, scalar

if TYPE_CHECKING:
    import lakers
else:
    lakers = pytest.importorskip("lakers")

METER = authentication_key("meter")
HEAD_END = authentication_key("head-end")
X = ephemeral_from_bytes(2, scalar("x"))
Y = ephemeral_from_bytes(2, scalar("y"))

IDENTIFIERS = (b"\x00", b"\x17", b"\x18", b"\x20", b"\x37", b"\x38", b"\xff", b"\x00\x01", bytes(7))


def theirs(octets: bytes) -> lakers.Credential:
    return lakers.Credential(octets)


@pytest.mark.parametrize(("c_i", "c_r"), list(itertools.pairwise(IDENTIFIERS)))
def test_our_initiator_and_their_responder_agree(c_i: bytes, c_r: bytes) -> None:
    ours = Initiator(METER, c_i=c_i)
    peer = lakers.EdhocResponder(scalar("head-end"), theirs(HEAD_END.credential.octets))

    peer.process_message_1(ours.message_1(X))
    message_2 = peer.prepare_message_2(lakers.CredentialTransfer.ByReference, c_r)
    assert ours.receive_message_2(message_2) == HEAD_END.credential.id_cred
    ours.authenticate_responder(HEAD_END.credential)
    id_cred_i, _ = peer.parse_message_3(ours.message_3())
    assert id_cred_i == METER.credential.id_cred.encode_map()
    peer.verify_message_3(theirs(METER.credential.octets))
    ours.receive_message_4(peer.prepare_message_4())

    assert ours.state is State.CONFIRMED
    parameters = ours.oscore_parameters()
    assert parameters.master_secret == peer.edhoc_exporter(0, b"", 16)
    assert parameters.master_salt == peer.edhoc_exporter(1, b"", 8)
    assert (parameters.sender_id, parameters.recipient_id) == (c_r, c_i)
    ours.key_update(b"again")
    peer.edhoc_key_update(b"again")
    # lakers 0.6.2 writes a label above 23 as one bare octet, which is no CBOR integer.
    assert ours.export(23, b"context", 77) == peer.edhoc_exporter(23, b"context", 77)


@pytest.mark.parametrize(("c_i", "c_r"), list(itertools.pairwise(IDENTIFIERS)))
def test_their_initiator_and_our_responder_agree(c_i: bytes, c_r: bytes) -> None:
    ours = Responder(HEAD_END)
    peer = lakers.EdhocInitiator()

    facts = ours.receive_message_1(peer.prepare_message_1(c_i=c_i))
    assert (facts.suite, facts.c_i) == (2, c_i)
    seen_c_r, id_cred_r, _ = peer.parse_message_2(ours.message_2(Y, c_r=c_r))
    assert (seen_c_r, id_cred_r) == (c_r, HEAD_END.credential.id_cred.encode_map())
    peer.verify_message_2(
        scalar("meter"), theirs(METER.credential.octets), theirs(HEAD_END.credential.octets)
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference)
    assert ours.receive_message_3(message_3) == METER.credential.id_cred
    ours.authenticate_initiator(METER.credential)
    peer.process_message_4(ours.message_4())

    parameters = ours.oscore_parameters()
    assert parameters.master_secret == peer.edhoc_exporter(0, b"", 16)
    assert parameters.master_salt == peer.edhoc_exporter(1, b"", 8)
    assert (parameters.sender_id, parameters.recipient_id) == (c_i, c_r)
    ours.key_update(b"again")
    peer.edhoc_key_update(b"again")
    # lakers 0.6.2 writes a label above 23 as one bare octet, which is no CBOR integer.
    assert ours.export(23, b"context", 77) == peer.edhoc_exporter(23, b"context", 77)


def test_their_ead_items_arrive_as_sent() -> None:
    ours = Responder(HEAD_END)
    peer = lakers.EdhocInitiator()
    sent = lakers.EADItem(7, is_critical=False, value=b"hello")
    facts = ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01", ead_1=[sent]))
    assert facts.ead == (EadItem(7, b"hello"),)


def test_their_critical_ead_item_is_refused() -> None:
    ours = Responder(HEAD_END)
    peer = lakers.EdhocInitiator()
    sent = lakers.EADItem(7, is_critical=True, value=b"hello")
    with pytest.raises(EdhocError, match="label -7"):
        ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01", ead_1=[sent]))


def test_our_ead_items_arrive_at_their_responder() -> None:
    ours = Initiator(METER, c_i=b"\x01")
    peer = lakers.EdhocResponder(scalar("head-end"), theirs(HEAD_END.credential.octets))
    _, items = peer.process_message_1(ours.message_1(X, ead=[EadItem(7, b"hello")]))
    assert [(item.label(), item.is_critical(), item.value()) for item in items] == [
        (7, False, b"hello")
    ]


def test_ead_items_in_messages_2_and_3_are_authenticated_alike() -> None:
    """The published traces carry none, so that the peer alone vouches for their place."""
    items = [EadItem(7, b"hello"), EadItem(300)]
    theirs_too = [
        lakers.EADItem(7, is_critical=False, value=b"hello"),
        lakers.EADItem(300, is_critical=False),
    ]
    responder, peer = Responder(HEAD_END), lakers.EdhocInitiator()
    responder.receive_message_1(peer.prepare_message_1(c_i=b"\x01", ead_1=theirs_too))
    peer.parse_message_2(responder.message_2(Y, c_r=b"\x02", ead=items))
    peer.verify_message_2(
        scalar("meter"), theirs(METER.credential.octets), theirs(HEAD_END.credential.octets)
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference, theirs_too)
    responder.receive_message_3(message_3)
    responder.authenticate_initiator(METER.credential)
    assert responder.ead_3 == tuple(items)
    peer.process_message_4(responder.message_4(ead=items))

    initiator = Initiator(METER, c_i=b"\x01")
    other = lakers.EdhocResponder(scalar("head-end"), theirs(HEAD_END.credential.octets))
    other.process_message_1(initiator.message_1(X, ead=items))
    message_2 = other.prepare_message_2(lakers.CredentialTransfer.ByReference, b"\x02", theirs_too)
    initiator.receive_message_2(message_2)
    initiator.authenticate_responder(HEAD_END.credential)
    assert initiator.ead_2 == tuple(items)
    other.parse_message_3(initiator.message_3(ead=items))
    other.verify_message_3(theirs(METER.credential.octets))
    assert initiator.receive_message_4(other.prepare_message_4(theirs_too)) == tuple(items)


def test_they_read_our_credential_as_we_mean_it() -> None:
    credential = METER.credential
    assert isinstance(credential.id_cred, Kid)
    assert theirs(credential.octets).kid() == credential.id_cred.value


def test_impostor_with_their_initiator_is_refused_by_our_responder() -> None:
    """Says it is the meter, and has the meter's public credential, but another private key."""
    ours = Responder(HEAD_END)
    peer = lakers.EdhocInitiator()
    ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01"))
    peer.parse_message_2(ours.message_2(Y, c_r=b"\x02"))
    peer.verify_message_2(
        scalar("thief"), theirs(METER.credential.octets), theirs(HEAD_END.credential.octets)
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference)
    assert ours.receive_message_3(message_3) == METER.credential.id_cred
    with pytest.raises(EdhocError, match="not authentic"):
        ours.authenticate_initiator(METER.credential)
    assert ours.state is State.FAILED
