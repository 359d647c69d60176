"""The gate before a responder, and the flood that it stands for.

The contract under test: while few begin nobody is asked for anything; under load a message_1 goes
on only with an Echo value that was sent to its very address lately; every other gets an answer that
is shorter than itself and costs no memory; whatever is no message_1 passes untouched; a meter joins
within three tries in the midst of ten thousand false ones.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import CoapError, LocalProtocolError
from amistack.machine import Peer
from amistack.session import handshakes
from amistack.session.gate import (
    BURST_MAX,
    CALM_RATE,
    ECHO_EPOCH,
    ECHO_SIZE,
    HALF_OPEN_CALM_MAX,
    SECRET_SIZE,
    Gate,
)
from amistack.session.handshakes import (
    CONTENT_FORMAT_CID_EDHOC,
    HALF_OPEN_LIFETIME,
    WELL_KNOWN_EDHOC,
    Approach,
    CredentialWanted,
    Desk,
    SessionProposed,
)
from tests.session.edhoc_pairs import authentication_key

METER = authentication_key("meter")
HEAD_END = authentication_key("head-end")
HERE = ("192.0.2.1", 5683)
THERE = ("192.0.2.2", 5683)
MESSAGE_1 = b"\xf5\x03\x02\x58\x20" + bytes(32) + b"\x05"
NOW = 1000.0


def gate_of(secret: bytes = bytes(SECRET_SIZE), *, shut_at: float | None = NOW) -> Gate:
    gate = Gate(secret)
    if shut_at is not None:
        for _ in range(2 * BURST_MAX):
            gate.count(now=shut_at)
    return gate


def datagram(
    *options: Option, payload: bytes = MESSAGE_1, type_: Type = Type.CON, token: bytes = b"ab"
) -> bytes:
    request = Message.request(
        Code.POST,
        WELL_KNOWN_EDHOC,
        payload=payload,
        content_format=CONTENT_FORMAT_CID_EDHOC,
        options=options,
    )
    return request.addressed(type=type_, message_id=7, token=token).encode()


def asked(gate: Gate, octets: bytes, peer: Peer = HERE, *, now: float = NOW) -> bytes | None:
    return gate.challenge(octets, peer, half_open_count=0, now=now)


def echo_of(answer: bytes | None) -> Option:
    assert answer is not None
    value = Message.decode(answer).option(OptionNumber.ECHO)
    assert value is not None
    return Option(OptionNumber.ECHO, value)


# When it is shut


def test_nobody_is_asked_while_few_begin() -> None:
    gate = gate_of(shut_at=None)
    now = NOW
    for _ in range(1000):
        now += 1 / CALM_RATE
        assert asked(gate, datagram(), now=now) is None
        gate.count(now=now)


def test_a_burst_shuts_it_and_calm_opens_it() -> None:
    gate = gate_of(shut_at=None)
    for _ in range(BURST_MAX):
        assert asked(gate, datagram()) is None
        gate.count(now=NOW)
    assert asked(gate, datagram()) is not None
    assert gate.challenged_count == 1
    assert asked(gate, datagram(), now=NOW + 2 / CALM_RATE) is None


def test_it_stays_shut_as_long_as_they_come_and_opens_soon_after() -> None:
    gate = gate_of()
    now = NOW
    for _ in range(1000):
        now += 0.5 / CALM_RATE
        assert asked(gate, datagram(), now=now) is not None
    assert gate.is_shut(half_open_count=0, now=now)
    assert not gate.is_shut(half_open_count=0, now=now + (BURST_MAX + 1) / CALM_RATE)


def test_many_that_never_end_shut_it_however_slowly_they_came() -> None:
    gate = gate_of(shut_at=None)
    for count, is_asked in ((HALF_OPEN_CALM_MAX - 1, False), (HALF_OPEN_CALM_MAX, True)):
        answer = gate.challenge(datagram(), HERE, half_open_count=count, now=NOW)
        assert (answer is not None) == is_asked


# What is answered


@settings(max_examples=200, deadline=None)
@given(
    token=st.binary(max_size=8),
    type_=st.sampled_from([Type.CON, Type.NON]),
    rest=st.binary(max_size=60),
    echo=st.none() | st.binary(min_size=1, max_size=40),
    has_format=st.booleans(),
)
def test_every_answer_fits_its_question_and_is_shorter(
    token: bytes, type_: Type, rest: bytes, echo: bytes | None, has_format: bool
) -> None:
    options = [] if echo is None else [Option(OptionNumber.ECHO, echo)]
    question = Message.request(
        Code.POST,
        WELL_KNOWN_EDHOC,
        payload=b"\xf5" + rest,
        content_format=CONTENT_FORMAT_CID_EDHOC if has_format else None,
        options=options,
    ).addressed(type=type_, message_id=0xABCD, token=token)
    octets = question.encode()
    answer = asked(gate_of(), octets)
    assert answer is not None
    assert len(answer) < len(octets)
    said = Message.decode(answer)
    assert said.code == Code.UNAUTHORIZED
    assert said.type is (Type.ACK if type_ is Type.CON else Type.NON)
    assert (said.message_id, said.token, said.payload) == (0xABCD, token, b"")
    assert [option.number for option in said.options] == [OptionNumber.ECHO]
    assert len(said.options[0].value) == ECHO_SIZE
    assert asked(gate_of(), octets) == answer, "a duplicate gets the same, from no memory"


def test_who_has_the_value_of_its_address_passes() -> None:
    gate = gate_of()
    echo = echo_of(asked(gate, datagram()))
    assert asked(gate, datagram(echo)) is None
    # It is about where, not about what: another message_1 from there passes as well.
    assert asked(gate, datagram(echo, payload=MESSAGE_1 + b"\x00", token=b"")) is None


@pytest.mark.parametrize("peer", [THERE, ("192.0.2.1", 5684), "192.0.2.1"])
def test_the_value_of_one_address_is_none_of_another(peer: Peer) -> None:
    gate = gate_of()
    echo = echo_of(asked(gate, datagram()))
    assert echo_of(asked(gate, datagram(echo), peer)) != echo


def test_a_value_holds_for_one_epoch_to_two() -> None:
    begin = 10 * ECHO_EPOCH
    gate = gate_of(shut_at=begin)
    echo = echo_of(asked(gate, datagram(), now=begin))
    for age, is_asked in ((0.0, False), (2 * ECHO_EPOCH - 0.1, False), (2 * ECHO_EPOCH, True)):
        answer = gate.challenge(
            datagram(echo), HERE, half_open_count=HALF_OPEN_CALM_MAX, now=begin + age
        )
        assert (answer is not None) == is_asked


def test_a_value_of_another_gate_or_a_changed_one_is_none() -> None:
    gate = gate_of()
    echo = echo_of(asked(gate, datagram()))
    other = echo_of(asked(gate_of(b"\x01" * SECRET_SIZE), datagram()))
    assert other != echo
    flipped = bytes((echo.value[0] ^ 1,)) + echo.value[1:]
    for value in (other.value, flipped, echo.value[:-1], echo.value + b"\x00", b"\x00"):
        assert asked(gate, datagram(Option(OptionNumber.ECHO, value))) is not None


def test_a_short_secret_is_no_secret() -> None:
    with pytest.raises(LocalProtocolError):
        Gate(bytes(SECRET_SIZE - 1))


# What passes


def other_requests() -> list[bytes]:
    def octets(message: Message, type_: Type = Type.CON) -> bytes:
        return message.addressed(type=type_, message_id=7, token=b"ab").encode()

    post = Message.request(Code.POST, WELL_KNOWN_EDHOC, payload=MESSAGE_1)
    return [
        octets(Message.request(Code.GET, WELL_KNOWN_EDHOC, payload=MESSAGE_1)),
        octets(Message.request(Code.POST, "edhoc", payload=MESSAGE_1)),
        octets(Message.request(Code.POST, ".well-known/edhoc/x", payload=MESSAGE_1)),
        octets(Message.request(Code.POST, ".well-known/core", payload=b"edhoc")),
        octets(Message.request(Code.POST, WELL_KNOWN_EDHOC)),
        octets(post, Type.ACK),
        datagram(payload=b"\x44abcd\x52" + bytes(18)),
        datagram(Option(OptionNumber.OSCORE, b"\x09\x00\x01")),
        datagram()[:8] + b"edhoc",
        octets(Message.response(Code.CONTENT, payload=b"edhoc\xf5")),
        b"",
        b"\x40\x02",
        b"\x40\x02\x00\x07edhoc",
    ]


@pytest.mark.parametrize("octets", other_requests())
def test_whatever_is_no_message_1_passes(octets: bytes) -> None:
    gate = gate_of()
    assert asked(gate, octets) is None
    assert gate.challenged_count == 0


@settings(max_examples=500, deadline=None)
@given(
    st.binary(max_size=120)
    | st.binary(max_size=60).map(lambda tail: b"\x40\x02\x00\x01" + tail + b"edhoc\xff\xf5")
    | st.tuples(st.integers(0, 80), st.integers(0, 255)).map(
        lambda change: datagram()[: change[0]] + bytes((change[1],)) + datagram()[change[0] + 1 :]
    )
)
def test_the_gate_never_raises_and_answers_only_messages(octets: bytes) -> None:
    answer = asked(gate_of(), octets)
    if answer is None:
        return
    message = Message.decode(octets)
    assert message.path == WELL_KNOWN_EDHOC
    assert message.payload[:1] == b"\xf5"
    assert len(answer) < len(octets)


def test_what_the_endpoint_would_refuse_is_left_to_it() -> None:
    """A marker without a payload behind it is no CoAP message (RFC 7252 section 3)."""
    octets = datagram()[: -len(MESSAGE_1)]
    assert octets[-1] == 0xFF
    with pytest.raises(CoapError):
        Message.decode(octets)
    assert asked(gate_of(), octets) is None


# The flood


class Street:
    """A desk, a flood towards it, and a meter that wants to join."""

    def __init__(self, count: int) -> None:
        entropy = random.Random("flood").randbytes
        self.desk = Desk(HEAD_END, entropy=entropy, is_taken=lambda identifier: False)
        self.approach = Approach(METER, [HEAD_END.credential], c_i=b"\x01", entropy=entropy)
        forger = Approach(METER, [HEAD_END.credential], c_i=b"\x02", entropy=entropy)
        self._forged = forger.first_message()
        self._count = count
        self._number = 0
        self.now = NOW
        self.answer_share_max = 0.0
        self.worked_count = 0

    def pour(self, count: int) -> None:
        """So many false message_1, each from another address and with another C_I."""
        for _ in range(count):
            self._number += 1
            number = self._number
            message = Message(
                self._forged.code,
                Type.CON,
                number & 0xFFFF,
                number.to_bytes(4, "big"),
                self._forged.options,
                self._forged.payload[:-1] + b"\x44" + number.to_bytes(4, "big"),
            )
            self.now += 1e-4
            octets = message.encode()
            peer = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 5683
            answer = self.desk.challenge(octets, peer, now=self.now)
            if answer is None:
                self.worked_count += 1
                self.desk.receive(message, peer, now=self.now)
            else:
                self.answer_share_max = max(self.answer_share_max, len(answer) / len(octets))

    def join(self, *, amid: int) -> int:
        """The meter's handshake, `amid` false ones before each message; its tries."""
        tries = 0
        request = self.approach.first_message()
        while True:
            self.pour(amid)
            octets = request.addressed(type=Type.CON, message_id=tries, token=b"m").encode()
            tries += request.payload[:1] == b"\xf5"
            answer = self.desk.challenge(octets, HERE, now=self.now)
            if answer is not None:
                outcome = self.approach.receive(Message.decode(answer))
            else:
                response = self.desk.receive(request, HERE, now=self.now)
                if isinstance(response, CredentialWanted):
                    proposed = self.desk.provide_credential(
                        response.handshake, METER.credential, HERE
                    )
                    assert isinstance(proposed, SessionProposed)
                    return tries
                outcome = self.approach.receive(response)
            assert isinstance(outcome, Message)
            request = outcome


def test_a_meter_joins_within_three_tries_amid_ten_thousand_false_ones() -> None:
    street = Street(10_000)
    street.pour(4_000)
    assert street.join(amid=2_000) <= 3
    assert street.answer_share_max < 0.5
    # What was worked for is what it took to shut the gate, and a trickle at the calm rate.
    assert street.worked_count <= BURST_MAX + CALM_RATE
    assert street.desk.depth[0] <= BURST_MAX + CALM_RATE + 1
    assert street.desk.refused["asked to show its address"] >= 9_900
    assert street.desk.evicted_count == 0


def test_a_meter_joins_at_once_when_the_flood_is_over() -> None:
    street = Street(1_000)
    street.pour(1_000)
    street.now += HALF_OPEN_LIFETIME
    assert street.join(amid=0) == 1
    assert street.desk.depth[0] == 1, "what the flood left behind has expired"


def test_a_flood_leaves_no_memory_behind() -> None:
    street = Street(2_000)
    street.pour(1_000)
    tracemalloc.start()
    try:
        street.pour(500)
        before = tracemalloc.get_traced_memory()[0]
        street.pour(500)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # Numbers that became greater, not one entry: 500 of those would be 50,000 octets and more.
    assert grown < 4_000


def test_one_true_address_cannot_fill_the_table_however_fast_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It passes with its Echo value as often as it likes; the bound of its source holds."""
    monkeypatch.setattr(handshakes, "SOURCE_MAX", 64)
    desk = Desk(HEAD_END, entropy=random.Random(1).randbytes, is_taken=lambda identifier: False)
    echo = None
    for number in range(200):
        approach = Approach(
            METER,
            [HEAD_END.credential],
            c_i=b"\x01",
            entropy=random.Random(f"one {number}").randbytes,
        )
        request = approach.first_message()
        options = request.options if echo is None else in_order((*request.options, echo))
        message = Message(request.code, Type.CON, number, b"", options, request.payload)
        answer = desk.challenge(message.encode(), HERE, now=NOW)
        if answer is None:
            desk.receive(message, HERE, now=NOW)
        else:
            echo = echo_of(answer)
    assert desk.depth[0] == 64
    assert desk.is_under_load(now=NOW)
