"""The collector's end of its backhaul, over one connection after another: hello, messages, table.

Spec    docs/protocol/backhaul.md; docs/protocol/framing.md
In      `opened` when a connection stands, `send`, `stream_table`, `receive_data`, `lost`,
        `handle_timer`
Out     `data_to_send`, at most as much as asked for; `messages`; `unsent`, what a connection took
        with it; `deadline`
Raises  nothing from the inputs: what is refused is counted by reason
Limit   `PriorityQueues`' for what waits; of the table STREAM_AHEAD rows at a time
Never   is up before the head-end said so
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.framing import (
    TCP,
    Closed,
    Frame,
    FramedPeer,
    FrameReceived,
    Kind,
    Opened,
    Priority,
)
from amistack.identifiers import Eui64
from mesh.backhaul import (
    Hello,
    Message,
    RouteRow,
    Status,
    TableBegin,
    TableEnd,
    Up,
    Welcome,
    decode,
    encode,
)
from mesh.routing.trickle import NEVER

TABLE_PRIORITY: Final = Priority.SCHEDULED
"""Of all that is said about the table: in one queue, so that it stays in order, and behind what
somebody waits for, since a large table takes a slow line for minutes."""
STREAM_AHEAD: Final = 32
"""Rows of the table that wait in the queue: what comes later is as new as it can be."""
HELLO_AGAIN_S: Final = 60.0
"""Seconds after which who was not accepted says hello again."""


class Line:
    """One collector's. Down until `opened`, and then until the head-end accepts it."""

    def __init__(self, own: Eui64, make_hello: Callable[[], Hello]) -> None:
        self._own = own
        self._make_hello = make_hello
        self._peer: FramedPeer | None = None
        self._now = 0.0
        self._hello_at = NEVER
        self._rows: Iterator[RouteRow] | None = None
        self._stream = 0
        self._messages: list[Message] = []
        self._unsent: list[Message] = []
        self.is_up = False
        self.status: Status | None = None
        """What the head-end said last about our hello."""
        self.counters: Counter[str] = Counter()

    # Commands from above

    def opened(self, *, run: int, expected: Eui64 | None, now: float) -> None:
        """There is a connection to the head-end; `run` is another number each time."""
        self.lost(now=now)
        self._peer = FramedPeer(self._own, TCP, now=now, run=run, expected=expected)

    def send(self, message: Message, priority: Priority, *, now: float) -> bool:
        """Let a message wait for its turn; False, and counted, if there is no room or no line."""
        self._now = now
        if self._peer is None or not self.is_up:
            self.counters["not sent: no backhaul"] += 1
            return False
        return self._send(message, priority)

    def stream_table(self, rows: Iterator[RouteRow], route_count: int, *, now: float) -> int | None:
        """Send all rows, a few at a time; a stream under way is at an end. Returns its number."""
        self._stream = (self._stream + 1) & 0xFFFF
        if not self.send(TableBegin(self._stream, route_count), TABLE_PRIORITY, now=now):
            return None
        self._rows = rows
        self._feed()
        return self._stream

    def close(self, *, now: float) -> None:
        """Take leave."""
        if self._peer is not None:
            self._peer.close(now=now)
            self._settle()

    def depth(self, priority: Priority) -> int:
        """How many messages of that priority wait."""
        return 0 if self._peer is None else self._peer.depth(priority)[0]

    # Inputs from below

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take any piece of the stream. Never raises on bad data."""
        self._now = now
        if self._peer is not None:
            self._peer.receive_data(data, now=now)
            self._settle()

    def lost(self, *, now: float) -> None:
        """The connection ended."""
        self._now = now
        if self._peer is not None:
            self._peer.end(now=now)
            self._settle()
            self._peer = None

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        self._now = now
        if self._peer is None:
            return
        self._peer.handle_timer(now=now)
        if self._hello_at <= now:
            self._say_hello()
        self._settle()

    # Outputs

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        """Octets for the head-end, in order, at most `room` of them."""
        pieces: list[bytes] = []
        while self._peer is not None and (room is None or room > 0):
            self._feed()
            more = self._peer.data_to_send(room)
            if not more:
                break
            pieces += more
            if room is not None:
                room -= sum(map(len, more))
        return pieces

    def messages(self) -> list[Message]:
        """What the head-end said, since it accepted us. Each is handed over once."""
        messages, self._messages = self._messages, []
        return messages

    def unsent(self) -> list[Message]:
        """What a connection that ended had not sent for certain. Each is handed over once."""
        unsent, self._unsent = self._unsent, []
        return unsent

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of this connection."""
        return self._peer is None or self._peer.is_over

    @property
    def deadline(self) -> float:
        """When to call `handle_timer`."""
        if self._peer is None:
            return NEVER
        due = self._peer.next_timer()
        return self._hello_at if due is None else min(due, self._hello_at)

    # Steps

    def _settle(self) -> None:
        assert self._peer is not None
        for event in self._peer.events():
            match event:
                case Opened():
                    self._say_hello()
                case FrameReceived(frame):
                    self._take(frame)
                case Closed(unsent=unsent, ending=ending):
                    self.counters[f"ended: {ending.value}"] += 1
                    self._end(unsent)
                case _:
                    self.counters["octets skipped"] += 1

    def _say_hello(self) -> None:
        self._hello_at = self._now + HELLO_AGAIN_S
        self._send(self._make_hello(), Priority.CONTROL)

    def _take(self, frame: Frame) -> None:
        if frame.kind != Kind.BACKHAUL:
            self.counters["refused: kind of frame"] += 1
            return
        try:
            message = decode(frame.payload)
        except MeshError as error:
            self.counters[f"refused: {error.reason}"] += 1
            return
        if isinstance(message, Welcome):
            self._take_welcome(message)
        elif not self.is_up:
            self.counters["refused: before the welcome"] += 1
        else:
            self._messages.append(message)

    def _take_welcome(self, welcome: Welcome) -> None:
        self.status = welcome.status
        was_up, self.is_up = self.is_up, welcome.status is Status.ACCEPTED
        if self.is_up:
            self._hello_at = NEVER
        else:
            self.counters[f"not accepted: {welcome.status.name.lower()}"] += 1
            self._hello_at = self._now + HELLO_AGAIN_S
            self._rows = None
        if was_up or self.is_up:
            self._messages.append(welcome)

    def _send(self, message: Message, priority: Priority) -> bool:
        assert self._peer is not None
        try:
            self._peer.send(
                Frame(Kind.BACKHAUL, priority, self._own, encode(message)), now=self._now
            )
        except TableFull:
            self.counters[f"not sent: queue of priority {int(priority)} full"] += 1
            return False
        except LocalProtocolError:
            self.counters["not sent: connection at its end"] += 1
            return False
        return True

    def _feed(self) -> None:
        """Rows of the table follow as the queue runs empty."""
        while self._rows is not None and self._peer is not None and self.is_up:
            if self._peer.depth(TABLE_PRIORITY)[0] >= STREAM_AHEAD:
                return
            row = next(self._rows, None)
            if row is None:
                self._rows = None
                self._send(TableEnd(self._stream), TABLE_PRIORITY)
            else:
                self._send(row, TABLE_PRIORITY)

    def _end(self, unsent: tuple[Frame, ...]) -> None:
        self.is_up = False
        self._hello_at = NEVER
        self._rows = None
        for frame in unsent:
            message = decode(frame.payload)
            if isinstance(message, Up):
                self._unsent.append(message)
