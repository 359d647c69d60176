"""The states of both roles, and every legal move between them (RFC 9528 5).

This file is the whole truth: the two machines ask it, and the tests walk it.

    initiator  START -> WAIT_MESSAGE_2 -> MESSAGE_2_READ -> VERIFIED -> COMPLETED -> CONFIRMED
    responder  START -> MESSAGE_1_READ -> WAIT_MESSAGE_3 -> MESSAGE_3_READ -> COMPLETED -> CONFIRMED
    both       from any step that refuses what the peer sent -> FAILED

A handshake is one-shot: nothing leads back. In COMPLETED and CONFIRMED keys can be
exported. A message that has no place in a state is refused and moves nothing, so that a
late copy of one does not undo a handshake; a false message_4, which has, does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.edhoc.faults import Fault


class State(enum.Enum):
    """Where a handshake stands."""

    START = "start"
    WAIT_MESSAGE_2 = "waiting for message_2"
    MESSAGE_2_READ = "message_2 read, credential wanted"
    VERIFIED = "responder verified"
    MESSAGE_1_READ = "message_1 read"
    WAIT_MESSAGE_3 = "waiting for message_3"
    MESSAGE_3_READ = "message_3 read, credential wanted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    FAILED = "failed"


class Trigger(enum.Enum):
    """What can move a machine; `_REQUESTED` is ours, `_RECEIVED` is the peer's."""

    MESSAGE_1_REQUESTED = "message_1 requested"
    MESSAGE_2_REQUESTED = "message_2 requested"
    MESSAGE_3_REQUESTED = "message_3 requested"
    MESSAGE_4_REQUESTED = "message_4 requested"
    AUTHENTICATION_REQUESTED = "authentication requested"
    EXPORT_REQUESTED = "export requested"

    MESSAGE_1_RECEIVED = "message_1 received"
    MESSAGE_2_RECEIVED = "message_2 received"
    MESSAGE_3_RECEIVED = "message_3 received"
    MESSAGE_4_RECEIVED = "message_4 received"

    @property
    def is_remote(self) -> bool:
        """Whether the peer is to blame where it leads nowhere."""
        return self.name.endswith("_RECEIVED")


Transitions = Mapping[State, Mapping[Trigger, State]]

INITIATOR: Final[Transitions] = {
    State.START: {Trigger.MESSAGE_1_REQUESTED: State.WAIT_MESSAGE_2},
    State.WAIT_MESSAGE_2: {Trigger.MESSAGE_2_RECEIVED: State.MESSAGE_2_READ},
    State.MESSAGE_2_READ: {Trigger.AUTHENTICATION_REQUESTED: State.VERIFIED},
    State.VERIFIED: {Trigger.MESSAGE_3_REQUESTED: State.COMPLETED},
    State.COMPLETED: {
        Trigger.EXPORT_REQUESTED: State.COMPLETED,
        Trigger.MESSAGE_4_RECEIVED: State.CONFIRMED,
    },
    State.CONFIRMED: {Trigger.EXPORT_REQUESTED: State.CONFIRMED},
}

RESPONDER: Final[Transitions] = {
    State.START: {Trigger.MESSAGE_1_RECEIVED: State.MESSAGE_1_READ},
    State.MESSAGE_1_READ: {Trigger.MESSAGE_2_REQUESTED: State.WAIT_MESSAGE_3},
    State.WAIT_MESSAGE_3: {Trigger.MESSAGE_3_RECEIVED: State.MESSAGE_3_READ},
    State.MESSAGE_3_READ: {Trigger.AUTHENTICATION_REQUESTED: State.COMPLETED},
    State.COMPLETED: {
        Trigger.EXPORT_REQUESTED: State.COMPLETED,
        Trigger.MESSAGE_4_REQUESTED: State.CONFIRMED,
    },
    State.CONFIRMED: {Trigger.EXPORT_REQUESTED: State.CONFIRMED},
}


def next_state(transitions: Transitions, state: State, trigger: Trigger) -> State:
    """Where `trigger` leads from `state`; an error that names the culprit if nowhere."""
    target = transitions.get(state, {}).get(trigger)
    if target is not None:
        return target
    seen = f"{trigger.value} while {state.value}"
    if trigger.is_remote:
        raise EdhocError(Fault.UNEXPECTED, seen)
    raise LocalProtocolError(seen)


class Lifecycle:
    """Where one machine stands in its table. Nothing else changes a state."""

    __slots__ = ("_transitions", "state")

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        self.state = State.START

    def expect(self, trigger: Trigger) -> None:
        """Raises as `next_state` does, and moves nothing."""
        next_state(self._transitions, self.state, trigger)

    def step(self, trigger: Trigger) -> Step:
        """Does what is inside, then moves; to FAILED if the peer's message is refused.

        A message without a place now, and a mistake of our caller, move nothing.
        """
        return Step(self, next_state(self._transitions, self.state, trigger))

    def fail(self) -> None:
        """End the handshake (RFC 9528 5.1: a party that refuses a message discontinues)."""
        self.state = State.FAILED


class Step:
    """One move of a lifecycle, made when what is inside `with` is done."""

    __slots__ = ("_lifecycle", "_target")

    def __init__(self, lifecycle: Lifecycle, target: State) -> None:
        self._lifecycle = lifecycle
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._lifecycle.state = self._target
        elif isinstance(error, EdhocError):
            self._lifecycle.fail()
