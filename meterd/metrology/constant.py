"""A load that never changes: for tests, first steps and calibration.

Raises  ConfigError for a power that is negative, not finite or beyond POWER_MAX
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final

from amistack.errors import ConfigError
from meterd.metrology.source import Energy, Flow, check_settings, check_window, elapsed_within

POWER_MAX: Final = 10_000_000
"""Watts; what a whole district draws."""

HOUR_S: Final = 3600
TICKS_PER_S: Final = 1000
"""Resolution of `partial`: integers, so that the interval's end is met exactly."""


class ConstantSource:
    """The same power all the time, exact to 1 Wh over any span.

    The register started from zero at 1970-01-01T00:00Z. `received_watts` above zero adds the
    second channel.
    """

    def __init__(
        self,
        *,
        watts: float | Decimal,
        received_watts: float | Decimal = 0,
        interval_s: int = 900,
        offset_min: int = 0,
    ) -> None:
        check_settings(interval_s, offset_min)
        powers = [_power("watts", watts), _power("received_watts", received_watts)]
        if not powers[1]:
            del powers[1]
        self.interval_s: Final = interval_s
        self.flows: Final = (Flow.DELIVERED, Flow.RECEIVED)[: len(powers)]
        self._powers: Final = powers
        self._offset_min: Final = offset_min

    def energy(self, start: int, count: int) -> list[Energy]:
        """Wh in each of `count` intervals from `start` on; there is never a gap."""
        self._check(start, count)
        ends = range(start, start + (count + 1) * self.interval_s, self.interval_s)
        registers = [
            [_register(power, end * TICKS_PER_S) for end in ends] for power in self._powers
        ]
        return [
            tuple(register[i + 1] - register[i] for register in registers) for i in range(count)
        ]

    def partial(self, start: int, now: float) -> Energy:
        """Wh from `start` until `now`, within one interval."""
        self._check(start, 1)
        elapsed = elapsed_within(start, now, interval_s=self.interval_s)
        first = start * TICKS_PER_S
        last = first + int(elapsed * TICKS_PER_S)
        return tuple(_register(power, last) - _register(power, first) for power in self._powers)

    def available(self) -> tuple[int | None, int | None]:
        """No limit on either side."""
        return None, None

    def _check(self, start: int, count: int) -> None:
        check_window(start, count, interval_s=self.interval_s, offset_min=self._offset_min)


def _power(setting: str, watts: float | Decimal) -> Fraction:
    # By way of the text: 0.1 W as a person wrote it, and not its nearest binary fraction.
    try:
        power = Decimal(str(watts))
    except InvalidOperation:
        raise ConfigError(f"{setting} is {watts!r}, expected a number of watts") from None
    if not (power.is_finite() and 0 <= power <= POWER_MAX):
        raise ConfigError(f"{setting} is {watts}, expected 0 to {POWER_MAX} W")
    if power.adjusted() < -9:
        power = Decimal(0)  # Under a nanowatt: nothing, and no astronomic denominator.
    return Fraction(power)


def _register(power: Fraction, ticks: int) -> int:
    """What the register shows after `ticks`, in whole Wh, rounded half up."""
    divisor = power.denominator * HOUR_S * TICKS_PER_S
    return (2 * power.numerator * ticks + divisor) // (2 * divisor)
