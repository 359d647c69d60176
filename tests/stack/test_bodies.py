"""Bodies of any length, states that are observed, and message_3 with the first request.

The contract under test: a body that fits no message comes out whole or not at all, both ways,
however foul the network; every observer's last state arrives in the end, whatever its length; an
observation ends by either side's word and leaves nothing; a handshake whose message_3 goes along
costs one round trip less and ends as any other; a session with too many forgeries ends.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import BODY_SIZE_MAX
from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.coap.observe import REGISTER, with_observe
from amistack.coap.options import OptionNumber
from amistack.errors import LocalProtocolError
from amistack.session.oscore import AES_CCM_16_64_128, protect_request
from amistack.stack import RequestId, secured
from tests.stack.parties import CONTENT, HEAD_END_NAME, METER, Street, leaks
from tests.support.worlds import BAD, PERFECT, World

HEAD_END_AT, METER_AT = Street.HEAD_END_AT, Street.METER_AT
BLOCK = 1024


def joined(*, seed: int = 0, block: int = 64, is_combining: bool = False) -> Street:
    street = Street(World(seed), seed=seed, block=block)
    street.meter.connect(HEAD_END_AT, is_combining=is_combining)
    street.world.elapse(300)
    street.world.history.clear()
    return street


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# Bodies


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 7])
def test_body_of_any_length_comes_out_whole_both_ways(size: int) -> None:
    street = joined()
    up, down = street.report(body(size)), street.read(body(size))
    street.world.elapse(60)
    assert street.meter.responses[up].payload == b"re " + body(size)
    assert street.head_end.responses[down].payload == b"re " + body(size)
    assert [one.payload for _, one in street.head_end.delivered] == [body(size)]
    assert [one.payload for _, one in street.meter.delivered] == [body(size)]
    assert not street.head_end.delivered[0][1].option(OptionNumber.BLOCK1)
    street.world.elapse(300)
    street.expect_rest()


def test_largest_body_comes_out_whole_and_one_octet_more_is_not_sent() -> None:
    street = joined()
    largest = street.report(body(BODY_SIZE_MAX - 3))
    street.world.elapse(60)
    assert street.meter.responses[largest].payload == b"re " + body(BODY_SIZE_MAX - 3)
    with pytest.raises(LocalProtocolError, match="octets, at most"):
        street.report(body(BODY_SIZE_MAX + 1))


def test_no_block_is_in_the_clear() -> None:
    street = joined()
    street.report(b"plain text, again and again: " * 200)
    street.world.elapse(60)
    for passage in street.world.datagrams():
        assert b"again and again" not in passage.datagram
        if passage.datagram[1:2] != b"\x00":
            numbers = {one.number for one in Message.decode(passage.datagram).options}
            assert numbers == {OptionNumber.OSCORE}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(0, 4 * BLOCK), min_size=1, max_size=4),
    block=st.sampled_from([1, 3, 64]),
)
def test_no_body_is_mixed_or_delivered_twice_in_a_foul_network(
    seed: int, sizes: list[int], block: int
) -> None:
    street = joined(seed=seed, block=block)
    street.world.quality = BAD
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    requests = [street.report(one) for one in bodies]
    street.world.elapse(4_000)
    for request, one in zip(requests, bodies, strict=True):
        if request in street.meter.responses:
            assert street.meter.responses[request].payload == b"re " + one
        else:
            assert request in street.meter.failures
    delivered = [one.payload for _, one in street.head_end.delivered]
    assert len(delivered) <= len(bodies)
    assert all(one in bodies for one in delivered)
    street.calm_down()
    street.expect_rest()


def test_request_that_is_cancelled_between_its_blocks_is_named_by_nothing() -> None:
    street = joined()
    request = street.report(body(5 * BLOCK))
    street.world.elapse(0.03)
    street.meter.stack.cancel(request, now=street.world.now)
    street.meter.settle()
    street.world.elapse(600)
    assert request not in street.meter.responses | street.meter.failures
    assert street.head_end.delivered == []
    street.expect_rest()


def test_body_whose_session_is_replaced_between_its_blocks_is_not_taken() -> None:
    street = joined()
    request = street.report(body(5 * BLOCK))
    street.world.elapse(0.03)
    street.meter.connect(HEAD_END_AT, c_i=b"\x06")
    street.world.elapse(600)
    assert request in street.meter.failures | street.meter.responses
    assert all(one.payload == body(5 * BLOCK) for _, one in street.head_end.delivered)
    assert len(street.head_end.delivered) <= 1
    street.expect_rest()


# What is observed


def observe(street: Street, payload: bytes = b"") -> RequestId:
    """The head-end observes a resource of the meter's."""
    asked = Message.request(Code.FETCH, "state", payload=payload, content_format=CONTENT)
    request = street.head_end.stack.request(
        METER, with_observe(asked, REGISTER), METER_AT, now=street.world.now
    )
    street.head_end.settle()
    street.world.elapse(5)
    return request


def tell(street: Street, payload: bytes, *, is_last: bool = False) -> None:
    state = Message.response(Code.CONTENT, payload=payload, content_format=CONTENT)
    (exchange,) = street.meter.observers
    street.meter.state = payload
    street.meter.stack.notify(exchange, state, is_last=is_last, now=street.world.now)
    if is_last:
        street.meter.observers.remove(exchange)
    street.meter.settle()


def payloads(street: Street, request: RequestId) -> list[bytes]:
    return [one.payload for one in street.head_end.states.get(request, [])]


def test_observer_is_told_every_state_until_the_last() -> None:
    street = joined()
    request = observe(street)
    assert payloads(street, request) == [b"re "]
    for number in range(3):
        tell(street, b"state %d" % number)
        street.world.elapse(5)
    assert payloads(street, request)[1:] == [b"state 0", b"state 1", b"state 2"]
    tell(street, b"over", is_last=True)
    street.world.elapse(5)
    assert street.head_end.responses[request].payload == b"over"
    street.world.elapse(300)
    street.expect_rest()


@pytest.mark.parametrize("size", [3 * BLOCK, BODY_SIZE_MAX // 8])
def test_state_that_fits_no_message_arrives_whole(size: int) -> None:
    street = joined()
    request = observe(street)
    tell(street, body(size))
    street.world.elapse(60)
    assert payloads(street, request)[1:] == [body(size)]
    tell(street, b"short again")
    street.world.elapse(5)
    assert payloads(street, request)[2:] == [b"short again"]


def test_newer_state_takes_the_place_of_one_that_is_still_fetched() -> None:
    street = joined()
    request = observe(street)
    tell(street, body(20 * BLOCK))
    street.world.elapse(0.05)
    tell(street, b"newer")
    street.world.elapse(120)
    assert payloads(street, request)[-1] == b"newer"
    assert set(payloads(street, request)) <= {b"re ", body(20 * BLOCK), b"newer"}


def test_state_whose_rest_is_refused_is_none_and_the_next_one_is() -> None:
    street = joined()
    request = observe(street)
    tell(street, body(3 * BLOCK))
    # Each block that is asked for finds the resource shorter, and nothing kept of what it was.
    street.meter.state = b"short"
    street.meter.stack._blocks.forget(HEAD_END_NAME)
    refuse = street.meter.answer_to
    street.meter.answer_to = lambda message: Message.response(Code.BAD_REQUEST)  # type: ignore[method-assign]
    street.world.elapse(60)
    assert payloads(street, request) == [b"re "]
    assert street.head_end.stack.refused["blocks: rest of a state not had"] == 1
    street.meter.answer_to = refuse  # type: ignore[method-assign]
    tell(street, b"next")
    street.world.elapse(5)
    assert payloads(street, request) == [b"re ", b"next"]
    assert len(street.meter.observers) == 1


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=8),
)
@example(seed=1056, sizes=[2045, 0])
@example(seed=15911, sizes=[0, 0, 1021, 2045, 1021])
def test_last_state_arrives_in_the_end_and_none_out_of_order(seed: int, sizes: list[int]) -> None:
    street = joined(seed=seed)
    request = observe(street)
    street.world.quality = BAD
    states = [b"%03d " % number + body(size) for number, size in enumerate(sizes)]
    for state in states:
        if street.meter.observers:
            tell(street, state)
        else:
            street.meter.state = state  # It gave up: CoAP's patience is bounded.
        street.world.elapse(20)
    street.world.quality = PERFECT
    street.world.elapse(300)
    assert len(street.meter.observers) <= 1
    # What it has is the last state, or it knows that it is not: then it asks again.
    if payloads(street, request)[-1] != states[-1]:
        assert street.head_end.stale[-1:] == [request]
        street.head_end.stack.cancel(request, now=street.world.now)
        street.head_end.settle()
        again = observe(street)
        street.world.elapse(60)
        assert payloads(street, again) == [states[-1]]
    seen = [states.index(one) for one in payloads(street, request)[1:]]
    assert seen == sorted(seen)


def test_observation_ends_by_the_observers_word() -> None:
    street = joined()
    request = observe(street)
    street.head_end.stack.deregister(request, now=street.world.now)
    street.head_end.settle()
    street.world.elapse(5)
    assert street.meter.observers == []
    assert request in street.head_end.responses
    street.world.elapse(300)
    street.expect_rest()


def test_cancelled_observation_is_reset_at_its_next_notification() -> None:
    street = joined()
    request = observe(street)
    street.head_end.stack.cancel(request, now=street.world.now)
    street.head_end.settle()
    tell(street, b"nobody listens")
    street.world.elapse(5)
    assert street.meter.observers == []
    assert street.meter.endings == ["reset by the observer"]
    street.world.elapse(300)
    street.expect_rest()


def test_observer_that_hears_nothing_is_told_that_its_state_is_stale() -> None:
    street = joined()
    request = observe(street)
    street.world.elapse(59)
    assert street.head_end.stale == []
    street.world.elapse(20)
    assert street.head_end.stale == [request]


def test_nothing_can_be_notified_in_a_session_that_ended() -> None:
    street = joined()
    observe(street)
    street.meter.stack.remove_session(HEAD_END_NAME)
    with pytest.raises(LocalProtocolError):
        tell(street, b"too late")
    assert leaks(street.meter.stack) == {}


def test_request_without_observe_observes_nothing() -> None:
    street = joined()
    request = street.read(b"once")
    street.world.elapse(5)
    assert street.meter.observers == []
    with pytest.raises(LocalProtocolError):
        street.head_end.stack.deregister(request, now=street.world.now)


# message_3 with the first request


def exchanges(street: Street) -> int:
    return sum(
        Message.decode(one.datagram).type is Type.CON for one in street.world.datagrams()
        if one.sender == METER_AT
    )  # fmt: skip


@pytest.mark.parametrize(("is_combining", "expected"), [(False, 3), (True, 2)])
def test_message_3_that_goes_along_saves_an_exchange(is_combining: bool, expected: int) -> None:
    street = Street()
    street.meter.connect(HEAD_END_AT, is_combining=is_combining)
    street.world.elapse(5)
    request = street.report(b"first")
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re first"
    assert exchanges(street) == expected
    assert [one.payload for _, one in street.head_end.delivered] == [b"first"]
    second = street.report(b"second")
    street.world.elapse(5)
    assert street.meter.responses[second].payload == b"re second"
    street.world.elapse(300)
    street.expect_rest()


def test_first_request_that_is_too_long_waits_for_message_3_alone() -> None:
    street = Street()
    street.meter.connect(HEAD_END_AT, is_combining=True)
    street.world.elapse(5)
    requests = [street.report(body(3 * BLOCK)), street.report(b"and another")]
    street.world.elapse(60)
    assert street.meter.responses[requests[0]].payload == b"re " + body(3 * BLOCK)
    assert street.meter.responses[requests[1]].payload == b"re and another"
    street.world.elapse(300)
    street.expect_rest()


@pytest.mark.parametrize("seed", range(20))
def test_message_3_goes_along_until_something_authentic_comes_back(seed: int) -> None:
    street = Street(World(seed), seed=seed)
    street.meter.connect(HEAD_END_AT, is_combining=True)
    street.world.elapse(5)
    street.world.quality = BAD
    answered = None
    for attempt in range(40):
        request = street.report(b"try %d" % attempt)
        street.world.elapse(200)
        if request in street.meter.responses:
            answered = request
            break
    assert answered is not None
    street.calm_down()
    delivered = [one.payload for _, one in street.head_end.delivered]
    assert len(delivered) == len(set(delivered))
    street.expect_rest()


def test_meter_that_nobody_knows_is_told_so_with_its_first_request() -> None:
    street = Street()
    street.head_end.known = {}
    street.meter.connect(HEAD_END_AT, is_combining=True)
    street.world.elapse(5)
    request = street.report(b"first")
    street.world.elapse(5)
    assert street.meter.failures[request].code == Code.BAD_REQUEST
    assert street.head_end.delivered == []
    assert street.head_end.stack.session_of(METER) is None
    street.meter.stack.remove_session(HEAD_END_NAME)
    street.calm_down()
    street.expect_rest()


# Keys that are worn


def test_session_with_too_many_forgeries_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secured, "FAILURES_MAX", {AES_CCM_16_64_128: 5})
    street = joined()
    context, _ = street.contexts()
    for number in range(5):
        assert street.head_end.worn == []
        outer, _ = protect_request(context, Message.request(Code.POST, "rep", payload=b"x" * 20))
        forged = Message(
            outer.code, Type.CON, number, b"f", outer.options, outer.payload[:-1] + b"\x00"
        )
        street.world.send("stranger", HEAD_END_AT, forged.encode())
        street.world.elapse(1)
    assert street.head_end.worn == [METER]
    assert street.head_end.stack.session_of(METER) is None
    request = street.report(b"x")
    street.world.elapse(5)
    assert street.meter.failures[request].code == Code.UNAUTHORIZED
