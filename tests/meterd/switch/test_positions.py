"""The moves of a switch, all of them.

The contract under test: every pair of a position and a trigger leads where the drawing says, or
nowhere; no position is a trap, and nothing but a command, a press or a rest closes.
"""

from __future__ import annotations

import pytest

from amistack.model.control import Action, Position
from meterd.switch.positions import COMMANDED, TRANSITIONS, Trigger, next_position

LEGAL = {
    (Position.CLOSED, Trigger.DISCONNECT): Position.OPEN,
    (Position.CLOSED, Trigger.CONNECT): Position.CLOSED,
    (Position.CLOSED, Trigger.EXCEEDED): Position.LIMITED,
    (Position.CLOSED, Trigger.EXHAUSTED): Position.ARMED,
    (Position.CLOSED, Trigger.HINDERED): Position.ARMED,
    (Position.OPEN, Trigger.DISCONNECT): Position.OPEN,
    (Position.OPEN, Trigger.CONNECT): Position.CLOSED,
    (Position.OPEN, Trigger.ARM): Position.ARMED,
    (Position.ARMED, Trigger.DISCONNECT): Position.OPEN,
    (Position.ARMED, Trigger.CONNECT): Position.CLOSED,
    (Position.ARMED, Trigger.ARM): Position.ARMED,
    (Position.ARMED, Trigger.PRESSED): Position.CLOSED,
    (Position.LIMITED, Trigger.DISCONNECT): Position.OPEN,
    (Position.LIMITED, Trigger.CONNECT): Position.CLOSED,
    (Position.LIMITED, Trigger.ARM): Position.ARMED,
    (Position.LIMITED, Trigger.RESTED): Position.CLOSED,
    (Position.LIMITED, Trigger.HINDERED): Position.ARMED,
}


@pytest.mark.parametrize("position", Position)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_move_is_as_drawn(position: Position, trigger: Trigger) -> None:
    assert next_position(position, trigger) is LEGAL.get((position, trigger))


def test_no_position_is_a_trap() -> None:
    assert set(TRANSITIONS) == set(Position)
    for position in Position:
        assert next_position(position, Trigger.CONNECT) is Position.CLOSED
        assert next_position(position, Trigger.DISCONNECT) is Position.OPEN


def test_nothing_but_a_command_a_press_or_a_rest_closes_what_is_open() -> None:
    closing = {
        trigger
        for position, moves in TRANSITIONS.items()
        for trigger, target in moves.items()
        if target is Position.CLOSED and position is not Position.CLOSED
    }
    assert closing == {Trigger.CONNECT, Trigger.PRESSED, Trigger.RESTED}


def test_commands_of_the_load_limit_move_nothing() -> None:
    assert set(Action) - set(COMMANDED) == {Action.LIMIT, Action.UNLIMIT}
