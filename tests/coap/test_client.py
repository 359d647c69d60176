"""The asking side of an endpoint: whose turn it is, and observations held open.

The contract under test: an interaction ends with its acknowledgement, so that a slow answer blocks
nobody; a silent peer gets no more octets than PROBING_RATE allows; an observation brings only news,
in order, and is over when its peer, its owner or its failure says so, and then nothing is left.
"""

from __future__ import annotations

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import (
    Endpoint,
    Failure,
    Limits,
    ObservationStale,
    RequestFailed,
    RequestId,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import with_observe
from amistack.coap.options import Option, OptionNumber
from amistack.coap.path import HOP_TIME
from amistack.coap.timing import Timing
from amistack.errors import LocalProtocolError, TableFull
from tests.coap.bench import ACK_WAIT, GET, PEER, WARM, Bench, answer, empty
from tests.support.worlds import FixedDice

OBSERVE = with_observe(GET, 0)
PROTECTED = Message(
    Code.FETCH, options=(Option(OptionNumber.OBSERVE, b""), Option(OptionNumber.OSCORE, b"\1\2"))
)


def notification(
    request: Message,
    number: int | None,
    *,
    kind: Type = Type.NON,
    message_id: int = 0x9000,
    code: int = Code.CONTENT,
    max_age: int | None = None,
    options: tuple[Option, ...] = (),
) -> Message:
    """What an observed server sends for `request`; piggybacked if `kind` is ACK."""
    message = Message.response(code, payload=f"state {number}".encode(), max_age=max_age)
    message = with_observe(
        Message(code, options=(*options, *message.options), payload=message.payload), number
    )
    return message.addressed(
        type=kind,
        message_id=request.message_id if kind is Type.ACK else message_id,
        token=request.token,
    )


class Observing(Bench):
    """An endpoint that observes, registered with number 10 and Max-Age 60."""

    def __init__(self, message: Message = OBSERVE, *, limits: Limits | None = None) -> None:
        super().__init__(limits=limits)
        self.observation = self.request(message)
        self.asking = self.sent_one()
        self.options = (Option(OptionNumber.OSCORE, b""),) if message is PROTECTED else ()
        self.receive(notification(self.asking, 10, kind=Type.ACK, options=self.options))
        assert self.states() == [b"state 10"]

    def notified(self, number: int | None, **more: object) -> None:
        more.setdefault("options", self.options)
        self.receive(notification(self.asking, number, **more))  # type: ignore[arg-type]

    def states(self, *, is_final: bool = False) -> list[bytes]:
        """The payloads of what was told; nothing else may have been."""
        found = []
        for event in self.events():
            assert isinstance(event, ResponseReceived)
            assert (event.request, event.is_final) == (self.observation, is_final)
            found.append(event.message.payload)
        return found


# NSTART: an interaction is outstanding until it is acknowledged or answered


def test_an_acknowledged_request_leaves_its_place_to_the_next() -> None:
    """RFC 7252 4.7: neither a response nor an acknowledgement has yet been received."""
    bench = Bench()
    first, second = bench.request(), bench.request(Message.request(Code.GET, "second"))
    asked = bench.sent_one()
    bench.receive(empty(Type.ACK, asked.message_id))
    assert bench.sent_one().path == "second"
    bench.receive(answer(asked, Type.CON, 0x77))
    assert [event.request for event in bench.events() if isinstance(event, ResponseReceived)] == [
        first
    ]
    bench.endpoint.cancel(second, now=bench.now)
    bench.assert_nothing_left()


def test_a_peer_that_acknowledges_and_never_answers_blocks_nobody() -> None:
    bench = Bench()
    for _ in range(5):
        bench.request()
    for _ in range(5):
        bench.receive(empty(Type.ACK, bench.sent_one().message_id))
    assert bench.sent() == []
    assert len(bench.endpoint._client._awaiting) == 5
    bench.settle()
    failures = [event.failure for event in bench.events() if isinstance(event, RequestFailed)]
    assert failures == [Failure.NO_RESPONSE] * 5
    bench.assert_nothing_left()


def test_the_end_of_an_acknowledged_request_gives_no_place_free_twice() -> None:
    bench = Bench()
    first = bench.request()
    asked = bench.sent_one()
    bench.receive(empty(Type.ACK, asked.message_id))
    bench.receive(empty(Type.ACK, asked.message_id))
    bench.request()
    bench.request()
    assert len(bench.sent()) == 1
    bench.endpoint.cancel(first, now=bench.now)
    assert bench.sent() == []
    assert bench.endpoint._delivery.conversations[PEER].in_flight == 1


# PROBING_RATE


def test_a_silent_peer_gets_an_octet_a_second() -> None:
    """4.7: on average, the octets sent without any sign of life are bounded."""
    bench = Bench(limits=Limits(nstart=3))
    began = bench.now
    for _ in range(8):
        bench.request(is_confirmable=False, response_wait=1.0)
    octets = 0
    for _ in range(200):
        for _, datagram in bench.endpoint.data_to_send():
            assert octets <= bench.now - began, "faster than PROBING_RATE"
            octets += len(datagram)
        if bench.endpoint.next_timer() is None:
            break
        bench.wake()
    assert octets == 8 * len(GET.encode()) + 8 * 2
    assert len(bench.events()) == 8
    bench.assert_nothing_left()


def test_a_sign_of_life_ends_the_waiting() -> None:
    for sign in (empty(Type.CON, 1), empty(Type.RST, 0x55), answer(GET, Type.NON, 9)):
        bench = Bench()
        bench.request(is_confirmable=False, response_wait=1.0)
        bench.sent()
        bench.wake()
        bench.request(is_confirmable=False)
        assert bench.sent() == []
        bench.receive(sign, "another")
        assert [message for message in bench.sent() if message.type is Type.NON] == []
        bench.receive(sign)
        assert Type.NON in [message.type for message in bench.sent()]


def test_a_confirmable_request_does_not_wait_for_the_probing_rate() -> None:
    bench = Bench()
    bench.request(is_confirmable=False, response_wait=1.0)
    bench.sent()
    bench.wake()
    bench.request(is_confirmable=False)
    bench.request(Message.request(Code.GET, "sure"))
    assert bench.sent_one().path == "sure"
    bench.settle()
    bench.assert_nothing_left()


def test_the_backlog_of_a_silent_peer_is_bounded() -> None:
    bench = Bench(limits=Limits(backlog_max=2))
    bench.request(is_confirmable=False, response_wait=1.0)
    bench.sent()
    bench.wake()
    for _ in range(2):
        bench.request(is_confirmable=False)
    with pytest.raises(TableFull, match="2 requests wait"):
        bench.request(is_confirmable=False)


def test_silent_peers_are_bounded() -> None:
    bench = Bench(limits=Limits(conversations_max=3))
    for peer in range(3):
        request = bench.request(peer=peer, is_confirmable=False)
        bench.endpoint.cancel(request, now=bench.now)
    with pytest.raises(TableFull, match="3 peers"):
        bench.request(peer="more", is_confirmable=False)
    bench.request(peer="more")
    bench.settle()
    bench.assert_nothing_left()


def test_a_request_cancelled_while_it_waits_leaves_no_trace() -> None:
    bench = Bench()
    bench.request(is_confirmable=False, response_wait=1.0)
    bench.wake()
    waiting = bench.request(is_confirmable=False)
    bench.endpoint.cancel(waiting, now=bench.now)
    bench.assert_nothing_left()


# Paths


def test_a_slow_path_is_learnt_and_forgotten_with_its_peer() -> None:
    bench = Bench()
    for _ in range(30):
        bench.request()
        bench.sent()
        asked = None
        while asked is None:
            # The answer takes 10 s, whatever is repeated meanwhile.
            pending = next(iter(bench.endpoint._delivery.retransmission._pending.values()))
            asked = Message.decode(pending.datagram)
            until = pending.sent_at + 10
            while (due := bench.endpoint.next_timer()) is not None and due < until:
                bench.wake()
            bench.now = until
        repeated = len(bench.sent())
        bench.receive(answer(asked, Type.ACK))
    assert repeated == 0
    bench.request()
    due = bench.endpoint.next_timer()
    assert due is not None
    assert due - bench.now >= 10
    bench.request(peer="near")
    assert bench.endpoint.next_timer() == bench.now + ACK_WAIT
    bench.settle()
    bench.assert_nothing_left()
    bench.request()
    assert bench.wake() == ACK_WAIT


def test_a_prompt_path_costs_no_estimator() -> None:
    bench = Bench()
    for _ in range(10):
        bench.request()
        asked = bench.sent_one()
        bench.now += 0.3
        bench.receive(answer(asked, Type.ACK))
    assert bench.endpoint._delivery.conversations[PEER].path is None


def test_hops_make_patient_and_given_times_win() -> None:
    bench = Bench()
    bench.request(hop_count=8)
    bench.request(peer="b", hop_count=8, timing=Timing(ack_timeout=3))
    assert bench.wake() == 3
    assert bench.wake() == 8 * HOP_TIME + 2 - 3
    bench.request(peer="c")
    bench.settle()
    bench.assert_nothing_left()


def test_silence_makes_the_next_request_more_patient() -> None:
    bench = Bench()
    bench.request()
    bench.settle()
    bench.request()
    assert bench.wake() == ACK_WAIT * 1.5


def test_ids_are_kept_as_long_as_a_slow_path_needs() -> None:
    bench = Bench()
    bench.request(hop_count=100)
    asked = bench.sent_one()
    bench.receive(answer(asked, Type.ACK))
    lifetime = Timing(ack_timeout=27, backoff_factor=1.5).exchange_lifetime
    assert lifetime > Timing().exchange_lifetime
    bench.now += lifetime - 1
    bench.endpoint.handle_timer(now=bench.now)
    assert PEER in bench.endpoint._delivery.conversations
    bench.now += 2
    bench.endpoint.handle_timer(now=bench.now)
    assert PEER not in bench.endpoint._delivery.conversations


# Observe: what comes


def test_notifications_of_both_kinds_are_told_in_order() -> None:
    bench = Observing()
    bench.notified(11)
    assert bench.sent() == []
    bench.notified(12, kind=Type.CON, message_id=0x9001)
    assert bench.sent_one() == empty(Type.ACK, 0x9001)
    bench.now += 1
    bench.notified(13)
    assert bench.states() == [b"state 11", b"state 12", b"state 13"]
    assert bench.endpoint.depths["observations"] == (1, 4096)


def test_an_older_notification_is_acknowledged_and_not_told() -> None:
    """RFC 7641 3.4, 3.5."""
    bench = Observing()
    bench.notified(12)
    bench.notified(11, kind=Type.CON, message_id=0x9001)
    bench.notified(12)
    assert bench.sent_one() == empty(Type.ACK, 0x9001)
    assert bench.states() == [b"state 12"]
    assert bench.endpoint.refused == {"notification older than the last": 2}
    bench.now += 128.1
    bench.notified(11)
    assert bench.states() == [b"state 11"]


def test_a_repeated_notification_is_acknowledged_again_and_told_once() -> None:
    bench = Observing()
    for _ in range(3):
        bench.notified(11, kind=Type.CON, message_id=0x9001)
        assert bench.sent_one() == empty(Type.ACK, 0x9001)
    assert bench.states() == [b"state 11"]


def test_what_is_registered_holds_no_place() -> None:
    bench = Observing()
    bench.request()
    assert len(bench.sent()) == 1


@pytest.mark.parametrize("kind", [Type.NON, Type.CON])
def test_a_response_without_observe_ends_it(kind: Type) -> None:
    """3.2, 4.2: an error, or a success that is no notification."""
    for code, number in ((Code.NOT_FOUND, None), (Code.NOT_FOUND, 11), (Code.CONTENT, None)):
        bench = Observing()
        bench.notified(number, kind=kind, code=code)
        assert len(bench.states(is_final=True)) == 1
        assert bench.sent() == ([empty(Type.ACK, 0x9000)] if kind is Type.CON else [])
        bench.notified(12, kind=Type.CON, message_id=0x9009)
        assert bench.sent_one() == empty(Type.RST, 0x9009)
        bench.assert_nothing_left()


def test_a_server_that_does_not_observe_answers_once() -> None:
    bench = Bench()
    request = bench.request(OBSERVE)
    asked = bench.sent_one()
    bench.receive(response := answer(asked, Type.ACK))
    assert bench.events() == [ResponseReceived(request, PEER, response)]
    bench.assert_nothing_left()


def test_observe_in_a_response_to_a_request_that_did_not_ask_is_nothing() -> None:
    for message in (GET, with_observe(GET, 1), with_observe(Message.request(Code.POST, "x"), 0)):
        bench = Bench()
        bench.request(message)
        bench.receive(notification(bench.sent_one(), 5, kind=Type.ACK))
        (event,) = bench.events()
        assert isinstance(event, ResponseReceived)
        assert event.is_final
        bench.assert_nothing_left()


def test_the_registration_may_be_answered_separately() -> None:
    for kind in (Type.CON, Type.NON):
        bench = Bench()
        bench.request(OBSERVE)
        asked = bench.sent_one()
        bench.receive(empty(Type.ACK, asked.message_id))
        bench.receive(notification(asked, 3, kind=kind))
        bench.receive(notification(asked, 4, kind=kind, message_id=0x9002))
        assert [
            event.is_final for event in bench.events() if isinstance(event, ResponseReceived)
        ] == [
            False,
            False,
        ]
        assert len(bench.endpoint._client._awaiting) == 0


def test_a_notification_with_a_strange_critical_option_ends_it_by_a_reset() -> None:
    """RFC 7252 5.4.1: it is rejected; silence would bring the next one."""
    for kind in (Type.NON, Type.CON):
        bench = Observing()
        bench.receive(
            Message(
                Code.CONTENT,
                kind,
                0x9000,
                bench.asking.token,
                (Option(6, b"\x0b"), Option(2049, b"")),
            )
        )
        assert bench.sent_one() == empty(Type.RST, 0x9000)
        assert bench.events() == [RequestFailed(bench.observation, PEER, Failure.NO_RESPONSE)]
        bench.assert_nothing_left()


# Observe: when nothing comes


def test_after_max_age_and_some_it_is_said_once() -> None:
    """3.3.1: not before Max-Age is over, and 5 to 15 s later."""
    bench = Observing()
    bench.notified(11, max_age=100)
    bench.states()
    assert bench.wake() == 105
    assert bench.events() == [ObservationStale(bench.observation, PEER)]
    assert bench.endpoint.next_timer() is None
    bench.notified(12)
    assert bench.states() == [b"state 12"]
    assert bench.wake() == 65  # Without Max-Age it is 60 (RFC 7252 5.10.5).
    assert bench.events() == [ObservationStale(bench.observation, PEER)]


def test_every_notification_puts_it_off() -> None:
    bench = Observing()
    for number in range(11, 500):
        bench.now += 50
        bench.endpoint.handle_timer(now=bench.now)
        bench.notified(number)
    assert len(bench.states()) == 489
    assert len(bench.endpoint._client._stale._queue) < 100


def test_an_old_notification_does_not_put_it_off() -> None:
    bench = Observing()
    bench.now += 30
    bench.notified(9)
    assert bench.wake() == 35


# Observe: asking again


def test_registering_again_takes_the_same_token_and_its_answer_is_the_latest() -> None:
    bench = Observing()
    bench.endpoint.register_again(bench.observation, now=bench.now)
    again = bench.sent_one()
    assert again.token == bench.asking.token
    assert again.message_id != bench.asking.message_id
    assert again.options == OBSERVE.options
    # The server was restarted, and counts from the beginning.
    bench.receive(notification(again, 1, kind=Type.ACK))
    bench.notified(2)
    assert bench.states() == [b"state 1", b"state 2"]


def test_an_answer_that_was_overtaken_by_a_notification_is_not_told() -> None:
    bench = Observing()
    bench.endpoint.register_again(bench.observation, now=bench.now)
    again = bench.sent_one()
    bench.notified(12)
    bench.receive(notification(again, 11, kind=Type.ACK))
    assert bench.states() == [b"state 12"]
    bench.notified(13)
    assert bench.states() == [b"state 13"]


def test_an_answer_that_was_overtaken_still_is_expected_to_be_followed() -> None:
    """What crossed it set no time, for an answer was still to come."""
    bench = Observing()
    bench.endpoint.register_again(bench.observation, now=bench.now)
    again = bench.sent_one()
    bench.notified(12)
    bench.receive(notification(again, 11, kind=Type.ACK))
    assert bench.states() == [b"state 12"]
    assert bench.wake() == 65
    assert bench.events() == [ObservationStale(bench.observation, PEER)]


def test_a_notification_that_crosses_does_not_end_the_repetition() -> None:
    bench = Observing()
    bench.endpoint.register_again(bench.observation, now=bench.now)
    again = bench.sent_one()
    bench.notified(11)
    assert bench.states() == [b"state 11"]
    assert bench.wake() == ACK_WAIT
    assert bench.sent_one() == again
    bench.receive(empty(Type.ACK, again.message_id))
    bench.notified(12)
    assert bench.states() == [b"state 12"]
    assert len(bench.endpoint._client._awaiting) == 0


def test_registering_again_waits_its_turn_and_notifications_are_told_meanwhile() -> None:
    bench = Observing()
    bench.request()
    other = bench.sent_one()
    bench.endpoint.register_again(bench.observation, now=bench.now)
    assert bench.sent() == []
    bench.notified(11, kind=Type.CON)
    assert bench.sent_one() == empty(Type.ACK, 0x9000)
    assert bench.states() == [b"state 11"]
    bench.receive(answer(other, Type.ACK))
    assert bench.sent_one().token == bench.asking.token


def test_registering_again_that_is_never_acknowledged_ends_it() -> None:
    bench = Observing()
    bench.endpoint.register_again(bench.observation, now=bench.now)
    bench.settle()
    assert bench.events() == [RequestFailed(bench.observation, PEER, Failure.NO_ACKNOWLEDGEMENT)]
    bench.assert_nothing_left()


def test_deregistering_is_confirmed_by_a_final_response() -> None:
    bench = Observing()
    bench.endpoint.deregister(bench.observation, now=bench.now)
    leaving = bench.sent_one()
    assert (leaving.type, leaving.token) == (Type.CON, bench.asking.token)
    assert leaving.options == with_observe(GET, 1).options
    bench.notified(11)  # It was on its way.
    assert bench.states() == [b"state 11"]
    bench.receive(answer(leaving, Type.ACK))
    assert bench.states(is_final=True) == [WARM.payload]
    bench.assert_nothing_left()


def test_deregistering_may_be_answered_separately_and_crossed() -> None:
    bench = Observing()
    bench.endpoint.deregister(bench.observation, now=bench.now)
    leaving = bench.sent_one()
    bench.receive(empty(Type.ACK, leaving.message_id))
    bench.notified(11)
    assert bench.states() == [b"state 11"]
    bench.receive(answer(leaving, Type.CON, 0x9005))
    assert bench.states(is_final=True) == [WARM.payload]
    bench.assert_nothing_left()


def test_observe_in_the_answer_to_a_deregistration_does_not_keep_it_open() -> None:
    bench = Observing()
    bench.endpoint.deregister(bench.observation, now=bench.now)
    bench.receive(notification(bench.sent_one(), 11, kind=Type.ACK))
    assert bench.states(is_final=True) == [b"state 11"]
    bench.assert_nothing_left()


@pytest.mark.parametrize("kind", [Type.NON, Type.CON])
def test_a_cancelled_observation_is_ended_by_a_reset(kind: Type) -> None:
    """3.6: also where the notification is non-confirmable."""
    bench = Observing()
    bench.endpoint.cancel(bench.observation, now=bench.now)
    bench.endpoint.cancel(bench.observation, now=bench.now)
    bench.notified(11, kind=kind)
    assert bench.sent_one() == empty(Type.RST, 0x9000)
    assert bench.events() == []
    bench.assert_nothing_left()


def test_asking_again_without_need_is_the_callers_mistake() -> None:
    bench = Observing()
    other = bench.request()
    bench.receive(empty(Type.ACK, bench.sent_one().message_id))
    for command in (bench.endpoint.register_again, bench.endpoint.deregister):
        with pytest.raises(LocalProtocolError, match="no observation"):
            command(other, now=bench.now)
        with pytest.raises(LocalProtocolError, match="no observation"):
            command(RequestId(99), now=bench.now)
        with pytest.raises(LocalProtocolError, match="not a request"):
            command(bench.observation, WARM, now=bench.now)
        with pytest.raises(LocalProtocolError, match="at most 4096"):
            command(bench.observation, Message(Code.GET, payload=bytes(5000)), now=bench.now)
    bench.endpoint.deregister(bench.observation, now=bench.now)
    with pytest.raises(LocalProtocolError, match="again already"):
        bench.endpoint.register_again(bench.observation, now=bench.now)
    assert len(bench.sent()) == 1


def test_asking_again_into_a_full_backlog_changes_nothing() -> None:
    bench = Observing(limits=Limits(backlog_max=1))
    bench.request()
    bench.request()
    bench.sent()
    for command in (bench.endpoint.register_again, bench.endpoint.deregister):
        with pytest.raises(TableFull):
            command(bench.observation, now=bench.now)
    bench.notified(11)
    assert bench.states() == [b"state 11"]


def test_observations_are_bounded() -> None:
    bench = Bench(limits=Limits(observing_max=2))
    for peer in range(2):
        bench.request(OBSERVE, peer)
    with pytest.raises(TableFull, match="2 observations"):
        bench.request(OBSERVE, 3)
    bench.request(GET, 3)
    assert bench.endpoint.depths["observations"] == (2, 2)
    bench.settle()
    bench.assert_nothing_left()
    bench.request(OBSERVE, 3)


# Observe under OSCORE: the endpoint is not the judge


def test_protected_notifications_are_told_in_any_order() -> None:
    """RFC 8613 4.1.3.5.2: their order comes from the Partial IV, which is not read here."""
    bench = Observing(PROTECTED)
    for number in (5, 5, 3):
        bench.notified(number)
    assert bench.states() == [b"state 5", b"state 5", b"state 3"]
    assert bench.endpoint.next_timer() is None  # The Max-Age outside is not theirs.
    bench.endpoint.expect_notification(bench.observation, within=30, now=bench.now)
    assert bench.wake() == 35
    assert bench.events() == [ObservationStale(bench.observation, PEER)]


def test_what_is_not_protected_neither_ends_nor_feeds_a_protected_observation() -> None:
    for code, number in ((Code.NOT_FOUND, None), (Code.CONTENT, 11), (Code.CONTENT, None)):
        for kind in (Type.NON, Type.CON):
            bench = Observing(PROTECTED)
            bench.notified(number, code=code, kind=kind, options=())
            assert bench.events() == []
            assert bench.endpoint.refused == {"notification not protected": 1}
            bench.notified(12)
            assert bench.states() == [b"state 12"]


def test_an_option_that_nobody_knows_does_not_end_a_protected_observation() -> None:
    """Options outside prove nothing; whoever wrote one is told of no interest, and that is all."""
    for kind in (Type.NON, Type.CON):
        bench = Observing(PROTECTED)
        options = (Option(6, b"\x0b"), Option(OptionNumber.OSCORE, b""), Option(2049, b""))
        bench.receive(Message(Code.CONTENT, kind, 0x9000, bench.asking.token, options))
        assert bench.sent_one() == empty(Type.RST, 0x9000)
        assert bench.events() == []
        assert bench.endpoint.refused == {"bad option": 1}
        bench.notified(12, message_id=0x9001)
        assert bench.states() == [b"state 12"]


def test_an_option_outside_that_was_taken_off_does_not_end_a_protected_observation() -> None:
    bench = Observing(PROTECTED)
    bench.notified(None)
    bench.notified(12)
    assert bench.states() == [b"state None", b"state 12"]
    bench.endpoint.cancel(bench.observation, now=bench.now)
    bench.assert_nothing_left()


def test_an_unprotected_answer_to_a_protected_registration_opens_nothing() -> None:
    bench = Bench()
    bench.request(PROTECTED)
    bench.receive(notification(bench.sent_one(), 1, kind=Type.ACK))
    (event,) = bench.events()
    assert isinstance(event, ResponseReceived)
    assert event.is_final
    bench.assert_nothing_left()


def test_a_protected_request_is_never_sent_twice_as_it_was() -> None:
    """Its number would be used again, and its peer would take it for a replay."""
    bench = Observing(PROTECTED)
    with pytest.raises(LocalProtocolError, match="never sent twice"):
        bench.endpoint.register_again(bench.observation, now=bench.now)
    other = Message(Code.FETCH, options=(Option(OptionNumber.OSCORE, b"\1\3"),))
    bench.endpoint.register_again(bench.observation, other, now=bench.now)
    again = bench.sent_one()
    assert again.option(OptionNumber.OBSERVE) == b""
    bench.receive(notification(again, 1, kind=Type.ACK, options=bench.options))
    assert bench.states() == [b"state 1"]


def test_a_protected_deregistration_ends_with_its_answer() -> None:
    bench = Observing(PROTECTED)
    other = Message(Code.FETCH, options=(Option(OptionNumber.OSCORE, b"\1\3"),))
    bench.endpoint.deregister(bench.observation, other, now=bench.now)
    leaving = bench.sent_one()
    bench.notified(11)
    assert bench.states() == [b"state 11"]
    bench.receive(notification(leaving, None, kind=Type.ACK, options=bench.options))
    assert bench.states(is_final=True) == [b"state None"]
    bench.assert_nothing_left()


def test_an_observation_in_a_foul_channel_keeps_its_token() -> None:
    """65,536 further requests, and none of them takes the token that is in use."""
    endpoint = Endpoint(dice=FixedDice(1))
    endpoint.request(OBSERVE, PEER, now=0.0)
    ((_, asked),) = endpoint.data_to_send()
    asking = Message.decode(asked)
    endpoint.receive_datagram(notification(asking, 1, kind=Type.ACK).encode(), PEER, now=0.0)
    endpoint._client._next_token = int.from_bytes(asking.token, "big")
    endpoint.request(GET, PEER, now=0.0)
    ((_, other),) = endpoint.data_to_send()
    assert Message.decode(other).token != asking.token
