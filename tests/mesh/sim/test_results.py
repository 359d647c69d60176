"""Figures of a run: what came too late, never, or was void is told from what came.

The contract under test: of each class all that was offered is counted and what came within its
limit apart; who asked and heard nothing asked all the same; what a meter could not say because it
lost its power is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mesh.sim.results import Figures
from mesh.sim.run import Simulation
from mesh.sim.scenario import Load, Scenario, Settlement
from mesh.sim.traffic import LIMITS_S, Exchange, Kind
from mesh.sim.world import World
from tests.mesh.sim.worlds import RADIO, FloodRouter

QUIET = Scenario(
    name="quiet",
    text="a test",
    hours=1.0,
    power_up_s=2.0,
    settlement=Settlement("street", 3, 1),
    load=Load(0, 0, 0, 0, 0),
)
METER = 2


def figures_of(latencies: Iterable[float | None], kind: Kind) -> Figures:
    """The figures where exchanges took so long; None for one that came to nothing."""
    running = Simulation(QUIET, FloodRouter, seed=1)
    for latency in latencies:
        exchange = Exchange(kind, len(running.world.traffic.exchanges), METER, 100.0)
        exchange.done_at = None if latency is None else exchange.asked_at + latency
        running.world.traffic.exchanges.append(exchange)
    return running.figures(wall_s=0.0, cpu_s=0.0)


@pytest.mark.parametrize("kind", LIMITS_S, ids=lambda kind: kind.name)
def test_what_came_too_late_or_never_is_not_within_its_limit(kind: Kind) -> None:
    limit = LIMITS_S[kind]
    found = figures_of([1.0, limit, limit + 0.1, None], kind)
    assert found["classes"] == {kind.name: {"sent": 4, "within_limit": 2, "limit_s": limit}}
    if kind is Kind.C4:
        assert found["daily_reports"] == {"expected": 4, "in_window": 2, "eventually": 3}


def test_who_asked_and_heard_nothing_asked_all_the_same() -> None:
    found = figures_of([1.0, 30.0, 31.0, 60.0, 61.0, None], Kind.REQUEST)["on_demand"]
    assert isinstance(found, dict)
    assert [found[key] for key in ("asked", "within_30s", "within_60s")] == [6, 2, 4]
    assert found["by_hops"]["0"]["asked"] == 6


def test_what_a_crashed_meter_had_to_say_is_void_unless_it_had_arrived() -> None:
    world = World(QUIET, FloodRouter, seed=1, radio=RADIO)
    world.start()
    world.run_until(60.0)
    world.traffic.start(until=1e9)
    unsaid = world.traffic.begin(Kind.C1, METER)
    assert unsaid is not None
    world.power_off(METER)
    assert (unsaid.is_over, unsaid.is_void) == (True, True)
    world.power_on(METER)
    world.run_until(120.0)
    said = world.traffic.begin(Kind.C1, METER)
    assert said is not None
    while said.done_at is None:
        world.run_until(world.clock.now + 0.001)
    assert not said.is_over  # It has no receipt yet.
    world.power_off(METER)
    assert (said.is_over, said.is_void) == (True, False)
