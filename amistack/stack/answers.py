"""Protected answers to peers: under the request's nonce or a number of our own; their observers.

Spec    RFC 8613 sections 8.3 and 8.4; RFC 7641 as far as OSCORE has it
Gives   ObservationEnded
Raises  LocalProtocolError and TableFull
Limit   the endpoint's
Never   answers under a request's nonce unless told that the request's Partial IV is durable
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code, is_success
from amistack.coap.endpoint import Endpoint, ExchangeId
from amistack.coap.endpoint import ObservationEnded as ExchangeObservationEnded
from amistack.coap.message import Message
from amistack.coap.observe import with_observe
from amistack.errors import LocalProtocolError, TableFull
from amistack.session.oscore import (
    SEALED_CODE,
    RequestBinding,
    SecurityContext,
    protect_response,
    seal_answer,
)
from amistack.stack.events import Event, ObservationEnded
from amistack.stack.numbers import Held, Numbers
from amistack.stack.requests import SESSION_ENDED

NO_ROOM: Final = "too many observers"


@dataclass(slots=True)
class _Answerable:
    """A peer's request that waits for its answer, or whose observation is open."""

    context: SecurityContext
    binding: RequestBinding
    is_observed: bool = False


class Answers:
    """All requests of peers that are authentic, and their observations."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        numbers: Numbers,
        events: list[Event],
        refused: Counter[str],
        is_in_use: Callable[[SecurityContext], bool],
    ) -> None:
        self._endpoint = endpoint
        self._numbers = numbers
        self._events = events
        self._refused = refused
        self._is_in_use = is_in_use
        self._exchanges: dict[ExchangeId, _Answerable] = {}

    # Commands from above.

    def admit(
        self, exchange: ExchangeId, context: SecurityContext, binding: RequestBinding
    ) -> None:
        """That exchange brought an authentic request, which `respond` is to answer."""
        self._exchanges[exchange] = _Answerable(context, binding)

    def respond(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_durable: bool,
        opens_observation: bool = False,
        now: float,
    ) -> bool:
        """See `Stack.respond`."""
        entry = self._exchanges.get(exchange)
        if entry is None or entry.is_observed:
            raise LocalProtocolError(f"exchange {exchange} is unknown or answered already")
        context, binding = entry.context, entry.binding
        opens = (
            opens_observation
            and binding.is_registration
            and is_success(message.code)
            and self._endpoint.may_observe(exchange)
        )
        # A message that was too large may have used up the request's nonce.
        own_partial_iv = opens or not (is_durable and binding.nonce_is_free)

        def send(now: float) -> None:
            # While it was held the program may have lost interest, or others taken the room.
            is_wanted = opens and self._exchanges.get(exchange) is entry
            is_opening = is_wanted and self._endpoint.may_observe(exchange)
            told = with_observe(message, 0) if is_opening else message
            protected = protect_response(context, told, binding, own_partial_iv=own_partial_iv)
            self._endpoint.respond(exchange, protected, opens_observation=is_opening, now=now)
            if is_wanted and not is_opening:
                del self._exchanges[exchange]
                self._events.append(ObservationEnded(exchange, context.owner, NO_ROOM))

        if own_partial_iv:
            entry.is_observed = opens
            try:
                self._numbers.send(context, Held(send, exchange=exchange), now=now)
            except (LocalProtocolError, TableFull):
                entry.is_observed = False
                raise
        elif (sealed := seal_answer(message, binding)) is not None:
            self._endpoint.respond_with(exchange, SEALED_CODE, sealed, now=now)
        else:
            send(now)
        if not opens:
            self._exchanges.pop(exchange, None)
        return opens

    def answer_at_once(self, exchange: ExchangeId, answer: Message, *, now: float) -> None:
        """Answer in place of the program, under a number of our own."""
        try:
            self.respond(exchange, answer, is_durable=False, now=now)
        except (LocalProtocolError, TableFull):
            self._exchanges.pop(exchange, None)
            self._drop_answer(exchange, now)

    def notify(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_confirmable: bool | None = None,
        is_last: bool = False,
        now: float,
    ) -> None:
        """See `Stack.notify`."""
        entry = self._exchanges.get(exchange)
        if entry is None or not entry.is_observed:
            raise LocalProtocolError(f"nothing is observed by exchange {exchange}")
        if not self._is_in_use(entry.context):
            self.end_observation(exchange, now=now)
            raise LocalProtocolError(f"session of exchange {exchange} ended")
        ends = is_last or not is_success(message.code)

        def send(now: float) -> None:
            if self._exchanges.get(exchange) is not entry:
                return  # It ended while this was held.
            told = message if ends else with_observe(message, 0)
            protected = protect_response(entry.context, told, entry.binding, own_partial_iv=True)
            self._endpoint.notify(
                exchange, protected, is_confirmable=is_confirmable, is_last=ends, now=now
            )
            if ends:
                del self._exchanges[exchange]

        self._numbers.send(entry.context, Held(send), now=now)

    def end_observation(self, exchange: ExchangeId, *, now: float) -> None:
        """See `Stack.end_observation`."""
        entry = self._exchanges.get(exchange)
        if entry is not None and entry.is_observed:
            del self._exchanges[exchange]
            self._endpoint.end_observation(exchange, now=now)

    def end_observations(self, context: SecurityContext, *, now: float) -> None:
        """Nobody observes in that session any more."""
        if not self._endpoint.has_observers:
            return
        for exchange, entry in tuple(self._exchanges.items()):
            if entry.is_observed and entry.context is context:
                self.end_observation(exchange, now=now)
                self._events.append(ObservationEnded(exchange, context.owner, SESSION_ENDED))

    def drop(self, exchange: ExchangeId, reason: str, *, now: float) -> None:
        """Give up an answer that waits for numbers."""
        entry = self._exchanges.pop(exchange, None)
        self._drop_answer(exchange, now)
        if entry is not None and entry.is_observed:
            self._events.append(ObservationEnded(exchange, entry.context.owner, reason))

    # Inputs from below.

    def receive_end(self, event: ExchangeObservationEnded) -> None:
        """The endpoint says that an observation is over."""
        entry = self._exchanges.pop(event.exchange, None)
        if entry is not None:
            self._events.append(
                ObservationEnded(event.exchange, entry.context.owner, event.ending.value)
            )

    # Outputs, for who asks.

    def is_waiting(self, exchange: ExchangeId) -> bool:
        """Whether that exchange still waits for its answer."""
        entry = self._exchanges.get(exchange)
        return entry is not None and not entry.is_observed

    def is_observed(self, exchange: ExchangeId) -> bool:
        """Whether an observation that a peer opened by that exchange is open."""
        entry = self._exchanges.get(exchange)
        return entry is not None and entry.is_observed

    def _drop_answer(self, exchange: ExchangeId, now: float) -> None:
        """Say that there is no answer: protected it cannot be said, and unsaid it would be kept."""
        self._refused["answer dropped for want of numbers"] += 1
        answer = Message.response(Code.SERVICE_UNAVAILABLE, max_age=0)
        self._endpoint.respond(exchange, answer, now=now)
