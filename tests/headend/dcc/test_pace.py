"""How often one node is listened to: a burst, then one report in each interval, never more."""

from __future__ import annotations

from headend.dcc.pace import BURST, INTERVAL_S, Pace
from tests.mesh.topology.worlds import eui

DAY = 86_400.0


def admitted(pace: Pace, count: int, now: float) -> int:
    return sum(pace.admit(eui(1), now=now) for _ in range(count))


def test_a_burst_is_taken_and_then_one_in_each_interval() -> None:
    pace = Pace()
    assert admitted(pace, 50, 0.0) == BURST
    assert admitted(pace, 50, INTERVAL_S - 1.0) == 0
    assert admitted(pace, 50, INTERVAL_S) == 1
    assert admitted(pace, 50, 3 * INTERVAL_S) == 2
    assert pace.admit(eui(2), now=3 * INTERVAL_S)


def test_silence_saves_nothing_up() -> None:
    pace = Pace()
    assert admitted(pace, 1, 0.0) == 1
    assert admitted(pace, 50, DAY) == BURST


def test_who_is_forgotten_begins_anew() -> None:
    pace = Pace()
    admitted(pace, 50, 0.0)
    pace.forget(eui(1))
    assert admitted(pace, 50, 0.0) == BURST
