"""Ways that were lost by chance: asked again, in time, before several are said to have failed.

The contract under test: where one failure explains all that was lost, no way is asked again. Where
none does, each way that was lost is asked RETRIES_MAX times more, RETRY_WAIT_S after it was asked
last, and one answer clears it; a way that got further than before blames what lies beyond alone; a
way whose collector has no connection is not asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest

from mesh.topology.explanations import summary
from mesh.topology.isolate import ATTEMPTS_MAX, RETRIES_MAX, RETRY_WAIT_S, Isolation
from mesh.topology.paths import Part, link_component, node_component
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
from tests.mesh.topology.test_isolate_not_passed import shorts, square
from tests.mesh.topology.worlds import World, eui

Way = tuple[int, ...]
BEST, OTHER = (192, 1, 9), (193, 2, 9)
AGAIN_MAX = ATTEMPTS_MAX + RETRIES_MAX


class Network:
    """Says of each way what was laid down for it, the last of it for ever; the rest answers."""

    def __init__(self, outcomes: Mapping[Way, Sequence[Outcome]]) -> None:
        self.asked: dict[Way, list[float]] = {}
        self._outcomes = outcomes

    def isolate(self, isolation: Isolation) -> Verdict:
        now = 0.0
        while (verdict := isolation.verdict()) is None:
            probe = isolation.probe_to_send(now=now)
            if probe is None:
                due = isolation.next_timer()
                assert due is not None
                assert due > now
                now = due
                continue
            way = shorts(probe.path)
            times = self.asked.setdefault(way, [])
            times.append(now)
            said = self._outcomes.get(way, [Answered()])
            isolation.take_outcome(probe.number, said[min(len(times), len(said)) - 1])
            now += 0.5
        return verdict


def dead_relay(other: Sequence[Outcome]) -> dict[Way, Sequence[Outcome]]:
    """Node 1 is dead; `other` is what becomes of the way that has nothing to do with it."""
    return {
        BEST: [LostAfter(0)],
        (193, 2, 1, 9): [LostAfter(1)],
        (192, 1, 2, 9): [LostAfter(0)],
        (192, 1): [LostAfter(0)],
        (193, 2, 1): [LostAfter(1)],
        (193, 2, 9, 1): [LostAfter(2)],
        OTHER: other,
    }


def test_way_that_a_weak_link_lost_three_times_accuses_nobody() -> None:
    network = Network(dead_relay([LostAfter(1)] * ATTEMPTS_MAX + [Answered()]))
    verdict = network.isolate(Isolation(eui(9), square().dcc().routes))
    assert [cause.component for cause in verdict.causes] == [node_component(eui(1))]
    assert verdict.finding is Finding.COMPONENT
    assert sum(verdict.left.values()) == 1


def test_last_time_that_a_way_is_asked_still_counts_and_there_is_none_after_it() -> None:
    lost: list[Outcome] = [LostAfter(1)]
    network = Network(dead_relay([*lost * (AGAIN_MAX - 1), Answered()]))
    verdict = network.isolate(Isolation(eui(9), square().dcc().routes))
    assert [cause.component for cause in verdict.causes] == [node_component(eui(1))]
    network = Network(dead_relay([*lost * AGAIN_MAX, Answered()]))
    verdict = network.isolate(Isolation(eui(9), square().dcc().routes))
    assert verdict.finding is Finding.SEVERAL
    assert not verdict.is_certain
    assert node_component(eui(1)) in {cause.component for cause in verdict.causes}
    assert {len(times) for times in network.asked.values()} == {AGAIN_MAX}


def test_each_time_more_comes_when_nobody_holds_the_link_back_any_longer() -> None:
    network = Network(dead_relay([LostAfter(1)]))
    network.isolate(Isolation(eui(9), square().dcc().routes))
    for times in network.asked.values():
        at_once, later = times[:ATTEMPTS_MAX], times[ATTEMPTS_MAX - 1 :]
        assert at_once[-1] - at_once[0] < RETRY_WAIT_S
        assert len(later) == 1 + RETRIES_MAX
        assert all(b - a >= RETRY_WAIT_S for a, b in itertools.pairwise(later))


def test_nothing_is_sent_before_its_time_and_the_timer_says_when_that_is() -> None:
    world = World((192,), (9,), {frozenset({192, 9}): 128})
    isolation = Isolation(eui(9), world.dcc().routes)
    for _ in range(ATTEMPTS_MAX):
        probe = isolation.probe_to_send(now=100.0)
        assert probe is not None
        assert isolation.asked == probe
        if probe.number == ATTEMPTS_MAX - 1:
            isolation.take_evidence(probe.path.components)
            isolation.sent_late(probe.number, now=103.0)
        isolation.take_outcome(probe.number, NoAnswer())
    assert isolation.asked is None
    due = 103.0 + RETRY_WAIT_S
    assert isolation.next_timer() == due
    isolation.handle_timer(now=due - 0.1)
    assert isolation.probe_to_send(now=due - 0.1) is None
    assert isolation.verdict() is None
    again = isolation.probe_to_send(now=due)
    assert again is not None
    assert isolation.next_timer() == due + 6.0


def test_failure_that_stays_though_all_was_seen_to_work_is_called_unstable_in_the_end() -> None:
    world = World((192,), (9,), {frozenset({192, 9}): 128})
    isolation = Isolation(eui(9), world.dcc().routes)
    best = world.dcc().routes.route_of(eui(9))
    assert best is not None
    isolation.take_evidence(best.components)
    network = Network({(192, 9): [NoAnswer()]})
    verdict = network.isolate(isolation)
    assert verdict.finding is Finding.UNSTABLE
    assert not verdict.causes
    assert verdict.probe_count == AGAIN_MAX


def test_answer_that_comes_while_nothing_may_be_sent_ends_the_waiting() -> None:
    world = World((192,), (9,), {frozenset({192, 9}): 128})
    isolation = Isolation(eui(9), world.dcc().routes)
    for _ in range(ATTEMPTS_MAX):
        probe = isolation.probe_to_send(now=0.0)
        assert probe is not None
        isolation.take_evidence(probe.path.components)
        isolation.take_outcome(probe.number, NoAnswer())
    isolation.take_outcome(0, Answered())
    verdict = isolation.verdict()
    assert verdict is not None
    assert verdict.finding is Finding.ANSWERS
    assert isolation.next_timer() is None
    assert isolation.probe_to_send(now=99.0) is None


def test_no_way_is_asked_again_where_one_failure_explains_all() -> None:
    network = Network(dead_relay([Answered()]))
    verdict = network.isolate(Isolation(eui(9), square().dcc().routes))
    assert [cause.component for cause in verdict.causes] == [node_component(eui(1))]
    assert max(len(times) for times in network.asked.values()) == ATTEMPTS_MAX


def test_collector_without_a_connection_is_not_asked_again() -> None:
    outcomes = dead_relay([LostAfter(1)] * ATTEMPTS_MAX + [Answered()])
    outcomes |= {BEST: [NoConnection()], (192, 1, 2, 9): [NoConnection()]}
    outcomes[193, 2, 1, 9] = [Answered()]
    network = Network(outcomes)
    verdict = network.isolate(Isolation(eui(9), square().dcc().routes))
    assert {cause.part for cause in verdict.causes} == {Part.BACKHAUL, Part.COLLECTOR}
    assert len(network.asked[BEST]) == 1
    assert len(network.asked[OTHER]) == ATTEMPTS_MAX + 1


def test_way_that_got_further_the_next_time_blames_what_lies_beyond() -> None:
    """The meter is dead, and a weak link lost the whole first series of one way."""
    outcomes: dict[Way, Sequence[Outcome]] = {
        BEST: [LostAfter(0)] * ATTEMPTS_MAX + [LostAfter(1)],
        OTHER: [LostAfter(1)],
        (193, 2, 1, 9): [LostAfter(2)],
        (192, 1, 2, 9): [LostAfter(2)],
    }
    verdict = Network(outcomes).isolate(Isolation(eui(9), square().dcc().routes))
    assert [cause.component for cause in verdict.causes] == [node_component(eui(9))]


def test_relay_that_got_a_probe_but_knows_nobody_to_hand_it_to_blames_nothing() -> None:
    outcomes = dead_relay([LostAfter(0)] * ATTEMPTS_MAX + [NotPassed(1)])
    verdict = Network(outcomes).isolate(Isolation(eui(9), square().dcc().routes))
    assert [cause.component for cause in verdict.causes] == [node_component(eui(1))]
    assert link_component(eui(2), eui(193)) not in {c.component for c in verdict.causes}


@pytest.mark.parametrize(
    ("attempts", "outcome"),
    [
        ([LostAfter(0)] * 3, LostAfter(0)),
        ([LostAfter(0)] * 3 + [NoAnswer()], NoAnswer()),
        ([LostAfter(0)] * 3 + [LostAfter(1)], NoAnswer()),
        ([LostAfter(1)] * 3 + [NotPassed(1)], LostAfter(1)),
        ([LostAfter(1)] * 3 + [NotPassed(2)], NotPassed(2)),
        ([LostAfter(0), LostAfter(1), NotPassed(1)], LostAfter(1)),
        ([NoAnswer()] * 3 + [NotPassed(1)], NoAnswer()),
        ([NotPassed(0)], NotPassed(0)),
    ],
)
def test_what_attempts_come_to(attempts: list[Outcome], outcome: Outcome) -> None:
    assert summary(attempts) == outcome
