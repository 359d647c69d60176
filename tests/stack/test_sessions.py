"""Sessions of a stack: made, refused, replaced and lost.

The contract under test: a session comes only from a handshake in which both sides proved who they
are, and is made once; what replaces it leaves nothing behind; every command that has no place is a
LocalProtocolError that changed nothing.
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import Limits
from amistack.coap.message import Message
from amistack.errors import LocalProtocolError, TableFull
from amistack.session.handshakes import CredentialWanted, HandshakeId, SessionProposed
from amistack.session.oscore import SecurityContext
from amistack.stack import PROPOSALS_MAX, HandshakeFailed, Stack
from tests.stack.parties import (
    HEAD_END_NAME,
    METER,
    OTHER_METER,
    Party,
    Street,
    head_end_key,
    leaks,
    meter_key,
    private_key,
    state_of,
)
from tests.support.worlds import Fate, LinkQuality, World

HEAD_END_AT = Street.HEAD_END_AT
METER_CREDENTIAL = meter_key(METER).credential


def test_a_handshake_gives_both_the_same_keys_and_different_identifiers() -> None:
    street = Street()
    street.join()
    ours, theirs = street.contexts()
    assert ours.sender_key == theirs.recipient_key != ours.recipient_key == theirs.sender_key
    assert (ours.sender_id, ours.recipient_id) == (theirs.recipient_id, theirs.sender_id)
    assert ours.recipient_id == b"\x05"
    assert len(ours.sender_id) == 4
    street.expect_rest()


def test_on_a_perfect_link_a_handshake_takes_four_datagrams() -> None:
    street = Street()
    street.join()
    kinds = [
        (
            passage.sender,
            Message.decode(passage.datagram).type,
            Message.decode(passage.datagram).code,
        )
        for passage in street.world.datagrams()
    ]
    assert kinds == [
        ("meter", Type.CON, Code.POST),
        ("head-end", Type.ACK, Code.CHANGED),
        ("meter", Type.CON, Code.POST),
        ("head-end", Type.ACK, Code.CHANGED),
    ]


def test_a_meter_that_pinned_another_head_end_refuses_this_one() -> None:
    street = Street()
    other = head_end_key("another head-end").credential
    street.meter.known = {other.id_cred: other}
    street.join()
    (failure,) = street.meter.handshake_failures
    assert failure.reason == "unknown credential"
    assert street.meter.stack.refused == {"session: handshake: unknown credential": 1}
    assert street.meter.stack.session_of(HEAD_END_NAME) is None
    assert street.head_end.stack.session_of(METER) is None
    assert leaks(street.meter.stack) == {}


def test_a_head_end_with_the_right_name_and_another_key_is_not_authentic() -> None:
    """The name in message_2 is what a thief would copy; the key is what he has not."""
    street = Street()
    right = head_end_key()
    thief = private_key("thief")
    forged = dataclasses.replace(right.credential, public_key=thief.public_key())
    street.meter.known = {forged.id_cred: forged}
    street.join()
    (failure,) = street.meter.handshake_failures
    assert failure.reason == "not authentic"
    assert street.meter.stack.session_of(HEAD_END_NAME) is None


def test_an_unknown_meter_is_refused_and_nothing_is_kept() -> None:
    street = Street()
    street.head_end.known = {}
    street.join()
    (failure,) = street.meter.handshake_failures
    assert failure == HandshakeFailed(
        HEAD_END_AT, "refused by the responder", "it does not know our credential (error 3)"
    )
    assert street.head_end.stack.refused == {"edhoc: unknown credential": 1}
    assert street.head_end.stack.session_of(METER) is None
    street.expect_rest()


def test_a_meter_with_the_right_name_and_another_key_is_not_authentic() -> None:
    street = Street()
    enrolled = meter_key(METER, "what the registry has").credential
    street.head_end.known = {enrolled.id_cred: enrolled}
    street.join()
    (failure,) = street.meter.handshake_failures
    assert failure.reason == "refused by the responder"
    assert street.head_end.stack.refused == {"edhoc: not authentic": 1}
    assert street.head_end.proposals == []
    street.expect_rest()


@pytest.mark.parametrize("lost", range(4), ids=["message_1", "message_2", "message_3", "answer"])
def test_any_one_lost_datagram_is_made_good_by_repetition(lost: int) -> None:
    street = Street()
    seen = 0

    def passes(sender: object, receiver: object, datagram: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen != lost + 1

    street.world.passes = passes
    street.join()
    ours, theirs = street.contexts()
    assert ours.sender_key == theirs.recipient_key
    assert len(street.world.datagrams(Fate.LOST)) == 1
    assert len(street.head_end.proposals) == 1
    street.expect_rest()


def test_a_silent_head_end_ends_the_handshake_after_the_last_repetition() -> None:
    street = Street()
    street.world.passes = lambda sender, receiver, datagram: False
    street.join()
    (failure,) = street.meter.handshake_failures
    assert failure.reason == "no acknowledgement"
    assert len(street.world.datagrams()) == 5
    street.expect_rest()


@pytest.mark.parametrize("number", [0, 2], ids=["message_1", "message_3"])
def test_a_replayed_handshake_message_makes_no_second_session(number: int) -> None:
    street = Street()
    street.join()
    datagram = street.world.datagrams()[number].datagram
    before = state_of(street.head_end.stack)
    street.world.send("attacker", HEAD_END_AT, datagram)
    street.world.elapse(1)
    assert len(street.head_end.proposals) == 1
    if number == 2:
        assert state_of(street.head_end.stack) == before
        assert street.head_end.stack.refused == {"edhoc: unexpected message": 1}
    # A replayed message_1 costs a place among the half-open for a minute, as any stranger's does.
    street.world.elapse(61)
    street.world.send("attacker", HEAD_END_AT, datagram[:2] + b"\xff\xff" + datagram[4:])
    street.world.elapse(1)
    assert len(street.head_end.proposals) == 1
    ours, theirs = street.contexts()
    assert ours.sender_key == theirs.recipient_key


def test_every_flipped_bit_of_message_3_is_noticed() -> None:
    dice = random.Random(3)
    for _ in range(40):
        street = Street()

        def spoil(sender: object, receiver: object, datagram: bytes) -> bool:
            message = Message.decode(datagram)
            if message.code != Code.POST or message.payload[:1] == b"\xf5" or sender != "meter":
                return True
            position = dice.randrange(8 * len(message.payload))
            octets = bytearray(message.payload)
            octets[position // 8] ^= 1 << position % 8
            spoilt = dataclasses.replace(message, payload=bytes(octets)).encode()
            street.world.passes = None  # noqa: B023  # This round's street, called in this round.
            street.world.send(sender, receiver, spoilt)  # noqa: B023
            return False

        street.world.passes = spoil
        street.join()
        assert street.head_end.proposals == []
        assert len(street.meter.handshake_failures) == 1
        assert sum(street.head_end.stack.refused.values()) == 1


def test_two_handshakes_of_one_meter_at_once_leave_one_session_that_works() -> None:
    street = Street()
    street.meter.connect(HEAD_END_AT, c_i=b"\x01")
    street.meter.connect(HEAD_END_AT, c_i=b"\x02")
    street.world.elapse(10)
    assert len(street.head_end.proposals) == 2
    assert len({proposed.parameters.recipient_id for proposed in street.head_end.proposals}) == 2
    assert (
        len(street.head_end.stack._secured._contexts)
        == len(street.meter.stack._secured._contexts)
        == 1
    )
    request = street.report(b"after both")
    street.world.elapse(10)
    assert street.meter.responses[request].payload == b"re after both"
    street.expect_rest()


def test_a_reflected_message_1_finds_no_responder_in_a_meter() -> None:
    street = Street()
    street.meter.connect(HEAD_END_AT)
    message_1 = street.world.datagrams()[0].datagram
    street.world.send(HEAD_END_AT, Street.METER_AT, message_1)
    street.world.elapse(0.005)
    street.world.elapse(1)
    assert street.meter.stack.refused["session: not protected"] == 1


def test_a_head_end_that_hears_itself_refuses_its_own_credential() -> None:
    """Everything that it says as initiator comes back to it as responder."""
    key = head_end_key()
    world = World()
    mirror = Party("head-end", key, [key.credential])
    mirror.host = world.add("itself", mirror.stack, mirror.on_event)
    mirror.connect("itself")
    world.elapse(300)
    assert mirror.proposals == []
    (failure,) = mirror.handshake_failures
    assert failure.reason == "our own credential"


def waiting_for(street: Street, kind: type) -> object:
    """The first event of that kind at the head-end, which nobody answers."""
    assert street.head_end.host is not None
    events: list[object] = []

    def on_event(event: object) -> None:
        if isinstance(event, kind):
            events.append(event)
        else:
            street.head_end.on_event(event)  # type: ignore[arg-type]  # It is an event of the stack.

    street.head_end.host.on_event = on_event
    street.meter.connect(HEAD_END_AT)
    street.world.elapse(5)
    (event,) = events
    return event


def test_a_handshake_that_waits_does_not_expire_and_can_still_be_answered() -> None:
    street = Street()
    wanted = waiting_for(street, CredentialWanted)
    assert isinstance(wanted, CredentialWanted)
    street.world.elapse(50)
    street.head_end.on_event(wanted)
    street.head_end.settle()
    street.world.elapse(300)
    street.contexts()
    street.expect_rest()


def test_a_credential_can_be_provided_once_and_only_the_one_that_was_wanted() -> None:
    street = Street()
    wanted = waiting_for(street, CredentialWanted)
    assert isinstance(wanted, CredentialWanted)
    stack = street.head_end.stack
    before = state_of(stack)
    with pytest.raises(LocalProtocolError):
        stack.provide_credential(wanted, meter_key(OTHER_METER).credential, now=street.world.now)
    with pytest.raises(LocalProtocolError):
        stack.provide_credential(
            dataclasses.replace(wanted, handshake=HandshakeId(77)), None, now=street.world.now
        )
    assert state_of(stack) == before
    stack.provide_credential(wanted, meter_key(METER).credential, now=street.world.now)
    (proposed,) = stack.events()
    assert isinstance(proposed, SessionProposed)
    for credential in (None, meter_key(METER).credential):
        with pytest.raises(LocalProtocolError):
            stack.provide_credential(wanted, credential, now=street.world.now)
    street.head_end.on_event(proposed)
    street.head_end.settle()
    street.world.elapse(300)
    street.contexts()
    street.expect_rest()


def test_a_proposal_can_be_answered_once_so_its_numbers_never_begin_again() -> None:
    street = Street()
    street.join()
    street.report(b"one")
    street.world.elapse(5)
    for party in (street.meter, street.head_end):
        (proposed,) = party.proposals
        before = state_of(party.stack)
        with pytest.raises(LocalProtocolError):
            party.stack.accept_session(proposed, METER, reserved_until=64, now=street.world.now)
        with pytest.raises(LocalProtocolError):
            party.stack.reject_session(proposed, retry_after=1, now=street.world.now)
        assert state_of(party.stack) == before


def test_a_session_that_cannot_be_stored_is_refused_with_a_time_to_come_again() -> None:
    street = Street()
    proposed = waiting_for(street, SessionProposed)
    assert isinstance(proposed, SessionProposed)
    street.head_end.stack.reject_session(proposed, retry_after=30, now=street.world.now)
    street.head_end.settle()
    street.world.elapse(300)
    (failure,) = street.meter.handshake_failures
    assert (failure.reason, failure.detail) == ("refused by the responder", "code 0xa3")
    (answer,) = [
        Message.decode(passage.datagram)
        for passage in street.world.datagrams()
        if Message.decode(passage.datagram).code == Code.SERVICE_UNAVAILABLE
    ]
    assert answer.uint_option(14) == 30
    assert street.head_end.stack.session_of(METER) is None
    street.expect_rest()


def test_an_identifier_in_use_is_refused_where_a_handshake_begins() -> None:
    street = Street()
    street.join(c_i=b"\x07")
    with pytest.raises(LocalProtocolError, match="in use"):
        street.meter.connect(HEAD_END_AT, c_i=b"\x07")
    street.meter.connect(HEAD_END_AT, c_i=b"\x08")
    street.world.elapse(5)
    assert street.contexts()[0].recipient_id == b"\x08"


def test_one_identifier_is_never_that_of_two_identities() -> None:
    """A request is told to the program by the identity that its kid belongs to."""
    stack = Party("head-end", head_end_key(), []).stack

    def context(id_context: bytes | None) -> SecurityContext:
        return SecurityContext.derive(
            master_secret=b"secret",
            sender_id=b"\x01",
            recipient_id=b"\x02",
            id_context=id_context,
        )

    stack.add_session(b"one", context(None))
    before = state_of(stack)
    for id_context in (None, b"other"):
        with pytest.raises(LocalProtocolError, match="another identity"):
            stack.add_session(b"two", context(id_context))
    assert state_of(stack) == before
    stack.add_session(b"one", context(None))


def test_proposals_that_nobody_answers_are_bounded() -> None:
    """A meter whose storage fails drops the event; a year of that must not fill its memory."""
    street = Street(limits=Limits(nstart=1))
    assert street.meter.host is not None
    proposed: list[SessionProposed] = []
    street.meter.host.on_event = lambda event: proposed.append(event)  # type: ignore[arg-type]  # noqa: PLW0108
    for number in range(PROPOSALS_MAX + 5):
        street.meter.stack.connect(
            HEAD_END_AT,
            tuple(street.meter.known.values()),
            c_i=bytes((number % 24,)),
            now=street.world.now,
        )
        street.meter.settle()
        street.world.elapse(1)
    assert len(proposed) == PROPOSALS_MAX + 5
    assert len(street.meter.stack._secured._approaches._proposed) == PROPOSALS_MAX
    with pytest.raises(LocalProtocolError):
        street.meter.stack.accept_session(proposed[0], b"x", reserved_until=64, now=0.0)
    street.meter.stack.accept_session(
        proposed[-1], HEAD_END_NAME, reserved_until=64, now=street.world.now
    )


def test_a_removed_session_is_unknown_to_both_commands_and_peers() -> None:
    street = Street()
    street.join()
    street.head_end.stack.remove_session(METER)
    street.head_end.stack.remove_session(METER)
    with pytest.raises(LocalProtocolError, match="no session"):
        street.read(b"?")
    request = street.report(b"anybody there?")
    street.world.elapse(5)
    failure = street.meter.failures[request]
    assert (failure.reason, failure.code) == ("response not protected", Code.UNAUTHORIZED)
    assert street.head_end.stack.refused == {"session: security context not found": 1}
    assert street.head_end.delivered == []


def test_a_request_under_way_in_a_replaced_session_still_gets_its_answer() -> None:
    street = Street(limits=Limits(nstart=2))
    street.head_end.answers_at_once = False
    street.join(c_i=b"\x01")
    street.world.set_quality(Street.METER_AT, HEAD_END_AT, LinkQuality(delay_min=2, delay_max=2))
    request = street.report(b"before")
    street.world.elapse(3)
    street.meter.connect(HEAD_END_AT, c_i=b"\x02")
    street.world.elapse(20)
    (event,) = street.head_end.waiting
    assert event.recipient_id != street.contexts()[1].recipient_id
    street.head_end.answer(event)
    street.head_end.settle()
    street.world.elapse(20)
    assert street.meter.responses[request].payload == b"re before"
    street.expect_rest()


def test_an_answer_that_needs_numbers_of_a_replaced_session_is_5_03_and_leaves_nothing() -> None:
    street = Street(block=1)
    street.head_end.answers_at_once = street.head_end.is_durable = False
    street.head_end.grants_numbers = False
    street.join(c_i=b"\x01")
    requests = [street.report(b"one"), street.report(b"two"), street.report(b"three")]
    street.world.elapse(5)
    # The first takes the only number, the others are held.
    for event in street.head_end.waiting:
        street.head_end.answer(event)
    street.head_end.waiting.clear()
    street.head_end.settle()
    street.world.elapse(5)
    for event in street.head_end.waiting:
        street.head_end.answer(event)
    street.head_end.waiting.clear()
    street.head_end.settle()
    street.world.elapse(5)
    assert street.meter.responses[requests[0]].payload == b"re one"
    street.head_end.stack.remove_session(METER)
    street.head_end.settle()
    street.world.elapse(5)
    for request in requests[1:]:
        assert street.meter.failures[request].code == Code.SERVICE_UNAVAILABLE
    assert leaks(street.head_end.stack) == {}


def test_a_forged_answer_to_message_3_costs_one_more_handshake_and_no_more() -> None:
    """Nothing protects that answer; what proves the keys is the first message under them."""
    street = Street()
    street.join(c_i=b"\x01")
    street.meter.connect(HEAD_END_AT, c_i=b"\x02")
    street.world.elapse(0.015)
    street.world.elapse(0.005)
    # Message_3 is on its way: it is lost, and the attacker answers in the head-end's place.
    message_3 = Message.decode(street.world.datagrams()[-1].datagram)
    assert message_3.code == Code.POST
    street.world.passes = lambda sender, receiver, datagram: False
    street.head_end.known = {}
    forged = Message(Code.CHANGED, Type.ACK, message_3.message_id, message_3.token)
    street.meter.stack.receive_datagram(forged.encode(), HEAD_END_AT, now=street.world.now)
    street.meter.settle()
    ours = street.meter.stack.session_of(HEAD_END_NAME)
    assert ours is not None
    assert ours.recipient_id == b"\x02"
    street.world.passes = None
    street.world.elapse(20)
    street.head_end.known = {METER_CREDENTIAL.id_cred: METER_CREDENTIAL}
    request = street.report(b"x")
    street.world.elapse(5)
    assert street.meter.failures[request].code == Code.UNAUTHORIZED
    street.meter.connect(HEAD_END_AT, c_i=b"\x03")
    street.world.elapse(5)
    request = street.report(b"y")
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re y"


def test_a_full_endpoint_refuses_a_handshake_of_ours_and_keeps_nothing() -> None:
    street = Street(limits=Limits(outgoing_max=1))
    street.meter.connect(HEAD_END_AT, c_i=b"\x01")
    before = state_of(street.meter.stack)
    with pytest.raises(TableFull):
        street.meter.connect(HEAD_END_AT, c_i=b"\x02")
    assert state_of(street.meter.stack) == before


def test_a_stack_is_born_with_all_its_dice_given() -> None:
    """Without any seedless chance: two stacks of the same seeds say the same octets."""

    def first_words() -> list[tuple[object, bytes]]:
        stack: Stack = Party("meter", meter_key(METER), [], is_responder=False).stack
        stack.connect("head-end", (), c_i=b"\x01", now=0.0)
        return stack.data_to_send()

    assert first_words() == first_words()
