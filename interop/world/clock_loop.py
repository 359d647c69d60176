"""An asyncio loop on the clock of a simulated mesh: one clock, whoever asks.

What asyncio is asked to do soon or later waits on the mesh's virtual clock among the frames and the
timers of radios, and its turn comes by the same order. There is no `run_forever`: whoever lets the
clock run lets the loop run.

Gives   the same run for the same programs and dice
Raises  WorldStandsStill from `finish` when a coroutine did not end in the time it was given
Never   waits, or runs anything in a thread: a thread would see real time
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVar

from interop.world.apart import LoopApart
from interop.world.loop import WorldStandsStill
from mesh.sim.clock import VirtualClock

T = TypeVar("T")

FINISH_STEP_S: Final = 0.05


class ClockLoop(LoopApart):
    """Its time is the clock's."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._soon: deque[asyncio.Handle] = deque()
        self._has_turn = False
        self._failures: list[BaseException] = []
        self.set_exception_handler(self._note_failure)

    # What asyncio asks of a loop

    def time(self) -> float:
        """Virtual monotonic seconds."""
        return self._clock.now

    def call_soon(  # type: ignore[override]  # takes anything
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        if not self._has_turn:
            self._has_turn = True
            self._clock.at(self._clock.now, self._turn)
        return handle

    def call_at(  # type: ignore[override]  # takes anything
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)

        def fire(_: int) -> None:
            self._soon.append(timer)
            if not self._has_turn:
                self._turn(0)

        self._clock.at(max(when, self._clock.now), fire)
        return timer

    def call_later(  # type: ignore[override]  # takes anything
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._clock.now + delay, callback, *args, context=context)

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]  # takes anything
        """Refused, as threads are."""
        raise RuntimeError("a thread on a virtual clock: pass an inline implementation instead")

    # What a world does with it

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Be the thread's running loop; in the end every task is cancelled, and the loop closed."""
        asyncio._set_running_loop(self)  # noqa: SLF001  made for those who write loops
        try:
            yield
        finally:
            try:
                tasks = asyncio.all_tasks(self)
                for task in tasks:
                    task.cancel()
                self._run_soon()
            finally:
                asyncio._set_running_loop(None)  # noqa: SLF001  as above
                self.close()

    def finish(self, main: Coroutine[Any, Any, T], *, within_s: float) -> T:
        """Let the clock run until `main` is done, and give what it gave."""
        task = self.create_task(main)
        ends_at = self._clock.now + within_s
        while not task.done():
            if self._clock.now >= ends_at:
                raise WorldStandsStill(f"{main!r} did not end within {within_s:g} s")
            self._clock.run(self._clock.now + FINISH_STEP_S)
        return task.result()

    def check(self) -> None:
        """Raise what a callback or a task raised that nobody waits for, if one did."""
        if self._failures:
            raise self._failures[0]

    def _turn(self, _: int) -> None:
        try:
            self._has_turn = True
            self._run_soon()
        finally:
            self._has_turn = False

    def _run_soon(self) -> None:
        while self._soon:
            handle = self._soon.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001  made for those who write loops

    def _note_failure(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failure = context.get("exception")
        self._failures.append(
            failure if isinstance(failure, BaseException) else RuntimeError(context["message"])
        )


def at_once(main: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that has nothing to wait for. Raises WorldStandsStill if it has."""
    try:
        main.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    main.close()
    raise WorldStandsStill(f"{main!r} waits for something")
