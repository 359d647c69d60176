"""The observations of RFC 7641, replayed: our endpoint plays the client, then the server.

Spec    RFC 7641 figures 3 and 4 of appendix A; the order of notifications (section 3.4)
Limit   a server chooses its Observe values by itself: each must be newer than the one before by the
        rule of section 3.4, and is then taken for the figure's
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, TypedDict, cast

from amistack.coap.codes import Type, is_success
from amistack.coap.endpoint import Event, ExchangeId, ObservationStale
from amistack.coap.message import Message
from amistack.coap.observe import is_newer, observe_of, with_observe
from interop.conformance.exchanges import (
    DRAIN_COUNT_MAX,
    Arrow,
    Figure,
    Replay,
    Role,
    published,
    sender_of,
)
from interop.conformance.suite import Case, VectorSuite
from interop.vectors import load

PEER: Final = "peer"
SILENCE_S: Final = 7.0
"""Seconds between notifications: the least in the figures. An unconfirmed one keeps 3 s."""


class Freshness(TypedDict):
    """Whether a notification with value v2, so many seconds after one with v1, is newer."""

    v1: int
    v2: int
    seconds: float
    is_newer: bool


class Vectors(TypedDict):
    """The file `observe`."""

    figures: Sequence[Figure]
    freshness: Sequence[Freshness]


class Observation(Replay):
    """Our endpoint in one role of a figure with notifications."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.observation: ExchangeId | None = None
        self.latest: int | None = None
        self.is_stale = False

    def interlude(self, arrow: Arrow) -> None:
        """Max-Age passes: our client finds out, and gives the observation up."""
        if sender_of(arrow) != self.role:
            return
        for _ in range(DRAIN_COUNT_MAX):
            due = self.endpoint.next_timer()
            if due is None or self.is_stale:
                break
            self.now = max(self.now, due)
            self.endpoint.handle_timer(now=self.now)
            self.settle()
        if not self.is_stale:
            self.transcript.append("and besides: the client never noticed")
        if self.request is not None:
            self.endpoint.cancel(self.request, now=self.now)

    def drain(self) -> None:
        """An open observation has timers that are for ever; there is no end to wait for."""

    def on_event(self, event: Event) -> None:
        """That what is observed is stale, is what the figure waits for."""
        if isinstance(event, ObservationStale):
            self.is_stale = True
        else:
            super().on_event(event)

    def bring_about(self, published: Message) -> None:
        """As in any figure; a success of ours opens an observation, and further ones notify."""
        if not is_success(published.code):
            super().bring_about(published)
        elif self.exchange is not None:
            self.observation, self.exchange = self.exchange, None
            self.endpoint.respond(self.observation, published, opens_observation=True, now=self.now)
            self.latest = None
        elif self.observation is not None:
            self.advance(SILENCE_S)
            self.endpoint.notify(
                self.observation,
                published,
                is_confirmable=published.type is Type.CON,
                now=self.now,
            )
        self.settle()

    def to_published(self, ours: Message, published: Message) -> Message:
        """With the figure's Observe value, if ours is newer than our last one."""
        message = super().to_published(ours, published)
        value, wanted = observe_of(message), observe_of(published)
        if value is None or not is_success(message.code):
            return message
        latest, self.latest = self.latest, value
        if latest is not None and not is_newer(value, self.now, latest, self.now):
            return message
        return with_observe(message, wanted)


def cases() -> list[Case]:
    """Every figure in both roles; then the rule at its borders."""
    vectors = cast("Vectors", load("observe"))
    roles: tuple[Role, Role] = ("client", "server")
    return [
        *(
            Case(
                f"{figure['where']}, {figure['title']}: our {role}",
                published(figure, role),
                functools.partial(_play, figure, role),
            )
            for figure in vectors["figures"]
            for role in roles
        ),
        *(
            Case(
                f"RFC 7641 section 3.4, {one['v2']} comes {one['seconds']} s after {one['v1']}",
                one["is_newer"],
                functools.partial(is_newer, one["v2"], one["seconds"], one["v1"], 0.0),
            )
            for one in vectors["freshness"]
        ),
    ]


def _play(figure: Figure, role: Role) -> list[str]:
    return Observation(role).play(figure["arrows"])


SUITE: Final = VectorSuite(
    "observe",
    "Observe: registrations and notifications, with our endpoint as client and as server; order",
    "RFC 7641",
    cases,
)
