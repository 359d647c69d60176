"""Isolation with probes over the backhauls.

The contract under test: the probes go over exactly the ways that the isolation chose, by the
collector each begins at; what collectors answer leads to the component that is broken, with the
alternates left by kind; a collector that is only busy blames nothing; one that goes away is a way
without a connection; progress and the end are told, each isolation ends once.
"""

from __future__ import annotations

import pytest

from amistack.errors import MeshError
from headend.dcc.events import Isolated, RequestEnded, Tried
from headend.dcc.isolating import RUNNING_MAX, UNSENT_MAX, outcome_of
from headend.dcc.watching import WATCHED_MAX
from headend.domain.refusals import TooMany
from mesh.backhaul import Outcome, Probe, Probed
from mesh.topology.facts import AreaId
from mesh.topology.isolate import ATTEMPTS_MAX, PROBES_MAX, RETRIES_MAX
from mesh.topology.paths import Part, Path
from mesh.topology.status import EndpointState
from mesh.topology.verdicts import (
    Answered,
    Finding,
    LostAfter,
    NoAnswer,
    NoConnection,
    NotPassed,
    Verdict,
)
from tests.headend.dcc.test_downlinks import DIAMOND, EAST, STREET, WEST, formed
from tests.headend.dcc.worlds import Backhauls, line
from tests.mesh.topology.worlds import eui, made_world


def isolate(street: Backhauls, meter: int, *, within_s: float = 600.0) -> Verdict:
    street.center.isolate(eui(meter), now=street.now)
    street.collect()
    street.run(within_s)
    (ended,) = street.of(Isolated)
    assert isinstance(ended, Isolated)
    assert ended.verdict is not None, ended.detail
    return ended.verdict


def test_meter_that_answers_is_not_to_blame() -> None:
    street = formed(DIAMOND)
    verdict = isolate(street, 4)
    assert verdict.finding is Finding.ANSWERS
    assert [type(event) for event in street.events[-2:]] == [Tried, Isolated]
    probes = [m for m in street.collectors[WEST].told if isinstance(m, Probe)]
    assert [(probe.destination, probe.relays) for probe in probes] == [(4, (1,))]


def test_relay_that_is_dead_is_named_and_the_ways_left_are_counted() -> None:
    street = formed(DIAMOND)
    street.broken.add(1)
    verdict = isolate(street, 4)
    assert verdict.finding is Finding.COMPONENT or verdict.finding is Finding.CLASS
    assert eui(1) in {end for cause in verdict.causes for end in cause.component.ends}
    assert sum(verdict.left.values()) == 2
    devices = street.center.dcc.devices
    assert devices.status_of(eui(4), now=street.now).state is EndpointState.REACHABLE


def test_meter_that_is_dead_is_named_with_certainty_after_all_ways() -> None:
    street = formed(DIAMOND)
    street.broken.add(4)
    verdict = isolate(street, 4)
    assert [cause.part for cause in verdict.causes] == [Part.METER]
    assert verdict.is_certain
    assert sum(verdict.left.values()) == 0
    assert sum(verdict.known.values()) == 2
    devices = street.center.dcc.devices
    assert devices.status_of(eui(4), now=street.now).state is EndpointState.UNREACHABLE


@pytest.mark.parametrize("seed", range(30))
def test_one_dead_node_or_link_is_never_named_wrongly(seed: int) -> None:
    world = made_world(seed)
    street = Backhauls(world)
    street.report(next(iter(street.connections)))
    route_of = street.center.dcc.routes.route_of
    there = [meter for meter in world.meters if route_of(eui(meter)) is not None]
    meter = there[seed % len(there)]
    way = route_of(eui(meter))
    assert way is not None
    shorts = [int.from_bytes(node[4:], "big") for node in way.nodes]
    at = seed % way.hops
    broken: object = shorts[at + 1] if seed % 2 else frozenset((shorts[at], shorts[at + 1]))
    street.broken.add(broken)
    verdict = isolate(street, meter)
    named = {cause.component.ends for cause in verdict.causes}
    true = (
        (eui(shorts[at + 1]),)
        if seed % 2
        else tuple(sorted((eui(shorts[at]), eui(shorts[at + 1]))))
    )
    assert true in named
    assert len(street.of(Isolated)) == 1


def test_collector_that_is_away_leaves_its_backhaul_or_itself() -> None:
    street = formed(line(WEST, 1, 2, collectors=(WEST,)))
    street.leave(next(iter(street.connections)))
    verdict = isolate(street, 2)
    assert {cause.part for cause in verdict.causes} == {Part.BACKHAUL, Part.COLLECTOR}


def test_collector_that_leaves_meanwhile_ends_its_probes() -> None:
    street = formed(STREET)
    street.broken.add(2)
    street.center.isolate(eui(2), now=street.now)
    street.collect()
    street.leave(next(iter(street.connections)))
    street.run(600)
    assert NoConnection() in [e.outcome for e in street.of(Tried) if isinstance(e, Tried)]
    assert len(street.of(Isolated)) == 1


def test_collector_that_is_busy_is_asked_again_and_blames_nothing() -> None:
    street = formed(DIAMOND)
    collector = street.collectors[WEST]
    collector.is_full = True
    street.center.isolate(eui(4), now=street.now)
    street.collect()
    street.run(3)
    assert not street.of(Tried)
    collector.is_full = False
    street.run(60)
    (ended,) = street.of(Isolated)
    assert isinstance(ended, Isolated)
    assert ended.verdict is not None
    assert ended.verdict.finding is Finding.ANSWERS


def test_time_that_a_collector_was_busy_is_not_the_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.headend.dcc.worlds.HOP_S", 1.5)
    street = formed(line(WEST, 1, collectors=(WEST,)))
    street.collectors[WEST].is_full = True
    street.center.isolate(eui(1), now=street.now)
    street.collect()
    street.run(3)
    street.collectors[WEST].is_full = False
    # Sent after 4 s and answered 3 s later, where a probe over one hop has 6.
    street.run(10)
    outcomes = [event.outcome for event in street.of(Tried) if isinstance(event, Tried)]
    assert outcomes == [Answered()]


def test_collector_that_stays_busy_ends_the_isolation_without_a_verdict() -> None:
    street = formed(DIAMOND)
    street.collectors[WEST].is_full = True
    street.center.isolate(eui(4), now=street.now)
    street.collect()
    street.run(60)
    (ended,) = street.of(Isolated)
    assert isinstance(ended, Isolated)
    assert ended.verdict is None
    assert "no room" in ended.detail
    probes = [m for m in street.collectors[WEST].told if isinstance(m, Probe)]
    assert len(probes) == 1 + UNSENT_MAX
    # That says nothing about the meter.
    devices = street.center.dcc.devices
    assert devices.status_of(eui(4), now=street.now).state is EndpointState.REACHABLE


def test_meter_without_a_known_way_stays_as_it_was() -> None:
    street = Backhauls(DIAMOND)
    verdict = isolate(street, 4)
    assert verdict.finding is Finding.NO_WAY
    devices = street.center.dcc.devices
    assert devices.status_of(eui(4), now=street.now).state is EndpointState.NEVER_HEARD


def test_silence_is_told_as_progress() -> None:
    street = formed(line(WEST, 1, collectors=(WEST,)))
    street.center.isolate(eui(1), now=street.now)
    street.center.messages_to_send()  # They are lost.
    street.run(7)
    outcomes = [event.outcome for event in street.of(Tried) if isinstance(event, Tried)]
    assert outcomes == [NoAnswer(), Answered()]


def test_time_between_a_loss_and_the_next_try_is_no_silence() -> None:
    street = formed(DIAMOND)
    street.broken |= {1, 2}
    verdict = isolate(street, 4, within_s=2_000)
    assert verdict.finding is Finding.SEVERAL
    probes = [m for m in street.collectors[WEST].told if isinstance(m, Probe)]
    assert len(street.of(Tried)) == len(probes) == verdict.probe_count


def test_collector_that_never_answers_is_silence_told_once_for_each_probe() -> None:
    street = formed(DIAMOND)
    street.collectors[WEST].is_deaf = True
    isolate(street, 4, within_s=2_000)
    probes = [m for m in street.collectors[WEST].told if isinstance(m, Probe)]
    outcomes = [event.outcome for event in street.of(Tried) if isinstance(event, Tried)]
    assert outcomes == [NoAnswer()] * len(probes)
    assert not street.of(RequestEnded)


def test_answer_that_comes_after_its_time_counts_if_it_is_one() -> None:
    street = formed(line(WEST, 1, collectors=(WEST,)))
    street.collectors[WEST].is_deaf = True
    west = next(iter(street.connections))
    street.center.isolate(eui(1), now=street.now)
    street.collect()
    street.run(7)
    first = next(m for m in street.collectors[WEST].told if isinstance(m, Probe))
    street.say(west, Probed(first.request, Outcome.NO_ANSWER, 1))
    assert len(street.of(Tried)) == 1
    assert not street.of(Isolated)
    second = [m for m in street.collectors[WEST].told if isinstance(m, Probe)][1]
    street.run(7)
    street.say(west, Probed(second.request, Outcome.ANSWERED, 1, 9_000))
    (ended,) = street.of(Isolated)
    assert isinstance(ended, Isolated)
    assert ended.verdict is not None
    assert ended.verdict.finding is Finding.ANSWERS


def test_answer_to_an_isolation_that_was_given_up_is_not_the_next_ones() -> None:
    street = formed(DIAMOND)
    street.collectors[WEST].is_deaf = True
    west = next(iter(street.connections))
    street.center.isolate(eui(4), now=street.now)
    street.collect()
    street.center.give_up_isolation(eui(4))
    street.center.isolate(eui(4), now=street.now)
    street.collect()
    old, new = [m for m in street.collectors[WEST].told if isinstance(m, Probe)]
    street.say(west, Probed(old.request, Outcome.ANSWERED, 2, 900))
    assert not street.of(Isolated)
    assert not street.of(RequestEnded)
    street.say(west, Probed(new.request, Outcome.ANSWERED, 2, 900))
    assert len(street.of(Isolated)) == 1


def test_two_who_ask_about_one_meter_share_an_isolation() -> None:
    street = formed(DIAMOND)
    street.center.isolate(eui(4), now=street.now)
    isolate(street, 4)
    probes = [m for m in street.collectors[WEST].told if isinstance(m, Probe)]
    assert len(probes) == 1


def test_isolation_that_nobody_waits_for_sends_no_more() -> None:
    street = formed(DIAMOND)
    street.broken.add(4)
    street.center.isolate(eui(4), now=street.now)
    street.collect()
    street.center.give_up_isolation(eui(4))
    street.run(600)
    assert not street.of(Isolated)
    assert len([m for m in street.collectors[WEST].told if isinstance(m, Probe)]) == 1


def test_no_more_isolations_run_than_the_bound_and_none_of_a_stranger() -> None:
    world = line(WEST, *range(1, RUNNING_MAX + 2), collectors=(WEST,))
    street = formed(line(WEST, 1, collectors=(WEST,)))
    with pytest.raises(MeshError):
        street.center.isolate(eui(99), now=street.now)
    street = Backhauls(world)
    street.report(next(iter(street.connections)))
    for meter in range(1, 25):
        street.center.isolate(eui(meter), now=street.now)
    for meter in range(25, RUNNING_MAX + 2):
        # Too many hops away for a source route: no way, at once over.
        street.center.isolate(eui(meter), now=street.now)
    assert len(street.center.events()) >= RUNNING_MAX - 24


def test_more_isolations_than_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headend.dcc.isolating.RUNNING_MAX", 2)
    street = formed(DIAMOND)
    street.center.isolate(eui(1), now=street.now)
    street.center.isolate(eui(2), now=street.now)
    with pytest.raises(TooMany):
        street.center.isolate(eui(3), now=street.now)


WAY = Path(AreaId(7), (eui(WEST), eui(1), eui(2)), (1, 2), 300)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Probed(1, Outcome.ANSWERED, 2, 900), Answered()),
        (Probed(1, Outcome.NO_ANSWER, 2), NoAnswer()),
        (Probed(1, Outcome.LOST_AFTER, 0), LostAfter(0)),
        (Probed(1, Outcome.LOST_AFTER, 1), LostAfter(1)),
        # Nobody can go on from the end of the way, or from beyond it.
        (Probed(1, Outcome.LOST_AFTER, 2), NoAnswer()),
        (Probed(1, Outcome.LOST_AFTER, 9), NoAnswer()),
        (Probed(1, Outcome.NOT_PASSED, 1), NotPassed(1)),
        (Probed(1, Outcome.NOT_PASSED, 2), NoAnswer()),
        (None, NoConnection()),
    ],
)
def test_what_a_collectors_answer_means(answer: Probed | None, outcome: object) -> None:
    assert outcome_of(answer, WAY) == outcome


def test_reader_who_takes_nothing_before_the_end_still_gets_the_verdict() -> None:
    """Its queue drops what it has no room for: every step there can be, and the end, must fit."""
    assert WATCHED_MAX > PROBES_MAX * (ATTEMPTS_MAX + RETRIES_MAX)


def test_east_is_a_collector_of_the_street() -> None:
    """Guards the tests above."""
    assert EAST in STREET.collectors
