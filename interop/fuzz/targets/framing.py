"""Frames on TCP streams and serial lines: octets, deframers, and the peer at the other end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.errors import FrameError, LocalProtocolError, TableFull
from amistack.framing import (
    SERIAL,
    TCP,
    Carrier,
    Closed,
    Frame,
    FramedPeer,
    FrameOption,
    FrameReceived,
    Kind,
    Opened,
    Priority,
    Skipped,
    destination,
    layout,
)
from amistack.framing.hello import Goodbye, Hello
from amistack.identifiers import Eui64
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal, size_class

OWN: Final = Eui64(bytes.fromhex("02004c00000000c1"))
OTHER: Final = Eui64(bytes.fromhex("02004c00000000c2"))
CARRIERS: Final = (TCP, SERIAL)
STEP_COUNT_MAX: Final = 16
LAYOUT_SIZE_MAX: Final = 64


# Frames


def run_frame(data: bytes) -> Outcome:
    """A frame, its carrier taken off: the codec and the declared layout must agree about it."""
    try:
        frame = Frame.decode(data)
    except FrameError as error:
        return refusal(error)
    promise(frame.encode() == data, "a frame has one encoding, and this is another")
    str(frame)
    frame.describe()
    if len(data) <= LAYOUT_SIZE_MAX:
        promise(layout.parse(data) == frame, "the layout reads another frame")
        promise(layout.build(frame) == data, "the layout writes other octets")
    inside: Outcome = None
    for decode in (Hello.decode, Goodbye.decode):
        try:
            message = decode(frame.payload)
        except FrameError as error:
            inside = refusal(error)
        else:
            promise(message.encode() == frame.payload, "a greeting has one encoding")
            inside = type(message).__name__
    return min(frame.kind, 20), len(frame.options), frame.destination is not None, inside


# Streams


def run_stream(data: bytes) -> Outcome:
    """One octet of manner, then a stream as it is, or made of whole frames and noise.

    Manner, by its bits: 1 a serial line and no TCP, 2 made of frames, 4 frames are damaged; the
    rest is the size of the pieces in which it arrives.
    """
    reader = Reader(data)
    manner = reader.octet()
    carrier = CARRIERS[manner & 1]
    sent: list[Frame] = []
    octets = (
        _made(reader, carrier, sent, is_damaged=bool(manner & 4)) if manner & 2 else reader.rest()
    )
    deframer, whole = carrier.make_deframer(), carrier.make_deframer()
    step = 1 + (manner >> 3)
    found = []
    for at in range(0, len(octets), step):
        found += deframer.receive_data(octets[at : at + step])
        accounted = deframer.octets_framed + deframer.octets_skipped + deframer.octets_idle
        promise(
            accounted + deframer.octets_pending == deframer.octets_received,
            "an octet is in a frame, in an account, between them, or still to come",
        )
    together = whole.receive_data(octets)
    frames = [item for item in found if isinstance(item, Frame)]
    promise(
        frames == [item for item in together if isinstance(item, Frame)],
        "how a stream is chopped up decides nothing",
    )
    for frame in frames:
        # Down to its CRC: a damaged frame that is taken would be written otherwise.
        promise(carrier.wrap(frame).strip(b"\x00") in octets, "a frame that is not there was found")
    promise(deframer.octets_pending == whole.octets_pending, "another rest is kept")
    promise(deframer.octets_skipped == whole.octets_skipped, "another number is skipped")
    promise(str(deframer.error) == str(whole.error), "another end")
    if manner & 2 and not manner & 4 and (carrier is TCP or sent):
        promise(_is_within(sent, frames), "a whole frame was not found")
    reasons = {item.reason for item in found if isinstance(item, Skipped)}
    return frozenset((carrier.name, reason) for reason in reasons) | {
        (carrier.name, size_class(len(frames)), size_class(deframer.octets_pending))
    }


def _is_within(sent: list[Frame], found: list[Frame]) -> bool:
    """Whether all that was sent is found, in its order; noise may happen to be a frame, too."""
    rest = iter(found)
    return all(any(one == other for other in rest) for one in sent)


def _made(reader: Reader, carrier: Carrier, sent: list[Frame], *, is_damaged: bool) -> bytes:
    """A stream of whole frames; on a line with noise between them."""
    octets = bytearray()
    while not reader.is_spent and len(sent) < 8:
        frame = _frame(reader)
        wrapped = bytearray(carrier.wrap(frame))
        if is_damaged:
            wrapped[reader.number(2) % len(wrapped)] ^= reader.octet()
        if carrier is SERIAL:
            # Noise that ends where the frame's own first border is.
            octets += reader.piece()
        octets += wrapped
        sent.append(frame)
    return bytes(octets)


def _frame(reader: Reader) -> Frame:
    head = reader.octet()
    options: list[FrameOption] = []
    if head & 8:
        options.append(destination(OTHER))
    if head & 16:
        options.append(FrameOption(2 + reader.below(100), reader.take(3)))
    kinds = (Kind.COAP, Kind.MESH, Kind.TOPOLOGY, 200, Kind.KEEP_ALIVE, 7, Kind.COAP, Kind.COAP)
    return Frame(
        kinds[head & 7],
        Priority(head >> 5),
        OTHER,
        bytes(reader.below(40)) if head & 1 else reader.piece(),
        tuple(options),
    )


# The peer


class _Play:
    """One peer, the stream from the other side, and a clock."""

    def __init__(self, carrier: Carrier, *, is_expected: bool) -> None:
        self.carrier = carrier
        self.now = 0.0
        self.peer = FramedPeer(
            OWN, carrier, now=0.0, run=7, expected=OTHER if is_expected else None, silence_max=30
        )
        self.trail = Trail()
        self.is_open = False
        self.is_closed = False
        self.accepted = 0
        self.unsent = 0
        self.out = carrier.make_deframer()
        """What the other side makes of what is sent."""
        self.sent: list[Frame] = []
        self.taken_count = 0

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(10)
        try:
            match operation:
                case 0:
                    self.peer.receive_data(reader.piece(), now=self.now)
                case 1 | 2:
                    self._hear(Kind.HELLO, _hello(reader))
                case 3:
                    self._hear(Kind.GOODBYE, Goodbye(reader.octet(), "why").encode())
                case 4 | 5:
                    octets = bytearray(self.carrier.wrap(_frame(reader)))
                    if reader.below(4) == 0:
                        octets[reader.number(2) % len(octets)] ^= reader.octet()
                    self.peer.receive_data(bytes(octets), now=self.now)
                case 6:
                    frame = _frame(reader)
                    self.peer.send(frame, now=self.now)
                    promise(not self.is_closed or self.carrier is SERIAL, "sent after the end")
                    self.sent.append(frame)
                case 7:
                    self._elapse(reader)
                case 8:
                    self._send(reader.octet() or None)
                case _:
                    if reader.below(2):
                        self.peer.close(now=self.now)
                    else:
                        self.peer.end(now=self.now)
        except (LocalProtocolError, TableFull) as error:
            promise(operation == 6, "a machine never raises at what comes in")
            self.trail.note(refusal(error))
        self._collect()

    def _hear(self, kind: Kind, payload: bytes) -> None:
        frame = Frame(kind, Priority.CONTROL, OTHER, payload)
        self.peer.receive_data(self.carrier.wrap(frame), now=self.now)

    def _elapse(self, reader: Reader) -> None:
        end = self.now + 0.5 * (1 << reader.below(8))
        for _ in range(200):
            due = self.peer.next_timer()
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.peer.handle_timer(now=self.now)
            self._send(None)
            after = self.peer.next_timer()
            promise(after is None or after > self.now, "an alarm that was heard is still due")
            self._collect()
        promise(False, "the machine never comes to rest")  # noqa: FBT003

    def _send(self, room: int | None) -> None:
        pieces = self.peer.data_to_send(room)
        promise(room is None or sum(map(len, pieces)) <= room, "more than there was room for")
        for item in self.out.receive_data(b"".join(pieces)):
            promise(isinstance(item, Frame), "what is sent is no frame")
            assert isinstance(item, Frame)
            if not item.is_control:
                promise(item in self.sent, "a frame that nobody sent, or sent twice")
                self.sent.remove(item)

    def _collect(self) -> None:
        for event in self.peer.events():
            self.trail.note(type(event).__name__)
            match event:
                case Opened():
                    promise(not self.is_open, "opened twice")
                    promise(event.peer == OTHER, "opened by somebody else")
                    self.is_open = True
                case FrameReceived():
                    promise(self.is_open, "a frame before the hello, or after the end")
                case Closed():
                    self.is_open = False
                    for frame in event.unsent:
                        promise(frame in self.sent, "unsent, and never to be sent")
                    self.trail.note(event.ending)
                case _:
                    pass
        for priority in Priority:
            count, octets = self.peer.depth(priority)
            promise(0 <= count <= octets or not count, "a frame that waits has octets")
        self.trail.note(self.peer.state)


def _hello(reader: Reader) -> bytes:
    head = reader.octet()
    versions = ((1,), (1, 2), (2,), (3, 9))[head & 3]
    return Hello(
        versions, 1 + (head >> 2 & 7) * 10, 1 + (head >> 5 & 1), 7 * (head >> 6 & 1)
    ).encode()


def run_peer(data: bytes) -> Outcome:
    """One octet that says which carrier and whom we expect, then operations."""
    reader = Reader(data)
    head = reader.octet()
    play = _Play(CARRIERS[head & 1], is_expected=bool(head & 2))
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    return play.trail.outcome


# Seeds


def frame_seeds() -> Sequence[bytes]:
    """Frames of every kind."""
    hello = Hello((1,), 90, 7, 0).encode()
    every = [
        Frame(Kind.HELLO, Priority.CONTROL, OTHER, hello),
        Frame(Kind.GOODBYE, Priority.CONTROL, OTHER, Goodbye(1, "why").encode()),
        Frame(Kind.KEEP_ALIVE, Priority.CONTROL, OTHER),
        Frame(Kind.COAP, Priority.SCHEDULED, OTHER, b"\x40\x01\x00\x01", (destination(OWN),)),
        Frame(Kind.MESH, Priority.JOINING, OTHER, bytes(200), (FrameOption(9, b"elective"),)),
        Frame(200, Priority.ALARM, OTHER, b"x", (FrameOption(2), FrameOption(2, b"y"))),
    ]
    return [frame.encode() for frame in every]


def stream_seeds() -> Sequence[bytes]:
    """Streams of frames, whole and damaged, in large and in small pieces."""
    frames = [Frame.decode(octets) for octets in frame_seeds()]
    made = b"\x20\x04abcd\x00\x48\x00\x00\x3d\x05\x02zz\x05noise"
    return [
        *(
            bytes((pieces | number,)) + b"".join(carrier.wrap(frame) for frame in frames)
            for number, carrier in enumerate(CARRIERS)
            for pieces in (0xF8, 0x08)
        ),
        *(bytes((manner,)) + made for manner in (0x2A, 0x2B, 0x2E, 0x2F)),
        b"\xf9\x00\x00\x00" + SERIAL.wrap(frames[0])[:-4] + SERIAL.wrap(frames[1]),
        b"\xf8" + TCP.wrap(frames[0]) + b"\xff\xff",
        b"\xf8\x00\x0c\x02",
    ]


def peer_seeds() -> Sequence[bytes]:
    """Conversations that go well, and every operation by itself."""
    hello, heard = b"\x01\x0c", b"\x01\x4c"
    frame, send, flush = b"\x04\x20\x02ab\x01", b"\x06\x00\x02cd", b"\x08\x00"
    later, long = b"\x07\x02", b"\x07\x07"
    bye, close, end = b"\x03\x00", b"\x09\x01", b"\x09\x00"
    every = [
        hello + heard + frame + send + flush + later + bye,
        flush + heard + send * 3 + b"\x08\x05" * 6 + close + flush,
        heard + frame + long + heard + frame,
        heard + b"\x01\x6c" + frame + end + send,
        b"\x01\x02" + flush + heard + b"\x01\x03",
        frame + send + heard + flush + long + long,
        *(bytes((operation, 2, 3, 1, 0, 5, 9)) for operation in range(10)),
    ]
    return [bytes((head,)) + one for one in every for head in (0, 1, 3)]


TOKENS: Final = (
    b"\x00\x0c",
    b"\x01\x10",
    b"\x01\x00\x00\x00",
    b"\x00",
    b"\x81\x08",
    b"\xff\xff",
    b"\x01",
)

TARGETS: Final = (
    Target(
        "frame",
        "a frame is refused by FrameError, or encodes again to the same octets, as the layout does",
        run_frame,
        frame_seeds,
        TOKENS,
        size_max=256,
    ),
    Target(
        "frame_stream",
        "a stream, however chopped up: every octet in a frame or an account, whole frames found",
        run_stream,
        stream_seeds,
        TOKENS,
        size_max=640,
    ),
    Target(
        "frame_peer",
        "the framed peer: hello before frames, one end, nothing sent twice or beyond its room",
        run_peer,
        peer_seeds,
        (b"\x01\x0c", b"\x01\x4c", b"\x06\x00\x02cd", b"\x08\x00", b"\x07\x07", b"\x03\x00"),
        size_max=100,
    ),
)
