"""A view as pages of text for a display of any size, from 20 by 4 characters on.

Gives   pages: each as many lines as there are rows, each line exactly as many columns
Limit   a message takes MESSAGE_PAGES_MAX pages at most; what is beyond is cut
Never   lets through what would move a terminal's cursor: texts come from elsewhere
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Final

from meterd.display.view import View

COLUMNS_MIN: Final = 20
PAIR_COLUMNS_MAX: Final = 40
"""Further apart a name and its value are not seen together."""
MESSAGE_PAGES_MAX: Final = 4
ELLIPSIS: Final = "..."

_POSITIONS: Final = {
    "open": "OFF",
    "armed": "OFF, press to close",
    "closed": "on",
    "limited": "OFF, load too high",
}
_OUTCOMES: Final = {
    "pending": "moving",
    "unconfirmed": "not confirmed",
    "contradicted": "does not obey",
}


def pages(view: View, *, columns: int, rows: int) -> list[list[str]]:
    """The pages, in the order in which they take turns; at least one."""
    blocks = [_figures(view, columns), *_service(view, columns)]
    blocks += [_message(note.text, note.is_to_acknowledge, columns, rows) for note in view.messages]
    made: list[list[str]] = []
    for block in blocks:
        if made and len(made[-1]) + 1 + len(block) <= rows:
            made[-1] += ["", *block]
            continue
        made += [block[place : place + rows] for place in range(0, len(block), rows)]
    return [[_fit(line, columns) for line in page + [""] * (rows - len(page))] for page in made]


def _figures(view: View, columns: int) -> list[str]:
    local = datetime.fromtimestamp(view.at + view.offset_min * 60, UTC)
    is_set = view.clock != "unset"
    date, time = (local.strftime("%Y-%m-%d"), local.strftime("%H:%M:%S"))
    lines = [
        _pair(date if is_set else "clock", time if is_set else "not set", columns),
        _pair("Used", _kwh(view.used_wh), columns),
    ]
    if view.returned_wh is not None:
        lines.append(_pair("Returned", _kwh(view.returned_wh), columns))
    is_returning = view.demand_w is not None and view.demand_w < 0
    lines.append(_pair("Returning" if is_returning else "Demand", _kw(view.demand_w), columns))
    if columns > COLUMNS_MIN:
        minutes = view.interval_s // 60
        span = f"Last {minutes} min" if minutes else f"Last {view.interval_s} s"
        lines.append(_pair(f"{span}: used", _kwh(view.interval_used_wh, 3), columns))
        if view.interval_returned_wh is not None:
            lines.append(_pair(f"{span}: returned", _kwh(view.interval_returned_wh, 3), columns))
        lines.append(_pair("Meter", view.meter, columns))
    return lines


def _service(view: View, columns: int) -> list[list[str]]:
    """The switch, where there is one and something to say, or room to say it."""
    if view.position is None:
        return []
    is_quiet = view.position == "closed" and view.outcome in ("none", "confirmed")
    if is_quiet and columns <= COLUMNS_MIN:
        return []
    lines = _wrap(f"Power: {_POSITIONS.get(view.position, view.position)}", columns)
    said = _OUTCOMES.get(view.outcome or "")
    return [lines if said is None else [*lines, said]]


def _message(text: str, is_to_acknowledge: bool, columns: int, rows: int) -> list[str]:
    lines = _wrap(text, columns)
    most = rows * MESSAGE_PAGES_MAX - is_to_acknowledge
    if len(lines) > most:
        lines = [*lines[: most - 1], ELLIPSIS]
    return [*lines, "Press OK when read"] if is_to_acknowledge else lines


def _pair(name: str, value: str, columns: int) -> str:
    """A name at the left and its value at the right; a name that is too long is cut."""
    columns = min(columns, PAIR_COLUMNS_MAX)
    room = max(columns - _cells(value) - 1, 0)
    name = _cut(name, room)
    return name + " " * (columns - _cells(name) - _cells(value)) + value


def _kwh(wh: int | None, digits: int = 1) -> str:
    """Cut, not rounded: a dial shows what is full."""
    if wh is None:
        return "- kWh"
    sign = "-" if wh < 0 else ""
    whole, rest = divmod(abs(wh), 1000)
    return f"{sign}{whole}.{f'{rest:03}'[:digits]} kWh"


def _kw(watts: int | None) -> str:
    return "- kW" if watts is None else f"{abs(watts) / 1000:.2f} kW"


# Cells of a terminal


def _wrap(text: str, columns: int) -> list[str]:
    """Lines of at most so many cells, broken between words where that can be."""
    lines: list[str] = []
    line = ""
    for word in _clean(text).split():
        if line and _cells(line) + 1 + _cells(word) <= columns:
            line += " " + word
            continue
        if line:
            lines.append(line)
        line = word
        while _cells(line) > columns:
            head = _cut(line, columns)
            lines.append(head)
            line = line[len(head) :]
    return [*lines, line] if line or not lines else lines


def _fit(line: str, columns: int) -> str:
    line = _cut(_clean(line), columns)
    return line + " " * (columns - _cells(line))


def _cut(text: str, columns: int) -> str:
    """The beginning of `text` that takes at most so many cells."""
    taken = ""
    for character in text:
        if _cells(taken) + _cells(character) > columns:
            break
        taken += character
    return taken


def _cells(text: str) -> int:
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _clean(text: str) -> str:
    return "".join(one if one.isprintable() else " " if one.isspace() else "?" for one in text)
