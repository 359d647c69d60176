"""Events that do not wait for a report, and which types those are.

An event notice is answered with a report's acknowledgement: an entry of it is final as one of a
report is.

Spec    docs/protocol/model.md, "Event notice" and "Event rules"; docs/protocol/model-v1.cddl
Raises  `ModelError`, and nothing else, from every decoder
Limit   NOTICE_ENTRY_COUNT_MAX events in a notice, RULE_COUNT_MAX rules
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.identifiers import EUI64_SIZE, Eui64
from amistack.model import wire
from amistack.model.clock import ClockReading
from amistack.model.event_catalogue import Delivery, Importance
from amistack.model.events import FIELD_MAX, EndDeviceEventType, LogEntry
from amistack.model.report import Disposition, RecordKind, RecordRef, Verdict

NOTICE_ENTRY_COUNT_MAX: Final = 32
RULE_COUNT_MAX: Final = 128
RULES_VERSION_MAX: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class NoticedEvent:
    """One log entry and what it touches, as its meter is told to say."""

    importance: Importance
    entry: LogEntry


@dataclass(frozen=True, slots=True)
class EventNotice:
    """What `meter` logged and says at once; `clock` is its clock as this was made."""

    meter: Eui64
    clock: ClockReading
    events: tuple[NoticedEvent, ...]

    def __post_init__(self) -> None:
        wire.octets(self.meter, EUI64_SIZE, EUI64_SIZE, "meter")
        wire.array(self.events, 1, NOTICE_ENTRY_COUNT_MAX, "events")

    def encode(self) -> bytes:
        """The notice's one encoding."""
        return wire.dump(
            [
                bytes(self.meter),
                self.clock.utc_s,
                int(self.clock.state),
                [[int(one.importance), one.entry.to_tree(self.clock.utc_s)] for one in self.events],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> EventNotice:
        """The notice that `data` is the encoding of."""
        meter, clock, items = _take_apart(wire.load(data))
        return cls(meter, clock, tuple(_event_from_tree(item, clock.utc_s) for item in items))

    @classmethod
    def decode_leniently(
        cls, data: bytes
    ) -> tuple[Eui64, ClockReading, list[tuple[int, NoticedEvent]], list[Verdict]]:
        """The events of a notice that can be read, each with its place, and a verdict for others.

        Raises ModelError where not even the outer array can be read.
        """
        meter, clock, items = _take_apart(wire.load(data, is_strict=False))
        kept: list[tuple[int, NoticedEvent]] = []
        verdicts: list[Verdict] = []
        for index, item in enumerate(items):
            try:
                kept.append((index, _event_from_tree(item, clock.utc_s)))
            except ModelError as error:
                place = RecordRef(RecordKind.ENTRY, index)
                verdicts.append(Verdict(place, Disposition.UNREADABLE, error.reason))
        return meter, clock, kept, verdicts


def _take_apart(tree: object) -> tuple[Eui64, ClockReading, Sequence[object]]:
    items = wire.array(tree, 4, 4, "event notice")
    return (
        Eui64(wire.octets(items[0], EUI64_SIZE, EUI64_SIZE, "meter")),
        ClockReading.from_tree(items[1], items[2]),
        wire.array(items[3], 1, NOTICE_ENTRY_COUNT_MAX, "events"),
    )


def _event_from_tree(item: object, base_s: int) -> NoticedEvent:
    importance, entry = wire.array(item, 2, 2, "event")
    return NoticedEvent(
        wire.member(importance, Importance, "importance"), LogEntry.from_tree(entry, base_s)
    )


@dataclass(frozen=True, slots=True)
class EventRule:
    """How events of one type are told from now on."""

    event: EndDeviceEventType
    delivery: Delivery
    importance: Importance

    def to_tree(self) -> list[object]:
        """The rule's items."""
        event = self.event
        return [
            event.type,
            event.domain,
            event.sub_domain,
            event.event_or_action,
            int(self.delivery),
            int(self.importance),
        ]

    @classmethod
    def from_tree(cls, item: object) -> EventRule:
        """The rule that `to_tree` wrote."""
        items = wire.array(item, 6, 6, "event rule")
        return cls(
            EndDeviceEventType(
                wire.integer(items[0], 0, FIELD_MAX, "type"),
                wire.integer(items[1], 0, FIELD_MAX, "domain"),
                wire.integer(items[2], 0, FIELD_MAX, "sub-domain"),
                wire.integer(items[3], 0, FIELD_MAX, "event or action"),
            ),
            wire.member(items[4], Delivery, "delivery"),
            wire.member(items[5], Importance, "importance"),
        )


@dataclass(frozen=True, slots=True)
class EventRules:
    """All rules of a meter: a type without one is told as the catalogue says.

    `version` is the head-end's name for them.
    """

    version: int
    rules: tuple[EventRule, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.version, 0, RULES_VERSION_MAX, "version of the rules")
        wire.array(self.rules, 0, RULE_COUNT_MAX, "event rules")
        if len({rule.event for rule in self.rules}) < len(self.rules):
            raise ModelError("bad event rules", "a type comes twice")

    def encode(self) -> bytes:
        """The rules' one encoding."""
        return wire.dump([self.version, [rule.to_tree() for rule in self.rules]])

    @classmethod
    def decode(cls, data: bytes) -> EventRules:
        """The rules that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "event rules")
        return cls(
            wire.integer(items[0], 0, RULES_VERSION_MAX, "version of the rules"),
            tuple(
                EventRule.from_tree(item)
                for item in wire.array(items[1], 0, RULE_COUNT_MAX, "event rules")
            ),
        )
