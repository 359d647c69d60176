"""What a meter logs: EndDeviceEventType codes of IEC 61968-9, and dated entries.

Spec    IEC 61968-9 Annex E (four fields; numbers of the 2nd edition)
Raises  `ModelError` on text or items that are not such a code or entry
Never   checks a field against a code list: a head-end tolerates numbers it does not know
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire

FIELD_MAX: Final = 65_535
SEQUENCE_MAX: Final = 2**32 - 1
DETAIL_SIZE_MAX: Final = 64
ENTRY_COUNT_MAX: Final = 256
"""In one message. A longer log goes in several."""

_NUMBER: Final = r"(?:0|[1-9][0-9]{0,4})"
_CODE: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER}){{3}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EndDeviceEventType:
    """One event code: the kind of device, domain, sub-domain, event or action; `3.26.0.216`."""

    type: int
    domain: int
    sub_domain: int
    event_or_action: int

    def __post_init__(self) -> None:
        wire.integer(self.type, 0, FIELD_MAX, "type")
        wire.integer(self.domain, 0, FIELD_MAX, "domain")
        wire.integer(self.sub_domain, 0, FIELD_MAX, "sub-domain")
        wire.integer(self.event_or_action, 0, FIELD_MAX, "event or action")

    def __str__(self) -> str:
        return f"{self.type}.{self.domain}.{self.sub_domain}.{self.event_or_action}"

    @classmethod
    def parse(cls, text: str) -> EndDeviceEventType:
        """The code that `text` writes, in its one form. Raises ModelError otherwise."""
        if not _CODE.fullmatch(text):
            raise ModelError("bad event type", f"{text[:40]!r}, expected 4 numbers with dots")
        return cls(*(int(number) for number in text.split(".")))


# What our meters log. Type 3 is ElectricMeter; the comment names the other three fields.
PRIMARY_POWER_FAILED: Final = EndDeviceEventType(3, 26, 0, 47)  # Power, n/a, LossDetected
PRIMARY_POWER_RESTORED: Final = EndDeviceEventType(3, 26, 0, 216)  # Power, n/a, Restored
COLD_STARTED: Final = EndDeviceEventType(3, 21, 0, 31)  # Metrology, n/a, ColdStarted
CLOCK_SET: Final = EndDeviceEventType(3, 36, 114, 24)  # Clock, Time, Changed
CLOCK_FAILED: Final = EndDeviceEventType(3, 36, 0, 79)  # Clock, n/a, Error
CONFIGURATION_CHANGED: Final = EndDeviceEventType(3, 7, 0, 24)  # Configuration, n/a, Changed
REGISTERED: Final = EndDeviceEventType(3, 1, 90, 58)  # Communication, Registration, Succeeded
ACCESS_DENIED: Final = EndDeviceEventType(3, 12, 1, 38)  # Security, Access, NotAuthorized
STORAGE_DAMAGED: Final = EndDeviceEventType(3, 18, 72, 79)  # Memory, NVRAM, Error
LOG_ALMOST_FULL: Final = EndDeviceEventType(3, 17, 44, 283)  # Logs, EventLog, AlmostFull


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of the meter's log.

    `sequence` counts the meter's entries, 0..2^32-1, and is the entry's name for good.
    `at` is UTC in seconds. `detail` is free text of 1 to 64 octets. `is_time_doubtful` says
    that the clock was not known to be right, or that `at` was found afterwards.
    """

    sequence: int
    at: int
    event: EndDeviceEventType
    detail: str | None = None
    is_time_doubtful: bool = False

    def __post_init__(self) -> None:
        wire.integer(self.sequence, 0, SEQUENCE_MAX, "sequence")
        wire.integer(self.at, 0, wire.UTC_S_MAX, "time of entry")
        if self.detail is not None:
            wire.text(self.detail, 1, DETAIL_SIZE_MAX, "detail")

    def to_tree(self, base_s: int) -> list[object]:
        """The entry's items, its time as seconds after `base_s`."""
        event = self.event
        items: list[object] = [
            self.sequence,
            self.at - base_s,
            event.type,
            event.domain,
            event.sub_domain,
            event.event_or_action,
        ]
        if self.detail is not None:
            items.append(self.detail)
        if self.is_time_doubtful:
            items.append(True)
        return items

    @classmethod
    def from_tree(cls, item: object, base_s: int) -> LogEntry:
        """The entry that `to_tree` wrote with the same `base_s`."""
        items = wire.array(item, 6, 8, "log entry")
        rest = list(items[6:])
        is_time_doubtful = bool(rest) and rest[-1] is True
        if is_time_doubtful:
            rest.pop()
        if len(rest) > 1:
            raise ModelError("wrong size", f"log entry has {len(items)} items")
        offset = wire.integer(items[1], -wire.UTC_S_MAX, wire.UTC_S_MAX, "time of entry")
        return cls(
            wire.integer(items[0], 0, SEQUENCE_MAX, "sequence"),
            base_s + offset,
            EndDeviceEventType(
                wire.integer(items[2], 0, FIELD_MAX, "type"),
                wire.integer(items[3], 0, FIELD_MAX, "domain"),
                wire.integer(items[4], 0, FIELD_MAX, "sub-domain"),
                wire.integer(items[5], 0, FIELD_MAX, "event or action"),
            ),
            wire.text(rest[0], 1, DETAIL_SIZE_MAX, "detail") if rest else None,
            is_time_doubtful,
        )


def entries_from_tree(item: object, base_s: int) -> tuple[LogEntry, ...]:
    """Every entry of an array of them."""
    items = wire.array(item, 0, ENTRY_COUNT_MAX, "entries")
    return tuple(LogEntry.from_tree(entry, base_s) for entry in items)
