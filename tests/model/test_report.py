"""Daily reports: strict and lenient reading.

The contract under test: a bad record spoils a strict reading and costs a lenient one only
itself; verdicts name records by their place in the message as it came.
"""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model import (
    ClockReading,
    ClockState,
    DailyReport,
    Disposition,
    EndDeviceEventType,
    IntervalBlock,
    LogEntry,
    RecordKind,
    RecordRef,
    Verdict,
    kept_indices,
)
from tests.model.messages import reports

DAY = 20_000
CLOCK = ClockReading(DAY * 86_400 + 90_000, ClockState.SET)
EVENT = EndDeviceEventType.parse("3.26.0.216")


def report_with(block_count: int, entry_count: int) -> DailyReport:
    return DailyReport(
        7,
        DAY,
        CLOCK,
        tuple(
            IntervalBlock.of([index] * 24, channel=index, interval_s=3600, opening=100)
            for index in range(block_count)
        ),
        tuple(LogEntry(index, DAY * 86_400 + index, EVENT) for index in range(entry_count)),
    )


@given(reports)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_lenient_reading_of_a_good_report_is_the_strict_one(report: DailyReport) -> None:
    assert DailyReport.decode_leniently(report.encode()) == (report, [])


@given(
    st.sets(st.integers(0, 4)),
    st.sets(st.integers(0, 4)),
    st.sampled_from([None, 5, "x", [], [1], {}, 1.5, [0] * 9, [1, 60, 0, 0, b"", []]]),
)
@settings(deadline=None)
def test_each_bad_record_costs_itself_and_no_other(
    bad_blocks: set[int], bad_entries: set[int], junk: object
) -> None:
    whole = report_with(5, 5)
    tree = cbor2.loads(whole.encode())
    for index in bad_blocks:
        tree[4][index] = junk
    for index in bad_entries:
        tree[5][index] = junk
    octets = cbor2.dumps(tree)

    report, verdicts = DailyReport.decode_leniently(octets)

    kept_blocks = [index for index in range(5) if index not in bad_blocks]
    kept_entries = [index for index in range(5) if index not in bad_entries]
    assert report.blocks == tuple(whole.blocks[index] for index in kept_blocks)
    assert report.entries == tuple(whole.entries[index] for index in kept_entries)
    assert [verdict.record for verdict in verdicts] == [
        *(RecordRef(RecordKind.BLOCK, index) for index in sorted(bad_blocks)),
        *(RecordRef(RecordKind.ENTRY, index) for index in sorted(bad_entries)),
    ]
    assert {verdict.disposition for verdict in verdicts} <= {Disposition.UNREADABLE}
    assert kept_indices(RecordKind.BLOCK, len(report.blocks), verdicts) == kept_blocks
    assert kept_indices(RecordKind.ENTRY, len(report.entries), verdicts) == kept_entries
    if verdicts:
        with pytest.raises(ModelError):
            DailyReport.decode(octets)


def test_second_block_of_a_channel_is_unreadable_and_the_first_is_kept() -> None:
    tree = cbor2.loads(report_with(2, 0).encode())
    tree[4][1][0] = tree[4][0][0]
    report, verdicts = DailyReport.decode_leniently(cbor2.dumps(tree))
    assert [block.channel for block in report.blocks] == [0]
    assert [str(verdict.record) for verdict in verdicts] == ["block 1"]
    with pytest.raises(ModelError, match="twice"):
        DailyReport.decode(cbor2.dumps(tree))


def test_longer_form_of_a_number_is_refused_strictly_and_read_leniently() -> None:
    octets = bytes.fromhex("86 1801 194e20 1a670082ac 01 80 80")
    with pytest.raises(ModelError, match="not deterministic"):
        DailyReport.decode(octets)
    assert DailyReport.decode_leniently(octets)[0].channel_set == 1


@pytest.mark.parametrize(
    "octets",
    [
        "86 01 194e20 1a670082ac 03 80 80",
        "86 01 19c22f 1a670082ac 01 80 80",
        "86 01 194e20 1a670082ac 01 80 80 00",
        "86 01 194e20 1a670082ac 01 80 40",
        "85 01 194e20 1a670082ac 01 80",
        "86 01 194e20 1a670082ac 01 91" + "00" * 17 + "80",
    ],
    ids=["clock state", "day", "octet behind", "entries", "short", "17 blocks"],
)
def test_what_is_no_report_at_all_is_refused_also_leniently(octets: str) -> None:
    for decode in (DailyReport.decode, DailyReport.decode_leniently):
        with pytest.raises(ModelError):
            decode(bytes.fromhex(octets))


def test_bad_packing_is_no_matter_of_taking_a_report_apart() -> None:
    """A head-end stores or quarantines the block; it need not unpack it to acknowledge others."""
    block = IntervalBlock(1, 900, 96, 0, 0, b"\x00")
    octets = DailyReport(7, DAY, CLOCK, (block,)).encode()
    report = DailyReport.decode(octets)
    assert report.blocks[0].packed == b"\x00"
    with pytest.raises(ModelError):
        report.blocks[0].values()


def test_block_shorter_than_a_day_does_not_belong_in_a_daily_report() -> None:
    with pytest.raises(ModelError, match="no day"):
        DailyReport(7, DAY, CLOCK, (IntervalBlock(1, 900, 95, 0, 0, b""),))


def test_entry_of_another_day_keeps_its_instant() -> None:
    entries = tuple(LogEntry(n, at, EVENT) for n, at in enumerate([0, DAY * 86_400 - 5, 2**32 - 1]))
    report = DailyReport(7, DAY, CLOCK, (), entries)
    assert DailyReport.decode(report.encode()).entries == entries


def test_report_too_large_for_a_payload_is_refused_when_encoded() -> None:
    values = [0, 2**50] * 1440
    blocks = tuple(
        IntervalBlock.of(values, channel=index, interval_s=30, opening=0, advance=0)
        for index in range(4)
    )
    with pytest.raises(ModelError, match="too long"):
        DailyReport(7, DAY, CLOCK, blocks).encode()


def test_whole_has_no_place() -> None:
    assert str(RecordRef(RecordKind.WHOLE)) == "whole"
    with pytest.raises(ModelError):
        RecordRef(RecordKind.WHOLE, 1)
    with pytest.raises(ModelError):
        Verdict(RecordRef(RecordKind.WHOLE), Disposition.ACCEPTED, "é" * 33)


def test_only_unreadable_records_leave_a_gap_in_the_places_kept() -> None:
    block = RecordKind.BLOCK
    verdicts = [
        Verdict(RecordRef(block, 0), Disposition.QUARANTINED, "clock"),
        Verdict(RecordRef(block, 1), Disposition.UNREADABLE, "wrong type"),
        Verdict(RecordRef(RecordKind.ENTRY, 2), Disposition.UNREADABLE, "wrong type"),
    ]
    assert kept_indices(block, 2, verdicts) == [0, 2]
