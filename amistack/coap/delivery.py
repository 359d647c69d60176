"""Messages on their way out: their ids, their repetition, and what is known of each peer.

Spec    RFC 7252 sections 4.2 to 4.5: message ids, retransmission, acknowledgement and reset
Limit   `Limits.conversations_max` peers; the caller's for messages
Never   knows what a message is for: whoever sends one says whom its acknowledgement concerns
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.duplicates import Key
from amistack.coap.message import HEADER, VERSION
from amistack.coap.path import PathTiming
from amistack.coap.retransmission import Pending, Retransmission
from amistack.coap.timing import Timing
from amistack.machine import Peer

PROMPT_SHARE: Final = 1 / 4
"""A path that acknowledges within this share of ACK_TIMEOUT needs no estimator: its timeout would
be the base's own."""


@dataclass(slots=True)
class Conversation:
    """What is kept about one peer while anything is under way with it, and a while after."""

    next_message_id: int
    idle_since: float
    is_listed: bool = False
    in_flight: int = 0
    """Requests that hold one of its NSTART places."""
    waiting: int = 0
    """Requests in its backlog."""
    path: PathTiming | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it must not be forgotten."""
        return bool(self.in_flight or self.waiting)


class Delivery:
    """The message layer of an endpoint, outwards."""

    def __init__(self, dice: random.Random, timing: Timing, *, conversations_max: int) -> None:
        self.timing = timing
        self.data: list[tuple[Peer, bytes]] = []
        self.sent: dict[Key, object] = {}
        """Messages that the peer may still acknowledge or reset, and whom that concerns."""
        self.retransmission = Retransmission(dice)
        self.conversations: dict[Peer, Conversation] = {}
        self._dice = dice
        self._conversations_max = conversations_max
        self._idle: deque[tuple[float, Peer]] = deque()
        self._lifetime = timing.exchange_lifetime
        self._non_lifetime = timing.non_lifetime
        self._prompt = timing.ack_timeout * PROMPT_SHARE

    # Sending

    def send(
        self,
        octets: bytes,
        conversation: Conversation,
        peer: Peer,
        owner: object,
        *,
        timing: Timing | None,
        now: float,
    ) -> Key:
        """Send an encoded message under the next message id; with `timing`, until acknowledged."""
        message_id = self._take_message_id(conversation, peer)
        key = (peer, message_id)
        datagram = _numbered(octets, message_id)
        self.sent[key] = owner
        if timing is not None:
            self.retransmission.add(key, datagram, timing, now=now)
        self.data.append((peer, datagram))
        return key

    def send_once(self, octets: bytes, conversation: Conversation, peer: Peer) -> None:
        """Send an encoded message under the next message id, and forget it."""
        self.data.append((peer, _numbered(octets, self._take_message_id(conversation, peer))))

    def send_instead(self, key: Key, octets: bytes, conversation: Conversation) -> Key:
        """Send another message in place of one that is due for repetition."""
        peer = key[0]
        message_id = self._take_message_id(conversation, peer)
        new_key = (peer, message_id)
        datagram = _numbered(octets, message_id)
        self.sent[new_key] = self.sent.pop(key)
        self.retransmission.replace(key, new_key, datagram)
        self.data.append((peer, datagram))
        return new_key

    def send_empty(self, type: Type, message_id: int, peer: Peer) -> bytes:  # noqa: A002
        """Acknowledge or reset a message of the peer's."""
        datagram = HEADER.pack(VERSION << 6 | type << 4, Code.EMPTY, message_id)
        self.data.append((peer, datagram))
        return datagram

    def take_acknowledged(self, key: Key, *, now: float) -> bool:
        """The peer has that message: repeat it no more. False if it was not being repeated."""
        pending = self.retransmission.remove(key)
        if pending is None:
            return False
        self._measure(key[0], pending, now)
        return True

    def forget(self, key: Key) -> None:
        """Nobody cares any more what becomes of that message."""
        self.sent.pop(key, None)
        self.retransmission.remove(key)

    # Paths

    def timing_of(self, conversation: Conversation) -> Timing:
        """The parameters for the next confirmable message to that peer."""
        path = conversation.path
        return self.timing if path is None else path.timing

    def set_hop_count(self, conversation: Conversation, hop_count: int) -> None:
        """The peer is so many hops away."""
        if conversation.path is None:
            conversation.path = PathTiming(self.timing, hop_count=hop_count)
        else:
            conversation.path.set_hop_count(hop_count)

    def note_silence(self, peer: Peer) -> None:
        """A message to that peer was given up."""
        conversation = self.conversations.get(peer)
        if conversation is not None:
            if conversation.path is None:
                conversation.path = PathTiming(self.timing)
            conversation.path.note_silence()

    def lifetime_of(self, peer: Peer, *, is_confirmable: bool) -> float:
        """How long a message of that peer's may come again (s): it is as patient as we are."""
        conversation = self.conversations.get(peer)
        if conversation is None or conversation.path is None:
            return self._lifetime if is_confirmable else self._non_lifetime
        timing = conversation.path.timing
        if is_confirmable:
            return max(self._lifetime, timing.exchange_lifetime)
        return max(self._non_lifetime, timing.non_lifetime)

    def _measure(self, peer: Peer, pending: Pending, now: float) -> None:
        elapsed = now - pending.sent_at
        conversation = self.conversations.get(peer)
        if conversation is None:
            return
        path = conversation.path
        if path is None:
            if elapsed <= self._prompt:
                return
            path = conversation.path = PathTiming(self.timing)
        path.take_sample(elapsed, repetition=pending.repetition)

    # Conversations

    def conversation(self, peer: Peer, *, now: float) -> Conversation:
        """What is known of that peer, from now on at the latest."""
        conversation = self.conversations.get(peer)
        if conversation is None:
            # Here as well, since a server that answers at once may never need a timer.
            self.forget_idle(now=now)
            if len(self.conversations) >= self._conversations_max:
                self._forget_one()
            conversation = Conversation(self._dice.randrange(1 << 16), now)
            self.conversations[peer] = conversation
        return conversation

    def touch(self, conversation: Conversation, peer: Peer, *, now: float) -> None:
        """Keep a peer's counter until its last message id may be used again (section 4.4)."""
        conversation.idle_since = now
        if not conversation.is_listed:
            conversation.is_listed = True
            self._idle.append((now + self._lifetime, peer))

    def forget_idle(self, *, now: float) -> None:
        """Drop the peers with whom nothing was under way for so long."""
        while self._idle and self._idle[0][0] <= now:
            _, peer = self._idle.popleft()
            conversation = self.conversations[peer]
            conversation.is_listed = False
            if conversation.is_busy:
                continue  # It is listed again when it falls idle.
            until = conversation.idle_since + self._lifetime_of(conversation)
            if until <= now:
                del self.conversations[peer]
            else:
                # Behind others that may have longer to wait: then it is forgotten late.
                conversation.is_listed = True
                self._idle.append((until, peer))

    def _lifetime_of(self, conversation: Conversation) -> float:
        path = conversation.path
        if path is None:
            return self._lifetime
        return max(self._lifetime, path.timing.exchange_lifetime)

    def _forget_one(self) -> None:
        while self._idle:
            _, peer = self._idle.popleft()
            conversation = self.conversations[peer]
            conversation.is_listed = False
            if not conversation.is_busy:
                del self.conversations[peer]
                return

    def _take_message_id(self, conversation: Conversation, peer: Peer) -> int:
        message_id = conversation.next_message_id
        while (peer, message_id) in self.sent:
            message_id = (message_id + 1) & 0xFFFF
        conversation.next_message_id = (message_id + 1) & 0xFFFF
        return message_id


def _numbered(octets: bytes, message_id: int) -> bytes:
    """An encoded message with that message id in its place."""
    return b"%b%b%b" % (octets[:2], message_id.to_bytes(2, "big"), octets[4:])
