"""What the board says: told as it is found, and nothing where a file is gone or talks nonsense.

The contract under test: each file is read once a minute; what cannot be is counted and tells
nothing; a limit crossed is one event, and one more when that is over.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from amistack.errors import ConfigError
from amistack.model import EndDeviceEventType, event_catalogue
from meterd.board import LINE_SIZE_MAX, LOOK_INTERVAL_S, Board, BoardSettings, read_line
from meterd.events.sources import EventSources


class Notes:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[EndDeviceEventType, str | None]] = []

    def __call__(
        self, event: EndDeviceEventType, detail: str | None = None, *, now: float
    ) -> object:
        self.told.append((event, detail))
        return None


class Files:
    """Files of one line, in memory."""

    def __init__(self, **lines: str) -> None:
        self.lines = {f"/{name}": line for name, line in lines.items()}
        self.reads = 0

    def __call__(self, path: Path) -> str:
        self.reads += 1
        if str(path) not in self.lines:
            raise FileNotFoundError(path)
        return self.lines[str(path)]


SETTINGS = BoardSettings("/temp", "/volts", "/socket", "2S")


def board_of(files: Files, settings: BoardSettings = SETTINGS) -> tuple[Board, Notes]:
    notes = Notes()
    return Board(settings, EventSources(notes), files), notes


def test_a_healthy_board_tells_nothing_and_is_looked_at_once_a_minute() -> None:
    files = Files(temp="48312", volts="3012000", socket="2S")
    board, notes = board_of(files)
    due = board.next_timer()
    assert due is not None
    for number in range(1, 4):
        board.handle_timer(now=due)
        board.handle_timer(now=due + LOOK_INTERVAL_S - 0.1)
        assert files.reads == 3 * number
        due += LOOK_INTERVAL_S
        assert board.next_timer() == due
    assert notes.told == []
    assert not board.counters


@pytest.mark.parametrize(
    ("name", "bad", "good", "event", "detail", "over"),
    [
        (
            "temp",
            "85001",
            "79999",
            event_catalogue.TEMPERATURE_HIGH,
            "85 C",
            event_catalogue.TEMPERATURE_NORMAL,
        ),
        (
            "volts",
            "2699000",
            "3000000",
            event_catalogue.BATTERY_LOW,
            "2.70 V",
            event_catalogue.BATTERY_NORMAL,
        ),
        ("socket", "1S", "2S", event_catalogue.WRONG_SOCKET, "1S, expected 2S", None),
    ],
)
def test_what_is_wrong_is_told_once_and_its_end_too(
    name: str,
    bad: str,
    good: str,
    event: EndDeviceEventType,
    detail: str,
    over: EndDeviceEventType | None,
) -> None:
    files = Files(temp="40000", volts="3000000", socket="2S")
    board, notes = board_of(files)
    for number, line in enumerate((good, bad, bad, good)):
        files.lines[f"/{name}"] = line
        board.handle_timer(now=number * LOOK_INTERVAL_S)
    assert notes.told[0] == (event, detail)
    assert [told for told, _ in notes.told[1:]] == ([] if over is None else [over])


@pytest.mark.parametrize(
    ("line", "counter"),
    [
        (None, "board: temperature not read"),
        ("", "board: temperature is no number"),
        ("warm", "board: temperature is no number"),
        ("200001", "board: temperature out of range"),
        ("-80001", "board: temperature out of range"),
    ],
)
def test_what_is_no_temperature_is_counted_and_the_others_are_read(
    line: str | None, counter: str
) -> None:
    files = Files(volts="2000000", socket="2S")
    if line is not None:
        files.lines["/temp"] = line
    board, notes = board_of(files)
    board.handle_timer(now=0.0)
    assert board.counters == {counter: 1}
    assert [told for told, _ in notes.told] == [event_catalogue.BATTERY_LOW]


@pytest.mark.parametrize(("volts", "is_told"), [("100000001", False), ("-1", False), ("0", True)])
def test_what_is_no_voltage_is_counted(volts: str, *, is_told: bool) -> None:
    board, notes = board_of(Files(volts=volts), BoardSettings(battery="/volts"))
    board.handle_timer(now=0.0)
    assert bool(notes.told) is is_told
    assert board.counters["board: battery out of range"] == (not is_told)


def test_a_line_of_a_kernels_file_is_read_to_its_end_or_bound(tmp_path: Path) -> None:
    file = tmp_path / "line"
    file.write_bytes(b"48312\nmore\n")
    assert read_line(file) == "48312"
    file.write_bytes(b"2S\0")
    assert read_line(file) == "2S"
    file.write_bytes(b"9" * 1000)
    assert len(read_line(file)) == LINE_SIZE_MAX
    with pytest.raises(OSError, match="absent"):
        read_line(tmp_path / "absent")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"temperature": "temp"}, "absolute"),
        ({"battery": "../volts"}, "absolute"),
        ({"socket": "/socket"}, "go together"),
        ({"form": "2S"}, "go together"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        BoardSettings(**settings)
