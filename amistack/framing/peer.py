"""The other end of a stream or a line, as a machine without I/O: hello, frames, farewell.

Spec    docs/protocol/framing.md, "Hello", "Silence", "Priorities"
In      commands (`send`, `close`, `end`), `receive_data`, `handle_timer`
Out     `data_to_send`, `events`, `next_timer`: collect all three after every call in. The
        driver says with `room` how many octets it takes: what is behind waits here, where an
        urgent frame can still overtake it
Raises  LocalProtocolError on a command that has no place now, TableFull on a frame too many;
        either way nothing has changed
Limit   `PriorityQueues` for what waits, one frame beyond it that has begun to be sent, the
        carrier's bound for what comes in
Never   reads a clock, draws a random number, or logs; believes who the other side says it is:
        that is for the layers above, and for TLS
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from typing import Final

from amistack.errors import FrameError, LocalProtocolError, TableFull
from amistack.framing.carriers import Carrier, Skipped
from amistack.framing.frame import (
    FRAME_SIZE_MIN,
    OPTION_HEAD_SIZE,
    VERSION,
    Frame,
    Kind,
    Priority,
)
from amistack.framing.hello import TEXT_SIZE_MAX, Farewell, Goodbye, Hello
from amistack.framing.queues import PriorityQueues
from amistack.identifiers import Eui64, format_eui64

HELLO_TIMEOUT: Final = 10.0
"""Seconds in which the other side of a connection must have said hello."""
HELLO_INTERVAL: Final = 5.0
"""Seconds from one hello to the next on a line where nobody answers."""
HELLO_INTERVAL_MIN: Final = 1.0
"""The same where the other side seems to be there already."""
SILENCE_MAX: Final = 90
"""Seconds without a whole frame after which the other side is given up."""
KEEP_ALIVE_SHARE: Final = 3
"""How many frames fit into the silence that the other side endures: two may be lost."""
VERSIONS: Final = (VERSION,)


class State(enum.Enum):
    """Where we stand with the other side.

    ::

                  hello
        GREETING --------> OPEN
           |    <--------   |
           |     line only  |
           +----> CLOSED <--+
    """

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


class Ending(enum.Enum):
    """Why there is no other side any more."""

    WE_LEFT = "we left"
    PEER_LEFT = "the peer left"
    PEER_RESTARTED = "the peer started again"
    NO_HELLO = "no hello in time"
    SILENT = "silent for too long"
    UNREADABLE = "unreadable"
    NO_COMMON_VERSION = "no common version"
    UNEXPECTED_PEER = "not the expected peer"
    LOST = "the medium ended"


FAREWELLS: Final = {
    Ending.WE_LEFT: Farewell.DONE,
    Ending.NO_HELLO: Farewell.SILENT,
    Ending.SILENT: Farewell.SILENT,
    Ending.UNREADABLE: Farewell.UNREADABLE,
    Ending.NO_COMMON_VERSION: Farewell.NO_COMMON_VERSION,
    Ending.UNEXPECTED_PEER: Farewell.UNEXPECTED_PEER,
}
"""What we say as we go. Of an ending that is not here the other side knows."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The other side said hello; frames go both ways, in `version`. Nothing proves `peer` yet."""

    peer: Eui64
    version: int


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame for the layers above, of a kind that they may not know."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class FramePassed:
    """Any frame that came in, or was handed over whole. Only from a machine that is watched."""

    frame: Frame
    is_sent: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """It is over. No event follows on a connection; on a line `Opened` may.

    `unsent` are the frames that waited, the most urgent first, and the one that was being sent,
    which may yet arrive: nobody sends them now, unless they are given to `send` again.
    """

    ending: Ending
    detail: str
    unsent: tuple[Frame, ...]


Event = Opened | FrameReceived | FramePassed | Skipped | Closed


class FramedPeer:
    """One peer. Born when the stream begins, or the line is there; says hello at once."""

    def __init__(
        self,
        own: Eui64,
        carrier: Carrier,
        *,
        now: float,
        run: int,
        expected: Eui64 | None = None,
        silence_max: int = SILENCE_MAX,
        versions: tuple[int, ...] = VERSIONS,
        is_watched: bool = False,
        queues: PriorityQueues[Frame] | None = None,
    ) -> None:
        """`run`: any number of 1 to 2^32 - 1, another at every start; `silence_max` in seconds.

        `expected` refuses every other peer. Raises LocalProtocolError for what fits in no hello.
        """
        self._own = own
        self._carrier = carrier
        self._hello = Hello(versions, silence_max, run)
        self._expected = expected
        self._is_watched = is_watched
        self._queues = PriorityQueues[Frame]() if queues is None else queues
        self._deframer = carrier.make_deframer()
        self._state = State.GREETING
        self._peer: Eui64 | None = None
        self._peer_hello: Hello | None = None
        self._now = now
        self._heard_at = now
        self._greeting_ends_at = now + HELLO_TIMEOUT
        self._hello_at = now + HELLO_INTERVAL
        self._keep_alive_at: float | None = None
        self._is_hello_due = True
        self._is_keep_alive_due = False
        self._goodbye: Goodbye | None = None
        self._begun = b""
        self._begun_frame: Frame | None = None
        self._events: list[Event] = []
        self.counters: Counter[str] = Counter()

    @property
    def state(self) -> State:
        """Where we stand with the other side."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it: send what is left, then end the stream."""
        return self._state is State.CLOSED

    @property
    def peer(self) -> Eui64 | None:
        """Who the other side says it is, while it is there."""
        return self._peer

    def depth(self, priority: Priority) -> tuple[int, int]:
        """How many frames of a priority wait, and their octets."""
        return self._queues.depth(priority)

    # Commands from above

    def send(self, frame: Frame, *, now: float) -> None:
        """Let a frame wait for its turn; one sent before the hello came waits for that.

        Raises TableFull if its priority has no place, LocalProtocolError if it is over or the
        kind is the link's own.
        """
        self._pass_time(now)
        if self._state is State.CLOSED:
            raise LocalProtocolError("frame after the end, expected a new peer")
        if frame.is_control:
            raise LocalProtocolError(f"frame of kind {frame.kind}, expected 16 to 255")
        try:
            self._queues.put(frame.priority, len(frame.payload) + _overhead(frame), frame)
        except TableFull:
            self.counters[f"refused: queue of priority {int(frame.priority)} full"] += 1
            raise

    def close(self, *, now: float) -> None:
        """Leave, and say so."""
        self._pass_time(now)
        self._leave(Ending.WE_LEFT, "")

    def end(self, *, now: float) -> None:
        """The driver's word that the medium ended: nothing can be sent or received any more."""
        self._pass_time(now)
        self._begun = b""
        self._goodbye = None
        if self._state is not State.CLOSED:
            self._close(Ending.LOST, "")
            self._state = State.CLOSED

    # Inputs from below

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take any piece of the stream. Never raises on bad data."""
        self._pass_time(now)
        for item in self._deframer.receive_data(data):
            if self._state is State.CLOSED:
                self.counters["items after the end"] += 1
            elif isinstance(item, Skipped):
                self.counters[f"skipped: {item.reason}"] += 1
                self._events.append(item)
            else:
                self._receive_frame(item)
        if self._deframer.error is not None:
            self._leave(Ending.UNREADABLE, str(self._deframer.error))

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due. Calling early, late or twice is harmless."""
        self._pass_time(now)
        if self._state is State.OPEN:
            if now >= self._heard_at + self._hello.silence_max:
                self._leave_or_greet(Ending.SILENT, f"{self._hello.silence_max} s")
            elif self._keep_alive_at is not None and now >= self._keep_alive_at:
                # What waits to be sent says as much as a keep-alive; its turn sets the next time.
                self._keep_alive_at = None
                self._is_keep_alive_due = not self._begun and not len(self._queues)
        elif self._state is State.GREETING:
            if self._carrier.is_connection:
                if now >= self._greeting_ends_at:
                    self._leave(Ending.NO_HELLO, f"{HELLO_TIMEOUT:g} s")
            elif now >= self._hello_at:
                self._is_hello_due = True
                self._hello_at = now + HELLO_INTERVAL

    # Outputs, for the driver to collect

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        """Octets for the peer, in order, at most `room` of them. Each is handed over once.

        A frame may be cut; its rest goes before anything else.
        """
        pieces: list[bytes] = []
        while room is None or room > 0:
            if not self._begun and not self._begin():
                break
            piece = self._begun if room is None else self._begun[:room]
            self._begun = self._begun[len(piece) :]
            pieces.append(piece)
            if room is not None:
                room -= len(piece)
            if not self._begun and self._begun_frame is not None:
                frame, self._begun_frame = self._begun_frame, None
                self.counters["frames sent"] += 1
                self._watch(frame, is_sent=True)
        return pieces

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        if self._state is State.OPEN:
            silence = self._heard_at + self._hello.silence_max
            return silence if self._keep_alive_at is None else min(silence, self._keep_alive_at)
        if self._state is State.GREETING:
            return self._greeting_ends_at if self._carrier.is_connection else self._hello_at
        return None

    # Frames

    def _receive_frame(self, frame: Frame) -> None:
        self.counters["frames received"] += 1
        self._watch(frame, is_sent=False)
        if frame.kind == Kind.HELLO:
            self._receive_hello(frame)
            return
        if self._state is State.GREETING and frame.kind != Kind.GOODBYE:
            self.counters["refused: frame before the hello"] += 1
            if self._carrier.is_connection:
                self._leave(Ending.UNREADABLE, "a frame before the hello")
            else:
                # Our hello was heard and the answer lost: say it again, but not at every frame.
                self._hello_at = min(self._hello_at, self._now + HELLO_INTERVAL_MIN)
            return
        # Whole frames alone count as a sign of life: not octets that never make one.
        self._heard_at = self._now
        if frame.kind == Kind.GOODBYE:
            self._receive_goodbye(frame)
        elif not frame.is_control:
            self._events.append(FrameReceived(frame))
        elif frame.kind != Kind.KEEP_ALIVE:
            self.counters["ignored: unknown control frame"] += 1

    def _receive_hello(self, frame: Frame) -> None:
        try:
            hello = Hello.decode(frame.payload)
        except FrameError as error:
            self._refuse(Ending.UNREADABLE, str(error))
            return
        if self._state is State.OPEN and self._carrier.is_connection:
            self._refuse(Ending.UNREADABLE, "a second hello")
            return
        if frame.source == self._own:
            # A line that echoes, or a connection to ourselves.
            self._refuse(Ending.UNEXPECTED_PEER, "our own EUI-64")
            return
        if self._expected is not None and frame.source != self._expected:
            self._refuse(
                Ending.UNEXPECTED_PEER,
                f"{format_eui64(frame.source)}, expected {format_eui64(self._expected)}",
            )
            return
        common = set(hello.versions) & set(self._hello.versions)
        if not common:
            self._refuse(
                Ending.NO_COMMON_VERSION,
                f"{list(hello.versions)}, expected one of {list(self._hello.versions)}",
            )
            return
        if not self._carrier.is_connection and hello.heard != self._hello.run:
            self._is_hello_due = True  # It has not heard us, not in this run.
        known = self._peer_hello
        if self._state is State.OPEN and known is not None:
            if (frame.source, hello.run) == (self._peer, known.run):
                self._heard_at = self._now
                return
            self._close(Ending.PEER_RESTARTED, "")
        self._state = State.OPEN
        self._peer = frame.source
        self._peer_hello = hello
        self._heard_at = self._now
        self._keep_alive_at = self._now + hello.silence_max / KEEP_ALIVE_SHARE
        self._events.append(Opened(frame.source, max(common)))

    def _receive_goodbye(self, frame: Frame) -> None:
        try:
            goodbye = Goodbye.decode(frame.payload)
        except FrameError as error:
            self._refuse(Ending.UNREADABLE, str(error))
            return
        try:
            code = Farewell(goodbye.code).name.lower().replace("_", " ")
        except ValueError:
            code = f"code {goodbye.code}"
        if self._carrier.is_connection:
            self._close(Ending.PEER_LEFT, f"{code} {goodbye.text}".rstrip())
            self._state = State.CLOSED
        elif self._state is State.OPEN and frame.source == self._peer:
            self._close(Ending.PEER_LEFT, f"{code} {goodbye.text}".rstrip())
            self._greet()

    def _refuse(self, ending: Ending, detail: str) -> None:
        """What came cannot be accepted: the end of a connection, but not of a line."""
        self.counters[f"refused: {ending.value}"] += 1
        if self._carrier.is_connection:
            self._leave(ending, detail)
        elif ending is Ending.NO_COMMON_VERSION:
            self._goodbye = Goodbye(FAREWELLS[ending], detail[:TEXT_SIZE_MAX])

    def _begin(self) -> bool:
        """Take up the next frame, if there is one."""
        frame = self._next_frame()
        if frame is None:
            return False
        self._begun = self._carrier.wrap(frame)
        self._begun_frame = frame
        if self._peer_hello is not None:
            self._keep_alive_at = self._now + self._peer_hello.silence_max / KEEP_ALIVE_SHARE
        return True

    def _next_frame(self) -> Frame | None:
        if self._goodbye is not None:
            goodbye, self._goodbye = self._goodbye, None
            return self._control(Kind.GOODBYE, goodbye.encode())
        if self._state is State.CLOSED:
            return None
        if self._is_hello_due:
            self._is_hello_due = False
            heard = 0 if self._peer_hello is None else self._peer_hello.run
            own = self._hello
            return self._control(
                Kind.HELLO, Hello(own.versions, own.silence_max, own.run, heard).encode()
            )
        if self._state is not State.OPEN:
            return None
        if self._is_keep_alive_due:
            self._is_keep_alive_due = False
            return self._control(Kind.KEEP_ALIVE, b"")
        taken = self._queues.take()
        return None if taken is None else taken[1]

    def _control(self, kind: Kind, payload: bytes) -> Frame:
        return Frame(kind, Priority.CONTROL, self._own, payload)

    # Endings

    def _leave_or_greet(self, ending: Ending, detail: str) -> None:
        """The other side is gone: the end of a connection; on a line it may come back."""
        if self._carrier.is_connection:
            self._leave(ending, detail)
        else:
            self._close(ending, detail)
            self._greet()

    def _leave(self, ending: Ending, detail: str) -> None:
        if self._state is State.CLOSED:
            return
        self._close(ending, detail)
        self._state = State.CLOSED
        text = detail.encode(errors="replace")[:TEXT_SIZE_MAX].decode(errors="ignore")
        self._goodbye = Goodbye(FAREWELLS[ending], text)

    def _close(self, ending: Ending, detail: str) -> None:
        """Tell of it, and give back what was not sent. The state is the caller's to change."""
        begun = self._begun_frame
        unsent = self._queues.drain()
        if begun is not None and not begun.is_control:
            unsent.insert(0, begun)
        if unsent:
            self.counters["frames unsent at an end"] += len(unsent)
        self.counters[f"ended: {ending.value}"] += 1
        self._peer = None
        self._peer_hello = None
        self._keep_alive_at = None
        self._is_keep_alive_due = False
        self._events.append(Closed(ending, detail, tuple(unsent)))

    def _greet(self) -> None:
        """Look for a peer on the line, again."""
        self._state = State.GREETING
        self._is_hello_due = True
        self._hello_at = self._now + HELLO_INTERVAL

    def _watch(self, frame: Frame, *, is_sent: bool) -> None:
        if self._is_watched:
            self._events.append(FramePassed(frame, is_sent))

    def _pass_time(self, now: float) -> None:
        self._now = max(self._now, now)


def _overhead(frame: Frame) -> int:
    """What a frame costs besides its payload, near enough for a bound."""
    return FRAME_SIZE_MIN + sum(OPTION_HEAD_SIZE + len(option.value) for option in frame.options)
