"""What a display shows is what the meter has; its keys do what they say.

The contract under test: usage, generation, demand, last interval and switch are those of the meter;
looking marks a message as shown; a key at the door acknowledges and closes, anything else does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from amistack.errors import ConfigError
from amistack.model.control import Action, Position
from amistack.model.messages import MessageState, TextMessage
from meterd.display import Mailbox, View, Viewer
from meterd.display.door import ask_view, display_door
from meterd.display_commands import size_of
from meterd.door import StatusUnavailable
from meterd.metrology import ConstantSource
from meterd.recorder import Recorder
from meterd.service import SimulatedService
from tests.meterd.switch.house import MONDAY, House

HELLO = TextMessage(3, MONDAY, MONDAY + 900, is_to_acknowledge=True, text="Hello")


class Meter(House):
    """A house with a recorder and a display."""

    def open(self) -> None:
        super().open()
        source = ConstantSource(watts=self.watts, received_watts=400)
        self.service = SimulatedService(self.storage, source, utc=self.clock.utc)
        self.switch._service = self.service
        self.mailbox = Mailbox(self.storage, self.clock, log=self.take_event)
        self.recorder = Recorder(self.storage, self.service.source, offset_min=0)
        self.viewer = Viewer(
            meter="70b3d5fffe000017",
            offset_min=0,
            clock=self.clock,
            registers=self.recorder,
            source=self.service.source,
            mailbox=self.mailbox,
            service=self.service,
            switch=self.switch,
        )

    def look(self) -> View:
        self.recorder.advance(self.clock.utc(self.now))
        return self.viewer.look(now=self.now)


def test_figures_are_those_of_the_meter() -> None:
    meter = Meter(watts=2_000)
    meter.recorder.advance(MONDAY)
    before = meter.look()
    meter.now = 3_600.0
    view = meter.look()
    assert view.used_wh is not None
    assert before.used_wh is not None
    assert (view.used_wh - before.used_wh, view.returned_wh is not None) == (2_000, True)
    assert (view.interval_used_wh, view.interval_returned_wh, view.interval_s) == (500, 100, 900)
    assert (view.demand_w, view.position, view.outcome) == (1_600, "closed", "none")
    assert (view.at, view.clock) == (MONDAY + 3_600, "set")


def test_open_switch_shows_no_demand_and_counts_no_use() -> None:
    meter = Meter(watts=2_000)
    meter.recorder.advance(MONDAY)
    meter.command(1, Action.DISCONNECT)
    meter.run(20)
    before = meter.look().used_wh
    meter.run(3_600)
    view = meter.look()
    assert (view.used_wh, view.demand_w) == (before, 0)
    assert (view.position, view.outcome) == ("open", "confirmed")


def test_looking_marks_a_message_as_shown_and_a_key_acknowledges_it() -> None:
    meter = Meter()
    meter.mailbox.take(HELLO, now=0.0)
    assert [note.text for note in meter.look().messages] == ["Hello"]
    (standing,) = meter.mailbox.standings(now=0.0).standings
    assert standing.state is MessageState.SHOWN
    meter.viewer.press("acknowledge", now=1.0)
    assert meter.look().messages == ()


def test_shown_message_is_shown_even_if_that_cannot_be_kept() -> None:
    meter = Meter()
    meter.mailbox.take(HELLO, now=0.0)
    meter.recorder.advance(MONDAY)
    meter.files.fails_with = 28
    assert meter.viewer.look(now=0.0).messages != ()
    meter.viewer.press("acknowledge", now=1.0)
    meter.files.fails_with = None
    assert meter.viewer.look(now=2.0).messages != ()


def test_key_closes_an_armed_switch_and_no_other() -> None:
    meter = Meter()
    meter.command(1, Action.DISCONNECT)
    meter.run(20)
    meter.viewer.press("close", now=meter.now)
    assert meter.switch.state(now=meter.now).position is Position.OPEN
    meter.command(2, Action.ARM)
    meter.run(20)
    meter.viewer.press("close", now=meter.now)
    assert meter.switch.state(now=meter.now).position is Position.CLOSED


def test_meter_without_a_switch_shows_the_mean_of_the_running_interval() -> None:
    meter = Meter(watts=2_000)
    source = ConstantSource(watts=2_000)
    meter.viewer = Viewer(
        meter="x",
        offset_min=0,
        clock=meter.clock,
        registers=meter.recorder,
        source=source,
        mailbox=meter.mailbox,
    )
    meter.now = 900.5
    assert meter.viewer.look(now=meter.now).demand_w is None
    meter.now = 900.0 + 450
    view = meter.viewer.look(now=meter.now)
    assert (view.demand_w, view.position, view.interval_returned_wh) == (2_000, None, None)
    meter.viewer.press("close", now=meter.now)


@pytest.mark.both_loops
async def test_display_is_seen_and_pressed_through_its_door(tmp_path: Path) -> None:
    meter = Meter()
    meter.mailbox.take(HELLO, now=0.0)
    settled: list[int] = []
    door = display_door(tmp_path, meter.viewer, lambda: 5.0, lambda: settled.append(1))
    await door.open()
    try:
        ask = asyncio.to_thread
        view = await ask(ask_view, tmp_path)
        assert [note.text for note in view.messages] == ["Hello"]
        # Words that are no key, and one that never ends, change nothing.
        for word in ("nonsense", "x" * 10_000):
            with contextlib.suppress(StatusUnavailable):  # It may be cut off in the middle.
                await ask(ask_view, tmp_path, press=word)
        view = await ask(ask_view, tmp_path, press="acknowledge")
        assert view.messages == ()
        assert settled
    finally:
        await door.close()


@pytest.mark.parametrize("size", ["20x3", "19x4", "x", "80", "20x4x1", "999x999", "-20x4"])
def test_size_that_no_display_has_is_refused_in_a_line(size: str) -> None:
    with pytest.raises(ConfigError, match="expected COLUMNSxROWS"):
        size_of(size)


def test_sizes_from_a_small_panel_on_are_taken() -> None:
    assert size_of("20x4") == (20, 4)
    assert size_of("80x24") == (80, 24)
    columns, rows = size_of(None)
    assert (20, 4) <= (columns, rows) <= (80, 24)
