"""A meter's storage is copied, and both devices run: noticed, and both named.

The contract under test: two devices with the keys of one meter are noticed within two days of both
speaking, whatever their numbers; the addresses of both stand in what the operator is shown; each
has to open a new session; and a meter of which there is one is never suspected, however foul its
network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from amistack.telemetry import configure
from headend.domain.meters import Suspicion
from interop.world.loop import run_virtually
from interop.world.network import BAD
from interop.world.world import World
from tests.simulation.test_world import BEGIN, DAY_S

COPY_ADDRESS = "10.0.2.1"
PROFILE = ('source = "profile"', "seed = 3")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    configure("error")


async def suspicions(world: World) -> list[Suspicion]:
    assert world.head_end is not None
    return list(await world.head_end.store.suspicions())


def run(folder: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World(seed=5, folder=folder, begins_at=BEGIN)
        await world.start_head_end()
        try:
            await scenario(world)
        finally:
            await world.stop()

    run_virtually(main())


@pytest.mark.parametrize(
    "restarts", [0, 3], ids=["both start at the copied number", "the meter is far ahead"]
)
def test_copied_meter_is_noticed_and_both_are_named(tmp_path: Path, restarts: int) -> None:
    seen: list[Suspicion] = []
    opened: list[int] = []

    async def scenario(world: World) -> None:
        node = await world.add_meter(PROFILE)
        await world.start_meter(node)
        await asyncio.sleep(3 * DAY_S)
        world.kill_meter(node)
        copy = world.copy_meter(node, COPY_ADDRESS)
        await world.start_meter(node)
        for _ in range(restarts):  # Each leaves a block of numbers behind.
            await asyncio.sleep(DAY_S)
            world.kill_meter(node)
            await world.start_meter(node)
        assert not await suspicions(world)
        assert world.head_end is not None
        before = world.head_end.southbound.counters["sessions"]
        await world.start_meter(copy)
        await asyncio.sleep(2 * DAY_S)
        seen.extend(await suspicions(world))
        opened.append(world.head_end.southbound.counters["sessions"] - before)
        assert copy.meter is not None
        copy.meter.stop()
        assert await world.until_settled(at_most_s=DAY_S)

    run(tmp_path, scenario)
    (suspicion,) = seen
    assert {suspicion.path, suspicion.other_path} == {
        f"udp:{COPY_ADDRESS}:5683", "udp:10.0.1.1:5683"
    }  # fmt: skip
    assert opened[0] >= 2, "each of the two is asked for a new handshake"


def test_meter_that_is_one_is_never_suspected_in_a_foul_network(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.network.quality = BAD
        node = await world.add_meter(PROFILE)
        for _ in range(6):
            await world.start_meter(node)
            await asyncio.sleep(2.3 * DAY_S)
            world.kill_meter(node)
            await asyncio.sleep(1_800)
        assert not await suspicions(world)
        assert world.head_end is not None
        assert not world.head_end.southbound.flagged["meter seems to be cloned"]

    run(tmp_path, scenario)
