"""The days of each channel: steps that were measured, folded into intervals under a register.

Gives   interval blocks of a day, midnight register reads, the registers now
Raises  StoreError when the storage fails; SourceError when the source does
Never   lets a register fall, or begin anew when a programme takes its channel away and back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.model import IntervalBlock, pack, unpack
from amistack.model.quality import Quality, QualityRun, runs_of
from amistack.model.quantity import Measured, Quantity
from amistack.model.wire import DAY_S
from meterd.programme.shelf import Shelf
from meterd.recording.folding import NOTHING, Running, fold
from meterd.recording.measuring import Metering, Value
from meterd.recording.plan import Plan, Track
from meterd.storage import RUNNING, STOOD, ChannelDay, Storage

DIAL: Final = "dial"
"""The note that a real meter's dial was seen at the end of an interval."""
REACTIVE_DIAL: Final = "dial of reactive energy"
"""The same of a dial that is recorded only where a programme asks for it."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Steps of a day that are recorded together, in all quantities."""

    day: int
    begin: int
    plan: Plan
    values: dict[Quantity, list[Value]]
    tiers: Sequence[int]
    dials: dict[Quantity, int]
    first_dials: frozenset[Quantity]
    """Of which quantities the dial is seen for the first time."""

    def steps(self, what: Measured) -> list[Value]:
        """What was measured, step by step: none of it while another tariff is in force."""
        values = self.values[what.quantity]
        if not what.tier:
            return values
        return [
            value if tier == what.tier else 0
            for value, tier in zip(values, self.tiers, strict=True)
        ]


class DayRecorder:
    """What is recorded of each channel, day by day."""

    def __init__(
        self, storage: Storage, metering: Metering, shelf: Shelf, *, register_start: Sequence[int]
    ) -> None:
        """`register_start`: where the registers of the source's flows begin (Wh)."""
        self._storage = storage
        self._metering = metering
        self._shelf = shelf
        self._register_start = register_start

    def record(self, day: int, begin: int, count: int) -> list[Value]:
        """Record `count` steps of a day from `begin` on; what was delivered in each (Wh)."""
        span = self._measure(day, begin, count)
        before = {one.channel: one for one in self._storage.channel_days(day)}
        if not before:
            self._stand_still(day)
        days = []
        jumps: dict[Quantity, int] = {}
        for track in span.plan.tracks:
            so_far = before.get(track.number) or self._new_day(day, track)
            days.append(self._extend(so_far, track, span, jumps))
        self._storage.keep_channel_days(days)
        for note in {_note_of(quantity) for quantity in span.first_dials}:
            self._storage.keep_note(note, "seen")
        return span.values[Quantity.DELIVERED]

    def _measure(self, day: int, begin: int, count: int) -> _Span:
        plan = self._shelf.of_day(day).plan
        wanted = {track.what.quantity for track in plan.tracks} | {Quantity.DELIVERED}
        values = self._metering.steps(wanted, begin, count, step_s=plan.step_s)
        end = begin + count * plan.step_s
        shown = {quantity: self._metering.dial(quantity, end) for quantity in wanted}
        dials = {quantity: dial for quantity, dial in shown.items() if dial is not None}
        first_dials = frozenset(
            quantity for quantity in dials if self._storage.note(_note_of(quantity)) is None
        )
        tiers = self._tiers(plan, day, begin, count)
        return _Span(day, begin, plan, values, tiers, dials, first_dials)

    def _tiers(self, plan: Plan, day: int, begin: int, count: int) -> Sequence[int]:
        """The tariff in force in each step."""
        if plan.calendar is None:
            return ()
        kind = plan.calendar.day_type(day)
        minute = (begin - self._start_of(day)) // 60
        return [kind.tier_at(minute + step * plan.step_s // 60) for step in range(count)]

    def _extend(
        self, so_far: ChannelDay, track: Track, span: _Span, jumps: dict[Quantity, int]
    ) -> ChannelDay:
        """A channel's day with the steps of a span behind it. `jumps`: what the dials moved more.

        Tracks of all tariffs come before those of one, so that their jump is known.
        """
        quantity, step_s = track.what.quantity, span.plan.step_s
        running = self._running(span.day, track.number)
        covered = so_far.count * track.interval_s + running.passed_s
        # A first record in the middle of a day: what came before is not known.
        gap = (span.begin - self._start_of(span.day) - covered) // step_s
        steps = span.steps(track.what)
        finished, left = fold(
            quantity, track.interval_s, step_s, running, [*([None] * gap), *steps]
        )
        values = unpack(so_far.packed, so_far.count)
        missing = so_far.missing
        for value in finished:
            if value is None:
                missing |= 1 << len(values)
            values.append(value or 0)
        counted = steps if quantity.is_counted else finished
        opening = so_far.opening
        advance = so_far.advance + sum(value or 0 for value in counted)
        dial = span.dials.get(quantity)
        if track.what.tier:
            if jumps.get(quantity) and span.tiers[-1] == track.what.tier:
                advance += jumps[quantity]
        elif dial is not None and quantity in span.first_dials:
            # The first time that the meter's own dial is seen: it says where to begin.
            opening = dial - advance
        elif dial is not None:
            # What flowed in gaps is in no interval, and on the dial all the same.
            moved = dial - opening
            moved = moved if quantity is Quantity.NET else max(moved, advance)
            jumps[quantity] = moved - advance
            advance = moved
        self._keep_running(span.day, track.number, running, left)
        return ChannelDay(
            span.day, track.number, opening, advance, len(values), pack(values), missing
        )

    # What is told

    def blocks(self, day: int) -> list[IntervalBlock]:
        """The blocks of a day as far as it is recorded, one for each channel."""
        tracks = {track.number: track for track in self._shelf.of_day(day).plan.tracks}
        return [
            self._block(one, tracks[one.channel])
            for one in self._storage.channel_days(day)
            if one.channel in tracks
        ]

    def _block(self, one: ChannelDay, track: Track) -> IntervalBlock:
        flags: tuple[QualityRun, ...] = ()
        if one.missing:
            flags = runs_of(
                [Quality.MISSING if one.missing >> i & 1 else Quality(0) for i in range(one.count)]
            )
        # What the running interval has so far is on the register, and in no interval yet.
        ahead = self._running(one.day, one.channel).total if track.what.quantity.is_counted else 0
        return IntervalBlock(
            one.channel,
            track.interval_s,
            one.count,
            one.opening,
            one.advance - ahead,
            one.packed,
            flags,
        )

    def registers(self, day: int, begin: int, utc: float) -> tuple[tuple[int, int], ...]:
        """Channel and register at `utc`, in the step of `day` that begins at `begin`."""
        plan = self._shelf.of_day(day).plan
        days = {one.channel: one for one in self._storage.channel_days(day)}
        (tier,) = self._tiers(plan, day, begin, 1) or (0,)
        found: dict[int, int] = {}
        jumps: dict[Quantity, int] = {}
        for track in plan.tracks:
            quantity = track.what.quantity
            one = days.get(track.number) or self._new_day(day, track)
            register = one.opening + one.advance
            if quantity.is_counted:
                dial = self._metering.dial(quantity, utc)
                moved = self._metering.part(quantity, begin, utc, step_s=plan.step_s) or 0
                if dial is not None and not track.what.tier:
                    moved = jumps[quantity] = dial - register
                if not track.what.tier or track.what.tier == tier:
                    register += jumps.get(quantity, moved)
            found[track.number] = register
        return tuple(sorted(found.items()))

    # Where a register goes on

    def _new_day(self, day: int, track: Track) -> ChannelDay:
        """An empty day that opens with what the register showed at the end of the one before."""
        return ChannelDay(day, track.number, self._opening(day, track.what), 0, 0, b"", 0)

    def _opening(self, day: int, what: Measured) -> int:
        before = self._shelf.of_day(day - 1).plan.track_of(what)
        if before is not None:
            for one in self._storage.channel_days(day - 1):
                if one.channel == before.number:
                    return one.opening + one.advance
        if what.quantity is Quantity.NET:
            delivered, received = Measured(Quantity.DELIVERED), Measured(Quantity.RECEIVED)
            return self._opening(day, delivered) - self._opening(day, received)
        stood: int | None = self._storage.get(STOOD, str(what))
        return self._start(what) if stood is None else stood

    def _start(self, what: Measured) -> int:
        """Where a register that never was begins."""
        if what.tier or not what.quantity.is_counted:
            return 0
        count = len(self._metering.source.flows)
        start = (*self._register_start, *([0] * count))[:count]
        return self._metering.of_flows(what.quantity, start) or 0

    def _stand_still(self, day: int) -> None:
        """As a day begins: keep where the registers stand that it no longer records."""
        now = self._shelf.of_day(day).plan
        before = self._shelf.of_day(day - 1).plan
        if before == now:
            return
        last = {one.channel: one for one in self._storage.channel_days(day - 1)}
        self._storage.put(
            *(
                (STOOD, str(track.what), last[track.number].opening + last[track.number].advance)
                for track in before.tracks
                if track.number in last and now.track_of(track.what) is None
            )
        )

    # The running interval

    def _running(self, day: int, channel: int) -> Running:
        row = self._storage.get(RUNNING, channel)
        return Running(*row[1:]) if row is not None and row[0] == day else NOTHING

    def _keep_running(self, day: int, channel: int, before: Running, now: Running) -> None:
        if now.passed_s:
            row = [day, now.passed_s, now.total, now.is_broken]
            self._storage.put((RUNNING, channel, row))
        elif before.passed_s:
            self._storage.put((RUNNING, channel, None))

    def _start_of(self, day: int) -> int:
        return day * DAY_S - self._shelf.offset_s


def _note_of(quantity: Quantity) -> str:
    """What notes that its dial was seen."""
    return REACTIVE_DIAL if quantity is Quantity.REACTIVE else DIAL
