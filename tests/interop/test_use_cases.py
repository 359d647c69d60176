"""What the use cases ask of head-end and meter together, each as its check in the catalogue says.

The contract under test: an idle meter that is asked outside its schedule gives a whole answer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from amistack.model import ClockState, ReadAnswer
from amistack.model.events import COLD_STARTED, REGISTERED
from headend.collection.on_demand import OnDemandReads
from headend.domain.readings import ReadResult
from meterd.recorder import RETENTION_DAYS
from tests.support.street import street

DAY_S = 86_400
WATTS = 400


@pytest.mark.requirement("B1-FR-86", "B1-FR-19")
async def test_idle_meter_is_read_on_demand_outside_its_schedule(tmp_path: Path) -> None:
    # Where it is midday now, so that no day begins while this runs.
    hours = 12 - time.gmtime().tm_hour
    lines = ['source = "constant"', f"watts = {WATTS}"]
    async with street(tmp_path, [lines], standard_offsets=[f"{hours:+03}:00"]) as running:
        (meter,) = running.meters

        async def is_idle() -> bool:
            counts = await running.store.counts()
            return counts.registered == 1 and not meter.agent.owed_count

        await running.until(is_idle, what="everything said")
        reports = (await running.store.counts()).reports
        reads = OnDemandReads(
            store=running.store, asker=running.southbound, entropy=os.urandom, wall=time.time
        )
        await reads.start()
        asked_s = time.time()
        read = await reads.read(running.identities[0].meter, deadline_s=10)
        stored = await running.store.find_read(read.identifier)
        reads.stop()
        assert (await running.store.counts()).reports == reports, "no report was due"
    assert read.result is ReadResult.ANSWERED
    assert stored == read
    assert read.answer is not None
    answer = ReadAnswer.decode(read.answer)
    today = int(asked_s + hours * 3600) // DAY_S
    midnight = today * DAY_S - hours * 3600
    assert answer.day == today
    assert answer.clock.state is ClockState.SET
    assert abs(answer.clock.utc_s - asked_s) <= 2
    (block,) = answer.blocks
    assert block.values() == (WATTS // 4,) * ((answer.clock.utc_s - midnight) // 900)
    ((_, register),) = answer.registers
    recorded_s = answer.clock.utc_s - (midnight - RETENTION_DAYS * DAY_S)
    assert abs(register - WATTS * recorded_s / 3600) <= 1
    assert [entry.event for entry in answer.entries] == [COLD_STARTED, REGISTERED]
