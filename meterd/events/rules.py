"""Which events are told at once, which with the next read, and which only put on record.

What the catalogue says holds until the head-end sends rules; those are kept whole, in place of the
last ones.

Raises  StoreError where they cannot be kept: then the old ones hold on
Limit   RULE_COUNT_MAX rules
"""

from __future__ import annotations

from typing import Final

from amistack.errors import ModelError
from amistack.model import EndDeviceEventType
from amistack.model.event_catalogue import kind_of
from amistack.model.event_notice import EventRule, EventRules
from meterd.storage import Storage

NOTE: Final = "event rules"


class RuleTable:
    """The rules of one meter, through restarts and transactions that come to nothing."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._note: str | None = None
        self._rules = EventRules(0)
        self._by_event: dict[EndDeviceEventType, EventRule] = {}

    @property
    def rules(self) -> EventRules:
        """What the head-end said last; version 0 before the first."""
        self._refresh()
        return self._rules

    def rule_of(self, event: EndDeviceEventType) -> EventRule:
        """How an event is told."""
        self._refresh()
        rule = self._by_event.get(event)
        if rule is not None:
            return rule
        kind = kind_of(event)
        return EventRule(event, kind.delivery, kind.importance)

    def take(self, rules: EventRules) -> None:
        """Rules in place of all before; durable when this returns, or with the transaction."""
        self._storage.keep_note(NOTE, rules.encode().hex())

    def _refresh(self) -> None:
        note = self._storage.note(NOTE)
        if note != self._note:
            self._note = note
            self._rules = _decoded(note)
            self._by_event = {rule.event: rule for rule in self._rules.rules}


def _decoded(note: str | None) -> EventRules:
    if note is None:
        return EventRules(0)
    try:
        return EventRules.decode(bytes.fromhex(note))
    except (ModelError, ValueError):
        # Of a later version: the catalogue is a better guess than no events at all.
        return EventRules(0)
