"""What a switch keeps through a restart: one row, written as a whole.

Raises  StoreError when it cannot be kept; StoreUnusable for a row that no meterd writes
"""

from __future__ import annotations

from dataclasses import dataclass

from amistack.errors import ModelError, StoreUnusable
from amistack.model.control import LoadLimit, Outcome, Position
from amistack.model.wire import dump, load
from meterd.storage import SWITCH, THE_ONE, Storage


@dataclass(frozen=True, slots=True)
class SwitchRow:
    """A switch as it was told to be.

    `since_s` is UTC; `closes` counts what the load limit closed in its window `occurrence`.
    `command` and `answer` are the octets of the newest command and of what was said to it.
    """

    position: Position = Position.CLOSED
    since_s: int = 0
    outcome: Outcome = Outcome.NONE
    closes: int = 0
    occurrence: int = 0
    newest: int = 0
    command: bytes = b""
    answer: bytes = b""
    limit: LoadLimit | None = None


def read_row(storage: Storage) -> SwitchRow:
    """The row that is kept, or that of a switch that was never told anything."""
    row = storage.get(SWITCH, THE_ONE)
    if row is None:
        return SwitchRow()
    position, since_s, outcome, closes, occurrence, newest, command, answer, limit = row
    try:
        return SwitchRow(
            Position(position),
            since_s,
            Outcome(outcome),
            closes,
            occurrence,
            newest,
            command,
            answer,
            LoadLimit.from_tree(load(limit)) if limit else None,
        )
    except (ModelError, ValueError) as error:
        raise StoreUnusable(f"the switch's row is none of ours ({error})") from error


def keep_row(storage: Storage, row: SwitchRow) -> None:
    """Keep the row in place of the one before."""
    storage.put(
        (
            SWITCH,
            THE_ONE,
            [
                int(row.position),
                row.since_s,
                int(row.outcome),
                row.closes,
                row.occurrence,
                row.newest,
                row.command,
                row.answer,
                b"" if row.limit is None else dump(row.limit.to_tree()),
            ],
        )
    )
