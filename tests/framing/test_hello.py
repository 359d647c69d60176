"""Hello and goodbye: known octets, round trips, the declared layout, and garbage.

The contract under test: `decode` inverts `encode` exactly, agrees with the declared layout, and
raises nothing but `FrameError`.
"""

from __future__ import annotations

import pytest
from construct import ConstructError
from hypothesis import example, given
from hypothesis import strategies as st

from amistack.errors import FrameError, LocalProtocolError
from amistack.framing import layout
from amistack.framing.hello import TEXT_SIZE_MAX, Farewell, Goodbye, Hello

runs = st.integers(1, 0xFFFFFFFF)
hellos = st.builds(
    Hello,
    st.sets(st.integers(1, 255), min_size=1, max_size=16).map(lambda found: tuple(sorted(found))),
    st.integers(1, 0xFFFF),
    runs,
    st.one_of(st.just(0), runs),
)
goodbyes = st.builds(Goodbye, st.integers(0, 255), st.text(max_size=30))


def test_octets_are_as_the_protocol_says() -> None:
    assert Hello((1, 2), 90, 0x01020304).encode() == bytes.fromhex(
        "02 01 02 005a 01020304 00000000"
    )
    assert Goodbye(Farewell.UNREADABLE, "ä").encode() == bytes.fromhex("02 c3a4")


@given(hellos)
def test_hello_is_read_back_and_is_as_declared(hello: Hello) -> None:
    octets = hello.encode()
    assert Hello.decode(octets) == hello
    found = layout.HELLO.parse(octets)
    assert (tuple(found.versions), found.silence_max) == (hello.versions, hello.silence_max)
    assert (found.run, found.heard) == (hello.run, hello.heard)
    content = {"versions": hello.versions, "silence_max": hello.silence_max}
    assert layout.HELLO.build({**content, "run": hello.run, "heard": hello.heard}) == octets


@given(goodbyes)
def test_goodbye_is_read_back_and_is_as_declared(goodbye: Goodbye) -> None:
    octets = goodbye.encode()
    assert Goodbye.decode(octets) == goodbye
    assert layout.GOODBYE.build({"code": goodbye.code, "text": goodbye.text}) == octets


@given(st.binary(max_size=40))
@example(b"\x01\x01\x00\x5a\x00\x00\x00\x00\x00\x00\x00\x00")
@example(b"\x02\x02\x01\x00\x5a\x00\x00\x00\x01\x00\x00\x00\x00")
@example(b"\x01\x00\x00\x5a\x00\x00\x00\x01\x00\x00\x00\x00")
@example(b"\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")
@example(b"\x01\x01\x00\x5a\x00\x00\x00\x01\x00\x00\x00\x00\x00")
@example(b"\x00\x00\x5a\x00\x00\x00\x01\x00\x00\x00\x00")
@example(b"\x00\xff\xff")
def test_codec_and_declared_layout_take_and_refuse_the_same(octets: bytes) -> None:
    for value, declared in ((Hello, layout.HELLO), (Goodbye, layout.GOODBYE)):
        try:
            declared.parse(octets)
            is_declared = True
        except ConstructError:
            is_declared = False
        try:
            assert value.decode(octets).encode() == octets
            is_taken = True
        except FrameError as error:
            assert error.reason.startswith("bad ")  # noqa: PT017  none is the other outcome
            is_taken = False
        assert is_taken == is_declared


@pytest.mark.parametrize(
    ("versions", "silence_max", "run", "heard"),
    [
        ((), 90, 1, 0),
        (tuple(range(1, 18)), 90, 1, 0),
        ((0, 1), 90, 1, 0),
        ((2, 1), 90, 1, 0),
        ((1, 1), 90, 1, 0),
        ((256,), 90, 1, 0),
        ((1,), 0, 1, 0),
        ((1,), 65_536, 1, 0),
        ((1,), 90, 0, 0),
        ((1,), 90, 1 << 32, 0),
        ((1,), 90, 1, -1),
    ],
)
def test_hello_without_a_place_in_the_layout_is_refused(
    versions: tuple[int, ...], silence_max: int, run: int, heard: int
) -> None:
    with pytest.raises(LocalProtocolError):
        Hello(versions, silence_max, run, heard)


def test_goodbye_without_a_place_in_the_layout_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Goodbye(256)
    with pytest.raises(LocalProtocolError):
        Goodbye(0, "ä" * (TEXT_SIZE_MAX // 2 + 1))
