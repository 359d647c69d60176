"""Request-Tags: which one an operation gets, and when it may serve again.

The contract under test: no two operations that could be taken for one have the same tag, at one
time or after one of them that never ended; tags are as short as that allows, in the order of RFC
9175 appendix B; memory is bounded, and at its bound a tag gets longer but never serves twice.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import RequestTags, operation_key, tag_of
from amistack.coap.blockwise.request_tags import Lease
from amistack.coap.codes import Code
from amistack.coap.message import Message, encode_body
from amistack.coap.options import Option, OptionNumber
from amistack.errors import LocalProtocolError, TableFull

PUT = Message.request(Code.PUT, "a", payload=b"body")
POST = Message.request(Code.POST, "a", payload=b"body")


@pytest.mark.parametrize(
    ("place", "tag", "octets"),
    [
        # RFC 9175 appendix B: none at all, then an empty one (1 octet), then 256 of one octet (2).
        (0, None, 0),
        (1, b"", 1),
        (2, b"\x00", 2),
        (257, b"\xff", 2),
        (258, b"\x00\x00", 3),
        (258 + 65_535, b"\xff\xff", 3),
        (258 + 65_536, b"\x00\x00\x00", 4),
    ],
)
def test_tags_come_in_the_order_of_their_cost(place: int, tag: bytes | None, octets: int) -> None:
    assert tag_of(place) == tag
    # The option that comes before it in a message: the RFC counts what the tag adds.
    before = [Option(OptionNumber.REQUEST_TAG - 12, b"")]
    after = [] if tag is None else [Option(OptionNumber.REQUEST_TAG, tag)]
    assert len(encode_body(before + after, b"")) - len(encode_body(before, b"")) == octets


def test_last_tag_is_eight_octets_and_there_is_none_after_it() -> None:
    last = sum(1 << 8 * size for size in range(9))
    assert tag_of(last) == b"\xff" * 8
    with pytest.raises(LocalProtocolError):
        tag_of(last + 1)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_two_places_never_have_the_same_tag(one: int, other: int) -> None:
    assert (tag_of(one) == tag_of(other)) == (one == other)


def test_operations_one_after_the_other_need_no_tag() -> None:
    """RFC 9175 appendix B: what concluded is recycled indefinitely."""
    tags = RequestTags()
    for _ in range(1000):
        lease = tags.take("p", PUT)
        assert lease.tag is None
        tags.release(lease, is_concluded=True)


def test_only_what_could_be_confused_needs_a_tag() -> None:
    tags = RequestTags()
    for peer, request in (("p", PUT), ("p", POST), ("q", PUT)):
        assert tags.take(peer, request).tag is None
    first, second = tags.take("p", PUT), tags.take("p", PUT)
    assert (first.tag, second.tag) == (b"", b"\0")
    tags.release(first, is_concluded=True)
    assert tags.take("p", PUT).tag == b""


def test_tag_of_an_operation_that_never_ended_is_not_used_again_with_its_peer() -> None:
    tags = RequestTags()
    tags.release(tags.take("p", PUT), is_concluded=False)
    assert tags.take("p", PUT).tag == b""
    assert tags.take("p", POST).tag == b""
    assert tags.take("q", PUT).tag is None


def test_operation_that_ends_badly_first_or_last_keeps_the_later_tags_used_up() -> None:
    tags = RequestTags()
    first, second = tags.take("p", PUT), tags.take("p", PUT)
    tags.release(second, is_concluded=False)
    tags.release(first, is_concluded=False)
    assert tags.take("p", PUT).tag == b"\0"


def test_new_keys_make_every_tag_usable_again() -> None:
    tags = RequestTags()
    tags.release(tags.take("p", PUT), is_concluded=False)
    tags.forget("p")
    tags.forget("p")
    assert tags.take("p", PUT).tag is None


def test_without_replay_protection_no_tag_serves_twice() -> None:
    tags = RequestTags(can_recycle=False)
    seen = []
    for _ in range(300):
        lease = tags.take("p", PUT)
        seen.append(lease.tag)
        tags.release(lease, is_concluded=True)
    assert len(set(seen)) == 300
    assert max(len(tag or b"") for tag in seen) == 2


def test_renewed_tag_differs_from_the_one_before_it() -> None:
    tags = RequestTags()
    lease = tags.take("p", PUT)
    other = tags.take("p", PUT)
    renewed = tags.renew(lease)
    assert renewed.tag not in (lease.tag, other.tag)
    assert len(tags) == 2
    assert tags.take("p", PUT).tag == lease.tag


def test_tag_that_is_not_in_use_cannot_be_given_back() -> None:
    tags = RequestTags()
    lease = tags.take("p", PUT)
    tags.release(lease, is_concluded=True)
    for wrong in (lease, Lease(("q", operation_key(PUT)), 0)):
        with pytest.raises(LocalProtocolError):
            tags.release(wrong, is_concluded=True)
    assert len(tags) == 0


def test_more_operations_than_the_bound_are_refused() -> None:
    tags = RequestTags(count_max=2)
    leases = [tags.take("p", PUT), tags.take("q", PUT)]
    with pytest.raises(TableFull):
        tags.take("r", PUT)
    tags.release(leases[0], is_concluded=True)
    tags.take("r", PUT)


def test_peer_forgotten_at_the_bound_costs_everybody_an_octet_and_no_tag_serves_twice() -> None:
    tags = RequestTags(count_max=2)
    for peer in ("p", "q", "r"):
        tags.release(tags.take(peer, PUT), is_concluded=False)
    assert len(tags._used_up) == 2
    for peer in ("p", "q", "r", "s"):
        lease = tags.take(peer, PUT)
        assert lease.tag == b""
        tags.release(lease, is_concluded=True)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "conclude", "abandon", "renew"]),
            st.sampled_from("pqrst"),
            st.sampled_from([PUT, POST]),
            st.integers(0, 99),
        ),
        max_size=80,
    ),
    st.booleans(),
)
def test_no_tag_is_ever_in_use_twice_or_after_it_was_used_up(
    steps: list[tuple[str, str, Message, int]], can_recycle: bool
) -> None:
    tags = RequestTags(count_max=4, can_recycle=can_recycle)
    open_: list[Lease] = []
    burnt: set[Lease] = set()
    for what, peer, request, which in steps:
        if what == "take":
            if len(open_) == 4:
                with pytest.raises(TableFull):
                    tags.take(peer, request)
                continue
            open_.append(tags.take(peer, request))
        elif open_:
            lease = open_.pop(which % len(open_))
            if what == "renew":
                open_.append(tags.renew(lease))
            else:
                tags.release(lease, is_concluded=what == "conclude")
            if what == "abandon" or not can_recycle:
                burnt.add(lease)
        assert len(set(open_)) == len(open_) == len(tags)
        assert not burnt.intersection(open_)
        assert len(tags._used_up) <= 4
        assert sum(map(len, tags._in_use.values())) == len(open_)
