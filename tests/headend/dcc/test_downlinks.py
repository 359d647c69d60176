"""Datagrams on their way down.

The contract under test: a datagram goes by the collector where its meter is located, over the
DCC's best way if that begins there; its repetition, known by its octets, takes the next way with
the next attempt number; a way that a collector says has failed is answered with the next one at
once, each way once; what has no way is dropped and counted; all of it bounded in number and time.
"""

from __future__ import annotations

import pytest

from amistack.framing import Priority
from headend.dcc import downlinks
from headend.dcc.downlinks import BROKEN_S, WAYS_MAX
from headend.domain.mesh import MeshPeer
from mesh.backhaul import Fate, What
from mesh.repeated import MEMORY_S
from tests.headend.dcc.worlds import Backhauls, line, row
from tests.mesh.topology.worlds import AREA, World, eui

WEST, EAST = 0xC0, 0xC1
STREET = line(WEST, 1, 2, 3, EAST, collectors=(WEST, EAST))
DIAMOND = World(
    (WEST,),
    (1, 2, 3, 4),
    {
        frozenset({WEST, 1}): 140, frozenset({1, 4}): 140, frozenset({WEST, 2}): 160,
        frozenset({2, 4}): 160, frozenset({WEST, 3}): 180, frozenset({3, 4}): 180,
    },
)  # fmt: skip
"""Meter 4 has three ways that share nothing."""
DATAGRAM = b"\x44\x02\x00\x01token..oscore-option and the rest of it"


def formed(world: World) -> Backhauls:
    street = Backhauls(world)
    west = next(iter(street.connections))
    street.report(west)
    street.say(west, *street.collectors[WEST].table([row(world, m) for m in world.meters]))
    return street


def test_datagram_goes_over_the_best_way_from_where_its_meter_is() -> None:
    street = formed(DIAMOND)
    street.send(4, DATAGRAM, Priority.ON_DEMAND)
    ((collector, down),) = street.downs()
    assert collector == WEST
    assert (down.destination, down.relays, down.attempt) == (4, (1,), 0)
    assert (down.priority, down.payload) == (Priority.ON_DEMAND, DATAGRAM)


def test_collector_chooses_where_the_best_way_begins_at_another() -> None:
    street = formed(STREET)
    street.send(3, DATAGRAM)
    ((collector, down),) = street.downs()
    assert (collector, down.relays) == (WEST, None)
    # The meter told the nearer one.
    street.say([*street.connections][1], row(STREET, 2, 242))
    street.send(2, DATAGRAM)
    assert [(c, d.relays) for c, d in street.downs(2)] == [(EAST, None)]


def test_meter_with_a_route_and_no_location_is_asked_over_the_route() -> None:
    street = Backhauls(STREET)
    street.report(next(iter(street.connections)))
    street.send(3, DATAGRAM)
    assert [(c, d.relays) for c, d in street.downs()] == [(EAST, ())]


def test_each_repetition_takes_the_next_way_and_then_the_first_again() -> None:
    street = formed(DIAMOND)
    for _ in range(4):
        street.send(4, DATAGRAM)
        street.run(3)
    downs = [down for _, down in street.downs()]
    assert [down.relays for down in downs] == [(1,), (2,), (3,), (1,)]
    assert [down.attempt for down in downs] == [0, 1, 2, 3]
    assert len({down.request for down in downs}) == 4


def test_another_datagram_begins_anew() -> None:
    street = formed(DIAMOND)
    street.send(4, DATAGRAM)
    street.send(4, DATAGRAM[:-1] + b"!")
    street.send(4, b"\x44\x02\x00\x02" + DATAGRAM[4:])
    assert [(down.relays, down.attempt) for _, down in street.downs()] == [((1,), 0)] * 3


@pytest.mark.parametrize(("after_s", "attempt"), [(MEMORY_S - 1, 1), (MEMORY_S + 1, 0)])
def test_datagram_is_remembered_for_as_long_as_it_may_be_repeated(
    after_s: float, attempt: int
) -> None:
    street = formed(DIAMOND)
    street.send(4, DATAGRAM)
    street.run(after_s)
    street.send(4, DATAGRAM)
    assert street.downs()[-1][1].attempt == attempt


def test_repetition_keeps_no_other_datagram_from_being_forgotten() -> None:
    street = formed(DIAMOND)
    other = b"\x44\x02\x00\x02" + DATAGRAM[4:]
    street.send(4, DATAGRAM)
    street.send(4, other)
    street.run(MEMORY_S - 1)
    street.send(4, DATAGRAM)
    street.run(2)
    street.send(4, other)
    street.send(4, DATAGRAM)
    assert [down.attempt for _, down in street.downs()] == [0, 0, 1, 0, 2]


def test_way_that_failed_is_answered_with_the_next_at_once() -> None:
    street = formed(DIAMOND)
    street.broken.add(1)
    street.send(4, DATAGRAM)
    street.run(1)
    assert [(down.relays, down.attempt) for _, down in street.downs()] == [((1,), 0), ((2,), 1)]
    counters = street.center.all_counters
    assert counters["fate: route failed"] == 1


def test_each_way_is_tried_once_unasked() -> None:
    street = formed(DIAMOND)
    street.broken.add(4)
    street.send(4, DATAGRAM)
    street.run(30)
    assert [down.relays for _, down in street.downs()] == [(1,), (2,), (3,)]
    street.send(4, DATAGRAM)
    street.run(30)
    assert street.downs()[3][1].attempt == 3


def test_no_more_ways_are_tried_unasked_than_the_bound() -> None:
    links = {frozenset({WEST, m}): 140 + m for m in (1, 2, 3, 5)}
    links |= {frozenset({m, 4}): 140 + m for m in (1, 2, 3, 5)}
    world = World((WEST, EAST), (1, 2, 3, 4, 5), {**links, frozenset({EAST, 4}): 500})
    street = Backhauls(world)
    west, east = street.connections
    street.report(west)
    street.say(east, row(world, 4))
    street.broken.add(4)
    street.send(4, DATAGRAM)
    ((_, down),) = street.downs()
    street.say(east, Fate(down.request, What.LOST))
    street.run(30)
    # The collector's own way is one of them; the DCC has a best way and three alternates.
    assert len(street.center.dcc.routes.alternates_of(eui(4))) == WAYS_MAX - 1
    assert len(street.downs()) == WAYS_MAX


def test_link_that_failed_is_avoided_by_other_datagrams_for_a_while() -> None:
    street = formed(DIAMOND)
    street.broken.add(1)
    street.send(4, DATAGRAM)
    street.run(1)
    street.send(4, b"\x44\x02\x00\x09" + DATAGRAM[4:])
    assert street.downs()[-1][1].relays == (2,)
    street.run(BROKEN_S + 1)
    street.send(4, b"\x44\x02\x00\x0a" + DATAGRAM[4:])
    assert [down.relays for _, down in street.downs()[-1:]] == [(1,)]


@pytest.mark.parametrize("what", [What.REFUSED_FULL, What.TOO_OLD, What.TOO_LONG, What.QUEUED])
def test_collector_that_is_busy_is_not_given_more(what: What) -> None:
    street = formed(DIAMOND)
    street.send(4, DATAGRAM)
    ((_, down),) = street.downs()
    street.say(next(iter(street.connections)), Fate(down.request, what))
    assert len(street.downs()) == 1


def test_collector_that_chose_the_way_chooses_the_next_one() -> None:
    street = formed(STREET)
    street.send(3, DATAGRAM)
    ((_, down),) = street.downs()
    assert down.relays is None
    west = next(iter(street.connections))
    street.say(west, Fate(down.request, What.ROUTE_FAILED, 1, 2))
    assert len(street.downs()) == 1
    street.say(west, Fate(down.request, What.LOST))
    assert [(c, d.relays) for c, d in street.downs()[1:]] == [(EAST, ())]


def test_fate_of_an_earlier_way_changes_nothing() -> None:
    street = formed(DIAMOND)
    west = next(iter(street.connections))
    street.send(4, DATAGRAM)
    street.send(4, DATAGRAM)
    first = street.downs()[0][1].request
    street.say(west, Fate(first, What.NO_ROUTE), Fate(999, What.NO_ROUTE))
    assert len(street.downs()) == 2
    assert street.center.all_counters["fates of what is forgotten"] == 2


def test_fate_from_another_collector_changes_nothing() -> None:
    street = formed(STREET)
    street.send(1, DATAGRAM)
    (_, down) = street.downs()[0]
    street.say([*street.connections][1], Fate(down.request, What.NO_ROUTE))
    assert len(street.downs()) == 1


@pytest.mark.parametrize(("is_sent", "count"), [(False, 1), (True, 0)])
def test_what_a_collector_had_not_sent_when_it_left_goes_by_another(
    count: int, *, is_sent: bool
) -> None:
    street = formed(STREET)
    street.send(2, DATAGRAM)
    if is_sent:
        street.run(1)
    street.leave(next(iter(street.connections)))
    assert len([1 for collector, _ in street.downs() if collector == EAST]) == count


def test_what_has_no_way_is_dropped_and_counted() -> None:
    street = Backhauls(STREET, joined=())
    street.send(2, DATAGRAM)
    street.center.send(MeshPeer(AREA, eui(999)), DATAGRAM, now=street.now)
    street.collect()
    assert street.downs() == []
    assert street.center.all_counters == {"datagrams dropped, no way": 2}


def test_datagram_that_fits_no_packet_is_dropped_and_counted() -> None:
    street = formed(DIAMOND)
    street.send(4, bytes(1_281))
    assert street.downs() == []
    assert street.center.all_counters["datagrams dropped, too long"] == 1
    street.send(4, bytes(1_280))
    assert len(street.downs()) == 1


def test_no_more_datagrams_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downlinks, "ROWS_MAX", 3)
    street = formed(DIAMOND)
    for number in range(4):
        street.send(4, b"\x44\x02\x00" + bytes((number,)) + DATAGRAM[4:])
    assert street.center.all_counters["datagrams forgotten, at the bound"] == 1
    street.send(4, b"\x44\x02\x00\x03" + DATAGRAM[4:])
    assert street.downs()[-1][1].attempt == 1
    street.send(4, b"\x44\x02\x00\x00" + DATAGRAM[4:])
    assert street.downs()[-1][1].attempt == 0
