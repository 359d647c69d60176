"""What the head-end asks of a meter: each path by its resource.

Gives   the answer to an authentic request, made durable by the resource; links for
        `/.well-known/core`
Raises  StoreError when a resource cannot keep what it would promise
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from amistack.coap.codes import Code
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.errors import CoapError, ModelError
from meterd.parts import Resource, link_of, refused


class Answering:
    """The table of one meter's resources."""

    def __init__(self, resources: Iterable[Resource], counters: Counter[str]) -> None:
        self._resources: dict[str, Resource] = {}
        for one in resources:
            assert one.path not in self._resources, f"two resources at {one.path}"
            self._resources[one.path] = one
        self._counters = counters

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All of the table."""
        return tuple(self._resources.values())

    @property
    def links(self) -> tuple[Link, ...]:
        """What there is to ask for."""
        return tuple(link_of(one) for one in self._resources.values())

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to an authentic request. Raises StoreError."""
        name = "?"
        try:
            resource = self._resources.get(message.path)
            if resource is None:
                return Message.response(Code.NOT_FOUND)
            name = resource.path
            return resource.answer(message, now=now)
        except (CoapError, ModelError) as error:
            self._counters[f"{name} refused: {error.reason}"] += 1
            return refused(Code.BAD_REQUEST, error.reason)
