"""One node's `Dodag` with a clock, and neighbours that say and answer what a test wants."""

from __future__ import annotations

import random

from amistack.identifiers import Eui64
from mesh.routing.dodag import Act, Dodag
from mesh.routing.messages import Dio
from mesh.routing.profile import load_profile
from tests.mesh.routing.medium import DODAG_ID, eui

PROFILE = load_profile("rfc8036")
UNIT = PROFILE.dodag.hop_rank_increase_min
P, X, C, Y = (eui(short) for short in (10, 11, 12, 13))
NEAR, FAR = 2 * UNIT, 9 * UNIT


class Place:
    """A Dodag, with a clock and what it asked for."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 0.0
        self.dodag = Dodag(PROFILE, random.Random(seed))
        self.dodag.start(now=0.0)

    def hear(self, who: Eui64, rank: int, version: int = 240) -> None:
        self.dodag.hear_dio(
            who,
            int.from_bytes(who[6:], "big"),
            Dio(0, version, rank, 0, DODAG_ID, PROFILE.configuration),
            now=self.now,
            is_for_us=False,
            rssi_dbm=None,
        )

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.dodag.deadline <= end:
            self.now = max(self.now, self.dodag.deadline)
            self.dodag.handle_timer(now=self.now)
        self.now = end

    def asked(self) -> list[tuple[Act, Eui64 | None]]:
        actions = list(self.dodag.actions)
        self.dodag.actions.clear()
        return actions

    def answer(self, who: Eui64, act: Act | None, *, is_acknowledged: bool = True) -> None:
        self.dodag.note_attempts(
            who,
            1 if is_acknowledged else 5,
            act,
            is_acknowledged=is_acknowledged,
            now=self.now,
        )

    def join(self, who: Eui64, rank: int) -> None:
        self.hear(who, rank)
        self.wait(2.0)
        assert (Act.REGISTER, who) in self.asked()
        assert self.parent() is None
        self.answer(who, Act.REGISTER)
        assert self.parent() == who

    def parent(self) -> Eui64 | None:
        row = self.dodag.preferred
        return None if row is None else row.eui

    def fail(self, who: Eui64, seconds: float = 24.0) -> None:
        for _ in range(8):
            self.answer(who, Act.PROBE, is_acknowledged=False)
            self.wait(seconds / 8)


def joined(seed: int = 1) -> Place:
    """A node whose parent P has the rank NEAR."""
    place = Place(seed)
    place.join(P, NEAR)
    place.asked()
    return place
