"""What a meter can tell of: every event type of ours, what it touches, and when it is told.

Spec    IEC 61968-9 Annex E, numbers of its 2nd edition: as transcribed in a public code list, and
        where a combination is in service at a utility, that one; use case I2 for the importance
Gives   `CATALOGUE`: what is said of each type unless its meter is told otherwise
Never   is complete: a head-end takes types that are not in it
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amistack.model import events
from amistack.model.events import EndDeviceEventType


class Importance(enum.IntEnum):
    """What an event touches; the lower the number, the sooner it is sent."""

    SAFETY = 0
    SERVICE = 1
    BILLING = 2
    CUSTOMER = 3
    INFORMATION = 4

    @property
    def is_high(self) -> bool:
        """Whether it goes before all others, and within 15 minutes."""
        return self <= Importance.SERVICE


class Delivery(enum.IntEnum):
    """When an event is told to the head-end. It is in the meter's log in every case."""

    LOG_ONLY = 0  # never by itself
    NEXT_READ = 1  # with the next report
    AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class EventKind:
    """What is said of an event type: in words, what it touches, when it is told."""

    words: str
    importance: Importance = Importance.INFORMATION
    delivery: Delivery = Delivery.NEXT_READ


UNKNOWN_KIND: Final = EventKind("event of an unknown type")

_E = EndDeviceEventType

# The comment names the last three fields. What a switch logs is named in its own package.
WRONG_SOCKET: Final = _E(3, 6, 0, 159)  # Installation, n/a, Mismatched
COVER_OPENED: Final = _E(3, 12, 29, 39)  # Security, Cover, Opened
COVER_CLOSED: Final = _E(3, 12, 29, 16)  # Security, Cover, Closed
TILTED: Final = _E(3, 12, 0, 263)  # Security, n/a, Tilted
TILT_CLEARED: Final = _E(3, 12, 0, 291)  # Security, n/a, TamperCleared
ACCESSED: Final = _E(3, 12, 1, 2)  # Security, Access, Accessed
TEMPERATURE_HIGH: Final = _E(3, 35, 0, 40)  # Temperature, n/a, OutofRange
TEMPERATURE_NORMAL: Final = _E(3, 35, 0, 28)  # Temperature, n/a, Cleared
VOLTAGE_HIGH: Final = _E(3, 26, 38, 93)  # Power, Voltage, MaxLimitReached
VOLTAGE_HIGH_CLEARED: Final = _E(3, 26, 38, 73)  # Power, Voltage, MaxLimitReachedCleared
VOLTAGE_LOW: Final = _E(3, 26, 38, 150)  # Power, Voltage, MinLimitReached
VOLTAGE_LOW_CLEARED: Final = _E(3, 26, 38, 37)  # Power, Voltage, Normal
DEMAND_EXCEEDED: Final = _E(3, 8, 261, 139)  # Demand, Threshold, Exceeded
DEMAND_NORMAL: Final = _E(3, 8, 261, 37)  # Demand, Threshold, Normal
DEMAND_RESET: Final = _E(3, 8, 0, 215)  # Demand, n/a, ResetOccurred
FLOW_REVERSED: Final = _E(3, 21, 93, 219)  # Metrology, Rotation, Reversed
FLOW_NORMAL: Final = _E(3, 21, 93, 37)  # Metrology, Rotation, Normal
MEASUREMENT_FAILED: Final = _E(3, 21, 67, 79)  # Metrology, Measurement, Error
MEASUREMENT_CLEARED: Final = _E(3, 21, 67, 28)  # Metrology, Measurement, Cleared
DATA_CONTRADICTED: Final = _E(3, 21, 89, 159)  # Metrology, Register, Mismatched
METROLOGY_CHECKED: Final = _E(3, 21, 111, 58)  # Metrology, Test, Succeeded
METROLOGY_FAILED: Final = _E(3, 21, 111, 85)  # Metrology, Test, Failed
SELF_TEST_PASSED: Final = _E(3, 21, 100, 58)  # Metrology, SelfTest, Succeeded
SELF_TEST_FAILED: Final = _E(3, 21, 100, 85)  # Metrology, SelfTest, Failed
CHECKSUM_WRONG: Final = _E(3, 18, 284, 79)  # Memory, Checksum, Error
RAM_FAILED: Final = _E(3, 18, 85, 79)  # Memory, RAM, Error
STORAGE_FULL: Final = _E(3, 18, 109, 283)  # Memory, Storage, AlmostFull
PROGRAM_DAMAGED: Final = _E(3, 11, 284, 79)  # Firmware, Checksum, Error
PROGRAM_FAILED: Final = _E(3, 11, 83, 85)  # Firmware, Program, Failed
UPGRADE_FAILED: Final = _E(3, 11, 283, 85)  # Firmware, Activation, Failed
BATTERY_LOW: Final = _E(3, 2, 38, 150)  # Battery, Voltage, MinLimitReached
BATTERY_NORMAL: Final = _E(3, 2, 38, 292)  # Battery, Voltage, MinLimitCleared
COMMUNICATION_FAILED: Final = _E(3, 1, 0, 85)  # Communication, n/a, Failed
COMMUNICATION_RESTORED: Final = _E(3, 1, 0, 49)  # Communication, n/a, Re-established
PROGRAMME_CHANGED: Final = _E(3, 7, 83, 24)  # Configuration, Program, Changed
PROGRAMME_REFUSED: Final = _E(3, 7, 83, 35)  # Configuration, Program, Invalid
SCHEDULE_CHANGED: Final = _E(3, 7, 95, 24)  # Configuration, Schedule, Changed
SCHEDULE_REFUSED: Final = _E(3, 7, 95, 35)  # Configuration, Schedule, Invalid
EVENT_RULES_CHANGED: Final = _E(3, 7, 285, 24)  # Configuration, AlarmTable, Changed
READ_FAILED: Final = _E(3, 20, 87, 85)  # Billing, Readings, Failed
CLOCK_OUT_OF_STEP: Final = _E(3, 36, 114, 93)  # Clock, Time, MaxLimitReached
CLOCK_IN_STEP: Final = _E(3, 36, 114, 73)  # Clock, Time, MaxLimitReachedCleared
CLOCK_SYNC_FAILED: Final = _E(3, 36, 116, 85)  # Clock, TimeSync, Failed
CLOCK_LOST: Final = _E(3, 36, 114, 47)  # Clock, Time, LossDetected
DEVICE_SILENT: Final = _E(12, 1, 0, 85)  # PANDevice, Communication, n/a, Failed
DEVICE_ANSWERS: Final = _E(12, 1, 0, 49)  # PANDevice, Communication, n/a, Re-established
DEVICE_SUBSCRIBED: Final = _E(12, 10, 0, 50)  # PANDevice, Pairing, n/a, Registered
DEVICE_UNSUBSCRIBED: Final = _E(12, 10, 0, 212)  # PANDevice, Pairing, n/a, Removed
EVENTS_SUPPRESSED: Final = _E(3, 17, 44, 177)  # Logs, EventLog, Overflow

_SAFETY, _SERVICE, _BILLING, _CUSTOMER, _INFORMATION = Importance
_AT_ONCE = Delivery.AT_ONCE

CATALOGUE: Final[Mapping[EndDeviceEventType, EventKind]] = {
    WRONG_SOCKET: EventKind("wrong socket", _SAFETY, _AT_ONCE),
    TEMPERATURE_HIGH: EventKind("temperature high", _SAFETY, _AT_ONCE),
    TEMPERATURE_NORMAL: EventKind("temperature normal again", _SAFETY, _AT_ONCE),
    VOLTAGE_HIGH: EventKind("voltage high", _SAFETY, _AT_ONCE),
    VOLTAGE_HIGH_CLEARED: EventKind("voltage no longer high", _SAFETY, _AT_ONCE),
    COVER_OPENED: EventKind("cover opened", _SAFETY, _AT_ONCE),
    COVER_CLOSED: EventKind("cover closed", _INFORMATION),
    TILTED: EventKind("tilted", _SAFETY, _AT_ONCE),
    TILT_CLEARED: EventKind("upright again", _INFORMATION),
    events.PRIMARY_POWER_FAILED: EventKind("power failed", _SERVICE, _AT_ONCE),
    events.PRIMARY_POWER_RESTORED: EventKind("power restored", _SERVICE, _AT_ONCE),
    VOLTAGE_LOW: EventKind("voltage low", _SERVICE, _AT_ONCE),
    VOLTAGE_LOW_CLEARED: EventKind("voltage no longer low", _SERVICE, _AT_ONCE),
    CHECKSUM_WRONG: EventKind("check sum of the memory wrong", _SERVICE, _AT_ONCE),
    events.STORAGE_DAMAGED: EventKind("storage damaged", _SERVICE, _AT_ONCE),
    RAM_FAILED: EventKind("working memory failed", _SERVICE, _AT_ONCE),
    PROGRAM_DAMAGED: EventKind("program damaged", _SERVICE, _AT_ONCE),
    PROGRAM_FAILED: EventKind("program failed", _SERVICE, _AT_ONCE),
    UPGRADE_FAILED: EventKind("meter failed through a firmware upgrade", _SERVICE, _AT_ONCE),
    _E(3, 31, 38, 257): EventKind("voltage behind an open switch", _SAFETY, _AT_ONCE),
    _E(3, 31, 38, 291): EventKind("no more voltage behind an open switch", _SAFETY, _AT_ONCE),
    _E(3, 31, 91, 47): EventKind("relay of the switch lost", _SAFETY, _AT_ONCE),
    _E(3, 31, 0, 68): EventKind("switch opened", _SERVICE, _AT_ONCE),
    _E(3, 31, 0, 42): EventKind("switch closed", _SERVICE, _AT_ONCE),
    _E(3, 31, 0, 84): EventKind("switch could not be opened", _SERVICE, _AT_ONCE),
    _E(3, 31, 0, 67): EventKind("switch could not be closed", _SERVICE, _AT_ONCE),
    _E(3, 31, 0, 11): EventKind("switch armed for closure"),
    _E(3, 31, 0, 290): EventKind("switch not armed"),
    _E(3, 12, 202, 2): EventKind("dumped to a field tool"),
    _E(3, 31, 1, 161): EventKind("switch command refused"),
    _E(3, 15, 139, 296): EventKind("load limit changed"),
    _E(3, 15, 139, 139): EventKind("load limit exceeded", _CUSTOMER),
    MEASUREMENT_FAILED: EventKind("measurement failed", _BILLING, _AT_ONCE),
    MEASUREMENT_CLEARED: EventKind("measurement works again", _BILLING),
    METROLOGY_FAILED: EventKind("metrology check failed", _BILLING, _AT_ONCE),
    METROLOGY_CHECKED: EventKind("metrology check passed"),
    DATA_CONTRADICTED: EventKind("stored data contradict one another", _BILLING, _AT_ONCE),
    FLOW_REVERSED: EventKind("flow reversed", _BILLING, _AT_ONCE),
    FLOW_NORMAL: EventKind("flow no longer reversed", _BILLING),
    CLOCK_OUT_OF_STEP: EventKind("clock out of step", _BILLING, _AT_ONCE),
    CLOCK_SYNC_FAILED: EventKind("time synchronisation failed", _BILLING, _AT_ONCE),
    CLOCK_LOST: EventKind("time lost", _BILLING, _AT_ONCE),
    CLOCK_IN_STEP: EventKind("clock in step again", _BILLING),
    events.CLOCK_SET: EventKind("clock set", _BILLING),
    events.CLOCK_FAILED: EventKind("clock not set", _BILLING),
    events.ACCESS_DENIED: EventKind("access denied", _BILLING, _AT_ONCE),
    ACCESSED: EventKind("accessed locally"),
    READ_FAILED: EventKind("scheduled read failed", _BILLING),
    events.COLD_STARTED: EventKind("started for the first time"),
    DEMAND_EXCEEDED: EventKind("demand above the threshold", _CUSTOMER),
    DEMAND_NORMAL: EventKind("demand below the threshold again", _CUSTOMER),
    DEMAND_RESET: EventKind("demand reset", _BILLING),
    BATTERY_LOW: EventKind("battery low"),
    BATTERY_NORMAL: EventKind("battery normal again"),
    COMMUNICATION_FAILED: EventKind("communication failed"),
    COMMUNICATION_RESTORED: EventKind("communication works again"),
    events.REGISTERED: EventKind("registered"),
    events.CONFIGURATION_CHANGED: EventKind("configuration changed"),
    PROGRAMME_CHANGED: EventKind("programme changed"),
    PROGRAMME_REFUSED: EventKind("programme refused"),
    SCHEDULE_CHANGED: EventKind("schedule changed"),
    SCHEDULE_REFUSED: EventKind("schedule refused"),
    EVENT_RULES_CHANGED: EventKind("table of event types changed"),
    SELF_TEST_PASSED: EventKind("self-test passed"),
    SELF_TEST_FAILED: EventKind("self-test failed"),
    STORAGE_FULL: EventKind("storage almost full"),
    events.LOG_ALMOST_FULL: EventKind("log almost full"),
    DEVICE_SILENT: EventKind("home device does not answer", _CUSTOMER, _AT_ONCE),
    DEVICE_ANSWERS: EventKind("home device answers again", _CUSTOMER, _AT_ONCE),
    DEVICE_SUBSCRIBED: EventKind("home device subscribed"),
    DEVICE_UNSUBSCRIBED: EventKind("home device no longer subscribed"),
    EVENTS_SUPPRESSED: EventKind("events suppressed"),
}


def kind_of(event: EndDeviceEventType) -> EventKind:
    """What the catalogue says of a type."""
    return CATALOGUE.get(event, UNKNOWN_KIND)
