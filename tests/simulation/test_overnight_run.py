"""A night of a street whose meters record at different lengths, and a day of two-way talk.

The contract under test: the day before is in the head-end's file by 08:00, intervals and midnight
reads, for every meter whatever length it was programmed to, and for a meter that was cut off it is
not; a command and a read go round, and what was read is there to be had.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, ReadAnswer
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    Outcome,
    Position,
    Refusal,
    SwitchState,
)
from amistack.model.quantity import Quantity
from amistack.model.resources import PROGRAMME, SWITCH
from headend.domain.readings import OnDemandRead, ReadResult
from interop.world.loop import run_virtually
from interop.world.network import PERFECT, Quality
from interop.world.world import MeterNode, World
from meterd.metrology import HouseholdProfile
from tests.meterd.programme.bench import channel, programme
from tests.simulation.test_world import scratch, unpacked

DAY_S = 86_400
BEGIN = 1_781_560_000.0  # 2026-06-15T21:46:40Z: two hours before a midnight
DAY = int(BEGIN) // DAY_S + 1
"""The day that is reported in the night after it."""
EIGHT = (DAY + 1) * DAY_S + 8 * 3600
MINUTES = (None, 5, 10, 15, 30, 60)
"""What each meter is programmed to; the first is left as it is."""
LOST: Quality = Quality(loss=1.0)


async def ask(
    world: World, node: MeterNode, code: Code, path: str, payload: bytes = b""
) -> Message:
    assert world.head_end is not None
    message = Message.request(
        code,
        path,
        payload=payload,
        content_format=None if code == Code.GET else CONTENT_FORMAT_V1,
    )
    meter = node.identity.meter
    answer, _ = await world.head_end.southbound.ask(meter, message, deadline_s=60.0)
    return answer


async def until(world: World, utc: float) -> None:
    await asyncio.sleep(max(utc - world.utc(), 0.0))


def stored(folder: Path) -> dict[bytes, tuple[int, int, int, bytes]]:
    """Of each meter that has it: interval, opening, advance and values of DAY on channel 1."""
    with sqlite3.connect(folder / "headend.sqlite") as connection:
        rows = connection.execute(
            "SELECT meter, interval_s, opening, advance, packed FROM day_block "
            "WHERE day = ? AND channel = 1",
            (DAY,),
        ).fetchall()
    connection.close()
    return {meter: (interval_s, *rest) for meter, interval_s, *rest in rows}


async def street(world: World) -> None:
    """Every meter programmed, the evening before DAY."""
    await world.start_head_end()
    for number, minutes in enumerate(MINUTES):
        node = await world.add_meter(('source = "profile"', f"seed = {number}", "solar = false"))
        await world.start_meter(node)
        await asyncio.sleep(60)
        if minutes is not None:
            wanted = programme(1, channel(1, Quantity.DELIVERED, minutes))
            answer = await ask(world, node, Code.PUT, PROGRAMME, wanted.encode())
            assert answer.code == Code.CHANGED


@pytest.mark.requirement("B1-FR-06")
@pytest.mark.parametrize("is_cut_off", [False, True])
def test_the_day_before_is_delivered_for_all_meters_by_eight(is_cut_off: bool) -> None:
    async def night(world: World) -> None:
        await street(world)
        await until(world, (DAY + 1) * DAY_S + 30)
        assert stored(world.folder) == {}
        if is_cut_off:
            world.network.quality = LOST
        await until(world, EIGHT)
        found = stored(world.folder)
        if is_cut_off:
            assert found == {}
            world.network.quality = PERFECT
            assert await world.until_settled(at_most_s=2 * 3600)
            found = stored(world.folder)
        for number, (node, minutes) in enumerate(zip(world.meters, MINUTES, strict=True)):
            interval_s, opening, advance, packed = found[bytes(node.identity.meter)]
            assert interval_s == 60 * (minutes or 15)
            source = HouseholdProfile(number, interval_s=interval_s, solar=False)
            count = DAY_S // interval_s
            assert unpacked(packed, count) == [one[0] for one in source.energy(DAY * DAY_S, count)]
            # Both midnight reads: registers began at 0, 45 days before the first evening.
            begin = (DAY - 46) * DAY_S
            before = source.energy(begin, (DAY * DAY_S - begin) // interval_s)
            assert opening == sum(one[0] or 0 for one in before)
            assert opening + advance == opening + sum(unpacked(packed, count))
        await world.stop()

    with scratch() as folder:
        run_virtually(night(World(3, folder, BEGIN)))


@pytest.mark.requirement("B1-FR-25")
def test_command_and_read_go_round_and_what_was_read_can_be_retrieved() -> None:
    async def talk(world: World) -> OnDemandRead:
        await world.start_head_end()
        node = await world.add_meter(('source = "constant"', "watts = 1200"))
        await world.start_meter(node)
        await asyncio.sleep(600)
        command = ControlCommand(1, int(world.utc()) + 60, Action.DISCONNECT)
        answer = await ask(world, node, Code.POST, SWITCH, command.encode())
        assert ControlAnswer.decode(answer.payload).refusal is Refusal.NONE
        await asyncio.sleep(900)
        state = SwitchState.decode((await ask(world, node, Code.GET, SWITCH)).payload)
        assert (state.position, state.outcome) == (Position.OPEN, Outcome.CONFIRMED)
        read = await world.read(node)
        assert read.result is ReadResult.ANSWERED
        assert world.head_end is not None
        (kept,) = await world.head_end.store.reads(node.identity.meter)
        assert kept == read
        await asyncio.sleep(600)
        again = await world.read(node)
        await world.stop()
        assert read.answer is not None
        assert again.answer is not None
        # Nothing flows through an open contact.
        registers = [ReadAnswer.decode(one).registers for one in (read.answer, again.answer)]
        assert registers[0] == registers[1]
        return kept

    with scratch() as folder:
        kept = run_virtually(talk(World(4, folder, BEGIN)))
    assert kept.answer is not None
