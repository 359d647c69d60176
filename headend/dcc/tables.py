"""The head-end's copy of one collector's DAO table: which rows stand in it.

Spec    docs/protocol/backhaul.md (a stream of the whole table, with news between its rows)
Gives   whose row went: those it names, and after a whole table those that were not in it
Limit   AREA_NODES_MAX rows: a target is a node of the area
"""

from __future__ import annotations

from mesh.backhaul import RouteGone, RouteRow, TableBegin, TableEnd


class Table:
    """Targets by short address, with the path sequence of their row."""

    def __init__(self) -> None:
        self.is_whole = False
        """Whether a whole table came on this connection."""
        self._rows: dict[int, int] = {}
        self._before: dict[int, int] | None = None
        self._stream: int | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_streaming(self) -> bool:
        """Whether the whole table is on its way, so that a row need not be news."""
        return self._before is not None

    def begin(self, message: TableBegin) -> None:
        """All rows follow. What an earlier stream brought and this one does not is gone then."""
        self._before = {**(self._before or {}), **self._rows}
        self._rows = {}
        self._stream = message.stream

    def take(self, row: RouteRow) -> None:
        """One row, as part of the whole or as news."""
        self._rows[row.target] = row.path_sequence

    def drop(self, message: RouteGone) -> None:
        """A row is gone: of that path sequence, or of whatever was there."""
        self._rows.pop(message.target, None)
        if self._before is not None:
            self._before.pop(message.target, None)

    def end(self, message: TableEnd) -> list[int] | None:
        """The targets that are gone, now that all rows came; None for the end of another stream."""
        if self._before is None or message.stream != self._stream:
            return None
        gone = [target for target in self._before if target not in self._rows]
        self._before = self._stream = None
        self.is_whole = True
        return gone
