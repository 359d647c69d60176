"""What a meter needs to be programmed: the keeper, its registers, and the voice that declares."""

from __future__ import annotations

from collections.abc import Callable

from amistack.model.programme import Programme
from meterd.clock import MeterClock
from meterd.parts import Log, Part
from meterd.programme.fit import Abilities
from meterd.programme.following import follow_schedules
from meterd.programme.keeper import ProgrammeKeeper
from meterd.recorder import Recorder
from meterd.recording.registers import RegistersPart
from meterd.schedules.book import ScheduleBook
from meterd.storage import Storage


def programme_parts(
    storage: Storage,
    recorder: Recorder,
    clock: MeterClock,
    *,
    offset_min: int,
    log: Log,
    on_change: Callable[[Programme, float], None] | None = None,
) -> tuple[Part, ...]:
    """For one meter; `log` and `on_change` as `ProgrammeKeeper` has them.

    Beside them the agent needs the voice `Declaring`.
    """
    abilities = Abilities.of(recorder.metering, offset_min=offset_min)
    book = ScheduleBook(storage, recorder, clock, log)

    def follow(programme: Programme, now: float) -> None:
        follow_schedules(book, programme, now=now)
        if on_change is not None:
            on_change(programme, now)

    return (
        ProgrammeKeeper(storage, recorder, clock, abilities=abilities, log=log, on_change=follow),
        RegistersPart(storage, recorder, clock, log=log),
    )
