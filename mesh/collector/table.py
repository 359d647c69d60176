"""The collector's table of routes, kept in step in three places: memory, disk and head-end.

In      `changed` for each row that a DAO set, `forget`, `handle_timer`
Out     `news`: rows set and rows gone since it was last asked; `rows` for the stream of all;
        `is_to_keep`, whether the disk must have a row that is news
Limit   that of `RouteTable`
Never   keeps a row of its own: the node's table is the one there is
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mesh.backhaul import RouteGone, RouteRow, Why
from mesh.backhaul.messages import LIFETIME_INFINITE
from mesh.routing.dao import Route, RouteTable
from mesh.routing.messages import sequence_after
from mesh.routing.trickle import NEVER

SWEEP_INTERVAL_S: Final = 60.0
"""How often it is looked for rows whose time is over."""
KEPT_SHARE_MIN: Final = 0.5
"""A row on disk lasts for at least this share of the one in the table."""
KEPT_BEHIND_MAX: Final = 8
"""So many times a node may have told the same before the disk has it: well within the window in
which path sequences can be compared (RFC 6550 section 7.2)."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A row as the disk has it."""

    parents: tuple[int, ...]
    path_sequence: int
    ends_at: float

    def is_near(self, path_sequence: int) -> bool:
        """Whether the node was there since, or has gone a few steps on."""
        reached = self.path_sequence
        for _ in range(KEPT_BEHIND_MAX):
            if reached == path_sequence:
                return True
            reached = sequence_after(reached)
        return reached == path_sequence


class Table:
    """What stands in the node's table, and what others were told of it."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._told: dict[int, int] = {}
        """The path sequence of each row that was made known."""
        self._kept: dict[int, _Kept] = {}
        self._news: list[RouteRow | RouteGone] = []
        self.deadline = NEVER

    def __len__(self) -> int:
        return len(self._routes)

    def restore(self, rows: Iterable[RouteRow], *, now: float) -> None:
        """Begin with rows from disk; one that ended meanwhile is none."""
        for row in rows:
            if row.lifetime > 0 and row.target not in self._routes.refused:
                self._routes.rows[row.target] = Route(
                    row.parents, row.path_sequence, _end_of(row, now)
                )
                self._told[row.target] = row.path_sequence
                self._note_kept(row, now)
        self.deadline = now + SWEEP_INTERVAL_S

    def changed(self, target: int, *, now: float) -> None:
        """A DAO set this row."""
        row = self._row(target, now)
        if row is not None:
            self._told[target] = row.path_sequence
            self._news.append(row)

    def forget(self, target: int, path_sequence: int) -> None:
        """The node told another collector something newer."""
        row = self._routes.rows.get(target)
        if row is not None and self._routes.forget(target, path_sequence=path_sequence):
            self._gone(target, Why.FORGOTTEN)

    def refuse(self, targets: set[int]) -> None:
        """These get no row until another set is refused; those they have are gone."""
        self._routes.refused = targets
        for target in targets & self._routes.rows.keys():
            del self._routes.rows[target]
            self._gone(target, Why.DENIED)

    def handle_timer(self, *, now: float) -> None:
        """Notice rows whose time is over, and those that the node took out of its table."""
        if now < self.deadline:
            return
        self.deadline = now + SWEEP_INTERVAL_S
        rows = self._routes.rows
        for target in [target for target in self._told if target not in rows]:
            self._gone(target, Why.NO_PATH)
        for target in [target for target, row in rows.items() if row.expires_at <= now]:
            del rows[target]
            self._gone(target, Why.EXPIRED)

    def news(self) -> list[RouteRow | RouteGone]:
        """What changed, oldest first. Each is handed over once."""
        news, self._news = self._news, []
        return news

    def is_to_keep(self, row: RouteRow, *, now: float) -> bool:
        """Whether this news is to go to the disk; if so, it is taken to be there from now on.

        A node tells its parents every few hours though nothing has changed: flash has only so many
        writes. What a restart would find must still be true, and last.
        """
        kept = self._kept.get(row.target)
        if kept is not None and kept.parents == row.parents:
            lasts = kept.ends_at - now
            if kept.is_near(row.path_sequence) and lasts >= KEPT_SHARE_MIN * (
                _end_of(row, now) - now
            ):
                return False
        self._note_kept(row, now)
        return True

    def not_kept(self, target: int) -> None:
        """The disk failed to take that row: the next news of it goes there again."""
        self._kept.pop(target, None)

    def rows(self, *, now: float) -> Iterator[RouteRow]:
        """Every row that there is when its turn comes."""
        for target in list(self._routes.rows):
            row = self._row(target, now)
            if row is not None:
                yield row

    def _row(self, target: int, now: float) -> RouteRow | None:
        route = self._routes.rows.get(target)
        if route is None or route.expires_at <= now:
            return None
        lifetime = LIFETIME_INFINITE
        if route.expires_at != NEVER:
            lifetime = max(1, min(int(route.expires_at - now), LIFETIME_INFINITE - 1))
        return RouteRow(target, route.parents, route.path_sequence, lifetime)

    def _note_kept(self, row: RouteRow, now: float) -> None:
        self._kept[row.target] = _Kept(row.parents, row.path_sequence, _end_of(row, now))

    def _gone(self, target: int, why: Why) -> None:
        self._kept.pop(target, None)
        self._news.append(RouteGone(target, self._told.pop(target, 0), why))


def _end_of(row: RouteRow, now: float) -> float:
    return NEVER if row.lifetime == LIFETIME_INFINITE else now + row.lifetime
