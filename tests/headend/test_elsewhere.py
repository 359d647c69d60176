"""The seam between the stack and the mesh.

The contract under test: what a machine sends to a node of the mesh never reaches the socket and the
rest does, each in order; mass work goes behind what somebody waits for.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.framing import Priority
from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.model.resources import HEAD_END_KEY, READ, REPORT
from headend.domain.mesh import MeshPeer
from headend.southbound.elsewhere import Forked, priority_of
from mesh.topology.facts import AreaId
from tests.support.headend import meter_id

NODE = MeshPeer(AreaId(7), meter_id(1))


class Talker:
    """A machine that has something to say to everybody."""

    def __init__(self, datagrams: Sequence[tuple[Peer, bytes]]) -> None:
        self.datagrams = list(datagrams)
        self.received: list[tuple[bytes, Peer, float]] = []
        self.woken: list[float] = []

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        self.received.append((data, peer, now))

    def handle_timer(self, *, now: float) -> None:
        self.woken.append(now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        datagrams, self.datagrams = self.datagrams, []
        return datagrams

    def events(self) -> Sequence[str]:
        return ["said"]

    def next_timer(self) -> float | None:
        return 5.0


class Noted:
    """The mesh, as the southbound knows it."""

    def __init__(self) -> None:
        self.sent: list[tuple[MeshPeer, bytes]] = []

    def send(self, peer: MeshPeer, datagram: bytes) -> None:
        self.sent.append((peer, datagram))

    def heard(self, peer: MeshPeer, meter: Eui64) -> MeshPeer:
        assert meter == peer.node
        return peer

    def hop_count(self, peer: MeshPeer) -> int | None:
        raise AssertionError(f"nobody asks how far {peer} is")

    def unanswered(self, meter: Eui64) -> None:
        raise AssertionError(f"nobody asked {meter.hex()}")


peers = st.sampled_from([NODE, MeshPeer(AreaId(8), meter_id(2)), ("192.0.2.7", 5683)])


@given(st.lists(st.tuples(peers, st.binary(max_size=4))))
def test_each_datagram_goes_where_its_peer_is_and_keeps_its_place(
    datagrams: list[tuple[Peer, bytes]],
) -> None:
    noted = Noted()
    forked = Forked(Talker(datagrams), noted)
    assert forked.data_to_send() == [(p, d) for p, d in datagrams if not isinstance(p, MeshPeer)]
    assert noted.sent == [(p, d) for p, d in datagrams if isinstance(p, MeshPeer)]
    assert forked.data_to_send() == []


def test_everything_else_is_the_machines() -> None:
    talker = Talker([])
    forked = Forked(talker, Noted())
    forked.receive_datagram(b"x", NODE, now=1.0)
    forked.handle_timer(now=2.0)
    assert (talker.received, talker.woken) == ([(b"x", NODE, 1.0)], [2.0])
    assert (list(forked.events()), forked.next_timer()) == (["said"], 5.0)


@pytest.mark.parametrize(
    ("path", "priority"),
    [
        (READ, Priority.ON_DEMAND),
        (REPORT, Priority.RECOVERY),
        (HEAD_END_KEY, Priority.RECOVERY),
        ("what comes later", Priority.ON_DEMAND),
    ],
)
def test_what_somebody_waits_for_goes_before_mass_work(path: str, priority: Priority) -> None:
    assert priority_of(Message.request(Code.POST, path)) is priority
