"""A source behind a simulated service: only what flows through the meter is measured.

Gives   a `Source`: the energy of another one, none of it while the contact is open, half of it
        while half goes around the meter
Never   rounds up: of a part of an interval what the source says of that part, so an interval and
        its parts add up
"""

from __future__ import annotations

from typing import Final

from meterd.metrology import Energy, Flow, Source
from meterd.service.history import History, Path


class ServiceSource:
    """What of `source` passes the meter."""

    def __init__(self, source: Source, history: History) -> None:
        self.interval_s: Final = source.interval_s
        self.flows: Final[tuple[Flow, ...]] = source.flows
        self._source = source
        self._history = history

    def energy(self, start: int, count: int) -> list[Energy]:
        """Wh in each of `count` intervals from `start` on that passed the meter."""
        whole = self._source.energy(start, count)
        end = start + count * self.interval_s
        if self._is_metered(start, count):
            return whole
        begins = range(start, end, self.interval_s)
        return [
            known if self._is_metered(begin) else self._passed(begin, begin + self.interval_s)
            for begin, known in zip(begins, whole, strict=True)
        ]

    def partial(self, start: int, now: float) -> Energy:
        """Wh from `start` until `now` that passed the meter, within one interval."""
        return self._passed(start, min(max(now, start), start + self.interval_s))

    def available(self) -> tuple[int | None, int | None]:
        """As the source."""
        return self._source.available()

    def power_w(self, start: int) -> int | None:
        """The mean power (W) that the customer draws in the interval at `start`, not switched.

        Below 0 where more is fed back than drawn.
        """
        total = 0
        for flow, wh in zip(self.flows, self._source.energy(start, 1)[0], strict=True):
            if wh is None:
                return None
            total += wh if flow is Flow.DELIVERED else -wh
        return total * 3_600 // self.interval_s

    def _is_metered(self, start: int, count: int = 1) -> bool:
        """Whether all that flowed in those intervals passed the meter."""
        end = start + count * self.interval_s
        return all(path is Path.METERED for _, _, path in self._history.stretches(start, end))

    def _passed(self, start: int, until: float) -> Energy:
        """What passed from the start of an interval until a moment in it."""
        total: list[int | None] = [0] * len(self.flows)
        # Asked in any case: the source itself refuses what is off its grid.
        known = self._source.partial(start, until)
        for begin, end, path in self._history.stretches(start, until):
            before = self._source.partial(start, begin)
            after = known if end == until else self._source.partial(start, end)
            for place, (first, last) in enumerate(zip(before, after, strict=True)):
                so_far = total[place]
                if path in (Path.NONE, Path.AROUND) or so_far is None:
                    continue
                if first is None or last is None:
                    total[place] = None
                else:
                    total[place] = so_far + (last - first) // (2 if path is Path.SHARED else 1)
        return tuple(total)
