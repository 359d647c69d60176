"""A service that is not there: relay, load and load side, coupled as they are in a house.

Open, nothing flows and the load side is dead; closed, the load draws what the source behind it says
and the load side has the line's voltage. Each of that can be made untrue: a contact that is welded,
a load side with a source of its own, a wire around the meter, a relay that cannot be told anything.

Gives   `Service`, and through `ServiceSource` the energy that goes with it
Raises  LinkError from `drive` while the relay is out of reach; StoreError when an edge of the
        history cannot be kept
Never   obeys a welded contact, or measures what goes around the meter
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from amistack.errors import LinkError, SourceError
from meterd.metrology import Source
from meterd.service.history import History, Path
from meterd.service.interface import Measured
from meterd.service.source import ServiceSource
from meterd.storage import Storage

LINE_MV: Final = 230_000


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a service."""

    is_welded: bool = False
    """The contact stays closed, whatever it is told."""
    back_feed_mv: int = 0
    """What a source of the customer's puts on the load side."""
    is_bypassed: bool = False
    """A wire leads around the meter; while the contact is closed it takes half."""
    is_unreachable: bool = False
    """The relay cannot be told anything."""
    is_blind: bool = False
    """The metrology says nothing."""


class SimulatedService:
    """A relay, a load and what is measured of them."""

    def __init__(
        self,
        storage: Storage,
        source: Source,
        *,
        utc: Callable[[float], float],
        offset_min: int = 0,
    ) -> None:
        """`utc` is the meter's clock, from the driver's time."""
        self._history = History(storage)
        self._is_closed = self._history.path not in (Path.NONE, Path.AROUND)
        self._offset_s = offset_min * 60
        self._utc = utc
        self._faults = Faults()
        self.line_mv = LINE_MV
        self.load_w: int | None = None
        """What the load draws, in place of the source's power, where it is said."""
        self.source: Final = ServiceSource(source, self._history)

    @property
    def faults(self) -> Faults:
        """What is wrong with it."""
        return self._faults

    def set_faults(self, faults: Faults, *, now: float) -> None:
        """From now on this is wrong with it, and nothing else."""
        self._faults = faults
        self._is_closed = self._is_closed or faults.is_welded
        self._note(now)

    @property
    def is_contact_closed(self) -> bool:
        """What the contact really does."""
        return self._is_closed

    def drive(self, *, is_closed: bool, now: float) -> None:
        """Tell the relay to open or close."""
        if self._faults.is_unreachable:
            raise LinkError("the relay cannot be reached")
        self._is_closed = is_closed or self._faults.is_welded
        self._note(now)

    def measure(self, *, now: float) -> Measured:
        """What is seen now."""
        if self._faults.is_blind:
            return Measured()
        is_live = self._is_closed or self._faults.is_bypassed
        load_mv = max(self.line_mv if is_live else 0, self._faults.back_feed_mv)
        power_w = self._through_meter(now)
        current_ma = None
        if power_w is not None:
            current_ma = abs(power_w) * 1_000_000 // self.line_mv if self.line_mv else 0
        return Measured(self.line_mv, load_mv, current_ma, power_w, self._is_closed)

    def _through_meter(self, now: float) -> int | None:
        path = self._path()
        if path in (Path.NONE, Path.AROUND) or not self.line_mv:
            return 0
        drawn = self.load_w
        if drawn is None:
            drawn = self._drawn(self._utc(now))
        return drawn if drawn is None or path is Path.METERED else drawn // 2

    def _drawn(self, utc: float) -> int | None:
        shifted = int(utc + self._offset_s)
        start = shifted - shifted % self.source.interval_s - self._offset_s
        try:
            return self.source.power_w(start)
        except SourceError:
            return None

    def _path(self) -> Path:
        if self._faults.is_bypassed:
            return Path.SHARED if self._is_closed else Path.AROUND
        return Path.METERED if self._is_closed else Path.NONE

    def _note(self, now: float) -> None:
        self._history.note(self._path(), utc=self._utc(now))
