"""Real meters tell a real head-end what happens to them.

The contract under test: what does not wait for a report is in the head-end's store without one, as
the meter has it in its own log, once; what waits is not.
"""

from __future__ import annotations

from pathlib import Path

from amistack.model import event_catalogue as types
from meterd.daemon import Meter
from tests.support.street import street


async def test_event_is_in_the_store_without_a_report_and_one_that_waits_is_not(
    tmp_path: Path,
) -> None:
    lines = ['source = "constant"', "watts = 400"]
    async with street(tmp_path, [lines]) as running:
        (meter,) = running.meters
        name = running.identities[0].meter

        async def is_idle() -> bool:
            counts = await running.store.counts()
            return counts.registered == 1 and not meter.agent.owed_count

        await running.until(is_idle, what="everything said")
        reports = (await running.store.counts()).reports
        happen(meter)

        async def is_told() -> bool:
            return not meter.oversight.events.pending_count

        await running.until(is_told, what="the event acknowledged")
        stored = {one.sequence: one for one in await running.store.log_entries(name)}
        assert (await running.store.counts()).reports == reports
        assert running.southbound.quarantined == {}
    opened = [one for one in stored.values() if one.event_type == str(types.COVER_OPENED)]
    assert len(opened) == 1
    assert not opened[0].is_time_doubtful
    assert str(types.DEMAND_EXCEEDED) not in {one.event_type for one in stored.values()}


def happen(meter: Meter) -> None:
    """The cover is opened while a great deal is used, as sensors would tell."""
    meter._record(types.COVER_OPENED, None)
    meter._record(types.DEMAND_EXCEEDED, "9000 W")
