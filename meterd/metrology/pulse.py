"""Pulses: the S0 output or the blinking light of a meter, one for so many watt-hours.

Spec    EN 62053-31 (pulses of 30 ms and more, with pauses of 30 ms and more)
In      numbers of pulses; lines of a counter that sends them: a decimal number of pulses since its
        line before, 0 to say that it is still there
Out     readings of one register, which goes on from where it is told to
Raises  ConfigError at birth
Limit   PULSES_MAX in a line, LINE_SIZE_MAX octets; others are dropped and counted
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from amistack.errors import ConfigError
from meterd.metrology.registers import Reading, Register, total_name
from meterd.metrology.source import Flow

MWH_PER_KWH: Final = 1_000_000
PULSES_PER_KWH_MAX: Final = 100_000
PULSES_MAX: Final = 100_000
LINE_SIZE_MAX: Final = 16
BAUD_RATE: Final = 9_600
_LINE: Final = re.compile(rb"[0-9]{1,6}")


class PulseCounter:
    """Counts pulses into a register that is exact to 1 mWh over any number of them."""

    def __init__(self, pulses_per_kwh: int, *, start_mwh: int = 0) -> None:
        """`start_mwh`: what the register has already. Raises ConfigError."""
        if not 1 <= pulses_per_kwh <= PULSES_PER_KWH_MAX:
            raise ConfigError(
                f"pulses_per_kwh is {pulses_per_kwh}, expected 1 to {PULSES_PER_KWH_MAX}: "
                "it is printed on the meter (imp/kWh)"
            )
        self.count = 0
        self._pulses_per_kwh: Final = pulses_per_kwh
        self._start_mwh: Final = start_mwh

    def add(self, pulses: int) -> Reading:
        """The reading after `pulses` more; 0 for still there."""
        self.count += pulses
        mwh = self._start_mwh + self.count * MWH_PER_KWH // self._pulses_per_kwh
        return Reading((Register(total_name(Flow.DELIVERED), Flow.DELIVERED, mwh),))


class PulseLines:
    """Finds the lines of a counter in a stream."""

    def __init__(self, counter: PulseCounter) -> None:
        self.refused: Counter[str] = Counter()
        self._counter: Final = counter
        self._buffer = bytearray()
        self._is_lost = True

    def receive_data(self, data: bytes) -> Sequence[Reading]:
        """A reading for each line that is complete with `data`."""
        readings = []
        for octet in data:
            if octet != 0x0A:
                # Of a line that is too long no more is kept than shows that it is.
                if len(self._buffer) <= LINE_SIZE_MAX:
                    self._buffer.append(octet)
                continue
            line = bytes(self._buffer).strip()
            self._buffer.clear()
            if self._is_lost:
                # The end of a line whose beginning was not heard: 5 may be the end of 15.
                self._is_lost = False
            elif _LINE.fullmatch(line) and int(line) <= PULSES_MAX:
                readings.append(self._counter.add(int(line)))
            else:
                self.refused["unreadable"] += 1
        return readings

    def reset(self) -> None:
        """The stream begins anew, perhaps in the middle of a line."""
        self._buffer.clear()
        self._is_lost = True
