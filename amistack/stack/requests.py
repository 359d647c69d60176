"""Protected requests of ours: sent when there is a number for them, answered, observed, given up.

Spec    RFC 8613 sections 8.1 and 8.4; RFC 7641 as far as OSCORE has it; RFC 9668; RFC 9175 2.3
Gives   SecureResponse, RequestFailed, ObservationStale
Raises  LocalProtocolError and TableFull on commands; nothing on what a peer answers
Limit   the endpoint's
Never   takes an unprotected answer for more than a hint; sends one protected message twice
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from amistack.coap.blockwise import BLOCK_OPTIONS
from amistack.coap.codes import Code
from amistack.coap.endpoint import Endpoint, ResponseReceived
from amistack.coap.endpoint import RequestId as ExchangeRequestId
from amistack.coap.message import Message, in_order
from amistack.coap.observe import DEREGISTER, MAX_AGE_DEFAULT, observe_of, with_observe
from amistack.coap.options import UNDERSTOOD, Option, OptionNumber, check_options
from amistack.errors import CoapError, LocalProtocolError, OscoreError, TableFull
from amistack.machine import Peer
from amistack.session.oscore import (
    DECRYPTION_FAILED,
    RequestBinding,
    SecurityContext,
    protect_request,
    unprotect_response,
)
from amistack.stack.approaches import Approaches, Approaching
from amistack.stack.events import (
    Event,
    ObservationStale,
    RequestFailed,
    RequestId,
    SecureResponse,
)
from amistack.stack.numbers import Held, Numbers

HINT_SIZE_MAX: Final = 64
SESSION_ENDED: Final = "session ended"
UNDERSTOOD_INSIDE: Final = UNDERSTOOD | BLOCK_OPTIONS


@dataclass(slots=True)
class _Asked:
    """A protected request of ours that waits for its response, or observes.

    While it asks once more in an observation, answers to the registration before may still come:
    `earlier` is what these are bound to.
    """

    request: RequestId
    identity: bytes
    context: SecurityContext
    binding: RequestBinding
    message: Message
    peer: Peer
    response_wait: float | None
    earlier: RequestBinding | None = None
    approaching: Approaching | None = None
    """The handshake whose message_3 went along."""
    is_told: bool = False
    """Something authentic came: it observes."""


class Requests:
    """All requests of ours in all sessions."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        numbers: Numbers,
        approaches: Approaches,
        events: list[Event],
        refused: Counter[str],
        count_failure: Callable[[SecurityContext], None],
        hop_count_of: Callable[[Peer], int | None],
    ) -> None:
        """`count_failure` is told of every answer that was forged; it may end the session.

        `hop_count_of`: see `Stack`.
        """
        self._endpoint = endpoint
        self._numbers = numbers
        self._approaches = approaches
        self._events = events
        self._refused = refused
        self._count_failure = count_failure
        self._hop_count_of = hop_count_of
        self._asked: dict[ExchangeRequestId, _Asked] = {}
        self._under_way: dict[RequestId, ExchangeRequestId | None] = {}
        self._next_id = 0

    # Commands from above.

    def request(
        self,
        identity: bytes,
        context: SecurityContext,
        message: Message,
        peer: Peer,
        response_wait: float | None,
        *,
        now: float,
    ) -> RequestId:
        """See `Stack.request`."""
        self._next_id += 1
        request = RequestId(self._next_id)
        self._under_way[request] = None
        try:
            self._ask(request, identity, context, message, peer, response_wait, now=now)
        except (LocalProtocolError, TableFull):
            self._under_way.pop(request, None)
            raise
        return request

    def cancel(self, request: RequestId, *, now: float) -> None:
        """See `Stack.cancel`."""
        exchange = self._under_way.pop(request, None)
        if exchange is not None:
            self._asked.pop(exchange, None)
            self._endpoint.cancel(exchange, now=now)

    def deregister(self, request: RequestId, *, now: float) -> None:
        """See `Stack.deregister`."""
        exchange = self._under_way.get(request)
        asked = None if exchange is None else self._asked.get(exchange)
        if exchange is None or asked is None or not asked.binding.is_registration:
            raise LocalProtocolError(f"request {request} observes nothing")

        def send(now: float) -> None:
            if self._asked.get(exchange) is not asked:
                return  # It ended while this was held.
            leaving = with_observe(asked.message, DEREGISTER)
            protected, binding = protect_request(asked.context, leaving)
            self._endpoint.deregister(exchange, protected, now=now)
            asked.earlier, asked.binding = asked.binding, binding

        held = Held(send, asked.request, asked.identity)
        self._numbers.send(asked.context, held, now=now)

    def end_session(self, context: SecurityContext, *, now: float) -> None:
        """Nothing that was asked in that session is answered any more."""
        for exchange, asked in tuple(self._asked.items()):
            if asked.context is context:
                self._end(exchange, asked)
                self._endpoint.cancel(exchange, now=now)
                self._events.append(RequestFailed(asked.request, asked.identity, SESSION_ENDED))

    def drop(self, held: Held, reason: str, *, now: float) -> None:
        """Give up a request that waits for numbers; its sender is told so."""
        self._refused["request dropped for want of numbers"] += 1
        if held.request is None or held.request not in self._under_way:
            return
        exchange = self._under_way.pop(held.request)
        if exchange is not None:  # It was to end an observation, which ends without it then.
            self._asked.pop(exchange, None)
            self._endpoint.cancel(exchange, now=now)
        self._events.append(RequestFailed(held.request, held.identity, reason))

    # Inputs from below.

    def receive(self, event: ResponseReceived, *, now: float) -> None:
        """An answer, or a notification."""
        asked = self._asked[event.request]
        if event.message.option(OptionNumber.OSCORE) is None:
            self._end(event.request, asked)
            self._endpoint.cancel(event.request, now=now)
            self._refused["response not protected"] += 1
            self._receive_refusal(asked, event.message)
            return
        try:
            inner = self._unprotect(asked, event.message)
            check_options(inner.options, UNDERSTOOD_INSIDE)
        except (OscoreError, CoapError) as error:
            self._refused[f"response: {error.reason}"] += 1
            if error.reason == DECRYPTION_FAILED:
                self._count_failure(asked.context)
            if event.request not in self._asked:
                return  # That was one forgery too many: it has failed with the session.
            if event.is_final or not asked.is_told:
                # Only the option outside, which anybody can write, says that there is more to come.
                self._end(event.request, asked)
                self._endpoint.cancel(event.request, now=now)
                self._events.append(RequestFailed(asked.request, asked.identity, error.reason))
            return
        if asked.approaching is not None:
            self._approaches.said(asked.identity, asked.approaching)
        # What is outside can be changed on the way: inside stands whether it is a notification.
        is_final = event.is_final or observe_of(inner) is None
        if not is_final:
            asked.is_told = True
            max_age = inner.uint_option(OptionNumber.MAX_AGE)
            self._endpoint.expect_notification(
                event.request, within=MAX_AGE_DEFAULT if max_age is None else max_age, now=now
            )
            self._events.append(
                SecureResponse(asked.request, asked.identity, event.peer, inner, is_final=False)
            )
            return
        self._end(event.request, asked)
        if not event.is_final:
            self._endpoint.cancel(event.request, now=now)
        echo = inner.option(OptionNumber.ECHO)
        if inner.code == Code.UNAUTHORIZED and echo and self._repeat(asked, echo, now):
            return
        self._events.append(SecureResponse(asked.request, asked.identity, event.peer, inner))

    def fail(self, exchange: ExchangeRequestId, reason: str) -> None:
        """No answer will come."""
        asked = self._asked[exchange]
        self._end(exchange, asked)
        self._events.append(RequestFailed(asked.request, asked.identity, reason))

    def note_stale(self, exchange: ExchangeRequestId) -> None:
        """No notification came for longer than the last state was good."""
        asked = self._asked[exchange]
        self._events.append(ObservationStale(asked.request, asked.identity))

    # One request

    def _ask(
        self,
        request: RequestId,
        identity: bytes,
        context: SecurityContext,
        message: Message,
        peer: Peer,
        response_wait: float | None,
        *,
        now: float,
    ) -> None:
        def send(now: float) -> None:
            if request not in self._under_way:
                return  # Cancelled while it was held.
            approaching = self._approaches.unsaid(identity)
            if approaching is not None and approaching.is_alone:
                self._approaches.say_alone(approaching, held, now=now)
                return
            protected, binding = protect_request(context, message)
            if approaching is not None:
                combined = approaching.approach.combine(protected, original=message)
                if combined is None:
                    # Its number is used up; it takes another one when its turn comes.
                    self._approaches.say_alone(approaching, held, now=now)
                    return
                protected = combined
            exchange = self._endpoint.request(
                protected,
                peer,
                now=now,
                response_wait=response_wait,
                hop_count=self._hop_count_of(peer),
            )
            self._under_way[request] = exchange
            self._asked[exchange] = _Asked(
                request,
                identity,
                context,
                binding,
                message,
                peer,
                response_wait,
                approaching=approaching,
            )

        held = Held(send, request, identity)
        self._numbers.send(context, held, now=now)

    def _unprotect(self, asked: _Asked, message: Message) -> Message:
        try:
            return unprotect_response(asked.context, message, asked.binding)
        except OscoreError:
            if asked.earlier is None:
                raise
        return unprotect_response(asked.context, message, asked.earlier)

    def _end(self, exchange: ExchangeRequestId, asked: _Asked) -> None:
        del self._asked[exchange]
        self._under_way.pop(asked.request, None)

    def _receive_refusal(self, asked: _Asked, message: Message) -> None:
        """An answer without protection: of no worth, but message_3 may have been refused by it."""
        if asked.approaching is not None:
            self._approaches.refused(asked.identity, asked.approaching, message)
        hint = message.payload[:HINT_SIZE_MAX].decode(errors="replace")
        self._events.append(
            RequestFailed(
                asked.request, asked.identity, "response not protected", message.code, hint
            )
        )

    def _repeat(self, asked: _Asked, echo: bytes, now: float) -> bool:
        """Send a request once more, with the Echo value that was asked for (RFC 9175 2.3)."""
        if asked.message.option(OptionNumber.ECHO) is not None:
            return False  # It had one already: its sender is told how that ended.
        options = in_order((*asked.message.options, Option(OptionNumber.ECHO, echo)))
        message = replace(asked.message, options=options)
        self._under_way[asked.request] = None
        try:
            self._ask(
                asked.request,
                asked.identity,
                asked.context,
                message,
                asked.peer,
                asked.response_wait,
                now=now,
            )
        except (LocalProtocolError, TableFull) as error:
            del self._under_way[asked.request]
            self._events.append(RequestFailed(asked.request, asked.identity, str(error)))
        return True
