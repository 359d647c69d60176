"""Handshakes whose credentials are named, hashed, or sent along: every form with every suite.

The contract under test: in each suite and method the parties come to the same keys whatever form
either gives its credential; a credential that was sent proves nothing but that its sender owns it;
one changed octet on the way, in a certificate say, ends the handshake.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.message import Message
from amistack.errors import EdhocError
from amistack.session.approach import Approach
from amistack.session.chains import TrustAnchors, judge
from amistack.session.credentials import (
    CREDENTIAL_SIZE_MAX,
    AuthenticationKey,
    Credential,
    IdCred,
    Kccs,
    Kid,
    X5chain,
    X5t,
    carried_credential,
    ccs_credential,
    kccs_credential,
    known_credential,
    x5chain_credential,
    x5t_credential,
)
from amistack.session.edhoc import (
    ErrorMessage,
    Initiator,
    Method,
    OscoreParameters,
    Responder,
    ephemeral_from_bytes,
)
from amistack.session.handshakes import CredentialWanted, Desk, SessionProposed
from tests.session.certificates import NOON, authority, issue
from tests.session.edhoc_pairs import C_I, C_R, EVERY_PAIR, private_key, scalar

FORMS: Final = ("kid", "kccs", "x5t", "x5chain")
EVERY_CASE: Final = tuple(
    (suite, method, ours, theirs)
    for (suite, method), ours, theirs in itertools.product(EVERY_PAIR, FORMS, FORMS)
)
Tamper = Callable[[bytes], bytes]


@functools.cache
def certified(name: str, suite: int, method: int) -> tuple[bytes, bytes]:
    """A certificate, and that of the authority below the root which issued it."""
    middle = authority("middle", authority("root"))
    own = issue(name, private_key(name, suite, method), middle)
    return own.certificate, middle.certificate


@functools.cache
def key_of(name: str, suite: int, method: int, form: str) -> AuthenticationKey:
    key = private_key(name, suite, method)
    ccs = ccs_credential(scalar(name)[:3], name, key.public_key())
    if form == "kid":
        return AuthenticationKey(key, ccs)
    if form == "kccs":
        return AuthenticationKey(key, kccs_credential(ccs.octets))
    certificates = certified(name, suite, method)
    if form == "x5t":
        return AuthenticationKey(key, x5t_credential(certificates[0]))
    return AuthenticationKey(key, x5chain_credential(certificates))


def unchanged(octets: bytes) -> bytes:
    return octets


class Pair:
    """Two parties who look one another up, or judge what was sent."""

    def __init__(self, suite: int, method: int, ours: str, theirs: str) -> None:
        self.suite, self.method = suite, Method(method)
        self.meter = key_of("meter", suite, method, ours)
        self.head_end = key_of("head-end", suite, method, theirs)
        self.initiator = Initiator(self.meter, method=method, suites=(suite,), c_i=C_I)
        self.responder = Responder(self.head_end)
        self.anchors = TrustAnchors([authority("root").certificate])

    def found(self, id_cred: IdCred) -> Credential:
        if isinstance(id_cred, X5chain):
            return judge(id_cred, self.anchors, at=NOON, method=self.method)
        known = known_credential(id_cred, [self.meter.credential, self.head_end.credential])
        if known is None:
            raise EdhocError("nobody")
        return known

    def run(self, second: Tamper = unchanged, third: Tamper = unchanged) -> list[bytes]:
        message_1 = self.initiator.message_1(ephemeral_from_bytes(self.suite, scalar("x")))
        self.responder.receive_message_1(message_1)
        message_2 = self.responder.message_2(ephemeral_from_bytes(self.suite, scalar("y")), c_r=C_R)
        id_cred_r = self.initiator.receive_message_2(second(message_2))
        self.initiator.authenticate_responder(self.found(id_cred_r))
        message_3 = self.initiator.message_3()
        id_cred_i = self.responder.receive_message_3(third(message_3))
        self.responder.authenticate_initiator(self.found(id_cred_i))
        return [message_1, message_2, message_3]


@pytest.mark.parametrize(("suite", "method", "ours", "theirs"), EVERY_CASE)
def test_both_come_to_the_same_keys_whatever_form_their_credentials_have(
    suite: int, method: int, ours: str, theirs: str
) -> None:
    pair = Pair(suite, method, ours, theirs)
    pair.run()
    ours_out, theirs_out = pair.initiator.oscore_parameters(), pair.responder.oscore_parameters()
    assert ours_out.master_secret == theirs_out.master_secret
    assert ours_out.master_salt == theirs_out.master_salt


@pytest.mark.parametrize("method", [0, 3])
def test_the_form_is_part_of_what_is_proven(method: int) -> None:
    """The same CCS or certificate under another ID_CRED_R gives other keys, not the same."""
    secrets = set()
    for form in FORMS:
        pair = Pair(2, method, "kid", form)
        pair.run()
        secrets.add(pair.initiator.oscore_parameters().master_secret)
    assert len(secrets) == len(FORMS)


@settings(deadline=None, max_examples=250)
@given(
    case=st.sampled_from(EVERY_CASE),
    is_second=st.booleans(),
    place=st.integers(0, 4000),
    flip=st.integers(1, 255),
)
def test_one_changed_octet_always_ends_the_handshake(
    case: tuple[int, int, str, str], is_second: bool, place: int, flip: int
) -> None:
    def tamper(octets: bytes) -> bytes:
        at = place % len(octets)
        return octets[:at] + bytes((octets[at] ^ flip,)) + octets[at + 1 :]

    pair = Pair(*case)
    with pytest.raises(EdhocError):
        pair.run(tamper if is_second else unchanged, unchanged if is_second else tamper)


@pytest.mark.parametrize("form", FORMS)
def test_names_stay_short_and_values_are_sent(form: str) -> None:
    pair = Pair(2, 3, form, "kid")
    _, _, message_3 = pair.run()
    octets = pair.meter.credential.octets
    is_by_value = form in ("kccs", "x5chain")
    assert (len(message_3) > len(octets)) == is_by_value


def test_a_ccs_without_a_kid_can_be_sent_and_is_its_octets() -> None:
    key = private_key("meter", 2, 3)
    octets = ccs_credential(b"gone", "meter", key.public_key()).octets
    without = octets.replace(b"\x02\x44gone", b"", 1)
    # The map of the key has one pair less now.
    without = without.replace(b"\x01\xa5\x01\x02", b"\x01\xa4\x01\x02", 1)
    credential = kccs_credential(without)
    assert credential.public_key == key.public_key()
    assert credential.id_cred == Kccs(without)
    assert carried_credential(credential.id_cred) == credential
    with pytest.raises(EdhocError):
        known_credential(Kccs(b"\xa0"), [credential])


def test_what_only_names_a_credential_carries_none() -> None:
    assert carried_credential(Kid(b"x")) is None
    assert carried_credential(X5t(-15, bytes(8))) is None


def test_a_chain_is_known_by_its_first_certificate() -> None:
    """So one certificate can be pinned where there is no authority to trust."""
    sent = key_of("meter", 2, 3, "x5chain").credential
    pinned = key_of("meter", 2, 3, "x5t").credential
    assert known_credential(sent.id_cred, [pinned]) == sent
    other = key_of("head-end", 2, 3, "x5t").credential
    assert known_credential(sent.id_cred, [other]) is None
    assert known_credential(sent.id_cred, []) is None


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_values_that_are_no_credentials_raise_edhoc_error_and_nothing_else(
    claims: bytes, certificates: list[bytes]
) -> None:
    for id_cred in (Kccs(claims), X5chain(tuple(certificates))):
        with pytest.raises(EdhocError):
            carried_credential(id_cred)


@pytest.mark.parametrize("count", [0, 5])
def test_a_chain_has_one_to_four_certificates(count: int) -> None:
    with pytest.raises(EdhocError):
        x5chain_credential([b"x"] * count)


def test_a_value_over_the_bound_is_refused_unread() -> None:
    with pytest.raises(EdhocError, match="at most"):
        kccs_credential(b"\xa0" * (CREDENTIAL_SIZE_MAX + 1))


@pytest.mark.parametrize(
    "certificate",
    [
        issue("rsa", rsa.generate_private_key(65537, 2048)).certificate,
        bytes(CREDENTIAL_SIZE_MAX + 1),
        b"",
    ],
    ids=["RSA", "too long", "nothing"],
)
def test_certificates_that_no_suite_can_use_are_no_credentials(certificate: bytes) -> None:
    for make in (x5t_credential, lambda octets: x5chain_credential([octets])):
        with pytest.raises(EdhocError, match="bad credential"):
            make(certificate)


def test_identifiers_say_briefly_what_they_are() -> None:
    chain = key_of("meter", 2, 3, "x5chain").credential
    assert str(chain).startswith("x5chain of 2, ")
    assert str(key_of("meter", 2, 3, "kccs").credential).startswith("kccs of ")
    assert str(key_of("meter", 2, 3, "x5t").credential).startswith("x5t -15 ")


@pytest.mark.parametrize("method", [0, 3])
def test_two_that_never_met_join_by_certificates_of_one_authority(method: int) -> None:
    """Desk and approach, each with nothing but an anchor; what is wrong is counted by its name."""
    anchors = TrustAnchors([authority("root").certificate])
    meter, head_end = (key_of(name, 2, method, "x5chain") for name in ("meter", "head-end"))

    def believed(id_cred: IdCred, at: datetime = NOON) -> Credential | None:
        if not isinstance(id_cred, X5chain):
            return None
        return judge(id_cred, anchors, at=at, method=Method(method))

    desk = Desk(
        head_end,
        entropy=random.Random(1).randbytes,
        is_taken=lambda identifier: False,
        methods=(method,),
    )
    for at, is_welcome in ((NOON, True), (NOON + timedelta(days=9), False)):
        approach = Approach(
            meter,
            (),
            c_i=C_I,
            entropy=random.Random(2 + is_welcome).randbytes,
            method=method,
            resolve=believed,
        )
        answer = desk.receive(approach.first_message(), "peer", now=0.0)
        assert isinstance(answer, Message)
        message_3 = approach.receive(answer)
        assert isinstance(message_3, Message)
        assert approach.id_cred == head_end.credential.id_cred
        wanted = desk.receive(message_3, "peer", now=0.0)
        assert isinstance(wanted, CredentialWanted)
        if not is_welcome:
            with pytest.raises(EdhocError) as refused:
                believed(wanted.id_cred, at)
            answer = desk.refuse_credential(wanted.handshake, refused.value)
            assert ErrorMessage.decode(answer.payload) == ErrorMessage(1, "chain: expired")
            continue
        outcome = desk.provide_credential(wanted.handshake, believed(wanted.id_cred, at), "peer")
        assert isinstance(outcome, SessionProposed)
        keys = approach.receive(desk.conclude(wanted.handshake))
        assert isinstance(keys, OscoreParameters)
        assert keys.master_secret == outcome.parameters.master_secret
    assert desk.refused == {"chain: expired": 1}
