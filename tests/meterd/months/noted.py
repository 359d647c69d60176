"""A whole meter that is watched: each entry of its log as it is written, each move of its clock."""

from __future__ import annotations

from dataclasses import dataclass

from meterd.clock import MeterClock
from meterd.storage import Storage
from tests.meterd.months.bench import WholeBench
from tests.meterd.months.model import Facts


@dataclass
class Written:
    """An entry of the log as it was written: when, by the world, under which number."""

    at: float
    sequence: int
    utc: int
    event: str
    detail: str | None


class NotedBench(WholeBench):
    """A bench whose meter is watched: each entry as it is written, each move of its clock."""

    def __init__(self, facts: Facts, written: list[Written], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.facts = facts
        self.written = written

    def open_storage(self) -> Storage:
        storage = super().open_storage()
        keep = storage.keep_entry

        def keep_noted(*arguments: object, **more: object) -> object:
            entry = keep(*arguments, **more)  # type: ignore[arg-type]
            now = self.world.now
            self.written.append(
                Written(now, entry.sequence, entry.at, str(entry.event), entry.detail)
            )
            return entry

        storage.keep_entry = keep_noted  # type: ignore[method-assign,assignment]
        self.facts.lives[-1].lost_octets = storage.lost_octets
        return storage

    def make_clock(self, utc: float) -> MeterClock:
        clock = super().make_clock(utc)
        move = clock.move

        def move_noted(by_s: float, *, now: float) -> object:
            change = move(by_s, now=now)
            self.facts.moves.append((now, change.old, change.new))
            self.note_clock(clock)
            return change

        clock.move = move_noted  # type: ignore[method-assign,assignment]
        self.facts.lives[-1].is_clock_lost = not clock.is_set
        self.note_clock(clock)
        return clock

    def note_clock(self, clock: MeterClock) -> None:
        now = self.world.now
        error = clock.utc(now) - self.utc(now) if clock.is_set else None
        self.facts.clock.append((now, error))
