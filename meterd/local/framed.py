"""A stack on a stream or a serial line: its datagrams as frames, one peer.

In      a datagram machine that has a `LINE` for its only peer; octets of the stream
Out     octets, at most as many as asked for; what the machine and the line tell
Limit   that of `FramedPeer`; a datagram that finds no room is dropped, and sent again by CoAP
Never   tells the machine who is there: that is proved above
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, Protocol, TypeVar

from amistack.errors import AmiError, TableFull
from amistack.framing import (
    Carrier,
    Closed,
    Frame,
    FramedPeer,
    FrameReceived,
    Kind,
    Opened,
    Priority,
    Skipped,
)
from amistack.identifiers import Eui64
from amistack.machine import DatagramMachine

LINE: Final = "line"
"""The peer at the other end."""
SILENCE_S: Final = 30
"""Seconds without a frame after which the other end has gone: a cable that was pulled."""

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)


class LineMachine(DatagramMachine[EventT_co], Protocol[EventT_co]):
    """A datagram machine that is told of its line."""

    def line_opened(self, *, now: float) -> None:
        """Somebody is at the other end."""

    def line_closed(self) -> None:
        """Nobody is there any more."""


class FramedStation(Generic[EventT]):
    """One end of the line."""

    def __init__(
        self,
        own: Eui64,
        carrier: Carrier,
        machine: LineMachine[EventT],
        *,
        now: float,
        run: int,
    ) -> None:
        """`run`: any number of 1 to 2^32 - 1, another at every start."""
        self._own = own
        self._machine = machine
        self._peer = FramedPeer(own, carrier, now=now, run=run, silence_max=SILENCE_S)
        self._now = now
        self.counters: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self._peer.is_over

    def close(self, *, now: float) -> None:
        """Take leave."""
        self._peer.close(now=now)
        self._turn(now)

    def end(self, *, now: float) -> None:
        """The stream ended."""
        self._peer.end(now=now)
        self._turn(now)

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take any piece of the stream."""
        self._peer.receive_data(data, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        self._peer.handle_timer(now=now)
        self._machine.handle_timer(now=now)
        self._turn(now)

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        """Octets for the other end, in order, at most `room` of them."""
        self._collect()
        return self._peer.data_to_send(room)

    def events(self) -> list[EventT]:
        """What the machine has to tell. Each is handed over once."""
        return list(self._machine.events())

    def next_timer(self) -> float | None:
        """When to wake."""
        times = (self._peer.next_timer(), self._machine.next_timer())
        return min((time for time in times if time is not None), default=None)

    def _turn(self, now: float) -> None:
        self._now = now
        for event in self._peer.events():
            match event:
                case FrameReceived(frame) if frame.kind == Kind.COAP:
                    self._machine.receive_datagram(frame.payload, LINE, now=now)
                case FrameReceived(frame):
                    self.counters[f"ignored: frame of kind {frame.kind}"] += 1
                case Opened():
                    self._machine.line_opened(now=now)
                case Closed():
                    self._machine.line_closed()
                case Skipped(_, reason):
                    self.counters[f"skipped: {reason}"] += 1
                case _:
                    pass
        self._collect()

    def _collect(self) -> None:
        for _, datagram in self._machine.data_to_send():
            try:
                frame = Frame(Kind.COAP, Priority.ON_DEMAND, self._own, datagram)
                self._peer.send(frame, now=self._now)
            except TableFull:
                self.counters["dropped: queue full"] += 1
            except AmiError as error:
                self.counters[f"dropped: {type(error).__name__}"] += 1
