"""The event log against a model of it that only keeps lists.

The contract under test: whatever happens in whatever order (events, power cuts, a head-end that is
silent, a report that settles, a time that is lost and found), every entry that `log` gave is on
record for good; what its rule says is told at once arrives, unless a report settled it before; and
nothing arrives that its rule keeps back, or under two meanings.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from amistack.model import EndDeviceEventType
from amistack.model import event_catalogue as types
from amistack.model.event_catalogue import Delivery, kind_of
from amistack.model.event_notice import EventRule, EventRules
from amistack.model.events import PRIMARY_POWER_FAILED, REGISTERED
from meterd.events.log import UNDATED_AT
from tests.meterd.events.bench import EPOCH, EventBench

EVENTS = (
    types.TILTED,
    types.VOLTAGE_LOW,
    types.CLOCK_SYNC_FAILED,
    types.BATTERY_LOW,
    PRIMARY_POWER_FAILED,
    REGISTERED,
)
DAY = 86_400


class EventLogMachine(RuleBasedStateMachine):
    """A meter's log, and what a person with paper would know of it."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.bench = EventBench(seed=seed)
        self.held: dict[EndDeviceEventType, Delivery] = {}
        self.logged: dict[int, tuple[EndDeviceEventType, Delivery, float]] = {}
        self.settled: set[int] = set()

    def delivery_of(self, event: EndDeviceEventType) -> Delivery:
        return self.held.get(event, kind_of(event).delivery)

    @rule(event=st.sampled_from(EVENTS), by_others=st.booleans())
    def happen(self, event: EndDeviceEventType, *, by_others: bool) -> None:
        bench = self.bench
        if by_others:
            at = int(bench.clock.utc(bench.now))
            entry = bench.storage.keep_entry(at, event, None, is_time_doubtful=False)
            bench.log.handle_timer(now=bench.now)
        else:
            kept = bench.log.log(event, now=bench.now)
            if kept is None:
                return  # Counted, and that count is an entry.
            entry = kept
        self.logged[entry.sequence] = (event, self.delivery_of(event), EPOCH + bench.now)

    @rule(
        chosen=st.dictionaries(st.sampled_from(EVENTS), st.sampled_from(Delivery), max_size=4),
    )
    def set_rules(self, chosen: dict[EndDeviceEventType, Delivery]) -> None:
        rules = tuple(
            EventRule(event, delivery, kind_of(event).importance)
            for event, delivery in chosen.items()
        )
        self.bench.put_rules(EventRules(1, rules))
        # Entries that were there keep the rule that held for them, while the power lasts.
        self.held = dict(chosen)

    @rule(seconds=st.sampled_from([1, 30, 1000, 7200]))
    def elapse(self, seconds: int) -> None:
        self.bench.elapse(seconds)

    @rule()
    def silence(self) -> None:
        self.bench.is_reachable = not self.bench.is_reachable

    @rule(is_clock_set=st.booleans())
    def cut_power(self, *, is_clock_set: bool) -> None:
        self.bench.restart(is_clock_set=is_clock_set)
        # What waits is told by the rules of now; what was kept back is settled for good.
        for number, (event, delivery, at) in self.logged.items():
            if delivery is not Delivery.LOG_ONLY:
                now = self.delivery_of(event)
                self.logged[number] = (event, max(now, Delivery.NEXT_READ), at)

    @rule()
    def tell_time(self) -> None:
        self.bench.tell_time()

    @rule()
    def report(self) -> None:
        """A daily report takes what is due, and is acknowledged."""
        due = self.bench.storage.entries(0, int(EPOCH + self.bench.now) + DAY, limit=64)
        self.settled |= {entry.sequence for entry in due}
        self.bench.storage.settle_entries([entry.sequence for entry in due])

    @invariant()
    def nothing_is_lost_and_nothing_means_two_things(self) -> None:
        if not hasattr(self, "bench"):
            return
        on_record = {entry.sequence: entry for entry in self.bench.logged()}
        for number, (event, _, _) in self.logged.items():
            assert on_record[number].event == event
        said: dict[int, object] = {}
        for entry in self.bench.sent:
            assert entry.at != UNDATED_AT
            assert said.setdefault(entry.sequence, entry) == entry

    def teardown(self) -> None:
        """In the end everything that was to be told at once is told."""
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        bench.is_reachable = True
        bench.tell_time()
        bench.elapse(1800)
        sent = {entry.sequence: entry for entry in bench.sent}
        for number, (_, delivery, at) in self.logged.items():
            if delivery is Delivery.AT_ONCE:
                assert number in sent or number in self.settled
            if number in sent and not sent[number].is_time_doubtful:
                assert abs(sent[number].at - at) <= 1
        assert bench.log.pending_count == 0
        assert all(entry.at != UNDATED_AT for entry in bench.logged())


TestEventLog = EventLogMachine.TestCase
TestEventLog.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
