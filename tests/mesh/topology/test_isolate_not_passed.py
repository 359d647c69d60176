"""Ways that could not be tried: a relay that does not know the next node proves nothing of it.

The contract under test: `NotPassed` clears what was reached and blames nothing; a relay that was
tried and forgot its neighbour meanwhile blames as before.
"""

from __future__ import annotations

import pytest

from amistack.errors import LocalProtocolError
from mesh.topology.isolate import Isolation
from mesh.topology.paths import Part, Path, link_component, node_component
from mesh.topology.verdicts import (
    Answered,
    Finding,
    LostAfter,
    NoAnswer,
    NoConnection,
    NotPassed,
    Outcome,
    Verdict,
)
from tests.mesh.topology.worlds import World, eui


def square() -> World:
    """Two collectors, a relay below each, and a meter below both."""
    pairs = ((192, 1), (193, 2), (1, 9), (2, 9), (1, 2))
    return World((192, 193), (1, 2, 9), {frozenset(pair): 128 + sum(pair) for pair in pairs})


def run(isolation: Isolation, outcomes: dict[tuple[int, ...], list[Outcome]]) -> Verdict:
    """Answer each probe by its way, in short addresses; what is not there is answered."""
    for now in range(300):
        probe = isolation.probe_to_send(now=float(now))
        if probe is None:
            break
        waiting = outcomes.get(shorts(probe.path))
        isolation.take_outcome(probe.number, waiting.pop(0) if waiting else Answered())
    verdict = isolation.verdict()
    assert verdict is not None
    return verdict


def shorts(path: Path) -> tuple[int, ...]:
    return (int.from_bytes(path.collector[4:], "big"), *path.shorts)


def test_meter_that_died_is_named_though_one_way_could_not_be_tried() -> None:
    outcomes: dict[tuple[int, ...], list[Outcome]] = {
        (192, 1, 9): [NoAnswer()] * 3,
        (193, 2, 1, 9): [NoAnswer()] * 3,
        (193, 2, 9): [NotPassed(1)],
        (192, 1, 2, 9): [NotPassed(2)],
    }
    verdict = run(Isolation(eui(9), square().dcc().routes), outcomes)
    # Neither relay is blamed, nor the link that nobody tried.
    assert [cause.component for cause in verdict.causes] == [
        link_component(eui(1), eui(9)),
        node_component(eui(9)),
    ]


def test_way_that_could_not_be_tried_is_not_tried_again() -> None:
    isolation = Isolation(eui(9), square().dcc().routes)
    probe = isolation.probe_to_send(now=0.0)
    assert probe is not None
    isolation.take_outcome(probe.number, NotPassed(0))
    following = isolation.probe_to_send(now=1.0)
    assert following is not None
    assert following.path != probe.path


def test_meter_that_answers_over_another_way_answers_but_nothing_is_certain() -> None:
    verdict = run(Isolation(eui(9), square().dcc().routes), {(192, 1, 9): [NotPassed(1)]})
    assert verdict.finding is Finding.ANSWERS
    assert not verdict.is_certain
    assert verdict.causes == ()


def test_meter_to_which_no_way_could_be_tried_has_none() -> None:
    world = World((192,), (1, 9), {frozenset({192, 1}): 128, frozenset({1, 9}): 128})
    verdict = run(Isolation(eui(9), world.dcc().routes), {(192, 1, 9): [NotPassed(1)]})
    assert verdict.finding is Finding.NO_WAY
    assert not verdict.is_certain


def test_neighbour_that_was_lost_first_and_is_forgotten_then_was_lost() -> None:
    world = World((192,), (1, 9), {frozenset({192, 1}): 128, frozenset({1, 9}): 128})
    verdict = run(
        Isolation(eui(9), world.dcc().routes),
        {(192, 1, 9): [LostAfter(1), LostAfter(1), NotPassed(1)]},
    )
    assert verdict.finding is Finding.CLASS
    assert {cause.part for cause in verdict.causes} == {Part.METER, Part.LINK}


def test_link_that_could_not_be_tried_is_gone_around() -> None:
    """A collector is told from its backhaul over the second neighbour if not over the first."""
    pairs = ((192, 9), (193, 1), (193, 2), (1, 192), (2, 192))
    world = World((192, 193), (1, 2, 9), {frozenset(pair): 128 + sum(pair) for pair in pairs})
    outcomes: dict[tuple[int, ...], list[Outcome]] = {
        (192, 9): [NoConnection()],
        (193, 1, 192): [NotPassed(1)],
        (193, 2, 192): [Answered()],
    }
    isolation = Isolation(eui(9), world.dcc().routes, can_probe_collectors=True)
    verdict = run(isolation, outcomes)
    assert [cause.part for cause in verdict.causes] == [Part.BACKHAUL]


@pytest.mark.parametrize("hops", [-1, 2, 3])
def test_node_that_is_not_on_the_way_cannot_have_said_so(hops: int) -> None:
    world = World((192,), (1, 9), {frozenset({192, 1}): 128, frozenset({1, 9}): 128})
    isolation = Isolation(eui(9), world.dcc().routes)
    probe = isolation.probe_to_send(now=0.0)
    assert probe is not None
    with pytest.raises(LocalProtocolError):
        isolation.take_outcome(probe.number, NotPassed(hops))
