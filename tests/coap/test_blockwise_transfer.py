"""The client of a block-wise transfer: what it asks next, when it starts again, when it gives up.

The contract under test: a transfer ends in the complete response or in a CoapError with a reason
from a short list, within a bounded number of rounds and octets, whatever a server answers; it
starts again at most as often as it says; it takes and gives back its Request-Tag.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import (
    BLOCK_SIZES,
    BlockOption,
    Complete,
    RequestTags,
    Transfer,
    find_block,
    is_whole,
)
from amistack.coap.codes import Code
from amistack.coap.message import Message, in_order
from amistack.coap.observe import REGISTER, observe_of, with_observe
from amistack.coap.options import Option, OptionNumber, uint_value
from amistack.errors import CoapError, LocalProtocolError, TableFull
from tests.coap.test_blockwise import block_options, blocks_of, body_of

GET = Message.request(Code.GET, "a")
POST = Message.request(Code.POST, "a", payload=body_of(300))
FETCH = Message.request(Code.FETCH, "a", payload=body_of(300))
SMALL = 64
REASONS = {
    "bad option",
    "block of another size",
    "block out of turn",
    "body too large",
    "continue after the last block",
    "representation changed",
    "reserved block size",
    "rest of the response refused",
    "too many blocks",
}


def response(
    code: int,
    blocks: str = "",
    payload: bytes = b"",
    *more: Option,
    etag: bytes | None = None,
) -> Message:
    options = [*block_options(blocks), *more]
    if etag is not None:
        options.append(Option(OptionNumber.ETAG, etag))
    return Message.response(code, payload=payload, options=options)


def size1(octets: int) -> Option:
    return Option(OptionNumber.SIZE1, uint_value(octets))


def tag_of_message(message: Message) -> bytes | None:
    return message.option(OptionNumber.REQUEST_TAG)


def asked(step: Message | Complete) -> Message:
    assert isinstance(step, Message), "complete, and another request was expected"
    return step


def told(step: Message | Complete) -> Message:
    assert isinstance(step, Complete), "another request, and the response was expected"
    return step.response


def fails(transfer: Transfer, answer: Message, reason: str) -> None:
    with pytest.raises(CoapError) as caught:
        transfer.receive(answer)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert transfer.is_over
    with pytest.raises(LocalProtocolError):
        transfer.receive(answer)


def collecting(code: int = Code.CONTENT, request: Message = GET) -> Transfer:
    """A transfer whose first response block is here: 64 octets, more to come."""
    transfer = Transfer(request)
    transfer.first()
    step = transfer.receive(response(code, "2:0/1/64", body_of(64), etag=b"1"))
    assert blocks_of(asked(step)) == "2:1/0/64"
    return transfer


# Small ones


def test_small_request_and_response_pass_untouched() -> None:
    transfer = Transfer(POST)
    assert transfer.first() is POST
    answer = response(Code.CHANGED, payload=b"done")
    assert told(transfer.receive(answer)) is answer


def test_transfer_may_begin_with_the_response_to_a_request_that_went_as_it_was() -> None:
    whole = response(Code.CONTENT, payload=b"x", etag=b"1")
    assert is_whole(whole)
    assert is_whole(response(Code.NOT_FOUND))
    in_blocks = response(Code.CONTENT, "2:0/1/64", body_of(64))
    assert not is_whole(in_blocks)
    assert blocks_of(asked(Transfer(GET).receive(in_blocks))) == "2:1/0/64"
    too_large = response(Code.REQUEST_ENTITY_TOO_LARGE)
    assert not is_whole(too_large)
    assert blocks_of(asked(Transfer(POST).receive(too_large))) == "1:0/1/256"
    transfer = Transfer(GET)
    transfer.receive(whole)
    with pytest.raises(LocalProtocolError):
        transfer.first()


@pytest.mark.parametrize("number", [1, 2])
def test_single_block_loses_its_option_only(number: int) -> None:
    transfer = Transfer(GET)
    transfer.first()
    answer = response(Code.CONTENT, f"{number}:0/0/64", b"x", etag=b"1")
    assert told(transfer.receive(answer)) == response(Code.CONTENT, payload=b"x", etag=b"1")


def test_body_of_exactly_one_block_is_not_sliced() -> None:
    request = Message.request(Code.PUT, "a", payload=body_of(SMALL))
    assert Transfer(request, block_size=SMALL).first() is request


@pytest.mark.parametrize(
    "number",
    [OptionNumber.BLOCK1, OptionNumber.BLOCK2, OptionNumber.SIZE1, OptionNumber.REQUEST_TAG],
)
def test_option_of_the_machine_s_own_is_refused_in_a_request(number: OptionNumber) -> None:
    with pytest.raises(LocalProtocolError, match="this machine's"):
        Transfer(Message.request(Code.GET, "a", options=[Option(number, b"")]))


def test_wrong_settings_and_commands_blame_the_caller() -> None:
    with pytest.raises(LocalProtocolError):
        Transfer(Message.response(Code.CONTENT))
    with pytest.raises(LocalProtocolError):
        Transfer(GET, block_size=100)
    with pytest.raises(LocalProtocolError):
        Transfer(GET, response_size=2048)
    with pytest.raises(LocalProtocolError):
        Transfer(POST, body_size_max=299)
    with pytest.raises(LocalProtocolError):
        Transfer(GET, body_size_max=1 << 30)
    transfer = Transfer(GET)
    transfer.first()
    with pytest.raises(LocalProtocolError):
        transfer.first()
    with pytest.raises(LocalProtocolError):
        transfer.receive(GET)
    assert told(transfer.receive(response(Code.CONTENT))).code == Code.CONTENT


# The request's blocks


def test_first_block_says_the_size_of_the_body_and_the_others_do_not() -> None:
    transfer = Transfer(POST, block_size=128)
    first = transfer.first()
    assert first.uint_option(OptionNumber.SIZE1) == 300
    second = asked(transfer.receive(response(Code.CONTINUE, "1:0/1/128")))
    assert second.option(OptionNumber.SIZE1) is None
    assert second.options == in_order(second.options)


def test_if_none_match_stands_in_the_first_block_only() -> None:
    condition = Option(OptionNumber.IF_NONE_MATCH, b"")
    request = Message.request(Code.PUT, "a", payload=body_of(200), options=[condition])
    transfer = Transfer(request, block_size=128)
    assert condition in transfer.first().options
    second = asked(transfer.receive(response(Code.CONTINUE, "1:0/1/128")))
    assert condition not in second.options
    further = asked(transfer.receive(response(Code.CHANGED, "1:1/0/128 2:0/1/16", body_of(16))))
    assert condition not in further.options


def test_smaller_size_in_the_middle_is_followed_and_the_number_counted_anew() -> None:
    transfer = Transfer(POST, block_size=128)
    transfer.first()
    transfer.receive(response(Code.CONTINUE, "1:0/1/128"))
    third = asked(transfer.receive(response(Code.CONTINUE, "1:1/1/32")))
    assert blocks_of(third) == "1:8/1/32"
    assert third.payload == POST.payload[256:288]
    last = asked(transfer.receive(response(Code.CONTINUE, "1:8/1/1024")))
    assert blocks_of(last) == "1:9/0/32", "a larger size is not gone back to"


def test_continue_without_block1_acknowledges_what_was_sent() -> None:
    transfer = Transfer(POST, block_size=128)
    transfer.first()
    assert blocks_of(asked(transfer.receive(response(Code.CONTINUE)))) == "1:1/1/128"


def test_acknowledgement_of_another_block_fails() -> None:
    transfer = Transfer(POST, block_size=128)
    transfer.first()
    fails(transfer, response(Code.CONTINUE, "1:1/1/128"), "block out of turn")


def test_continue_after_the_last_block_fails() -> None:
    transfer = Transfer(POST, block_size=256)
    transfer.first()
    transfer.receive(response(Code.CONTINUE, "1:0/1/256"))
    fails(transfer, response(Code.CONTINUE, "1:1/1/256"), "continue after the last block")
    whole = Transfer(GET)
    whole.first()
    fails(whole, response(Code.CONTINUE), "continue after the last block")


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.SERVICE_UNAVAILABLE, Code.BAD_OPTION])
def test_error_for_any_block_is_the_response(code: Code) -> None:
    transfer = Transfer(POST, block_size=128)
    transfer.first()
    transfer.receive(response(Code.CONTINUE, "1:0/1/128"))
    assert told(transfer.receive(response(code, payload=b"no"))) == response(code, payload=b"no")


def test_success_without_block1_before_the_last_block_is_the_response() -> None:
    transfer = Transfer(POST, block_size=128)
    transfer.first()
    assert told(transfer.receive(response(Code.VALID))).code == Code.VALID


def test_incomplete_starts_again_once_with_another_tag() -> None:
    tags = RequestTags()
    transfer = Transfer(POST, peer="p", tags=tags, block_size=128)
    first = transfer.first()
    assert tag_of_message(first) is None
    transfer.receive(response(Code.CONTINUE, "1:0/1/128"))
    again = asked(transfer.receive(response(Code.REQUEST_ENTITY_INCOMPLETE)))
    assert blocks_of(again) == "1:0/1/128"
    assert tag_of_message(again) == b""
    second = asked(transfer.receive(response(Code.CONTINUE, "1:0/1/128")))
    assert tag_of_message(second) == b""
    outcome = told(transfer.receive(response(Code.REQUEST_ENTITY_INCOMPLETE)))
    assert outcome.code == Code.REQUEST_ENTITY_INCOMPLETE
    assert len(tags) == 0


def test_too_large_with_a_smaller_block_starts_again_with_it() -> None:
    transfer = Transfer(POST, block_size=256)
    transfer.first()
    hint = response(Code.REQUEST_ENTITY_TOO_LARGE, "1:0/1/64")
    again = asked(transfer.receive(hint))
    assert (blocks_of(again), again.payload) == ("1:0/1/64", POST.payload[:64])
    assert told(transfer.receive(hint)).code == Code.REQUEST_ENTITY_TOO_LARGE


def test_too_large_with_a_size_below_the_body_is_the_response() -> None:
    for request_size in (128, 1024):
        transfer = Transfer(POST, block_size=request_size)
        transfer.first()
        answer = response(Code.REQUEST_ENTITY_TOO_LARGE, "1:0/1/16", b"", size1(299))
        outcome = told(transfer.receive(answer))
        assert outcome == response(Code.REQUEST_ENTITY_TOO_LARGE, "", b"", size1(299))


@pytest.mark.parametrize(
    ("blocks", "first"), [("", "1:0/1/256"), ("1:0/0/32", "1:0/1/32"), ("2:0/0/64", "1:0/1/256")]
)
def test_too_large_for_a_whole_body_is_a_hint_to_try_blocks(blocks: str, first: str) -> None:
    tags = RequestTags()
    transfer = Transfer(POST, tags=tags)
    assert transfer.first() is POST
    again = asked(transfer.receive(response(Code.REQUEST_ENTITY_TOO_LARGE, blocks)))
    assert blocks_of(again) == first
    assert len(tags) == 1
    outcome = told(transfer.receive(response(Code.REQUEST_ENTITY_TOO_LARGE)))
    assert outcome.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert len(tags) == 0


def test_too_large_is_the_response_where_blocks_cannot_help() -> None:
    for request in (GET, Message.request(Code.PUT, "a", payload=b"x" * 16)):
        transfer = Transfer(request)
        transfer.first()
        answer = response(Code.REQUEST_ENTITY_TOO_LARGE)
        assert told(transfer.receive(answer)) == answer
    full = RequestTags(count_max=0)
    transfer = Transfer(POST, tags=full)
    transfer.first()
    assert told(transfer.receive(answer)) == answer


# The response's blocks


def test_further_blocks_are_asked_for_with_the_same_options_and_without_payload() -> None:
    options = [
        Option(OptionNumber.OBSERVE, b""),
        Option(OptionNumber.ETAG, b"old"),
        Option(OptionNumber.SIZE2, b""),
        Option(OptionNumber.ACCEPT, b"\x3c"),
    ]
    request = Message.request(Code.POST, "a/b", payload=b"x", options=options)
    transfer = Transfer(request)
    transfer.first()
    further = asked(transfer.receive(response(Code.CHANGED, "2:0/1/64", body_of(64))))
    assert further == Message.request(
        Code.POST, "a/b", options=[options[1], options[3], *block_options("2:1/0/64")]
    )


def test_fetch_repeats_its_payload_with_every_question() -> None:
    transfer = Transfer(FETCH)
    transfer.first()
    further = asked(transfer.receive(response(Code.CONTENT, "2:0/1/64", body_of(64))))
    assert further.payload == FETCH.payload


def test_after_a_request_in_blocks_the_questions_have_its_tag_and_no_payload() -> None:
    tags = RequestTags()
    tags.take("p", FETCH)
    transfer = Transfer(FETCH, peer="p", tags=tags, block_size=256)
    assert tag_of_message(transfer.first()) == b""
    transfer.receive(response(Code.CONTINUE, "1:0/1/256"))
    further = asked(transfer.receive(response(Code.CONTENT, "1:1/0/256 2:0/1/64", body_of(64))))
    assert (tag_of_message(further), further.payload) == (b"", b"")
    assert blocks_of(further) == "2:1/0/64"


def test_complete_response_has_options_of_the_first_block_and_freshness_of_the_last() -> None:
    def fresh_for(seconds: int) -> Option:
        return Option(OptionNumber.MAX_AGE, uint_value(seconds))

    location = Option(OptionNumber.LOCATION_PATH, b"there")
    transfer = Transfer(GET)
    transfer.first()
    size2 = Option(OptionNumber.SIZE2, uint_value(80))
    transfer.receive(
        response(Code.CREATED, "2:0/1/64", body_of(80)[:64], location, size2, fresh_for(60))
    )
    last = response(Code.CREATED, "2:1/0/64", body_of(80)[64:], fresh_for(5))
    outcome = told(transfer.receive(last))
    assert outcome == response(Code.CREATED, "", body_of(80), location, fresh_for(5))


@pytest.mark.parametrize(
    ("blocks", "octets", "reason"),
    [
        ("2:1/1/64", 63, "block of another size"),
        ("2:1/1/64", 65, "block of another size"),
        ("2:1/0/64", 65, "block of another size"),
        ("2:0/1/64", 64, "block out of turn"),
        ("2:2/1/64", 64, "block out of turn"),
        ("2:2/1/16", 16, "block out of turn"),
        ("2:1/1/128", 128, "block out of turn"),
        ("2:1/1/64 2:1/1/64", 64, "bad option"),
    ],
)
def test_further_block_that_does_not_fit_fails(blocks: str, octets: int, reason: str) -> None:
    fails(collecting(), response(Code.CONTENT, blocks, body_of(octets), etag=b"1"), reason)


def test_smaller_blocks_than_asked_for_are_gone_on_with() -> None:
    transfer = collecting()
    step = transfer.receive(response(Code.CONTENT, "2:4/1/16", b"x" * 16, etag=b"1"))
    assert blocks_of(asked(step)) == "2:5/0/16"
    outcome = told(transfer.receive(response(Code.CONTENT, "2:5/0/16", b"", etag=b"1")))
    assert outcome.payload == body_of(64) + b"x" * 16


def test_larger_blocks_than_asked_for_fail() -> None:
    transfer = Transfer(GET, response_size=64, is_early=True)
    assert blocks_of(transfer.first()) == "2:0/0/64"
    answer = response(Code.CONTENT, "2:0/1/128", body_of(128))
    fails(transfer, answer, "block of another size")


def test_reserved_size_fails() -> None:
    transfer = Transfer(GET)
    transfer.first()
    answer = response(Code.CONTENT, "", b"x", Option(OptionNumber.BLOCK2, b"\x0f"))
    fails(transfer, answer, "reserved block size")


@pytest.mark.parametrize(
    "other",
    [
        response(Code.CONTENT, "2:1/0/64", b"x", etag=b"2"),
        response(Code.CONTENT, "2:1/0/64", b"x"),
        response(Code.CONTENT, "", b"x", etag=b"1"),
        response(Code.VALID, "2:1/0/64", b"x", etag=b"1"),
        response(Code.REQUEST_ENTITY_INCOMPLETE),
        response(Code.BAD_REQUEST, payload=b"beyond the end"),
    ],
    ids=["etag", "no etag", "no block", "code", "forgotten", "beyond the end"],
)
def test_response_that_changed_is_fetched_once_more_and_then_fails(other: Message) -> None:
    transfer = collecting()
    again = asked(transfer.receive(other))
    assert blocks_of(again) == "2:0/0/1024"
    step = transfer.receive(response(Code.CONTENT, "2:0/1/16", b"y" * 16, etag=b"3"))
    assert blocks_of(asked(step)) == "2:1/0/16"
    if other.code < Code.BAD_REQUEST:
        fails(transfer, other, "representation changed")
    else:
        assert told(transfer.receive(other)) == other

    healed = collecting()
    healed.receive(other)
    assert told(healed.receive(response(Code.CONTENT, payload=b"new"))).payload == b"new"


def test_notification_that_is_fetched_again_does_not_register_again() -> None:
    transfer = Transfer(with_observe(GET, REGISTER))
    state = with_observe(response(Code.CONTENT, "2:0/1/64", body_of(64), etag=b"1"), 5)
    assert observe_of(asked(transfer.receive(state))) is None
    again = asked(transfer.receive(response(Code.CONTENT, "2:1/0/64", b"x", etag=b"2")))
    assert (blocks_of(again), observe_of(again)) == ("2:0/0/1024", None)
    assert again.path == GET.path


def test_fetch_in_blocks_that_is_fetched_again_starts_with_its_first_block() -> None:
    tags = RequestTags()
    transfer = Transfer(FETCH, tags=tags, block_size=256)
    transfer.first()
    transfer.receive(response(Code.CONTINUE, "1:0/1/256"))
    transfer.receive(response(Code.CONTENT, "1:1/0/256 2:0/1/64", body_of(64), etag=b"1"))
    again = asked(transfer.receive(response(Code.CONTENT, "2:1/0/64", b"x", etag=b"2")))
    assert (blocks_of(again), tag_of_message(again)) == ("1:0/1/256", b"")
    assert len(tags) == 1


def test_what_was_acted_on_is_not_asked_again() -> None:
    transfer = collecting(Code.CHANGED, POST)
    answer = response(Code.CHANGED, "2:1/0/64", b"x", etag=b"2")
    fails(transfer, answer, "representation changed")
    for code in (Code.REQUEST_ENTITY_INCOMPLETE, Code.BAD_REQUEST, Code.NOT_FOUND):
        fails(collecting(Code.CHANGED, POST), response(code), "rest of the response refused")


def test_error_in_place_of_a_further_block_is_the_response_to_a_safe_request() -> None:
    answer = response(Code.SERVICE_UNAVAILABLE, payload=b"later")
    assert told(collecting().receive(answer)) == answer


def test_error_that_is_long_comes_in_blocks_as_well() -> None:
    transfer = collecting(Code.NOT_FOUND, POST)
    last = response(Code.NOT_FOUND, "2:1/0/64", b"!", etag=b"1")
    assert told(transfer.receive(last)).payload == body_of(64) + b"!"


# Bounds


def test_body_over_the_bound_fails_as_soon_as_it_shows() -> None:
    told_before = Transfer(GET, body_size_max=100)
    told_before.first()
    size2 = Option(OptionNumber.SIZE2, uint_value(101))
    answer = response(Code.CONTENT, "2:0/1/64", body_of(64), size2)
    fails(told_before, answer, "body too large")

    collected = Transfer(GET, body_size_max=100)
    collected.first()
    collected.receive(response(Code.CONTENT, "2:0/1/64", body_of(64)))
    answer = response(Code.CONTENT, "2:1/0/64", body_of(37))
    fails(collected, answer, "body too large")

    at_once = Transfer(GET, body_size_max=100)
    at_once.first()
    fails(at_once, response(Code.CONTENT, payload=body_of(101)), "body too large")
    fitting = Transfer(GET, body_size_max=100)
    fitting.first()
    assert len(told(fitting.receive(response(Code.CONTENT, payload=body_of(100)))).payload) == 100


def test_too_many_rounds_fail() -> None:
    transfer = Transfer(GET, round_count_max=3)
    transfer.first()
    for number in range(3):
        transfer.receive(response(Code.CONTENT, f"2:{number}/1/16", b"x" * 16))
    fails(transfer, response(Code.CONTENT, "2:3/0/16", b"x"), "too many blocks")


def test_largest_bodies_in_the_smallest_blocks_are_within_the_bound_of_rounds() -> None:
    request = Message.request(Code.POST, "a", payload=body_of(65_536))
    transfer = Transfer(request, block_size=16)
    transfer.first()
    for number in range(4095):
        transfer.receive(response(Code.CONTINUE, f"1:{number}/1/16"))
    blocks = "1:4095/0/16 2:0/1/16"
    for number in range(1, 4096):
        transfer.receive(response(Code.CHANGED, blocks, b"x" * 16))
        blocks = f"2:{number}/{int(number < 4095)}/16"
    assert len(told(transfer.receive(response(Code.CHANGED, blocks, b"x" * 16))).payload) == 65_536


def test_server_that_never_ends_is_left_within_the_bound_of_octets() -> None:
    transfer = Transfer(GET)
    transfer.first()
    for number in range(4096):
        transfer.receive(response(Code.CONTENT, f"2:{number}/1/16", b"x" * 16))
    fails(transfer, response(Code.CONTENT, "2:4096/1/16", b"x" * 16), "body too large")


# Tags


def test_tag_is_given_back_when_the_transfer_ends_and_used_up_when_it_is_abandoned() -> None:
    tags = RequestTags()
    for _ in range(2):
        transfer = Transfer(POST, peer="p", tags=tags, block_size=128)
        assert tag_of_message(transfer.first()) is None
        told(transfer.receive(response(Code.NOT_FOUND)))
    lost = Transfer(POST, peer="p", tags=tags, block_size=128)
    assert tag_of_message(lost.first()) is None
    lost.abandon()
    lost.abandon()
    assert lost.is_over
    after = Transfer(POST, peer="p", tags=tags, block_size=128)
    assert tag_of_message(after.first()) == b""
    failed = Transfer(POST, peer="p", tags=tags, block_size=128)
    assert tag_of_message(failed.first()) == b"\0"
    fails(failed, response(Code.CONTINUE, "1:5/1/128"), "block out of turn")
    assert len(tags) == 1


def test_transfer_abandoned_before_its_start_uses_nothing_up() -> None:
    tags = RequestTags()
    Transfer(POST, tags=tags, block_size=128).abandon()
    assert tag_of_message(Transfer(POST, tags=tags, block_size=128).first()) is None


def test_no_tag_to_be_had_refuses_the_first_request_and_leaves_it_new() -> None:
    tags = RequestTags(count_max=1)
    lease = tags.take("p", POST)
    transfer = Transfer(POST, peer="p", tags=tags, block_size=128)
    with pytest.raises(TableFull):
        transfer.first()
    tags.release(lease, is_concluded=True)
    assert blocks_of(transfer.first()) == "1:0/1/128"


# Whatever a server answers

codes = st.sampled_from(
    [
        Code.CONTENT,
        Code.CHANGED,
        Code.CONTINUE,
        Code.BAD_REQUEST,
        Code.REQUEST_ENTITY_INCOMPLETE,
        Code.REQUEST_ENTITY_TOO_LARGE,
    ]
)
option_values = st.one_of(
    st.builds(
        lambda number, has_more, size: BlockOption(number, has_more, size).encode(),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from(BLOCK_SIZES[:4]),
    ),
    st.binary(max_size=4),
)
odd_options = st.lists(
    st.builds(
        Option,
        st.sampled_from(
            [
                OptionNumber.BLOCK1,
                OptionNumber.BLOCK2,
                OptionNumber.SIZE1,
                OptionNumber.SIZE2,
                OptionNumber.ETAG,
            ]
        ),
        option_values,
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([GET, POST, FETCH]),
    st.sampled_from([64, 1024]),
    st.lists(st.tuples(codes, odd_options, st.sampled_from([0, 1, 16, 32, 64])), max_size=30),
    st.data(),
)
def test_odd_answers_never_raise_anything_but_coap_error(
    request: Message,
    block_size: int,
    answers: list[tuple[Code, list[Option], int]],
    data: st.DataObject,
) -> None:
    tags = RequestTags()
    transfer = Transfer(request, tags=tags, block_size=block_size, body_size_max=512)
    step: Message | Complete = transfer.first()
    for code, odd, size in answers:
        assert isinstance(step, Message)
        step.addressed(type=step.type, message_id=0, token=b"").encode()
        options = odd
        if data.draw(st.booleans()):
            # As asked for, so that it goes on.
            options = [option for option in odd if option.number == OptionNumber.ETAG]
            for number in (OptionNumber.BLOCK1, OptionNumber.BLOCK2):
                if (block := find_block(step.options, number)) is not None:
                    has_more = number == OptionNumber.BLOCK1 or size == block.size
                    echo = BlockOption(block.number, has_more, block.size)
                    options.append(Option(number, echo.encode()))
        answer = Message.response(code, payload=body_of(size), options=options)
        try:
            step = transfer.receive(answer)
        except CoapError as error:
            assert error.reason in REASONS  # noqa: PT017
            assert transfer.is_over
            break
        if isinstance(step, Complete):
            assert len(step.response.payload) <= 512
            assert find_block(step.response.options, OptionNumber.BLOCK2) is None
            break
    assert transfer.is_over == (len(tags) == 0) or len(request.payload) <= block_size
    transfer.abandon()
    assert len(tags) == 0
