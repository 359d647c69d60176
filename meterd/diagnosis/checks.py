"""The checks that need nothing but the meter's own storage, recorder, clock and counters.

Gives   functions from what is there to an outcome and its words
Never   repairs anything, or logs: that is the diagnosis's
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from amistack.errors import ModelError
from amistack.model import (
    ClockState,
    FlowDirection,
    IntervalBlock,
    interval_energy,
)
from amistack.model.diagnosis import Outcome
from amistack.model.wire import DAY_S
from meterd.clock import MeterClock
from meterd.clock.rules import Judgement, judge
from meterd.journal import Journal
from meterd.metrology import Flow, LiveSource, Source
from meterd.metrology.live import SILENCE_S
from meterd.recorder import Recorder
from meterd.storage import DAY, ENTRY_COUNT_MAX, LOG, Storage

Result = tuple[Outcome, str]
Examine = Callable[[float], Result]
"""A check: what it finds at the monotonic time it is given."""

ROOM_OCTETS_MIN: Final = 16 * 1024 * 1024
"""Free on the disk: some hundred segments of the journal."""
LOG_SHARE_MAX: Final = 0.95
ENERGY_SHARE_MAX: Final = 0.002
"""By how much recorded and measured energy may differ: the class of a good meter."""
ENERGY_WH_MAX: Final = 2
UNHEARD_S: Final = 25 * 3600
"""Seconds without an acknowledgement after which communication has failed: a report a day."""

PASSED: Final[Result] = (Outcome.PASSED, "")
NOT_POSSIBLE: Final[Result] = (Outcome.NOT_POSSIBLE, "")


def failed(detail: str) -> Result:
    """A failure in words."""
    return Outcome.FAILED, detail


def checksum_of(journal: Journal) -> Examine:
    """Whether the journal's octets have their check sums."""

    def examine(_: float) -> Result:
        on_disk, _in_use = journal.examine()
        return PASSED if on_disk is None else failed(on_disk)

    return examine


def memory_of(journal: Journal) -> Examine:
    """Whether the tables in use are those on disk."""

    def examine(_: float) -> Result:
        _on_disk, in_use = journal.examine()
        return PASSED if in_use is None else failed(in_use)

    return examine


def room_of(storage: Storage, free_octets: Callable[[], int | None]) -> Examine:
    """Whether the disk and the log have room; `free_octets`: None where nobody knows."""

    def examine(_: float) -> Result:
        entries = len(storage.items(LOG))
        if entries > LOG_SHARE_MAX * ENTRY_COUNT_MAX:
            return failed(f"{entries} of {ENTRY_COUNT_MAX} log entries")
        free = free_octets()
        if free is not None and free < ROOM_OCTETS_MIN:
            return failed(f"{free // 1024} KiB free, at least {ROOM_OCTETS_MIN // 1024} wanted")
        return PASSED

    return examine


def state_of(clock: MeterClock) -> Examine:
    """Whether the clock is proved to be right, or is about to be set right by its keeper."""

    def examine(now: float) -> Result:
        state = clock.state_at(now)
        if state is ClockState.SET:
            return PASSED
        best = clock.best_at(now)
        if best is None:
            return failed(f"{state.name.lower()}, never compared")
        bound = best.bound_at(now)
        if clock.is_set and judge(best.error_s, bound) is Judgement.CORRECTABLE:
            return Outcome.PASSED, f"to be corrected by {best.error_s:+.1f} s"
        return failed(f"{state.name.lower()}, {best.error_s:+.1f} s, give or take {bound:.1f} s")

    return examine


def data_of(storage: Storage, recorder: Recorder) -> Examine:
    """Whether what is stored contradicts itself: intervals and registers, day after day."""

    def examine(_: float) -> Result:
        before: dict[int, IntervalBlock] = {}
        newest = None
        for day in sorted({day for (day, _), _ in storage.items(DAY)}):
            if newest is not None and day != newest + 1:
                before = {}
            newest = day
            blocks = {block.channel: block for block in recorder.block(day)}
            for number, block in blocks.items():
                fault = _fault_of(block, before.get(number))
                if fault is not None:
                    return failed(f"day {day}, channel {number}: {fault}")
            kinds = {one.number: one.register_type for one in recorder.channels_of(day)}
            tomorrow = {one.number: one.register_type for one in recorder.channels_of(day + 1)}
            # A register goes on where its channel does: another programme may have others.
            before = {
                number: block
                for number, block in blocks.items()
                if kinds.get(number) == tomorrow.get(number) and not block.has_missing
            }
        return PASSED

    return examine


def _fault_of(block: IntervalBlock, before: IntervalBlock | None) -> str | None:
    try:
        is_consistent = block.is_consistent
    except ModelError as error:
        return f"cannot be read: {error.reason}"
    if not is_consistent:
        total = sum(value or 0 for value in block.values())
        return f"intervals {total}, register {block.advance}"
    if before is not None and before.closing != block.opening:
        return f"opens at {block.opening}, closed at {before.closing}"
    return None


def metrology_of(recorder: Recorder, source: Source, clock: MeterClock) -> Examine:
    """Whether the last whole day was recorded as it was measured."""

    def examine(now: float) -> Result:
        day = recorder.day_of(clock.utc(now)) - 1
        block = _delivered(recorder, day)
        if block is None or block.has_missing or Flow.DELIVERED not in source.flows:
            return NOT_POSSIBLE
        place = source.flows.index(Flow.DELIVERED)
        measured = [
            energy[place]
            for energy in source.energy(recorder.start_of(day), DAY_S // source.interval_s)
        ]
        if None in measured:
            return NOT_POSSIBLE
        total = sum(one or 0 for one in measured)
        recorded = sum(value or 0 for value in block.values())
        if abs(recorded - total) > max(ENERGY_WH_MAX, ENERGY_SHARE_MAX * abs(total)):
            return failed(f"day {day}: recorded {recorded} Wh, measured {total} Wh")
        return Outcome.PASSED, f"day {day}: {total} Wh"

    return examine


def _delivered(recorder: Recorder, day: int) -> IntervalBlock | None:
    """The whole day of the channel that counts all delivered energy, if there is one."""
    numbers = {
        channel.number
        for channel in recorder.channels
        if channel.reading_type == interval_energy(channel.interval_s, FlowDirection.FORWARD)
    }
    for block in recorder.block(day):
        if block.channel in numbers and block.count * block.interval_s == DAY_S:
            return block
    return None


def sensor_of(source: Source, clock: MeterClock) -> Examine:
    """Whether the real meter behind this one is heard, if there is one."""

    def examine(now: float) -> Result:
        if not isinstance(source, LiveSource):
            return NOT_POSSIBLE
        latest = source.latest_utc
        if latest is None:
            return failed("never heard")
        silent_s = clock.utc(now) - latest
        return failed(f"silent for {silent_s:.0f} s") if silent_s > SILENCE_S else PASSED

    return examine


def communication_of(last_heard: Callable[[], float | None], began: float) -> Examine:
    """Whether the head-end acknowledged anything lately; `last_heard` is monotonic."""

    def examine(now: float) -> Result:
        heard = last_heard()
        silent_s = now - (began if heard is None else heard)
        if silent_s > UNHEARD_S:
            return failed(f"nothing acknowledged for {silent_s / 3600:.0f} h")
        return PASSED

    return examine


def level_of(
    read: Callable[[], float | None], *, least: float = 0.0, most: float, unit: str
) -> Examine:
    """Whether a sensor's value is within its bounds; it is None where there is no sensor."""

    def examine(_: float) -> Result:
        value = read()
        if value is None:
            return NOT_POSSIBLE
        words = f"{value:.2f} {unit}"
        return (Outcome.PASSED, words) if least <= value <= most else failed(words)

    return examine
