"""Bring a panel its levels: one task that opens the pins, and opens them again when they vanish.

Gives   `on_change` for every change that counts, `on_presence` once as the pins vanish and once as
        they return
Limit   REOPEN_MAX s between two attempts, and half as much again; CHECK_S between two looks
Never   ends by itself, or blocks the loop
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Final

from amistack.links.streams import Backoff
from meterd.gpio.panel import Changed, Panel, Role
from meterd.gpio.pins import Inputs, Pins

CHECK_S: Final = 5.0
"""Seconds between two looks at all levels: an edge that was lost costs no more than this."""
REOPEN_FIRST: Final = 1.0
REOPEN_MAX: Final = 60.0


class PinDriver:
    """The inputs of one meter."""

    def __init__(
        self,
        panel: Panel,
        pins: Pins,
        lines: Mapping[Role, int],
        *,
        active_low: bool = True,
        first_wait_s: float = REOPEN_FIRST,
        check_s: float = CHECK_S,
    ) -> None:
        self._panel = panel
        self._pins = pins
        self._lines = lines
        self._active_low = active_low
        self._first_wait_s = first_wait_s
        self._check_s = check_s
        self._on_change: Callable[[Changed, float], None] = lambda *_: None
        self._on_presence: Callable[[str | None], None] = lambda _: None
        self._has_vanished = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(
        self,
        *,
        on_change: Callable[[Changed, float], None],
        on_presence: Callable[[str | None], None],
        dice: random.Random,
    ) -> None:
        """Begin, in the running loop. `on_presence` gets the trouble, or None; none may raise."""
        self._on_change, self._on_presence = on_change, on_presence
        backoff = Backoff(dice, first=self._first_wait_s, longest=REOPEN_MAX)
        self._task = asyncio.get_running_loop().create_task(self._keep(backoff))

    def stop(self) -> None:
        """Give the pins back, soon; `wait_stopped` says when."""
        if self._task is not None:
            self._task.cancel()

    async def wait_stopped(self) -> None:
        """Until the pins were given back."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _keep(self, backoff: Backoff) -> None:
        while True:
            try:
                await self._run(backoff)
            except Exception as error:  # noqa: BLE001  a board or its library may do anything
                trouble = str(error) or type(error).__name__
            self._panel.lose(trouble)
            if not self._has_vanished:
                self._has_vanished = True
                self._on_presence(trouble)
            await asyncio.sleep(backoff.next_wait())

    async def _run(self, backoff: Backoff) -> None:
        """Follow the pins until they fail."""
        loop = asyncio.get_running_loop()
        inputs = self._pins.open_inputs(tuple(self._lines.values()), active_low=self._active_low)
        failed: list[OSError] = []

        def on_edges() -> None:
            # Here and nowhere else: where nothing is to be read, reading would wait.
            try:
                inputs.read()
            except OSError as error:
                loop.remove_reader(inputs.fileno())
                failed.append(error)
            self._wake.set()

        try:
            loop.add_reader(inputs.fileno(), on_edges)
            try:
                while not failed:
                    self._look(inputs, loop.time())
                    backoff.reset()
                    await self._wait(loop.time())
                    self._wake.clear()
                raise failed[0]
            finally:
                loop.remove_reader(inputs.fileno())
        finally:
            inputs.close()

    def _look(self, inputs: Inputs, now: float) -> None:
        levels = inputs.levels()
        for role, line in self._lines.items():
            self._panel.take(role, is_on=levels[line], now=now)
        self._panel.handle_timer(now=now)
        if self._has_vanished:
            self._has_vanished = False
            self._on_presence(None)
        for change in self._panel.changes():
            self._on_change(change, now)

    async def _wait(self, now: float) -> None:
        """Until an edge, a level that will count, or the next look."""
        due = self._panel.next_timer()
        wait = self._check_s if due is None else min(max(due - now, 0.0), self._check_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()
