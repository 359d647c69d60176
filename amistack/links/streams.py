"""Drive a stream machine with whatever asyncio calls a transport: TCP, TLS, a serial line.

Gives   `StreamLink`, the driver of one stream; `KeptLink`, which makes a new one each time that
        the last one ended; `Backoff`, how long it waits before
Limit   the machine is asked for at most PIECE_SIZE octets at a time, and for none while the
        transport holds any or the kernel, where it can be asked, too many: what it still has
        waits in its queues, where order can change
Never   decides anything: what to send, when to wake and what it means is the machine's
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar, cast

from amistack.errors import LinkError
from amistack.machine import StreamMachine

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)

UNSENT_SIZE_MAX: Final = 4096
"""The most octets that have left a machine and were not put on the wire yet."""
PIECE_SIZE: Final = 768
PIECE_OVERHEAD: Final = 64
"""More than TLS adds to a piece."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds that a stream has to take its last octets; then it is cut."""
EARLY_SIZE_MAX: Final = 64 * 1024

BACKOFF_FIRST: Final = 2.0
BACKOFF_MAX: Final = 300.0
LASTED_MIN: Final = 60.0
"""Seconds after which a stream was a good one: the wait before the next is short again."""


class PacedMachine(StreamMachine[EventT_co], Protocol[EventT_co]):
    """A stream machine that gives its octets as they are asked for, and knows an end."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it: send what is left, then end the stream."""

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        """Octets for the peer, in order, at most `room` of them. Each is handed over once."""

    def close(self, *, now: float) -> None:
        """Leave, and say so."""

    def end(self, *, now: float) -> None:
        """The stream ended: nothing can be sent or received any more."""


class Gauge(Protocol):
    """Knows what the kernel holds back behind a transport, and tells when that becomes less."""

    def unsent(self) -> int:
        """How many octets were handed over and are not on the wire."""

    def when_less(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, when it is less than half of UNSENT_SIZE_MAX."""

    def close(self) -> None:
        """Call nobody any more."""


class MakeMachine(Protocol[EventT]):
    """Makes the machine of a new stream."""

    def __call__(self, link: StreamLink[EventT], /, *, now: float) -> PacedMachine[EventT]:
        """`link` knows by now where the other side is, and with TLS its key's hash.

        `now` is the machine's time (s). It must not raise.
        """


class OnEvent(Protocol[EventT]):
    """Takes what a machine reports, with the link that it happened on."""

    def __call__(self, link: StreamLink[EventT], event: EventT, /) -> None:
        """May give the machine commands, and need not settle after them."""


class StreamLink(asyncio.Protocol, Generic[EventT]):
    """Feeds one machine what its stream brings, and carries out what it asks for."""

    def __init__(self, make_machine: MakeMachine[EventT], on_event: OnEvent[EventT]) -> None:
        self._make_machine = make_machine
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._latest = self._loop.time()
        self._machine: PacedMachine[EventT] | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._is_settling = False
        self._is_paused = False
        self._is_ending = False
        self._early = b""
        self._unreported: deque[EventT] = deque()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.gauge: Gauge | None = None
        """Set before the stream begins, where the kernel can be asked."""
        self.peer_key_hash: bytes | None = None
        """SHA-256 of the public key (SubjectPublicKeyInfo, DER) in the peer's certificate."""
        self.counters: Counter[str] = Counter()

    def now(self) -> float:
        """The machine's time (s). Commands to the machine take theirs from here too."""
        self._latest = max(self._latest, self._loop.time())
        return self._latest

    @property
    def machine(self) -> PacedMachine[EventT] | None:
        """The machine of this stream, from its beginning on."""
        return self._machine

    @property
    def address(self) -> tuple[str, int] | None:
        """Our host and port, where the medium has such things."""
        return self._name("sockname")

    @property
    def peer_address(self) -> tuple[str, int] | None:
        """The other side's host and port, where the medium has such things."""
        return self._name("peername")

    @property
    def unsent(self) -> int:
        """How many octets were taken from the machine and are not on the wire, as far as known."""
        if self._transport is None:
            return 0
        in_kernel = 0 if self.gauge is None else self.gauge.unsent()
        return in_kernel + self._transport.get_write_buffer_size()

    def settle(self) -> None:
        """Send, report, re-arm: every entry ends here, and so must every command.

        A callback may give the machine further commands; they are carried out before this returns.
        """
        machine = self._machine
        if self._is_settling or machine is None:
            return
        self._is_settling = True
        try:
            while True:
                self._pump(machine)
                self._unreported += machine.events()
                if not self._unreported:
                    break
                while self._unreported:
                    self._report(self._unreported.popleft())
        finally:
            self._is_settling = False
            if machine.is_over:
                self._finish(machine)
            self._rearm(machine)

    def close(self) -> None:
        """Let the machine take its leave, then end the stream; `wait_ended` tells when it has."""
        if self._machine is not None:
            self._machine.close(now=self.now())
            self.settle()
        elif not self._ended.done():
            self._ended.set_result(None)

    def abort(self) -> None:
        """End the stream at once."""
        if self._transport is not None:
            self._transport.abort()

    def when_ended(self, callback: Callable[[StreamLink[EventT]], None]) -> None:
        """Have `callback` called soon after the stream has ended."""
        self._ended.add_done_callback(lambda _: callback(self))

    async def wait_ended(self) -> None:
        """Until the stream has ended and everything was reported."""
        await asyncio.shield(self._ended)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: on neither loop is the transport an instance of the class it stands for.
        self._transport = cast("asyncio.Transport", transport)
        if self._ended.done():
            self._transport.abort()
            return
        # What waits here stops the machine until it is gone. Not 0: TLS would pause when empty.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._machine = self._make_machine(self, now=self.now())
        early, self._early = self._early, b""
        if early:
            self.data_received(early)
        else:
            self.settle()

    def data_received(self, data: bytes) -> None:
        if self._machine is None:
            # TLS may have some before it tells of itself, never more than it reads at once.
            self._early += data
            if len(self._early) > EARLY_SIZE_MAX:
                self.abort()
            return
        self.counters["octets received"] += len(data)
        if self._is_ending:
            return
        self._machine.receive_data(data, now=self.now())
        self.settle()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        for timer in (self._timer, self._cut):
            if timer is not None:
                timer.cancel()
        self._timer = self._cut = None
        if self.gauge is not None:
            self.gauge.close()
            self.gauge = None
        try:
            if self._machine is not None:
                self._machine.end(now=self.now())
                self.settle()
        finally:
            if not self._ended.done():
                self._ended.set_result(None)

    # Small things

    def _go_on(self) -> None:
        """There is room again."""
        if self._machine is not None:
            # The time passes for the machine too: what it sends next carries the time of now.
            self._machine.handle_timer(now=self.now())
            self.settle()

    def _report(self, event: EventT) -> None:
        try:
            self._on_event(self, event)
        except Exception as error:  # noqa: BLE001  the loop is told of whatever it is
            # Raised through the loop's transport, it would cost the stream and not one event.
            self._loop.call_exception_handler(
                {"message": "a callback of a stream failed", "exception": error, "protocol": self}
            )

    def _pump(self, machine: PacedMachine[EventT]) -> None:
        while not self._is_paused and not self._is_ending and self._transport is not None:
            if self.gauge is not None:
                room = UNSENT_SIZE_MAX - self.unsent
                if room < PIECE_SIZE + PIECE_OVERHEAD:
                    self.gauge.when_less(self._go_on)
                    return
            pieces = machine.data_to_send(PIECE_SIZE)
            if not pieces:
                return
            self._write(b"".join(pieces))

    def _write(self, octets: bytes) -> None:
        if self._transport is None or not octets:
            return
        try:
            self._transport.write(octets)
        except OSError:
            # A device that vanished says so here first; connection_lost follows.
            self.counters["send errors"] += 1
        else:
            self.counters["octets sent"] += len(octets)

    def _finish(self, machine: PacedMachine[EventT]) -> None:
        """The machine is done: its last octets, and the end."""
        if self._is_ending or self._transport is None:
            return
        self._is_ending = True
        self._write(b"".join(machine.data_to_send()))
        self._cut = self._loop.call_later(CLOSE_TIMEOUT, self.abort)
        self._transport.close()

    def _rearm(self, machine: PacedMachine[EventT]) -> None:
        due = None if self._transport is None or self._is_ending else machine.next_timer()
        if self._timer is not None:
            if due == self._timer_due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer, due)

    def _on_timer(self, due: float) -> None:
        # uvloop rounds to milliseconds and fires early; see `amistack.links.udp`.
        self._timer = None
        self._latest = max(self._latest, due)
        if self._machine is not None:
            self._machine.handle_timer(now=self.now())
            self.settle()

    def _name(self, what: str) -> tuple[str, int] | None:
        name = None if self._transport is None else self._transport.get_extra_info(what)
        if not isinstance(name, tuple) or len(name) < 2:
            return None
        return str(name[0]), int(name[1])


class Backoff:
    """How long to wait before trying again: doubled each time, and more by chance."""

    def __init__(
        self,
        dice: random.Random,
        *,
        first: float = BACKOFF_FIRST,
        longest: float = BACKOFF_MAX,
    ) -> None:
        self._dice = dice
        self._first = first
        self._longest = longest
        self._wait = first

    def next_wait(self) -> float:
        """Seconds: between the next of first, twice that ... longest, and half as much again."""
        wait, self._wait = self._wait, min(2 * self._wait, self._longest)
        return wait * (1 + self._dice.random() / 2)

    def reset(self) -> None:
        """It went well: begin from the first again."""
        self._wait = self._first


class OnDown(Protocol):
    """Is told that there is no stream, and when the next will be tried."""

    def __call__(self, error: LinkError | None, wait: float, /) -> None:
        """`error` says why one could not be had, None that one ended; `wait` in seconds."""


def ignore_down(error: LinkError | None, wait: float) -> None:
    """Nobody wants to know."""


class KeptLink(Generic[EventT]):
    """A stream that is opened again each time it ends, until `close`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[StreamLink[EventT]]],
        backoff: Backoff,
        on_down: OnDown = ignore_down,
    ) -> None:
        """Begins at once, as a task of the running loop. `connect` raises LinkError alone."""
        self._connect = connect
        self._backoff = backoff
        self._on_down = on_down
        self._loop = asyncio.get_running_loop()
        self._link: StreamLink[EventT] | None = None
        self.counters: Counter[str] = Counter()
        self._task = self._loop.create_task(self._keep())

    @property
    def link(self) -> StreamLink[EventT] | None:
        """The stream that there is now, if there is one."""
        return self._link

    async def close(self) -> None:
        """Let the machine take its leave, and open no other."""
        link = self._link
        self._task.cancel()
        await asyncio.wait([self._task])
        if link is not None:
            link.close()
            await link.wait_ended()
        if not self._task.cancelled():
            self._task.result()  # It ended by itself: whoever made `connect` hears why.

    async def _keep(self) -> None:
        while True:
            error: LinkError | None = None
            try:
                link = await self._connect()
            except LinkError as failure:
                self.counters["failures"] += 1
                error = failure
            else:
                self.counters["streams"] += 1
                began = self._loop.time()
                self._link = link
                try:
                    await link.wait_ended()
                finally:
                    self._link = None
                    if self._loop.time() - began >= LASTED_MIN:
                        self._backoff.reset()
            wait = self._backoff.next_wait()
            try:
                self._on_down(error, wait)
            except Exception as failure:  # noqa: BLE001  the loop is told of whatever it is
                self._loop.call_exception_handler(
                    {"message": "a callback of a kept link failed", "exception": failure}
                )
            await asyncio.sleep(wait)
