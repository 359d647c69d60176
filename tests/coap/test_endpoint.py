"""The CoAP endpoint: the message sequences of RFC 7252, its timers, its bounds, and bad networks.

The contract under test: every request ends in exactly one event; a server is asked at most once for
each message within its lifetime; whatever comes in, nothing is raised and every table keeps its
bound; when all is settled and old, nothing is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import (
    Endpoint,
    Event,
    ExchangeId,
    Failure,
    Limits,
    ObservationEnded,
    RequestFailed,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import with_observe
from amistack.coap.options import UNDERSTOOD, Option, OptionNumber
from amistack.coap.timing import Timing
from amistack.errors import AmiError, LocalProtocolError, TableFull
from amistack.machine import Peer
from tests.coap.bench import (
    ACK_WAIT,
    GET,
    PEER,
    WARM,
    Bench,
    answer,
    con,
    empty,
    leftovers,
    non,
)
from tests.support.worlds import BAD, CRUEL, PERFECT, Fate, FixedDice, LinkQuality, World

# The client's side


def test_piggybacked_response_ends_the_request() -> None:
    """Figures 16, 17; 5.2.1."""
    bench = Bench()
    request = bench.request()
    sent = bench.sent_one()
    assert (sent.type, sent.code, sent.options) == (Type.CON, Code.GET, GET.options)
    bench.receive(response := answer(sent, Type.ACK))
    assert bench.events() == [ResponseReceived(request, PEER, response)]
    assert bench.sent() == []
    assert bench.endpoint.next_timer() is None
    bench.assert_nothing_left()


def test_lost_request_is_sent_again_octet_for_octet() -> None:
    """Figure 18; 4.2."""
    bench = Bench()
    bench.request()
    first = bench.sent_one()
    assert bench.wake() == ACK_WAIT
    assert bench.sent_one() == first
    bench.receive(answer(first, Type.ACK))
    assert len(bench.events()) == 1
    assert bench.endpoint.next_timer() is None


def test_lost_acknowledgement_is_made_good_by_the_repetition() -> None:
    """Figure 19: the second copy of the response counts, a third changes nothing."""
    bench = Bench()
    bench.request()
    first = bench.sent_one()
    bench.wake()
    bench.receive(answer(first, Type.ACK))
    bench.receive(answer(first, Type.ACK))
    assert len(bench.events()) == 1
    assert bench.endpoint.refused == {"unknown message id": 1}


def test_separate_response_is_acknowledged_and_ends_the_request() -> None:
    """Figure 20; 5.2.2."""
    bench = Bench()
    request = bench.request()
    sent = bench.sent_one()
    bench.receive(empty(Type.ACK, sent.message_id))
    assert bench.events() == []
    bench.now += 10
    bench.receive(response := answer(sent, Type.CON, 0xAD7B))
    assert bench.sent_one() == empty(Type.ACK, 0xAD7B)
    assert bench.events() == [ResponseReceived(request, PEER, response)]
    bench.assert_nothing_left()


def test_repeated_separate_response_is_acknowledged_again_and_reported_once() -> None:
    """Its first acknowledgement was lost."""
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    for _ in range(3):
        bench.receive(answer(sent, Type.CON, 0xAD7B))
        assert bench.sent_one() == empty(Type.ACK, 0xAD7B)
    assert len(bench.events()) == 1


def test_response_before_the_acknowledgement_acknowledges_too() -> None:
    """5.2.2: it implies that the request arrived, so nothing is sent again."""
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(answer(sent, Type.CON, 0xAD7B))
    bench.sent()
    bench.receive(empty(Type.ACK, sent.message_id))
    assert len(bench.events()) == 1
    assert bench.endpoint.next_timer() is None
    bench.assert_nothing_left()


def test_separate_response_may_be_non_confirmable() -> None:
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(empty(Type.ACK, sent.message_id))
    bench.receive(answer(sent, Type.NON, 0xAD7B))
    assert bench.sent() == []
    assert len(bench.events()) == 1


def test_empty_acknowledgement_is_no_success_and_ends_by_time() -> None:
    bench = Bench(response_wait=60.0)
    request = bench.request()
    sent = bench.sent_one()
    bench.now += 1
    bench.receive(empty(Type.ACK, sent.message_id))
    bench.now += 5
    for _ in range(100):  # Copies of it neither prolong the wait nor take any room.
        bench.receive(empty(Type.ACK, sent.message_id))
    assert len(bench.endpoint._client._awaiting) == 1
    assert bench.wake() == 55
    assert bench.events() == [RequestFailed(request, PEER, Failure.NO_RESPONSE)]
    assert bench.sent() == []
    bench.assert_nothing_left()


def test_late_separate_response_to_a_failed_request_is_reset() -> None:
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(empty(Type.ACK, sent.message_id))
    bench.wake()
    bench.receive(answer(sent, Type.CON, 0xAD7B))
    assert bench.sent_one() == empty(Type.RST, 0xAD7B)


def test_separate_response_with_unknown_token_is_reset_each_time() -> None:
    """Figure 21: we crashed, and know nothing of the request."""
    bench = Bench()
    for _ in range(2):
        bench.receive(WARM.addressed(type=Type.CON, message_id=0xAD7C, token=b"\x64"))
        assert bench.sent_one() == empty(Type.RST, 0xAD7C)
    assert bench.events() == []
    bench.assert_nothing_left()


def test_unasked_non_confirmable_response_is_ignored_in_silence() -> None:
    bench = Bench()
    bench.receive(WARM.addressed(type=Type.NON, message_id=1, token=b"\x64"))
    assert bench.sent() == []
    assert bench.endpoint.refused == {"response to no request": 1}


def test_response_from_another_peer_is_not_the_answer() -> None:
    """5.3.2: the source must be the destination of the request."""
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(answer(sent, Type.ACK), "stranger")
    bench.receive(answer(sent, Type.NON, 9), "stranger")
    bench.receive(answer(sent, Type.CON, 10), "stranger")
    bench.receive(empty(Type.RST, sent.message_id), "stranger")
    assert bench.events() == []
    assert bench.sent() == [empty(Type.RST, 10)]


def test_piggybacked_response_with_wrong_token_changes_nothing() -> None:
    """5.3.2: in a piggybacked response both message id and token must match."""
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(Message(Code.CONTENT, Type.ACK, sent.message_id, b"other"))
    assert bench.events() == []
    assert bench.wake() == ACK_WAIT
    assert bench.sent_one() == sent


@pytest.mark.parametrize("is_confirmable", [True, False])
def test_reset_fails_the_request(is_confirmable: bool) -> None:
    bench = Bench()
    request = bench.request(is_confirmable=is_confirmable)
    bench.receive(empty(Type.RST, bench.sent_one().message_id))
    assert bench.events() == [RequestFailed(request, PEER, Failure.RESET)]
    assert bench.sent() == []
    bench.assert_nothing_left()


def test_reset_after_the_acknowledgement_fails_the_request() -> None:
    bench = Bench()
    request = bench.request()
    sent = bench.sent_one()
    bench.receive(empty(Type.ACK, sent.message_id))
    bench.receive(empty(Type.RST, sent.message_id))
    assert bench.events() == [RequestFailed(request, PEER, Failure.RESET)]


def test_non_confirmable_request_is_sent_once_and_answered_by_either_kind() -> None:
    """5.2.3."""
    for kind in (Type.NON, Type.CON):
        bench = Bench()
        bench.request(is_confirmable=False)
        sent = bench.sent_one()
        assert sent.type is Type.NON
        bench.receive(answer(sent, kind, 0xAD7E))
        assert len(bench.events()) == 1
        assert bench.endpoint.next_timer() is None
        bench.assert_nothing_left()


def test_non_confirmable_request_without_answer_fails_by_time() -> None:
    bench = Bench()
    request = bench.request(is_confirmable=False, response_wait=7.0)
    bench.sent()
    assert bench.wake() == 7
    assert bench.sent() == []
    assert bench.events() == [RequestFailed(request, PEER, Failure.NO_RESPONSE)]


def test_silent_peer_gets_four_repetitions_and_then_the_request_fails() -> None:
    """4.2, with the shortest dice; every deadline costs one wakeup."""
    bench = Bench()
    request = bench.request()
    assert len(bench.sent()) == 1
    for wait in (2, 4, 8, 16):
        assert bench.wake() == wait
        assert len(bench.sent()) == 1
        assert bench.events() == []
    assert bench.wake() == 32
    assert bench.sent() == []
    assert bench.events() == [RequestFailed(request, PEER, Failure.NO_ACKNOWLEDGEMENT)]
    assert bench.endpoint.next_timer() is None
    bench.assert_nothing_left()


def test_longest_dice_give_up_at_max_transmit_wait() -> None:
    bench = Bench()
    dice = FixedDice(1)
    dice.share = 1.0
    bench.endpoint = Endpoint(dice=dice)
    bench.request()
    began = bench.now
    bench.settle()
    assert bench.now - began == Timing().max_transmit_wait == 93


def test_a_slow_path_has_times_of_its_own() -> None:
    bench = Bench()
    bench.request(timing=Timing(ack_timeout=20))
    bench.request(peer="near")
    assert bench.wake() == 2
    assert bench.endpoint.next_timer() == 1006
    bench.settle()
    assert bench.now == 1000 + 20 * 31


def test_critical_option_in_a_response_fails_the_request() -> None:
    """5.4.1: such a response is rejected: a confirmable one by a reset, others in silence."""
    strange = (Option(2049, b""),)
    for kind, reaction in [
        (Type.ACK, []),
        (Type.NON, []),
        (Type.CON, [empty(Type.RST, 0xAD7B)]),
    ]:
        bench = Bench()
        request = bench.request()
        sent = bench.sent_one()
        message_id = sent.message_id if kind is Type.ACK else 0xAD7B
        bench.receive(Message(Code.CONTENT, kind, message_id, sent.token, strange))
        assert bench.sent() == reaction
        assert bench.events() == [RequestFailed(request, PEER, Failure.NO_RESPONSE)]
        bench.assert_nothing_left()


def test_elective_option_in_a_response_is_handed_up() -> None:
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(
        Message(Code.CONTENT, Type.ACK, sent.message_id, sent.token, (Option(2048, b"x"),))
    )
    (event,) = bench.events()
    assert isinstance(event, ResponseReceived)
    assert event.message.option(2048) == b"x"


@pytest.mark.parametrize(
    "message",
    [
        Message(Code.GET, Type.ACK, 0, b"\x20"),
        Message(Code.GET, Type.RST, 0, b"\x20"),
        Message(Code.CONTENT, Type.RST, 0, b"\x20"),
    ],
    ids=str,
)
def test_acknowledgement_or_reset_with_what_it_may_not_carry_is_ignored(message: Message) -> None:
    """4.2: recipients of acknowledgements and resets never answer them."""
    bench = Bench()
    bench.request()
    sent = bench.sent_one()
    bench.receive(
        message.addressed(type=message.type, message_id=sent.message_id, token=sent.token)
    )
    assert (bench.sent(), bench.events()) == ([], [])
    assert bench.wake() == ACK_WAIT


# NSTART, backlog, cancelling


def test_second_request_waits_until_the_first_is_over() -> None:
    """4.7: NSTART is 1."""
    bench = Bench()
    bench.request()
    second = bench.request(Message.request(Code.GET, "second"))
    first_sent = bench.sent_one()
    bench.receive(answer(first_sent, Type.ACK))
    second_sent = bench.sent_one()
    assert second_sent.path == "second"
    assert second_sent.token != first_sent.token
    assert second_sent.message_id != first_sent.message_id
    bench.receive(answer(second_sent, Type.ACK))
    assert [event.request for event in bench.events() if isinstance(event, ResponseReceived)][
        1
    ] == second
    bench.assert_nothing_left()


def test_other_peers_do_not_wait() -> None:
    bench = Bench()
    for peer in range(5):
        bench.request(peer=peer)
    assert len(bench.sent()) == 5


def test_failure_starts_the_next_in_turn() -> None:
    bench = Bench()
    for name in ("a", "b", "c"):
        bench.request(Message.request(Code.GET, name))
    paths = []
    while bench.endpoint.next_timer() is not None:
        paths += [message.path for message in bench.sent()]
        bench.wake()
    assert paths == ["a"] * 5 + ["b"] * 5 + ["c"] * 5
    assert len(bench.events()) == 3
    bench.assert_nothing_left()


def test_backlog_of_a_peer_is_bounded_and_a_refusal_changes_nothing() -> None:
    bench = Bench(limits=Limits(backlog_max=2))
    for _ in range(3):
        bench.request()
    before = bench.endpoint.depths
    with pytest.raises(TableFull, match="2 requests wait for this peer"):
        bench.request()
    assert bench.endpoint.depths == before
    bench.request(peer="another")
    bench.settle()
    assert len(bench.events()) == 4
    bench.assert_nothing_left()


def test_requests_in_all_are_bounded() -> None:
    bench = Bench(limits=Limits(outgoing_max=3))
    for peer in range(3):
        bench.request(peer=peer)
    with pytest.raises(TableFull, match="3 requests are under way"):
        bench.request(peer="one more")
    assert "one more" not in bench.endpoint._delivery.conversations


def test_greater_nstart_lets_more_out() -> None:
    bench = Bench(limits=Limits(nstart=3))
    for _ in range(4):
        bench.request()
    sent = bench.sent()
    assert len(sent) == 3
    assert len({message.token for message in sent}) == 3
    assert len({message.message_id for message in sent}) == 3


@pytest.mark.parametrize(
    "message",
    [
        WARM,
        Message(Code.EMPTY),
        Message(0x3F),
        Message(Code.GET, payload=bytes(5000)),
        Message(Code.GET, options=(Option(12, b""), Option(11, b""))),
    ],
    ids=lambda message: str(message)[:30],
)
def test_request_that_cannot_be_written_is_refused_and_leaves_nothing(message: Message) -> None:
    bench = Bench()
    with pytest.raises(LocalProtocolError):
        bench.request(message)
    assert bench.sent() == []
    assert leftovers(bench.endpoint) == {}


def test_cancelled_request_is_never_named_again() -> None:
    bench = Bench()
    first = bench.request()
    waiting = bench.request(Message.request(Code.GET, "waiting"))
    last = bench.request(Message.request(Code.GET, "last"))
    sent = bench.sent_one()
    bench.endpoint.cancel(waiting, now=bench.now)
    bench.endpoint.cancel(first, now=bench.now)
    bench.endpoint.cancel(first, now=bench.now)
    last_sent = bench.sent_one()
    assert last_sent.path == "last"
    bench.receive(answer(sent, Type.ACK))
    bench.receive(answer(sent, Type.CON, 0xAD7B))
    assert bench.events() == []
    assert bench.sent_one() == empty(Type.RST, 0xAD7B)
    bench.receive(answer(last_sent, Type.ACK))
    assert [event.request for event in bench.events() if isinstance(event, ResponseReceived)] == [
        last
    ]
    bench.assert_nothing_left()


def test_response_to_a_request_that_still_waits_is_refused() -> None:
    """Whoever guesses its token cannot answer what was not asked yet."""
    bench = Bench()
    bench.request()
    bench.request()
    sent = bench.sent_one()
    next_token = (int.from_bytes(sent.token, "big") + 1 & 0xFFFF).to_bytes(2, "big")
    bench.receive(Message(Code.CONTENT, Type.NON, 77, next_token))
    bench.receive(Message(Code.CONTENT, Type.CON, 78, next_token))
    assert bench.events() == []
    assert bench.sent() == [empty(Type.RST, 78)]


def test_message_ids_of_one_peer_do_not_repeat_within_a_lifetime() -> None:
    """4.4."""
    bench = Bench()
    seen = set()
    for _ in range(300):
        bench.request()
        sent = bench.sent_one()
        seen.add(sent.message_id)
        bench.receive(answer(sent, Type.ACK))
        bench.now += 0.8
        bench.endpoint.handle_timer(now=bench.now)
    assert len(seen) == 300


def test_message_id_still_in_use_is_passed_over() -> None:
    bench = Bench(limits=Limits(nstart=2))
    bench.request()
    first = bench.sent_one()
    bench.endpoint._delivery.conversations[PEER].next_message_id = first.message_id
    bench.request()
    assert bench.sent_one().message_id == (first.message_id + 1) & 0xFFFF


# The server's side


def test_prompt_response_is_piggybacked() -> None:
    bench = Bench()
    bench.receive(request := con())
    asked = bench.asked()
    assert (asked.peer, asked.message) == (PEER, request)
    bench.respond(asked.exchange)
    assert bench.sent_one() == answer(request, Type.ACK)
    assert bench.endpoint.next_timer() is None
    bench.assert_nothing_left()


def test_slow_response_is_announced_and_then_separate() -> None:
    """Figure 20, from the other side: the response is confirmable, with an id of its own."""
    bench = Bench(piggyback_wait=1.0)
    bench.receive(request := con())
    asked = bench.asked()
    assert bench.wake() == 1.0
    assert bench.sent_one() == empty(Type.ACK, request.message_id)
    bench.now += 5
    bench.respond(asked.exchange)
    response = bench.sent_one()
    assert (response.type, response.token, response.payload) == (Type.CON, b"\x20", b"22.3 C")
    bench.receive(empty(Type.ACK, response.message_id))
    assert bench.endpoint.next_timer() is None
    assert bench.endpoint.refused == {}
    bench.assert_nothing_left()


def test_lost_separate_response_is_sent_again_until_acknowledged_or_given_up() -> None:
    for acknowledged in (True, False):
        bench = Bench()
        bench.receive(con())
        asked = bench.asked()
        bench.wake()
        bench.respond(asked.exchange)
        _, response = bench.sent()
        assert bench.wake() == ACK_WAIT
        assert bench.sent_one() == response
        if acknowledged:
            bench.receive(empty(Type.ACK, response.message_id))
            assert bench.endpoint.next_timer() is None
        else:
            assert [bench.wake() for _ in range(4)] == [4, 8, 16, 32]
            assert len(bench.sent()) == 3
        assert bench.events() == []
        bench.assert_nothing_left()


def test_reset_ends_a_separate_response() -> None:
    """Figure 21, from the other side."""
    bench = Bench()
    bench.receive(con())
    asked = bench.asked()
    bench.wake()
    bench.respond(asked.exchange)
    bench.receive(empty(Type.RST, bench.sent()[1].message_id))
    assert bench.endpoint.next_timer() is None
    assert bench.events() == []
    bench.assert_nothing_left()


def test_non_confirmable_request_gets_a_non_confirmable_response() -> None:
    bench = Bench()
    bench.receive(request := non())
    asked = bench.asked()
    assert bench.endpoint.next_timer() is None
    bench.respond(asked.exchange)
    response = bench.sent_one()
    assert (response.type, response.token) == (Type.NON, request.token)
    assert bench.endpoint.next_timer() is None
    bench.assert_nothing_left()


def test_repeated_request_gets_the_stored_reply_and_is_not_asked_again() -> None:
    """4.5."""
    bench = Bench()
    bench.receive(con())
    bench.receive(con())
    assert bench.sent() == []
    asked = bench.asked()
    bench.respond(asked.exchange)
    first = bench.sent_one()
    bench.now += 246
    bench.receive(con())
    assert bench.sent_one() == first
    assert bench.events() == []


def test_repeated_request_that_was_announced_gets_the_empty_acknowledgement_again() -> None:
    bench = Bench()
    bench.receive(request := con())
    asked = bench.asked()
    bench.wake()
    bench.receive(request)
    assert bench.sent() == [empty(Type.ACK, request.message_id)] * 2
    bench.respond(asked.exchange)
    bench.sent()
    bench.receive(request)
    assert bench.sent_one() == empty(Type.ACK, request.message_id)


def test_repeated_non_confirmable_request_is_ignored_in_silence() -> None:
    bench = Bench()
    bench.receive(non())
    bench.respond(bench.asked().exchange)
    bench.sent()
    bench.receive(non())
    assert (bench.sent(), bench.events()) == ([], [])


def test_id_of_an_answered_request_in_a_non_confirmable_one_is_ignored_in_silence() -> None:
    """4.3: a non-confirmable message is never acknowledged, whatever it repeats."""
    bench = Bench()
    bench.receive(con(message_id=7))
    bench.respond(bench.asked().exchange)
    bench.sent()
    bench.receive(non(message_id=7))
    assert (bench.sent(), bench.events()) == ([], [])


@pytest.mark.parametrize(("request_", "lifetime"), [(con(), 247), (non(), 145)], ids=["con", "non"])
def test_message_id_is_new_again_after_its_lifetime(request_: Message, lifetime: float) -> None:
    """4.8.2: EXCHANGE_LIFETIME and NON_LIFETIME."""
    bench = Bench()
    bench.receive(request_)
    bench.respond(bench.asked().exchange)
    bench.now += lifetime - 0.1
    bench.receive(request_)
    assert bench.events() == []
    bench.now += 0.1
    bench.receive(request_)
    bench.asked()


def test_same_id_from_another_peer_is_another_message() -> None:
    bench = Bench()
    bench.receive(con(), "a")
    bench.receive(con(), "b")
    assert len(bench.events()) == 2


def test_ping_is_answered_by_reset() -> None:
    """4.3."""
    bench = Bench()
    bench.receive(empty(Type.CON, 0x0BAD))
    assert bench.sent_one() == empty(Type.RST, 0x0BAD)
    assert bench.events() == []


def test_empty_non_confirmable_message_is_ignored() -> None:
    """4.3: it must not be empty; 4.2 asks for a reset of confirmable ones only."""
    bench = Bench()
    bench.receive(empty(Type.NON, 1))
    assert bench.sent() == []
    assert sum(bench.endpoint.refused.values()) == 1


@pytest.mark.parametrize("body", ["40{}01", "4f{}", "41{}", "40{}ff", "40{}f0", "40{}b4"])
def test_malformed_confirmable_message_is_reset_and_others_are_ignored(body: str) -> None:
    """4.2, 4.3. The code is 0.01 except where content makes an empty message malformed."""
    for kind in Type:
        code = "00" if body == "40{}01" else "01"
        octets = bytearray.fromhex(body.format(f"{code}7d34"))
        octets[0] |= kind << 4
        bench = Bench()
        bench.receive(bytes(octets))
        assert bench.sent() == ([empty(Type.RST, 0x7D34)] if kind is Type.CON else [])
        assert bench.events() == []
        assert sum(bench.endpoint.refused.values()) == 1


@pytest.mark.parametrize(
    "octets", [b"", b"\x40", b"\x40\x01\x7d", b"\x00\x01\x7d\x34", b"\x80\x01\x7d\x34"]
)
def test_what_is_not_of_our_version_is_ignored_in_silence(octets: bytes) -> None:
    """Section 3: messages with unknown version numbers must be silently ignored."""
    bench = Bench()
    bench.receive(octets)
    assert (bench.sent(), bench.events()) == ([], [])


def test_confirmable_message_of_a_reserved_class_is_reset() -> None:
    """4.2."""
    for code in (0x20, 0x60, 0xC0, 0xE1):
        bench = Bench()
        bench.receive(bytes([0x40, code, 0x7D, 0x34]))
        assert bench.sent_one() == empty(Type.RST, 0x7D34)


def test_unknown_critical_option_is_answered_bad_option() -> None:
    """5.4.1; a diagnostic payload says which."""
    bench = Bench()
    bench.receive(Message(Code.GET, Type.CON, 1, b"t", (Option(2049, b""),)))
    response = bench.sent_one()
    assert (response.type, response.code, response.token) == (Type.ACK, Code.BAD_OPTION, b"t")
    assert b"2049" in response.payload
    assert bench.events() == []
    bench.assert_nothing_left()


def test_unknown_critical_option_without_confirmation_is_ignored_in_silence() -> None:
    """5.4.1: it is rejected."""
    bench = Bench()
    bench.receive(Message(Code.GET, Type.NON, 1, b"t", (Option(2049, b""),)))
    assert (bench.sent(), bench.events()) == ([], [])
    bench.assert_nothing_left()


def test_unknown_elective_option_is_handed_up() -> None:
    bench = Bench()
    bench.receive(Message(Code.GET, Type.CON, 1, b"t", (Option(2048, b"x"),)))
    assert bench.asked().message.option(2048) == b"x"


@pytest.mark.parametrize("number", [OptionNumber.PROXY_URI, OptionNumber.PROXY_SCHEME])
def test_proxying_is_not_supported(number: int) -> None:
    """5.10.2."""
    bench = Bench()
    bench.receive(Message(Code.GET, Type.CON, 1, b"t", (Option(number, b"coap"),)))
    assert bench.sent_one().code == Code.PROXYING_NOT_SUPPORTED
    assert bench.events() == []


def test_what_is_understood_can_be_chosen_even_without_a_definition() -> None:
    bench = Bench()
    bench.endpoint = Endpoint(dice=FixedDice(1), understood=UNDERSTOOD | {2049})
    bench.receive(Message(Code.GET, Type.CON, 1, b"t", (Option(2049, b"x"),)))
    bench.asked()


def test_requests_beyond_the_bound_are_put_off_with_max_age() -> None:
    bench = Bench(limits=Limits(incoming_max=2, busy_max_age=17))
    for message_id in range(3):
        bench.receive(con(message_id=message_id))
    bench.receive(non(message_id=3))
    assert len(bench.events()) == 2
    confirmable, non_confirmable = bench.sent()
    assert (confirmable.type, non_confirmable.type) == (Type.ACK, Type.NON)
    for response in (confirmable, non_confirmable):
        assert response.code == Code.SERVICE_UNAVAILABLE
        assert response.uint_option(OptionNumber.MAX_AGE) == 17
    assert bench.endpoint.busy_count == 2
    assert bench.endpoint.depths["requests to answer"] == (2, 2)


def test_messages_remembered_are_bounded_and_the_oldest_is_forgotten() -> None:
    bench = Bench(limits=Limits(remembered_max=2))
    for message_id in (1, 2, 3, 3, 1):
        bench.receive(con(message_id=message_id))
    ids = [
        event.message.message_id for event in bench.events() if isinstance(event, RequestReceived)
    ]
    assert ids == [1, 2, 3, 1]


def test_peers_counted_are_bounded() -> None:
    """Datagrams with invented sources cost a bounded table, even when no timer ever runs."""
    bench = Bench(limits=Limits(conversations_max=10))
    for peer in range(50):
        bench.receive(non(), peer)
        bench.respond(bench.asked().exchange)
        assert len(bench.endpoint._delivery.conversations) <= 10
    bench.request(peer="kept")
    for peer in range(50, 80):
        bench.receive(non(), peer)
        bench.respond(bench.asked().exchange)
    assert "kept" in bench.endpoint._delivery.conversations
    assert len(bench.endpoint._delivery.conversations) <= 10
    bench.assert_nothing_left()


def test_peers_long_silent_are_forgotten_without_a_timer() -> None:
    bench = Bench()
    for peer in range(100):
        bench.receive(non(), peer)
        bench.respond(bench.asked().exchange)
        assert bench.endpoint.next_timer() is None
        bench.now += 100
        assert len(bench.endpoint._delivery.conversations) <= 3
        assert len(bench.endpoint._duplicates) <= 3


def test_separate_responses_beyond_the_bound_are_sent_once() -> None:
    """5.2.2 lets a server choose; what is not watched needs no place."""
    bench = Bench(limits=Limits(separate_max=1))
    for message_id in (1, 2):
        bench.receive(con(message_id=message_id))
    asked = [event for event in bench.events() if isinstance(event, RequestReceived)]
    bench.wake()
    bench.sent()
    for event in asked:
        bench.respond(event.exchange)
    first, second = bench.sent()
    assert (first.type, second.type) == (Type.CON, Type.NON)
    bench.receive(empty(Type.ACK, first.message_id))
    bench.assert_nothing_left()


def test_answering_twice_or_nothing_is_the_callers_mistake() -> None:
    bench = Bench()
    bench.receive(con())
    exchange = bench.asked().exchange
    bench.respond(exchange)
    for wrong in (exchange, ExchangeId(999)):
        with pytest.raises(LocalProtocolError, match="unknown or answered"):
            bench.respond(wrong)
    assert len(bench.sent()) == 1


@pytest.mark.parametrize("wait", [0.0, 2.0], ids=["piggybacked", "separate"])
@pytest.mark.parametrize(
    "message",
    [GET, Message(Code.EMPTY), Message.response(Code.CONTENT, payload=bytes(5000))],
    ids=str,
)
def test_answer_that_cannot_be_written_is_refused_and_the_exchange_still_waits(
    message: Message, wait: float
) -> None:
    bench = Bench()
    bench.receive(con())
    exchange = bench.asked().exchange
    bench.now += wait
    bench.endpoint.handle_timer(now=bench.now)
    bench.sent()
    before = leftovers(bench.endpoint)
    with pytest.raises(LocalProtocolError):
        bench.respond(exchange, message)
    assert leftovers(bench.endpoint) == before
    assert bench.sent() == []
    bench.respond(exchange)
    assert bench.sent_one().payload == b"22.3 C"
    bench.assert_nothing_left()


def test_timers_called_early_late_or_twice_are_harmless() -> None:
    bench = Bench()
    bench.request()
    bench.receive(con())
    bench.events()
    bench.sent()
    bench.endpoint.handle_timer(now=bench.now)
    assert bench.sent() == []
    bench.now += 500  # The driver slept: one repetition, one acknowledgement, no burst.
    bench.endpoint.handle_timer(now=bench.now)
    bench.endpoint.handle_timer(now=bench.now)
    assert sorted(message.type for message in bench.sent()) == [Type.CON, Type.ACK]


def test_waits_long_over_do_not_fill_a_queue() -> None:
    bench = Bench()
    bench.request(peer="slow", is_confirmable=False, response_wait=10.0)
    bench.sent()
    for _ in range(2000):
        bench.request(is_confirmable=False, response_wait=3600.0)
        bench.receive(answer(bench.sent_one(), Type.NON, 1))
    assert len(bench.endpoint._client._awaiting._queue) < 100
    assert len(bench.events()) == 2000


# Seeded worlds: two endpoints that ask each other, over a network as bad as the seed wants it.

REQUEST_COUNT = 6


class Street:
    """A client, two servers (one prompt, one slow), and all that the three were told."""

    def __init__(self, seed: int, quality: LinkQuality) -> None:
        self.world = World(seed, quality)
        self.client = Endpoint(dice=random.Random(seed), response_wait=120)
        self.servers = {
            name: Endpoint(dice=random.Random(f"{seed} {name}")) for name in ("prompt", "slow")
        }
        self.client_host = self.world.add("client", self.client)
        self.hosts = {
            name: self.world.add(name, server, self._answer(name, 0 if name == "prompt" else 5))
            for name, server in self.servers.items()
        }
        self.requests: dict[RequestId, tuple[str, bytes]] = {}
        for number in range(REQUEST_COUNT):
            self.world.at(number * 3.0, self._ask(number))
        self.world.run()

    def _ask(self, number: int) -> Callable[[], None]:
        def ask() -> None:
            server = ("prompt", "slow")[number % 2]
            payload = f"{number}".encode()
            request = self.client.request(
                Message.request(Code.POST, "do", payload=payload),
                server,
                now=self.world.now,
                is_confirmable=number % 3 != 2,
            )
            self.requests[request] = (server, payload)
            self.client_host.settle()

        return ask

    def _answer(self, name: str, delay: float) -> Callable[[Event], None]:
        def answer_now(event: RequestReceived) -> None:
            response = Message.response(Code.CHANGED, payload=event.message.payload)
            self.servers[name].respond(event.exchange, response, now=self.world.now)
            self.hosts[name].settle()

        def on_event(event: Event) -> None:
            assert isinstance(event, RequestReceived)
            self.world.at(self.world.now + delay, lambda: answer_now(event))

        return on_event

    @property
    def outcomes(self) -> list[type[Event]]:
        return [type(event) for event in self.client_host.events]


@pytest.mark.parametrize("seed", range(200), ids=lambda seed: f"seed_{seed}")
def test_every_request_ends_once_and_is_acted_on_at_most_once(seed: int) -> None:
    """Safety: one end for each request, one act for each message, to each its own answer.

    Liveness: the world comes to rest, and then nothing is left in any table.
    """
    street = Street(seed, BAD if seed % 2 else CRUEL)
    ended = [
        event.request
        for event in street.client_host.events
        if isinstance(event, ResponseReceived | RequestFailed)
    ]
    assert sorted(ended) == sorted(street.requests)
    for event in street.client_host.events:
        if isinstance(event, ResponseReceived):
            assert street.requests[event.request] == (event.peer, event.message.payload)
    for name, host in street.hosts.items():
        acted = [
            event.message.payload for event in host.events if isinstance(event, RequestReceived)
        ]
        assert len(acted) == len(set(acted))
        answered = {
            event.message.payload
            for event in street.client_host.events
            if isinstance(event, ResponseReceived) and event.peer == name
        }
        assert answered <= set(acted)
    for endpoint in (street.client, *street.servers.values()):
        now = street.world.now
        for _ in range(3):
            now += endpoint.timing.exchange_lifetime
            endpoint.handle_timer(now=now)
        assert leftovers(endpoint) == {}


def test_perfect_link_gives_the_textbook_run() -> None:
    street = Street(0, PERFECT)
    assert street.outcomes == [ResponseReceived] * REQUEST_COUNT
    messages = [
        Message.decode(passage.datagram) for passage in street.world.datagrams(Fate.DELIVERED)
    ]
    # Prompt: asks and gets it piggybacked (twice), or both non-confirmable (once). Slow: two are
    # announced first, and their separate response is acknowledged; one is non-confirmable.
    kinds = sorted((message.type.name, message.code) for message in messages)
    assert kinds == sorted(
        [("CON", 2), ("ACK", 0x44)] * 2
        + [("NON", 2), ("NON", 0x44)] * 2
        + [("CON", 2), ("ACK", 0), ("CON", 0x44), ("ACK", 0)] * 2
    )


def test_same_seed_gives_the_same_run() -> None:
    for seed in range(10):
        assert Street(seed, BAD).world.history == Street(seed, BAD).world.history


def test_seeds_reach_both_outcomes_and_every_fault() -> None:
    """Guards the test itself: dice so kind, or so cruel, that they prove nothing."""
    streets = [Street(seed, CRUEL) for seed in range(30)]
    outcomes = {outcome for street in streets for outcome in street.outcomes}
    assert outcomes == {ResponseReceived, RequestFailed}
    assert all(street.world.counters[Fate.LOST.value] for street in streets)
    assert any(
        street.world.counters[Fate.DELIVERED.value] > street.world.counters[Fate.SENT.value] * 0.5
        for street in streets
    )


# Fuzz by operations

SMALL = Limits(
    nstart=2,
    backlog_max=2,
    outgoing_max=6,
    incoming_max=3,
    separate_max=2,
    remembered_max=5,
    conversations_max=8,
    observing_max=3,
    observers_max=3,
    observers_per_peer_max=2,
    token_size_max=4,
)
OBSERVE = with_observe(GET, 0)

short_options = st.lists(
    st.builds(Option, st.sampled_from([3, 6, 6, 9, 11, 14, 35, 2048, 2049]), st.binary(max_size=3)),
    max_size=3,
).map(lambda found: tuple(sorted(found, key=lambda option: option.number)))

operations = st.one_of(
    st.tuples(st.sampled_from(["request", "observe"]), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("respond"), st.integers(0, 8), st.booleans()),
    st.tuples(st.just("notify"), st.integers(0, 3), st.sampled_from([True, False, None])),
    st.tuples(
        st.just("again"), st.integers(0, 8), st.sampled_from(["register_again", "deregister"])
    ),
    st.tuples(st.just("end"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 8), st.booleans()),
    st.tuples(st.just("echo"), st.integers(0, 30), st.sampled_from(Type)),
    st.tuples(
        st.just("mutate"), st.integers(0, 30), st.tuples(st.integers(0, 60), st.integers(1, 255))
    ),
    st.tuples(st.just("garbage"), st.integers(0, 4), st.binary(max_size=20)),
    st.tuples(
        st.just("message"),
        st.integers(0, 4),
        st.builds(
            Message,
            st.sampled_from([1, 2, 0x45, 0x84]),
            st.sampled_from(Type),
            st.integers(0, 3),
            st.binary(max_size=2) | st.just(bytes(20)),
            short_options,
        ),
    ),
    st.tuples(st.just("state"), st.integers(0, 30), st.tuples(st.booleans(), st.integers(0, 3))),
    st.tuples(st.just("time"), st.just(0), st.sampled_from([0.0, 0.5, 3.0, 50.0, 300.0])),
    st.tuples(st.just("timer"), st.just(0), st.just(0)),
)


class Fuzzed:
    """An endpoint with small bounds, everything it ever sent, and what is expected of it."""

    def __init__(self) -> None:
        self.endpoint = Endpoint(dice=random.Random(3), limits=SMALL)
        self.now = 0.0
        self.sent: list[tuple[Peer, bytes]] = []
        self.open: set[RequestId] = set()
        self.exchanges: list[ExchangeId] = []
        self.observed: list[ExchangeId] = []

    def do(self, verb: str, number: int, more: object) -> None:
        endpoint, now = self.endpoint, self.now
        peer, datagram = self.sent[number % len(self.sent)] if self.sent else (0, b"")
        try:
            if verb == "request":
                self.open.add(endpoint.request(GET, number, now=now, is_confirmable=bool(more)))
            elif verb == "respond":
                exchanges = [*self.exchanges, ExchangeId(10_000)]
                exchange = exchanges[number % len(exchanges)]
                if endpoint.respond(exchange, WARM, opens_observation=bool(more), now=now):
                    self.observed.append(exchange)
            elif verb == "observe":
                self.open.add(endpoint.request(OBSERVE, number, now=now, is_confirmable=bool(more)))
            elif verb == "again" and self.open:
                request = sorted(self.open)[number % len(self.open)]
                command = endpoint.deregister if more == "deregister" else endpoint.register_again
                command(request, now=now)
            elif verb == "notify" and self.observed:
                exchange = self.observed[number % len(self.observed)]
                assert more is None or isinstance(more, bool)
                endpoint.notify(exchange, WARM, is_confirmable=more, now=now)
            elif verb == "end" and self.observed:
                exchange = self.observed.pop(number % len(self.observed))
                if more:
                    endpoint.notify(exchange, Message.response(Code.NOT_FOUND), now=now)
                else:
                    endpoint.end_observation(exchange, now=now)
            elif verb == "cancel" and self.open:
                request = sorted(self.open)[number % len(self.open)]
                endpoint.cancel(request, now=now)
                self.open.discard(request)
        except (TableFull, LocalProtocolError):
            pass
        if verb == "echo":
            # An answer that fits something we sent, as any peer could give it.
            first = 0x40 | int(str(int(more))) << 4 | (datagram[0] & 15 if datagram else 0)  # type: ignore[call-overload]
            endpoint.receive_datagram(
                bytes([first, 0x45 if first & 15 else 0]) + datagram[2 : 4 + (first & 15)],
                peer,
                now=now,
            )
        elif verb == "state" and datagram:
            # A notification that fits something we asked.
            assert isinstance(more, tuple)
            token = Message.decode(datagram).token
            kind = Type.CON if more[0] else Type.NON
            told = with_observe(WARM, more[1]).addressed(type=kind, message_id=number, token=token)
            endpoint.receive_datagram(told.encode(), peer, now=now)
        elif verb == "mutate" and datagram:
            assert isinstance(more, tuple)
            at, mask = more
            changed = bytearray(datagram)
            changed[at % len(changed)] ^= mask
            endpoint.receive_datagram(bytes(changed), peer, now=now)
        elif verb == "garbage":
            endpoint.receive_datagram(more, number, now=now)  # type: ignore[arg-type]
        elif verb == "message":
            endpoint.receive_datagram(more.encode(), number, now=now)  # type: ignore[attr-defined]
        elif verb == "time":
            self.now += more  # type: ignore[operator]
        elif verb == "timer":
            due = endpoint.next_timer()
            self.now = max(self.now, due or 0)
            endpoint.handle_timer(now=self.now)
        self.collect()

    def collect(self) -> None:
        for peer, datagram in self.endpoint.data_to_send():
            message = Message.decode(datagram)  # Whatever we send, a peer can read.
            assert not (message.type is Type.NON and message.is_empty)
            self.sent.append((peer, datagram))
        for event in self.endpoint.events():
            if isinstance(event, RequestReceived):
                self.exchanges.append(event.exchange)
            elif isinstance(event, ObservationEnded):
                self.observed.remove(event.exchange)  # ValueError: it ended twice.
            elif isinstance(event, RequestFailed) or (
                isinstance(event, ResponseReceived) and event.is_final
            ):
                self.open.remove(event.request)  # KeyError: it ended twice, or after a cancel.
            else:
                assert event.request in self.open
        self.check_bounds()

    def check_bounds(self) -> None:
        endpoint = self.endpoint
        for depth, bound in endpoint.depths.values():
            assert depth <= bound
        assert len(endpoint._server._separate) <= SMALL.separate_max
        assert len(endpoint._delivery.sent) <= (
            SMALL.outgoing_max + SMALL.separate_max + SMALL.observers_max
        )
        assert len(endpoint._delivery.retransmission) <= len(endpoint._delivery.sent)
        assert len(endpoint._observers) >= len(self.observed)
        assert len(endpoint._delivery.conversations) <= SMALL.conversations_max
        assert len(endpoint._delivery._idle) <= len(endpoint._delivery.conversations)
        assert len(endpoint._client._requests) == len(endpoint._client.outgoing) == len(self.open)
        for peer, conversation in endpoint._delivery.conversations.items():
            assert conversation.in_flight <= SMALL.nstart
            assert conversation.waiting == len(endpoint._client._turns._backlogs.get(peer, ()))
            assert conversation.waiting <= SMALL.backlog_max


@settings(max_examples=150)
@given(st.lists(operations, max_size=60))
def test_no_order_of_operations_raises_or_breaks_a_bound(
    story: list[tuple[str, int, object]],
) -> None:
    fuzzed = Fuzzed()
    for verb, number, more in story:
        fuzzed.do(verb, number, more)
    # However it began, it ends: all requests, once each, and then nothing is left.
    for exchange in fuzzed.exchanges:
        try:
            fuzzed.endpoint.respond(exchange, WARM, now=fuzzed.now)
        except AmiError:
            pass  # Answered in the story.
    for _ in range(200):
        if fuzzed.endpoint.next_timer() is None:
            break
        fuzzed.do("timer", 0, 0)
    assert len(fuzzed.open) == fuzzed.endpoint.depths["observations"][0]
    while fuzzed.open:
        fuzzed.do("cancel", 0, 0)
    while fuzzed.observed:
        fuzzed.do("end", 0, 0)
    for _ in range(3):
        fuzzed.now += 4 * fuzzed.endpoint.timing.exchange_lifetime  # Paths were made slow.
        fuzzed.do("timer", 0, 0)
    assert leftovers(fuzzed.endpoint) == {}
