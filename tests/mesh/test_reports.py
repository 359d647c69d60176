"""Topology reports: octets, what contradicts itself, and when one is due.

The contract under test: `decode` gives a report or raises MeshError, and inverts `encode` exactly;
both agree with the declared layout; a report that cannot be true is no report; the schedule tells
every change beyond hysteresis, and nothing within it, and never more often than it says.
"""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError
from mesh import report_layout
from mesh.reports import (
    BOOT_SPREAD_S,
    CHANGE_DELAY_S,
    CHANGE_SPACING_MAX_S,
    CHANGE_SPACING_S,
    ETX_ONE,
    ETX_UNUSABLE,
    HOPS_UNKNOWN,
    INFINITE_RANK,
    NEIGHBOURS_MAX,
    PARENTS_MAX,
    REPORT_PERIOD_S,
    REPORT_SIZE_MAX,
    SHORT_MAX,
    WIDTH_MAX,
    LinkReport,
    Reason,
    ReportSchedule,
    TopologyReport,
    difference,
    differs,
    is_newer,
)
from mesh.routing.width import WIDE_ETX

etx = st.one_of(st.just(0), st.integers(ETX_ONE, ETX_UNUSABLE))
octet = st.integers(0, 0xFF)


@st.composite
def reports(draw: st.DrawFn) -> TopologyReport:
    shorts = draw(
        st.lists(st.integers(1, SHORT_MAX), unique=True, max_size=PARENTS_MAX + NEIGHBOURS_MAX)
    )
    links = [LinkReport(short, draw(etx), draw(etx), draw(octet), draw(octet)) for short in shorts]
    kind = draw(st.sampled_from(["root", "poisoned", "attached"])) if links else "poisoned"
    sequence = draw(st.integers(0, 0xFFFF))
    reason = draw(st.sampled_from(Reason))
    if kind == "attached":
        count = draw(st.integers(max(1, len(links) - NEIGHBOURS_MAX), min(len(links), PARENTS_MAX)))
        hops = draw(st.integers(1, HOPS_UNKNOWN))
        rank = draw(st.integers(1, INFINITE_RANK - 1))
        return TopologyReport(
            reason, sequence, rank, hops, tuple(links[:count]), tuple(links[count:])
        )
    others = tuple(links[:NEIGHBOURS_MAX])
    if kind == "root":
        return TopologyReport(
            reason, sequence, draw(st.integers(1, INFINITE_RANK - 1)), 0, (), others
        )
    return TopologyReport(reason, sequence, INFINITE_RANK, HOPS_UNKNOWN, (), others)


@given(reports())
def test_decode_inverts_encode(report: TopologyReport) -> None:
    octets = report.encode()
    assert len(octets) <= REPORT_SIZE_MAX
    assert TopologyReport.decode(octets) == report


@given(reports())
def test_octets_are_those_of_the_declared_layout(report: TopologyReport) -> None:
    assert report_layout.build(report) == report.encode()
    assert report_layout.parse(report.encode()) == report


def verdict_on(octets: bytes) -> tuple[TopologyReport | None, TopologyReport | None]:
    found: list[TopologyReport | None] = []
    for decode in (TopologyReport.decode, report_layout.parse):
        try:
            found.append(decode(octets))
        except MeshError:
            found.append(None)
    return found[0], found[1]


@given(st.one_of(st.binary(max_size=REPORT_SIZE_MAX + 8), reports().map(TopologyReport.encode)))
def test_arbitrary_octets_are_a_report_to_both_or_to_neither(octets: bytes) -> None:
    ours, declared = verdict_on(octets)
    assert ours == declared


@given(reports(), st.data())
def test_damaged_report_is_a_report_to_both_or_to_neither(
    report: TopologyReport, data: st.DataObject
) -> None:
    octets = bytearray(report.encode())
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    ours, declared = verdict_on(bytes(octets))
    assert ours == declared


def attached(**changes: object) -> TopologyReport:
    report = TopologyReport(
        Reason.PERIODIC,
        1,
        768,
        2,
        (LinkReport(5, 200, 190, 40, 3), LinkReport(6, 300)),
        (LinkReport(7, 400),),
    )
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


def test_report_has_the_octets_written_down_by_hand() -> None:
    assert attached().encode().hex(" ") == (
        "01 05 00 01 03 00 02 21 "
        "00 05 00 c8 00 be 28 03 00 06 01 2c 00 00 00 00 00 07 01 90 00 00 00 00"
    )


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, 2, "version unknown"),
        (1, 7, "report reason unknown"),
        (7, 0x91, "too many links"),
        (7, 0x15, "too many links"),
        (7, 0x20, "length"),
        (4, 0, "impossible rank"),
        (6, 0, "root with parents"),
        (6, 255, None),
        (8, 0xFF, None),
        (9, 0, "impossible link"),
        (9, 6, "neighbour twice"),
        (11, 127, "impossible link"),
    ],
)
def test_octets_that_contradict_themselves_are_refused_by_reason(
    at: int, value: int, reason: str | None
) -> None:
    octets = bytearray(attached().encode())
    octets[at] = value
    if at == 11:
        octets[10] = 0
    if reason is None:
        assert TopologyReport.decode(bytes(octets)) != attached()
        return
    with pytest.raises(MeshError) as raised:
        TopologyReport.decode(bytes(octets))
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("rank", "hops", "reason"),
    [
        (256, 0, "root with parents"),
        (INFINITE_RANK, 2, "poisoned with a place"),
        (0, 2, "impossible rank"),
    ],
)
def test_rank_that_cannot_be_is_refused_as_a_value_too(rank: int, hops: int, reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        attached(rank=rank, hops=hops)


def test_too_short_or_too_long_is_refused() -> None:
    octets = attached().encode()
    for wrong in (b"", octets[:7], octets[:-1], octets + b"\0"):
        with pytest.raises(MeshError):
            TopologyReport.decode(wrong)


@given(st.integers(0, 0xFFFF), st.integers(1, 0x7FFF))
def test_later_number_is_newer_across_the_wrap(number: int, step: int) -> None:
    later = (number + step) & 0xFFFF
    assert is_newer(later, number)
    assert not is_newer(number, later)
    assert not is_newer(number, number)


# When a report is due


def test_change_of_the_preferred_parent_is_told_and_noise_is_not() -> None:
    first, second = attached().parents
    told = attached()
    assert difference(told, attached(sequence=9)) is None
    assert difference(told, attached(parents=(second, first))) is Reason.PARENT_CHANGED
    poisoned = TopologyReport(Reason.PERIODIC, 1, INFINITE_RANK, HOPS_UNKNOWN)
    assert difference(told, poisoned) is Reason.PARENT_CHANGED
    assert difference(poisoned, told) is Reason.PARENT_CHANGED
    assert difference(told, attached(parents=(first,))) is Reason.LINK_CHANGED
    near = dataclasses.replace(first, etx_to=264, samples=99, age_minutes=20)
    assert difference(told, attached(parents=(near, second))) is None
    far = dataclasses.replace(first, etx_to=265)
    assert difference(told, attached(parents=(far, second))) is Reason.LINK_CHANGED
    lost = dataclasses.replace(first, etx_from=0)
    assert difference(told, attached(parents=(lost, second))) is Reason.LINK_CHANGED
    assert difference(told, attached(neighbours=(LinkReport(8, 200),))) is None
    listed = attached(neighbours=(LinkReport(8, 200),))
    assert difference(listed, attached(parents=(first, LinkReport(8, 200)))) is None
    assert difference(told, attached(parents=(first, LinkReport(8, 200)))) is Reason.LINK_CHANGED


@pytest.mark.parametrize(
    ("before", "swing"), [(128, 64), (256, 64), (512, 128), (1_000, 250), (1_024, 256)]
)
def test_half_a_transmission_is_nothing_nor_a_quarter_of_many(before: int, swing: int) -> None:
    for after in (before - swing, before + swing):
        assert not differs(before, after)
    assert differs(before, before - swing - 1)
    assert differs(before, before + swing + 1)


def schedule(seed: int = 1) -> ReportSchedule:
    return ReportSchedule(random.Random(seed))


def test_first_report_comes_within_the_spread_of_a_boot() -> None:
    due = set()
    for seed in range(20):
        plan = schedule(seed)
        assert plan.next_timer() is None
        plan.compare(attached(), now=100.0)
        timer = plan.next_timer()
        assert timer is not None
        assert 100.0 <= timer <= 100.0 + BOOT_SPREAD_S
        assert plan.reason_due(now=timer) is Reason.COLD_BOOT
        due.add(timer)
    assert len(due) == 20


@pytest.mark.parametrize(
    ("path_etx", "times"), [(0.5, 1.0), (WIDE_ETX, 1.0), (8.0, 4.0), (16.0, WIDTH_MAX)]
)
def test_far_from_the_root_the_first_report_may_come_later(path_etx: float, times: float) -> None:
    due = []
    for seed in range(50):
        plan = schedule(seed)
        plan.ask(Reason.POWER_RESTORED, now=100.0, path_etx=path_etx)
        due.append((plan.next_timer() or 0.0) - 100.0)
    assert 0.0 <= min(due) <= 0.2 * BOOT_SPREAD_S * times
    assert 0.9 * BOOT_SPREAD_S * times <= max(due) <= BOOT_SPREAD_S * times


@pytest.mark.parametrize(("path_etx", "times"), [(2.0, 1), (8.0, 4)])
def test_a_node_that_wanders_tells_so_ever_more_rarely(path_etx: float, times: int) -> None:
    plan = schedule()
    plan.ask(Reason.ASKED, now=0.0)
    plan.sent(attached(), now=0.0)
    sent = []
    for second in range(0, 10_500 * times, 10):
        plan.ask(Reason.PARENT_CHANGED, now=float(second), path_etx=path_etx)
        if plan.reason_due(now=float(second)) is Reason.PARENT_CHANGED:
            sent.append(second)
            made = dataclasses.replace(attached(), reason=Reason.PARENT_CHANGED)
            plan.sent(made, now=float(second))
    gaps = [after - before for before, after in itertools.pairwise(sent)]
    assert gaps == [600 * times, 1200 * times, 2400 * times, CHANGE_SPACING_MAX_S * times]


def test_quiet_node_reports_every_period_and_nothing_between() -> None:
    plan = schedule()
    plan.ask(Reason.ASKED, now=0.0)
    now, times = 0.0, []
    for _ in range(5):
        assert plan.reason_due(now=now) is (Reason.PERIODIC if times else Reason.ASKED)
        plan.sent(attached(sequence=plan.sequence), now=now)
        times.append(now)
        plan.compare(attached(), now=now + 60)
        assert plan.reason_due(now=now + 0.8 * REPORT_PERIOD_S) is None
        timer = plan.next_timer()
        assert timer is not None
        now = timer
    assert plan.sequence == 5
    for before, after in itertools.pairwise(times):
        assert 0.9 * REPORT_PERIOD_S <= after - before <= REPORT_PERIOD_S


def test_numbers_of_reports_go_round() -> None:
    plan = ReportSchedule(random.Random(1), sequence=0xFFFF)
    plan.ask(Reason.ASKED, now=0.0)
    plan.sent(attached(sequence=plan.sequence), now=0.0)
    assert plan.sequence == 0


def test_swinging_link_is_told_ever_more_rarely() -> None:
    plan = schedule()
    plan.ask(Reason.ASKED, now=0.0)
    plan.sent(attached(), now=0.0)
    sent = []
    for second in range(20_000):
        etx_to = 200 if second % 20 < 10 else 900
        report = attached(parents=(LinkReport(5, etx_to), LinkReport(6, 300)))
        plan.compare(report, now=float(second))
        if (reason := plan.reason_due(now=float(second))) is not None:
            assert reason is Reason.LINK_CHANGED
            sent.append(second)
            made = dataclasses.replace(report, reason=reason, sequence=plan.sequence)
            plan.sent(made, now=float(second))
    assert sent[0] == CHANGE_SPACING_S
    gaps = [after - before for before, after in itertools.pairwise(sent)]
    expected = [600.0, 1200.0, 2400.0] + [CHANGE_SPACING_MAX_S] * 3
    assert all(least <= gap <= least + 40 for least, gap in zip(expected, gaps, strict=True))


@pytest.mark.parametrize("reason", [Reason.LINK_CHANGED, Reason.PARENT_CHANGED])
def test_what_is_as_it_was_again_is_not_told(reason: Reason) -> None:
    plan = schedule()
    plan.ask(Reason.ASKED, now=0.0)
    plan.sent(attached(), now=0.0)
    period_ends_at = plan.next_timer()
    first, second = attached().parents
    plan.compare(attached(parents=(LinkReport(5, 900), second)), now=50.0)
    plan.ask(reason, now=60.0)
    assert plan.next_timer() == CHANGE_SPACING_S
    assert plan.is_news(attached(parents=(LinkReport(5, 900), second), reason=reason))
    assert not plan.is_news(attached(parents=(first, second), reason=reason))
    assert plan.is_news(attached(parents=(first, second), reason=Reason.PERIODIC))
    plan.left_out()
    assert plan.next_timer() == period_ends_at
    assert plan.reason_due(now=period_ends_at or 0.0) is Reason.PERIODIC


def test_a_new_parent_waits_for_no_swinging_link_and_a_quiet_period_halves_the_wait() -> None:
    plan = schedule()
    plan.ask(Reason.ASKED, now=0.0)
    for now in (0.0, 300.0, 900.0, 2100.0):
        plan.sent(dataclasses.replace(attached(), reason=Reason.LINK_CHANGED), now=now)
    plan.ask(Reason.LINK_CHANGED, now=2200.0)
    assert plan.reason_due(now=2100.0 + CHANGE_SPACING_MAX_S - 1.0) is None
    plan.ask(Reason.PARENT_CHANGED, now=2200.0)
    assert plan.reason_due(now=2100.0 + CHANGE_SPACING_S) is Reason.PARENT_CHANGED
    plan.sent(dataclasses.replace(attached(), reason=Reason.PERIODIC), now=50_000.0)
    plan.ask(Reason.LINK_CHANGED, now=50_001.0)
    assert plan.reason_due(now=50_000.0 + CHANGE_SPACING_MAX_S / 2 - 1.0) is None
    assert plan.reason_due(now=50_000.0 + CHANGE_SPACING_MAX_S / 2) is Reason.LINK_CHANGED
    for period in range(2, 8):
        quiet = dataclasses.replace(attached(), reason=Reason.PERIODIC)
        plan.sent(quiet, now=50_000.0 * period)
    plan.ask(Reason.LINK_CHANGED, now=350_001.0)
    assert plan.reason_due(now=350_000.0 + CHANGE_SPACING_S - 1.0) is None
    assert plan.reason_due(now=350_000.0 + CHANGE_SPACING_S) is Reason.LINK_CHANGED


def test_change_waits_for_what_comes_with_it_and_the_graver_reason_is_told() -> None:
    plan = schedule()
    plan.ask(Reason.ASKED, now=0.0)
    plan.sent(attached(), now=0.0)
    plan.ask(Reason.LINK_CHANGED, now=1000.0)
    plan.ask(Reason.PARENT_CHANGED, now=1010.0)
    assert plan.reason_due(now=1000.0 + CHANGE_DELAY_S - 1) is None
    assert plan.reason_due(now=1000.0 + CHANGE_DELAY_S) is Reason.PARENT_CHANGED
    plan.ask(Reason.ADDRESS_CHANGED, now=1005.0)
    assert plan.reason_due(now=1005.0) is Reason.PARENT_CHANGED
