"""The switch as a part of the meter: POST /switch is a command, GET /switch how it is.

Raises  ModelError on a payload that is no command; StoreError when it cannot be kept
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model.control import ControlCommand
from amistack.model.resources import SWITCH
from meterd.parts import Resource, granted, unfit
from meterd.switch.switch import Switch


class SwitchResource:
    """What the head-end may ask of a switch."""

    path: Final = SWITCH
    kind: Final = "amistack.switch"

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to a request; a command that is refused is answered, too."""
        wrong = unfit(message, Code.GET, Code.POST)
        if wrong is not None:
            return wrong
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._switch.state(now=now).encode())
        command = ControlCommand.decode(message.payload)
        return granted(Code.CHANGED, self._switch.command(command, now=now).encode())


class SwitchPart:
    """A switch in a meter."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._resources = (SwitchResource(switch),)

    def resources(self) -> Sequence[Resource]:
        """The one path."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Act on what is due."""
        self._switch.handle_timer(now=now)

    def next_timer(self) -> float | None:
        """When to look again."""
        return self._switch.next_timer()
