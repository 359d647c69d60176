"""Frames on TCP: found however the stream is cut, and every octet accounted for.

The contract under test: each octet is in a frame, in an account, or pending; a frame that is
wrong inside costs itself; a size or a version that cannot be ends the stream, once.
"""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from amistack.framing import TCP, Frame, Skipped, StreamDeframer
from amistack.framing.frame import FRAME_SIZE_MAX
from amistack.framing.stream import AFTER_END, WIRE_SIZE_MAX, wrap
from tests.framing.support import check_sums, cut, fed, frame, frames, joined


@given(st.lists(frames, max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    sent: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(map(wrap, sent))
    deframer = StreamDeframer()
    items = fed(deframer, data.draw(cut(stream)))
    assert items == sent
    assert deframer.octets_framed == len(stream)
    check_sums(deframer, items, TCP)


mixtures = st.lists(
    st.one_of(
        frames.map(wrap),
        st.binary(max_size=30),
        st.binary(min_size=12, max_size=60).map(lambda o: len(o).to_bytes(2) + b"\x01" + o[1:]),
    ),
    max_size=6,
).map(b"".join)


@given(mixtures, st.data())
def test_every_octet_is_accounted_for_and_cutting_changes_nothing(
    stream: bytes, data: st.DataObject
) -> None:
    at_once, in_pieces = StreamDeframer(), StreamDeframer()
    whole = fed(at_once, [stream])
    items = fed(in_pieces, data.draw(cut(stream)))
    check_sums(at_once, whole, TCP)
    check_sums(in_pieces, items, TCP)
    assert octets_of(items) + stream[len(stream) - in_pieces.octets_pending :] == stream
    assert in_pieces.octets_pending == at_once.octets_pending < WIRE_SIZE_MAX
    assert str(in_pieces.error) == str(at_once.error)
    if at_once.error is None:
        assert joined(items) == joined(whole)


def octets_of(items: list[Frame | Skipped]) -> bytes:
    return b"".join(item.octets if isinstance(item, Skipped) else wrap(item) for item in items)


def test_octet_by_octet_gives_the_same_as_all_at_once() -> None:
    sent = [frame(bytes(n)) for n in (0, 1, 300)]
    stream = b"".join(map(wrap, sent))
    assert fed(StreamDeframer(), [stream[n : n + 1] for n in range(len(stream))]) == sent


def test_frame_that_is_wrong_inside_costs_itself_alone() -> None:
    bad = bytearray(wrap(frame()))
    bad[4] |= 1  # A reserved bit.
    deframer = StreamDeframer()
    items = deframer.receive_data(wrap(frame(b"a")) + bytes(bad) + wrap(frame(b"b")))
    assert items == [frame(b"a"), Skipped(bytes(bad), "reserved bits set"), frame(b"b")]
    assert deframer.error is None


def test_size_that_no_frame_has_ends_the_stream_as_soon_as_it_is_there() -> None:
    for size in (0, 11, FRAME_SIZE_MAX + 1, 0xFFFF):
        deframer = StreamDeframer()
        stream = wrap(frame()) + size.to_bytes(2)
        assert deframer.receive_data(stream) == [frame(), Skipped(size.to_bytes(2), "wrong size")]
        assert deframer.error is not None
        assert deframer.error.reason == "wrong size"


def test_strange_version_ends_the_stream_before_the_rest_of_its_frame_is_there() -> None:
    deframer = StreamDeframer()
    assert deframer.receive_data(b"\x00\x20\x02") == [Skipped(b"\x00\x20\x02", "unknown version")]
    assert deframer.error is not None
    assert deframer.error.reason == "unknown version"


def test_nothing_is_believed_behind_the_end() -> None:
    deframer = StreamDeframer()
    deframer.receive_data(b"GET / HTTP/1.1\r\n")
    error = deframer.error
    assert deframer.receive_data(wrap(frame())) == [Skipped(wrap(frame()), AFTER_END)]
    assert deframer.error is error
    assert deframer.octets_pending == 0


def test_other_protocols_are_noticed_at_their_first_octets() -> None:
    for octets in (b"GET /", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-", b"\x00\x00\x00\x01"):
        deframer = StreamDeframer()
        deframer.receive_data(octets)
        assert deframer.error is not None, octets


def test_five_thousand_seeded_streams_hold_the_bound_and_the_sums() -> None:
    dice = random.Random(17)
    found = ended = 0
    for _ in range(5000):
        stream = bytearray(b"".join(wrap(frame(dice.randbytes(dice.randrange(30)))) for _ in "123"))
        for _ in range(dice.choice((0, 1, 1, 3))):
            stream[dice.randrange(len(stream))] = dice.randrange(256)
        deframer = StreamDeframer()
        items = []
        while stream:
            size = dice.randrange(1, 80)
            items += deframer.receive_data(bytes(stream[:size]))
            del stream[:size]
            assert deframer.octets_pending < WIRE_SIZE_MAX
        check_sums(deframer, items, TCP)
        found += sum(isinstance(item, Frame) for item in items)
        ended += deframer.error is not None
    assert found > 5000
    assert ended > 200
