"""The customer's service as a meter sees it: what its relay can do, what its metrology measures.

Gives   `Service`, the port; `Measured`, what is known at one moment; `Service` implementations are
        `SimulatedService` here and the pins of a small computer in `meterd.gpio`
Never   infers: what is not measured is None
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

LIVE_MV: Final = 40_000
"""From here on a side counts as live: above what a long dead cable picks up from its neighbours."""
FLOW_MA: Final = 40
"""From here on there is current: above the noise of a shunt and below any standby load."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the metrology sees at one moment; None for what it does not know.

    `power_w` is drawn by the customer, below 0 when fed back. `is_contact_closed` is what an
    auxiliary contact of the relay says, if it has one.
    """

    line_mv: int | None = None
    load_mv: int | None = None
    current_ma: int | None = None
    power_w: int | None = None
    is_contact_closed: bool | None = None

    @property
    def is_line_live(self) -> bool | None:
        """Whether there is voltage on the utility's side."""
        return None if self.line_mv is None else self.line_mv >= LIVE_MV

    @property
    def is_load_live(self) -> bool | None:
        """Whether there is voltage on the customer's side."""
        return None if self.load_mv is None else self.load_mv >= LIVE_MV

    @property
    def is_current(self) -> bool | None:
        """Whether there is current through the meter."""
        return None if self.current_ma is None else self.current_ma >= FLOW_MA


NOTHING_MEASURED: Final = Measured()


class Service(Protocol):
    """A relay between line and load, and the metrology around it."""

    def drive(self, *, is_closed: bool, now: float) -> None:
        """Tell the relay to open or close. Raises LinkError when it cannot be told.

        Telling it again what it was told is harmless. It may not obey.
        """

    def measure(self, *, now: float) -> Measured:
        """What is seen now; never raises."""
