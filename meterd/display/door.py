"""The door of a display: who stands before the meter sees it there, and presses its keys.

Gives   `display_door` for the daemon, `ask_view` for `meterd display`
Raises  StatusUnavailable, one line, from `ask_view`
Never   is open to anybody but its owner: a key can close a switch
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from meterd.display.view import View, Viewer
from meterd.door import Door, StatusUnavailable, ask

DISPLAY: Final = "display.sock"
"""The socket's name in the storage folder."""
LOOK: Final = "look"
"""The line of who presses no key."""


def display_door(
    folder: Path, viewer: Viewer, now: Callable[[], float], settle: Callable[[], None]
) -> Door:
    """The door, not open yet; `settle` is called after each key, which may have woken something."""

    def hear(word: str) -> None:
        if word != LOOK:
            viewer.press(word, now=now())
            settle()

    return Door(folder / DISPLAY, lambda: [viewer.look(now=now()).to_json()], hear=hear)


def ask_view(folder: Path, *, press: str | None = None) -> View:
    """What the display of the meter in that folder shows, after the key `press`."""
    (line, *_) = ask(folder / DISPLAY, press or LOOK)
    try:
        return View.from_json(line)
    except ValueError:
        raise StatusUnavailable(f"{folder / DISPLAY} gave no whole answer: ask again") from None
