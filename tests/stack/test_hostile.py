"""What somebody on the way, a peer that means harm, or a crash at a bad moment can do to a stack.

The contract under test: no body is put together of two; no request is delivered twice, however late
it comes; every request of ours ends, and every observation does, with a word to its program; what
is said under keys that were given up is not heard; nothing but what is documented escapes; and no
nonce of a key ever covers two plaintexts, whichever way a message takes through the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import Limits
from amistack.coap.message import Message, in_order
from amistack.coap.observe import REGISTER, observe_of, with_observe
from amistack.coap.options import Option, OptionNumber
from amistack.machine import Peer
from amistack.session.oscore import AES_CCM_16_64_128
from amistack.stack import NumberTaken, RequestId, secured
from tests.session.oscore_support import RecordingCipher
from tests.stack.parties import CONTENT, HEAD_END_NAME, METER, Party, Street, leaks
from tests.stack.test_freshness import Restored

METER_AT, HEAD_END_AT = Street.METER_AT, Street.HEAD_END_AT
BLOCK: Final = 1024


@pytest.fixture(autouse=True)
def cipher() -> Iterator[RecordingCipher]:
    """Records every encryption, whichever way it takes, and judges it after every test."""
    record = RecordingCipher()
    with pytest.MonkeyPatch.context() as patch:
        record.watch(patch)
        yield record
    expect_no_nonce_twice(record)


def expect_no_nonce_twice(record: RecordingCipher) -> None:
    seen: dict[tuple[bytes, bytes], bytes] = {}
    for key, nonce, _, plaintext in record.used:
        assert (key, nonce) not in seen, "one nonce for two encryptions"
        seen[(key, nonce)] = plaintext


def joined(*, limits: Limits | None = None, block: int = 64) -> Street:
    street = Street(limits=limits, block=block)
    street.join()
    return street


def body(letter: str, count: int = 3) -> bytes:
    return letter.encode() * (BLOCK * (count - 1) + 10)


def delivered(street: Street) -> list[bytes]:
    return [message.payload for _, message in street.head_end.delivered]


def with_new_id(datagram: bytes, message_id: int) -> bytes:
    return datagram[:2] + message_id.to_bytes(2, "big") + datagram[4:]


class Holder:
    """Somebody on the way who keeps what the meter sends, from the `first` protected request on."""

    def __init__(self, street: Street, *, first: int = 0, count: int = 1) -> None:
        self.street = street
        self.range = range(first, first + count)
        self.seen: list[bytes] = []
        self.kept: list[bytes] = []
        street.world.passes = self.passes

    def passes(self, sender: Peer, receiver: Peer, datagram: bytes) -> bool:
        if sender != METER_AT or not 0 < datagram[1] < 0x20:
            return True
        if datagram not in self.seen:
            self.seen.append(datagram)
        if self.seen.index(datagram) in self.range:
            if datagram not in self.kept:
                self.kept.append(datagram)
            return False
        return True

    def put_in(self, datagram: bytes, message_id: int = 0x7777) -> None:
        """Send it after all, fresh for the message layer."""
        self.street.world.passes = None
        self.street.world.send(METER_AT, HEAD_END_AT, with_new_id(datagram, message_id))


# Bodies out of pieces of two


def test_block_that_was_held_back_over_a_restart_of_its_sender_joins_no_other_body() -> None:
    """The meter's memory of its Request-Tags ends with it, its session does not."""
    street = joined()
    holder = Holder(street, first=2)
    street.report(body("a"))
    street.world.elapse(1)
    (last,) = holder.kept
    street.meter.restart()
    holder.range, holder.kept = range(5, 6), []
    street.report(body("b"))
    street.world.elapse(1)
    assert holder.kept, "the last block of the second body is on its way"
    holder.put_in(last)
    street.world.elapse(300)
    assert len(delivered(street)) <= 2
    assert set(delivered(street)) <= {body("a"), body("b")}, "a body that nobody said"
    street.expect_rest()


def test_blocks_that_a_crash_let_come_again_join_no_other_body() -> None:
    """Of a body that is not whole no window is stored, so that its blocks are new after a crash."""
    street = joined()
    street.report(body("a", 2))
    street.world.run(until=street.world.now + 0.015)
    street.head_end.restart()
    street.world.elapse(30)
    assert delivered(street) == [body("a", 2)], "after the crash all of it came once more"
    first = next(
        one.datagram
        for one in street.world.datagrams()
        if one.sender == METER_AT and len(one.datagram) > BLOCK
    )
    sent_before = len(street.world.datagrams())
    street.report(body("b", 2))
    while not any(one.sender == HEAD_END_AT for one in street.world.datagrams()[sent_before:]):
        street.world.elapse(0.001)
    street.world.send(METER_AT, HEAD_END_AT, with_new_id(first, 0x7777))
    street.world.elapse(300)
    assert delivered(street)[1:] == [body("b", 2)]
    street.expect_rest()


# What comes late


def test_request_that_was_asked_to_prove_itself_is_not_taken_beside_its_repetition() -> None:
    """The proof of another request, sent before and come after, does not make it new again."""
    street = Restored()
    street.report(b"before")
    street.world.elapse(1)
    street.back_up()
    street.put_back()
    world = street.world
    seen: list[bytes] = []
    held: list[bytes] = []

    def passes(sender: Peer, receiver: Peer, datagram: bytes) -> bool:
        if sender == METER_AT and 0 < datagram[1] < 0x20 and datagram not in seen:
            seen.append(datagram)
        if sender == METER_AT and datagram in seen and seen.index(datagram) in (1, 3):
            held.append(datagram)
            return False
        return True

    world.passes = passes
    street.meter.limits = Limits(nstart=2)
    street.meter.restart()
    street.head_end.delivered.clear()
    street.report(b"one")
    world.elapse(1)
    street.report(b"two")
    world.elapse(1)
    assert len(seen) == 4, "two requests, and two repetitions with a proof"
    world.passes = None
    world.send(METER_AT, HEAD_END_AT, with_new_id(seen[1], 0x7001))
    world.elapse(1)
    world.send(METER_AT, HEAD_END_AT, with_new_id(seen[2], 0x7002))
    world.elapse(1)
    world.send(METER_AT, HEAD_END_AT, with_new_id(seen[3], 0x7003))
    world.elapse(60)
    assert sorted(street.delivered()) == [b"one", b"two"]


# Requests that nobody ends


def starve(party: Party, identity: bytes) -> None:
    """No number is left, and its program is slow to store that there are more."""
    party.grants_numbers = False
    context = party.stack.session_of(identity)
    assert context is not None
    context.reserved_until = context.next_sequence_number


def observe(street: Street, *, elapse: float = 5) -> RequestId:
    """The head-end observes a resource of the meter's."""
    asked = Message.request(Code.FETCH, "state", content_format=CONTENT)
    request = street.head_end.stack.request(
        METER, with_observe(asked, REGISTER), METER_AT, now=street.world.now
    )
    street.head_end.settle()
    street.world.elapse(elapse)
    return request


def test_answer_that_is_spoilt_and_called_a_notification_ends_the_request() -> None:
    """The option outside that says so is not protected; nothing else would end the request."""
    street = joined()

    def passes(sender: Peer, receiver: Peer, datagram: bytes) -> bool:
        if sender != METER_AT or datagram[1] < 0x40:
            return True
        message = Message.decode(datagram)
        told = with_observe(message, 7)
        spoilt = Message(
            told.code, told.type, told.message_id, told.token, told.options,
            bytes(len(message.payload)),
        )  # fmt: skip
        street.world.passes = None
        street.world.send(METER_AT, HEAD_END_AT, spoilt.encode())
        return False

    street.world.passes = passes
    request = observe(street, elapse=600)
    assert request in street.head_end.failures | street.head_end.responses
    assert request not in street.head_end.states
    assert leaks(street.head_end.stack) == {}


def test_observation_that_numbers_came_too_late_for_is_said_to_be_over() -> None:
    street = joined()
    starve(street.meter, HEAD_END_NAME)
    observe(street)
    assert len(street.meter.observers) == 1, "opened, as far as its program was told"
    street.meter.stack.remove_session(HEAD_END_NAME)
    street.meter.settle()
    assert street.meter.observers == []
    assert street.meter.endings == ["session ended"]
    street.calm_down()
    street.expect_rest()


def test_observation_that_was_ended_before_it_was_answered_is_not_opened() -> None:
    street = joined()
    starve(street.meter, HEAD_END_NAME)
    request = observe(street, elapse=0.5)
    (exchange,) = street.meter.observers
    street.meter.stack.end_observation(exchange, now=street.world.now)
    street.meter.observers.clear()
    for wanted in street.meter.wanted[-1:]:
        street.meter.grant(wanted)
    street.meter.settle()
    street.world.elapse(5)
    assert request in street.head_end.responses, "answered once, as if it had not asked to observe"
    street.world.elapse(300)
    street.expect_rest()


def test_observations_end_with_the_session_they_were_opened_in() -> None:
    """Both sides: the observed one is told at once, the observer when its state is stale."""
    street = joined()
    request = observe(street)
    street.meter.connect(HEAD_END_AT, c_i=b"\x06")
    street.world.elapse(5)
    assert street.meter.endings == ["session ended"]
    assert street.meter.observers == []
    assert leaks(street.meter.stack) == {}
    street.world.elapse(100)
    assert street.head_end.stale == [request]


def test_nothing_said_under_keys_that_were_given_up_is_heard() -> None:
    """A revoked meter's answer, and what it is observed to say, change nothing any more."""
    street = joined()
    observed = observe(street)
    street.meter.answers_at_once = False
    asked = street.read(b"x")
    street.world.elapse(0.5)
    street.head_end.stack.remove_session(METER)
    street.head_end.settle()
    assert {street.head_end.failures[one].reason for one in (observed, asked)} == {"session ended"}
    (event,) = street.meter.waiting
    street.meter.answer(event)
    (exchange,) = street.meter.observers
    state = Message.response(Code.CONTENT, payload=b"too late", content_format=CONTENT)
    street.meter.stack.notify(exchange, state, now=street.world.now)
    street.meter.settle()
    street.world.elapse(600)
    assert asked not in street.head_end.responses
    assert [one.payload for one in street.head_end.states[observed]] == [b"re "]
    street.expect_rest()


def test_observation_whose_end_cannot_be_said_is_over_all_the_same() -> None:
    street = joined()
    request = observe(street)
    starve(street.head_end, METER)
    street.head_end.stack.deregister(request, now=street.world.now)
    street.head_end.stack.add_session(METER, street.head_end.disk.sessions[METER].restored())
    street.head_end.settle()
    assert request in street.head_end.failures
    street.world.elapse(600)


def test_handshake_that_finds_no_room_for_message_3_fails_and_nothing_escapes() -> None:
    """Somebody on the way acknowledges message_1; what waited behind it takes all the room."""
    street = joined(limits=Limits(backlog_max=1))
    held: list[bytes] = []

    def passes(sender: Peer, receiver: Peer, datagram: bytes) -> bool:
        if sender == METER_AT and datagram[1] == Code.POST and not held:
            held.append(datagram)
            street.world.send(HEAD_END_AT, METER_AT, bytes((0x60, 0)) + datagram[2:4])
            return False
        return True

    street.world.passes = passes
    street.meter.connect(HEAD_END_AT, c_i=b"\x06")
    street.world.elapse(0.5)
    street.world.passes = lambda sender, *_: sender == HEAD_END_AT
    for number in range(2):
        street.report(b"%d" % number)
    street.head_end.stack.receive_datagram(held[0], METER_AT, now=street.world.now)
    street.head_end.settle()
    street.world.elapse(1)
    assert len(street.meter.handshake_failures) == 1
    street.world.passes = None
    street.world.elapse(600)
    street.calm_down()
    street.expect_rest()


# Keys that are worn


def test_one_forged_answer_too_many_ends_session_and_request_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secured, "FAILURES_MAX", {AES_CCM_16_64_128: 3})
    street = joined()

    def passes(sender: Peer, receiver: Peer, datagram: bytes) -> bool:
        if sender != METER_AT or datagram[1] < 0x40:
            return True
        street.world.passes = None
        street.world.send(METER_AT, HEAD_END_AT, datagram[:-1] + bytes((datagram[-1] ^ 1,)))
        street.world.passes = passes
        return False

    street.world.passes = passes
    requests = []
    for _ in range(3):
        requests.append(street.read(b"x"))
        street.world.elapse(1)
    reasons = [street.head_end.failures[request].reason for request in requests]
    assert reasons == ["decryption failed", "decryption failed", "session ended"]
    assert street.head_end.worn == [METER]
    assert leaks(street.head_end.stack) == {}


def test_forgeries_in_a_session_that_was_replaced_do_not_end_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was asked before may still be answered, and so may be forged at leisure."""
    monkeypatch.setattr(secured, "FAILURES_MAX", {AES_CCM_16_64_128: 3})
    street = joined()
    request = observe(street)
    street.meter.stack.remove_session(HEAD_END_NAME)
    street.meter.settle()
    street.meter.connect(HEAD_END_AT, c_i=b"\x06")
    street.world.elapse(5)
    assert street.head_end.stale == []
    notification = next(
        Message.decode(one.datagram)
        for one in street.world.datagrams()
        if one.sender == METER_AT and one.datagram[1] >= 0x40 and one.datagram[4:6]
        and observe_of(Message.decode(one.datagram)) is not None
    )  # fmt: skip
    for number in range(5):
        forged = notification.addressed(
            type=Type.NON, message_id=0x5000 + number, token=notification.token
        )
        again = with_observe(forged, number + 9)
        octets = Message(
            again.code, again.type, again.message_id, again.token,
            in_order(
                Option(9, b"\x02\x7f\x00") if one.number == OptionNumber.OSCORE else one
                for one in again.options
            ),
            again.payload,
        ).encode()  # fmt: skip
        street.world.send(METER_AT, HEAD_END_AT, octets)
        street.world.elapse(0.1)
    assert street.head_end.stack.refused["session: response: decryption failed"] == 5
    assert street.head_end.worn == []
    assert street.head_end.stack.session_of(METER) is not None
    assert request not in street.head_end.failures


# What tells a copy from a late message


def test_number_that_is_taken_is_told_with_the_age_of_the_newest() -> None:
    """So that a message which was held back until its number was too old is not called a copy."""
    street = joined()
    holder = Holder(street)
    street.report(b"held back")
    street.world.elapse(1)
    (late,) = holder.kept
    context, _ = street.contexts()
    context.reserve(1_000)
    context.next_sequence_number = 500
    street.world.elapse(120)
    street.report(b"newest")
    street.world.elapse(40)
    told: list[NumberTaken] = []
    host = street.head_end.host
    assert host is not None
    host.on_event = lambda event: told.append(event) if isinstance(event, NumberTaken) else None
    holder.put_in(late)
    street.world.elapse(1)
    (event,) = told
    assert not event.is_other
    assert event.newest_s == pytest.approx(40, abs=1)


# Messages whose source is false


def junk(kind: str, message_id: int) -> bytes:
    """What anybody can say in another's name, without any key."""
    head = b"\x41\x02" + message_id.to_bytes(2, "big") + b"t"
    match kind:
        case "unknown session":
            return head + b"\x94\x09\x01\x77\x77" + b"\xff" + bytes(20)
        case "links":
            return Message.request(Code.GET, ".well-known/core").addressed(
                type=Type.CON, message_id=message_id, token=b"t"
            ).encode()  # fmt: skip
        case "handshake":
            return Message.request(Code.POST, ".well-known/edhoc", payload=b"\xf5\x03").addressed(
                type=Type.CON, message_id=message_id, token=b"t"
            ).encode()  # fmt: skip
        case "bad option":
            return head + b"\xd1\xec\x01" + b"\xff" + bytes(20)
        case _:
            return b"\x41\x45" + message_id.to_bytes(2, "big") + b"t"


@pytest.mark.parametrize(
    "kind", ["unknown session", "links", "handshake", "bad option", "response"]
)
def test_message_from_a_false_source_does_not_stand_in_the_way_of_a_true_one(kind: str) -> None:
    street = joined()
    street.report(b"before")
    street.world.elapse(1)
    last = [one.datagram for one in street.world.datagrams() if one.sender == METER_AT][-1]
    message_id = int.from_bytes(last[2:4], "big") + 1
    remembered = street.head_end.stack.depths["messages remembered"]
    street.world.send(METER_AT, HEAD_END_AT, junk(kind, message_id))
    street.world.elapse(1)
    assert street.head_end.stack.depths["messages remembered"] == remembered
    request = street.report(b"true")
    street.world.elapse(1)
    assert street.meter.responses[request].payload == b"re true"
