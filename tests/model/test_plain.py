"""The common form of a daily report, read in one pass.

The contract under test: what `read_plain` and `total_and_floor` give is what `DailyReport` and
`unpack` say about the same octets, and never more than they accept; what households send has the
common form; a plain acknowledgement is the one encoding of its values.
"""

from __future__ import annotations

import random
from typing import Final

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model import DailyReport, ReportAcknowledgement
from amistack.model.packing import VALUE_COUNT_MAX, pack, total_and_floor, unpack
from amistack.model.plain import INTERVALS, read_plain, write_plain_acknowledgement
from amistack.model.wire import DAY_S, interval_from_tree
from interop.bench.households import SOLAR_EVERY, daily_report, full_report
from tests.model.messages import held_ms, received_ms, reports

REPORT: Final = cbor2.loads(daily_report(3).encode())

counts = st.sampled_from([8, 16, 24, 96, 7, 0, 1])
household_series = st.integers(1, 4).flatmap(
    lambda blocks: st.lists(
        st.integers(0, 3) | st.integers(-60, 5_000), min_size=8 * blocks, max_size=8 * blocks
    )
)


def expect_the_same(data: bytes, count: int) -> bool:
    """Whether the sum was given; then it must be right."""
    seen = total_and_floor(data, count)
    if seen is None:
        return False
    values = unpack(data, count)  # It must not raise where a sum was given.
    assert seen == (sum(values), min(values))
    return True


@given(household_series)
@settings(deadline=None)
@example([0] * 96)
@example([5] * 8)
@example([0, 1] * 4)
@example([1] * 7 + [0])
@example([-60] * 7 + [16_000])
@example([3] * 8 + [3, 4] * 4)
@example([0] + [2**14 - 1] * 7)
def test_sum_of_a_household_is_given_and_right(values: list[int]) -> None:
    assert expect_the_same(pack(values), len(values))


@pytest.mark.parametrize("width", range(1, 15))
def test_every_width_sums_its_extremes(width: int) -> None:
    most = (1 << width) - 1
    for values in ([0] + [most] * 7, [most] * 7 + [0], [0] * 7 + [most], [0, most] * 4):
        assert expect_the_same(pack(values), 8)
        assert expect_the_same(pack([*values, *([0] * 8)]), 16)
    assert expect_the_same(pack([most] * 8 + [0] * 8), 16)


@given(st.binary(max_size=30), counts)
@settings(deadline=None, max_examples=400)
@example(b"\x00\x00", 8)
@example(b"\x80\x01\x00", 8)
@example(b"\x80\x00\x00", 8)
@example(b"\x80", 8)
@example(b"\x02", 8)
@example(b"\x02\x10\xff", 8)
@example(b"\x02\x10\x00", 8)
@example(b"\x02\x11\xfe", 8)
@example(b"\x02\x20", 8)
@example(b"\x02\x20\x80", 8)
def test_sum_of_arbitrary_octets_is_that_of_what_they_unpack_to(data: bytes, count: int) -> None:
    expect_the_same(data, count)


@given(household_series, st.data())
@settings(deadline=None, max_examples=200)
def test_sum_of_damaged_values_is_that_of_what_they_unpack_to(
    values: list[int], data: st.DataObject
) -> None:
    packed = bytearray(pack(values) or b"\x00")
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(len(packed) - 2, len(packed)))
    expect_the_same(bytes(packed[: max(end, 0)]) + data.draw(st.binary(max_size=2)), len(values))


def test_no_sum_is_given_of_more_values_than_there_can_be() -> None:
    assert total_and_floor(b"", VALUE_COUNT_MAX) == (0, 0)
    assert total_and_floor(b"", VALUE_COUNT_MAX + 8) is None
    assert total_and_floor(b"", -8) is None


# Reports


def expect_the_same_report(data: bytes) -> bool:
    """Whether it was read; then the careful reading must give the same and find nothing."""
    plain = read_plain(data)
    if plain is None:
        return False
    report, verdicts = DailyReport.decode_leniently(data)
    assert verdicts == []
    assert (plain.channel_set, plain.day) == (report.channel_set, report.day)
    assert (plain.utc_s, plain.state) == (report.clock.utc_s, report.clock.state)
    for ours, block in zip(plain.blocks, report.blocks, strict=True):
        assert ours[:5] == (
            block.channel,
            block.interval_s,
            block.opening,
            block.advance,
            block.packed,
        )
        values = unpack(block.packed, block.count)
        assert (ours.total, ours.least) == (sum(values), min(values))
        assert block.qualities == ()
    for entry, logged in zip(plain.entries, report.entries, strict=True):
        assert entry == (logged.sequence, logged.at, str(logged.event))
        assert logged.detail is None
        assert not logged.is_time_doubtful
    return True


def test_what_households_send_has_the_common_form() -> None:
    for seed in range(3 * SOLAR_EVERY):
        assert expect_the_same_report(daily_report(seed).encode())
        assert expect_the_same_report(full_report(seed).encode())


@given(reports)
@settings(deadline=None)
def test_any_report_is_read_as_it_is_or_not_at_all(report: DailyReport) -> None:
    is_read = expect_the_same_report(report.encode())
    if any(block.qualities for block in report.blocks):
        assert not is_read
    if any(entry.detail or entry.is_time_doubtful for entry in report.entries):
        assert not is_read


Tree = int | str | bytes | float | list["Tree"] | None

odd_items: st.SearchStrategy[Tree] = st.one_of(
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from([-1, 256, 65_535, 65_536, 49_710, 49_711, 2**32, 2**53, -(2**53), 3, -90, -60]),
    st.binary(max_size=8),
    st.text(max_size=2),
    st.just([]),
    st.just([[]]),
)


@given(st.integers(0, 40), st.data())
@settings(deadline=None, max_examples=200)
def test_a_report_with_odd_items_is_read_as_carefully_as_by_the_careful(
    seed: int, data: st.DataObject
) -> None:
    tree = cbor2.loads((daily_report(seed) if seed % 2 else full_report(seed)).encode())
    for _ in range(data.draw(st.integers(1, 2))):
        place = tree
        while True:
            index = data.draw(st.integers(0, len(place) - 1))
            if not isinstance(place[index], list) or not place[index] or data.draw(st.booleans()):
                break
            place = place[index]
        match data.draw(st.sampled_from(["change", "drop", "repeat"])):
            case "change":
                place[index] = data.draw(odd_items)
            case "drop":
                del place[index]
            case _:
                place.insert(index, place[index])
    expect_the_same_report(cbor2.dumps(tree))


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_report_with_wrong_octets_is_read_as_carefully_as_by_the_careful(
    data: st.DataObject,
) -> None:
    octets = bytearray(daily_report(data.draw(st.integers(0, 20))).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(octets)) | st.just(len(octets)))
    expect_the_same_report(bytes(octets[:end]) + data.draw(st.binary(max_size=2)))


@pytest.mark.parametrize("octets", ["", "80", "86", "c7", "d81c80", "9f", "86000000008080f6", "f9"])
def test_what_is_no_report_is_none(octets: str) -> None:
    assert read_plain(bytes.fromhex(octets)) is None


def test_least_and_most_of_everything_are_still_common() -> None:
    least = [0, 0, 0, 0, [[0, -30, -(2**53 - 1), 0, b""]], [[0, 0, 0, 0, 0, 0]]]
    most = [
        65_535,
        49_710,
        2**32 - 1,
        2,
        [[255, 15, 2**53 - 1, 0, b""]],
        [[2**32 - 1, 2**32 - 1 - 49_710 * DAY_S, 65_535, 65_535, 65_535, 65_535]],
    ]
    for tree in (least, most):
        assert expect_the_same_report(cbor2.dumps(tree))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({4: [[1, 15, 0, 0, b""], [1, 15, 0, 0, b""]]}, id="a channel twice"),
        pytest.param({4: [[1, 15, 2**53 - 1, 1, b""]]}, id="register too large at the end"),
        pytest.param({4: [[1, 15, -(2**53) + 1, -1, b""]]}, id="register too small at the end"),
        pytest.param({4: [[True, 15, 0, 0, b""]]}, id="truth in a block"),
        pytest.param({5: [[True, 0, 3, 26, 0, 47]]}, id="truth in an entry"),
        pytest.param({5: [[1, 0, 3, 26, False, 47]]}, id="truth in an event"),
        pytest.param({5: [[1, 0, 3, 26, 65_536, 47]]}, id="event that is none"),
        pytest.param({5: [[1, -1, 3, 26, 0, 47]], 1: 0}, id="entry before all time"),
        pytest.param({3: 3}, id="state that is none"),
        pytest.param({0: True}, id="truth outside"),
    ],
)
def test_what_the_careful_reading_sets_aside_is_none(change: dict[int, object]) -> None:
    tree = [change.get(index, item) for index, item in enumerate(REPORT)]
    assert read_plain(cbor2.dumps(REPORT)) is not None
    assert read_plain(cbor2.dumps(tree)) is None


def test_number_of_records_has_the_bounds_of_the_careful_reading() -> None:
    for block_count, entry_count, is_common in ((16, 256, True), (17, 0, False), (0, 257, False)):
        blocks = [[channel, 15, 0, 0, b""] for channel in range(block_count)]
        tree = [*REPORT[:4], blocks, [[1, 0, 3, 26, 0, 47]] * entry_count]
        assert expect_the_same_report(cbor2.dumps(tree)) == is_common
    tree = [*REPORT[:4], [], [[1, 0, 3, 26, 0, 47]] * 8_000]
    assert not expect_the_same_report(cbor2.dumps(tree)[:65_536])


def test_every_interval_length_that_can_be_written_is_known() -> None:
    for written in range(-DAY_S - 1, DAY_S // 60 + 2):
        try:
            interval_s = interval_from_tree(written)
        except ModelError:
            assert written not in INTERVALS
        else:
            assert INTERVALS[written] == interval_s


# Acknowledgements


@given(received_ms, held_ms | st.integers(0, 400))
@settings(deadline=None)
@example(2**32, 23)
@example(2**32, 24)
@example(2**32 - 1, 0)
@example(2**32, 255)
@example(2**32, 256)
@example(2**32, 65_535)
@example(2**32, 65_536)
def test_plain_acknowledgement_is_the_one_encoding(received: int, held: int) -> None:
    plain = write_plain_acknowledgement(received, held)
    assert plain is None or plain == ReportAcknowledgement(received, held).encode()
    assert (plain is not None) == (received >= 2**32 and held < 65_536)


@pytest.mark.parametrize(("received", "held"), [(0, 0), (-1, 0), (2**62, 0), (2**40, -1)])
def test_what_is_no_acknowledgement_is_not_written(received: int, held: int) -> None:
    assert write_plain_acknowledgement(received, held) is None


def test_summing_is_not_tried_on_what_only_chance_finds() -> None:
    """Guards the tests of damaged values: enough of what they make is still packed values."""
    dice = random.Random(1)
    found = 0
    for _ in range(2_000):
        packed = bytearray(pack([dice.randrange(200) for _ in range(24)]))
        packed[dice.randrange(len(packed))] ^= 1 << dice.randrange(8)
        found += expect_the_same(bytes(packed), 24)
    assert 200 < found < 1_900
