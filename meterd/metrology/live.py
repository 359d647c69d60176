"""A source whose values arrive by themselves, kept at the boundaries of its intervals.

The register at a boundary is what the last reading at or before it showed, if that is at most
`tolerance_s` old; else it is not known, and the two intervals that meet there are gaps. Their
energy is not lost: it is in the register at the next boundary that is known.

Gives   the answers of a `Source`; the register at boundaries and now; a state to go on from
Raises  SourceError as every source does, and for a state that is none
Limit   BOUNDARY_COUNT_MAX boundaries are kept, the latest; older intervals become gaps
Never   fills in or estimates; reads a clock
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from amistack.errors import SourceError
from meterd.metrology.live_settings import TOLERANCE_S
from meterd.metrology.power import LivePower, PulsePower
from meterd.metrology.registers import MWH_PER_WH, Note, NoteKind, Reading, RegisterTracker
from meterd.metrology.source import (
    MINUTE_S,
    SECOND_MAX,
    Energy,
    Flow,
    check_settings,
    check_window,
)
from meterd.metrology.voltage import LiveSupply

BOUNDARY_COUNT_MAX: Final = 2_880
"""Ten days of five minutes: as long as the storage may be full before anything is lost."""
NOTE_COUNT_MAX: Final = 64
TROUBLE_SIZE_MAX: Final = 200
SILENCE_S: Final = 60.0
"""Seconds without a reading that counts, after which the sensor has vanished."""


class Telegrams(Protocol):
    """Finds readings in a stream of octets. Bad input is counted and never raises."""

    refused: Counter[str]
    """What was not taken, by reason."""

    def receive_data(self, data: bytes) -> Sequence[Reading]:
        """The readings that are complete with any further piece of the stream."""

    def reset(self) -> None:
        """The stream begins anew."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """The registers (Wh) at one moment, and the era they belong to."""

    utc: float
    era: int
    wh: tuple[int, ...]


class LiveSource:
    """The measuring part of a real meter, fed by a driver with `take`."""

    def __init__(
        self,
        tracker: RegisterTracker,
        *,
        interval_s: int = 900,
        offset_min: int = 0,
        known_from: int = 0,
        tolerance_s: float = TOLERANCE_S,
    ) -> None:
        """`known_from`: the UTC second before which nothing can be known. Raises ConfigError."""
        check_settings(interval_s, offset_min)
        self.interval_s: Final = interval_s
        self.flows: Final[tuple[Flow, ...]] = tracker.flows
        self.tolerance_s: Final = tolerance_s
        self._tracker: Final = tracker
        self._offset_min: Final = offset_min
        self._known_from: Final = known_from
        self._latest: _Mark | None = None
        self._marks: dict[int, _Mark] = {}

    # From the driver

    @property
    def meter(self) -> str | None:
        """The serial number of the meter behind it, as far as known."""
        return self._tracker.meter

    @property
    def latest_utc(self) -> float | None:
        """When the last reading that counts arrived."""
        return None if self._latest is None else self._latest.utc

    def take(self, reading: Reading, *, utc: float) -> tuple[bool, tuple[Note, ...]]:
        """Whether a reading that arrived at `utc` counts, and what there is to say about it."""
        if not 0 <= utc <= SECOND_MAX:
            return False, (Note(NoteKind.IMPLAUSIBLE, "the clock is not from 1970 to 9999"),)
        outcome = self._tracker.take(reading, utc=utc)
        if outcome.is_taken:
            self._settle(utc)
            self._latest = self._mark(utc)
        return outcome.is_taken, outcome.notes

    def break_off(self) -> None:
        """What flows until the next reading is not measured."""
        self._tracker.break_off()
        self._latest = None

    # As a source

    def energy(self, start: int, count: int, *, length_s: int | None = None) -> list[Energy]:
        """Wh in each of `count` intervals from `start` on; None where a boundary is not known.

        Ask about what is over: an answer stands, whatever a clock that goes back may bring. With
        `length_s`, a multiple of `interval_s`, of longer intervals: only their ends need be known.
        """
        self._check(start, count)
        length_s = length_s or self.interval_s
        marks = [self._pin(start + place * length_s) for place in range(count + 1)]
        return [self._between(marks[place], marks[place + 1]) for place in range(count)]

    def partial(self, start: int, now: float, *, length_s: int | None = None) -> Energy:
        """Wh from `start` to the last reading, within one interval."""
        self._check(start, 1)
        if math.isnan(now):
            raise SourceError("now is not a number, expected UTC seconds")
        if now >= start + (length_s or self.interval_s):
            return self.energy(start, 1, length_s=length_s)[0]
        if now <= start:
            return tuple(0 for _ in self.flows)
        return self._between(self._at(start), self._latest)

    def available(self) -> tuple[int | None, int | None]:
        """From when it was set up; there is no end."""
        return self._known_from, None

    def register(self, utc: float) -> tuple[int, ...] | None:
        """What the registers showed at `utc` (Wh, never less than before); None if not known."""
        mark = self._at(utc)
        return None if mark is None else mark.wh

    # Over a restart

    def state(self) -> str | None:
        """What to keep so that `resume` can go on; None before the first reading."""
        tracked = self._tracker.state()
        if tracked is None:
            return None
        last = max(self._marks, default=None)
        mark = None if last is None else self._marks[last]
        kept = None if mark is None else [last, mark.utc, mark.era, list(mark.wh)]
        return json.dumps({"tracker": tracked, "mark": kept}, separators=(",", ":"))

    def resume(self, text: str) -> None:
        """Go on from a `state`. Raises SourceError; then nothing has changed."""
        try:
            kept = json.loads(text)
            tracked, mark = kept["tracker"], kept["mark"]
            if not isinstance(tracked, str):
                raise TypeError("no text")
            marks = {}
            if mark is not None:
                at, utc, era, wh = mark
                if len(wh) != len(json.loads(tracked)["total"]):
                    raise ValueError("other flows")
                # Where reactive energy came or went, no boundary is known.
                if len(wh) == len(self.flows):
                    marks[int(at)] = _Mark(float(utc), int(era), tuple(int(one) for one in wh))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SourceError(
                f"the kept state of the source is none ({error}): name a new storage folder"
            ) from None
        utc = self._tracker.resume(tracked)
        self._marks = marks
        self._latest = self._mark(utc)

    # Marks

    def _mark(self, utc: float) -> _Mark:
        total = self._tracker.total_mwh
        assert total is not None, "a reading was taken"
        wh = tuple((2 * mwh + MWH_PER_WH) // (2 * MWH_PER_WH) for mwh in total)
        return _Mark(utc, self._tracker.era, wh)

    def _settle(self, utc: float) -> None:
        """Before a reading of `utc`: what the one before it was at a boundary in between."""
        before = self._latest
        if before is None:
            return
        boundary = self._boundary_from(before.utc)
        if boundary < utc and boundary - before.utc <= self.tolerance_s:
            self._keep(boundary, before)

    def _pin(self, boundary: int) -> _Mark | None:
        """The mark at a boundary, for good."""
        mark = self._at(boundary)
        if mark is not None:
            self._keep(boundary, mark)
        return mark

    def _keep(self, boundary: int, mark: _Mark) -> None:
        self._marks.setdefault(boundary, mark)
        while len(self._marks) > BOUNDARY_COUNT_MAX:
            del self._marks[min(self._marks)]

    def _boundary_from(self, utc: float) -> int:
        """The first boundary at or after `utc`."""
        offset_s = self._offset_min * MINUTE_S
        return math.ceil((utc + offset_s) / self.interval_s) * self.interval_s - offset_s

    def _at(self, utc: float) -> _Mark | None:
        if utc in self._marks:
            return self._marks[int(utc)]
        latest = self._latest
        if latest is not None and 0 <= utc - latest.utc <= self.tolerance_s:
            return latest
        return None

    def _between(self, first: _Mark | None, last: _Mark | None) -> Energy:
        if first is None or last is None or first.era != last.era:
            return tuple(None for _ in self.flows)
        return tuple(max(b - a, 0) for a, b in zip(first.wh, last.wh, strict=True))

    def _check(self, start: int, count: int) -> None:
        check_window(start, count, interval_s=self.interval_s, offset_min=self._offset_min)


class Sensor:
    """What stands between a driver and a source: whether the sensor is there, and what to tell.

    `take` and `check` come with UTC; `notes` are handed over once, oldest first.
    """

    def __init__(
        self,
        source: LiveSource,
        *,
        silence_s: float = SILENCE_S,
        supply: LiveSupply | None = None,
        power: LivePower | PulsePower | None = None,
    ) -> None:
        """`supply` gets the voltages, if anybody wants them; `power` what flows now."""
        self.source: Final = source
        self.supply: Final = supply
        self.power: Final = power or LivePower()
        self.readings = 0
        """How many counted."""
        self.refused: Counter[str] = Counter()
        """Readings that did not count, and octets that were none, by reason."""
        self.is_there = False
        self.trouble = "no reading yet"
        """Why it is not there, while it is not."""
        self._silence_s: Final = silence_s
        self._since: float | None = None
        self._has_vanished = False
        self._own_time: int | None = None
        self._notes: list[Note] = []

    def take(self, reading: Reading, *, utc: float, now: float | None = None) -> bool:
        """Take a reading that arrived at `utc`; whether it counts. Its power does so with `now`."""
        if reading.at is not None and reading.at == self._own_time:
            # A gateway that repeats itself: a reading's time must move on, or it says nothing.
            self.refused["same time as before"] += 1
            return False
        is_taken, notes = self.source.take(reading, utc=utc)
        self._note(*notes)
        if not is_taken:
            self.refused[notes[0].kind.value if notes else "held back"] += 1
            return False
        self._own_time = reading.at
        if self.supply is not None and reading.volts:
            self.supply.take(reading.volts, utc=utc)
        if now is not None:
            self.power.take(reading, now=now)
        self.readings += 1
        self._since = utc
        self.is_there, self.trouble = True, ""
        if self._has_vanished:
            self._has_vanished = False
            self._note(Note(NoteKind.RETURNED, self.source.meter or "no serial number"))
        return True

    def check(self, *, utc: float) -> None:
        """Notice silence. Calling early, late or twice is harmless."""
        if self._since is None or utc < self._since:
            self._since = utc
        if utc - self._since >= self._silence_s and not self._has_vanished:
            most = self.refused.most_common(1)
            why = f"; refused: {most[0][0]}" if most else ""
            self.lose(f"no reading for {self._silence_s:g} s{why}")

    def lose(self, trouble: str) -> None:
        """The device is gone, or cannot be had."""
        self.power.forget()
        self.is_there, self.trouble = False, trouble[:TROUBLE_SIZE_MAX]
        if not self._has_vanished:
            self._has_vanished = True
            self._note(Note(NoteKind.VANISHED, self.trouble))

    def notes(self) -> list[Note]:
        """What there is to tell. Each is handed over once."""
        notes, self._notes = self._notes, []
        return notes

    def _note(self, *notes: Note) -> None:
        """At most NOTE_COUNT_MAX wait to be collected: of more, the latest."""
        self._notes = [*self._notes, *notes][-NOTE_COUNT_MAX:]
