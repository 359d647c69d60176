"""Which notification is newer: the comparison of RFC 7641 section 3.4, and its option.

The contract under test: numbers are compared round the circle of 24 bits, within 128 s; what was
let through once, or is older, is not let through again.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.observe import (
    SEQUENCE_COUNT,
    SEQUENCE_HALF,
    NotificationOrder,
    is_newer,
    observe_of,
    with_observe,
)
from amistack.coap.options import Option, OptionNumber

TOP = SEQUENCE_COUNT - 1


@pytest.mark.parametrize(
    ("value", "than", "newer"),
    [
        (1, 0, True),
        (0, 1, False),
        (5, 5, False),
        (SEQUENCE_HALF - 1, 0, True),
        (SEQUENCE_HALF, 0, False),
        (0, TOP, True),
        (TOP, 0, False),
        (0, SEQUENCE_HALF, False),
        (0, SEQUENCE_HALF + 1, True),
        (SEQUENCE_HALF - 2, TOP, True),
        (SEQUENCE_HALF, TOP, False),
    ],
)
def test_numbers_are_compared_round_the_circle(value: int, than: int, newer: bool) -> None:
    """V1 < V2 and V2 - V1 < 2^23, or V1 > V2 and V1 - V2 > 2^23."""
    assert is_newer(value, 10.0, than, 0.0) is newer


def test_after_128_seconds_everything_is_newer() -> None:
    assert not is_newer(1, 128.0, 2, 0.0)
    assert is_newer(1, 128.1, 2, 0.0)


def test_the_time_is_that_of_the_latest_one_let_through() -> None:
    order = NotificationOrder()
    assert order.accept(100, now=0)
    assert not order.accept(50, now=100)  # This one does not count.
    assert not order.accept(51, now=128)
    assert order.accept(52, now=129)
    assert order.accept(53, now=130)


def test_after_a_restart_any_number_is_the_latest() -> None:
    order = NotificationOrder()
    order.accept(5000, now=0)
    order.restart()
    assert order.accept(1, now=1)
    assert order.accept(2, now=1)


@settings(deadline=None)
@given(st.integers(0, TOP), st.integers(1, SEQUENCE_HALF - 1))
def test_of_two_one_is_newer(value: int, step: int) -> None:
    later = (value + step) % SEQUENCE_COUNT
    assert is_newer(later, 0, value, 0)
    assert not is_newer(value, 0, later, 0)


@settings(deadline=None)
@given(st.integers(0, TOP), st.integers(1, 60), st.integers(0, 1000))
def test_what_is_let_through_is_in_order_and_the_last_is_among_it(
    start: int, count: int, seed: int
) -> None:
    arrivals = list(range(count)) * 2
    random.Random(seed).shuffle(arrivals)
    order = NotificationOrder()
    passed = [
        number for number in arrivals if order.accept((start + number) % SEQUENCE_COUNT, now=0)
    ]
    assert passed == sorted(set(passed))
    assert passed[-1] == count - 1


def test_the_option_is_written_in_its_place_and_only_once() -> None:
    message = Message.response(Code.CONTENT, content_format=0, options=[Option(4, b"e")])
    marked = with_observe(with_observe(message, 7), 0x010203)
    assert [option.number for option in marked.options] == [4, 6, 12]
    assert marked.option(OptionNumber.OBSERVE) == b"\1\2\3"
    assert observe_of(marked) == 0x010203
    assert with_observe(marked, None) == message
    assert with_observe(message, 0).option(OptionNumber.OBSERVE) == b""


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ((), None),
        ((Option(4, b"x"),), None),
        ((Option(11, b"x"),), None),
        ((Option(6, b""),), 0),
        ((Option(4, b"x"), Option(6, b"\1"), Option(11, b"x")), 1),
        ((Option(6, b"\0\0\1"),), 1),
        ((Option(6, b"\0\0\0\1"),), None),
        ((Option(6, b"\1"), Option(6, b"")), 1),
    ],
)
def test_the_option_is_read_where_it_can_be(options: tuple[Option, ...], value: int | None) -> None:
    """One that is too long is like an unknown one; of two the first counts (RFC 7252 5.4.3, 5)."""
    assert observe_of(Message(Code.GET, options=options)) == value
