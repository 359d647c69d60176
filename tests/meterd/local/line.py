"""A serial line of a given rate between two stations, on a virtual clock.

Each octet takes ten bits (8N1). What is on the line when it is cut is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BITS_PER_OCTET = 10
CHUNK = 128
STEP_COUNT_MAX = 2_000_000


class Line:
    """Two machines and what is between them; `make` gives each of them anew."""

    def __init__(self, near: Any, far: Any, *, baud_rate: int) -> None:
        self.now = 0.0
        self.ends = [near, far]
        self.octets = [0, 0]
        self.events: list[list[Any]] = [[], []]
        self.noise: Callable[[bytes], bytes] = lambda data: data
        self._rate = baud_rate / BITS_PER_OCTET
        self._arrivals: list[tuple[float, bytes] | None] = [None, None]

    def run(self, until: Callable[[], object], *, limit_s: float) -> bool:
        """Let time pass until the condition holds; False if it does not within `limit_s`."""
        end = self.now + limit_s
        for _ in range(STEP_COUNT_MAX):
            self._settle()
            if until():
                return True
            times = [arrival[0] for arrival in self._arrivals if arrival is not None]
            times += [due for one in self.ends if (due := one.next_timer()) is not None]
            if not times or min(times) > end:
                self.now = end
                self._settle()
                return bool(until())
            self.now = max(self.now, min(times))
            for place, arrival in enumerate(self._arrivals):
                if arrival is not None and arrival[0] <= self.now:
                    self._arrivals[place] = None
                    self.ends[1 - place].receive_data(self.noise(arrival[1]), now=self.now)
            for one in self.ends:
                due = one.next_timer()
                if due is not None and due <= self.now:
                    one.handle_timer(now=self.now)
        raise AssertionError("no rest")

    def _settle(self) -> None:
        for place, one in enumerate(self.ends):
            self.events[place] += one.events()
            if self._arrivals[place] is None:
                data = b"".join(one.data_to_send(CHUNK))
                if data:
                    self.octets[place] += len(data)
                    self._arrivals[place] = self.now + len(data) / self._rate, data
