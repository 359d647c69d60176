"""All that the meter holds, over the network: FETCH /dump, as at the local port.

The head-end alone can ask: its session is the only one. Each download is on record.

Limit   one dump at a time, forgotten DUMP_S seconds after its last page was asked for
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from amistack.model.dump import DumpPart
from meterd.local.dumping import DUMPED, DumpResource
from meterd.parts import Log, Resource

WHO: Final = "head-end"


class Download:
    """A part of the meter."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._take: Callable[[float], Iterable[DumpPart]] = lambda _: ()
        self._resource: Final = DumpResource(self._parts, on_dump=self._note)

    def serve(self, take: Callable[[float], Iterable[DumpPart]]) -> None:
        """`take` gives the parts of a dump at a monotonic time."""
        self._take = take

    def resources(self) -> Sequence[Resource]:
        """The one path."""
        return (self._resource,)

    def handle_timer(self, *, now: float) -> None:
        """Give the memory of a dump back that nobody asks for any more."""
        until = self._resource.kept_until
        if until is not None and until <= now:
            self._resource.forget()

    def next_timer(self) -> float | None:
        """When that is."""
        return self._resource.kept_until

    def _parts(self, now: float) -> Iterable[DumpPart]:
        return self._take(now)

    def _note(self, now: float) -> None:
        self._log(DUMPED, WHO, now=now)
