"""Probes as octets: round trips, the declared layout, and garbage.

The contract under test: `Echo.decode` returns a probe or raises `MeshError`, whatever it is given;
it inverts `Echo.encode` exactly; both agree with the layout.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError
from mesh.packet import NODE_ADDRESS_MAX
from mesh.station import layout
from mesh.station.echo import Echo

SPECIFICATION = Path(__file__).parents[3] / "docs" / "protocol" / "mesh.md"

ways = st.lists(st.integers(1, NODE_ADDRESS_MAX), min_size=2, max_size=26, unique=True).map(tuple)
echoes = st.builds(Echo, st.integers(0, 0xFFFF_FFFF), ways, st.booleans())


@given(echoes)
def test_decode_inverts_encode_and_both_are_the_layout(echo: Echo) -> None:
    octets = echo.encode()
    assert Echo.decode(octets) == echo
    assert layout.build(echo) == octets
    assert layout.parse(octets) == echo


@given(st.one_of(st.binary(max_size=70), st.binary(max_size=70).map(lambda o: b"\x01\x00" + o)))
def test_arbitrary_octets_raise_nothing_but_mesh_error_and_the_layout_agrees(octets: bytes) -> None:
    try:
        echo = Echo.decode(octets)
    except MeshError:
        with pytest.raises(MeshError):
            layout.parse(octets)
    else:
        assert layout.parse(octets) == echo
        assert echo.encode() == octets


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        ("", "wrong size"),
        ("02", "unknown version"),
        ("01 00 00000001 0001", "wrong size"),
        ("01 00 00000001 0001 0002 00", "wrong size"),
        ("01 00 00000001" + "0001" * 27, "wrong size"),
        ("01 02 00000001 0001 0002", "probe malformed"),
        ("01 00 00000001 0001 0001", "probe malformed"),
        ("01 00 00000001 0000 0001", "probe malformed"),
        ("01 00 00000001 0001 ea61", "probe malformed"),
    ],
)
def test_what_is_wrong_is_refused_by_its_reason(octets: str, reason: str) -> None:
    with pytest.raises(MeshError) as refused:
        Echo.decode(bytes.fromhex(octets))
    assert refused.value.reason == reason


def test_the_example_of_the_specification_is_ours() -> None:
    asked = Echo(17, (0x0102, 0x0109, 0x0203))
    assert "\n    01 00 00000011 0102 0109 0203\n" in SPECIFICATION.read_text()
    assert asked.encode() == bytes.fromhex("01 00 00000011 0102 0109 0203")
    assert (asked.asker, asked.asked, asked.hops) == (0x0102, 0x0203, 2)
    assert asked.answered().encode()[:2] == b"\x01\x01"


@pytest.mark.parametrize("way", [(), (1,), (1, 1), (0, 1), (1, 0xFFFF), tuple(range(1, 28))])
def test_ways_that_are_none_are_refused_at_birth(way: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        Echo(1, way)
