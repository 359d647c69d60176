"""Streams on a virtual clock.

The contract under test: octets arrive whole, in order, once and after the delay; a cut holds them
up and no more than the system's buffer is taken meanwhile; who loses power tells nobody, whose
program is killed has its streams ended; a client comes back by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from amistack.errors import LinkError
from amistack.links.streams import UNSENT_SIZE_MAX, StreamLink
from interop.world.clock_loop import ClockLoop
from interop.world.streams import DELAY_S, Streams
from mesh.sim.clock import VirtualClock

THERE = ("10.0.0.1", 5685)
HERE = "10.1.0.1"


class Side:
    """A stream machine that keeps what comes, and sends what it is given."""

    def __init__(self, made: list[Side], link: StreamLink[Any], time: Callable[[], float]) -> None:
        made.append(self)
        self.link = link
        self.time = time
        self.came: list[tuple[float, bytes]] = []
        self.waiting = b""
        self.is_over = False
        self.ended_at: float | None = None

    def receive_data(self, data: bytes, *, now: float) -> None:
        self.came.append((now, data))

    def handle_timer(self, *, now: float) -> None:
        pass

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        piece = self.waiting[:room]
        self.waiting = self.waiting[len(piece) :]
        return [piece] if piece else []

    def events(self) -> list[object]:
        return []

    def next_timer(self) -> float | None:
        return None

    def close(self, *, now: float) -> None:
        self.is_over = True

    def end(self, *, now: float) -> None:
        self.is_over = True
        self.ended_at = now

    def say(self, octets: bytes) -> None:
        self.waiting += octets
        self.link.settle()


class Line:
    """A server, and a client that keeps a stream to it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.loop = ClockLoop(self.clock)
        self.streams = Streams()
        self.near: list[Side] = []
        self.far: list[Side] = []
        self.downs: list[LinkError | None] = []

    def make(self, made: list[Side]) -> Callable[..., Side]:
        return lambda link, *, now: Side(made, link, self.loop.time)

    def serve(self) -> Any:
        return self.loop.finish(
            self.streams.open_server(
                self.make(self.far), lambda *_: None, host=THERE[0], port=THERE[1]
            ),
            within_s=1.0,
        )

    def keep(self) -> None:
        self.streams.keeper(HERE)(
            self.make(self.near),
            lambda *_: None,
            host=THERE[0],
            port=THERE[1],
            dice=random.Random(1),
            on_down=lambda error, _: self.downs.append(error),
        )

    def go(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)
        self.loop.check()


def test_octets_arrive_in_order_after_the_delay() -> None:
    line = Line()
    with line.loop.current():
        line.serve()
        line.keep()
        line.go(1.0)
        (near,), (far,) = line.near, line.far
        said_at = line.clock.now
        near.say(b"a" * 1000)
        near.say(b"b")
        far.say(b"c")
        line.go(DELAY_S / 2)
        assert near.came == far.came == []
        line.go(DELAY_S)
        assert b"".join(octets for _, octets in far.came) == b"a" * 1000 + b"b"
        assert near.came == [(said_at + DELAY_S, b"c")]
        assert line.streams.counters["octets"] == 1002


def test_cut_holds_up_and_loses_nothing() -> None:
    line = Line()
    with line.loop.current():
        line.serve()
        line.keep()
        line.go(1.0)
        (near,), (far,) = line.near, line.far
        near.say(b"on its way")
        line.streams.cut(HERE, is_cut=True)
        near.say(b"x" * 3 * UNSENT_SIZE_MAX)
        line.go(30.0)
        assert far.came == []
        taken = 3 * UNSENT_SIZE_MAX - len(near.waiting)
        assert UNSENT_SIZE_MAX - 1000 < taken < UNSENT_SIZE_MAX + 1000, "the rest can be overtaken"
        line.streams.cut(HERE, is_cut=False)
        line.go(1.0)
        came = b"".join(octets for _, octets in far.came)
        assert came == b"on its way" + b"x" * 3 * UNSENT_SIZE_MAX


def test_client_without_power_tells_nobody_and_its_next_life_ends_the_old_stream() -> None:
    line = Line()
    with line.loop.current():
        line.serve()
        line.keep()
        line.go(1.0)
        line.streams.kill(HERE)
        (near,), (far,) = line.near, line.far
        far.say(b"are you there?")
        line.go(60.0)
        assert near.came == []
        assert [side.ended_at for side in (near, far)] == [None, None]
        line.keep()
        line.go(1.0)
        assert len(line.far) == 2
        far.say(b"and now?")
        line.go(1.0)
        assert far.ended_at is not None, "its system knows nothing of such a stream"
        assert len(line.near) == 2, "the dead program opens none any more"


def test_server_that_is_killed_ends_its_streams_and_is_found_again() -> None:
    line = Line()
    with line.loop.current():
        line.serve()
        line.keep()
        line.go(1.0)
        line.streams.kill_server(THERE)
        line.go(1.0)
        assert line.near[0].ended_at is not None
        assert line.far[0].ended_at is None, "a killed program learns nothing"
        line.go(30.0)
        refused = [str(error) for error in line.downs if error is not None]
        assert refused
        assert all("refused" in text for text in refused)
        line.serve()
        line.go(120.0)
        assert len(line.near) == len(line.far) == 2
        line.near[1].say(b"again")
        line.go(1.0)
        assert [octets for _, octets in line.far[1].came] == [b"again"]


def test_nobody_answers_over_a_way_that_is_cut() -> None:
    line = Line()
    with line.loop.current():
        line.serve()
        line.keep()
        line.streams.cut(HERE, is_cut=True)
        line.go(12.0)
        assert "no answer in 10 s" in str(line.downs[0])
        assert line.near == []
        line.streams.cut(HERE, is_cut=False)
        line.go(60.0)
        assert len(line.near) == 1


def test_place_that_is_taken_is_refused_and_a_server_takes_its_leave() -> None:
    line = Line()
    with line.loop.current():
        server = line.serve()
        with pytest.raises(LinkError, match="is in use"):
            line.serve()
        line.keep()
        line.go(1.0)
        line.loop.finish(server.close(), within_s=1.0)
        line.go(1.0)
        assert line.far[0].ended_at is not None
        assert line.near[0].ended_at is not None
        assert server.address == THERE
        assert isinstance(line.loop, asyncio.AbstractEventLoop)
