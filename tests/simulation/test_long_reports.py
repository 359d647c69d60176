"""A day whose report is longer than a message, from a real meter to a real head-end.

The contract under test: it goes in blocks, is stored whole, and is settled.
"""

from __future__ import annotations

import random

from interop.world.loop import run_virtually
from interop.world.world import World
from meterd.agent import PAYLOAD_SIZE_MAX
from tests.scenarios import readback
from tests.simulation.test_world import scratch

DAY_S = 86_400
TODAY = 20_619
NOON = TODAY * DAY_S + 43_200.0
DAYS = {TODAY - 1, TODAY - 2}
DATAGRAM_SIZE_MAX = 4_096


def test_day_longer_than_a_message_is_stored_and_settled() -> None:
    async def story() -> None:
        with scratch() as folder:
            world = World(1, folder, NOON)
            sizes: list[int] = []
            world.network.watchers.append(lambda *datagram: sizes.append(len(datagram[2])))
            await world.start_head_end()
            node = await world.add_meter(('source = "replay"', 'path = "load.csv"', 'unit = "Wh"'))
            dice = random.Random(7)
            rows = [
                f"{second},{dice.randrange(1 << 26)}"
                for second in range(min(DAYS) * DAY_S, (TODAY + 1) * DAY_S, 60)
            ]
            (node.folder / "load.csv").write_text("start,value\n" + "\n".join(rows) + "\n")
            await world.start_meter(node)
            assert await world.until_settled(at_most_s=3_600.0)
            assert node.meter is not None
            recorder = node.meter.agent._recorder
            for day in DAYS:
                (block,) = recorder.block(day)
                assert len(block.packed) > PAYLOAD_SIZE_MAX
            assert max(sizes) <= DATAGRAM_SIZE_MAX
            assert node.meter.agent.counters["hindered"] == 0
            meter = node.identity.meter.hex()
            await world.stop()
            assert readback.reported_days(folder / "headend.sqlite")[meter] == DAYS

    run_virtually(story())
