"""Where first fragments go: as whole packets would, and nowhere where those go nowhere.

The contract under test: `route_first` names a neighbour and a header of the same size, None for
what ends here, or raises MeshError; a source route that cannot be followed is told to the root.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import MeshError
from amistack.framing import Priority
from mesh.packet import ROOT, Flood, Packet, PacketKind, RplMark, ShortAddress, SourceRoute
from mesh.routing.events import RouteFailed
from mesh.station.ways import Ways
from tests.mesh.routing.medium import eui
from tests.mesh.station.test_long import LONGEST, ShortFrames, formed
from tests.mesh.support import packets


@functools.cache
def line() -> ShortFrames:
    """One world for all: what is asked here changes no way."""
    return formed(4)


UP = Packet(
    PacketKind.COAP, Priority.SCHEDULED, ShortAddress(4), ROOT, b"begin", 40, RplMark(2000)
)  # fmt: skip


def ways(short: int = 3) -> Ways:
    return Ways(line().nodes[short].node)


def refused(packet: Packet, *, short: int = 3, previous: int = 4) -> str:
    with pytest.raises(MeshError) as error:
        ways(short).route_first(packet.encode(), eui(previous), now=line().now)
    return error.value.reason


def test_up_it_goes_to_the_parent_with_our_rank_and_a_hop_less() -> None:
    onward = ways().route_first(UP.encode(), eui(4), now=line().now)
    assert onward is not None
    assert onward.neighbour == eui(2)
    rank = line().nodes[3].node.rank
    assert Packet.decode(onward.head) == replace(UP, hop_limit=39, rpl=RplMark(rank))


def test_at_a_root_it_is_put_together() -> None:
    assert ways(1).route_first(UP.encode(), eui(2), now=line().now) is None
    for_another = replace(UP, destination=ShortAddress(3))
    assert ways(1).route_first(for_another.encode(), eui(2), now=line().now) is None


def test_it_never_goes_back_to_whom_it_came_from() -> None:
    assert refused(replace(UP, rpl=RplMark(200)), previous=2) == "no way up"
    # By its rank it even comes through us: not a word of it.
    assert refused(UP, previous=2) == "not taken"


def test_who_sends_from_above_is_marked_once_and_not_twice() -> None:
    from_above = replace(UP, rpl=RplMark(200))
    onward = ways().route_first(from_above.encode(), eui(4), now=line().now)
    assert onward is not None
    mark = Packet.decode(onward.head).rpl
    assert mark is not None
    assert mark.has_rank_error
    assert refused(replace(UP, rpl=RplMark(200, has_rank_error=True))) == "loop"


def down(*relays: int, index: int = 0, to: int = 4) -> Packet:
    return Packet(
        PacketKind.COAP, Priority.SCHEDULED, ShortAddress(1), ShortAddress(to), b"begin", 40,
        RplMark(256, is_down=True), SourceRoute(tuple(map(ShortAddress, relays)), index),
    )  # fmt: skip


def test_down_it_follows_its_route() -> None:
    onward = ways().route_first(down(2, 3, index=1).encode(), eui(2), now=line().now)
    assert onward is not None
    assert onward.neighbour == eui(4)
    route = Packet.decode(onward.head).route
    assert route == SourceRoute((ShortAddress(2), ShortAddress(3)), 2)
    assert ways(4).route_first(down(2, 3, index=2).encode(), eui(3), now=line().now) is None


def test_what_goes_nowhere_is_refused_by_its_reason() -> None:
    assert refused(replace(UP, rpl=None)) == "no mark"
    assert refused(replace(UP, flood=Flood(1))) == "no mark"
    assert refused(replace(UP, hop_limit=1)) == "hop limit"
    assert refused(down(2, 3, index=0)) == "not the relay"
    assert refused(down(2, 3, index=2)) == "not for us"
    assert refused(replace(down(3), hop_limit=1), previous=1) == "hop limit"


def test_a_relay_that_does_not_know_the_next_one_tells_the_root() -> None:
    world = formed(4)
    world.send(1, LONGEST, destination=4, relays=(2, 99))
    world.run(20.0)
    told = [event for _, at, event in world.happened if at == 1 and isinstance(event, RouteFailed)]
    assert (told[0].relay, told[0].neighbour, told[0].is_unknown) == (2, 99, True)
    assert told[0].packet is not None
    assert told[0].packet.payload == b""  # The relay had its beginning alone.


@given(packets, st.integers(1, 4))
def test_any_head_is_sent_on_in_its_size_or_refused(packet: Packet, previous: int) -> None:
    head = packet.encode()
    for short in (1, 3):
        try:
            onward = ways(short).route_first(head, eui(previous), now=line().now)
        except MeshError:
            continue
        if onward is not None:
            assert len(onward.head) == len(head)
            assert line().nodes[short].node.dodag.neighbours.get(onward.neighbour) is not None
            assert onward.neighbour != eui(previous) or Packet.decode(head).route is not None
