"""A session whose replay window may be an old one: after a backup was put back.

The contract under test: nothing that was said before is delivered once more, however old the window
is that was put back; a peer that is there proves by an Echo value (RFC 9175 section 2.3, RFC 8613
appendix B.1.2) that it speaks now, once, and its program notices nothing; whoever cannot prove it
changes nothing; no nonce is used twice, nothing is kept for ever, and challenges are bounded.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.errors import TableFull
from amistack.machine import Peer
from amistack.session.oscore import SecurityContext, protect
from amistack.stack import ECHO_LATER_S, ECHO_RATE_MAX, ECHO_SIZE, RequestId
from tests.meterd.bench import Sealed, watched_nonces
from tests.stack.parties import CONTENT, HEAD_END_NAME, METER, Disk, Street, answer_to, leaks
from tests.support.worlds import BAD

METER_AT, HEAD_END_AT = Street.METER_AT, Street.HEAD_END_AT
LONG_LOST = 10_000
"""Where the head-end's own numbers go on: above whatever it used in the time that was lost."""
THIEF_AT = "thief"


@pytest.fixture(autouse=True)
def sealed() -> Iterator[Sealed]:
    """Watches every nonce of every test of this module."""
    with pytest.MonkeyPatch.context() as patch:
        record = watched_nonces(patch)
        yield record
    if record.plaintexts:  # One test keeps records of its own.
        record.check()


class Restored(Street):
    """A street whose head-end is put back to an old disk."""

    def __init__(self, *, seed: object = 0) -> None:
        super().__init__(seed=seed)
        self.join()
        self.backup = Disk()
        self.lost_count = 0

    def back_up(self) -> None:
        self.backup = copy.deepcopy(self.head_end.disk)

    def put_back(self, *, is_doubtful: bool = True) -> None:
        """The head-end dies and comes back with the backup; its numbers lie above those used."""
        party = self.head_end
        party.disk = copy.deepcopy(self.backup)
        self.lost_count += 1
        party.disk.reserve(self._recipient_id(), LONG_LOST * self.lost_count)
        party.stack = party._born()
        party.waiting.clear()
        party.responses, party.failures = {}, {}
        for identity, saved in party.disk.sessions.items():
            party.stack.add_session(identity, saved.restored(), is_window_doubtful=is_doubtful)
        assert party.host is not None
        party.host.machine = party.stack
        party.host.settle()

    def _recipient_id(self) -> bytes:
        return self.backup.sessions[METER].parameters.recipient_id

    def requests_of_meter(self) -> list[bytes]:
        """What the meter sent as a request under protection, in order, for a thief to keep."""
        return [
            one.datagram
            for one in self.world.datagrams()
            if one.sender == METER_AT and is_protected_request(one.datagram)
        ]

    def replay(self, datagram: bytes, message_id: int) -> None:
        """Send it again, from elsewhere and fresh for the message layer."""
        self.world.send(THIEF_AT, HEAD_END_AT, datagram[:2] + message_id.to_bytes(2) + datagram[4:])
        self.world.elapse(0.5)

    def delivered(self) -> list[bytes]:
        return [message.payload for _, message in self.head_end.delivered]

    @property
    def challenge_count(self) -> int:
        return self.head_end.stack.refused.get("session: freshness asked", 0)

    @property
    def window(self) -> tuple[int, int]:
        context = self.head_end.stack.session_of(METER)
        assert context is not None
        return context.replay_window.state

    def is_doubtful(self) -> bool:
        return bool(self.head_end.stack._secured._freshness._doubtful)


def is_protected_request(datagram: bytes) -> bool:
    message = Message.decode(datagram)
    return 0 < message.code < 0x20 and message.option(OptionNumber.OSCORE) is not None


def answers_to(street: Restored, address: Peer) -> list[Message]:
    """What the head-end answered to that address, without empty messages."""
    messages = [
        Message.decode(one.datagram)
        for one in street.world.datagrams()
        if one.sender == HEAD_END_AT and one.receiver == address
    ]
    return [message for message in messages if message.code]


def after_loss(*, said_before: int = 3, said_since: int = 5) -> Restored:
    """The head-end is put back to where `said_before` was said; `said_since` is lost to it."""
    street = Restored()
    for number in range(said_before):
        street.report(b"before %d" % number)
        street.world.elapse(1)
    street.back_up()
    for number in range(said_since):
        street.report(b"since %d" % number)
        street.world.elapse(1)
    street.head_end.delivered.clear()
    street.put_back()
    return street


# A peer that is there


def test_the_first_request_is_delivered_once_and_its_sender_notices_nothing() -> None:
    street = after_loss()
    request = street.report(b"now")
    street.world.elapse(5)
    assert street.delivered() == [b"now"]
    assert street.meter.responses[request].payload == b"re now"
    assert street.challenge_count == 1
    assert not street.meter.failures
    street.report(b"next")
    street.world.elapse(5)
    assert street.delivered() == [b"now", b"next"]
    assert street.challenge_count == 1, "once is enough"
    street.calm_down()
    street.expect_rest()


def test_a_challenge_is_protected_and_under_a_number_of_our_own() -> None:
    """Under the request's nonce it could be the second answer to have it."""
    street = after_loss()
    before = len(street.world.datagrams())
    _, theirs = street.contexts()
    number = theirs.next_sequence_number
    street.report(b"now")
    street.world.elapse(5)
    challenge = next(
        message
        for one in street.world.datagrams()[before:]
        if one.sender == HEAD_END_AT and (message := Message.decode(one.datagram)).code
    )
    assert challenge.code == Code.CHANGED, "outside it looks like any other answer"
    option = challenge.option(OptionNumber.OSCORE)
    assert option, "it brings a Partial IV"
    assert option[0] & 0x07
    assert int.from_bytes(option[1 : 1 + (option[0] & 0x07)]) == number >= LONG_LOST
    assert challenge.option(OptionNumber.ECHO) is None, "the value is for its reader alone"


def test_the_window_goes_on_just_above_the_request_that_proved_itself() -> None:
    street = after_loss()
    ours, _ = street.contexts()
    street.report(b"now")
    street.world.elapse(5)
    assert street.window == (ours.next_sequence_number, 0)
    assert street.head_end.disk.sessions[METER].window == street.window
    assert not street.is_doubtful()


def test_the_number_of_a_proof_that_jumps_ahead_is_the_new_base() -> None:
    street = after_loss()
    ours, _ = street.contexts()
    ours.next_sequence_number = ours.reserved_until = 70_000
    street.report(b"now")
    street.world.elapse(5)
    # 70,000 went unproven, 70,001 with the proof.
    assert street.window == (70_002, 0)


def test_the_longest_request_has_room_for_the_proof() -> None:
    street = after_loss()
    request = street.report(b"x" * 4_000)
    street.world.elapse(5)
    assert request in street.meter.responses
    assert street.delivered() == [b"x" * 4_000]


def test_a_session_that_is_not_doubtful_is_asked_nothing() -> None:
    street = after_loss()
    street.put_back(is_doubtful=False)
    street.report(b"now")
    street.world.elapse(5)
    assert street.challenge_count == 0
    assert street.delivered() == [b"now"]


def test_a_new_session_in_place_of_a_doubtful_one_is_asked_nothing() -> None:
    street = after_loss()
    street.join(c_i=b"\x07")
    assert not street.is_doubtful()
    street.report(b"now")
    street.world.elapse(5)
    assert street.challenge_count == 0
    assert street.delivered() == [b"now"]


def test_a_doubtful_session_may_ask_its_peer_meanwhile() -> None:
    """The answer is bound to our own request, which is new."""
    street = after_loss()
    request = street.read(b"how much")
    street.world.elapse(5)
    assert street.head_end.responses[request].payload == b"re how much"
    assert street.is_doubtful()


# What was said before


def test_nothing_that_was_said_before_is_delivered_again() -> None:
    street = after_loss()
    old = street.requests_of_meter()
    assert len(old) == 8
    for message_id, datagram in enumerate(old):
        street.replay(datagram, message_id)
    assert street.delivered() == []
    assert street.is_doubtful()
    assert street.challenge_count == 5, "the backup's window knows the other three"
    assert street.head_end.stack.refused["session: replay"] == 3
    assert street.head_end.disk.sessions[METER].window == street.backup.sessions[METER].window
    street.report(b"now")
    street.world.elapse(5)
    for message_id, datagram in enumerate(old):
        street.replay(datagram, 100 + message_id)
    assert street.delivered() == [b"now"]
    assert street.head_end.stack.refused["session: replay"] == 3 + 8


def test_these_replays_are_taken_where_nobody_doubts() -> None:
    """Guards the test above: without the doubt the old window lets them through."""
    street = after_loss()
    street.put_back(is_doubtful=False)
    for message_id, datagram in enumerate(street.requests_of_meter()):
        street.replay(datagram, message_id)
    assert len(street.delivered()) == 5


def test_a_proof_that_was_given_proves_nothing_after_the_next_restore() -> None:
    street = after_loss()
    street.report(b"now")
    street.world.elapse(5)
    proof = street.requests_of_meter()[-1]
    street.put_back()
    street.head_end.delivered.clear()
    street.replay(proof, 1)
    street.replay(proof, 2)
    assert street.delivered() == []
    assert street.is_doubtful()


def test_a_proof_of_the_first_challenge_holds_though_a_second_was_sent() -> None:
    """A thief's replay in between must not make the meter's own proof worthless."""
    street = after_loss()
    old = street.requests_of_meter()
    street.replay(old[-1], 1)
    request = street.report(b"now")
    street.world.elapse(0.015)  # Its request has arrived, its challenge not yet.
    street.replay(old[-2], 2)
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re now"
    assert street.delivered() == [b"now"]


@pytest.mark.parametrize("wrong", [b"", b"\0", bytes(ECHO_SIZE), b"x" * 40])
def test_a_wrong_value_is_asked_again_and_the_asker_told(wrong: bytes) -> None:
    street = after_loss()
    for _ in range(2):
        request = street.meter.stack.request(
            HEAD_END_NAME, with_echo(b"guess", wrong), HEAD_END_AT, now=street.world.now
        )
        street.meter.settle()
        street.world.elapse(5)
        response = street.meter.responses[request]
        # It gave a value itself, so it is not repeated for it.
        assert response.code == Code.UNAUTHORIZED
        assert len(response.option(OptionNumber.ECHO) or b"") == ECHO_SIZE
    assert street.delivered() == []
    assert street.is_doubtful()


def with_echo(payload: bytes, value: bytes) -> Message:
    plain = Message.request(Code.POST, "rep", payload=payload, content_format=CONTENT)
    options = (*plain.options, Option(OptionNumber.ECHO, value))
    return Message(code=plain.code, options=options, payload=payload)


# The asker's side


def answered_with(street: Restored, *answers: Message) -> Counter[bytes]:
    """Let the head-end's program answer with these, in turn; counts what it was given."""
    given: Counter[bytes] = Counter()
    left = list(answers)
    street.head_end.answers_at_once = False
    assert street.head_end.host is not None
    plain = street.head_end.on_event

    def on_event(event: object) -> None:
        plain(event)  # type: ignore[arg-type]  # The stack's own event.
        for request in street.head_end.waiting:
            given[request.message.payload] += 1
            street.head_end.stack.respond(
                request.exchange,
                left.pop(0) if left else answer_to(request.message),
                is_durable=False,
                now=street.world.now,
            )
        street.head_end.waiting.clear()

    street.head_end.host.on_event = on_event
    return given


def challenge(value: bytes = b"echo this") -> Message:
    return Message.response(Code.UNAUTHORIZED, options=(Option(OptionNumber.ECHO, value),))


def test_a_request_is_repeated_once_only_and_a_second_challenge_handed_up() -> None:
    street = Restored()
    given = answered_with(street, challenge(b"first"), challenge(b"second"))
    request = street.report(b"now")
    street.world.elapse(5)
    assert given == {b"now": 2}
    response = street.meter.responses[request]
    assert response.code == Code.UNAUTHORIZED
    assert response.option(OptionNumber.ECHO) == b"second"
    street.calm_down()
    street.expect_rest()


def test_the_repeated_request_is_the_same_but_for_the_value() -> None:
    street = Restored()
    answered_with(street, challenge(b"first"))
    request = street.report(b"now")
    street.world.elapse(5)
    (_, first), (_, second) = street.head_end.delivered
    assert (first.code, first.path, first.content_format) == (Code.POST, "rep", CONTENT)
    assert [one for one in second.options if one.number != OptionNumber.ECHO] == list(first.options)
    assert (second.code, second.payload) == (first.code, first.payload)
    assert second.option(OptionNumber.ECHO) == b"first"
    assert street.meter.responses[request].payload == b"re now"


def test_the_value_finds_its_place_among_the_options() -> None:
    street = after_loss()
    plain = Message.request(Code.POST, "rep", payload=b"now", content_format=CONTENT)
    beyond = Option(OptionNumber.ECHO + 1_000, b"elective, and nobody's")
    message = Message(code=plain.code, options=(*plain.options, beyond), payload=b"now")
    request = street.meter.stack.request(HEAD_END_NAME, message, HEAD_END_AT, now=street.world.now)
    street.meter.settle()
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re now"


@pytest.mark.parametrize(
    "answer",
    [
        Message.response(Code.UNAUTHORIZED),
        Message.response(Code.UNAUTHORIZED, options=(Option(OptionNumber.ECHO, b""),)),
        Message.response(Code.CHANGED, options=(Option(OptionNumber.ECHO, b"for next time"),)),
        Message.response(Code.FORBIDDEN, options=(Option(OptionNumber.ECHO, b"no"),)),
    ],
    ids=["no-value", "empty-value", "success", "another-code"],
)
def test_what_is_no_challenge_is_handed_up(answer: Message) -> None:
    street = Restored()
    given = answered_with(street, answer)
    request = street.report(b"now")
    street.world.elapse(5)
    assert given == {b"now": 1}
    assert street.meter.responses[request].code == answer.code


def test_an_unprotected_challenge_moves_nobody() -> None:
    street = Restored()
    street.world.passes = lambda _, receiver, __: receiver != HEAD_END_AT
    request = street.report(b"now")
    sent = Message.decode(street.world.datagrams()[-1].datagram)
    forged = Message(
        type=sent.type.ACK,
        code=Code.UNAUTHORIZED,
        message_id=sent.message_id,
        token=sent.token,
        options=(Option(OptionNumber.ECHO, b"12345678"),),
    )
    before = len(street.requests_of_meter())
    street.world.send(HEAD_END_AT, METER_AT, forged.encode())
    street.world.elapse(200)
    assert street.meter.failures[request].reason == "response not protected"
    assert len(street.requests_of_meter()) == before


def test_a_repetition_that_was_cancelled_is_not_sent() -> None:
    street = after_loss()
    request = street.report(b"now")
    street.world.elapse(0.015)
    street.meter.stack.cancel(request, now=street.world.now)
    street.meter.settle()
    street.world.elapse(300)
    assert street.delivered() == []
    assert leaks(street.meter.stack) == {}


def test_a_repetition_waits_for_numbers_like_any_request() -> None:
    street = after_loss()
    ours, _ = street.contexts()
    street.meter.grants_numbers = False
    ours.next_sequence_number = ours.reserved_until - 1
    request = street.report(b"now")
    street.world.elapse(5)
    assert street.delivered() == []
    street.meter.grant(street.meter.wanted[-1])
    street.meter.settle()
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re now"
    assert street.delivered() == [b"now"]


def test_a_repetition_without_room_is_a_failed_request() -> None:
    street = after_loss()
    request = street.report(b"now")

    def full(*_: object, **__: object) -> None:
        raise TableFull("8 requests wait already")

    street.meter.stack._secured._requests._ask = full  # type: ignore[method-assign]
    street.world.elapse(5)
    assert street.meter.failures[request].reason == "8 requests wait already"
    assert leaks(street.meter.stack) == {}


def test_a_session_that_ends_at_the_asker_ends_the_repetition() -> None:
    street = after_loss()
    ours, _ = street.contexts()
    street.meter.grants_numbers = False
    ours.next_sequence_number = ours.reserved_until - 1
    request = street.report(b"now")
    street.world.elapse(0.015)
    street.meter.stack.remove_session(HEAD_END_NAME)
    street.world.elapse(5)
    assert street.meter.failures[request].reason == "session ended"
    assert leaks(street.meter.stack) == {}


# Losses, two at a time, ends


def test_two_requests_at_once_are_both_asked_and_both_delivered_once() -> None:
    street = after_loss()
    requests = [street.report(b"one"), street.report(b"two")]
    street.world.elapse(30)
    assert sorted(street.delivered()) == [b"one", b"two"]
    assert {street.meter.responses[request].payload for request in requests} == {
        b"re one",
        b"re two",
    }
    street.calm_down()
    street.expect_rest()


def test_two_challenges_before_the_first_proof_ask_for_one_value() -> None:
    street = after_loss()
    old = street.requests_of_meter()
    street.replay(old[-1], 1)
    first = dict(street.head_end.stack._secured._freshness._doubtful)
    street.replay(old[-2], 2)
    assert street.head_end.stack._secured._freshness._doubtful == first
    assert street.challenge_count == 2


@pytest.mark.parametrize("lost", range(4), ids=["request", "challenge", "proof", "answer"])
def test_any_one_lost_datagram_is_made_good_by_repetition(lost: int) -> None:
    street = after_loss()
    seen = 0

    def passes(_: Peer, __: Peer, ___: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen != lost + 1

    street.world.passes = passes
    request = street.report(b"now")
    street.world.elapse(100)
    assert seen > 4
    assert street.delivered() == [b"now"]
    assert street.meter.responses[request].payload == b"re now"
    assert street.challenge_count == 1, "a repeated datagram gets the answer that was kept"
    street.calm_down()
    street.expect_rest()


def test_a_proof_without_its_answer_is_not_delivered_again_by_the_next_request() -> None:
    street = after_loss()
    street.head_end.answers_at_once = False
    street.report(b"now")
    street.world.elapse(200)
    assert street.delivered() == [b"now"]
    assert not street.is_doubtful(), "it was fresh, whatever became of it"


def test_a_session_that_ends_between_challenge_and_proof_refuses_the_proof() -> None:
    street = after_loss()
    request = street.report(b"now")
    street.world.elapse(0.015)
    assert street.challenge_count == 1
    street.head_end.stack.remove_session(METER)
    street.world.elapse(100)
    assert street.delivered() == []
    assert street.meter.failures[request].code == Code.UNAUTHORIZED
    assert not street.is_doubtful()
    street.calm_down()
    street.expect_rest()


def test_a_challenge_that_waits_for_numbers_goes_out_when_they_are_there() -> None:
    street = after_loss()
    street.head_end.grants_numbers = False
    request = street.report(b"now")
    street.world.elapse(3)
    assert street.delivered() == []
    (wanted,) = street.head_end.wanted[-1:]
    street.head_end.grant(wanted)
    street.head_end.settle()
    street.world.elapse(5)
    assert street.delivered() == [b"now"]
    assert street.meter.responses[request].payload == b"re now"


def test_a_session_that_ends_while_its_challenge_waits_answers_later_in_the_clear() -> None:
    street = after_loss()
    street.head_end.grants_numbers = False
    request = street.report(b"now")
    street.world.elapse(3)
    street.head_end.stack.remove_session(METER)
    street.head_end.settle()
    street.world.elapse(5)
    assert street.meter.failures[request].code == Code.SERVICE_UNAVAILABLE
    street.calm_down()
    street.expect_rest()


def test_challenges_beyond_those_that_may_wait_for_numbers_are_answered_later() -> None:
    street = after_loss(said_since=45)
    street.head_end.grants_numbers = False
    for message_id, datagram in enumerate(street.requests_of_meter()):
        street.replay(datagram, message_id)
    assert street.delivered() == []
    refused = street.head_end.stack.refused
    assert refused["session: answer dropped for want of numbers"] == 45 - 32
    assert Code.SERVICE_UNAVAILABLE in {message.code for message in answers_to(street, THIEF_AT)}
    street.head_end.stack.remove_session(METER)
    street.head_end.settle()
    street.calm_down()
    street.expect_rest()


# The bound


def test_more_than_so_many_challenges_in_a_second_are_answered_later() -> None:
    street = after_loss()
    stack = street.head_end.stack
    stack._secured._freshness._since, stack._secured._freshness._count = (
        street.world.now,
        ECHO_RATE_MAX - 1,
    )
    old = street.requests_of_meter()
    street.replay(old[-1], 1)
    assert street.challenge_count == 1
    request = street.report(b"now")
    street.world.elapse(0.3)
    response = street.meter.responses[request]
    assert response.code == Code.SERVICE_UNAVAILABLE
    assert response.uint_option(OptionNumber.MAX_AGE) == ECHO_LATER_S
    assert stack.refused["session: freshness asked too often, later"] == 1
    assert street.delivered() == []
    assert street.is_doubtful()
    street.world.elapse(1)
    again = street.report(b"later")
    street.world.elapse(5)
    assert street.meter.responses[again].payload == b"re later"
    assert street.delivered() == [b"later"]


def test_the_bound_holds_for_all_sessions_together() -> None:
    """Each of many meters is asked or told to come later; a second later the others are."""
    street = after_loss(said_since=60)
    stack = street.head_end.stack
    stack._secured._freshness._since, stack._secured._freshness._count = (
        street.world.now,
        ECHO_RATE_MAX - 20,
    )
    for message_id, datagram in enumerate(street.requests_of_meter()[3:43]):
        street.world.send(
            THIEF_AT, HEAD_END_AT, datagram[:2] + message_id.to_bytes(2) + datagram[4:]
        )
    street.world.elapse(0.5)
    assert street.challenge_count == 20
    assert stack.refused["session: freshness asked too often, later"] == 20
    street.world.elapse(1)
    street.replay(street.requests_of_meter()[50], 999)
    assert street.challenge_count == 21


# Whatever happens


DEEDS = (
    *["report"] * 5, *["replay"] * 5, *["put back"] * 3, "back up", "restart", "join", "wait",
    "long wait",
)  # fmt: skip


class Life:
    """A street to which things happen; the meter's program asks, and joins when it must."""

    def __init__(self, seed: int) -> None:
        self.street = Restored(seed=seed)
        self.street.back_up()
        self.dice = random.Random(seed)
        if seed % 2:
            self.street.world.quality = BAD
        self.asked: dict[bytes, RequestId] = {}
        self.deed_count = 0

    def do(self, deed: str) -> None:
        street = self.street
        self.deed_count += 1
        match deed:
            case "report":
                payload = b"%d" % self.deed_count
                with contextlib.suppress(TableFull):  # So many wait already.
                    self.asked[payload] = street.report(payload)
                street.world.elapse(self.dice.choice((0, 0.015, 1)))
            case "replay":
                old = street.requests_of_meter()
                for datagram in self.dice.sample(old, min(4, len(old))):
                    street.replay(datagram, self.dice.randrange(1 << 16))
            case "back up":
                street.back_up()
            case "put back":
                street.put_back()
            case "restart":
                # With the disk as it is; who was doubtful stays so.
                kept, street.backup = street.backup, copy.deepcopy(street.head_end.disk)
                street.put_back(is_doubtful=street.is_doubtful())
                street.backup = kept
            case "join":
                with contextlib.suppress(TableFull):
                    street.meter.connect(HEAD_END_AT, c_i=bytes((0x40 + self.deed_count,)))
                street.world.elapse(self.dice.uniform(0, 3))
            case "wait":
                street.world.elapse(self.dice.uniform(0, 2))
            case "long wait":
                street.world.elapse(100)

    def expect_promises(self) -> None:
        street = self.street
        street.calm_down()
        # What the meter had no answer to before the restore it says again, with a proof: the same
        # words then come to a head-end that forgot them. No message does.
        messages = Counter(
            (message.payload, message.option(OptionNumber.ECHO))
            for _, message in street.head_end.delivered
        )
        assert all(count == 1 for count in messages.values()), messages
        counts = Counter(street.delivered())
        for payload, request in self.asked.items():
            response = street.meter.responses.get(request)
            if response is not None and response.code == Code.CHANGED:
                assert response.payload == b"re " + payload
                assert 1 <= counts[payload] <= 2
        street.expect_rest()
        # Whoever joins is heard in the end.
        street.join(c_i=b"\x17")
        last = street.report(b"last")
        street.world.elapse(100)
        assert street.meter.responses[last].payload == b"re last"


@settings(deadline=None, max_examples=100)
@given(deeds=st.lists(st.sampled_from(DEEDS), min_size=6, max_size=40), seed=st.integers(0, 1000))
def test_no_message_is_delivered_twice_whatever_is_put_back_and_when(
    deeds: list[str], seed: int
) -> None:
    # One record for each life: the same seed has the same keys, and says other things.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protect, "AESCCM", AESCCM)
        record = watched_nonces(patch)
        life = Life(seed)
        for deed in deeds:
            life.do(deed)
        life.expect_promises()
        record.check()


def test_the_windows_of_these_tests_are_really_old() -> None:
    """Guards the tests above: the backup's window is behind what was said."""
    street = after_loss()
    ours, theirs = street.contexts()
    assert isinstance(theirs, SecurityContext)
    assert theirs.replay_window.state == (3, 0)
    assert ours.next_sequence_number == 8
