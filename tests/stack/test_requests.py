"""Requests and answers through a session, both ways, and everything that only looks like one.

The contract under test: what is delivered is authentic, fresh and whole; whatever else comes is
answered as RFC 8613 section 8 says, counted once by reason, and changes no session, window, number
or table; an unprotected answer is a failure that names its code, and ends that request alone.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import BODY_SIZE_MAX
from amistack.coap.codes import Code, Type
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.coap.path import HOP_TIME
from amistack.coap.timing import Timing
from amistack.errors import LocalProtocolError, TableFull
from amistack.session.oscore import protect, protect_request
from amistack.stack import HELD_MAX
from tests.stack.parties import (
    HEAD_END_NAME,
    METER,
    Street,
    answer_to,
    leaks,
    question,
    refused_since,
    state_of,
)

HEAD_END_AT, METER_AT = Street.HEAD_END_AT, Street.METER_AT
ACK_TIMEOUT, ACK_RANDOM_FACTOR = Timing().ack_timeout, Timing().ack_random_factor
CRITICAL_UNKNOWN = 65001
ELECTIVE_UNKNOWN = 65002


def joined(*, block: int = 64) -> Street:
    street = Street(block=block)
    street.join()
    street.world.history.clear()
    return street


def sent(street: Street, sender: str) -> list[Message]:
    """What `sender` put on the wire since the session was made."""
    return [
        Message.decode(passage.datagram)
        for passage in street.world.datagrams()
        if passage.sender == sender
    ]


def ask_raw(street: Street, message: Message, *, number: int = 0x7777) -> Message:
    """Send the head-end a message as it stands; what it answers."""
    datagram = message.addressed(type=Type.CON, message_id=number, token=b"t").encode()
    before = len(street.world.history)
    street.world.send("stranger", HEAD_END_AT, datagram)
    street.world.elapse(1)
    (answer,) = [
        Message.decode(passage.datagram)
        for passage in street.world.history[before:]
        if passage.receiver == "stranger" and passage.fate.value == "sent"
    ]
    assert (answer.type, answer.message_id, answer.token) == (Type.ACK, number, b"t")
    return answer


def protected(street: Street, message: Message) -> Message:
    """A request of the meter's, made behind its stack's back."""
    return protect_request(street.contexts()[0], message)[0]


# Both ways


def test_one_session_carries_requests_both_ways() -> None:
    street = joined()
    up, down = street.report(b"up"), street.read(b"down")
    street.world.elapse(10)
    assert street.meter.responses[up].payload == b"re up"
    assert street.head_end.responses[down].payload == b"re down"
    assert [(who, message.payload) for who, message in street.head_end.delivered] == [
        (METER, b"up")
    ]
    assert [(who, message.payload) for who, message in street.meter.delivered] == [
        (HEAD_END_NAME, b"down")
    ]
    street.expect_rest()


def test_nothing_of_a_request_or_its_answer_is_readable_on_the_way() -> None:
    street = joined()
    street.report(b"SECRET-OF-THE-METER")
    street.world.elapse(10)
    passages = street.world.datagrams()
    assert len(passages) == 2
    for passage in passages:
        assert b"SECRET" not in passage.datagram
        message = Message.decode(passage.datagram)
        assert [option.number for option in message.options] == [OptionNumber.OSCORE]
        assert message.code in (Code.POST, Code.CHANGED)


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_answer_goes_under_the_requests_nonce_only_if_told_that_it_is_durable(
    is_durable: bool,
) -> None:
    street = joined()
    street.head_end.is_durable = is_durable
    request = street.report(b"x")
    street.world.elapse(10)
    (answer,) = sent(street, HEAD_END_AT)
    assert answer.option(OptionNumber.OSCORE) == (b"" if is_durable else b"\x01\x00")
    assert street.contexts()[1].next_sequence_number == (0 if is_durable else 1)
    assert street.meter.responses[request].payload == b"re x"


def test_a_request_whose_answer_was_lost_is_answered_again_with_the_same_octets() -> None:
    street = joined()
    lost: list[bytes] = []

    def passes(sender: object, receiver: object, datagram: bytes) -> bool:
        if sender == HEAD_END_AT and not lost:
            lost.append(datagram)
            return False
        return True

    street.world.passes = passes
    request = street.report(b"x")
    street.world.elapse(20)
    assert street.meter.responses[request].payload == b"re x"
    assert len(street.head_end.delivered) == 1
    answers = [p.datagram for p in street.world.datagrams() if p.sender == HEAD_END_AT]
    assert answers == lost * 2


def test_a_late_answer_comes_separately_and_is_acknowledged() -> None:
    street = joined()
    street.head_end.answers_at_once = False
    request = street.report(b"x")
    street.world.elapse(30)
    (event,) = street.head_end.waiting
    street.head_end.answer(event)
    street.head_end.settle()
    street.world.elapse(30)
    assert street.meter.responses[request].payload == b"re x"
    assert [message.type for message in sent(street, HEAD_END_AT)] == [Type.ACK, Type.CON]
    street.expect_rest()


def test_the_window_in_an_event_is_the_one_that_refuses_its_request() -> None:
    street = joined()
    street.head_end.answers_at_once = False
    street.report(b"x")
    street.world.elapse(1)
    (event,) = street.head_end.waiting
    assert event.window == (1, 0)
    assert street.contexts()[1].replay_window.state == event.window


def test_a_cancelled_request_is_named_by_no_event_and_leaves_nothing() -> None:
    street = joined()
    request = street.report(b"x")
    street.meter.stack.cancel(request, now=street.world.now)
    street.meter.stack.cancel(request, now=street.world.now)
    street.world.elapse(300)
    assert request not in street.meter.responses
    assert request not in street.meter.failures
    street.expect_rest()


# What a program may get wrong


def test_an_exchange_is_answered_once() -> None:
    street = joined()
    street.head_end.answers_at_once = False
    street.report(b"x")
    street.world.elapse(0.5)
    (event,) = street.head_end.waiting
    street.head_end.answer(event)
    with pytest.raises(LocalProtocolError, match="answered already"):
        street.head_end.answer(event)
    street.head_end.settle()
    street.world.elapse(5)
    assert len(sent(street, HEAD_END_AT)) == 1


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        Message.request(Code.GET, "not/a/response"),
        Message.response(Code.CONTENT, options=[Option(ELECTIVE_UNKNOWN, bytes(5000))]),
        Message.response(Code.CONTENT, options=[Option(ELECTIVE_UNKNOWN, bytes(70_000))]),
        Message.response(Code.CONTENT, options=[Option(OptionNumber.OSCORE, b"")]),
    ],
    ids=["request", "too large", "far too large", "protected already"],
)
def test_an_answer_that_cannot_be_sent_leaves_its_exchange_to_a_better_one(
    is_durable: bool, wrong: Message
) -> None:
    street = joined()
    street.head_end.answers_at_once = False
    request = street.report(b"x")
    street.world.elapse(0.5)
    (event,) = street.head_end.waiting
    with pytest.raises(LocalProtocolError):
        street.head_end.stack.respond(
            event.exchange, wrong, is_durable=is_durable, now=street.world.now
        )
    street.head_end.stack.respond(
        event.exchange, answer_to(event.message), is_durable=is_durable, now=street.world.now
    )
    street.head_end.settle()
    street.world.elapse(10)
    assert street.meter.responses[request].payload == b"re x"
    street.expect_rest()


@pytest.mark.parametrize(
    "wrong",
    [
        Message.response(Code.CONTENT),
        Message.request(Code.POST, "rep", payload=bytes(BODY_SIZE_MAX + 1)),
        Message.request(Code.POST, "rep", options=[Option(ELECTIVE_UNKNOWN, bytes(5000))]),
        Message.request(Code.POST, "rep", options=[Option(OptionNumber.PROXY_URI, b"coap://x")]),
    ],
    ids=["response", "body too large", "head too large", "to a proxy"],
)
def test_a_request_that_cannot_be_sent_is_refused_and_leaves_nothing(wrong: Message) -> None:
    street = joined()
    with pytest.raises(LocalProtocolError):
        street.meter.stack.request(HEAD_END_NAME, wrong, HEAD_END_AT, now=street.world.now)
    street.expect_rest()


def test_a_full_backlog_refuses_one_more_request_and_keeps_the_others() -> None:
    street = joined()
    requests = [street.report(b"%d" % i) for i in range(9)]
    with pytest.raises(TableFull):
        street.report(b"one too many")
    street.world.elapse(10)
    assert [street.meter.responses[one].payload for one in requests] == [
        b"re %d" % i for i in range(9)
    ]
    street.expect_rest()


# What only looks like a request


def test_a_request_that_is_not_protected_is_unauthorized() -> None:
    street = joined()
    before, refused = state_of(street.head_end.stack), dict(street.head_end.stack.refused)
    answer = ask_raw(street, question(b"in the clear"))
    assert answer.code == Code.UNAUTHORIZED
    assert answer.uint_option(OptionNumber.MAX_AGE) == 0
    assert refused_since(street.head_end.stack, refused) == {"session: not protected": 1}
    assert state_of(street.head_end.stack) == before
    assert street.head_end.delivered == []


def spoilt_cases() -> dict[str, tuple[object, Code, str]]:
    def with_option(message: Message, value: bytes) -> Message:
        return dataclasses.replace(message, options=in_order([Option(OptionNumber.OSCORE, value)]))

    return {
        "unknown kid": (
            lambda m: with_option(m, b"\x09\x00" + b"none"),
            Code.UNAUTHORIZED,
            "security context not found",
        ),
        "unknown kid context": (
            lambda m: with_option(m, b"\x19\x00\x01c" + (m.option(OptionNumber.OSCORE) or b"")[2:]),
            Code.UNAUTHORIZED,
            "security context not found",
        ),
        "no kid": (lambda m: with_option(m, b"\x01\x00"), Code.BAD_OPTION, ""),
        "empty option": (lambda m: with_option(m, b""), Code.BAD_OPTION, ""),
        "reserved flags": (
            lambda m: with_option(m, b"\xe9" + (m.option(OptionNumber.OSCORE) or b"")[1:]),
            Code.BAD_OPTION,
            "",
        ),
        "wrong tag": (
            lambda m: dataclasses.replace(m, payload=m.payload[:-1] + bytes((m.payload[-1] ^ 1,))),
            Code.BAD_REQUEST,
            "decryption failed",
        ),
        "ciphertext cut": (
            lambda m: dataclasses.replace(m, payload=m.payload[:8]),
            Code.BAD_REQUEST,
            "decryption failed",
        ),
        "another number": (
            lambda m: with_option(m, b"\x09\x63" + (m.option(OptionNumber.OSCORE) or b"")[2:]),
            Code.BAD_REQUEST,
            "decryption failed",
        ),
        "no payload": (lambda m: dataclasses.replace(m, payload=b""), Code.BAD_OPTION, ""),
    }


@pytest.mark.parametrize("name", list(spoilt_cases()))
def test_a_spoilt_request_gets_its_code_in_the_clear_and_changes_nothing(name: str) -> None:
    spoil, code, reason = spoilt_cases()[name]
    street = joined()
    good = protected(street, question(b"x"))
    before, refused = state_of(street.head_end.stack), dict(street.head_end.stack.refused)
    assert callable(spoil)
    answer = ask_raw(street, spoil(good))
    assert answer.code == code
    assert answer.option(OptionNumber.OSCORE) is None
    assert answer.uint_option(OptionNumber.MAX_AGE) == 0
    since = refused_since(street.head_end.stack, refused)
    assert sum(since.values()) == 1
    assert not reason or since == {f"session: {reason}": 1}
    assert state_of(street.head_end.stack) == before
    assert street.head_end.delivered == []
    # The true one is still fresh.
    assert ask_raw(street, good, number=0x7778).option(OptionNumber.OSCORE) is not None
    assert len(street.head_end.delivered) == 1


def test_a_replayed_request_is_unauthorized_from_whatever_address_it_comes() -> None:
    street = joined()
    street.report(b"x")
    street.world.elapse(5)
    (request,) = sent(street, METER_AT)
    before, refused = state_of(street.head_end.stack), dict(street.head_end.stack.refused)
    for number in range(3):
        answer = ask_raw(street, request, number=number)
        assert answer.code == Code.UNAUTHORIZED
        assert answer.uint_option(OptionNumber.MAX_AGE) == 0
    assert refused_since(street.head_end.stack, refused) == {"session: replay": 3}
    assert state_of(street.head_end.stack) == before
    assert len(street.head_end.delivered) == 1


def test_a_replayed_request_after_a_restart_is_known_from_the_disk() -> None:
    street = joined()
    street.report(b"x")
    street.world.elapse(5)
    (request,) = sent(street, METER_AT)
    street.head_end.restart()
    assert ask_raw(street, request).code == Code.UNAUTHORIZED
    assert street.head_end.stack.refused == {"session: replay": 1}
    assert len(street.head_end.delivered) == 1


def test_a_request_reflected_to_its_sender_is_not_taken_for_the_others() -> None:
    street = joined()
    street.report(b"x")
    street.world.elapse(5)
    (passage, _) = street.world.datagrams()
    street.world.send(HEAD_END_AT, METER_AT, passage.datagram)
    street.world.elapse(5)
    assert street.meter.delivered == []
    assert street.meter.stack.refused["session: security context not found"] == 1


def test_an_unknown_critical_option_inside_gets_4_02_under_protection() -> None:
    street = joined()
    refused = dict(street.head_end.stack.refused)
    message = Message.request(Code.POST, "rep", options=[Option(CRITICAL_UNKNOWN, b"")])
    request = street.meter.stack.request(HEAD_END_NAME, message, HEAD_END_AT, now=street.world.now)
    street.meter.settle()
    street.world.elapse(5)
    response = street.meter.responses[request]
    assert response.code == Code.BAD_OPTION
    assert b"65001" in response.payload
    assert street.head_end.delivered == []
    assert refused_since(street.head_end.stack, refused) == {"session: bad option": 1}
    # Its number is used up, and the answer took one of the head-end's own, as nothing is durable.
    assert street.contexts()[1].replay_window.state == (1, 0)
    assert street.contexts()[1].next_sequence_number == 1
    street.expect_rest()


def test_an_authentic_peer_cannot_make_a_stack_raise_by_filling_what_waits_for_numbers() -> None:
    """Each such answer wants a number of our own; with none reserved they pile up to the bound."""
    street = joined(block=0)
    street.head_end.grants_numbers = False
    ours = street.contexts()[0]
    ours.reserve(1000)
    for number in range(HELD_MAX + 3):
        message = Message.request(Code.POST, "rep", options=[Option(CRITICAL_UNKNOWN, b"")])
        datagram = (
            protect_request(ours, message)[0]
            .addressed(type=Type.CON, message_id=number, token=b"")
            .encode()
        )
        street.world.send(METER_AT, HEAD_END_AT, datagram)
        street.world.elapse(0.01)
    answers = [m for m in sent(street, HEAD_END_AT) if m.code == Code.SERVICE_UNAVAILABLE]
    assert len(answers) == 3
    assert leaks(street.head_end.stack) == {
        "_held": 1,
        "_wanting": 1,
        "requests to answer": HELD_MAX,
    }
    street.head_end.grant(street.head_end.wanted[0])
    street.head_end.settle()
    street.world.elapse(0.01)
    assert leaks(street.head_end.stack) == {}


@pytest.mark.parametrize(
    "plaintext", [b"\x45", b"\x02\xff", b"\x00", b"\x02\xf0"], ids=lambda octets: octets.hex()
)
def test_an_authentic_request_that_is_none_inside_uses_up_its_number_and_nothing_else(
    plaintext: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    street = joined()
    with monkeypatch.context() as patch:
        patch.setattr(protect, "_plaintext", lambda *arguments: plaintext)
        bad = protected(street, question(b"x"))
    answer = ask_raw(street, bad)
    assert answer.code == Code.BAD_REQUEST
    assert street.head_end.stack.refused == {"session: malformed plaintext": 1}
    assert street.contexts()[1].replay_window.state == (1, 0)
    assert street.head_end.delivered == []
    assert leaks(street.head_end.stack) == {}
    assert ask_raw(street, bad, number=1).code == Code.UNAUTHORIZED


# What only looks like an answer


@pytest.mark.parametrize(
    "code", [Code.CHANGED, Code.CONTENT, Code.UNAUTHORIZED, Code.BAD_REQUEST, 0xA0]
)
@pytest.mark.parametrize("is_separate", [False, True])
def test_a_forged_answer_is_a_failure_with_its_code_and_ends_that_request_alone(
    code: int, is_separate: bool
) -> None:
    street = joined()
    street.world.passes = lambda sender, receiver, datagram: sender == "forger"
    requests = [street.report(b"one"), street.report(b"two")]
    (asked,) = sent(street, METER_AT)
    before = state_of(street.meter.stack)
    forged = Message(
        code,
        Type.NON if is_separate else Type.ACK,
        0x1111 if is_separate else asked.message_id,
        asked.token,
        payload=b"re one",
    )
    assert street.meter.host is not None
    street.meter.stack.receive_datagram(forged.encode(), HEAD_END_AT, now=street.world.now)
    street.meter.settle()
    failure = street.meter.failures[requests[0]]
    assert (failure.reason, failure.code) == ("response not protected", code)
    assert street.meter.responses == {}
    assert street.meter.stack.refused == {"session: response not protected": 1}
    street.world.passes = None
    street.world.elapse(60)
    assert street.meter.responses[requests[1]].payload == b"re two"
    sessions_before, sessions_after = before, state_of(street.meter.stack)
    assert isinstance(sessions_before, tuple)
    assert isinstance(sessions_after, tuple)
    assert sessions_after[1] == sessions_before[1]
    street.expect_rest()


def test_a_forged_answer_from_another_address_or_of_another_token_is_nothing() -> None:
    street = joined()
    street.world.passes = lambda sender, receiver, datagram: False
    request = street.report(b"one")
    (asked,) = sent(street, METER_AT)
    before = state_of(street.meter.stack)
    for forged, peer in (
        (Message(Code.CHANGED, Type.ACK, asked.message_id, asked.token), "somewhere else"),
        (Message(Code.CHANGED, Type.ACK, asked.message_id, b"other"), HEAD_END_AT),
        (Message(Code.CHANGED, Type.NON, 7, b"other"), HEAD_END_AT),
    ):
        street.meter.stack.receive_datagram(forged.encode(), peer, now=street.world.now)
        street.meter.settle()
    assert state_of(street.meter.stack) == before
    assert request not in street.meter.failures
    street.world.passes = None
    street.world.elapse(20)
    assert street.meter.responses[request].payload == b"re one"


@pytest.mark.parametrize("position", [-1, 0], ids=["tag", "ciphertext"])
def test_a_spoilt_answer_is_a_failure_without_a_code(position: int) -> None:
    street = joined()

    def passes(sender: object, receiver: object, datagram: bytes) -> bool:
        if sender != HEAD_END_AT:
            return True
        message = Message.decode(datagram)
        octets = bytearray(message.payload)
        octets[position] ^= 1
        spoilt = dataclasses.replace(message, payload=bytes(octets)).encode()
        street.world.passes = None
        street.world.send(sender, receiver, spoilt)
        return False

    street.world.passes = passes
    request = street.report(b"x")
    street.world.elapse(5)
    failure = street.meter.failures[request]
    assert (failure.reason, failure.code) == ("decryption failed", None)
    assert street.meter.stack.refused == {"session: response: decryption failed": 1}
    street.expect_rest()


def test_the_answer_to_another_request_does_not_fit_this_one() -> None:
    """Octets of an old answer under the token of a new request: authentic once, not now."""
    street = joined()
    street.report(b"one")
    street.world.elapse(5)
    (_, old) = street.world.datagrams()
    street.world.passes = lambda sender, receiver, datagram: False
    request = street.report(b"two")
    asked = sent(street, METER_AT)[-1]
    replayed = Message.decode(old.datagram).addressed(
        type=Type.ACK, message_id=asked.message_id, token=asked.token
    )
    street.meter.stack.receive_datagram(replayed.encode(), HEAD_END_AT, now=street.world.now)
    street.meter.settle()
    assert street.meter.failures[request].reason == "decryption failed"
    assert street.meter.responses.keys() != {request}


@settings(max_examples=60, deadline=None)
@given(payload=st.binary(max_size=60), type_=st.sampled_from(list(Type)), code=st.integers(1, 255))
def test_no_unprotected_message_of_any_kind_is_ever_an_answer(
    payload: bytes, type_: Type, code: int
) -> None:
    street = JOINED
    street.world.passes = lambda sender, receiver, datagram: False
    request = street.report(b"x")
    asked = sent(street, METER_AT)[-1]
    octets = bytes((0x40 | type_ << 4 | len(asked.token), code)) + asked.message_id.to_bytes(2)
    octets += asked.token + (b"\xff" + payload if payload else b"")
    street.meter.stack.receive_datagram(octets, HEAD_END_AT, now=street.world.now)
    street.meter.settle()
    assert request not in street.meter.responses
    street.meter.stack.cancel(request, now=street.world.now)
    street.meter.settle()
    street.world.history.clear()


JOINED = joined()


def silence(street: Street, sender: str) -> float:
    """Seconds from the first sending of what `sender` last asked to its first repetition."""
    times = [
        passage.time
        for passage in street.world.datagrams()
        if passage.sender == sender and passage.datagram[0] >> 4 & 3 == Type.CON
    ]
    return times[1] - times[0]


@pytest.mark.parametrize("hop_count", [0, 1, 8, 24])
@pytest.mark.parametrize("size", [10, 3000], ids=["one message", "blocks"])
def test_request_over_hops_is_repeated_later(hop_count: int, size: int) -> None:
    street = joined()
    street.head_end.hop_count = hop_count
    street.world.remove(METER_AT)
    street.read(bytes(size))
    street.world.elapse(60)
    floor = ACK_TIMEOUT + hop_count * HOP_TIME
    assert floor <= silence(street, HEAD_END_AT) <= floor * ACK_RANDOM_FACTOR


def test_hop_count_that_changes_counts_from_the_next_request_on() -> None:
    street = joined()
    street.world.remove(METER_AT)
    for hop_count in (2, 20, 5):
        street.head_end.hop_count = hop_count
        street.world.history.clear()
        request = street.read(b"x")
        street.world.elapse(20)
        floor = ACK_TIMEOUT + hop_count * HOP_TIME
        assert silence(street, HEAD_END_AT) >= floor
        street.head_end.stack.cancel(request, now=street.world.now)
        street.world.elapse(300)


def test_handshake_over_hops_is_repeated_later() -> None:
    street = Street()
    street.meter.hop_count = 12
    street.world.remove(HEAD_END_AT)
    street.meter.connect(HEAD_END_AT)
    street.world.elapse(60)
    floor = ACK_TIMEOUT + 12 * HOP_TIME
    assert floor <= silence(street, METER_AT) <= floor * ACK_RANDOM_FACTOR
