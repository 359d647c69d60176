"""An asyncio loop on a mesh's clock.

The contract under test: whatever asyncio is asked for happens on the clock's time and in one order
with the clock's own calls; nothing ever runs in a thread; what fails and nobody waits for is found.
"""

from __future__ import annotations

import asyncio

import pytest

from interop.world.clock_loop import ClockLoop, at_once
from interop.world.loop import WorldStandsStill
from mesh.sim.clock import VirtualClock


def test_loop_and_clock_have_one_time_and_one_order() -> None:
    clock = VirtualClock()
    loop = ClockLoop(clock)
    seen: list[tuple[str, float]] = []

    def note(what: str) -> None:
        seen.append((what, loop.time()))

    def call_soon(_: int) -> None:
        loop.call_soon(note, "soon")

    async def sleeper() -> None:
        note("begins")
        await asyncio.sleep(2.0)
        note("slept")

    with loop.current():
        loop.call_at(2.0, note, "asked first")
        clock.at(1.0, call_soon)
        clock.at(1.0, lambda _: note("clock, first"))
        clock.at(1.0, lambda _: note("clock, second"))
        task = loop.create_task(sleeper())
        loop.call_later(3.0, note, "never").cancel()
        clock.run(5.0)
        assert task.done()
        loop.check()
    assert seen == [
        ("begins", 0.0),
        ("clock, first", 1.0),
        ("clock, second", 1.0),
        ("soon", 1.0),
        ("asked first", 2.0),
        ("slept", 2.0),
    ]
    assert loop.is_closed()


def test_tasks_that_are_left_are_cancelled_in_the_end() -> None:
    loop = ClockLoop(VirtualClock())
    ended: list[str] = []

    async def waits() -> None:
        try:
            await loop.create_future()
        finally:
            ended.append("cancelled")

    with loop.current():
        loop.create_task(waits())
        loop.finish(asyncio.sleep(0.1), within_s=1.0)
    assert ended == ["cancelled"]
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_finish_gives_the_value_or_says_that_it_does_not_come() -> None:
    loop = ClockLoop(VirtualClock())
    with loop.current():
        assert loop.finish(asyncio.sleep(0.2, "done"), within_s=1.0) == "done"
        with pytest.raises(WorldStandsStill, match=r"did not end within 1 s"):
            loop.finish(asyncio.sleep(2.0), within_s=1.0)


def test_at_once_refuses_to_wait() -> None:
    async def nothing() -> int:
        return 7

    assert at_once(nothing()) == 7
    loop = ClockLoop(VirtualClock())
    with loop.current(), pytest.raises(WorldStandsStill, match="waits for something"):
        at_once(asyncio.sleep(1.0))


def test_threads_are_refused() -> None:
    loop = ClockLoop(VirtualClock())
    with loop.current():
        with pytest.raises(RuntimeError, match="a thread on a virtual clock"):
            loop.finish(asyncio.to_thread(print), within_s=1.0)
        with pytest.raises(RuntimeError, match="a thread on a virtual clock"):
            loop.call_soon_threadsafe(print)


def test_failure_that_nobody_waits_for_is_found() -> None:
    clock = VirtualClock()
    loop = ClockLoop(clock)
    with loop.current():
        loop.check()
        loop.call_later(1.0, lambda: 1 // 0)
        clock.run(2.0)
        with pytest.raises(ZeroDivisionError):
            loop.check()
