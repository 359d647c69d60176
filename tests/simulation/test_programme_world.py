"""A meter that is reprogrammed by the real head-end's side, on a virtual clock, with kills.

The contract under test: the programme goes through sessions and store of the real programs; every
day is in the head-end's file once, under the channels that it was recorded on, equal to the source;
nothing is quarantined or flagged; registers go on over every change.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.programme import DemandRules, Programme
from amistack.model.programme_state import ProgrammeStamp, ProgrammeState
from amistack.model.quantity import Quantity
from amistack.model.registers import RegistersAnswer
from amistack.model.resources import PROGRAMME, REGISTERS
from interop.world.loop import run_virtually
from interop.world.network import BAD, PERFECT, Quality
from interop.world.world import World
from meterd.metrology import HouseholdProfile
from tests.meterd.programme.bench import TARIFF_CHANNELS, TWO_TIERS, channel, programme
from tests.simulation.test_world import scratch, unpacked

DAY_S = 86_400
BEGIN = 1_781_560_000.0  # 2026-06-15T21:46:40Z: two hours before a midnight
FIRST = int(BEGIN) // DAY_S
SEED = 5
TARIFF = programme(
    1,
    *(one for one in TARIFF_CHANNELS if one.number != 2),
    channel(6, Quantity.VOLTAGE, 30),
    channel(7, Quantity.REACTIVE, 60),
    calendar=TWO_TIERS,
    demand=DemandRules(900, 300),
)
FINE = programme(2, channel(1, Quantity.DELIVERED, 5))


async def ask(world: World, code: Code, path: str, payload: bytes = b"") -> Message:
    assert world.head_end is not None
    (node,) = world.meters
    message = Message.request(
        code,
        path,
        payload=payload,
        content_format=None if code == Code.GET else CONTENT_FORMAT_V1,
    )
    answer, _ = await world.head_end.southbound.ask(node.identity.meter, message, deadline_s=600.0)
    return answer


async def put(world: World, wanted: Programme) -> ProgrammeStamp:
    answer = await ask(world, Code.PUT, PROGRAMME, wanted.encode())
    assert answer.code == Code.CHANGED, answer.payload
    return ProgrammeStamp.decode(answer.payload)


async def live(world: World, quality: Quality) -> RegistersAnswer:
    dice = random.Random(world.seed)
    await world.start_head_end()
    lines = ('source = "profile"', f"seed = {SEED}", "solar = false")
    node = await world.add_meter(lines)
    await world.start_meter(node)
    await asyncio.sleep(1800)
    world.network.quality = quality
    first = await put(world, TARIFF)
    assert first.since == (FIRST + 1) * DAY_S
    registers = None
    for day in range(1, 5):
        await asyncio.sleep(dice.uniform(0.8, 1.0) * DAY_S)
        if day == 2:
            registers = RegistersAnswer.decode((await ask(world, Code.GET, REGISTERS)).payload)
            second = await put(world, FINE)
            assert second.since == (int(world.utc()) // DAY_S + 1) * DAY_S
        if quality is not PERFECT:
            world.kill_meter(node)
            await world.kill_head_end()
            await asyncio.sleep(dice.uniform(0, 600))
            await world.start_head_end()
            await world.start_meter(node)
            await asyncio.sleep(600)
    world.network.quality = PERFECT
    assert await world.until_settled(at_most_s=DAY_S)
    told = ProgrammeState.decode((await ask(world, Code.GET, PROGRAMME)).payload)
    assert (told.running.version, told.running.digest) == (2, FINE.digest)
    await world.stop()
    assert registers is not None
    return registers


@pytest.mark.parametrize("quality", [PERFECT, BAD], ids=["perfect", "bad"])
def test_reprogrammed_meters_days_are_stored_whole_under_their_own_channels(
    quality: Quality,
) -> None:
    with scratch() as folder:

        async def main() -> RegistersAnswer:
            return await live(World(SEED, folder, BEGIN), quality)

        registers = run_virtually(main())
        check_store(folder)
    assert registers.demand is not None
    assert registers.demand.running.peak > 0


def check_store(folder: Path) -> None:
    with sqlite3.connect(folder / "headend.sqlite") as connection:
        assert connection.execute("SELECT reason FROM quarantine").fetchall() == []
        rows = connection.execute(
            "SELECT channel, day, channel_set, interval_s, opening, advance, packed, qualities, "
            "flags FROM day_block ORDER BY day"
        ).fetchall()
    connection.close()
    days: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
    closing: dict[int, int] = {}
    source = HouseholdProfile(SEED, interval_s=300, solar=False)
    for number, day, channel_set, interval_s, opening, advance, packed, qualities, flags in rows:
        assert (qualities, flags) == (b"", 0)
        values = unpacked(packed, DAY_S // interval_s)
        assert sum(values) == advance
        assert closing.get(number, opening) == opening
        closing[number] = opening + advance
        days[day][number] = (channel_set, interval_s)
        if number == 1:
            share = interval_s // 300
            parts = [one[0] or 0 for one in source.energy(day * DAY_S, 288)]
            assert values == [sum(parts[at : at + share]) for at in range(0, 288, share)]
    assert set(days) >= set(range(FIRST - 45, FIRST + 4))
    assert days[FIRST] == {1: (1, 900)}
    expected = {1: 900, 6: 1800, 7: 3600, 11: DAY_S, 12: DAY_S}
    assert days[FIRST + 1] == {number: (2, length) for number, length in expected.items()}
    assert days[max(days)] == {1: (3, 300)}
    by_day = {(row[1], row[0]): row[5] for row in rows}
    tariff_days = [day for day in days if days[day][1][0] == 2]
    assert tariff_days
    for day in tariff_days:
        assert by_day[day, 11] + by_day[day, 12] == by_day[day, 1]
