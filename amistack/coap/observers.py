"""Peers that observe: at most one notification under way to each, and always the newest state.

Spec    RFC 7641 section 4; 4.5.1 (congestion control) and 4.5.2 (a newer state takes over the
        repetitions of an older one)
Limit   `Limits`: observers_max, observers_per_peer_max; one state that waits for each observation:
        a newer one takes its place
Never   looks at a resource: what is notified, and to whom, is said from above

Time between two non-confirmable notifications to a peer is its round trip where that is measured,
else NON_PAUSE. Every CONFIRM_PERIOD, and after NON_RUN_MAX of them in a row, one is made
confirmable, so that who is gone is found out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from amistack.coap.alarms import Alarms
from amistack.coap.codes import Type, is_response, is_success
from amistack.coap.delivery import Conversation, Delivery
from amistack.coap.duplicates import Key
from amistack.coap.events import Ending, Event, ExchangeId, Limits, ObservationEnded
from amistack.coap.message import Message
from amistack.coap.observe import SEQUENCE_COUNT, with_observe
from amistack.errors import LocalProtocolError
from amistack.machine import Peer

NON_PAUSE: Final = 3.0
"""Seconds between non-confirmable notifications on a path that was not measured."""
NON_RUN_MAX: Final = 32
CONFIRM_PERIOD: Final = 24 * 3600.0
"""Seconds within which one notification at least is confirmable (section 4.5)."""


class Life(enum.Enum):
    """Where an observation is."""

    OPEN = enum.auto()
    CLOSING = enum.auto()
    """Its last notification is said; it is over when that is sent, or acknowledged."""
    OVER = enum.auto()


@dataclass(slots=True, eq=False)
class Observation:
    """One peer's interest in one resource. `waiting`: the newest state, if it is not sent yet."""

    exchange: ExchangeId
    peer: Peer
    token: bytes
    is_confirmable: bool
    confirmed_at: float
    unconfirmed_count: int = 0
    life: Life = Life.OPEN
    waiting: bytes | None = None
    is_waiting_confirmable: bool = False
    key: Key | None = None
    is_outstanding: bool = False


@dataclass(slots=True)
class Observer:
    """One peer with all its observations, and whose turn is next."""

    by_token: dict[bytes, Observation] = field(default_factory=dict)
    queue: list[Observation] = field(default_factory=list)
    outstanding_count: int = 0


class Observers:
    """The notifying side of an endpoint."""

    def __init__(self, delivery: Delivery, events: list[Event], limits: Limits) -> None:
        self._delivery = delivery
        self._events = events
        self._limits = limits
        self._observations: dict[ExchangeId, Observation] = {}
        self._observers: dict[Peer, Observer] = {}
        self._pauses: Alarms[Peer] = Alarms()
        # One for all: an observation that begins anew under an old token never counts backwards.
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._observations)

    # Commands from above.

    def may_open(self, peer: Peer, token: bytes) -> bool:
        """Whether there is room for an observation by that peer under that token."""
        observer = self._observers.get(peer)
        if observer is not None and token in observer.by_token:
            return True
        return len(self._observations) < self._limits.observers_max and (
            observer is None or len(observer.by_token) < self._limits.observers_per_peer_max
        )

    def next_sequence(self) -> int:
        """The number for the response that opens an observation, if it does."""
        return _after(self._sequence)

    def open(
        self,
        exchange: ExchangeId,
        peer: Peer,
        token: bytes,
        *,
        sequence: int,
        is_confirmable: bool,
        now: float,
    ) -> Observation:
        """Begin an observation, in place of one under the same token."""
        self._sequence = sequence
        observation = Observation(exchange, peer, token, is_confirmable, now)
        observer = self._observers.get(peer)
        if observer is None:
            observer = self._observers[peer] = Observer()
        elif (earlier := observer.by_token.get(token)) is not None:
            self.close(earlier, Ending.REPLACED, now=now)
            self._observers[peer] = observer  # It may have gone with its only observation.
        observer.by_token[token] = observation
        self._observations[exchange] = observation
        return observation

    def notify(
        self,
        exchange: ExchangeId,
        message: Message,
        *,
        is_confirmable: bool | None,
        is_last: bool,
        now: float,
    ) -> None:
        """See `Endpoint.notify`."""
        observation = self._observations.get(exchange)
        if observation is None or observation.life is not Life.OPEN:
            raise LocalProtocolError(f"exchange {exchange} is observed by nobody")
        if not is_response(message.code):
            raise LocalProtocolError(f"code {message.code:#04x} is not a response's")
        is_last = is_last or not is_success(message.code)
        is_due = (
            is_last
            or observation.unconfirmed_count >= NON_RUN_MAX
            or now - observation.confirmed_at >= CONFIRM_PERIOD
        )
        if is_confirmable is None:
            is_confirmable = observation.is_confirmable
        is_confirmable = is_confirmable or is_due
        sequence = _after(self._sequence)
        observation.waiting = (
            with_observe(message, None if is_last else sequence)
            .addressed(
                type=Type.CON if is_confirmable else Type.NON,
                message_id=0,
                token=observation.token,
            )
            .encode()
        )
        self._sequence = sequence
        observation.is_waiting_confirmable = is_confirmable
        if is_last:
            observation.life = Life.CLOSING
        observer = self._observers[observation.peer]
        if observation not in observer.queue:
            observer.queue.append(observation)
        self._advance(observation.peer, observer, now=now)

    def send_first(
        self,
        observation: Observation,
        octets: bytes,
        conversation: Conversation,
        *,
        is_confirmable: bool,
        now: float,
    ) -> None:
        """Send the response that opens an observation, if it is not piggybacked: at once."""
        observer = self._observers[observation.peer]
        self._send(observation, observer, octets, conversation, is_confirmable, now)

    def end(self, exchange: ExchangeId, *, now: float) -> None:
        """See `Endpoint.end_observation`."""
        observation = self._observations.get(exchange)
        if observation is not None:
            self.close(observation, None, now=now)

    def deregister(self, peer: Peer, token: bytes, *, now: float) -> None:
        """The peer asked to be left alone. No error if nothing is known of it."""
        observer = self._observers.get(peer)
        if observer is not None and (found := observer.by_token.get(token)) is not None:
            self.close(found, Ending.DEREGISTERED, now=now)

    # Inputs from below.

    def receive_acknowledgement(
        self, observation: Observation, message: Message, key: Key, *, now: float
    ) -> None:
        """An acknowledgement or a reset of the latest notification."""
        if message.type is Type.RST:
            self.close(observation, Ending.RESET, now=now)
            return
        if not self._delivery.take_acknowledged(key, now=now):
            return  # It was not confirmable: nothing follows from that.
        self._delivery.sent.pop(key, None)
        observation.key = None
        observation.confirmed_at, observation.unconfirmed_count = now, 0
        observer = self._observers[observation.peer]
        self._free_place(observation, observer)
        if observation.life is Life.CLOSING and observation.waiting is None:
            self.close(observation, None, now=now)
        else:
            self._advance(observation.peer, observer, now=now)

    def take_newer(self, observation: Observation, key: Key, *, now: float) -> bool:
        """A notification is due for repetition: send a newer state in its place, if there is one.

        It goes on with the times and the count of the old one (section 4.5.2).
        """
        if observation.waiting is None:
            return False
        octets = self._take_waiting(observation, self._observers[observation.peer])
        # Whatever it was to be, it replaces a confirmable one.
        octets = bytes((octets[0] & 0xCF | Type.CON << 4,)) + octets[1:]
        conversation = self._delivery.conversation(observation.peer, now=now)
        observation.key = self._delivery.send_instead(key, octets, conversation)
        self._delivery.touch(conversation, observation.peer, now=now)
        return True

    def give_up(self, observation: Observation, *, now: float) -> None:
        """The latest notification was never acknowledged: nobody is there any more."""
        self.close(observation, Ending.NO_ACKNOWLEDGEMENT, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Send what waited for its time."""
        for peer in self._pauses.take_due(now=now):
            observer = self._observers.get(peer)
            if observer is not None:
                self._advance(peer, observer, now=now)

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        return self._pauses.next_timer()

    # One at a time

    def close(self, observation: Observation, ending: Ending | None, *, now: float) -> None:
        """Forget an observation, and say so if its `ending` was not our own wish."""
        if observation.life is Life.OVER:
            return
        is_news = observation.life is Life.OPEN and ending is not None
        observation.life = Life.OVER
        observer = self._observers[observation.peer]
        del self._observations[observation.exchange]
        del observer.by_token[observation.token]
        if observation in observer.queue:
            observer.queue.remove(observation)
        observation.waiting = None
        if observation.key is not None:
            self._delivery.forget(observation.key)
            observation.key = None
        self._free_place(observation, observer)
        if is_news and ending is not None:
            self._events.append(ObservationEnded(observation.exchange, observation.peer, ending))
        if observer.by_token:
            self._advance(observation.peer, observer, now=now)
        else:
            del self._observers[observation.peer]
            self._pauses.drop(observation.peer)

    def _free_place(self, observation: Observation, observer: Observer) -> None:
        if observation.is_outstanding:
            observation.is_outstanding = False
            observer.outstanding_count -= 1

    def _advance(self, peer: Peer, observer: Observer, *, now: float) -> None:
        while (
            observer.queue
            and observer.outstanding_count < self._limits.nstart
            and peer not in self._pauses
        ):
            observation = next((one for one in observer.queue if not one.is_outstanding), None)
            if observation is None:
                return  # All that wait have an older state under way: they follow that.
            is_confirmable = observation.is_waiting_confirmable
            octets = self._take_waiting(observation, observer)
            conversation = self._delivery.conversation(peer, now=now)
            self._send(observation, observer, octets, conversation, is_confirmable, now)

    def _take_waiting(self, observation: Observation, observer: Observer) -> bytes:
        octets = observation.waiting
        assert octets is not None
        observation.waiting = None
        observer.queue.remove(observation)
        return octets

    def _send(
        self,
        observation: Observation,
        observer: Observer,
        octets: bytes,
        conversation: Conversation,
        is_confirmable: bool,
        now: float,
    ) -> None:
        peer = observation.peer
        if observation.key is not None:
            # A reset of the one before comes too late to be understood; this one gets its own.
            self._delivery.forget(observation.key)
        if is_confirmable:
            timing = self._delivery.timing_of(conversation)
            observation.is_outstanding = True
            observer.outstanding_count += 1
        else:
            timing = None
            path = conversation.path
            pause = NON_PAUSE if path is None else path.round_trip or NON_PAUSE
            self._pauses.set(peer, now + pause)
            observation.unconfirmed_count += 1
        observation.key = self._delivery.send(
            octets, conversation, peer, observation, timing=timing, now=now
        )
        self._delivery.touch(conversation, peer, now=now)


def _after(sequence: int) -> int:
    return (sequence + 1) % SEQUENCE_COUNT
