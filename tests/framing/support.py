"""Values that the tests of framing share: frames of every form, and streams cut at any place."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.framing import Frame, FrameOption, Kind, Priority, Skipped, destination
from amistack.framing.carriers import Carrier, Deframer
from amistack.identifiers import Eui64

HERE = Eui64(bytes.fromhex("70b3d5fffe000001"))
THERE = Eui64(bytes.fromhex("70b3d5fffe000002"))

eui64s = st.binary(min_size=8, max_size=8).map(Eui64)
# Zeros and long runs without any are what byte stuffing is about.
payloads = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"\0", b"\1", b"\xff", b"a" * 253, b"b" * 254, b"c" * 255]), max_size=7
    )
    .map(b"".join)
    .filter(lambda octets: len(octets) <= 2048),
)
elective_options = st.builds(FrameOption, st.integers(2, 127), st.binary(max_size=20))


@st.composite
def option_tuples(draw: st.DrawFn) -> tuple[FrameOption, ...]:
    options = draw(st.lists(elective_options, max_size=4))
    if draw(st.booleans()):
        options.insert(draw(st.integers(0, len(options))), destination(draw(eui64s)))
    return tuple(options)


frames = st.builds(
    Frame, st.integers(0, 255), st.sampled_from(Priority), eui64s, payloads, option_tuples()
)


def frame(
    payload: bytes = b"reading",
    *,
    kind: int = Kind.COAP,
    priority: Priority = Priority.SCHEDULED,
    source: Eui64 = HERE,
    options: tuple[FrameOption, ...] = (),
) -> Frame:
    return Frame(kind, priority, source, payload, options)


@st.composite
def cut(draw: st.DrawFn, octets: bytes) -> list[bytes]:
    """`octets` in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(octets)), max_size=12)))
    return [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True)]


def fed(deframer: Deframer, pieces: list[bytes]) -> list[Frame | Skipped]:
    return [item for piece in pieces for item in deframer.receive_data(piece)]


def joined(items: list[Frame | Skipped]) -> list[Frame | Skipped]:
    """Accounts of one reason that follow each other, as one."""
    whole: list[Frame | Skipped] = []
    for item in items:
        last = whole[-1] if whole else None
        if isinstance(item, Skipped) and isinstance(last, Skipped) and last.reason == item.reason:
            whole[-1] = Skipped(last.octets + item.octets, item.reason)
        else:
            whole.append(item)
    return whole


def check_sums(deframer: Deframer, items: list[Frame | Skipped], carrier: Carrier) -> None:
    """Every octet is in exactly one place, and the accounts hold the octets they count."""
    assert deframer.octets_received == (
        deframer.octets_framed
        + deframer.octets_skipped
        + deframer.octets_idle
        + deframer.octets_pending
    )
    skipped = sum(len(item.octets) for item in items if isinstance(item, Skipped))
    assert deframer.octets_skipped == skipped
