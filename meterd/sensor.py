"""A real meter behind this one: its driver at work, and what it tells put on record.

Gives   a line of the program's log for every note, an entry of the meter's log for those that
        count, and how the sensor is, for `meterd status`
Limit   ENTRIES_PER_HOUR_MAX entries of one kind in an hour: a loose contact must not fill the log
Never   raises after `start`: a storage that fails costs the entry, and says so
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from amistack.errors import StoreError
from amistack.model import EndDeviceEventType
from amistack.model.events import DETAIL_SIZE_MAX
from meterd.metrology.drivers import Driver
from meterd.metrology.registers import Note, NoteKind
from meterd.recorder import Recorder

ENTRIES_PER_HOUR_MAX: Final = 4
HOUR_S: Final = 3600

EVENTS: Final = {
    NoteKind.VANISHED: EndDeviceEventType(3, 21, 144, 47),  # Metrology, Sensor, LossDetected
    NoteKind.RETURNED: EndDeviceEventType(3, 21, 144, 216),  # Metrology, Sensor, Restored
    NoteKind.OTHER_METER: EndDeviceEventType(3, 21, 10, 159),  # Metrology, Identity, Mismatched
    NoteKind.IMPLAUSIBLE: EndDeviceEventType(3, 21, 67, 79),  # Metrology, Measurement, Error
    NoteKind.ROLLED_OVER: EndDeviceEventType(3, 21, 89, 177),  # Metrology, Register, Overflow
    NoteKind.EXCHANGED: EndDeviceEventType(3, 21, 0, 284),  # Metrology, n/a, ChangedOut
    NoteKind.RESET: EndDeviceEventType(3, 21, 89, 215),  # Metrology, Register, ResetOccurred
}


Record = Callable[[EndDeviceEventType, str | None], None]
"""Puts an event on record. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class SensorStatus:
    """How a real meter is: whether it is heard, or why not, and who it says it is.

    `last_reading_at` is UTC in seconds, by this meter's clock. The counters are since the start.
    """

    is_there: bool
    trouble: str
    meter: str | None
    last_reading_at: int | None
    readings: int
    refused: dict[str, int]


class SensorKeeper:
    """Runs a driver for a meter, and keeps what it tells."""

    def __init__(self, driver: Driver, recorder: Recorder) -> None:
        self.driver: Final = driver
        self._recorder: Final = recorder
        self._log = structlog.get_logger("meterd")
        self._utc: Callable[[], float] = lambda: 0.0
        self._is_time_doubtful: Callable[[], bool] = lambda: True
        self._entered: dict[NoteKind, deque[float]] = {}
        self._record: Record = self._record_plainly

    def start(
        self,
        *,
        utc: Callable[[], float],
        is_time_doubtful: Callable[[], bool],
        dice: random.Random,
        log: structlog.typing.FilteringBoundLogger,
        record: Record | None = None,
    ) -> None:
        """Begin, in the running loop; `utc` is the meter's clock.

        `record` is the door of the log, if there is one before the recorder's.
        """
        self._record = record or self._record_plainly
        self._utc, self._is_time_doubtful, self._log = utc, is_time_doubtful, log
        self.driver.start(utc=utc, on_note=self.take, dice=dice)

    def stop(self) -> None:
        """Give the device back and keep where the source stands."""
        self.driver.stop()
        try:
            self._recorder.keep_source()
        except StoreError as error:
            self._log.error("source not kept", reason=str(error))

    def abandon(self) -> None:
        """Stop as a kill would."""
        self.driver.stop()

    async def wait_stopped(self) -> None:
        """Until the device was given back."""
        await self.driver.wait_stopped()

    def status(self) -> SensorStatus:
        """How the sensor is."""
        sensor = self.driver.sensor
        latest = sensor.source.latest_utc
        return SensorStatus(
            sensor.is_there,
            sensor.trouble,
            sensor.source.meter,
            None if latest is None else int(latest),
            sensor.readings,
            dict(sensor.refused),
        )

    def take(self, note: Note) -> None:
        """Put a note on record."""
        utc = self._utc()
        entered = self._entered.setdefault(note.kind, deque(maxlen=ENTRIES_PER_HOUR_MAX))
        if len(entered) == ENTRIES_PER_HOUR_MAX and 0 <= utc - entered[0] < HOUR_S:
            return
        entered.append(utc)
        if note.kind is NoteKind.RETURNED:
            self._log.info(note.kind.value, detail=note.detail)
        else:
            self._log.warning(note.kind.value, detail=note.detail)
        try:
            self._record(EVENTS[note.kind], detail_of(note))
        except StoreError as error:
            self._log.error("log entry lost", event_type=str(EVENTS[note.kind]), reason=str(error))

    def _record_plainly(self, event: EndDeviceEventType, detail: str | None) -> None:
        self._recorder.log(self._utc(), event, detail, is_time_doubtful=self._is_time_doubtful())


def detail_of(note: Note) -> str | None:
    """A note's detail as a log entry can have it."""
    octets = note.detail.encode("utf-8", "replace")[:DETAIL_SIZE_MAX]
    return octets.decode("utf-8", "ignore") or None
