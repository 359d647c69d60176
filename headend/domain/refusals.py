"""Wishes that the head-end does not grant, whichever door they come by. One line for a person."""

from __future__ import annotations

from typing import Final

from amistack.errors import AmiError
from amistack.identifiers import Eui64, format_eui64
from headend.domain.meters import MeterState
from headend.domain.standing import Step

NAMED_MAX: Final = 5
"""Meters or lines that one message names; the rest are counted."""


class Refusal(AmiError):
    """Base of them all."""


class UnknownMeter(Refusal):
    """No such meter is enrolled."""

    def __init__(self, meter: Eui64) -> None:
        super().__init__(f"meter {format_eui64(meter)} is not enrolled")
        self.meter = meter


class UnknownRead(Refusal):
    """No such on-demand read was ever asked for."""


class NoMesh(Refusal):
    """This head-end has no mesh."""


class NotThere(Refusal):
    """It goes by a collector that is not connected, or a way that is not known."""


class UnknownNode(Refusal):
    """The mesh has no such node, area or collector."""


class NotHad(Refusal):
    """A meter did not give what it was asked for, or not all of it; nothing was taken."""


class TooMany(Refusal):
    """As many wait already as may wait; later there is room again."""


class Stopping(Refusal):
    """The head-end is stopping and begins nothing new."""


class BadWish(Refusal):
    """What is asked for cannot be: a range that is too long, a number out of bounds."""


class BadEnrolment(Refusal):
    """What is to be enrolled is wrong somewhere, so nothing was; `problems` names every place."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(f"nothing was enrolled: {listed(problems)}")
        self.problems = problems


class BadShipment(Refusal):
    """Something in a shipment file is wrong, so nothing was taken; `problems` names every place."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(f"nothing was imported: {listed(problems)}")
        self.problems = problems


class StepRefused(Refusal):
    """For these meters there is no such step, so nothing was changed; None: not in the registry."""

    def __init__(
        self, step: Step | None, meters: tuple[tuple[Eui64, MeterState | None], ...]
    ) -> None:
        names = listed([f"{format_eui64(m)} ({standing(state)})" for m, state in meters])
        what = "it can" if step is None else f"{step.word} can"
        super().__init__(f"nothing was changed: {what}not be done with {names}")
        self.meters = meters


class RotationRefused(Refusal):
    """The head-end's keys cannot be changed so now; the message says why and what to do."""


class EnrolmentRefused(Refusal):
    """These meters are known with another key, so nothing was enrolled."""

    def __init__(self, meters: tuple[Eui64, ...]) -> None:
        names = listed([format_eui64(meter) for meter in meters], between=", ")
        super().__init__(f"nothing was enrolled: known with another public key: {names}")
        self.meters = meters


def standing(state: MeterState | None) -> str:
    """Where a meter stands, in words."""
    return "not in the registry" if state is None else state.word


def listed(items: list[str] | tuple[str, ...], *, between: str = "; ") -> str:
    """The first NAMED_MAX of `items` in one line, and how many more there are."""
    more = len(items) - NAMED_MAX
    return between.join(items[:NAMED_MAX]) + (f"{between}and {more} more" if more > 0 else "")
