"""The meter's log as a part: everything goes on record, and what does not wait is told at once.

                         log only: settled, it stays in the log
    event --> record --> next read: the next report carries it
                         at once: a notice, safety and service first

Entries that others write are followed: they are told by the same rules. While the time is lost an
entry has no date; it gets one, flagged, as soon as there is a time to count back from.

Spec    docs/protocol/model.md, "Event notice" and "Event rules"
In      `log`; the head-end's rules as a resource; `Voice`: a notice until it is acknowledged
Raises  StoreError where an entry cannot be kept
Limit   `EventBudget` of entries; NOTICE_SIZE_MAX octets in a notice, one every GAP_S at most
Never   settles what is not acknowledged, or sends what has no date
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message
from amistack.errors import StoreError
from amistack.identifiers import Eui64
from amistack.model import (
    CONTENT_FORMAT_V1,
    ClockState,
    EndDeviceEventType,
    LogEntry,
    ReportAcknowledgement,
)
from amistack.model.event_catalogue import EVENT_RULES_CHANGED, EVENTS_SUPPRESSED, Delivery
from amistack.model.event_notice import (
    NOTICE_ENTRY_COUNT_MAX,
    EventNotice,
    EventRules,
    NoticedEvent,
)
from amistack.model.events import DETAIL_SIZE_MAX, PRIMARY_POWER_FAILED
from amistack.model.resources import EVENTS
from amistack.model.wire import UTC_S_MAX
from meterd.clock import MeterClock
from meterd.events.budget import EventBudget
from meterd.events.rules import RuleTable
from meterd.parts import Due, Resource, Urgency, granted, unfit
from meterd.schedules.daily import take_time
from meterd.storage import LOG, Storage, entry_of

DAY_S: Final = 86_400.0
GAP_S: Final = 10.0
"""Seconds from one notice to the next: what happens meanwhile goes together. A power failure does
not wait for them."""
RETRY_MIN_S: Final = 5.0
RETRY_MAX_S: Final = 300.0
UNKNOWN_RETRY_S: Final = DAY_S
"""Seconds until a head-end that knows no notices is tried again; its reports bring all events."""
NOTICE_SIZE_MAX: Final = 900
"""Octets: with the layers around them less than a block."""
UNDATED_AT: Final = UTC_S_MAX
"""In place of the time of an entry that has none yet: no report reaches that far."""
STORAGE_RETRY_S: Final = 60.0

_NOT_FOUND: Final = format_code(Code.NOT_FOUND)


class EventLog:
    """A part of the meter, and a voice."""

    def __init__(
        self, storage: Storage, clock: MeterClock, *, meter: Eui64, dice: random.Random, now: float
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._meter = meter
        self._dice = dice
        self.counters: Counter[str] = Counter()
        self._rules: Final = RuleTable(storage)
        self._pending: dict[int, EndDeviceEventType] = {}
        """What is to be told at once, by its number."""
        self._undated: dict[int, float] = {}
        """The monotonic time of entries that have no other."""
        self._orphans: dict[int, int] = {}
        """Entries from before a restart that never got a time, and what they get instead."""
        self._born = now
        self._followed = 0
        self._seen: tuple[object, object] | None = None
        self._told: tuple[int, ...] = ()
        self._not_before = now
        self._poke_at: float | None = None
        """When to be woken, so that the agent hears of what is to be told."""
        self._retry_s = RETRY_MIN_S
        self._held_until = 0.0  # after a storage that failed
        self._resource: Final = _RulesResource(self)
        self._budget: Final = EventBudget(self._take_up(now), now=now)

    # Commands from above

    def log(
        self,
        event: EndDeviceEventType,
        detail: str | None = None,
        *,
        now: float,
        is_time_doubtful: bool = False,
    ) -> LogEntry | None:
        """Put an event on record; None if there were too many of them, and it is only counted."""
        self._follow(now)
        if not self._budget.ask(event, now=now):
            self.counters["events left out"] += 1
            return None
        entry = self._keep(event, detail, now, is_time_doubtful=is_time_doubtful)
        self._budget.spend(event, now=now)
        return entry

    def door(self, now: Callable[[], float]) -> Callable[[EndDeviceEventType, str | None], None]:
        """`log` for those who have no time to give: `now` says it."""

        def log(event: EndDeviceEventType, detail: str | None = None) -> None:
            self.log(event, detail, now=now())

        return log

    def take_rules(self, rules: EventRules, *, now: float) -> None:
        """Tell events by these rules from now on; what is on record is told by the old ones."""
        self._follow(now)
        with self._storage.together():
            self._rules.take(rules)
            detail = f"version {rules.version}, {len(rules.rules)} rules"
            self._keep(EVENT_RULES_CHANGED, detail, now)

    @property
    def rules(self) -> EventRules:
        """The rules that hold."""
        return self._rules.rules

    @property
    def pending_count(self) -> int:
        """Entries that are to be told at once and are not acknowledged."""
        return len(self._pending)

    # A part

    def resources(self) -> Sequence[Resource]:
        """The rules, to be read and set."""
        return (self._resource,)

    def handle_timer(self, *, now: float) -> None:
        """Follow what others wrote, date what had no date, and count what was left out."""
        if now < self._held_until:
            return
        if self._poke_at is not None and self._poke_at <= now:
            self._poke_at = None
        try:
            self._follow(now)
            self._date()
            self._summarise(now)
        except StoreError:
            self._held_until = now + STORAGE_RETRY_S
            raise

    def next_timer(self) -> float | None:
        """At once if there is something to follow or to date, or else the next summary."""
        dues = [self._budget.summary_due, self._poke_at]
        if not self._is_followed:
            dues.append(self._noted_at(self._storage.next_sequence - 1))
        if self._orphans:
            dues.append(self._born)
        if self._undated and self._clock.first_setting is not None:
            dues.append(self._clock.first_setting.at)
        elif self._undated and self._clock.is_set:
            dues.append(max(self._undated.values()))
        due = min((due for due in dues if due is not None), default=None)
        return None if due is None else max(due, self._held_until)

    def _noted_at(self, number: int) -> float:
        """The monotonic time at which somebody wrote an entry: what its date is by our clock."""
        row = self._storage.get(LOG, number)
        return self._born if row is None else self._clock.when(row[0])

    # A voice

    def next_word(self, *, now: float) -> Due | None:  # noqa: ARG002
        """At once if anything is to be told at once; safety and service before all else."""
        events = [self._pending[number] for number in self._tellable()]
        if not events:
            return None
        is_high = any(self._rules.rule_of(event).importance.is_high for event in events)
        return Due(self._not_before, Urgency.ALARM if is_high else Urgency.FREQUENT)

    def word(self, *, now: float) -> Message | None:
        """The weightiest events, oldest first, as many as fit."""
        chosen: list[NoticedEvent] = []
        payload = b""
        for one in self._weightiest():
            notice = EventNotice(self._meter, self._clock.reading(now), (*chosen, one))
            octets = notice.encode()
            if chosen and len(octets) > NOTICE_SIZE_MAX:
                break
            chosen.append(one)
            payload = octets
            if len(chosen) == NOTICE_ENTRY_COUNT_MAX:
                break
        if not chosen:
            return None
        self._told = tuple(one.entry.sequence for one in chosen)
        return Message.request(Code.POST, EVENTS, payload=payload, content_format=CONTENT_FORMAT_V1)

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """They are acknowledged: settled, whatever the verdicts."""
        acknowledgement = ReportAcknowledgement.decode(message.payload)
        take_time(self._clock, acknowledgement, sent=sent, now=now)
        self._storage.settle_entries(self._told)
        for number in self._told:
            self._pending.pop(number, None)
        self.counters["events acknowledged"] += len(self._told)
        self._told = ()
        self._retry_s = RETRY_MIN_S
        self._not_before = now + GAP_S

    def take_failure(self, reason: str, *, now: float) -> float:
        """Again later, each time later."""
        self._told = ()
        wait = self._retry_s * self._dice.uniform(1.0, 1.5)
        self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
        if reason.startswith(_NOT_FOUND):
            self.counters["head-end takes no notices"] += 1
            wait = UNKNOWN_RETRY_S
        self._not_before = now + wait
        return wait

    def take_back(self, *, now: float) -> None:  # noqa: ARG002
        """Again when there is a session."""
        self._told = ()

    # Keeping

    def _keep(
        self,
        event: EndDeviceEventType,
        detail: str | None,
        now: float,
        *,
        is_time_doubtful: bool = False,
        is_urgent: bool = False,
    ) -> LogEntry:
        is_set = self._clock.is_set
        at = int(min(max(self._clock.utc(now), 0), UTC_S_MAX)) if is_set else UNDATED_AT
        is_doubtful = is_time_doubtful or self._clock.state_at(now) is not ClockState.SET
        with self._storage.together():
            entry = self._storage.keep_entry(at, event, _fit(detail), is_time_doubtful=is_doubtful)
            if self._is_log_only(event, is_urgent=is_urgent):
                self._storage.settle_entries([entry.sequence])
        self._mark_followed()
        self._take_in(entry.sequence, event, now, is_urgent=is_urgent)
        return entry

    def _is_log_only(self, event: EndDeviceEventType, *, is_urgent: bool = False) -> bool:
        return not is_urgent and self._rules.rule_of(event).delivery is Delivery.LOG_ONLY

    def _take_in(
        self, number: int, event: EndDeviceEventType, now: float, *, is_urgent: bool = False
    ) -> None:
        if not self._clock.is_set:
            self._undated[number] = now
        if not is_urgent and self._rules.rule_of(event).delivery is not Delivery.AT_ONCE:
            return
        if event == PRIMARY_POWER_FAILED:
            self._not_before = now
        self._pending[number] = event
        self._poke_at = now

    # Following

    def _take_up(self, now: float) -> Iterator[tuple[EndDeviceEventType, float]]:
        """What the storage has from before: what is pending, and what was logged when."""
        utc = self._clock.utc(now)
        newest = 0
        undated = []
        for number, row in sorted(self._storage.items(LOG)):
            at, is_settled = row[0], row[4]
            is_recent = at != UNDATED_AT and self._clock.is_set and utc - at < DAY_S
            if at == UNDATED_AT:
                undated.append(number)
            else:
                newest = max(newest, at)
            if is_settled and not is_recent:
                continue  # Most are: a start need not look into them.
            event = entry_of(number, row).event
            if not is_settled and self._rules.rule_of(event).delivery is Delivery.AT_ONCE:
                self._pending[number] = event
            if is_recent:
                yield event, now - max(utc - at, 0.0)
        # Nobody counts from before a restart: no earlier than the newest that has a time.
        self._orphans = dict.fromkeys(undated, newest)
        self._mark_followed()

    @property
    def _is_followed(self) -> bool:
        """Whether the newest entry is the one that was seen last."""
        if self._followed != self._storage.next_sequence:
            return False
        return self._name_of(self._followed - 1) == self._seen

    def _mark_followed(self) -> None:
        self._followed = self._storage.next_sequence
        self._seen = self._name_of(self._followed - 1)

    def _name_of(self, number: int) -> tuple[object, object] | None:
        row = self._storage.get(LOG, number)
        return None if row is None else (row[1], row[2])

    def _follow(self, now: float) -> None:
        """Take in what others put on record: it is told by the same rules."""
        if self._is_followed:
            return
        end = self._storage.next_sequence
        # Ours may have been taken back with the transaction that it stood in.
        self._followed = min(self._followed, end - 1)
        new = sorted(
            (number, row) for number, row in self._storage.items(LOG) if number >= self._followed
        )
        entries = [entry_of(number, row) for number, row in new]
        quiet = [one.sequence for one in entries if self._is_log_only(one.event)]
        with self._storage.together():
            self._storage.settle_entries(quiet)
            if not self._clock.is_set:
                self._redate((entry.sequence, UNDATED_AT) for entry in entries)
        for entry in entries:
            self._take_in(entry.sequence, entry.event, now)
            self._budget.spend(entry.event, now=now)
        self._mark_followed()

    def _date(self) -> None:
        """Count back from the time that there is now."""
        if self._orphans:
            self._redate(self._orphans.items())
            self._orphans = {}
        if not self._undated or not self._clock.is_set:
            return
        utc = self._clock.utc
        self._redate((number, max(int(utc(when)), 0)) for number, when in self._undated.items())
        self.counters["entries dated afterwards"] += len(self._undated)
        self._undated.clear()

    def _redate(self, dates: Iterable[tuple[int, int]]) -> None:
        self._storage.put(
            *(
                (LOG, number, [at, row[1], row[2], True, row[4]])
                for number, at in dates
                if (row := self._storage.get(LOG, number)) is not None
            )
        )

    def _summarise(self, now: float) -> None:
        due = self._budget.summary_due
        if due is None or due > now:
            return
        told: list[EndDeviceEventType] = []
        detail = ""
        for event, count in self._budget.left_out():
            longer = f"{detail}, {count}x {event}" if detail else f"{count}x {event}"
            if len(longer) > DETAIL_SIZE_MAX:
                break
            told.append(event)
            detail = longer
        is_urgent = any(self._rules.rule_of(event).delivery is Delivery.AT_ONCE for event in told)
        self._keep(EVENTS_SUPPRESSED, detail, now, is_urgent=is_urgent)
        self._budget.settle(told, now=now)

    # Telling

    def _tellable(self) -> list[int]:
        """What is to be told and can be; what a report told meanwhile is not told again."""
        for number in list(self._pending):
            row = self._storage.get(LOG, number)
            if row is None or row[4] or row[1] != str(self._pending[number]):
                del self._pending[number]
        undated = self._undated.keys() | self._orphans.keys()
        return [number for number in self._pending if number not in undated]

    def _weightiest(self) -> list[NoticedEvent]:
        events = [
            NoticedEvent(
                self._rules.rule_of(self._pending[number]).importance,
                entry_of(number, self._storage.get(LOG, number)),
            )
            for number in self._tellable()
        ]
        return sorted(events, key=lambda one: (one.importance, one.entry.sequence))


class _RulesResource:
    """The rules as the head-end sees them."""

    path: Final = EVENTS
    kind: Final = "amistack.event-rules"

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def answer(self, message: Message, *, now: float) -> Message:
        """Read the rules that hold, or put others in their place."""
        if (answer := unfit(message, Code.GET, Code.PUT)) is not None:
            return answer
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._log.rules.encode())
        self._log.take_rules(EventRules.decode(message.payload), now=now)
        return granted(Code.CHANGED)


def _fit(detail: str | None) -> str | None:
    """A detail as an entry can have it."""
    if detail is None:
        return None
    octets = detail.encode("utf-8", "replace")[:DETAIL_SIZE_MAX]
    return octets.decode("utf-8", "ignore") or None
