"""An asyncio loop whose time is virtual: it jumps to the next timer instead of waiting.

Gives   the same run for the same program and dice; days pass in as long as their work takes
Raises  WorldStandsStill when nothing is left that could ever happen
Never   waits, or runs anything in a thread: a thread would see real time
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from amistack.errors import AmiError
from interop.world.apart import LoopApart

T = TypeVar("T")
START: Final = 1_000.0
"""Where virtual monotonic time begins: not at zero, so that nobody takes it for a difference."""


class WorldStandsStill(AmiError):
    """Everybody waits for somebody, and no timer is set."""


class _Jumping(selectors.SelectSelector):
    """A selector that finds nothing at once, and lets time pass instead of waiting for it."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise WorldStandsStill("nothing is due and nothing can come in")
        self._advance(max(timeout, 0.0))
        return []


class VirtualLoop(LoopApart, asyncio.SelectorEventLoop):
    """A loop to run a whole world on."""

    def __init__(self) -> None:
        self._virtual_now = START
        super().__init__(_Jumping(self._pass))

    def time(self) -> float:
        """Virtual monotonic seconds."""
        return self._virtual_now

    def _pass(self, seconds: float) -> None:
        self._virtual_now += seconds


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
