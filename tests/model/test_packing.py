"""Packed interval values.

The contract under test: `unpack` inverts `pack`; every series has exactly one encoding and
`unpack` refuses all other octets with ModelError and nothing else; and the fast form is the
layout that `layout` declares with construct.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model.layout import packed_layout, parts_of, values_of
from amistack.model.packing import VALUE_COUNT_MAX, pack, unpack

MAX = 2**53 - 1

numbers = st.one_of(
    st.integers(0, 3), st.integers(0, 300), st.integers(-300, 100_000), st.integers(-MAX, MAX)
)
series = st.one_of(
    *(st.lists(st.integers(0, 2**bits), max_size=40) for bits in (1, 5, 8, 13, 14, 15, 20)),
    st.lists(numbers, max_size=40),
)


@given(series)
@settings(deadline=None)
@example([])
@example([0] * 9)
@example([-MAX, MAX])
@example([MAX] * 8)
@example([5] * 8 + [5])
def test_unpack_inverts_pack(values: list[int]) -> None:
    assert unpack(pack(values), len(values)) == values


@given(series.filter(any))
@settings(deadline=None)
@example([0] * 7 + [2**14 - 1, 2**14])
@example([-MAX, MAX])
def test_packing_is_the_layout_declared_with_construct(values: list[int]) -> None:
    layout = packed_layout(len(values))
    data = layout.build(parts_of(values))
    assert pack(values) == data
    assert values_of(layout.parse(data)) == unpack(data, len(values))


@given(st.binary(max_size=30), st.integers(0, 40))
@settings(deadline=None, max_examples=400)
def test_arbitrary_octets_are_the_one_encoding_of_what_they_unpack_to_or_an_error(
    data: bytes, count: int
) -> None:
    try:
        values = unpack(data, count)
    except ModelError:
        return
    assert len(values) == count
    assert pack(values) == data


@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_every_short_octet_string_is_canonical_or_refused(count: int) -> None:
    """All strings of up to two octets, and three that begin as packed values often do."""
    seen: dict[tuple[int, ...], bytes] = {}
    strings = [b""]
    strings += [bytes([a]) for a in range(256)]
    strings += [bytes([a, b]) for a in range(256) for b in range(0, 256, 3)]
    strings += [bytes([a, b << 4, c]) for a in (0, 2, 3) for b in range(9) for c in range(256)]
    for data in strings:
        try:
            values = tuple(unpack(data, count))
        except ModelError:
            continue
        assert seen.setdefault(values, data) == data
    assert len(seen) > 100


@given(series.filter(any), st.data())
@settings(deadline=None)
def test_one_flipped_bit_gives_other_values_or_an_error(
    values: list[int], data: st.DataObject
) -> None:
    packed = bytearray(pack(values))
    bit = data.draw(st.integers(0, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << bit % 8
    try:
        assert unpack(bytes(packed), len(values)) != values
    except ModelError:
        pass


@pytest.mark.parametrize(
    ("octets", "count", "why"),
    [
        ("0000", 1, "zeros are not the empty string"),
        ("8000", 1, "a floor longer than it needs to be"),
        ("ffffffffffffffffff01", 1, "a floor without an end"),
        ("02", 1, "no widths"),
        ("0201", 1, "padding of the widths"),
        ("0200 00", 1, "an octet too many"),
        ("0210", 2, "offsets missing"),
        ("0210 60", 2, "padding of the offsets"),
        ("0210 c0", 2, "a floor that no value reaches"),
        ("0220 40", 2, "two bits where none above one is used"),
        ("02 f0 0e 8000000000000000000000000000", 8, "a wide width of 14"),
        ("02 f0 37 00", 8, "a width beyond 54"),
        ("02 f0", 8, "wide width missing"),
        ("02", 0, "octets for no values"),
    ],
)
def test_octets_that_pack_never_writes_are_refused(octets: str, count: int, why: str) -> None:
    with pytest.raises(ModelError):
        unpack(bytes.fromhex(octets), count)


def test_values_beyond_the_exact_range_are_refused_both_ways() -> None:
    for values in ([MAX + 1, 0], [-MAX - 1, 0]):
        with pytest.raises(ModelError, match="out of range"):
            pack(values)
        with pytest.raises(ModelError, match="out of range"):
            unpack(packed_layout(2).build(parts_of(values)), 2)


def test_more_values_than_a_day_can_hold_are_refused_both_ways() -> None:
    with pytest.raises(ModelError):
        pack([1] * (VALUE_COUNT_MAX + 1))
    for count in (VALUE_COUNT_MAX + 1, -1):
        with pytest.raises(ModelError):
            unpack(b"", count)


def test_zeros_cost_nothing_and_a_flat_day_seven_octets() -> None:
    assert pack([0] * 96) == b""
    assert len(pack([60] * 96)) == 7


def test_long_random_days_survive() -> None:
    dice = random.Random(1)
    for width in range(54):
        values = [dice.getrandbits(width) for _ in range(96)]
        assert unpack(pack(values), 96) == values
