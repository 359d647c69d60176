"""Requests of ours: sent when their turn comes, answered, observed, given up.

Spec    RFC 7252 sections 4.7 (NSTART, PROBING_RATE), 5.2 and 5.3; RFC 7641 section 3
Limit   `Limits`: outgoing_max, observing_max, backlog_max, nstart
Never   lets an unprotected message touch what a request with an OSCORE option observes, once it
        does: what such an observation brings, and when it is over, is for the layer above to say
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container
from typing import Final

from amistack.coap.alarms import Alarms
from amistack.coap.codes import Type, is_request, is_success
from amistack.coap.delivery import Delivery
from amistack.coap.duplicates import Duplicates, Key
from amistack.coap.events import (
    Event,
    Failure,
    Limits,
    ObservationStale,
    RequestFailed,
    RequestId,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import (
    DEREGISTER,
    JITTER_MAX,
    JITTER_MIN,
    MAX_AGE_DEFAULT,
    OBSERVABLE,
    REGISTER,
    NotificationOrder,
    observe_of,
    with_observe,
)
from amistack.coap.options import OptionNumber, check_options
from amistack.coap.outgoing import Observing, Outgoing, Stage
from amistack.coap.timing import Timing
from amistack.coap.turns import Turns
from amistack.errors import CoapError, LocalProtocolError, TableFull
from amistack.machine import Peer

TOKEN_SIZE: Final = 2


class Client:
    """The asking side of an endpoint."""

    def __init__(
        self,
        delivery: Delivery,
        duplicates: Duplicates,
        events: list[Event],
        refused: Counter[str],
        *,
        dice: random.Random,
        limits: Limits,
        response_wait: float,
        understood: Container[int],
    ) -> None:
        self.outgoing: dict[tuple[Peer, bytes], Outgoing] = {}
        self._requests: dict[RequestId, Outgoing] = {}
        self._observing_count = 0
        self._awaiting: Alarms[RequestId] = Alarms()
        self._stale: Alarms[RequestId] = Alarms()
        self._turns = Turns(delivery, self._awaiting, limits)
        self._delivery = delivery
        self._duplicates = duplicates
        self._events = events
        self._refused = refused
        self._dice = dice
        self._limits = limits
        self._response_wait = response_wait
        self._understood = understood
        self._next_token = dice.randrange(1 << 8 * TOKEN_SIZE)
        self._next_id = 0

    # Commands from above.

    def request(
        self,
        message: Message,
        peer: Peer,
        *,
        now: float,
        is_confirmable: bool,
        timing: Timing | None,
        response_wait: float | None,
        hop_count: int | None,
    ) -> RequestId:
        """See `Endpoint.request`."""
        if not is_request(message.code):
            raise LocalProtocolError(f"code {message.code:#04x} is not a request's")
        limits = self._limits
        if len(self.outgoing) >= limits.outgoing_max:
            raise TableFull(f"{limits.outgoing_max} requests are under way already")
        if not is_confirmable and self._turns.silent_count >= limits.conversations_max:
            raise TableFull(f"{limits.conversations_max} peers were asked and are silent so far")
        observing = self._observing(message)
        token = self._free_token(peer)
        # Raises now what would raise later, out of a timer.
        octets = message.addressed(
            type=Type.CON if is_confirmable else Type.NON, message_id=0, token=token
        ).encode()
        conversation = self._delivery.conversation(peer, now=now)
        if hop_count is not None:
            self._delivery.set_hop_count(conversation, hop_count)
        self._next_id += 1
        outgoing = Outgoing(
            RequestId(self._next_id),
            peer,
            token,
            octets,
            is_confirmable,
            timing,
            self._response_wait if response_wait is None else response_wait,
        )
        self._turns.start_or_queue(conversation, outgoing, now=now)
        self.outgoing[(peer, token)] = outgoing
        self._requests[outgoing.id] = outgoing
        if observing is not None:
            outgoing.observing = observing
            self._observing_count += 1
        return outgoing.id

    def cancel(self, request: RequestId, *, now: float) -> None:
        """See `Endpoint.cancel`."""
        outgoing = self._requests.get(request)
        if outgoing is not None:
            self._finish(outgoing, now=now)

    def register_again(self, request: RequestId, message: Message | None, *, now: float) -> None:
        """See `Endpoint.register_again`."""
        self._ask_again(request, message, REGISTER, now=now)

    def deregister(self, request: RequestId, message: Message | None, *, now: float) -> None:
        """See `Endpoint.deregister`."""
        self._ask_again(request, message, DEREGISTER, now=now)

    def expect_notification(self, request: RequestId, *, within: float, now: float) -> None:
        """See `Endpoint.expect_notification`."""
        if self._require_open(request).stage is Stage.OPEN:
            self._stale.set(request, now + within + self._dice.uniform(JITTER_MIN, JITTER_MAX))

    # Inputs from below.

    def receive_acknowledgement(
        self, outgoing: Outgoing, message: Message, key: Key, *, now: float
    ) -> None:
        """An acknowledgement or a reset of the message that carries this request."""
        if message.type is Type.RST:
            self._fail(outgoing, Failure.RESET, now=now)
        elif not outgoing.is_confirmable:
            self._refused["acknowledgement of a non-confirmable message"] += 1
        elif message.is_empty:
            if self._delivery.take_acknowledged(key, now=now):
                # Never success: the response is still to come (section 5.2.2).
                outgoing.stage = Stage.ACKNOWLEDGED
                self._awaiting.set(outgoing.id, now + outgoing.response_wait)
                self._turns.free_place(outgoing.peer, now=now)
        elif message.token != outgoing.token:
            self._refused["token of another request"] += 1
        else:
            self._delivery.take_acknowledged(key, now=now)
            self._receive_answer(outgoing, message, is_direct=True, now=now)

    def receive_response(self, message: Message, peer: Peer, *, now: float) -> None:
        """A response with a message id of its own, confirmable or not."""
        outgoing = self.outgoing.get((peer, message.token))
        if outgoing is not None and not outgoing.is_expecting:
            outgoing = None
        is_wanted = outgoing is not None and self._is_readable(message)
        if message.type is Type.CON:
            earlier = self._duplicates.find(peer, message.message_id, now=now)
            if earlier is not None and earlier.reply is not None:
                self._delivery.data.append((peer, earlier.reply))
                return
            kind = Type.ACK if is_wanted else Type.RST
            reply = self._delivery.send_empty(kind, message.message_id, peer)
            if is_wanted:  # The other is judged again if it comes again; anybody can send it.
                lifetime = self._delivery.lifetime_of(peer, is_confirmable=True)
                self._duplicates.remember(
                    peer, message.message_id, now=now, lifetime=lifetime
                ).reply = reply
        elif not is_wanted and observe_of(message) is not None:
            # Silence would be taken for interest (RFC 7641 section 3.6).
            self._delivery.send_empty(Type.RST, message.message_id, peer)
        if outgoing is None:
            self._refused["response to no request"] += 1
        elif not is_wanted:
            # Such a response is rejected, which leaves the request without one (section 5.4.1).
            self._refused["bad option"] += 1
            if not outgoing.is_shielded:
                self._fail(outgoing, Failure.NO_RESPONSE, now=now)
        else:
            self._receive_answer(outgoing, message, is_direct=False, now=now)

    def give_up(self, outgoing: Outgoing, *, now: float) -> None:
        """The message that carries this request was never acknowledged."""
        self._fail(outgoing, Failure.NO_ACKNOWLEDGEMENT, now=now)

    def note_life(self, peer: Peer, *, now: float) -> None:
        """Something came from that peer: it is not one that does not respond."""
        self._turns.note_life(peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        for request in self._awaiting.take_due(now=now):
            self._fail(self._requests[request], Failure.NO_RESPONSE, now=now)
        for request in self._stale.take_due(now=now):
            self._events.append(ObservationStale(request, self._requests[request].peer))
        self._turns.handle_timer(now=now)

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        soonest = self._awaiting.next_timer()
        for due in (self._stale.next_timer(), self._turns.next_timer()):
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        return soonest

    @property
    def is_probing(self) -> bool:
        """Whether `note_life` has anything to do for anybody."""
        return self._turns.silent_count > 0

    @property
    def observing_count(self) -> int:
        """Requests that register an observation, or hold one open."""
        return self._observing_count

    # Answers

    def _receive_answer(
        self, outgoing: Outgoing, message: Message, *, is_direct: bool, now: float
    ) -> None:
        """A response with our token. `is_direct`: it acknowledges the latest message as well."""
        if is_direct and not self._is_readable(message):
            self._refused["bad option"] += 1
            self._fail(outgoing, Failure.NO_RESPONSE, now=now)
            return
        observing = outgoing.observing
        if observing is None:
            self._events.append(ResponseReceived(outgoing.id, outgoing.peer, message))
            self._finish(outgoing, now=now)
            return
        if outgoing.is_shielded:
            is_more = self._may_go_on_protected(observing, message, is_direct=is_direct)
            if is_more is None:
                return
        else:
            is_more = (
                is_success(message.code)
                and observe_of(message) is not None
                and not (observing.is_leaving and is_direct)
                and not (observing.is_protected and message.option(OptionNumber.OSCORE) is None)
            )
        if not is_more:
            self._events.append(ResponseReceived(outgoing.id, outgoing.peer, message))
            self._finish(outgoing, now=now)
            return
        self._settle(outgoing, is_direct=is_direct, now=now)
        if not observing.is_protected:
            if is_direct and not observing.has_news:
                # It answers a question that is newer than all we were told. Unless something has
                # overtaken it, it counts whatever its number: a server that was restarted may
                # have begun to count anew.
                observing.order.restart()
            is_news = observing.order.accept(observe_of(message) or 0, now=now)
            if is_news or outgoing.id not in self._stale:
                max_age = message.uint_option(OptionNumber.MAX_AGE)
                self.expect_notification(
                    outgoing.id, within=MAX_AGE_DEFAULT if max_age is None else max_age, now=now
                )
            if not is_news:
                self._refused["notification older than the last"] += 1
                return
            observing.has_news = True
        self._events.append(ResponseReceived(outgoing.id, outgoing.peer, message, is_final=False))

    def _may_go_on_protected(
        self, observing: Observing, message: Message, *, is_direct: bool
    ) -> bool | None:
        """Whether there may be more after this, of an observation whose layer above decides.

        None for a message that is not even to be shown: unprotected, it proves nothing.
        """
        if message.option(OptionNumber.OSCORE) is None and not is_direct:
            self._refused["notification not protected"] += 1
            return None
        return not (observing.is_leaving and (is_direct or observe_of(message) is None))

    def _settle(self, outgoing: Outgoing, *, is_direct: bool, now: float) -> None:
        """The registration is answered, or a notification came while nothing was asked."""
        observing = outgoing.observing
        assert observing is not None
        if outgoing.stage is Stage.OPEN or outgoing.stage is Stage.WAITING:
            return
        is_crossing = outgoing.stage is Stage.SENT or observing.is_leaving
        if observing.is_open and not is_direct and is_crossing:
            # It may have been on its way before our message was: that one is repeated until it
            # is acknowledged. After that, the notification may well be the answer.
            return
        holds_place = outgoing.stage is Stage.SENT
        outgoing.stage = Stage.OPEN
        observing.is_open = True
        if outgoing.key is not None:
            self._delivery.forget(outgoing.key)
            outgoing.key = None
        self._awaiting.drop(outgoing.id)
        if holds_place:
            self._turns.free_place(outgoing.peer, now=now)

    def _fail(self, outgoing: Outgoing, failure: Failure, *, now: float) -> None:
        self._events.append(RequestFailed(outgoing.id, outgoing.peer, failure))
        self._finish(outgoing, now=now)

    def _finish(self, outgoing: Outgoing, *, now: float) -> None:
        """Forget a request of ours; its place goes to the next one of its peer's backlog."""
        peer, request = outgoing.peer, outgoing.id
        del self.outgoing[(peer, outgoing.token)]
        del self._requests[request]
        if outgoing.observing is not None:
            self._observing_count -= 1
            self._stale.drop(request)
        stage = outgoing.stage
        if stage is Stage.WAITING:
            conversation = self._turns.leave_backlog(outgoing)
            if not conversation.is_busy:
                self._delivery.touch(conversation, peer, now=now)
            return
        if outgoing.key is not None:
            self._delivery.forget(outgoing.key)
        if stage is not Stage.OPEN:
            self._awaiting.drop(request)
        if stage is Stage.SENT:
            self._turns.free_place(peer, now=now)

    def _is_readable(self, response: Message) -> bool:
        """False for a response that must be rejected for its options (section 5.4.1)."""
        try:
            check_options(response.options, self._understood)
        except CoapError:
            return False
        return True

    # Observations

    def _observing(self, message: Message) -> Observing | None:
        value = observe_of(message)
        if value != REGISTER or message.code not in OBSERVABLE:
            return None
        if self._observing_count >= self._limits.observing_max:
            raise TableFull(f"{self._limits.observing_max} observations are open already")
        is_protected = message.option(OptionNumber.OSCORE) is not None
        return Observing(is_protected, NotificationOrder())

    def _require_open(self, request: RequestId) -> Outgoing:
        outgoing = self._requests.get(request)
        if outgoing is None or outgoing.observing is None or not outgoing.observing.is_open:
            raise LocalProtocolError(f"request {request} holds no observation open")
        return outgoing

    def _ask_again(
        self, request: RequestId, message: Message | None, value: int, *, now: float
    ) -> None:
        """Send a further request under the token of an open observation."""
        outgoing = self._require_open(request)
        assert outgoing.observing is not None
        if outgoing.stage is not Stage.OPEN:
            raise LocalProtocolError(f"request {request} is asking again already")
        if message is None:
            if outgoing.observing.is_protected:
                raise LocalProtocolError("a protected request is never sent twice, give another")
            message = Message.decode(outgoing.octets)
        elif not is_request(message.code):
            raise LocalProtocolError(f"code {message.code:#04x} is not a request's")
        octets = (
            with_observe(message, value)
            .addressed(type=Type.CON, message_id=0, token=outgoing.token)
            .encode()
        )
        conversation = self._delivery.conversation(outgoing.peer, now=now)
        earlier = outgoing.octets, outgoing.is_confirmable
        outgoing.octets, outgoing.is_confirmable = octets, True
        outgoing.stage = Stage.WAITING
        try:
            self._turns.start_or_queue(conversation, outgoing, now=now)
        except TableFull:
            outgoing.octets, outgoing.is_confirmable = earlier
            outgoing.stage = Stage.OPEN
            raise
        outgoing.observing.is_leaving = value == DEREGISTER
        outgoing.observing.has_news = False
        self._stale.drop(request)

    def _free_token(self, peer: Peer) -> bytes:
        while True:
            token = self._next_token.to_bytes(TOKEN_SIZE, "big")
            self._next_token = (self._next_token + 1) & (1 << 8 * TOKEN_SIZE) - 1
            if (peer, token) not in self.outgoing:
                return token
