"""What flows through a real meter now, by its latest reading that counts.

A reading is of now for FRESH_S; after the relay was moved only one counts that came SETTLE_S or
more behind the move, since a telegram is made before it is sent, of the second before.

In      `take` (a reading that counts), `forget` (the device is gone); time is monotonic, so that
        a clock that is corrected makes nothing older or newer
Gives   `look`: power and current, None for what is not known
Limit   keeps one reading; a power beyond POWER_W_MAX is none
Never   fills in: without a reading of now nothing is known
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from meterd.metrology.registers import HOUR_S, MWH_PER_WH, Reading

FRESH_S: Final = 12.0
"""Seconds: the slowest P1 ports send every ten."""
SETTLE_S: Final = 2.0
"""Seconds from a move until a reading that comes is of what is so since."""
POWER_W_MAX: Final = 1_000_000
AMPERES_MAX: Final = 10_000.0
NOMINAL_MV: Final = 230_000
FLOW_W: Final = 9.0
"""Watts; below is no current at the nominal voltage (`meterd.service.interface.FLOW_MA`)."""


@dataclass(frozen=True, slots=True)
class Flowing:
    """What flows now: W drawn by the customer, below 0 when fed back, and mA through the meter."""

    power_w: int
    current_ma: int


class LivePower:
    """What a meter that says its power said last."""

    def __init__(self) -> None:
        self._flowing: Flowing | None = None
        self._at = -math.inf

    def take(self, reading: Reading, *, now: float) -> None:
        """A reading that counts came at `now`; one without power leaves the one before to age."""
        if reading.power_w is None:
            return
        flowing = flowing_of(reading.power_w, reading.currents_a)
        if flowing is not None:
            self._flowing, self._at = flowing, now

    def forget(self) -> None:
        """The device is gone."""
        self._flowing = None

    def look(self, *, now: float, moved: float = -math.inf) -> Flowing | None:
        """What flows at `now`, of a relay that was last told to move at `moved`."""
        if now - self._at > FRESH_S or self._at < moved + SETTLE_S:
            return None
        return self._flowing


class PulsePower:
    """What pulses say of the power: one pulse's energy in the time since the pulse before.

    While none comes, the power is at most one pulse's energy in the time since the last one, and
    that is what is told. After a move of the relay two pulses after it make a power; none for so
    long that no current can have flowed makes 0; in between nothing is known.
    """

    def __init__(self, pulses_per_kwh: int) -> None:
        self._pulse_mwh: Final = 1000 * MWH_PER_WH / pulses_per_kwh
        self._seen: float | None = None
        self._mwh = 0
        self._pulsed: float | None = None
        self._before: float | None = None
        self._watts = 0.0

    def take(self, reading: Reading, *, now: float) -> None:
        """A reading that counts came at `now`: one of its register, moved by pulses or not."""
        mwh = sum(one.mwh for one in reading.registers)
        moved_mwh = mwh - self._mwh
        if self._seen is not None and moved_mwh > 0:
            self._before, self._pulsed = self._pulsed, now
            if self._before is not None and now > self._before:
                self._watts = moved_mwh / MWH_PER_WH * HOUR_S / (now - self._before)
        self._seen, self._mwh = now, mwh

    def forget(self) -> None:
        """The input is gone: pulses may be missed."""
        self._seen = self._pulsed = self._before = None

    def look(self, *, now: float, moved: float = -math.inf) -> Flowing | None:
        """What flows at `now`, of a relay that was last told to move at `moved`."""
        seen, settled = self._seen, moved + SETTLE_S
        if seen is None or now - seen > FRESH_S or seen < settled:
            return None
        if self._pulsed is None or self._pulsed < settled:
            # Nothing since the move: at most one pulse's worth in the time.
            if moved == -math.inf or self._most(seen - settled) >= FLOW_W:
                return None
            return Flowing(0, 0)
        if self._before is None or self._before < settled:
            return None  # The first one has what flowed before the move.
        watts = min(self._watts, self._most(seen - self._pulsed))
        return flowing_of(watts)

    def _most(self, seconds: float) -> float:
        """W that a pulse's energy makes in so many seconds."""
        return self._pulse_mwh / MWH_PER_WH * HOUR_S / seconds if seconds > 0 else math.inf


def flowing_of(watts: float, amperes: tuple[float, ...] = ()) -> Flowing | None:
    """What that power and those currents of the phases are; None if they cannot be.

    The current is the greatest of them all: phases may draw and feed back and sum to no power.
    """
    if not abs(watts) <= POWER_W_MAX or not all(abs(one) <= AMPERES_MAX for one in amperes):
        return None
    power_w = round(watts)
    by_power = abs(power_w) * 1_000_000 // NOMINAL_MV
    return Flowing(power_w, max(by_power, *(round(abs(one) * 1000) for one in amperes), 0))
