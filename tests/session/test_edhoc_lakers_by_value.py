"""EDHOC with credentials by value against lakers, an independent implementation (Rust, Inria).

The contract under test: a CCS sent along by either is what the other reads, both come to the same
keys, and the kccs map has the same octets on both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from amistack.session.credentials import AuthenticationKey, carried_credential, kccs_credential
from amistack.session.edhoc import Initiator, Responder, ephemeral_from_bytes
from tests.session.edhoc_pairs import authentication_key, scalar

if TYPE_CHECKING:
    import lakers
else:
    lakers = pytest.importorskip("lakers")

METER = authentication_key("meter")
HEAD_END = authentication_key("head-end")
X = ephemeral_from_bytes(2, scalar("x"))
Y = ephemeral_from_bytes(2, scalar("y"))


def by_value(key: AuthenticationKey) -> AuthenticationKey:
    return AuthenticationKey(key.private_key, kccs_credential(key.credential.octets))


def theirs(octets: bytes) -> lakers.Credential:
    return lakers.Credential(octets)


def test_our_initiator_reads_their_credential_and_both_agree() -> None:
    ours = Initiator(METER, c_i=b"\x01")
    peer = lakers.EdhocResponder(scalar("head-end"), theirs(HEAD_END.credential.octets))
    peer.process_message_1(ours.message_1(X))
    message_2 = peer.prepare_message_2(lakers.CredentialTransfer.ByValue, b"\x02")
    credential = carried_credential(ours.receive_message_2(message_2))
    assert credential == by_value(HEAD_END).credential
    ours.authenticate_responder(credential)
    peer.parse_message_3(ours.message_3())
    peer.verify_message_3(theirs(METER.credential.octets))
    ours.receive_message_4(peer.prepare_message_4())
    assert ours.oscore_parameters().master_secret == peer.edhoc_exporter(0, b"", 16)


def test_our_responder_reads_their_credential_and_both_agree() -> None:
    ours, peer = Responder(HEAD_END), lakers.EdhocInitiator()
    ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01"))
    peer.parse_message_2(ours.message_2(Y, c_r=b"\x02"))
    peer.verify_message_2(
        scalar("meter"), theirs(METER.credential.octets), theirs(HEAD_END.credential.octets)
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByValue)
    credential = carried_credential(ours.receive_message_3(message_3))
    assert credential == by_value(METER).credential
    ours.authenticate_initiator(credential)
    peer.process_message_4(ours.message_4())
    assert ours.oscore_parameters().master_secret == peer.edhoc_exporter(0, b"", 16)


def test_their_responder_reads_our_credential_and_both_agree() -> None:
    ours = Initiator(by_value(METER), c_i=b"\x01")
    peer = lakers.EdhocResponder(scalar("head-end"), theirs(HEAD_END.credential.octets))
    peer.process_message_1(ours.message_1(X))
    ours.receive_message_2(peer.prepare_message_2(lakers.CredentialTransfer.ByReference, b"\x02"))
    ours.authenticate_responder(HEAD_END.credential)
    id_cred_i, _ = peer.parse_message_3(ours.message_3())
    assert id_cred_i == by_value(METER).credential.id_cred.encode_map()
    peer.verify_message_3(lakers.credential_check_or_fetch(id_cred_i, None))
    ours.receive_message_4(peer.prepare_message_4())
    assert ours.oscore_parameters().master_secret == peer.edhoc_exporter(0, b"", 16)


def test_their_initiator_reads_our_credential_and_both_agree() -> None:
    ours, peer = Responder(by_value(HEAD_END)), lakers.EdhocInitiator()
    ours.receive_message_1(peer.prepare_message_1(c_i=b"\x01"))
    _, id_cred_r, _ = peer.parse_message_2(ours.message_2(Y, c_r=b"\x02"))
    assert id_cred_r == by_value(HEAD_END).credential.id_cred.encode_map()
    peer.verify_message_2(
        scalar("meter"),
        theirs(METER.credential.octets),
        lakers.credential_check_or_fetch(id_cred_r, None),
    )
    message_3, _ = peer.prepare_message_3(lakers.CredentialTransfer.ByReference)
    ours.receive_message_3(message_3)
    ours.authenticate_initiator(METER.credential)
    peer.process_message_4(ours.message_4())
    assert ours.oscore_parameters().master_secret == peer.edhoc_exporter(0, b"", 16)
