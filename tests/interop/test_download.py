"""A head-end takes all that a real meter holds, over loopback.

The contract under test: what comes over the network, in pages of many blocks, is what the meter
itself would give at that moment, and it is on record who took it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from amistack.model.dump import DumpPage
from amistack.model.events import REGISTERED
from amistack.model.holdings import LogBatch
from headend.collection.download import Downloads
from meterd.local.dumping import DUMPED
from tests.support.street import street

LINES = ('source = "profile"', "seed = 5", "solar = true", "interval_s = 300")
ENTRIES = 2_000


@pytest.mark.requirement("B1-FR-111")
async def test_head_end_takes_what_a_meter_holds_in_pages_of_many_blocks(tmp_path: Path) -> None:
    async with street(tmp_path, [LINES]) as running:
        (meter,) = running.meters
        name = meter.agent.meter
        downloads = Downloads(store=running.store, asker=running.southbound)

        async def is_registered() -> bool:
            overview = await running.store.find_overview(name)
            return overview is not None and overview.registration is not None

        await running.until(is_registered, what="a registration")
        with meter._storage.together():
            for number in range(ENTRIES):
                meter._storage.keep_entry(
                    number, REGISTERED, f"{number * 7919 % 10_007:040}", is_time_doubtful=False
                )
        done = await downloads.take(name)
        pages = [DumpPage.decode(page) for page in done.pages]
        assert len(pages) > 1
        assert max(len(page) for page in done.pages) > 10 * 1_024
        parts = [part for page in pages for part in page.parts()]
        assert len([part for part in parts if part.path == "rep"]) == 45
        logged = [
            entry
            for part in parts
            if part.path == "log"
            for entry in LogBatch.decode(part.payload).entries
        ]
        assert len([one for one in logged if len(one.detail or "") == 40]) == ENTRIES
        assert [one.detail for one in logged if one.event == DUMPED] == ["head-end"]
        assert done.path.startswith("udp:127.0.0.1:")
