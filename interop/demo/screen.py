"""What the demo shows on a terminal, and the lines it prints where there is none."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from interop.demo.figures import ANSWERED, Figures, Household, sparkline
from interop.demo.processes import DemoError

PICTURE_ROWS: Final = 12

STEPS: tuple[tuple[str, Callable[[Figures], int]], ...] = (
    ("secured (EDHOC)", lambda figures: figures.secured),
    ("registered", lambda figures: figures.registered),
    ("yesterday's reports stored", lambda figures: figures.reports_stored),
    ("on-demand reads answered", lambda figures: figures.answered),
)


class Output(Console):
    """A console whose reader may leave: an exception like any other, so that all is put away."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, once; what is still buffered goes nowhere."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise BrokenPipeError


class Screen:
    """Shows figures as they come: live on a terminal, a line for each change elsewhere."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console = console
        self._title = title
        self._last = ""
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        else:
            self._console.print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, figures: Figures) -> None:
        """The progress, and the table as soon as there is something in it."""
        if self._live is None:
            line = ", ".join(f"{name} {count(figures)}/{figures.meters}" for name, count in STEPS)
            if line != self._last:
                self._last = line
                self.say(line)
            return
        parts: list[RenderableType] = [Text(self._title, style="bold"), _progress(figures)]
        if any(row.delivered_kwh is not None for row in figures.households):
            room = max(3, self._console.size.height - len(STEPS) - 8)
            parts.append(table(figures, rows_max=room))
        self._live.update(Group(*parts))

    def finish(self, figures: Figures) -> None:
        """The whole table, once, where it stays."""
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()
            self._live = None
        self._console.print(table(figures, rows_max=len(figures.households)))


def save_picture(figures: Figures, *, title: str, path: Path) -> None:
    """Write what the terminal shows as an SVG image. Raises DemoError if it cannot be written."""
    console = Console(record=True, width=88, file=io.StringIO(), force_terminal=True)
    console.print(Text(title, style="bold"))
    console.print(_progress(figures))
    console.print(table(figures, rows_max=PICTURE_ROWS))
    # Without the web fonts of its stylesheet: a picture that fetches nothing.
    picture = re.sub(
        r"\s*@font-face \{.*?\}", "", console.export_svg(title="make demo"), flags=re.S
    )
    try:
        path.write_text(picture.replace("Fira Code", "DejaVu Sans Mono"), encoding="utf-8")
    except OSError as error:
        raise DemoError(f"{path} cannot be written: {error.strerror or error}") from error


def _progress(figures: Figures) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, count in STEPS:
        done = count(figures)
        grid.add_row(
            name,
            ProgressBar(total=figures.meters, completed=done, width=40),
            f"{done}/{figures.meters}",
        )
    return grid


def table(figures: Figures, *, rows_max: int) -> Table:
    """The street: yesterday's energy, its curve by the hour, the last on-demand read."""
    rows = figures.households
    shown = rows[:rows_max]
    title = f"{len(rows)} meters" if len(shown) == len(rows) else f"{len(shown)} of {len(rows)}"
    drawn = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    drawn.add_column("meter", no_wrap=True)
    drawn.add_column("kWh", justify="right", no_wrap=True)
    drawn.add_column("fed in", justify="right", no_wrap=True)
    drawn.add_column("yesterday, 0 to 24 h", no_wrap=True, min_width=24, style="cyan")
    drawn.add_column("read on demand, UTC", no_wrap=True)
    for row in shown:
        drawn.add_row(
            row.meter,
            _kwh(row.delivered_kwh),
            "" if row.received_kwh is None else _kwh(row.received_kwh),
            sparkline(row.hours),
            _read(row),
        )
    return drawn


def _kwh(value: float | None) -> str:
    return "..." if value is None else f"{value:.2f}"


def _read(row: Household) -> str:
    read = row.read
    if read is None:
        return ""
    if read.result != ANSWERED or read.answer is None:
        return read.result
    register = next((one.value for one in read.answer.registers if one.value is not None), None)
    at = read.answer.at[11:16]
    return at if register is None else f"{register / 1000:,.1f} kWh {at}"
