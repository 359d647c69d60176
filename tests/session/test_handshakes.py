"""EDHOC in CoAP: the desk of a responder and the approach of an initiator, hand to hand.

The contract under test: a handshake ends in the same keys on both sides or in a counted refusal; a
desk never raises on what a peer sends and never holds more than its bound; what one peer does
costs another nothing; identifiers given out are never given twice.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.errors import EdhocError, LocalProtocolError
from amistack.session import handshakes
from amistack.session.approach import ECHO_COUNT_MAX
from amistack.session.credentials import (
    AuthenticationKey,
    Credential,
    IdCred,
    Kid,
    carried_credential,
    ccs_credential,
    kccs_credential,
    known_credential,
)
from amistack.session.edhoc import (
    EadItem,
    ErrorMessage,
    Initiator,
    Message1Facts,
    OscoreParameters,
    ephemeral_from_entropy,
    prepend_connection_id,
    split_connection_id,
)
from amistack.session.handshakes import (
    CONTENT_FORMAT_CID_EDHOC,
    CONTENT_FORMAT_EDHOC,
    HALF_OPEN_LIFETIME,
    WELL_KNOWN_EDHOC,
    Answering,
    Approach,
    CredentialWanted,
    Desk,
    Entropy,
    SessionProposed,
    host_of,
)
from tests.session.edhoc_pairs import authentication_key

METER = authentication_key("meter")
HEAD_END = authentication_key("head-end")
STRANGER = authentication_key("stranger")
C_I = b"\x05"


def entropy_of(seed: object) -> Entropy:
    return random.Random(f"{seed}").randbytes


def desk_of(
    *,
    key: AuthenticationKey = HEAD_END,
    entropy: Entropy | None = None,
    is_taken: Callable[[bytes], bool] = lambda identifier: False,
    suites: tuple[int, ...] = (2, 3),
    methods: tuple[int, ...] = (3,),
    choose: Callable[[Message1Facts], Answering] | None = None,
) -> Desk:
    return Desk(
        key,
        entropy=entropy or entropy_of("desk"),
        is_taken=is_taken,
        suites=suites,
        methods=methods,
        choose=choose,
    )


def approach_of(
    *,
    key: AuthenticationKey = METER,
    trusted: tuple[Credential, ...] = (HEAD_END.credential,),
    suites: tuple[int, ...] = (2, 3),
    c_i: bytes = C_I,
    seed: object = "approach",
    method: int = 3,
    resolve: Callable[[IdCred], Credential | None] | None = None,
    ead_1: tuple[EadItem, ...] = (),
) -> Approach:
    return Approach(
        key,
        trusted,
        c_i=c_i,
        entropy=entropy_of(seed),
        suites=suites,
        method=method,
        resolve=resolve,
        ead_1=ead_1,
    )


def answered(desk: Desk, request: Message, *, now: float = 0.0) -> Message:
    answer = desk.receive(request, "peer", now=now)
    assert isinstance(answer, Message)
    return answer


def message_3_of(approach: Approach, desk: Desk, *, now: float = 0.0) -> Message:
    message_3 = approach.receive(answered(desk, approach.first_message(), now=now))
    assert isinstance(message_3, Message)
    return message_3


def wanted_by(desk: Desk, message_3: Message, *, now: float = 0.0) -> CredentialWanted:
    wanted = desk.receive(message_3, "peer", now=now)
    assert isinstance(wanted, CredentialWanted)
    return wanted


def proposed_by(desk: Desk, wanted: CredentialWanted) -> SessionProposed:
    proposed = desk.provide_credential(wanted.handshake, METER.credential, "peer")
    assert isinstance(proposed, SessionProposed)
    return proposed


def error_in(answer: Message) -> ErrorMessage:
    assert (answer.code, answer.content_format) == (Code.BAD_REQUEST, CONTENT_FORMAT_EDHOC)
    return ErrorMessage.decode(answer.payload)


# The whole way


def test_both_sides_come_to_the_same_keys() -> None:
    desk, approach = desk_of(), approach_of()
    message_3 = message_3_of(approach, desk)
    wanted = wanted_by(desk, message_3)
    assert wanted.id_cred == METER.credential.id_cred
    proposed = proposed_by(desk, wanted)
    conclusion = desk.conclude(wanted.handshake)
    assert conclusion == Message.response(Code.CHANGED)
    ours, theirs = approach.receive(conclusion), proposed.parameters
    assert isinstance(ours, OscoreParameters)
    assert (ours.master_secret, ours.master_salt) == (theirs.master_secret, theirs.master_salt)
    assert (ours.sender_id, ours.recipient_id) == (theirs.recipient_id, theirs.sender_id)
    assert theirs.sender_id == C_I
    assert approach.id_cred == HEAD_END.credential.id_cred
    assert desk.depth[0] == 0
    assert desk.refused == {}


def test_requests_are_as_appendix_a_2_has_them() -> None:
    """POST, content format 65, `true` before message_1 and C_R before message_3; 64 comes back."""
    desk, approach = desk_of(), approach_of()
    message_1 = approach.first_message()
    answer = answered(desk, message_1)
    message_3 = approach.receive(answer)
    assert isinstance(message_3, Message)
    for request in (message_1, message_3):
        assert (request.code, request.path) == (Code.POST, WELL_KNOWN_EDHOC)
        assert request.content_format == CONTENT_FORMAT_CID_EDHOC
    assert message_1.payload[:1] == b"\xf5"
    assert (answer.code, answer.content_format) == (Code.CHANGED, CONTENT_FORMAT_EDHOC)
    assert message_3.payload[:1] == b"\x44", "C_R of four octets as a byte string"
    assert message_1.option(OptionNumber.OSCORE) is None


def test_the_responder_is_not_named_before_it_is_authentic() -> None:
    desk, approach = desk_of(), approach_of()
    answer = answered(desk, approach.first_message())
    with pytest.raises(LocalProtocolError):
        _ = approach.id_cred
    approach.receive(answer)
    assert approach.id_cred == HEAD_END.credential.id_cred


# Suites


@pytest.mark.parametrize(
    ("ours", "theirs", "rounds"),
    [((2, 3), (2, 3), 1), ((2, 3), (3,), 2), ((3, 2), (2,), 2), ((3,), (2, 3), 1)],
)
def test_a_suite_that_both_have_is_found(
    ours: tuple[int, ...], theirs: tuple[int, ...], rounds: int
) -> None:
    desk, approach = desk_of(suites=theirs), approach_of(suites=ours)
    request = approach.first_message()
    for _ in range(rounds):
        outcome = approach.receive(answered(desk, request))
        assert isinstance(outcome, Message)
        request = outcome
    proposed = proposed_by(desk, wanted_by(desk, request))
    assert approach.receive(desk.conclude(proposed.handshake)) is not None
    assert sum(desk.refused.values()) == rounds - 1


def test_no_common_suite_ends_the_approach() -> None:
    desk, approach = desk_of(suites=(3,)), approach_of(suites=(2,))
    answer = answered(desk, approach.first_message())
    assert error_in(answer) == ErrorMessage(2, (3,))
    with pytest.raises(EdhocError, match="no common cipher suite"):
        approach.receive(answer)


def test_a_responder_that_refuses_suites_for_ever_is_left() -> None:
    """Its error is not authentic: taken at its word once, so a forger costs one more round."""
    approach = approach_of()
    refusal = Message.response(
        Code.BAD_REQUEST,
        payload=ErrorMessage(2, (3,)).encode(),
        content_format=CONTENT_FORMAT_EDHOC,
    )
    assert isinstance(approach.receive(refusal), Message)
    with pytest.raises(EdhocError, match="refused by the responder"):
        approach.receive(refusal)


def test_a_downgrade_by_a_forged_refusal_is_noticed_by_the_responder() -> None:
    """The desk knows suite 2, so a message_1 that passed it over was made by a liar's list."""
    desk, approach = desk_of(suites=(2, 3)), approach_of(suites=(2, 3))
    approach.first_message()
    forged = Message.response(
        Code.BAD_REQUEST,
        payload=ErrorMessage(2, (3,)).encode(),
        content_format=CONTENT_FORMAT_EDHOC,
    )
    second = approach.receive(forged)
    assert isinstance(second, Message)
    assert error_in(answered(desk, second)) == ErrorMessage(2, (2, 3))


# Refusals of the initiator


@pytest.mark.parametrize(
    "answer",
    [
        Message.response(Code.UNAUTHORIZED, payload=b"not protected"),
        Message.response(Code.SERVICE_UNAVAILABLE, max_age=30),
        Message.response(Code.CONTENT, payload=b"x", content_format=CONTENT_FORMAT_EDHOC),
        Message.response(Code.BAD_REQUEST, content_format=CONTENT_FORMAT_EDHOC),
        Message.response(
            Code.BAD_REQUEST,
            payload=ErrorMessage(1, "no").encode(),
            content_format=CONTENT_FORMAT_EDHOC,
        ),
        Message.response(
            Code.BAD_REQUEST,
            payload=ErrorMessage(2, (0,)).encode(),
            content_format=CONTENT_FORMAT_EDHOC,
        ),
        Message.response(Code.CHANGED),
        Message.response(Code.CHANGED, payload=b"\x58\x20" + bytes(32)),
    ],
    ids=lambda answer: str(answer)[4:12],
)
def test_an_approach_refuses_whatever_is_not_message_2(answer: Message) -> None:
    approach = approach_of()
    approach.first_message()
    with pytest.raises(EdhocError):
        approach.receive(answer)


@settings(max_examples=200, deadline=None)
@given(
    code=st.integers(0x40, 0xBF),
    content_format=st.none() | st.integers(0, 70),
    payload=st.binary(max_size=80),
    is_second=st.booleans(),
)
def test_an_approach_raises_edhoc_error_and_nothing_else(
    code: int, content_format: int | None, payload: bytes, is_second: bool
) -> None:
    approach = approach_of()
    if is_second:
        message_3_of(approach, desk_of())
    else:
        approach.first_message()
    answer = Message.response(code, payload=payload, content_format=content_format)
    try:
        outcome = approach.receive(answer)
    except EdhocError:
        return
    # Only "done" after message_3 and a new message_1 after a refusal of suites are no errors.
    is_done = is_second and code == Code.CHANGED
    assert is_done == isinstance(outcome, OscoreParameters)
    assert is_done or payload[:1] == b"\x02"


@pytest.mark.parametrize("skipped", [0, 1])
def test_a_reflected_message_1_is_no_message_2(skipped: int) -> None:
    approach = approach_of()
    octets = approach.first_message().payload[skipped:]
    with pytest.raises(EdhocError):
        approach.receive(Message.response(Code.CHANGED, payload=octets))


# Refusals of the desk


@settings(max_examples=300, deadline=None)
@given(
    code=st.integers(1, 7),
    content_format=st.none() | st.sampled_from([0, 60, 64, 65, 70_000]),
    payload=st.binary(max_size=100)
    | st.binary(max_size=60).map(lambda rest: b"\xf5\x03\x02\x58\x20" + rest)
    | st.binary(max_size=60).map(lambda rest: b"\x44" + rest),
)
def test_a_desk_answers_whatever_comes_and_keeps_nothing_of_garbage(
    code: int, content_format: int | None, payload: bytes
) -> None:
    desk = desk_of()
    request = Message.request(
        code, WELL_KNOWN_EDHOC, payload=payload, content_format=content_format
    )
    answer = answered(desk, request)
    assert answer.code in (
        Code.BAD_REQUEST,
        Code.METHOD_NOT_ALLOWED,
        Code.UNSUPPORTED_CONTENT_FORMAT,
        Code.CHANGED,
    )
    if answer.code == Code.BAD_REQUEST:
        error_in(answer)
        assert sum(desk.refused.values()) == 1
    # Only a whole message_1 with a point on the curve opens a handshake.
    assert desk.depth[0] == (answer.code == Code.CHANGED)


def test_an_unknown_critical_item_beside_the_message_is_refused() -> None:
    initiator = Initiator(METER, suites=(2,), c_i=C_I)
    message_1 = initiator.message_1(
        ephemeral_from_entropy(2, entropy_of(1)(32)), ead=[EadItem(-4711)]
    )
    desk = desk_of()
    request = Message.request(
        Code.POST, WELL_KNOWN_EDHOC, payload=prepend_connection_id(None, message_1)
    )
    assert error_in(answered(desk, request)).code == 1
    assert desk.refused == {"unknown critical EAD item": 1}


def test_the_method_with_signatures_is_refused_though_the_key_could_sign() -> None:
    initiator = Initiator(METER, method=0, suites=(2,), c_i=C_I)
    message_1 = initiator.message_1(ephemeral_from_entropy(2, entropy_of(1)(32)))
    desk = desk_of()
    payload = prepend_connection_id(None, message_1)
    request = Message.request(Code.POST, WELL_KNOWN_EDHOC, payload=payload)
    assert error_in(answered(desk, request)).code == 1
    assert desk.refused == {"unknown method": 1}


def test_message_3_is_taken_once() -> None:
    """While its first copy waits it may come again later, and afterwards it gets the answer."""
    desk = desk_of()
    message_3 = message_3_of(approach_of(), desk)
    wanted = wanted_by(desk, message_3)
    again = answered(desk, message_3)
    assert again.code == Code.SERVICE_UNAVAILABLE
    assert again.uint_option(OptionNumber.MAX_AGE) == handshakes.REPEATED_MAX_AGE
    proposed_by(desk, wanted)
    conclusion = desk.conclude(wanted.handshake)
    assert answered(desk, message_3) == conclusion
    assert desk.repeated_count == 2
    assert desk.refused == {}


def test_another_message_3_under_an_identifier_that_waits_or_is_done_is_refused() -> None:
    desk = desk_of()
    message_3 = message_3_of(approach_of(), desk)
    other = dataclasses.replace(message_3, payload=message_3.payload[:-1] + b"?")
    wanted = wanted_by(desk, message_3)
    assert error_in(answered(desk, other)).code == 1
    proposed_by(desk, wanted)
    desk.conclude(wanted.handshake)
    assert error_in(answered(desk, other)).code == 1
    assert desk.refused == {"unexpected message": 2}


def test_the_answer_to_a_repeated_message_3_is_forgotten_after_a_minute() -> None:
    desk = desk_of()
    message_3 = message_3_of(approach_of(), desk)
    desk.conclude(proposed_by(desk, wanted_by(desk, message_3)).handshake)
    assert answered(desk, message_3, now=HALF_OPEN_LIFETIME - 0.1).code == Code.CHANGED
    assert error_in(answered(desk, message_3, now=HALF_OPEN_LIFETIME)).code == 1


def test_a_message_3_that_was_refused_or_given_up_is_not_answered_well_later() -> None:
    desk = desk_of()
    message_3 = message_3_of(approach_of(key=STRANGER), desk)
    desk.provide_credential(wanted_by(desk, message_3).handshake, None, "peer")
    assert error_in(answered(desk, message_3)).code == 1
    second = message_3_of(approach_of(seed=2), desk)
    wanted = wanted_by(desk, second)
    proposed_by(desk, wanted)
    desk.give_up(wanted.handshake, retry_after=1)
    assert error_in(answered(desk, second)).code == 1


def test_a_handshake_is_not_concluded_before_somebody_is_authentic_in_it() -> None:
    desk = desk_of()
    wanted = wanted_by(desk, message_3_of(approach_of(), desk))
    with pytest.raises(LocalProtocolError, match="waits for a credential"):
        desk.conclude(wanted.handshake)
    proposed_by(desk, wanted)
    assert desk.conclude(wanted.handshake).code == Code.CHANGED


# Repeated message_1


def test_the_same_message_1_from_the_same_peer_gets_the_same_message_2() -> None:
    desk = desk_of()
    message_1 = approach_of().first_message()
    first = desk.receive(message_1, "here", now=0.0)
    assert desk.receive(message_1, "here", now=59.0) == first
    assert (desk.depth[0], desk.repeated_count) == (1, 1)
    # Elsewhere it may be a replay by somebody else: it is a handshake of its own.
    assert desk.receive(message_1, "there", now=59.0) != first
    assert desk.receive(message_1, "here", now=HALF_OPEN_LIFETIME) != first
    assert desk.repeated_count == 1


def test_a_message_1_that_comes_again_after_its_handshake_ended_begins_another() -> None:
    desk = desk_of()
    approach = approach_of()
    message_1 = approach.first_message()
    answer = answered(desk, message_1)
    message_3 = approach.receive(answer)
    assert isinstance(message_3, Message)
    desk.conclude(proposed_by(desk, wanted_by(desk, message_3)).handshake)
    assert answered(desk, message_1) != answer
    assert desk.repeated_count == 0


# The bound of one source


def test_one_host_can_only_drop_its_own_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "SOURCE_MAX", 8)
    desk = desk_of()
    honest = approach_of(seed="honest")
    answer = desk.receive(honest.first_message(), ("192.0.2.1", 5683), now=0.0)
    assert isinstance(answer, Message)
    for number in range(handshakes.SOURCE_MAX + 10):
        request = approach_of(seed=number).first_message()
        desk.receive(request, ("192.0.2.2", 1024 + number), now=1.0)
    assert desk.depth[0] == handshakes.SOURCE_MAX + 1
    assert desk.refused == {"half open, dropped for a newer one of its source": 10}
    assert desk.evicted_count == 0
    message_3 = honest.receive(answer)
    assert isinstance(message_3, Message)
    wanted_by(desk, message_3, now=2.0)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:1", 9, 0, 0), True),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:2::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 1, 0, 2), True),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.2", 1, 0, 0), False),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 9), True),
        (("127.0.0.1", 1), ("127.0.0.1", 2), False),
        (("::1", 1, 0, 0), ("::1", 2, 0, 0), False),
        (("::ffff:127.0.0.1", 1, 0, 0), ("::ffff:127.0.0.1", 2, 0, 0), False),
        (("no:address", 1), ("no:address", 2), True),
        ("peer", "peer", True),
        (b"12345678", b"12345679", False),
        ((), (), True),
        ((1, 2), (1, 3), False),
    ],
)
def test_a_source_is_a_host_whatever_its_port(one: object, other: object, is_same: bool) -> None:
    assert (host_of(one) == host_of(other)) == is_same


# Which key answers


def test_a_hint_beside_message_1_chooses_the_key_and_an_answer_goes_beside_message_2() -> None:
    old = authentication_key("old head-end")
    seen: list[Message1Facts] = []

    def choose(facts: Message1Facts) -> Answering:
        seen.append(facts)
        return Answering(old if facts.ead else HEAD_END, (EadItem(40_001, b"statement"),))

    desk = desk_of(choose=choose)
    for ead_1, trusted in (((EadItem(40_000, b"kid"),), old), ((), HEAD_END)):
        approach = approach_of(trusted=(trusted.credential,), ead_1=ead_1, c_i=b"\x07")
        with pytest.raises(LocalProtocolError):
            _ = approach.ead_2
        message_3_of(approach, desk)
        assert approach.id_cred == trusted.credential.id_cred
        assert approach.ead_2 == (EadItem(40_001, b"statement"),)
        assert seen[-1].ead == ead_1


def test_a_key_that_does_not_fit_what_was_selected_is_the_programs_mistake() -> None:
    desk = desk_of(choose=lambda facts: Answering(authentication_key("x", suite=0, method=3)))
    with pytest.raises(LocalProtocolError, match="does not fit"):
        desk.receive(approach_of().first_message(), "peer", now=0.0)
    assert desk.depth[0] == 0


# By value


@pytest.mark.parametrize("method", [0, 3])
def test_credentials_sent_by_value_are_known_by_their_octets(method: int) -> None:
    keys = [authentication_key(name, 2, method) for name in ("meter", "head-end")]
    meter, head_end = (
        AuthenticationKey(key.private_key, kccs_credential(key.credential.octets)) for key in keys
    )
    desk = desk_of(key=head_end, methods=(method,))
    approach = approach_of(key=meter, trusted=(keys[1].credential,), method=method)
    wanted = wanted_by(desk, message_3_of(approach, desk))
    assert approach.id_cred == head_end.credential.id_cred
    credential = known_credential(wanted.id_cred, [STRANGER.credential, keys[0].credential])
    assert credential == meter.credential
    proposed = desk.provide_credential(wanted.handshake, credential, "peer")
    assert isinstance(proposed, SessionProposed)
    ours = approach.receive(desk.conclude(proposed.handshake))
    assert isinstance(ours, OscoreParameters)
    assert ours.master_secret == proposed.parameters.master_secret


def test_a_responder_that_sends_a_credential_nobody_pinned_is_refused() -> None:
    sent = AuthenticationKey(STRANGER.private_key, kccs_credential(STRANGER.credential.octets))
    approach = approach_of()
    answer = answered(desk_of(key=sent), approach.first_message())
    with pytest.raises(EdhocError, match="unknown credential"):
        approach.receive(answer)


def test_what_is_not_pinned_can_be_resolved_and_refused_for_its_own_reason() -> None:
    sent = AuthenticationKey(STRANGER.private_key, kccs_credential(STRANGER.credential.octets))
    approach = approach_of(trusted=(), resolve=carried_credential)
    message_3_of(approach, desk_of(key=sent))
    assert approach.id_cred == sent.credential.id_cred

    def refuse(id_cred: IdCred) -> None:
        raise EdhocError("chain: expired")

    approach = approach_of(trusted=(), resolve=refuse)
    answer = answered(desk_of(key=sent), approach.first_message())
    with pytest.raises(EdhocError, match="chain: expired"):
        approach.receive(answer)


def test_a_credential_that_was_judged_and_refused_is_counted_by_its_reason() -> None:
    desk = desk_of()
    wanted = wanted_by(desk, message_3_of(approach_of(), desk))
    refusal = desk.refuse_credential(wanted.handshake, EdhocError("chain: expired", "at noon"))
    assert error_in(refusal) == ErrorMessage(1, "chain: expired")
    assert desk.refused == {"chain: expired": 1}
    assert desk.depth[0] == 0
    with pytest.raises(LocalProtocolError):
        desk.refuse_credential(wanted.handshake, EdhocError("x"))


# Giving up, and being asked for an address


def test_an_approach_that_gives_up_can_say_so_once_it_knows_under_what_name() -> None:
    desk = desk_of()
    approach = approach_of(trusted=(STRANGER.credential,))
    answer = answered(desk, approach.first_message())
    assert approach.farewell(EdhocError("x")) is None
    with pytest.raises(EdhocError) as refused:
        approach.receive(answer)
    farewell = approach.farewell(refused.value)
    assert farewell is not None
    assert split_connection_id(farewell.payload)[1] == b"\x03\xf5"
    assert answered(desk, farewell).code == Code.CHANGED
    assert desk.depth[0] == 0
    done = approach_of(seed=2)
    message_3_of(done, desk)
    assert done.farewell(refused.value) is None


def test_error_code_0_is_no_success() -> None:
    approach = approach_of()
    approach.first_message()
    for code in (Code.BAD_REQUEST, Code.CHANGED):
        success = Message.response(code, payload=b"\x00\x60", content_format=CONTENT_FORMAT_EDHOC)
        with pytest.raises(EdhocError):
            approach.receive(success)


def test_who_is_asked_for_its_address_repeats_the_very_message_1() -> None:
    approach = approach_of()
    first = approach.first_message()
    asked = Message.response(Code.UNAUTHORIZED, options=(Option(OptionNumber.ECHO, b"12345678"),))
    for _ in range(ECHO_COUNT_MAX):
        again = approach.receive(asked)
        assert isinstance(again, Message)
        assert again.payload == first.payload
        assert again.option(OptionNumber.ECHO) == b"12345678"
    with pytest.raises(EdhocError, match="refused by the responder"):
        approach.receive(asked)


def test_nobody_is_asked_for_an_address_after_message_2() -> None:
    desk, approach = desk_of(), approach_of()
    message_3_of(approach, desk)
    asked = Message.response(Code.UNAUTHORIZED, options=(Option(OptionNumber.ECHO, b"12345678"),))
    with pytest.raises(EdhocError, match="refused by the responder"):
        approach.receive(asked)


def test_a_refusal_of_suites_after_message_2_does_not_begin_anew() -> None:
    desk, approach = desk_of(), approach_of()
    message_3_of(approach, desk)
    late = Message.response(
        Code.BAD_REQUEST,
        payload=ErrorMessage(2, (3,)).encode(),
        content_format=CONTENT_FORMAT_EDHOC,
    )
    with pytest.raises(EdhocError, match="refused by the responder"):
        approach.receive(late)


def test_a_suite_that_our_key_does_not_fit_is_no_common_one() -> None:
    approach = approach_of(suites=(2, 0))
    approach.first_message()
    refusal = Message.response(
        Code.BAD_REQUEST,
        payload=ErrorMessage(2, (0,)).encode(),
        content_format=CONTENT_FORMAT_EDHOC,
    )
    with pytest.raises(EdhocError, match="no common cipher suite"):
        approach.receive(refusal)


def test_a_forged_message_3_ends_that_handshake_and_no_other() -> None:
    desk = desk_of()
    first, second = approach_of(seed=1), approach_of(seed=2, c_i=b"\x06")
    message_3, other = message_3_of(first, desk), message_3_of(second, desk)
    c_r, body = split_connection_id(message_3.payload)
    forged = dataclasses.replace(
        message_3, payload=prepend_connection_id(c_r, body[:-1] + bytes((body[-1] ^ 1,)))
    )
    error_in(answered(desk, forged))
    assert desk.refused == {"not authentic": 1}
    error_in(answered(desk, message_3))
    wanted_by(desk, other)


def test_a_message_3_under_the_identifier_of_another_handshake_is_not_authentic() -> None:
    desk = desk_of()
    message_3, other = (
        message_3_of(approach_of(seed=seed, c_i=bytes((seed,))), desk) for seed in (1, 2)
    )
    c_r, _ = split_connection_id(other.payload)
    _, body = split_connection_id(message_3.payload)
    crossed = dataclasses.replace(message_3, payload=prepend_connection_id(c_r, body))
    error_in(answered(desk, crossed))
    assert desk.refused == {"not authentic": 1}


def test_an_initiator_that_gives_up_is_believed_and_counted() -> None:
    desk = desk_of()
    c_r, _ = split_connection_id(message_3_of(approach_of(), desk).payload)
    error = prepend_connection_id(c_r, ErrorMessage(3, info=True).encode())
    request = Message.request(
        Code.POST, WELL_KNOWN_EDHOC, payload=error, content_format=CONTENT_FORMAT_CID_EDHOC
    )
    assert answered(desk, request).code == Code.CHANGED
    assert desk.refused == {"given up by the initiator": 1}
    assert desk.depth[0] == 0


def test_nobody_of_that_name_is_error_3() -> None:
    desk = desk_of()
    wanted = wanted_by(desk, message_3_of(approach_of(key=STRANGER), desk))
    assert wanted.id_cred == STRANGER.credential.id_cred
    answer = desk.provide_credential(wanted.handshake, None, "peer")
    assert isinstance(answer, Message)
    assert error_in(answer) == ErrorMessage(3, info=True)
    assert desk.refused == {"unknown credential": 1}
    assert desk.depth[0] == 0


def test_who_is_told_so_hears_that_it_is_not_known() -> None:
    desk, approach = desk_of(), approach_of(key=STRANGER)
    wanted = wanted_by(desk, message_3_of(approach, desk))
    answer = desk.provide_credential(wanted.handshake, None, "peer")
    assert isinstance(answer, Message)
    with pytest.raises(EdhocError, match="does not know our credential"):
        approach.receive(answer)


def test_an_impostor_under_a_known_name_is_not_authentic_and_leaves_nothing() -> None:
    """It has a kid of a meter's, and a key of its own."""
    thief = STRANGER.private_key
    kid = METER.credential.id_cred
    assert isinstance(kid, Kid)
    own = AuthenticationKey(thief, ccs_credential(kid.value, "meter", thief.public_key()))
    desk = desk_of()
    wanted = wanted_by(desk, message_3_of(approach_of(key=own), desk))
    assert wanted.id_cred == kid
    answer = desk.provide_credential(wanted.handshake, METER.credential, "peer")
    assert isinstance(answer, Message)
    assert error_in(answer) == ErrorMessage(1, "not authentic")
    assert (desk.refused, desk.depth[0]) == ({"not authentic": 1}, 0)
    with pytest.raises(LocalProtocolError, match="unknown or over"):
        desk.conclude(wanted.handshake)


def test_a_second_answer_about_a_credential_is_refused_and_keeps_the_handshake() -> None:
    desk = desk_of()
    wanted = wanted_by(desk, message_3_of(approach_of(), desk))
    proposed_by(desk, wanted)
    for credential in (None, METER.credential):
        with pytest.raises(LocalProtocolError):
            desk.provide_credential(wanted.handshake, credential, "peer")
    assert desk.refused == {}
    assert desk.conclude(wanted.handshake).code == Code.CHANGED
    with pytest.raises(LocalProtocolError, match="unknown or over"):
        desk.conclude(wanted.handshake)
    with pytest.raises(LocalProtocolError, match="unknown or over"):
        desk.give_up(wanted.handshake, retry_after=1)
    with pytest.raises(LocalProtocolError, match="unknown or over"):
        desk.provide_credential(wanted.handshake, None, "peer")


# Bounds and time


@pytest.fixture
def small_desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(handshakes, "HALF_OPEN_MAX", 3)
    return desk_of()


def test_at_the_bound_the_oldest_half_open_handshake_is_dropped(small_desk: Desk) -> None:
    approaches = [approach_of(seed=seed, c_i=bytes((seed,))) for seed in range(5)]
    messages = [message_3_of(approach, small_desk) for approach in approaches]
    assert small_desk.depth == (3, 3)
    assert small_desk.evicted_count == 2
    assert [isinstance(small_desk.receive(m, "p", now=0.0), Message) for m in messages] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_flood_of_message_1_does_not_touch_the_handshakes_that_wait(small_desk: Desk) -> None:
    wanted = wanted_by(small_desk, message_3_of(approach_of(seed="true"), small_desk))
    for seed in range(8):
        answered(small_desk, approach_of(seed=seed).first_message())
    proposed_by(small_desk, wanted)
    assert small_desk.conclude(wanted.handshake).code == Code.CHANGED


def test_when_too_many_wait_message_3_may_come_again_later(small_desk: Desk) -> None:
    handshake_ids = []
    for seed in range(3):
        message_3 = message_3_of(approach_of(seed=seed, c_i=bytes((seed,))), small_desk)
        handshake_ids.append(wanted_by(small_desk, message_3).handshake)
    message_3 = message_3_of(approach_of(seed="late"), small_desk)
    busy = answered(small_desk, message_3)
    assert busy.code == Code.SERVICE_UNAVAILABLE
    assert busy.uint_option(OptionNumber.MAX_AGE) == handshakes.BUSY_MAX_AGE
    small_desk.give_up(handshake_ids[0], retry_after=1)
    wanted_by(small_desk, message_3)


def test_a_half_open_handshake_lives_a_minute_and_not_longer() -> None:
    for age, is_alive in ((HALF_OPEN_LIFETIME - 0.001, True), (HALF_OPEN_LIFETIME, False)):
        desk = desk_of()
        message_3 = message_3_of(approach_of(), desk, now=100.0)
        outcome = desk.receive(message_3, "peer", now=100.0 + age)
        assert isinstance(outcome, CredentialWanted) == is_alive


def test_a_handshake_that_waits_for_the_program_does_not_expire() -> None:
    desk = desk_of()
    wanted = wanted_by(desk, message_3_of(approach_of(), desk))
    answered(desk, approach_of(seed=2).first_message(), now=1e6)
    proposed_by(desk, wanted)
    assert desk.conclude(wanted.handshake).code == Code.CHANGED


# Identifiers


def repeating(*draws: bytes) -> Entropy:
    """Entropy whose identifiers are bad: those `draws`, then the last for ever."""
    identifiers: Iterator[bytes] = iter(draws)
    last = draws[-1]
    good = random.Random(0)

    def entropy(count: int) -> bytes:
        return next(identifiers, last) if count == 4 else good.randbytes(count)

    return entropy


def c_r_of(desk: Desk, *, seed: object = 0, c_i: bytes = C_I) -> bytes | None:
    return split_connection_id(message_3_of(approach_of(seed=seed, c_i=c_i), desk).payload)[0]


def test_an_identifier_is_never_given_out_twice() -> None:
    """Not while it is half open, nor while its handshake waits, nor while a session has it."""
    taken = {b"used"}
    desk = desk_of(
        entropy=repeating(b"used", b"half", b"half", b"used", b"wait", b"wait", b"half", b"free"),
        is_taken=taken.__contains__,
    )
    assert c_r_of(desk) == b"half"
    wait = message_3_of(approach_of(seed=1), desk)
    assert split_connection_id(wait.payload)[0] == b"wait"
    wanted_by(desk, wait)
    assert c_r_of(desk, seed=2) == b"free"


def test_the_peers_own_identifier_is_not_given_back_to_it() -> None:
    desk = desk_of(entropy=repeating(b"same", b"ours"))
    assert c_r_of(desk, c_i=b"same") == b"ours"


def test_entropy_that_repeats_itself_costs_that_peer_a_wait_and_never_hangs() -> None:
    desk = desk_of(entropy=repeating(b"once"))
    assert c_r_of(desk) == b"once"
    answer = answered(desk, approach_of(seed=1).first_message())
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert desk.refused == {"no identifier is free": 1}
    assert desk.depth[0] == 1


@settings(max_examples=100, deadline=None)
@given(
    entropy=st.sampled_from([bytes(32), b"\xff" * 32, b"\x01" * 32])
    | st.binary(min_size=32, max_size=32)
)
def test_any_entropy_of_the_right_size_makes_a_working_ephemeral_key(entropy: bytes) -> None:
    desk = desk_of()
    approach = Approach(
        METER, [HEAD_END.credential], c_i=C_I, entropy=lambda count: entropy[:count]
    )
    assert isinstance(approach.receive(answered(desk, approach.first_message())), Message)
