"""The notifying side of an endpoint: who observes, what it is told, at which rate, until when.

The contract under test: a peer has at most one notification under way, and gets the newest state
when its turn comes; numbers ascend; whoever resets, falls silent, deregisters or registers again is
told of once and leaves nothing behind; a bound refuses an observation and not its answer.
"""

from __future__ import annotations

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import (
    Ending,
    ExchangeId,
    Limits,
    ObservationEnded,
    RequestReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import SEQUENCE_COUNT, observe_of, with_observe
from amistack.coap.observers import CONFIRM_PERIOD, NON_PAUSE, NON_RUN_MAX
from amistack.coap.options import Option, OptionNumber
from amistack.errors import LocalProtocolError
from amistack.machine import Peer
from tests.coap.bench import ACK_WAIT, PEER, WARM, Bench, con, empty, leftovers, non


def state(number: int, code: int = Code.CONTENT) -> Message:
    return Message.response(code, payload=f"state {number}".encode())


class Observed(Bench):
    """An endpoint whose resource is observed: registrations are answered with state 0."""

    def register(
        self,
        token: bytes = b"\x4a",
        *,
        message_id: int = 1,
        peer: Peer = PEER,
        kind: Type = Type.CON,
        is_open: bool = True,
    ) -> ExchangeId:
        request = con if kind is Type.CON else non
        self.receive(with_observe(request(message_id=message_id, token=token), 0), peer)
        exchange = self.asked().exchange
        opened = self.endpoint.respond(exchange, state(0), opens_observation=True, now=self.now)
        assert opened == is_open
        response = self.sent_one()
        assert (observe_of(response) is not None) == is_open
        self.endpoint.handle_timer(now=self.now)
        return exchange

    def notify(self, exchange: ExchangeId, number: int, **more: object) -> None:
        message = state(number)
        self.endpoint.notify(exchange, message, now=self.now, **more)  # type: ignore[arg-type]

    def told(self) -> list[tuple[str, bytes, int | None]]:
        """What was sent: kind, payload, number."""
        return [(one.type.name, one.payload, observe_of(one)) for one in self.sent()]

    def acknowledge(self, message: Message, peer: Peer = PEER) -> None:
        self.receive(empty(Type.ACK, message.message_id), peer)

    def ended(self) -> list[Ending]:
        found = []
        for event in self.events():
            assert isinstance(event, ObservationEnded)
            found.append(event.ending)
        return found


# What is told


def test_a_registration_is_answered_with_a_number_and_notified_from_then() -> None:
    bench = Observed()
    bench.receive(with_observe(con(token=b"\x4a"), 0))
    exchange = bench.asked().exchange
    assert bench.endpoint.may_observe(exchange)
    assert bench.endpoint.respond(exchange, state(0), opens_observation=True, now=bench.now)
    first = bench.sent_one()
    assert (first.type, first.token, observe_of(first)) == (Type.ACK, b"\x4a", 1)
    bench.notify(exchange, 1)
    second = bench.sent_one()
    assert (second.type, second.token, observe_of(second)) == (Type.CON, b"\x4a", 2)
    bench.acknowledge(second)
    bench.notify(exchange, 2)
    assert bench.told() == [("CON", b"state 2", 3)]
    assert bench.endpoint.depths["observers"] == (1, 4096)


def test_observe_in_a_message_from_above_is_not_what_is_sent() -> None:
    """The number is the endpoint's, whatever a layer above wrote there."""
    bench = Observed()
    exchange = bench.register()
    bench.endpoint.notify(exchange, with_observe(state(1), 777), now=bench.now)
    assert bench.told() == [("CON", b"state 1", 2)]


@pytest.mark.parametrize(
    ("observe", "opens", "response"),
    [(None, True, WARM), (1, True, WARM), (0, False, WARM), (0, True, state(0, Code.NOT_FOUND))],
)
def test_an_answer_that_opens_nothing_has_no_observe(
    observe: int | None, opens: bool, response: Message
) -> None:
    bench = Observed()
    bench.receive(with_observe(con(), observe))
    exchange = bench.asked().exchange
    assert bench.endpoint.may_observe(exchange) == (observe == 0)
    marked = with_observe(response, 5) if observe is not None else response
    opened = bench.endpoint.respond(exchange, marked, opens_observation=opens, now=bench.now)
    assert not opened
    assert observe_of(bench.sent_one()) is None
    with pytest.raises(LocalProtocolError, match="observed by nobody"):
        bench.notify(exchange, 1)
    bench.assert_nothing_left()


@pytest.mark.parametrize("code", [Code.POST, Code.PUT, Code.DELETE, Code.PATCH, Code.IPATCH])
def test_only_get_and_fetch_observe(code: int) -> None:
    """2; RFC 8132 2.4. With other methods the option is one that nobody knows."""
    bench = Observed()
    exchange = bench.register(b"t")
    for value in (0, 1):
        bench.receive(with_observe(con(code, message_id=2 + value, token=b"t"), value))
        other = bench.asked().exchange
        assert not bench.endpoint.may_observe(other)
        assert not bench.endpoint.respond(
            other, Message.response(Code.CHANGED), opens_observation=True, now=bench.now
        )
    bench.sent()
    bench.notify(exchange, 1)
    assert len(bench.sent()) == 1


def test_of_states_that_wait_only_the_newest_is_sent() -> None:
    """RFC 7641 4.5.1: one notification is outstanding."""
    bench = Observed()
    exchange = bench.register()
    for number in range(1, 5):
        bench.notify(exchange, number)
    first = bench.sent_one()
    assert first.payload == b"state 1"
    bench.acknowledge(first)
    assert bench.told() == [("CON", b"state 4", 5)]


def test_a_newer_state_takes_over_the_repetitions() -> None:
    """4.5.2: it is sent instead, with an id of its own, and the count goes on."""
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1)
    first = bench.sent_one()
    assert bench.wake() == ACK_WAIT
    assert bench.sent_one() == first
    bench.notify(exchange, 2)
    assert bench.sent() == []
    assert bench.wake() == 2 * ACK_WAIT
    second = bench.sent_one()
    assert (second.payload, second.type) == (b"state 2", Type.CON)
    assert second.message_id != first.message_id
    assert [bench.wake() for _ in range(2)] == [8, 16]
    assert bench.sent() == [second, second]
    assert bench.wake() == 32
    assert bench.ended() == [Ending.NO_ACKNOWLEDGEMENT]
    bench.assert_nothing_left()


def test_what_replaces_a_confirmable_notification_is_confirmable() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1)
    bench.notify(exchange, 2, is_confirmable=False)
    bench.sent()
    bench.wake()
    (second,) = bench.sent()
    assert (second.type, second.payload) == (Type.CON, b"state 2")
    bench.acknowledge(second)
    assert bench.endpoint.next_timer() is None


def test_an_acknowledgement_of_what_was_replaced_comes_too_late() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1)
    first = bench.sent_one()
    bench.notify(exchange, 2)
    bench.wake()
    second = bench.sent_one()
    bench.acknowledge(first)
    assert bench.wake() == 2 * ACK_WAIT
    assert bench.sent_one() == second


def test_observations_of_one_peer_take_turns_and_other_peers_do_not_wait() -> None:
    bench = Observed()
    one, two = bench.register(b"1", message_id=1), bench.register(b"2", message_id=2)
    other = bench.register(b"1", peer="other")
    bench.notify(one, 1)
    bench.notify(two, 2)
    bench.notify(other, 3)
    first, elsewhere = bench.sent()
    assert (first.payload, elsewhere.payload) == (b"state 1", b"state 3")
    bench.notify(one, 4)
    bench.acknowledge(first)
    second = bench.sent_one()
    assert second.payload == b"state 2"
    bench.acknowledge(second)
    assert bench.told() == [("CON", b"state 4", 7)]  # One count for all.


def test_a_slow_registration_is_outstanding_until_its_answer_is_acknowledged() -> None:
    bench = Observed()
    bench.receive(with_observe(con(token=b"t"), 0))
    exchange = bench.asked().exchange
    bench.wake()
    bench.sent()
    assert bench.endpoint.respond(exchange, state(0), opens_observation=True, now=bench.now)
    first = bench.sent_one()
    assert (first.type, observe_of(first)) == (Type.CON, 1)
    bench.notify(exchange, 1)
    assert bench.sent() == []
    bench.acknowledge(first)
    assert bench.told() == [("CON", b"state 1", 2)]


def test_numbers_go_round_the_circle() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.endpoint._observers._sequence = SEQUENCE_COUNT - 2
    numbers = []
    for number in range(3):
        bench.notify(exchange, number)
        sent = bench.sent_one()
        numbers.append(observe_of(sent))
        bench.acknowledge(sent)
    assert numbers == [SEQUENCE_COUNT - 1, 0, 1]


# At which rate


def test_non_confirmable_notifications_keep_their_distance() -> None:
    """4.5.1: without a measured round trip, one in 3 s; the newest state when it is time."""
    bench = Observed()
    exchange = bench.register(kind=Type.NON)
    bench.notify(exchange, 1)
    assert bench.told() == []  # The answer to the registration was one as well.
    bench.notify(exchange, 2)
    assert bench.wake() == NON_PAUSE == 3
    assert bench.told() == [("NON", b"state 2", 3)]
    bench.now += 1
    bench.notify(exchange, 3)
    assert bench.told() == []
    assert bench.wake() == 2
    assert bench.told() == [("NON", b"state 3", 4)]


def test_on_a_measured_path_they_keep_its_round_trip() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1)
    bench.now += 1.5
    bench.acknowledge(bench.sent_one())
    bench.notify(exchange, 2, is_confirmable=False)
    bench.notify(exchange, 3, is_confirmable=False)
    assert bench.told() == [("NON", b"state 2", 3)]
    assert bench.wake() == 1.5


def test_after_a_run_of_them_one_is_confirmable() -> None:
    bench = Observed()
    exchange = bench.register()
    kinds = []
    for number in range(NON_RUN_MAX + 2):
        bench.notify(exchange, number, is_confirmable=False)
        sent = bench.sent_one()
        kinds.append(sent.type)
        if sent.type is Type.CON:
            bench.acknowledge(sent)
        else:
            bench.wake()
    assert kinds == [Type.NON] * NON_RUN_MAX + [Type.CON, Type.NON]


def test_within_a_day_one_is_confirmable() -> None:
    """4.5."""
    bench = Observed()
    exchange = bench.register()
    for hours, kind in ((23, "NON"), (1, "CON"), (23, "NON"), (2, "CON")):
        bench.now += hours * 3600
        bench.endpoint.handle_timer(now=bench.now)
        bench.notify(exchange, 1, is_confirmable=False)
        sent = bench.sent_one()
        assert sent.type.name == kind
        if sent.type is Type.CON:
            bench.acknowledge(sent)
    assert CONFIRM_PERIOD == 86_400


def test_who_is_gone_is_found_out_even_without_confirmation() -> None:
    bench = Observed()
    exchange = bench.register(kind=Type.NON)
    for number in range(NON_RUN_MAX + 1):
        bench.notify(exchange, number)
        bench.wake()
        bench.sent()
    bench.settle()
    assert bench.ended() == [Ending.NO_ACKNOWLEDGEMENT]
    bench.assert_nothing_left()


# Until when


@pytest.mark.parametrize("is_confirmable", [True, False])
def test_a_reset_ends_an_observation(is_confirmable: bool) -> None:
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1, is_confirmable=is_confirmable)
    bench.notify(exchange, 2)
    bench.receive(empty(Type.RST, bench.sent_one().message_id))
    assert bench.events() == [ObservationEnded(exchange, PEER, Ending.RESET)]
    assert bench.sent() == []
    with pytest.raises(LocalProtocolError):
        bench.notify(exchange, 3)
    bench.assert_nothing_left()


def test_a_reset_from_another_peer_ends_nothing() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1)
    bench.receive(empty(Type.RST, bench.sent_one().message_id), "stranger")
    assert bench.events() == []


def test_the_end_of_one_lets_the_next_have_its_turn() -> None:
    for end in (Type.RST, None):
        bench = Observed()
        one, two = bench.register(b"1", message_id=1), bench.register(b"2", message_id=2)
        bench.notify(one, 1)
        bench.notify(two, 2)
        first = bench.sent_one()
        if end is None:
            bench.endpoint.end_observation(one, now=bench.now)
            assert bench.events() == []
        else:
            bench.receive(empty(end, first.message_id))
            assert bench.ended() == [Ending.RESET]
        assert bench.told() == [("CON", b"state 2", 4)]


def test_deregistering_ends_it_before_the_request_is_told() -> None:
    """3.6, 4.1: the request is answered like any other, without Observe."""
    bench = Observed()
    exchange = bench.register(b"t")
    bench.notify(exchange, 1)
    bench.sent()
    bench.receive(with_observe(con(message_id=2, token=b"t"), 1))
    ended, asked = bench.events()
    assert ended == ObservationEnded(exchange, PEER, Ending.DEREGISTERED)
    assert isinstance(asked, RequestReceived)
    assert not bench.endpoint.respond(
        asked.exchange, state(1), opens_observation=True, now=bench.now
    )
    assert bench.told() == [("ACK", b"state 1", None)]
    assert bench.endpoint.next_timer() is None
    bench.assert_nothing_left()


def test_deregistering_another_token_or_peer_ends_nothing() -> None:
    bench = Observed()
    bench.register(b"t")
    bench.receive(with_observe(con(message_id=2, token=b"u"), 1))
    bench.receive(with_observe(con(message_id=3, token=b"t"), 1), "stranger")
    assert all(isinstance(event, RequestReceived) for event in bench.events())
    assert bench.endpoint.depths["observers"] == (1, 4096)


def test_registering_again_takes_the_place_and_goes_on_counting() -> None:
    bench = Observed()
    exchange = bench.register(b"t")
    bench.notify(exchange, 1)
    bench.notify(exchange, 2)
    old = bench.sent_one()
    bench.receive(with_observe(con(message_id=2, token=b"t"), 0))
    again = bench.asked().exchange
    assert bench.endpoint.respond(again, state(2), opens_observation=True, now=bench.now)
    assert bench.events() == [ObservationEnded(exchange, PEER, Ending.REPLACED)]
    assert bench.told() == [("ACK", b"state 2", 4)]
    bench.receive(empty(Type.RST, old.message_id))  # Nobody waits for that any more.
    assert bench.events() == []
    bench.notify(again, 3)
    assert bench.told() == [("CON", b"state 3", 5)]
    assert bench.endpoint.depths["observers"] == (1, 4096)


def test_registering_again_is_possible_at_the_bound() -> None:
    bench = Observed(limits=Limits(observers_max=1))
    bench.register(b"t", message_id=1)
    bench.register(b"t", message_id=2)
    assert bench.ended() == [Ending.REPLACED]


@pytest.mark.parametrize(
    ("message", "is_last"), [(state(9, Code.NOT_FOUND), False), (state(9), True)]
)
def test_the_last_notification_has_no_observe_and_is_sent_until_acknowledged(
    message: Message, is_last: bool
) -> None:
    """4.2: after an error there is no observer, and no event, for the program knows."""
    bench = Observed()
    exchange = bench.register(kind=Type.NON)
    bench.now += NON_PAUSE
    bench.endpoint.handle_timer(now=bench.now)
    bench.endpoint.notify(exchange, message, is_last=is_last, is_confirmable=False, now=bench.now)
    with pytest.raises(LocalProtocolError, match="observed by nobody"):
        bench.notify(exchange, 2)
    last = bench.sent_one()
    assert (last.type, last.payload, observe_of(last)) == (Type.CON, b"state 9", None)
    bench.wake()
    assert bench.sent_one() == last
    bench.acknowledge(last)
    assert bench.events() == []
    assert bench.endpoint.depths["observers"] == (0, 4096)
    bench.assert_nothing_left()


def test_the_last_notification_waits_its_turn_and_may_be_lost() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.notify(exchange, 1)
    first = bench.sent_one()
    bench.notify(exchange, 2, is_last=True)
    bench.acknowledge(first)
    assert bench.told() == [("CON", b"state 2", None)]
    bench.settle()
    assert bench.events() == []
    bench.assert_nothing_left()


def test_ending_twice_is_no_error() -> None:
    bench = Observed()
    exchange = bench.register()
    bench.endpoint.end_observation(exchange, now=bench.now)
    bench.endpoint.end_observation(exchange, now=bench.now)
    assert bench.events() == []
    bench.assert_nothing_left()


# Bounds


def test_beyond_a_bound_the_answer_has_no_observe() -> None:
    bench = Observed(limits=Limits(observers_max=3, observers_per_peer_max=2))
    bench.register(b"1", message_id=1)
    bench.register(b"2", message_id=2)
    bench.register(b"3", message_id=3, is_open=False)
    bench.register(b"1", message_id=1, peer="b")
    bench.register(b"1", message_id=1, peer="c", is_open=False)
    assert bench.endpoint.depths["observers"] == (3, 3)


def test_a_notification_that_cannot_be_written_changes_nothing() -> None:
    bench = Observed()
    exchange = bench.register()
    before = leftovers(bench.endpoint)
    for message in (Message.request(Code.GET), Message.response(Code.CONTENT, payload=bytes(5000))):
        with pytest.raises(LocalProtocolError):
            bench.endpoint.notify(exchange, message, is_last=True, now=bench.now)
    assert leftovers(bench.endpoint) == before
    bench.notify(exchange, 1)
    assert bench.told() == [("CON", b"state 1", 2)]


def test_an_opening_answer_that_cannot_be_written_replaces_nothing() -> None:
    bench = Observed()
    exchange = bench.register(b"t")
    bench.receive(with_observe(con(message_id=2, token=b"t"), 0))
    again = bench.asked().exchange
    with pytest.raises(LocalProtocolError):
        bench.endpoint.respond(
            again,
            Message.response(Code.CONTENT, payload=bytes(5000)),
            opens_observation=True,
            now=bench.now,
        )
    assert bench.events() == []
    bench.notify(exchange, 1)
    assert bench.told() == [("CON", b"state 1", 2)]


# Protected: nothing changes before the layer above has opened the request


def protected(observe: int, message_id: int) -> Message:
    options = (Option(OptionNumber.OBSERVE, bytes(observe and [observe])), Option(9, b"\1\2"))
    return Message(Code.FETCH, Type.CON, message_id, b"t", options)


def test_a_protected_deregistration_counts_when_it_is_answered() -> None:
    bench = Observed()
    bench.receive(protected(0, 1))
    exchange = bench.asked().exchange
    assert bench.endpoint.respond(exchange, state(0), opens_observation=True, now=bench.now)
    bench.sent()
    bench.receive(protected(1, 2))
    forged = bench.asked().exchange
    bench.respond(forged, Message.response(Code.BAD_REQUEST))  # Its protection was none.
    assert bench.events() == []
    bench.receive(protected(1, 3))
    bench.respond(bench.asked().exchange, Message.response(Code.CHANGED))
    assert bench.ended() == [Ending.DEREGISTERED]
    bench.assert_nothing_left()


def test_a_protected_registration_that_is_refused_replaces_nothing() -> None:
    bench = Observed()
    bench.receive(protected(0, 1))
    exchange = bench.asked().exchange
    assert bench.endpoint.respond(exchange, state(0), opens_observation=True, now=bench.now)
    bench.receive(protected(0, 2))
    bench.respond(bench.asked().exchange, Message.response(Code.UNAUTHORIZED))
    assert bench.events() == []
    bench.sent()
    bench.notify(exchange, 1)
    assert len(bench.sent()) == 1
