"""Sender sequence numbers and nonces: nothing goes out that a crash could make go out again.

The contract under test: no number is used that is not said to be durable; whatever happens,
restarts from the disk included, no key and nonce ever cover two plaintexts; what waits for numbers
keeps its order, is bounded, and is told when it must wait no more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.endpoint import Limits
from amistack.coap.message import Message
from amistack.coap.options import Option
from amistack.errors import AmiError, LocalProtocolError, TableFull
from amistack.session.oscore import SEQUENCE_NUMBER_MAX
from amistack.stack import HELD_MAX, SEQUENCE_BLOCK, SEQUENCE_LOW, NumbersWanted
from tests.session.oscore_support import RecordingCipher
from tests.stack.parties import (
    HEAD_END_NAME,
    METER,
    Party,
    Street,
    answer_to,
    leaks,
    question,
    refused_since,
)
from tests.support.worlds import LinkQuality, World

HEAD_END_AT, METER_AT = Street.HEAD_END_AT, Street.METER_AT


@pytest.fixture
def cipher(monkeypatch: pytest.MonkeyPatch) -> RecordingCipher:
    """Every encryption that OSCORE does from now on."""
    record = RecordingCipher()
    record.watch(monkeypatch)
    return record


def expect_no_nonce_twice(record: RecordingCipher) -> None:
    seen: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
    for key, nonce, aad, plaintext in record.used:
        assert (key, nonce) not in seen, "one nonce for two encryptions"
        seen[(key, nonce)] = (aad, plaintext)


def open_up(party: Party) -> None:
    """Let a party's program be slow: it reserves nothing until the test says so."""
    party.grants_numbers = False


def test_a_new_session_uses_the_numbers_reserved_with_it_and_asks_ahead_of_need() -> None:
    street = Street()
    street.join()
    for count in range(1, SEQUENCE_BLOCK - SEQUENCE_LOW + 2):
        street.report(b"x")
        street.world.elapse(1)
        asked = count > SEQUENCE_BLOCK - SEQUENCE_LOW
        assert len(street.meter.wanted) == asked
    (wanted,) = street.meter.wanted
    recipient_id = street.contexts()[0].recipient_id
    assert wanted == NumbersWanted(HEAD_END_NAME, recipient_id, 2 * SEQUENCE_BLOCK)
    assert street.contexts()[0].reserved_until == 2 * SEQUENCE_BLOCK


def test_numbers_are_wanted_once_for_each_block_however_many_wait() -> None:
    street = Street()
    open_up(street.meter)
    street.join()
    for _ in range(SEQUENCE_BLOCK + 8):
        street.report(b"x")
        street.world.elapse(1)
    assert len(street.meter.wanted) == 1
    assert len(street.head_end.delivered) == SEQUENCE_BLOCK
    street.meter.grant(street.meter.wanted[0])
    street.meter.settle()
    street.world.elapse(10)
    assert len(street.head_end.delivered) == SEQUENCE_BLOCK + 8
    assert len(street.meter.wanted) == 1
    street.expect_rest()


def test_nothing_is_sent_under_a_number_that_is_not_durable(cipher: RecordingCipher) -> None:
    street = Street(block=0)
    open_up(street.meter)
    street.join()
    street.world.history.clear()
    requests = [street.report(b"%d" % number) for number in range(3)]
    street.world.elapse(100)
    assert cipher.used == []
    assert street.world.history == []
    (wanted,) = street.meter.wanted
    street.meter.grant(wanted)
    street.meter.settle()
    street.world.elapse(10)
    assert [street.meter.responses[one].payload for one in requests] == [b"re 0", b"re 1", b"re 2"]


def test_messages_that_waited_go_out_in_the_order_they_were_given() -> None:
    street = Street(block=0, limits=Limits(nstart=HELD_MAX))
    open_up(street.meter)
    street.join()
    for number in range(HELD_MAX):
        street.report(b"%02d" % number)
    street.meter.grant(street.meter.wanted[0])
    street.report(b"after")
    street.world.elapse(10)
    payloads = [message.payload for _, message in street.head_end.delivered]
    assert payloads == [b"%02d" % number for number in range(HELD_MAX)] + [b"after"]


def test_no_message_overtakes_those_that_wait_though_its_number_would_be_there() -> None:
    street = Street(block=0, limits=Limits(nstart=8))
    open_up(street.meter)
    street.join()
    street.report(b"first")
    ours = street.contexts()[0]
    ours.reserve(5)
    street.report(b"second")
    street.world.elapse(5)
    assert street.head_end.delivered == []
    street.meter.grant(street.meter.wanted[0])
    street.meter.settle()
    street.world.elapse(5)
    assert [message.payload for _, message in street.head_end.delivered] == [b"first", b"second"]


def test_at_the_bound_a_further_message_is_refused_and_the_others_still_go() -> None:
    street = Street(block=0, limits=Limits(nstart=HELD_MAX))
    open_up(street.meter)
    street.join()
    requests = [street.report(b"x") for _ in range(HELD_MAX)]
    for _ in range(3):
        with pytest.raises(TableFull, match=str(HELD_MAX)):
            street.report(b"one too many")
    assert leaks(street.meter.stack)["_under_way"] == HELD_MAX
    street.meter.grant(street.meter.wanted[0])
    street.meter.settle()
    street.world.elapse(10)
    assert set(street.meter.responses) == set(requests)
    street.expect_rest()


def test_an_answer_refused_at_the_bound_can_be_given_again() -> None:
    street = Street(block=0, limits=Limits(nstart=HELD_MAX + 2, backlog_max=64))
    open_up(street.head_end)
    street.meter.block = 1000
    street.head_end.answers_at_once = street.head_end.is_durable = False
    street.join()
    requests = [street.report(b"%d" % number) for number in range(HELD_MAX + 1)]
    street.world.elapse(0.5)
    *events, last = street.head_end.waiting
    for event in events:
        street.head_end.answer(event)
    with pytest.raises(TableFull):
        street.head_end.answer(last)
    street.head_end.settle()
    street.head_end.grant(street.head_end.wanted[0])
    street.head_end.answer(last)
    street.head_end.settle()
    street.world.elapse(20)
    assert set(street.meter.responses) == set(requests)
    street.expect_rest()


def test_when_the_session_ends_what_waited_is_told_so() -> None:
    street = Street(block=0)
    open_up(street.meter)
    street.join()
    requests = [street.report(b"x") for _ in range(4)]
    refused = dict(street.meter.stack.refused)
    street.meter.stack.remove_session(HEAD_END_NAME)
    street.meter.settle()
    assert [street.meter.failures[one].reason for one in requests] == ["session ended"] * 4
    assert refused_since(street.meter.stack, refused) == {
        "session: request dropped for want of numbers": 4
    }
    street.meter.grant(street.meter.wanted[0])  # Too late, and no error.
    street.expect_rest()


def test_a_request_cancelled_while_it_waits_takes_no_number() -> None:
    street = Street(block=0)
    open_up(street.meter)
    street.join()
    first, second = street.report(b"first"), street.report(b"second")
    street.meter.stack.cancel(first, now=street.world.now)
    street.meter.grant(street.meter.wanted[0])
    street.meter.settle()
    street.world.elapse(10)
    assert street.contexts()[0].next_sequence_number == 1
    assert street.meter.responses.keys() == {second}
    assert street.meter.failures == {}
    street.expect_rest()


def test_fewer_numbers_than_were_wanted_send_as_many_and_ask_again() -> None:
    street = Street(block=0, limits=Limits(nstart=8))
    open_up(street.meter)
    street.join()
    requests = [street.report(b"%d" % number) for number in range(5)]
    recipient_id = street.contexts()[0].recipient_id
    street.meter.stack.numbers_reserved(recipient_id, 2, now=street.world.now)
    street.meter.settle()
    assert street.contexts()[0].next_sequence_number == 2
    assert [wanted.until for wanted in street.meter.wanted] == [SEQUENCE_BLOCK, 2 + SEQUENCE_BLOCK]
    street.meter.grant(street.meter.wanted[-1])
    street.meter.settle()
    street.world.elapse(10)
    assert [street.meter.responses[one].payload for one in requests] == [
        b"re %d" % number for number in range(5)
    ]
    street.expect_rest()


def test_an_answer_meant_for_another_session_reserves_nothing() -> None:
    """Said twice, late, or about nobody: only what was wanted counts."""
    street = Street()
    street.join()
    ours = street.contexts()[0]
    for recipient_id in (ours.recipient_id, b"nobody"):
        street.meter.stack.numbers_reserved(recipient_id, 10_000, now=street.world.now)
    assert ours.reserved_until == SEQUENCE_BLOCK


def test_at_the_end_of_the_number_space_requests_fail_and_no_numbers_are_wanted() -> None:
    street = Street()
    street.join()
    ours = street.contexts()[0]
    ours.reserve(SEQUENCE_NUMBER_MAX - 3)
    ours.next_sequence_number = SEQUENCE_NUMBER_MAX - 3
    requests = [street.report(b"%d" % number) for number in range(4)]
    street.world.elapse(10)
    assert set(street.meter.responses) == set(requests)
    assert [wanted.until for wanted in street.meter.wanted] == [SEQUENCE_NUMBER_MAX + 1]
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="new keys"):
            street.report(b"beyond")
    assert len(street.meter.wanted) == 1
    street.expect_rest()


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_answer_uses_the_requests_nonce_at_most_once(
    is_durable: bool, cipher: RecordingCipher
) -> None:
    """Not even when the first answer under it was too large to be sent."""
    street = Street()
    street.head_end.answers_at_once = False
    street.join()
    street.report(b"x")
    street.world.elapse(0.5)
    (event,) = street.head_end.waiting
    for size in (5000, 4500, 10):
        answer = Message.response(0x45, options=[Option(65002, bytes(size))])
        try:
            street.head_end.stack.respond(
                event.exchange, answer, is_durable=is_durable, now=street.world.now
            )
        except LocalProtocolError:
            assert size > 10
    street.head_end.settle()
    street.world.elapse(5)
    assert len(street.meter.responses) == 1
    expect_no_nonce_twice(cipher)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), block=st.sampled_from([0, 1, 3, SEQUENCE_BLOCK]))
def test_no_nonce_covers_two_plaintexts_whatever_happens(seed: int, block: int) -> None:
    """Requests, answers now and later, lost numbers, restarts and new sessions, in any order."""
    record = RecordingCipher()
    with pytest.MonkeyPatch.context() as patch:
        record.watch(patch)
        dice = random.Random(seed)
        world = World(seed, LinkQuality(loss=0.1, duplication=0.2, delay_min=0.01, delay_max=1.0))
        street = Street(world, seed=seed, block=block, limits=Limits(nstart=3))
        street.join()
        for operation in operations(dice, 40):
            act(street, operation, dice)
            world.elapse(dice.choice([0.0, 0.1, 3.0]))
        world.elapse(300)
    expect_no_nonce_twice(record)
    expect_durable_numbers(street)


OPERATIONS = (
    "report",
    "report",
    "read",
    "read",
    "answer",
    "answer",
    "be slow",
    "grant",
    "restart the meter",
    "restart the head-end",
    "join",
    "change durability",
)


def operations(dice: random.Random, count: int) -> Iterator[str]:
    return (dice.choice(OPERATIONS) for _ in range(count))


def act(street: Street, operation: str, dice: random.Random) -> None:
    party = dice.choice([street.meter, street.head_end])
    try:
        match operation:
            case "report":
                street.report(dice.randbytes(8))
            case "read":
                street.read(dice.randbytes(8))
            case "answer":
                party.answers_at_once = not party.answers_at_once
                waiting, party.waiting = party.waiting, []
                for event in waiting:
                    party.answer(event)
                party.settle()
            case "be slow":
                party.grants_numbers = False
            case "grant":
                party.grants_numbers = True
                for wanted in party.wanted[-2:]:
                    party.grant(wanted)
                party.settle()
            case "restart the meter":
                street.meter.restart()
            case "restart the head-end":
                street.head_end.restart()
            case "join":
                street.meter.connect(HEAD_END_AT, c_i=bytes((dice.randrange(24),)))
            case "change durability":
                party.is_durable = not party.is_durable
    except (LocalProtocolError, TableFull):
        pass  # No session yet, a full table, an identifier in use, an exchange before a restart.


def expect_durable_numbers(street: Street) -> None:
    for party, identity in ((street.meter, HEAD_END_NAME), (street.head_end, METER)):
        context = party.stack.session_of(identity)
        if context is not None:
            saved = party.disk.sessions[identity]
            assert context.next_sequence_number <= context.reserved_until <= saved.reserved_until
            assert context.recipient_id == saved.parameters.recipient_id


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_commands_and_garbage_raise_only_what_is_documented_and_leave_nothing(
    seed: int,
) -> None:
    dice = random.Random(seed)
    world = World(seed, LinkQuality(loss=0.1, duplication=0.3, delay_min=0.01, delay_max=2.0))
    street = Street(world, seed=seed, limits=Limits(nstart=2, backlog_max=2, incoming_max=4))
    street.join()
    for _ in range(50):
        if dice.random() < 0.5:
            act(street, dice.choice(OPERATIONS), dice)
        else:
            disturb(street, dice)
        for party in (street.meter, street.head_end):
            for name, (depth, bound) in party.stack.depths.items():
                assert depth <= bound, name
        world.elapse(dice.choice([0.0, 0.01, 1.0, 20.0]))
    for party in (street.meter, street.head_end):
        party.grants_numbers = party.answers_at_once = True
        for wanted in party.wanted[-3:]:
            party.grant(wanted)
        for event in party.waiting:
            try:
                party.answer(event)
            except LocalProtocolError:
                pass
        party.settle()
    street.calm_down()
    street.expect_rest()


def disturb(street: Street, dice: random.Random) -> None:
    """Garbage, replays, mutations, and commands that have no place."""
    party = dice.choice([street.meter, street.head_end])
    stack, now = party.stack, street.world.now
    datagrams = street.world.history or None
    match dice.randrange(7):
        case 0:
            stack.receive_datagram(dice.randbytes(dice.randrange(40)), "stranger", now=now)
        case 1 if datagrams:
            passage = dice.choice(datagrams)
            stack.receive_datagram(passage.datagram, passage.sender, now=now)
        case 2 if datagrams:
            passage = dice.choice(datagrams)
            octets = bytearray(passage.datagram)
            octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
            stack.receive_datagram(bytes(octets), passage.sender, now=now)
        case 3:
            if party.proposals:
                last = party.proposals[-1]
                expect_refused(
                    lambda: stack.accept_session(last, b"thief", reserved_until=64, now=now)
                )
                expect_refused(lambda: stack.reject_session(last, retry_after=1, now=now))
        case 4:
            expect_refused(lambda: stack.request(b"nobody", question(b""), "x", now=now))
        case 5:
            expect_refused(
                lambda: stack.respond(10**9, answer_to(question(b"")), is_durable=True, now=now)  # type: ignore[arg-type]  # Not an exchange, on purpose.
            )
        case _:
            stack.handle_timer(now=now)
            stack.cancel(10**9, now=now)  # type: ignore[arg-type]  # Not a request, on purpose.
            stack.numbers_reserved(b"nobody", 10, now=now)
            stack.remove_session(b"nobody")
    party.settle()


def expect_refused(command: object) -> None:
    assert callable(command)
    with pytest.raises(AmiError):
        command()


def test_the_recorder_of_these_tests_notices_a_nonce_that_comes_again(
    cipher: RecordingCipher,
) -> None:
    """A disk that forgets what was reserved: the very fault that all the above must exclude."""
    street = Street()
    street.join()
    street.report(b"before")
    street.world.elapse(5)
    street.meter.disk.sessions[HEAD_END_NAME].reserved_until = 0
    street.meter.restart()
    street.report(b"after")
    street.world.elapse(5)
    with pytest.raises(AssertionError, match="one nonce"):
        expect_no_nonce_twice(cipher)
