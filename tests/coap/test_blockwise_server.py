"""The server of block-wise transfers: what each block is answered, and what is kept for how long.

The contract under test: a resource is asked for whole bodies only, once for each; every refusal has
its code, is counted by reason and changes nothing; every table keeps its bounds, for each peer and
in all, and is empty when all is old; whatever comes in, nothing is raised.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import (
    BlockOption,
    BlockServer,
    Complete,
    Delivered,
    Limits,
    Transfer,
    etag_of,
    find_block,
)
from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, read_uint, uint_value
from amistack.errors import LocalProtocolError
from amistack.machine import Peer
from tests.coap.test_blockwise import block_options, blocks_of, body_of

BODY = body_of(300)
REPRESENTATION = body_of(300, 1)
PAGE = Message.response(Code.CONTENT, payload=REPRESENTATION)
DONE = Message.response(Code.CHANGED)


class Bench:
    """One server under test, and its clock; the test is its peers and its resource."""

    def __init__(self, *, block_size: int = 64, **limits: float) -> None:
        self.server = BlockServer(limits=Limits(**limits), block_size=block_size)  # type: ignore[arg-type]
        self.now = 1000.0

    def hear(self, message: Message, peer: Peer = "p") -> Delivered | Message:
        return self.server.receive(peer, message, now=self.now)

    def refuses(self, message: Message, code: Code, reason: str, peer: Peer = "p") -> Message:
        before, depths = self.server.refused.copy(), self.server.depths
        answer = self.hear(message, peer)
        assert isinstance(answer, Message)
        assert format_code(answer.code) == format_code(code)
        assert self.server.refused - before == {reason: 1}
        assert answer.payload == reason.encode()
        assert self.server.depths == depths
        return answer

    def continues(self, message: Message, peer: Peer = "p") -> str:
        answer = self.hear(message, peer)
        assert isinstance(answer, Message)
        assert answer.code == Code.CONTINUE, answer.payload
        assert not answer.payload
        return blocks_of(answer)

    def delivers(self, message: Message, peer: Peer = "p") -> Delivered:
        answer = self.hear(message, peer)
        assert isinstance(answer, Delivered), answer
        assert answer.peer == peer
        return answer

    def answers(self, message: Message, response: Message = PAGE, peer: Peer = "p") -> Message:
        """`message` is delivered, and `response` the resource's answer."""
        return self.respond(self.delivers(message, peer), response)

    def respond(self, delivered: Delivered, response: Message) -> Message:
        return self.server.respond(delivered, response, now=self.now)

    def keeps(self, message: Message, peer: Peer = "p") -> Message:
        """Answered from what is kept."""
        answer = self.hear(message, peer)
        assert isinstance(answer, Message), "handed up"
        assert answer.code < Code.BAD_REQUEST, answer.payload
        return answer

    def depth(self, name: str) -> int:
        return self.server.depths[name][0]


def part(
    blocks: str,
    body: bytes = BODY,
    *more: Option,
    code: Code = Code.PUT,
    path: str = "a",
    tag: bytes | None = None,
) -> Message:
    """The block of `body` that `blocks` names."""
    options = [*block_options(blocks), *more]
    if tag is not None:
        options.append(Option(OptionNumber.REQUEST_TAG, tag))
    block = find_block(options, OptionNumber.BLOCK1)
    assert block is not None
    payload = body[block.offset : block.offset + block.size]
    return Message.request(code, path, payload=payload, options=options)


def get(blocks: str = "", *more: Option, path: str = "a", code: Code = Code.GET) -> Message:
    return Message.request(code, path, options=[*block_options(blocks), *more])


def size1(octets: int) -> Option:
    return Option(OptionNumber.SIZE1, uint_value(octets))


# What has no blocks


def test_small_request_and_response_pass_untouched() -> None:
    bench = Bench()
    request = Message.request(Code.POST, "a", payload=BODY)
    delivered = bench.delivers(request)
    assert delivered.request is request
    assert bench.respond(delivered, DONE) is DONE
    assert bench.server.next_timer() is None


def test_other_late_options_pass_as_well() -> None:
    bench = Bench()
    echo = Option(OptionNumber.ECHO, b"fresh")
    request = get("", echo)
    delivered = bench.delivers(request)
    assert delivered.request is request
    answer = Message.response(Code.CONTENT, payload=b"x", options=[echo])
    assert bench.respond(delivered, answer) == answer


# Blocks of requests


def test_request_is_handed_up_whole_without_options_of_this_layer() -> None:
    bench = Bench()
    more = [Option(OptionNumber.URI_QUERY, b"q"), Option(OptionNumber.CONTENT_FORMAT, b"\x3c")]
    tag = b"t"
    first = part("1:0/1/128", BODY, *more, size1(300), tag=tag)
    assert bench.continues(first) == "1:0/1/64"
    assert bench.continues(part("1:2/1/64", BODY, *more, tag=tag)) == "1:2/1/64"
    assert bench.continues(part("1:3/1/64", BODY, *more, tag=tag)) == "1:3/1/64"
    delivered = bench.delivers(part("1:4/0/64", BODY, *more, tag=tag))
    assert delivered.request == Message.request(Code.PUT, "a", payload=BODY, options=more)
    assert blocks_of(bench.respond(delivered, DONE)) == "1:4/0/64"


def test_condition_of_the_first_block_is_the_condition_of_the_whole() -> None:
    bench = Bench()
    condition = Option(OptionNumber.IF_NONE_MATCH, b"")
    bench.continues(part("1:0/1/256", BODY, condition))
    delivered = bench.delivers(part("1:1/0/256"))
    assert condition in delivered.request.options


def test_same_first_block_under_another_condition_is_another_request() -> None:
    bench = Bench()
    condition = Option(OptionNumber.IF_NONE_MATCH, b"")
    bench.continues(part("1:0/1/64"))
    bench.continues(part("1:1/1/64"))
    bench.continues(part("1:0/1/64", BODY, condition))
    assert bench.depth("octets of bodies") == 64
    delivered = bench.delivers(part("1:1/0/64", BODY[:100]))
    assert delivered.request.options[0] == condition


def test_body_in_a_single_block_is_handed_up_at_once() -> None:
    bench = Bench()
    delivered = bench.delivers(part("1:0/0/512"))
    assert delivered.request.payload == BODY
    assert bench.depth("bodies under way") == 0


@pytest.mark.parametrize(
    ("blocks", "octets"),
    [("1:0/1/64", 63), ("1:0/1/64", 65), ("1:0/1/64", 0), ("1:0/0/64", 65), ("1:1/0/64", 65)],
)
def test_block_that_is_not_full_or_overfull_is_a_bad_request(blocks: str, octets: int) -> None:
    bench = Bench()
    message = Message.request(Code.PUT, "a", payload=body_of(octets), options=block_options(blocks))
    bench.refuses(message, Code.BAD_REQUEST, "block of another size")


@pytest.mark.parametrize("number", [OptionNumber.BLOCK1, OptionNumber.BLOCK2])
def test_option_that_is_none_is_refused(number: OptionNumber) -> None:
    bench = Bench()
    reserved = get("", Option(number, b"\x07"))
    bench.refuses(reserved, Code.BAD_REQUEST, "reserved block size")
    long = get("", Option(number, b"\0\0\0\0"))
    bench.refuses(long, Code.BAD_OPTION, "bad option")
    twice = get("", Option(number, b""), Option(number, b""))
    bench.refuses(twice, Code.BAD_OPTION, "bad option")


def test_block_without_those_before_it_is_incomplete() -> None:
    bench = Bench()
    incomplete = (Code.REQUEST_ENTITY_INCOMPLETE, "block missing before this one")
    bench.refuses(part("1:1/1/64"), *incomplete)
    bench.continues(part("1:0/1/64"))
    bench.refuses(part("1:2/1/64"), *incomplete)
    bench.refuses(part("1:4/0/64"), *incomplete)
    bench.continues(part("1:1/1/64"))
    assert bench.depth("octets of bodies") == 128


@pytest.mark.parametrize(
    "other",
    [
        {"peer": "q"},
        {"code": Code.POST},
        {"path": "b"},
        {"tag": b""},
        {"tag": b"\0"},
        {"format": 60},
    ],
    ids=str,
)
def test_blocks_of_another_operation_are_not_joined(other: dict[str, object]) -> None:
    bench = Bench()
    bench.continues(part("1:0/1/64"))
    peer = other.pop("peer", "p")
    content_format = other.pop("format", None)
    more = [] if content_format is None else [Option(OptionNumber.CONTENT_FORMAT, b"\x3c")]
    message = part("1:1/1/64", BODY, *more, **other)  # type: ignore[arg-type]
    reason = "block missing before this one"
    bench.refuses(message, Code.REQUEST_ENTITY_INCOMPLETE, reason, peer=peer)
    bench.continues(part("1:1/1/64"))


def test_two_tags_are_assembled_beside_each_other() -> None:
    bench = Bench()
    for number in range(4):
        bench.continues(part(f"1:{number}/1/64"))
        bench.continues(part(f"1:{number}/1/64", REPRESENTATION, tag=b""))
    assert bench.delivers(part("1:4/0/64")).request.payload == BODY
    tagged = bench.delivers(part("1:4/0/64", REPRESENTATION, tag=b""))
    assert tagged.request.payload == REPRESENTATION


def test_block_zero_of_another_body_replaces_what_was_there() -> None:
    bench = Bench()
    for number in range(3):
        bench.continues(part(f"1:{number}/1/64"))
    bench.continues(part("1:0/1/64", REPRESENTATION))
    assert bench.depth("octets of bodies") == 64
    incomplete = (Code.REQUEST_ENTITY_INCOMPLETE, "block missing before this one")
    bench.refuses(part("1:3/1/64"), *incomplete)
    bench.continues(part("1:1/1/64", REPRESENTATION))
    delivered = bench.delivers(part("1:2/0/64", REPRESENTATION[:192]))
    assert delivered.request.payload == REPRESENTATION[:192]


def test_sender_that_starts_again_with_a_body_that_begins_alike_is_followed() -> None:
    """It restarted, and knows nothing of what it said; the new body differs from block 2 on."""
    bench = Bench()
    other = BODY[:128] + REPRESENTATION[128:300]
    for number in range(4):
        bench.continues(part(f"1:{number}/1/64"))
    for number in range(4):
        bench.continues(part(f"1:{number}/1/64", other))
    assert bench.delivers(part("1:4/0/64", other)).request.payload == other


def test_shorter_body_that_begins_alike_ends_where_it_ends() -> None:
    bench = Bench()
    for number in range(4):
        bench.continues(part(f"1:{number}/1/64"))
    bench.continues(part("1:0/1/64"))
    bench.continues(part("1:1/1/64"))
    assert bench.delivers(part("1:2/0/64", BODY[:150])).request.payload == BODY[:150]


def test_block_that_contradicts_what_came_is_refused_unless_it_started_again() -> None:
    bench = Bench()
    for number in range(3):
        bench.continues(part(f"1:{number}/1/64"))
    incomplete = (Code.REQUEST_ENTITY_INCOMPLETE, "block missing before this one")
    bench.refuses(part("1:1/1/64", REPRESENTATION), *incomplete)
    bench.refuses(part("1:1/0/64", BODY[:100]), *incomplete)
    bench.continues(part("1:0/1/64"))  # Comes twice...
    bench.refuses(part("1:2/1/64", REPRESENTATION), *incomplete)
    bench.continues(part("1:3/1/64"))  # ...and no more: it goes on at the end.
    bench.refuses(part("1:1/1/64", REPRESENTATION), *incomplete)
    assert bench.delivers(part("1:4/0/64")).request.payload == BODY


def test_last_block_that_comes_again_gets_the_answer_that_there_was() -> None:
    bench = Bench()
    bench.continues(part("1:0/1/256", code=Code.POST))
    last = part("1:1/0/256 2:0/0/128", code=Code.POST)
    delivered = bench.delivers(last)
    busy = bench.refuses(last, Code.SERVICE_UNAVAILABLE, "request not answered yet")
    assert busy.uint_option(OptionNumber.MAX_AGE) == 30
    answer = bench.respond(delivered, Message.response(Code.CHANGED, payload=REPRESENTATION))
    assert blocks_of(answer) == "1:1/0/256 2:0/1/64"
    assert bench.keeps(last) == answer
    other = part("1:1/0/256", REPRESENTATION, code=Code.POST)
    reason = "block missing before this one"
    bench.refuses(other, Code.REQUEST_ENTITY_INCOMPLETE, reason)
    # The same body once more is another operation.
    bench.continues(part("1:0/1/256", code=Code.POST))
    bench.delivers(last)


def test_last_block_that_comes_again_gets_the_size_that_its_answer_had() -> None:
    bench = Bench(block_size=64)
    bench.continues(part("1:0/1/256", code=Code.POST))
    last = part("1:1/0/256", code=Code.POST)
    delivered = bench.delivers(last)
    response = Message.response(Code.CHANGED, payload=REPRESENTATION)
    answer = bench.server.respond(delivered, response, now=bench.now, block_size=16)
    assert blocks_of(answer) == "1:1/0/256 2:0/1/16"
    assert bench.keeps(last) == answer


def test_block_of_a_response_that_is_not_there_yet_is_incomplete() -> None:
    bench = Bench()
    bench.continues(part("1:0/1/256", code=Code.POST))
    bench.delivers(part("1:1/0/256", code=Code.POST))
    question = get("2:1/0/64", code=Code.POST)
    bench.refuses(question, Code.REQUEST_ENTITY_INCOMPLETE, "response no longer kept")


@pytest.mark.parametrize("code", [Code.POST, Code.PUT])
def test_block_of_a_response_is_not_asked_for_with_the_request_s_blocks(code: Code) -> None:
    reason = "block of a response asked for with a block of the request"
    Bench().refuses(part("1:0/1/64 2:1/0/64", code=code), Code.BAD_REQUEST, reason)


def test_fetch_may_repeat_its_body_in_blocks_for_each_block_of_the_response() -> None:
    """As libcoap's client does."""
    bench = Bench()
    bench.continues(part("1:0/1/256", code=Code.FETCH))
    answer = bench.answers(part("1:1/0/256 2:2/0/64", code=Code.FETCH))
    assert blocks_of(answer) == "1:1/0/256 2:2/1/64"
    assert answer.payload == REPRESENTATION[128:192]


# Bounds of bodies


def test_body_that_is_announced_or_becomes_too_large_is_refused_with_the_bound() -> None:
    bench = Bench(body_size_max=256)
    too_large = (Code.REQUEST_ENTITY_TOO_LARGE, "body too large")
    announced = bench.refuses(part("1:0/1/64", BODY, size1(257)), *too_large)
    assert announced.uint_option(OptionNumber.SIZE1) == 256
    for number in range(4):
        bench.continues(part(f"1:{number}/1/64", BODY, size1(256)))
    reached = bench.refuses(part("1:4/0/64"), *too_large)
    assert reached.uint_option(OptionNumber.SIZE1) == 256
    at_once = Message.request(Code.PUT, "a", payload=body_of(257))
    bench.refuses(at_once, *too_large)
    bench.refuses(replace(at_once, options=in_order(get("2:0/0/64").options)), *too_large)
    far = Message.request(Code.PUT, "a", options=[Option(OptionNumber.BLOCK1, b"\xff\xff\xf6")])
    bench.refuses(far, *too_large)


def test_peer_s_stalest_body_gives_way_to_its_next() -> None:
    bench = Bench(bodies_of_peer_max=2)
    for path in ("a", "b"):
        bench.continues(part("1:0/1/64", path=path))
    bench.continues(part("1:1/1/64", path="a"))
    bench.continues(part("1:0/1/64", path="c"))
    assert bench.depth("bodies under way") == 2
    reason = "block missing before this one"
    bench.refuses(part("1:1/1/64", path="b"), Code.REQUEST_ENTITY_INCOMPLETE, reason)
    bench.continues(part("1:2/1/64", path="a"))
    assert bench.server.dropped["bodies that gave way"] == 1


def test_peer_s_octets_are_bounded_as_well() -> None:
    bench = Bench(body_octets_of_peer_max=192)
    bench.continues(part("1:0/1/64", path="b"))
    for number in range(2):
        bench.continues(part(f"1:{number}/1/64", path="a"))
    bench.continues(part("1:2/1/64", path="a"))
    assert bench.depth("octets of bodies") == 192
    assert bench.server.dropped["bodies that gave way"] == 1
    busy = (Code.SERVICE_UNAVAILABLE, "too many bodies under way")
    bench.refuses(part("1:3/1/64", path="a"), *busy)


@pytest.mark.parametrize("limits", [{"bodies_max": 2}, {"body_octets_max": 128}], ids=str)
def test_at_the_bound_of_all_only_idle_bodies_give_way(limits: dict[str, int]) -> None:
    bench = Bench(**limits)
    bench.continues(part("1:0/1/64"), "idle")
    bench.now += 5
    bench.continues(part("1:0/1/64"), "busy")
    busy = (Code.SERVICE_UNAVAILABLE, "too many bodies under way")
    answer = bench.refuses(part("1:0/1/64"), *busy, peer="late")
    assert answer.uint_option(OptionNumber.MAX_AGE) == Limits().busy_max_age
    bench.now += 5
    bench.continues(part("1:0/1/64"), "late")
    reason = "block missing before this one"
    bench.refuses(part("1:1/1/64"), Code.REQUEST_ENTITY_INCOMPLETE, reason, peer="idle")
    assert bench.depth("bodies under way") == 2


def test_own_body_that_gives_way_makes_room_that_nobody_else_has_to() -> None:
    bench = Bench(bodies_max=3, bodies_of_peer_max=2)
    bench.continues(part("1:0/1/64"), "other")
    for path in "ab":
        bench.continues(part("1:0/1/64", path=path))
    bench.now += 20
    bench.continues(part("1:0/1/64", path="c"))
    bench.continues(part("1:1/1/64"), "other")
    assert bench.server.dropped["bodies that gave way"] == 1
    # Room for all and for a peer at once: the same body does not give way twice.
    tight = Bench(bodies_of_peer_max=2, body_octets_max=128)
    for path in "ab":
        tight.continues(part("1:0/1/64", path=path))
    tight.now += 20
    tight.continues(part("1:0/1/128", path="c"))
    assert tight.depth("octets of bodies") == 128


def test_one_noisy_peer_costs_the_others_nothing() -> None:
    bench = Bench(bodies_max=8)
    for number in range(4):
        bench.continues(part("1:0/1/64"), f"peer {number}")
    for number in range(1000):
        bench.now += 0.1
        bench.continues(part("1:0/1/64", path=f"noise/{number}"), "noisy")
    for number in range(4):
        bench.continues(part("1:1/1/64"), f"peer {number}")
    assert bench.depth("bodies under way") == 8


def test_body_is_forgotten_after_its_lifetime_and_not_before() -> None:
    bench = Bench()
    bench.continues(part("1:0/1/64"))
    bench.now += 246
    bench.continues(part("1:1/1/64"))
    bench.now += 246
    bench.continues(part("1:2/1/64"))
    due = bench.server.next_timer()
    assert due == bench.now + 247
    bench.server.handle_timer(now=due - 0.001)
    assert bench.depth("bodies under way") == 1
    bench.server.handle_timer(now=due)
    assert bench.server.next_timer() is None
    assert bench.depth("octets of bodies") == 0
    assert bench.server.dropped["bodies that expired"] == 1


def test_expired_body_is_not_gone_on_with_though_the_timer_is_late() -> None:
    bench = Bench()
    bench.continues(part("1:0/1/64"))
    bench.now += 247
    reason = "block missing before this one"
    assert isinstance(bench.hear(part("1:1/1/64")), Message)
    assert bench.server.refused == {reason: 1}


# Blocks of responses


def test_response_is_sliced_with_a_tag_of_its_content_and_kept_for_its_further_blocks() -> None:
    bench = Bench()
    first = bench.answers(get())
    assert (blocks_of(first), first.payload) == ("2:0/1/64", REPRESENTATION[:64])
    etag = first.option(OptionNumber.ETAG)
    assert etag == etag_of(PAGE)
    assert etag is not None
    assert len(etag) == 8
    third = bench.keeps(get("2:2/0/64"))
    assert (blocks_of(third), third.payload) == ("2:2/1/64", REPRESENTATION[128:192])
    assert third.option(OptionNumber.ETAG) == etag
    last = bench.keeps(get("2:4/0/64"))
    assert (blocks_of(last), last.payload) == ("2:4/0/64", REPRESENTATION[256:])


def test_tag_of_the_resource_s_own_is_left_as_it_is() -> None:
    bench = Bench()
    own = Message.response(Code.CONTENT, payload=BODY, options=[Option(OptionNumber.ETAG, b"v7")])
    assert bench.answers(get(), own).option_values(OptionNumber.ETAG) == [b"v7"]


def test_other_content_or_format_has_another_tag() -> None:
    responses = [
        Message.response(Code.CONTENT, payload=payload, content_format=content_format)
        for payload in (b"", b"a", b"b", b"\x3c")
        for content_format in (None, 0, 60)
    ]
    assert len({etag_of(response) for response in responses}) == len(responses)


def test_size_that_is_asked_for_is_kept_to_and_a_smaller_one_in_the_middle_as_well() -> None:
    bench = Bench()
    assert blocks_of(bench.answers(get("2:0/0/16"))) == "2:0/1/16"
    assert blocks_of(bench.keeps(get("2:1/0/16"))) == "2:1/1/16"
    smaller = bench.keeps(get("2:3/0/32"))
    assert (blocks_of(smaller), smaller.payload) == ("2:3/1/32", REPRESENTATION[96:128])
    larger = bench.keeps(get("2:1/0/128"))
    assert (blocks_of(larger), larger.payload) == ("2:2/1/64", REPRESENTATION[128:192])


def test_more_bit_of_a_question_is_ignored() -> None:
    bench = Bench()
    assert blocks_of(bench.answers(get("2:0/1/32"))) == "2:0/1/32"
    assert blocks_of(bench.keeps(get("2:9/1/32"))) == "2:9/0/32"


def test_block_size_of_a_peer_takes_the_place_of_the_server_s() -> None:
    bench = Bench(block_size=1024)
    delivered = bench.delivers(get())
    first = bench.server.respond(delivered, PAGE, now=bench.now, block_size=16)
    assert blocks_of(first) == "2:0/1/16"
    further = bench.server.receive("p", get("2:1/0/64"), now=bench.now, block_size=32)
    assert isinstance(further, Message)
    assert blocks_of(further) == "2:2/1/32"
    answer = bench.server.receive("p", part("1:0/1/256"), now=bench.now, block_size=32)
    assert isinstance(answer, Message)
    assert blocks_of(answer) == "1:0/1/32"


def test_size_is_told_where_it_is_asked_for_with_the_first_block() -> None:
    bench = Bench()
    asks_size = Option(OptionNumber.SIZE2, b"")
    first = bench.answers(get("", asks_size))
    assert first.uint_option(OptionNumber.SIZE2) == 300
    assert bench.answers(get("2:0/0/32", asks_size)).uint_option(OptionNumber.SIZE2) == 300
    assert bench.keeps(get("2:1/0/32")).option(OptionNumber.SIZE2) is None
    bench.continues(part("1:0/1/256", BODY, asks_size, code=Code.POST))
    both = bench.answers(part("1:1/0/256", code=Code.POST))
    assert both.uint_option(OptionNumber.SIZE2) == 300


def test_small_response_has_the_option_where_it_was_asked_for() -> None:
    bench = Bench()
    small = Message.response(Code.CONTENT, payload=b"x")
    assert blocks_of(bench.answers(get("2:0/0/64"), small)) == "2:0/0/64"
    assert bench.answers(get("2:0/0/64"), DONE) is DONE
    assert bench.depth("responses kept") == 0


def test_block_beyond_the_end_is_a_bad_request() -> None:
    bench = Bench()
    bench.answers(get())
    beyond = (Code.BAD_REQUEST, "block beyond the end")
    bench.refuses(get("2:5/0/64"), *beyond)
    assert blocks_of(bench.keeps(get("2:4/0/64"))) == "2:4/0/64"
    asked_anew = bench.answers(get("2:5/0/64", path="b"), PAGE)
    assert asked_anew.code == Code.BAD_REQUEST
    assert bench.server.refused["block beyond the end"] == 2


def test_error_answers_a_further_block_as_it_is() -> None:
    bench = Bench()
    gone = Message.response(Code.NOT_FOUND, payload=b"gone")
    assert bench.answers(get("2:3/0/64"), gone) is gone
    long = Message.response(Code.NOT_FOUND, payload=BODY)
    answer = bench.answers(get("2:9/0/64"), long)
    assert (answer.code, blocks_of(answer)) == (Code.NOT_FOUND, "2:0/1/64")


@pytest.mark.parametrize("code", [Code.POST, Code.GET])
def test_long_error_is_told_in_blocks_from_its_first_to_its_last(code: Code) -> None:
    bench = Bench()
    error = Message.response(Code.UNPROCESSABLE_ENTITY, payload=BODY)
    transfer = Transfer(Message.request(code, "a", payload=BODY))
    step: Message | Complete = transfer.first()
    while isinstance(step, Message):
        answer = bench.hear(step)
        step = transfer.receive(
            bench.respond(answer, error) if isinstance(answer, Delivered) else answer
        )
    assert (step.response.code, step.response.payload) == (error.code, BODY)


def test_first_block_is_always_asked_of_the_resource() -> None:
    bench = Bench()
    bench.answers(get())
    other = Message.response(Code.CONTENT, payload=BODY)
    assert bench.answers(get("2:0/0/64"), other).payload == BODY[:64]
    assert bench.keeps(get("2:1/0/64")).payload == BODY[64:128]


@pytest.mark.parametrize("code", [Code.GET, Code.FETCH])
def test_block_of_what_is_not_kept_is_asked_of_the_resource_again(code: Code) -> None:
    bench = Bench()
    question = replace(get("2:2/0/64", code=code), payload=b"" if code == Code.GET else b"what")
    delivered = bench.delivers(question)
    assert delivered.request == replace(get(code=code), payload=question.payload)
    answer = bench.respond(delivered, PAGE)
    assert (blocks_of(answer), answer.payload) == ("2:2/1/64", REPRESENTATION[128:192])


@pytest.mark.parametrize("code", [Code.POST, Code.PUT, Code.DELETE, Code.FETCH, Code.IPATCH])
def test_block_of_what_is_not_kept_and_cannot_be_asked_again_is_incomplete(code: Code) -> None:
    reason = "response no longer kept"
    Bench().refuses(get("2:1/0/64", code=code), Code.REQUEST_ENTITY_INCOMPLETE, reason)


def test_fetch_is_told_apart_by_its_payload() -> None:
    bench = Bench()
    fetch = Message.request(Code.FETCH, "a", payload=b"one")
    bench.answers(fetch)
    further = replace(fetch, options=get("2:1/0/64").options)
    assert bench.keeps(further).payload == REPRESENTATION[64:128]
    # One that leaves the payload out is meant for what was asked last, as aiocoap's client does.
    assert bench.keeps(replace(further, payload=b"")).payload == REPRESENTATION[64:128]
    bench.delivers(replace(further, payload=b"two"))


def test_further_blocks_of_a_notification_are_no_notifications() -> None:
    bench = Bench()
    registration = get("", Option(OptionNumber.OBSERVE, b""))
    notification = Message.response(
        Code.CONTENT, payload=BODY, options=[Option(OptionNumber.OBSERVE, b"\x05")]
    )
    assert bench.answers(registration, notification).option(OptionNumber.OBSERVE) == b"\x05"
    assert bench.keeps(get("2:1/0/64")).option(OptionNumber.OBSERVE) is None


def test_response_is_kept_for_its_lifetime_after_it_was_last_asked_for() -> None:
    bench = Bench()
    bench.answers(get())
    bench.now += 246
    bench.keeps(get("2:1/0/64"))
    bench.now += 246
    bench.keeps(get("2:2/0/64"))
    assert bench.server.next_timer() == bench.now + 247
    bench.now += 247
    bench.delivers(get("2:3/0/64"))
    assert bench.server.next_timer() is None


def test_response_that_became_small_or_has_no_room_leaves_nothing_of_the_one_before() -> None:
    bench = Bench(response_octets_of_peer_max=300)
    small = Message.response(Code.CONTENT, payload=b"x")
    large = Message.response(Code.CONTENT, payload=bytes(301))
    for later in (small, large):
        bench.answers(get())
        bench.keeps(get("2:1/0/64"))
        bench.answers(get("2:0/0/64"), later)
        bench.delivers(get("2:1/0/64"))
    assert bench.depth("octets of responses") == 0


def test_response_of_another_peer_is_never_served() -> None:
    bench = Bench()
    bench.answers(get(), peer="p")
    assert bench.delivers(get("2:1/0/64"), peer="q")


def test_peer_s_stalest_response_gives_way_to_its_next_and_nobody_else_s() -> None:
    bench = Bench(responses_of_peer_max=2)
    bench.answers(get(), peer="other")
    for path in ("a", "b", "a", "c"):
        bench.answers(get(path=path))
    bench.keeps(get("2:1/0/64", path="a"))
    bench.delivers(get("2:1/0/64", path="b"))
    bench.keeps(get("2:1/0/64", path="c"))
    bench.keeps(get("2:1/0/64"), peer="other")
    bench.keeps(get("2:1/0/64", path="a"))
    bench.answers(get(path="d"))
    bench.keeps(get("2:1/0/64", path="a"))
    for number in range(100):
        bench.answers(get(path=f"noise/{number}"))
    bench.keeps(get("2:1/0/64"), peer="other")


@pytest.mark.parametrize("limits", [{"responses_max": 3}, {"response_octets_max": 900}], ids=str)
def test_at_the_bound_of_all_the_stalest_response_gives_way(limits: dict[str, int]) -> None:
    bench = Bench(**limits)
    for peer in "pqr":
        bench.answers(get(), peer=peer)
    bench.keeps(get("2:1/0/64"), peer="p")
    bench.answers(get(), peer="s")
    bench.keeps(get("2:1/0/64"), peer="p")
    bench.delivers(get("2:1/0/64"), peer="q")
    assert bench.depth("responses kept") == 3
    assert bench.depth("octets of responses") == 900


@pytest.mark.parametrize(
    "limits",
    [{"response_octets_of_peer_max": 299}, {"responses_max": 0}, {"responses_of_peer_max": 0}],
    ids=str,
)
def test_response_without_room_is_sliced_all_the_same(limits: dict[str, int]) -> None:
    bench = Bench(**limits)
    assert blocks_of(bench.answers(get())) == "2:0/1/64"
    assert bench.depth("responses kept") == 0
    assert bench.answers(get("2:4/0/64")).payload == REPRESENTATION[256:]


def test_what_a_resource_may_not_answer_blames_it_and_changes_nothing() -> None:
    bench = Bench()
    delivered = bench.delivers(get())
    for wrong in (
        get(),
        Message.response(Code.CONTENT, payload=BODY, options=block_options("2:0/1/64")),
        Message.response(Code.CONTENT, options=block_options("1:0/1/64")),
        Message(0x30, payload=BODY),
    ):
        if wrong.payload or wrong.options[-1].number >= OptionNumber.BLOCK2:
            with pytest.raises(LocalProtocolError):
                bench.respond(delivered, wrong)
    with pytest.raises(LocalProtocolError, match="expected one of"):
        bench.server.respond(delivered, PAGE, now=bench.now, block_size=65)
    with pytest.raises(LocalProtocolError):
        BlockServer(block_size=0)
    huge = Message.response(Code.CONTENT, payload=bytes((1 << 24) + 1))
    with pytest.raises(LocalProtocolError, match="in blocks of 16"):
        bench.server.respond(delivered, huge, now=bench.now, block_size=16)
    assert bench.depth("responses kept") == 0
    assert blocks_of(bench.respond(delivered, PAGE)) == "2:0/1/64"


def test_peer_whose_session_ends_is_forgotten() -> None:
    bench = Bench()
    for peer in "pq":
        bench.continues(part("1:0/1/64"), peer)
        bench.answers(get(), peer=peer)
    bench.server.forget("p")
    bench.server.forget("p")
    bench.delivers(get("2:1/0/64"), peer="p")
    bench.keeps(get("2:1/0/64"), peer="q")
    bench.continues(part("1:1/1/64"), "q")
    assert bench.depth("bodies under way") == 1
    assert bench.depth("responses kept") == 1


# Whatever comes in

peers = st.sampled_from(["p", "q", "r", "s"])
block_values = st.one_of(
    st.builds(
        lambda number, has_more, size: BlockOption(number, has_more, size).encode(),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from([16, 32, 64]),
    ),
    st.binary(max_size=4),
)
odd_requests = st.builds(
    lambda code, path, blocks, payload: Message.request(
        code, path, payload=payload, options=blocks
    ),
    st.sampled_from([Code.GET, Code.PUT, Code.POST, Code.FETCH, 0x1F]),
    st.sampled_from(["a", "b"]),
    st.lists(
        st.builds(
            Option,
            st.sampled_from(
                [
                    OptionNumber.BLOCK1,
                    OptionNumber.BLOCK1,
                    OptionNumber.BLOCK2,
                    OptionNumber.SIZE1,
                    OptionNumber.REQUEST_TAG,
                ]
            ),
            block_values,
        ),
        max_size=3,
    ),
    st.sampled_from([b"", b"x" * 16, b"y" * 16, b"x" * 32, b"x" * 64, b"x" * 20, b"x" * 300]),
)
LITTLE = Limits(
    body_size_max=256,
    bodies_max=3,
    bodies_of_peer_max=2,
    body_octets_max=300,
    body_octets_of_peer_max=200,
    responses_max=3,
    responses_of_peer_max=2,
    response_octets_max=700,
    response_octets_of_peer_max=500,
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(peers, odd_requests, st.sampled_from([0.0, 1.0, 20.0, 300.0]), st.booleans()),
        max_size=40,
    )
)
def test_odd_requests_raise_nothing_and_every_table_keeps_its_bounds(
    heard: list[tuple[str, Message, float, bool]],
) -> None:
    server = BlockServer(limits=LITTLE, block_size=32)
    now = 0.0
    for peer, request, passed, is_answered in heard:
        now += passed
        answer = server.receive(peer, request, now=now)
        if isinstance(answer, Delivered):
            assert len(answer.request.payload) <= LITTLE.body_size_max
            if not is_answered:
                continue
            response = Message.response(Code.CONTENT, payload=answer.request.payload * 2)
            answer = server.respond(answer, response, now=now)
        assert len(answer.payload) <= 64
        answer.encode()
        check_tables(server)
    server.handle_timer(now=now + LITTLE.lifetime)
    assert server.next_timer() is None
    assert all(depth == 0 for depth, _ in server.depths.values())


def check_tables(server: BlockServer) -> None:
    """The bounds of `LITTLE`, seen from inside: also the shares of peers, and the sums."""
    for depth, bound in server.depths.values():
        assert depth <= bound
    for shelf in (server._bodies, server._responses):
        assert shelf.octets == sum(place.octets for place in shelf._places.values())
        of_peers = [key for keys in shelf._of_peer.values() for key in keys]
        assert sorted(map(repr, of_peers)) == sorted(map(repr, shelf._places))
        for places in shelf._of_peer.values():
            assert 0 < len(places) <= shelf.bounds.count_of_peer_max
            assert sum(one.octets for one in places.values()) <= shelf.bounds.octets_of_peer_max
        touched = [place.touched for place in shelf._places.values()]
        assert touched == sorted(touched)
    for key, place in server._bodies._places.items():
        assert place.octets == len(place.thing.octets) > 0, key


def test_client_learns_the_bound_and_stops() -> None:
    """The two machines agree on what too large means."""
    bench = Bench(body_size_max=256)
    transfer = Transfer(Message.request(Code.PUT, "a", payload=BODY), block_size=64)
    answer = bench.hear(transfer.first())
    assert isinstance(answer, Message)
    outcome = transfer.receive(answer)
    assert isinstance(outcome, Complete)
    assert outcome.response.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert read_uint(outcome.response.option(OptionNumber.SIZE1) or b"") == 256
