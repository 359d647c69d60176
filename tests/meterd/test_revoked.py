"""A meter that its head-end does not let in any more.

The contract under test: it records on, asks ever less often and never floods, and says everything
it owes when it is let in again.
"""

from __future__ import annotations

from meterd.agent import RETRY_MAX, Hindered, Reported, Stage
from tests.meterd.bench import DAY, METER, Bench
from tests.meterd.test_recall import settled


def put_out(one: Bench) -> None:
    """As a revocation does: the session is gone, and nobody is known by that name."""
    one.head_end.meters = {}
    one.head_end._stack.remove_session(METER)


def test_meter_that_is_put_out_records_on_and_asks_ever_less_often() -> None:
    one = settled()
    known = one.head_end.meters
    recorded = one.agent.counters["intervals recorded"]
    put_out(one)
    one.world.elapse(3 * DAY)
    hindered = [event for event in one.events(Hindered) if isinstance(event, Hindered)]
    assert Stage.SECURING in {event.stage for event in hindered}
    waits = [event.retry_s for event in hindered]
    assert max(waits) <= 1.5 * RETRY_MAX
    # The last day's attempts: none sooner than the longest retry allows.
    assert min(waits[-50:]) >= RETRY_MAX
    assert len(hindered) <= 3 * DAY / RETRY_MAX + 12
    assert one.agent.counters["intervals recorded"] >= recorded + 3 * 24 - 1
    owed = one.recorder.owed_days()
    assert len(owed) == 3
    assert one.head_end.heard == []

    one.head_end.meters = known
    one.world.elapse(1.5 * RETRY_MAX + 600)
    assert one.recorder.owed_days() == []
    days = [event.day for event in one.events(Reported) if isinstance(event, Reported)]
    assert sorted(days) == sorted(owed)
