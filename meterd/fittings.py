"""What a meter has beside its conversation: a service with its switch, a display, pins.

A made-up load has a simulated service around it; a real meter has none, unless pins are named.

Gives   the source as it is seen through the service, the parts for the agent, the display's view
Raises  StoreUnusable for rows that no meterd writes
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amistack.identifiers import Eui64, format_eui64
from meterd.board import Board, BoardSettings
from meterd.clock import MeterClock
from meterd.display import DisplayPart, Mailbox, Viewer
from meterd.events.sources import EventSources
from meterd.metrology import Source
from meterd.parts import Part
from meterd.recorder import Recorder
from meterd.service import Service
from meterd.storage import Storage
from meterd.switch import Log, Switch, SwitchPart

if TYPE_CHECKING:
    import structlog

    from meterd.gpio.keeper import PinKeeper


@dataclass(frozen=True, slots=True)
class Fittings:
    """A meter's, ready to start; `switch` is None for one without a relay."""

    parts: tuple[Part, ...]
    viewer: Viewer
    mailbox: Mailbox
    recorder: Recorder
    sources: EventSources
    record: Log
    switch: Switch | None = None
    pins: PinKeeper | None = None
    board: Board | None = None

    def start(self, *, now: float) -> None:
        """Take up where the storage left off. Raises StoreError."""
        if self.switch is not None:
            self.switch.start(now=now)

    def start_pins(
        self,
        *,
        now: Callable[[], float],
        settle: Callable[[], None],
        dice: random.Random,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Listen to the pins, if there are any, in the running loop."""

        def press() -> None:
            self.viewer.press_button(now=now())
            settle()

        if self.pins is not None:
            self.pins.start(
                sources=self.sources,
                press=press,
                record=self.record,
                now=now,
                dice=dice,
                log=log,
            )

    def stop(self) -> None:
        """Give the pins back."""
        if self.pins is not None:
            self.pins.stop()

    async def wait_stopped(self) -> None:
        """Until the pins were given back."""
        if self.pins is not None:
            await self.pins.wait_stopped()


def fit(
    *,
    meter: Eui64,
    storage: Storage,
    clock: MeterClock,
    recorder: Recorder,
    source: Source,
    service: Service | None,
    offset_min: int,
    log: Log,
    sources: EventSources,
    pins: PinKeeper | None = None,
    board: BoardSettings | None = None,
) -> Fittings:
    """Everything for one meter; `source` is what its recorder records."""
    mailbox = Mailbox(storage, clock, log=log)
    parts: list[Part] = [DisplayPart(mailbox)]
    switch = None
    if service is not None:
        switch = Switch(
            storage,
            service,
            clock,
            log=log,
            offset_min=offset_min,
            has_load_sensor=pins is None or pins.has_load_sensor,
        )
        parts.append(SwitchPart(switch))
    fitted_board = None
    if board is not None:
        fitted_board = Board(board, sources)
        parts.append(fitted_board)
    viewer = Viewer(
        meter=format_eui64(meter),
        offset_min=offset_min,
        clock=clock,
        registers=recorder,
        source=source,
        mailbox=mailbox,
        service=service,
        switch=switch,
    )
    return Fittings(
        tuple(parts), viewer, mailbox, recorder, sources, log, switch, pins, fitted_board
    )
