"""A screen: where the pages of a display go.

Gives   `Screen`, the port: a terminal here, a small panel of characters elsewhere; `Turner`, which
        says whose turn it is among the pages
Never   draws by itself: whoever drives it says when
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TextIO

TURN_S: Final = 4.0
"""Seconds that a page stays before the next, where there is more than one."""
_HOME: Final = "\x1b[H"
_CLEAR: Final = "\x1b[2J"
_HIDE: Final = "\x1b[?25l"
_SHOW: Final = "\x1b[?25h"


class Screen(Protocol):
    """A display of characters."""

    @property
    def columns(self) -> int: ...

    @property
    def rows(self) -> int: ...

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines, as many as there are rows, each as long as there are columns."""

    def close(self) -> None:
        """Leave it as it was found."""


class Terminal:
    """A page of a terminal, or of what a terminal is made of."""

    def __init__(self, out: TextIO, *, columns: int, rows: int) -> None:
        self.columns: Final = columns
        self.rows: Final = rows
        self._out = out
        self._shown: list[str] = []

    def show(self, lines: Sequence[str]) -> None:
        """Write only what has changed."""
        if not self._shown:
            self._out.write(_HIDE + _CLEAR)
        for row, line in enumerate(lines, start=1):
            if self._shown[row - 1 : row] != [line]:
                self._out.write(f"\x1b[{row};1H{line}")
        self._out.write(f"{_HOME}")
        self._out.flush()
        self._shown = list(lines)

    def close(self) -> None:
        """Bring the cursor back, below the page."""
        if self._shown:
            self._out.write(f"\x1b[{self.rows};{self.columns}H\n{_SHOW}")
            self._out.flush()


class Turner:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._place = 0
        self._since: float | None = None

    def page(self, made: Sequence[list[str]], *, now: float) -> list[str]:
        """One of the pages: each for TURN_S, then the next."""
        if self._since is None:
            self._since = now
        if now - self._since >= TURN_S:
            self._place += 1
            self._since = now
        self._place %= len(made)
        return made[self._place]
