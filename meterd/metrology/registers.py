"""Follow what a meter's dials show: one register that never falls, made of dials that do.

A reading continues the one before it when it is of the same meter, shows the same registers, and
none of them rose by more than `power_max_w` could have moved it; a dial that passed its width is
such a rise too. Whatever does not continue is held back until CONFIRM_COUNT readings over
CONFIRM_S seconds agree with each other, so that one garbled telegram changes nothing. Then it is
told what it was:

    rolled over   the dial passed its width; the energy is known, nothing is missing
    exchanged     another serial number; without any, a fall to some other figure, or a leap
    reset         the same meter (or none named) began again near zero, or was set to a figure

After an exchange or a reset the register goes on from where it was, with what the new dial has
moved since. What flowed unseen in between is not known: the era changes, and an interval across
two eras has no value.

Gives   the register of each flow (mWh), the era, notes on what happened, a state to go on from
Raises  SourceError from `resume` on a state that is none
Limit   REGISTER_COUNT_MAX registers in a reading; one candidate is watched at a time
Never   reads a clock: UTC comes with each reading
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from amistack.errors import SourceError
from meterd.metrology.source import SECOND_MAX, Flow

MWH_PER_WH: Final = 1000
HOUR_S: Final = 3600

CONFIRM_COUNT: Final = 3
CONFIRM_S: Final = 30.0
SLACK_S: Final = 60.0
"""Seconds of full power that a reading may be ahead of the clock: telegrams are late at times."""
REGISTER_COUNT_MAX: Final = 16
REGISTER_MWH_MAX: Final = 10**15
"""mWh, nine digits of kWh: a figure beyond it is no meter's."""
TOTAL_MWH_MAX: Final = 10**18
"""mWh; what no sum of registers reaches, and a report can still carry."""
METER_SIZE_MAX: Final = 64
"""Characters of a meter's serial number."""
POWER_MAX_W: Final = 100_000
"""Watts; more than a house connection of 3 x 100 A can carry."""
_OPTIONAL: Final = frozenset((Flow.REACTIVE,))
_TOTAL_NAMES: Final = {
    Flow.DELIVERED: "1.8.0",
    Flow.RECEIVED: "2.8.0",
    Flow.REACTIVE: "3.8.0",
}


@dataclass(frozen=True, slots=True)
class Register:
    """What one dial shows: `mwh`, and the mWh at which it begins again from zero, if known."""

    name: str
    flow: Flow
    mwh: int
    width_mwh: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a meter: its dials, its serial number and its own time (UTC, s) if it says.

    `volts` are the voltages of the phases that it says. Of a reactive register `mwh` are mvarh.
    `power_w` is what the customer draws now, below 0 when fed back, `currents_a` the phases'.
    """

    registers: tuple[Register, ...]
    meter: str | None = None
    at: int | None = None
    volts: tuple[float, ...] = ()
    power_w: float | None = None
    currents_a: tuple[float, ...] = ()


class NoteKind(enum.Enum):
    """What there is to say about a sensor."""

    VANISHED = "sensor vanished"
    RETURNED = "sensor returned"
    OTHER_METER = "telegram of another meter"
    IMPLAUSIBLE = "implausible reading"
    ROLLED_OVER = "register rolled over"
    EXCHANGED = "meter exchanged"
    RESET = "register reset"


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the sensor that a person should know; `detail` is short text."""

    kind: NoteKind
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a reading: whether it counts, and what there is to say about it."""

    is_taken: bool
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reading with its arrival, by name of register."""

    utc: float
    meter: str | None
    shown: Mapping[str, Register]

    def line(self, name: str) -> str:
        """What a register shows, for people."""
        return f"{self.shown[name].mwh / 1_000_000:.3f} kWh"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Readings that agree with each other and not with what was before."""

    first: _Seen
    last: _Seen
    count: int


class RegisterTracker:
    """The dials of one meter, as one register for each flow."""

    def __init__(
        self,
        flows: Sequence[Flow],
        *,
        meter: str | None = None,
        power_max_w: float = POWER_MAX_W,
        width_mwh: int | None = None,
        start_mwh: Sequence[int] | None = None,
        is_guarded: bool = True,
    ) -> None:
        """`meter` is the only serial number that counts, if given; else the first one seen does.

        `width_mwh`: at which figure the dials begin again, if the operator knows it.
        `start_mwh`: where the registers begin; without it they begin at what the dials show.
        `is_guarded` is False where no check sum guards a figure: then even the first reading ever
        counts only when the next one continues it.
        """
        self.flows: Final = tuple(flows)
        self.era = 0
        self._only: Final = meter
        self._power_max_w: Final = power_max_w
        self._width_mwh: Final = width_mwh
        self._is_guarded: Final = is_guarded
        self._start: Final = None if start_mwh is None else tuple(start_mwh)
        self._total: tuple[int, ...] | None = None
        self._last: _Seen | None = None
        self._candidate: _Candidate | None = None

    @property
    def total_mwh(self) -> tuple[int, ...] | None:
        """The register of each flow, None before the first reading; none of them ever falls."""
        return self._total

    @property
    def meter(self) -> str | None:
        """The serial number of the meter that counts, as far as known."""
        return self._only if self._last is None else self._last.meter

    def shown_mwh(self, name: str) -> int | None:
        """What a dial showed in the last reading that counts."""
        register = None if self._last is None else self._last.shown.get(name)
        return None if register is None else register.mwh

    def take(self, reading: Reading, *, utc: float) -> Outcome:
        """Take what the meter showed at `utc`. A reading that does not count changes nothing."""
        shown = {
            one.name: one if self._width_mwh is None else replace(one, width_mwh=self._width_mwh)
            for one in reading.registers
            if one.flow in self.flows
        }
        fault = self._fault(reading, shown)
        if fault is not None:
            return Outcome(is_taken=False, notes=(fault,))
        seen = _Seen(utc, reading.meter, shown)
        if self._last is None:
            known = self._candidate
            if not self._is_guarded and (known is None or self._moved(known.last, seen) is None):
                self._candidate = _Candidate(seen, seen, 1)
                return Outcome(is_taken=False)
            self._candidate = None
            self._total = self._start or self._sums({n: one.mwh for n, one in shown.items()}, shown)
            self._last = seen
            return Outcome(is_taken=True)
        moved = self._moved(self._last, seen)
        if moved is None:
            return self._doubt(seen)
        rolled = tuple(
            Note(NoteKind.ROLLED_OVER, f"{name}: {self._last.line(name)} to {seen.line(name)}")
            for name, one in shown.items()
            if one.mwh < self._last.shown[name].mwh
        )
        self._advance(moved, seen)
        return Outcome(is_taken=True, notes=rolled)

    def break_off(self) -> None:
        """What flowed from now until the next reading is not measured: a new era."""
        self.era += 1

    def state(self) -> str | None:
        """What to keep so that `resume` can go on; None before the first reading."""
        if self._last is None or self._total is None:
            return None
        return json.dumps(
            {
                "at": self._last.utc,
                "meter": self._last.meter,
                "era": self.era,
                "total": list(self._total),
                "shown": {
                    name: [one.flow.value, one.mwh, one.width_mwh]
                    for name, one in self._last.shown.items()
                },
            },
            separators=(",", ":"),
        )

    def resume(self, text: str) -> float:
        """Go on from a `state`; the UTC second of its reading. Raises SourceError."""
        try:
            kept = json.loads(text)
            shown = {
                name: Register(
                    name, Flow(flow), _whole(mwh), None if width is None else _whole(width)
                )
                for name, (flow, mwh, width) in kept["shown"].items()
            }
            total = tuple(_whole(one) for one in kept["total"])
            at, meter, era = float(kept["at"]), kept["meter"], _whole(kept["era"])
            flows = [flow for flow in Flow if flow in {one.flow for one in shown.values()}]
            # Reactive energy may come and go: the others are followed on.
            if set(flows) - _OPTIONAL != set(self.flows) - _OPTIONAL or len(total) != len(flows):
                raise ValueError("other flows")
            if not 0 <= at <= SECOND_MAX:
                raise ValueError("no time")
            if meter is not None and not isinstance(meter, str):
                raise TypeError("no serial number")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SourceError(
                f"the kept state of the source is none ({error}), expected one of these flows: "
                "name a new storage folder"
            ) from None
        shown = {name: one for name, one in shown.items() if one.flow in self.flows}
        by_flow = dict(zip(flows, total, strict=True))
        self._last = _Seen(at, meter, shown)
        self._total, self.era = tuple(by_flow.get(flow, 0) for flow in self.flows), era
        return at

    # Whether a reading continues another

    def _fault(self, reading: Reading, shown: Mapping[str, Register]) -> Note | None:
        """Why a reading cannot count at all."""
        if self._only is not None and reading.meter != self._only:
            return Note(NoteKind.OTHER_METER, f"{reading.meter or 'none named'}"[:METER_SIZE_MAX])
        if len(shown) > REGISTER_COUNT_MAX or any(
            not 0 <= one.mwh <= REGISTER_MWH_MAX for one in shown.values()
        ):
            return Note(NoteKind.IMPLAUSIBLE, "more than a meter can show")
        there = {one.flow for one in shown.values()}
        for flow in self.flows:
            if flow not in there:
                return Note(NoteKind.IMPLAUSIBLE, f"no register of energy {flow.value}")
        return None

    def _moved(self, before: _Seen, seen: _Seen) -> dict[str, int] | None:
        """How far each dial moved (mWh); None if `seen` does not continue `before`."""
        if seen.meter != before.meter or seen.shown.keys() != before.shown.keys():
            return None
        limit = self._limit(before, seen)
        moved = {}
        for name, one in seen.shown.items():
            step = one.mwh - before.shown[name].mwh
            if step < 0 and one.width_mwh is not None:
                step += one.width_mwh
            if not 0 <= step <= limit:
                return None
            moved[name] = step
        return moved

    def _limit(self, before: _Seen, seen: _Seen) -> float:
        """The most that can have flowed in between, in mWh."""
        elapsed = max(seen.utc - before.utc, 0.0) + SLACK_S
        return self._power_max_w * elapsed * MWH_PER_WH / HOUR_S

    def _doubt(self, seen: _Seen) -> Outcome:
        """Watch what does not continue; take it for what it is once it has lasted."""
        assert self._last is not None, "the first reading is never in doubt"
        known = self._candidate
        if known is None or self._moved(known.last, seen) is None:
            self._candidate = _Candidate(seen, seen, 1)
            return Outcome(is_taken=False, notes=(self._suspicion(seen),))
        known = self._candidate = _Candidate(known.first, seen, known.count + 1)
        if known.count < CONFIRM_COUNT or seen.utc - known.first.utc < CONFIRM_S:
            return Outcome(is_taken=False)
        return Outcome(is_taken=True, notes=(self._accept(known),))

    def _suspicion(self, seen: _Seen) -> Note:
        assert self._last is not None, "the first reading is never in doubt"
        if seen.meter != self._last.meter:
            return Note(NoteKind.OTHER_METER, f"{seen.meter or 'none named'}"[:METER_SIZE_MAX])
        for name in seen.shown.keys() & self._last.shown.keys():
            if self._moved(_only(self._last, name), _only(seen, name)) is None:
                detail = f"{name}: {self._last.line(name)} to {seen.line(name)}"
                return Note(NoteKind.IMPLAUSIBLE, detail)
        return Note(NoteKind.IMPLAUSIBLE, "other registers than before")

    def _accept(self, known: _Candidate) -> Note:
        """The candidate is what the meter shows from now on."""
        assert self._last is not None, "the first reading is never in doubt"
        before, first, seen = self._last, known.first, known.last
        fallen = [
            name
            for name, one in first.shown.items()
            if name in before.shown and one.mwh < before.shown[name].mwh
        ]
        limit = self._limit(before, first)
        # Near zero: what the dial shows can have flowed since it was last seen elsewhere.
        restarted = {name for name in fallen if first.shown[name].mwh <= limit}
        is_same = seen.meter == before.meter and seen.shown.keys() == before.shown.keys()
        if is_same and seen.meter is None:
            # Nobody says who it is: only a dial that began again is taken for the same one.
            is_same = bool(fallen) and len(restarted) == len(fallen)
        kind = NoteKind.RESET if is_same else NoteKind.EXCHANGED
        if kind is NoteKind.EXCHANGED:
            restarted = set()
        moved = {
            name: one.mwh - (0 if name in restarted else self._origin(name, known))
            for name, one in seen.shown.items()
        }
        if kind is NoteKind.RESET:
            # Of dials that went on as before while others began again, all of it is known.
            for name in seen.shown.keys() - set(fallen):
                step = seen.shown[name].mwh - before.shown[name].mwh
                if step <= self._limit(before, seen):
                    moved[name] = step
        place = (fallen or list(seen.shown))[0]
        was = before.line(place) if place in before.shown else "nothing"
        detail = f"{place}: {was} to {first.line(place)}"
        if seen.meter != before.meter:
            detail = f"{_tail(before.meter)} to {_tail(seen.meter)}; {detail}"
        self.era += 1
        self._advance({name: max(step, 0) for name, step in moved.items()}, seen)
        return Note(kind, detail)

    def _origin(self, name: str, known: _Candidate) -> int:
        """What a new dial showed when it was first seen; across its width, less by that."""
        first, last = known.first.shown[name], known.last.shown[name]
        if last.mwh < first.mwh and last.width_mwh is not None:
            return first.mwh - last.width_mwh
        return first.mwh

    def _advance(self, moved: Mapping[str, int], seen: _Seen) -> None:
        assert self._total is not None, "the first reading has set it"
        self._last, self._candidate = seen, None
        steps = self._sums(moved, seen.shown)
        self._total = tuple(old + step for old, step in zip(self._total, steps, strict=True))

    def _sums(self, mwh: Mapping[str, int], shown: Mapping[str, Register]) -> tuple[int, ...]:
        """By flow, in the order of the flows, of what each register has."""
        return tuple(
            sum(value for name, value in mwh.items() if shown[name].flow is flow)
            for flow in self.flows
        )


def total_name(flow: Flow) -> str:
    """The name of the register of all tariffs (OBIS C.D.E)."""
    return _TOTAL_NAMES[flow]


def pick(registers: Sequence[Register]) -> tuple[Register, ...]:
    """Of each flow the total if there is one, else its tariffs."""
    totals = {one.flow for one in registers if one.name == total_name(one.flow)}
    return tuple(
        one for one in registers if one.flow not in totals or one.name == total_name(one.flow)
    )


def _only(seen: _Seen, name: str) -> _Seen:
    return _Seen(seen.utc, seen.meter, {name: seen.shown[name]})


def _tail(meter: str | None) -> str:
    """A serial number's last characters: what differs, and what fits in a log entry."""
    return "none" if meter is None else meter[-8:]


def _whole(number: object) -> int:
    if type(number) is not int or not 0 <= number <= TOTAL_MWH_MAX:
        raise ValueError(f"{str(number)[:40]} is no whole number from 0")
    return number
