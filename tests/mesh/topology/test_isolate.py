"""Isolation: what it names is what failed, or what nobody could tell from it.

The contract under test: with one component failed, the causes named are the class of all components
that lie on the same ways as it (found by walking every way of a small network), in at least 95 of
100 cases, and what failed is always among them; an answer called certain is never wrong, not even
with two failures at once; probes are bounded, and every isolation ends.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from amistack.errors import LocalProtocolError
from amistack.identifiers import Eui64
from mesh.topology.dcc import Dcc
from mesh.topology.facts import Backhaul
from mesh.topology.isolate import ATTEMPTS_MAX, PROBES_MAX, Isolation
from mesh.topology.location import BehindCollector
from mesh.topology.paths import (
    Component,
    Part,
    Path,
    PathKind,
    backhaul_component,
    link_component,
    node_component,
)
from mesh.topology.verdicts import (
    Answered,
    Finding,
    LostAfter,
    NoAnswer,
    NoConnection,
    Outcome,
    Verdict,
)
from tests.mesh.topology.worlds import AREA, World, eui, made_world

CASES = 100
KINDS = (Part.METER, Part.RELAY, Part.LINK, Part.COLLECTOR, Part.BACKHAUL)


def components_of(way: Iterable[int]) -> list[Component]:
    """What is on a way, in order: written again here, from the words of the contract."""
    nodes = [eui(short) for short in way]
    found = [backhaul_component(nodes[0]), node_component(nodes[0])]
    for upper, lower in itertools.pairwise(nodes):
        found += [link_component(upper, lower), node_component(lower)]
    return found


def class_of(failed: Component, world: World) -> set[Component]:
    """Every component that is on exactly the ways that `failed` is on, of all ways there are."""
    signatures: dict[Component, set[int]] = {}
    ways = [way for node in world.nodes for way in world.ways(node)]
    for number, way in enumerate(ways):
        for component in components_of(way):
            signatures.setdefault(component, set()).add(number)
    return {each for each, seen in signatures.items() if seen == signatures[failed]}


def outcome_of(
    path: Path, failed: set[Component], dice: random.Random, *, told: float, loss: float = 0.0
) -> Outcome:
    """What the network does with a probe; `told` of its losses are told by the last node."""
    components = path.components
    if dice.random() < loss:
        return NoAnswer()
    first = next((at for at, each in enumerate(components) if each in failed), None)
    if first is None:
        return Answered()
    if first < 2:
        return NoConnection() if dice.random() < told else NoAnswer()
    return LostAfter((first - 2) // 2) if dice.random() < told else NoAnswer()


def run(
    isolation: Isolation,
    failed: set[Component],
    *,
    seed: int = 0,
    told: float = 0.5,
    loss: float = 0.0,
) -> Verdict:
    dice = random.Random(seed)
    now = 0.0
    for steps in itertools.count():
        assert steps <= ATTEMPTS_MAX * (PROBES_MAX + 8)
        now += 1.0
        probe = isolation.probe_to_send(now=now)
        if probe is None and (due := isolation.next_timer()) is not None:
            now = due
            probe = isolation.probe_to_send(now=now)
        if probe is None:
            break
        isolation.take_outcome(
            probe.number, outcome_of(probe.path, failed, dice, told=told, loss=loss)
        )
    verdict = isolation.verdict()
    assert verdict is not None
    return verdict


def cases(part: Part, count: int) -> Iterable[tuple[int, World, Dcc, int, Component]]:
    """Worlds with a meter, and a component of that part on its best way that fails."""
    seed = 0
    found = 0
    while found < count:
        seed += 1
        dice = random.Random(seed)
        world = made_world(
            seed, meters=dice.randrange(3, 8), collectors=1 + seed % 2, degree=dice.choice((2, 3))
        )
        dcc = world.dcc()
        meter = dice.choice(world.meters)
        best = dcc.routes.route_of(eui(meter))
        if best is None:
            continue
        match part:
            case Part.METER:
                options = [node_component(best.destination)]
            case Part.RELAY:
                options = [node_component(relay) for relay in best.relays]
            case Part.LINK:
                options = [link_component(*pair) for pair in itertools.pairwise(best.nodes)]
            case Part.COLLECTOR:
                options = [node_component(best.collector)]
            case Part.BACKHAUL:
                options = [backhaul_component(best.collector)]
        if options:
            found += 1
            yield seed, world, dcc, meter, dice.choice(options)


@pytest.mark.requirement("I2-S2", "I2-X-01")
@pytest.mark.parametrize("part", KINDS, ids=lambda part: part.value)
def test_one_failed_component_is_named_or_its_class(part: Part) -> None:
    right = 0
    for seed, world, dcc, meter, failed in cases(part, CASES):
        verdict = run(Isolation(eui(meter), dcc.routes), {failed}, seed=seed)
        causes = {cause.component for cause in verdict.causes}
        assert failed in causes, (seed, verdict)
        assert verdict.finding is (Finding.COMPONENT if len(causes) == 1 else Finding.CLASS)
        assert part in {cause.part for cause in verdict.causes}
        right += causes == class_of(failed, world)
    assert right >= 0.95 * CASES, right


@pytest.mark.parametrize("told", [0.0, 1.0])
@pytest.mark.parametrize("part", KINDS, ids=lambda part: part.value)
def test_it_makes_no_difference_whether_losses_are_told(part: Part, told: float) -> None:
    for seed, world, dcc, meter, failed in cases(part, 30):
        verdict = run(Isolation(eui(meter), dcc.routes), {failed}, seed=seed, told=told)
        assert failed in {cause.component for cause in verdict.causes}
        assert {cause.component for cause in verdict.causes} <= class_of(failed, world) | {failed}


@pytest.mark.parametrize("told", [0.0, 0.5, 1.0])
def test_certain_answer_is_right_even_when_two_components_failed(told: float) -> None:
    certain = 0
    for seed in range(300):
        dice = random.Random(seed)
        world = made_world(seed, meters=7, collectors=2, degree=dice.choice((2.5, 3.5)))
        dcc = world.dcc()
        meter = dice.choice(world.meters)
        best = dcc.routes.route_of(eui(meter))
        if best is None:
            continue
        failed = {dice.choice(best.components)}
        everything = {each for way in world.ways(meter) for each in components_of(way)}
        failed.add(dice.choice(sorted(everything)))
        verdict = run(Isolation(eui(meter), dcc.routes), failed, seed=seed, told=told)
        if verdict.is_certain:
            certain += 1
            assert failed & {cause.component for cause in verdict.causes}, (seed, verdict)
    assert certain > 30


def test_lossy_network_makes_no_certain_answer_wrong() -> None:
    named = certain = 0
    for part in KINDS:
        for seed, _, dcc, meter, failed in cases(part, 60):
            verdict = run(Isolation(eui(meter), dcc.routes), {failed}, seed=seed, loss=0.15)
            causes = {cause.component for cause in verdict.causes}
            named += failed in causes
            if verdict.is_certain and verdict.finding is not Finding.ANSWERS:
                certain += 1
                assert failed in causes, (seed, verdict)
    assert named >= 0.95 * 60 * len(KINDS)
    assert certain > 60


def test_same_outcomes_give_the_same_verdict() -> None:
    for seed, _, dcc, meter, failed in cases(Part.RELAY, 10):
        verdicts = [run(Isolation(eui(meter), dcc.routes), {failed}, seed=seed) for _ in range(2)]
        assert verdicts[0] == verdicts[1]


# Single matters


def diamond() -> World:
    """Meter 9 behind relays 1 and 2 of collector 192 and relay 3 of collector 193."""
    return World(
        (192, 193),
        (1, 2, 3, 9),
        {
            frozenset({192, 1}): 128,
            frozenset({192, 2}): 200,
            frozenset({193, 3}): 300,
            frozenset({1, 9}): 128,
            frozenset({2, 9}): 200,
            frozenset({3, 9}): 300,
        },
    )


def test_alternates_are_tried_in_order_and_those_left_are_counted_by_kind() -> None:
    dcc = diamond().dcc()
    isolation = Isolation(eui(9), dcc.routes)
    verdict = run(isolation, {node_component(eui(1))})
    assert [way.path.nodes for way in verdict.ways] == [
        (eui(192), eui(1), eui(9)),
        (eui(193), eui(3), eui(9)),
        (eui(192), eui(2), eui(9)),
    ]
    assert [way.kind for way in verdict.ways] == [
        None,
        PathKind.OTHER_COLLECTOR,
        PathKind.OTHER_RELAYS,
    ]
    assert verdict.left == verdict.known
    assert verdict.left[PathKind.OTHER_COLLECTOR] == verdict.left[PathKind.OTHER_RELAYS] == 1
    assert verdict.left[PathKind.SHARED] == 0


def test_meter_with_three_neighbours_is_named_for_certain() -> None:
    verdict = run(Isolation(eui(9), diamond().dcc().routes), {node_component(eui(9))}, told=0.0)
    assert [str(cause) for cause in verdict.causes] == [f"meter {eui(9).hex()}"]
    assert verdict.is_certain
    assert sum(verdict.left.values()) == 0
    assert sum(verdict.known.values()) == 2


def test_meter_with_one_neighbour_is_in_a_class_with_its_link() -> None:
    world = World((192,), (1, 9), {frozenset({192, 1}): 128, frozenset({1, 9}): 128})
    verdict = run(Isolation(eui(9), world.dcc().routes), {node_component(eui(9))})
    assert verdict.finding is Finding.CLASS
    assert {cause.part for cause in verdict.causes} == {Part.METER, Part.LINK}


def test_meter_with_two_neighbours_is_named_but_both_links_could_have_failed() -> None:
    world = diamond()
    del world.links[frozenset({3, 9})]
    verdict = run(Isolation(eui(9), world.dcc().routes), {node_component(eui(9))}, told=0.0)
    assert verdict.finding is Finding.COMPONENT
    assert [cause.part for cause in verdict.causes] == [Part.METER]
    assert not verdict.is_certain


def test_meter_that_answers_needs_no_further_probe() -> None:
    isolation = Isolation(eui(9), diamond().dcc().routes)
    verdict = run(isolation, set())
    assert (verdict.finding, verdict.probe_count, verdict.causes) == (Finding.ANSWERS, 1, ())


def test_meter_without_a_way_gets_a_verdict_at_once() -> None:
    world = World((192,), (1, 9), {frozenset({192, 1}): 128})
    verdict = Isolation(eui(9), world.dcc().routes).verdict()
    assert verdict is not None
    assert (verdict.finding, verdict.probe_count) == (Finding.NO_WAY, 0)


def test_two_relays_that_failed_are_not_taken_for_the_meter() -> None:
    world = diamond()
    failed = {node_component(eui(short)) for short in (1, 2, 3)}
    verdict = run(Isolation(eui(9), world.dcc().routes), failed, told=0.0)
    assert not verdict.is_certain
    failed = {node_component(eui(short)) for short in (1, 2)}
    verdict = run(Isolation(eui(9), world.dcc().routes), failed, told=0.0)
    assert verdict.finding is Finding.SEVERAL
    assert failed <= {cause.component for cause in verdict.causes}


def test_failure_that_comes_and_goes_is_called_that() -> None:
    world = World((192,), (9,), {frozenset({192, 9}): 128})
    isolation = Isolation(eui(9), world.dcc().routes)
    for now in range(20):
        if (probe := isolation.probe_to_send(now=float(now))) is None:
            if isolation.verdict() is not None:
                break
            continue
        isolation.take_outcome(probe.number, NoAnswer() if now < ATTEMPTS_MAX else Answered())
        if now == ATTEMPTS_MAX - 1:
            isolation.take_evidence([node_component(eui(9)), link_component(eui(9), eui(192))])
            isolation.take_evidence([node_component(eui(192)), backhaul_component(eui(192))])
    verdict = isolation.verdict()
    assert verdict is not None
    assert verdict.finding in (Finding.UNSTABLE, Finding.ANSWERS)
    assert not verdict.causes


def test_silence_is_an_outcome_after_its_time_and_a_late_answer_still_counts() -> None:
    isolation = Isolation(eui(9), diamond().dcc().routes)
    probe = isolation.probe_to_send(now=0.0)
    assert probe is not None
    assert isolation.probe_to_send(now=0.0) is None
    due = isolation.next_timer()
    assert due == 7.0
    isolation.handle_timer(now=due - 0.1)
    assert isolation.probe_to_send(now=due - 0.1) is None
    isolation.handle_timer(now=due)
    again = isolation.probe_to_send(now=due)
    assert again is not None
    assert (again.number, again.path) == (probe.number + 1, probe.path)
    isolation.take_outcome(probe.number, Answered())
    verdict = isolation.verdict()
    assert verdict is not None
    assert verdict.finding is Finding.ANSWERS
    assert isolation.next_timer() is None
    isolation.take_outcome(again.number, NoAnswer())
    assert isolation.verdict() == verdict


def test_an_answer_counts_though_its_way_was_given_up_meanwhile() -> None:
    isolation = Isolation(eui(9), diamond().dcc().routes)
    first = isolation.probe_to_send(now=0.0)
    assert first is not None
    for now in range(ATTEMPTS_MAX):
        probe = isolation.probe_to_send(now=float(now)) or first
        isolation.take_outcome(probe.number, NoAnswer())
    second = isolation.probe_to_send(now=9.0)
    assert second is not None
    assert second.path != first.path
    isolation.take_outcome(first.number, Answered())
    isolation.take_outcome(second.number, Answered())
    verdict = isolation.verdict()
    assert verdict is not None
    assert verdict.finding is Finding.ANSWERS


def test_who_could_not_go_on_blames_the_next_hop_alone() -> None:
    world = World((192,), (1, 2, 9), {frozenset(ends): 128 for ends in ((192, 1), (1, 2), (2, 9))})
    isolation = Isolation(eui(9), world.dcc().routes)
    for now in range(ATTEMPTS_MAX):
        probe = isolation.probe_to_send(now=float(now))
        assert probe is not None
        isolation.take_outcome(probe.number, LostAfter(1))
    assert isolation.suspects == {link_component(eui(1), eui(2)), node_component(eui(2))}


def test_probes_have_a_bound_and_then_nothing_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.topology.isolate.PROBES_MAX", 3)
    failed = {node_component(eui(9))}
    verdict = run(Isolation(eui(9), diamond().dcc().routes), failed, told=0.0)
    assert verdict.finding is Finding.UNFINISHED
    assert len(verdict.ways) == 3
    assert failed <= {cause.component for cause in verdict.causes}
    assert not verdict.is_certain


def test_outcomes_that_no_probe_can_have_are_the_callers_mistake() -> None:
    isolation = Isolation(eui(9), diamond().dcc().routes)
    with pytest.raises(LocalProtocolError, match="never sent"):
        isolation.take_outcome(0, Answered())
    probe = isolation.probe_to_send(now=0.0)
    assert probe is not None
    for hops in (-1, probe.path.hops):
        with pytest.raises(LocalProtocolError, match="lost after"):
            isolation.take_outcome(probe.number, LostAfter(hops))


def test_backhaul_that_is_known_to_be_down_is_told_from_its_collector_by_who_hears_it() -> None:
    world = diamond()
    dcc = world.dcc()
    dcc.locations.learn(eui(9), BehindCollector(eui(192)), path_sequence=1, now=1.0)
    dcc.set_backhaul(eui(192), Backhaul.DOWN, now=1_000.0)
    failed = {backhaul_component(eui(192))}
    verdict = run(dcc.isolate(eui(9), now=1_100.0), failed, told=1.0)
    assert {cause.part for cause in verdict.causes} == {Part.BACKHAUL, Part.COLLECTOR}
    assert verdict.left[PathKind.OTHER_COLLECTOR] == 1
    for node, report in world.reports(sequence=2):
        if node not in world.collectors:
            dcc.take_report(report, area=7, short=node, now=2_000.0)  # type: ignore[arg-type]
    isolation = dcc.isolate(eui(9), now=2_100.0)
    verdict = run(isolation, failed, told=1.0)
    assert [cause.part for cause in verdict.causes] == [Part.BACKHAUL]
    dcc.isolation_ended(isolation, now=2_200.0)
    assert dcc.devices.status_of(eui(9), now=2_200.0).state.value == "reachable"


@pytest.mark.parametrize(("after_s", "is_cleared"), [(59.0, False), (61.0, True)])
def test_a_link_measured_in_the_minute_of_the_break_says_nothing_of_its_end(
    after_s: float, *, is_cleared: bool
) -> None:
    world = diamond()
    dcc = world.dcc()
    dcc.locations.learn(eui(9), BehindCollector(eui(192)), path_sequence=1, now=1.0)
    dcc.set_backhaul(eui(192), Backhaul.DOWN, now=1_000.0)
    # Whole minutes are told: what is said to be new is nearly a minute old, perhaps.
    (heard,) = (report for node, report in world.reports(sequence=2) if node == 1)
    new = replace(heard, parents=tuple(replace(link, age_minutes=0) for link in heard.parents))
    dcc.take_report(new, area=AREA, short=1, now=1_000.0 + after_s)
    isolation = dcc.isolate(eui(9), now=2_000.0)
    verdict = run(isolation, {backhaul_component(eui(192))}, told=1.0)
    parts = {cause.part for cause in verdict.causes}
    assert (Part.COLLECTOR not in parts) is is_cleared
    assert Part.BACKHAUL in parts


@pytest.mark.parametrize("failed", [node_component, backhaul_component])
def test_collector_that_answers_through_the_mesh_is_told_from_its_backhaul(
    failed: Callable[[Eui64], Component],
) -> None:
    world = diamond()
    world.links[frozenset({3, 192})] = 500
    isolation = Isolation(eui(9), world.dcc().routes, can_probe_collectors=True)
    verdict = run(isolation, {failed(eui(192))}, told=0.0)
    assert [cause.component for cause in verdict.causes] == [failed(eui(192))]


@pytest.mark.parametrize("part", [Part.COLLECTOR, Part.BACKHAUL], ids=lambda part: part.value)
def test_collectors_that_answer_make_no_answer_wrong(part: Part) -> None:
    told_apart = 0
    for seed, _, dcc, meter, failed in cases(part, 60):
        isolation = Isolation(eui(meter), dcc.routes, can_probe_collectors=True)
        verdict = run(isolation, {failed}, seed=seed)
        assert failed in {cause.component for cause in verdict.causes}
        told_apart += len(verdict.causes) == 1
    assert told_apart > 15


def test_relay_that_is_lost_over_three_links_is_named_for_certain() -> None:
    world = World(
        (192, 193),
        (1, 2, 3, 9),
        {
            frozenset({1, 9}): 128,
            frozenset({192, 1}): 128,
            frozenset({193, 1}): 300,
            frozenset({192, 2}): 300,
            frozenset({2, 1}): 300,
            frozenset({193, 3}): 500,
            frozenset({3, 9}): 500,
        },
    )
    for third_link in (True, False):
        if not third_link:
            del world.links[frozenset({2, 1})], world.links[frozenset({193, 1})]
        failed = node_component(eui(1))
        verdict = run(Isolation(eui(9), world.dcc().routes), {failed}, told=0.0)
        assert failed in {cause.component for cause in verdict.causes}
        assert (len(verdict.causes) == 1 and verdict.is_certain) is third_link


def test_node_that_says_it_could_not_go_on_clears_all_before_it() -> None:
    world = World(
        (192,),
        (1, 2, 9),
        {frozenset({192, 1}): 128, frozenset({1, 2}): 128, frozenset({2, 9}): 128},
    )
    isolation = Isolation(eui(9), world.dcc().routes)
    verdict = run(isolation, {node_component(eui(9))}, told=1.0)
    assert {cause.part for cause in verdict.causes} == {Part.METER, Part.LINK}
    assert verdict.is_certain
    # No probe is spent on what is known.
    assert verdict.probe_count == ATTEMPTS_MAX
    silent = run(Isolation(eui(9), world.dcc().routes), {node_component(eui(9))}, told=0.0)
    assert silent.causes == verdict.causes
    assert silent.probe_count > ATTEMPTS_MAX


def test_seeds_reach_every_finding_that_a_network_can_cause() -> None:
    """Guards the dice: single and double failures come to all the ends there are."""
    found = set()
    for seed in range(120):
        dice = random.Random(seed)
        world = made_world(seed, meters=6, degree=2.6)
        dcc = world.dcc()
        everything = sorted(
            {
                each
                for node in world.meters
                for way in world.ways(node)
                for each in components_of(way)
            }
        )
        failed = set(dice.sample(everything, min(len(everything), seed % 3)))
        found.add(run(Isolation(eui(1), dcc.routes), failed, seed=seed).finding)
    assert found >= {Finding.ANSWERS, Finding.COMPONENT, Finding.CLASS, Finding.SEVERAL}
    assert Finding.NO_WAY in found
