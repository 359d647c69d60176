"""How the head-end is, as one value: what every door shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headend.store.interface import Counts


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the head-end runs; `started_at` UTC s."""

    version: str
    started_at: int
    listen: str


@dataclass(frozen=True, slots=True)
class Status:
    """`counts` are of the store; the counters are since the start. `at` UTC s.

    `queues` gives each bounded queue's depth and bound; `refused`, `flagged` and `quarantined`
    how often for each reason.
    """

    about: About
    at: int
    counts: Counts
    queues: Mapping[str, tuple[int, int]]
    counters: Mapping[str, int]
    refused: Mapping[str, int]
    flagged: Mapping[str, int]
    quarantined: Mapping[str, int]


class Counting(Protocol):
    """Whoever counts what passes between the meters and the store."""

    @property
    def counters(self) -> Mapping[str, int]:
        """What went well."""

    @property
    def refused(self) -> Mapping[str, int]:
        """What was refused, by `layer: reason`."""

    @property
    def flagged(self) -> Mapping[str, int]:
        """What was taken though something is odd about it, by reason."""

    @property
    def quarantined(self) -> Mapping[str, int]:
        """What was set aside, by reason."""

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded queue's name, its depth and its bound."""
