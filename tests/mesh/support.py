"""Values that the tests of the mesh's octets share: packets of every form."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.packet import (
    NODE_ADDRESS_MAX,
    Attempt,
    Flood,
    Packet,
    RplMark,
    ShortAddress,
    SourceRoute,
    StrangeOption,
)

A: Final = Eui64(bytes.fromhex("70b3d5fffe000001"))
B: Final = Eui64(bytes.fromhex("70b3d5fffe000002"))
C: Final = Eui64(bytes.fromhex("70b3d5fffe000003"))
D: Final = Eui64(bytes.fromhex("70b3d5fffe000004"))
KEY: Final = bytes(range(16))
OTHER_KEY: Final = bytes(range(16, 32))

addresses = st.integers(0, 0xFFFF).map(ShortAddress)
node_addresses = st.integers(1, NODE_ADDRESS_MAX).map(ShortAddress)
eui64s = st.binary(min_size=8, max_size=8).map(Eui64)

marks = st.builds(RplMark, st.integers(0, 0xFFFF), st.booleans(), st.booleans(), st.booleans())


@st.composite
def routes(draw: st.DrawFn) -> SourceRoute:
    relays = draw(st.lists(node_addresses, min_size=1, max_size=24, unique=True))
    return SourceRoute(tuple(relays), draw(st.integers(0, len(relays))))


floods = st.builds(Flood, st.integers(0, 0xFFFF), st.none() | addresses)
attempts = st.builds(Attempt, st.integers(0, 255), st.integers(0, 255))
stranges = st.builds(StrangeOption, st.integers(5, 15), st.binary(max_size=30))
payloads = st.one_of(st.binary(max_size=40), st.integers(0, 1280).map(lambda size: b"\xa5" * size))

packets = st.builds(
    Packet,
    st.integers(0, 255),
    st.sampled_from(Priority),
    addresses,
    addresses,
    payloads,
    st.integers(0, 255),
    st.none() | marks,
    st.none() | routes(),
    st.none() | floods,
    st.none() | attempts,
    st.lists(stranges, max_size=4).map(
        lambda options: tuple(sorted(options, key=lambda option: option.number))
    ),
)
