"""A meter looks at itself, and says what it found.

The contract under test: it looks after its installation, at the period it is told, and on demand;
every failure is on record as the event of its kind and told by that kind's rule; a check that
raises has failed and ends no other; what was found survives a restart, and so does the period.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from pathlib import Path

import cbor2
import pytest

from amistack.coap.codes import Code
from amistack.errors import ModelError, SourceError, StoreError
from amistack.model import event_catalogue as types
from amistack.model import pack, unpack
from amistack.model.diagnosis import (
    Check,
    Diagnosis,
    DiagnosisPlan,
    Finding,
    Occasion,
    Outcome,
)
from amistack.model.event_catalogue import Delivery, kind_of
from meterd.clock import MeterClock
from meterd.diagnosis.checks import (
    LOG_SHARE_MAX,
    ROOM_OCTETS_MIN,
    UNHEARD_S,
    Result,
    communication_of,
    failed,
    level_of,
    room_of,
    sensor_of,
    state_of,
)
from meterd.diagnosis.part import EVENTS, FIRST_AFTER_S, STORAGE_RETRY_S
from meterd.diagnosis.program import compare, program_of
from meterd.metrology import ConstantSource
from meterd.metrology.live import SILENCE_S
from meterd.storage import DAY as DAYS
from meterd.storage import ENTRY_COUNT_MAX
from tests.meterd.diagnosis.bench import DAY, TODAY, DiagnosisBench
from tests.meterd.test_live_source import MIDNIGHT, feed, live

HOUR = 3600
SUM = (types.SELF_TEST_PASSED, types.SELF_TEST_FAILED, types.METROLOGY_CHECKED)


def outcome_of(diagnosis: Diagnosis, check: Check) -> Outcome:
    (found,) = [one for one in diagnosis.findings if one.check is check]
    return found.outcome


def found(bench: DiagnosisBench) -> list[object]:
    """Every event but those that say how the looks went."""
    return [entry.event for entry in bench.logged() if entry.event not in SUM]


@pytest.mark.requirement("I2-FR-01")
def test_every_failure_is_logged_the_critical_ones_go_at_once_and_the_period_is_followed() -> None:
    injected = {
        Check.PROGRAM: types.PROGRAM_DAMAGED,
        Check.CHECKSUM: types.CHECKSUM_WRONG,
        Check.METROLOGY: types.METROLOGY_FAILED,
        Check.UPGRADE: types.UPGRADE_FAILED,
        Check.CLOCK: types.CLOCK_SYNC_FAILED,
        Check.BATTERY: types.BATTERY_LOW,
    }
    bench = DiagnosisBench(others={check: lambda _: failed("injected") for check in injected})
    bench.live(FIRST_AFTER_S + 60)
    ((at, look),) = bench.looks
    assert (at, look.occasion) == (FIRST_AFTER_S, Occasion.INSTALLATION)
    assert {one.check for one in look.failed} == set(injected)
    assert sorted(map(str, found(bench))) == sorted(map(str, injected.values()))
    sent = [entry.event for entry in bench.sent]
    critical = [event for event in injected.values() if event != types.BATTERY_LOW]
    assert sorted(map(str, sent)) == sorted(map(str, critical))
    for hours in (6, 48):
        bench.follow(DiagnosisPlan(period_h=hours))
        bench.looks.clear()
        bench.live(10 * hours * HOUR)
        times = [at for at, look in bench.looks if len(look.findings) > 1]
        gaps = {round(after - before) for before, after in itertools.pairwise(times)}
        assert gaps == {hours * HOUR}


def test_meter_without_a_fault_finds_none() -> None:
    bench = DiagnosisBench()
    bench.live(FIRST_AFTER_S + 60)
    ((_, look),) = bench.looks
    assert {one.outcome for one in look.findings} == {Outcome.PASSED}
    assert [entry.event for entry in bench.logged()] == [
        types.METROLOGY_CHECKED,
        types.SELF_TEST_PASSED,
    ]
    assert bench.notices == []


def files_in(folder: Path) -> list[tuple[Path, str]]:
    recorded = []
    for name in ("a.py", "b.py"):
        (folder / name).write_text(f"# {name}\n", encoding="utf-8")
        digest = hashlib.sha256((folder / name).read_bytes()).digest()
        recorded.append((folder / name, base64.urlsafe_b64encode(digest).rstrip(b"=").decode()))
    return recorded


@pytest.mark.requirement("I2-FR-05")
def test_program_fault_and_memory_fault_are_reported_each_as_what_it_is(tmp_path: Path) -> None:
    recorded = files_in(tmp_path)
    bench = DiagnosisBench(others={Check.PROGRAM: lambda _: compare(recorded)})
    bench.live(DAY)
    assert found(bench) == []
    (tmp_path / "b.py").write_text("# b.pY\n", encoding="utf-8")
    bench.live(DAY)
    assert found(bench) == [types.PROGRAM_DAMAGED]
    assert [entry.event for entry in bench.sent] == [types.PROGRAM_DAMAGED]
    assert bench.sent[0].detail == "b.py is not as installed"
    (tmp_path / "b.py").write_text("# b.py\n", encoding="utf-8")
    tables = bench.storage.journal._tables
    tables["note"]["source"] = "a bit that fell over"
    bench.live(DAY)
    assert found(bench) == [types.PROGRAM_DAMAGED, types.RAM_FAILED]
    assert [entry.event for entry in bench.sent] == [types.PROGRAM_DAMAGED, types.RAM_FAILED]


def test_missing_file_is_a_damaged_program_and_none_recorded_is_nothing_to_look_at(
    tmp_path: Path,
) -> None:
    recorded = files_in(tmp_path)
    assert compare(recorded) == (Outcome.PASSED, "2 files")
    (tmp_path / "a.py").unlink()
    assert compare(recorded)[0] is Outcome.FAILED
    assert compare([])[0] is Outcome.NOT_POSSIBLE
    assert program_of("no-such-distribution")(0.0)[0] is Outcome.NOT_POSSIBLE
    # Of a distribution that was installed from a wheel every module is as it was.
    assert program_of("cbor2")(0.0)[0] is Outcome.PASSED


def test_octet_that_changed_on_disk_is_found_by_its_check_sum() -> None:
    bench = DiagnosisBench()
    assert outcome_of(bench.look(Check.CHECKSUM), Check.CHECKSUM) is Outcome.PASSED
    real = bench.files.read

    def damaged(name: str, size_max: int) -> bytes:
        octets = bytearray(real(name, size_max))
        octets[len(octets) // 2] ^= 1
        return bytes(octets)

    bench.files.read = damaged  # type: ignore[method-assign]
    look = bench.look(Check.CHECKSUM, Check.MEMORY)
    assert outcome_of(look, Check.CHECKSUM) is Outcome.FAILED
    assert outcome_of(look, Check.MEMORY) is Outcome.PASSED
    assert types.CHECKSUM_WRONG in [entry.event for entry in bench.logged()]


def change_day(bench: DiagnosisBench, day: int, *, values_by: int, register_by: int) -> None:
    """Alter what is stored of a day's only channel."""
    opening, advance, count, packed, missing = bench.storage.get(DAYS, (day, 1))
    values = unpack(packed, count)
    values[3] += values_by
    row = [opening, advance + register_by, count, pack(values), missing]
    bench.storage.put((DAYS, (day, 1), row))


@pytest.mark.requirement("I2-FR-14")
@pytest.mark.parametrize(("values_by", "register_by"), [(7, 0), (0, 7), (-1, 0)])
def test_register_that_is_not_the_sum_of_the_intervals_is_found(
    values_by: int, register_by: int
) -> None:
    bench = DiagnosisBench()
    assert outcome_of(bench.look(Check.DATA), Check.DATA) is Outcome.PASSED
    change_day(bench, TODAY - 20, values_by=values_by, register_by=register_by)
    look = bench.look(Check.DATA)
    assert outcome_of(look, Check.DATA) is Outcome.FAILED
    assert f"day {TODAY - 20}" in look.findings[0].detail
    assert types.DATA_CONTRADICTED in found(bench)


def test_day_that_does_not_open_where_the_one_before_closed_is_found() -> None:
    bench = DiagnosisBench()
    change_day(bench, TODAY - 20, values_by=7, register_by=7)
    (finding,) = bench.look(Check.DATA).findings
    assert finding.detail.startswith(f"day {TODAY - 19}, channel 1: opens at")


@pytest.mark.requirement("I2-FR-17")
def test_recording_error_is_a_metrology_event_that_is_stored_and_sent_at_once() -> None:
    bench = DiagnosisBench()
    assert outcome_of(bench.look(Check.METROLOGY), Check.METROLOGY) is Outcome.PASSED
    # Consistent in itself, and not what was measured.
    change_day(bench, TODAY - 1, values_by=50, register_by=50)
    look = bench.look(Check.METROLOGY)
    assert look.findings == (
        Finding(
            Check.METROLOGY,
            Outcome.FAILED,
            f"day {TODAY - 1}: recorded 2450 Wh, measured 2400 Wh",
        ),
    )
    bench.elapse(60)
    stored = [entry for entry in bench.logged() if entry.event == types.METROLOGY_FAILED]
    assert stored == bench.sent
    assert len(stored) == 1


@pytest.mark.parametrize(("more", "outcome"), [(4, Outcome.PASSED), (5, Outcome.FAILED)])
def test_metrology_allows_two_in_a_thousand(more: int, outcome: Outcome) -> None:
    bench = DiagnosisBench()
    change_day(bench, TODAY - 1, values_by=more, register_by=more)
    assert outcome_of(bench.look(Check.METROLOGY), Check.METROLOGY) is outcome


@pytest.mark.requirement("I2-NFR-06")
@pytest.mark.parametrize(("days", "runs"), [(1, 60), (28, 3)])
def test_metrology_check_runs_as_often_as_set_and_each_result_goes_with_the_next_read(
    days: int, runs: int
) -> None:
    bench = DiagnosisBench()
    bench.follow(DiagnosisPlan(period_h=744, metrology_days=days))
    results: list[int] = []

    def report() -> None:
        """The daily report, as the recorder says what goes into it, and its acknowledgement."""
        if bench.now % DAY:
            return
        entries = bench.recorder.entries_due(bench.recorder.day_of(bench.clock.utc(bench.now)))
        results.extend(entry.at for entry in entries if entry.event == types.METROLOGY_CHECKED)
        bench.storage.settle_entries([entry.sequence for entry in entries])

    bench.live(60 * DAY, then=report)
    checked = [
        at for at, look in bench.looks if Check.METROLOGY in {f.check for f in look.findings}
    ]
    assert len(checked) == runs
    assert len(results) == runs
    epoch = bench.clock.utc(0)
    delivered = dict.fromkeys(results)
    assert [round(at - epoch) for at in delivered] == [int(at) for at in checked]


@pytest.mark.requirement("I2-NFR-06")
@pytest.mark.parametrize(("days", "is_taken"), [(0, False), (1, True), (28, True), (29, False)])
def test_metrology_period_is_a_day_to_a_month(days: int, is_taken: bool) -> None:
    bench = DiagnosisBench()
    payload = cbor2.dumps([24, days])
    if is_taken:
        assert bench.ask(Code.PUT, payload).code == Code.CHANGED
    else:
        with pytest.raises(ModelError):
            bench.ask(Code.PUT, payload)
    assert bench.part.plan.metrology_days == (days if is_taken else 1)


def test_last_look_and_period_survive_a_restart_and_the_next_look_is_not_sooner() -> None:
    bench = DiagnosisBench()
    assert bench.ask(Code.GET).code == Code.NOT_FOUND
    bench.follow(DiagnosisPlan(period_h=48, metrology_days=2))
    bench.live(FIRST_AFTER_S + 1)
    last = bench.part.last
    assert last is not None
    bench.restart()
    assert Diagnosis.decode(bench.ask(Code.GET).payload) == last
    bench.looks.clear()
    bench.live(2 * DAY - HOUR)
    assert bench.looks == []
    bench.live(2 * HOUR)
    ((_, look),) = bench.looks
    assert look.occasion is Occasion.SCHEDULE


def test_look_on_demand_at_one_thing_puts_off_no_other() -> None:
    bench = DiagnosisBench()
    bench.live(FIRST_AFTER_S + 1)
    bench.looks.clear()
    bench.live(12 * HOUR)
    assert [one.check for one in bench.look(Check.DATA).findings] == [Check.DATA]
    bench.live(12 * HOUR)
    ((_, look),) = bench.looks
    assert len(look.findings) == 4


def test_check_that_raises_has_failed_and_ends_no_other() -> None:
    def broken(_: float) -> Result:
        raise SourceError("no such thing")

    bench = DiagnosisBench(others={Check.BATTERY: broken})
    look = bench.look()
    assert len(look.findings) == 5
    assert [one.check for one in look.failed] == [Check.BATTERY]
    assert look.failed[0].detail == "SourceError: no such thing"


def test_look_that_cannot_be_kept_is_done_again() -> None:
    bench = DiagnosisBench(others={Check.BATTERY: lambda _: failed("2.1 V")})
    bench.elapse(FIRST_AFTER_S)
    bench.files.fails_with = 28
    with pytest.raises(StoreError):
        bench.part.handle_timer(now=bench.now)
    assert bench.part.next_timer() == bench.now + STORAGE_RETRY_S
    bench.files.fails_with = None
    assert bench.ask(Code.GET).code == Code.NOT_FOUND
    assert bench.logged() == []
    bench.live(STORAGE_RETRY_S)
    assert types.BATTERY_LOW in found(bench)
    assert bench.ask(Code.GET).code == Code.CONTENT


def test_meter_that_lost_the_time_looks_all_the_same() -> None:
    bench = DiagnosisBench(is_clock_set=False, others={Check.CLOCK: lambda _: failed("unset")})
    bench.live(2 * DAY)
    assert [look.occasion for _, look in bench.looks] == [
        Occasion.INSTALLATION,
        Occasion.SCHEDULE,
    ]


def test_resource_takes_what_is_of_the_model_alone() -> None:
    bench = DiagnosisBench()
    assert bench.ask(Code.DELETE).code == Code.METHOD_NOT_ALLOWED
    with pytest.raises(ModelError):
        bench.ask(Code.POST, b"\x00")
    with pytest.raises(ModelError):
        bench.ask(Code.PUT, cbor2.dumps([745, 1]))


# The checks by themselves


def test_each_failure_has_an_event_of_its_own() -> None:
    assert set(EVENTS) == set(Check)
    assert len(set(EVENTS.values())) == len(Check)
    critical = (Check.PROGRAM, Check.CHECKSUM, Check.MEMORY, Check.UPGRADE, Check.METROLOGY)
    for check in (*critical, Check.CLOCK):
        assert kind_of(EVENTS[check]).delivery is Delivery.AT_ONCE


def test_room_has_a_least() -> None:
    bench = DiagnosisBench()
    for free, outcome in (
        (None, Outcome.PASSED),
        (ROOM_OCTETS_MIN, Outcome.PASSED),
        (ROOM_OCTETS_MIN - 1, Outcome.FAILED),
    ):
        assert room_of(bench.storage, lambda free=free: free)(0.0)[0] is outcome  # type: ignore[misc]
    row = [0, "3.1.0.1", None, False, True]
    most = int(LOG_SHARE_MAX * ENTRY_COUNT_MAX)
    bench.storage.put(*(("log", number, row) for number in range(most)))
    assert room_of(bench.storage, lambda: None)(0.0)[0] is Outcome.PASSED
    bench.storage.put(("log", most, row))
    assert room_of(bench.storage, lambda: None)(0.0)[0] is Outcome.FAILED


def test_clock_passes_while_it_is_proved_to_be_right() -> None:
    bench = DiagnosisBench()
    examine = state_of(bench.clock)
    assert examine(0.0)[0] is Outcome.PASSED
    assert examine(10.0 * DAY)[0] is Outcome.FAILED
    bench.clock.move(-60.0, now=0.0)
    assert examine(0.0) == (Outcome.PASSED, "to be corrected by +60.0 s")
    bench.clock.move(-61.0, now=0.0)
    assert examine(0.0)[0] is Outcome.FAILED
    unset = DiagnosisBench(is_clock_set=False)
    assert state_of(unset.clock)(0.0) == failed("unset, never compared")


def test_communication_has_failed_after_a_day_without_an_acknowledgement() -> None:
    examine = communication_of(lambda: 1000.0, 0.0)
    assert examine(1000.0 + UNHEARD_S)[0] is Outcome.PASSED
    assert examine(1001.0 + UNHEARD_S)[0] is Outcome.FAILED
    assert communication_of(lambda: None, 0.0)(UNHEARD_S + 1.0)[0] is Outcome.FAILED


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (None, Outcome.NOT_POSSIBLE),
        (2.69, Outcome.FAILED),
        (2.7, Outcome.PASSED),
        (4.0, Outcome.PASSED),
        (4.1, Outcome.FAILED),
    ],
)
def test_level_has_bounds(value: float | None, outcome: Outcome) -> None:
    assert level_of(lambda: value, least=2.7, most=4.0, unit="V")(0.0)[0] is outcome


def test_table_that_has_become_empty_is_no_difference() -> None:
    bench = DiagnosisBench()
    bench.recorder.settle(TODAY - 1, [])
    for day in bench.recorder.owed_days():
        bench.recorder.settle(day, [])
    bench.restart()
    for day in bench.recorder.owed_days():
        bench.recorder.settle(day, [])
    assert outcome_of(bench.look(Check.MEMORY), Check.MEMORY) is Outcome.PASSED


def test_sensor_that_is_silent_has_failed_and_a_made_up_load_has_none() -> None:
    clock = MeterClock(utc=MIDNIGHT + 100.0, now=0.0)
    source = live()
    examine = sensor_of(source, clock)
    assert examine(0.0) == failed("never heard")
    feed(source, (100, 5))
    assert examine(SILENCE_S)[0] is Outcome.PASSED
    assert examine(SILENCE_S + 1) == failed("silent for 61 s")
    made_up = ConstantSource(watts=1, interval_s=900)
    assert sensor_of(made_up, clock)(0.0)[0] is Outcome.NOT_POSSIBLE
