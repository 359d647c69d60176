"""Whose turn it is: which request to a peer goes out now, and which waits.

Spec    RFC 7252 section 4.7 (NSTART, PROBING_RATE)
Limit   `Limits`: nstart, backlog_max; silent peers: conversations_max, and one more for each
        request that waited before its peer fell silent

A request holds one of its peer's NSTART places until it is acknowledged or answered. After an
empty acknowledgement nothing of it is in the network, and its response may take as long as it
likes; so others do not wait for it. A non-confirmable request has no acknowledgement and holds its
place until it is answered or failed, and to a peer that is silent the next one goes out only when
the octets of those before are paid for at PROBING_RATE.
"""

from __future__ import annotations

from collections import deque

from amistack.coap.alarms import Alarms
from amistack.coap.delivery import Conversation, Delivery
from amistack.coap.events import Limits, RequestId
from amistack.coap.outgoing import Outgoing, Stage
from amistack.errors import TableFull
from amistack.machine import Peer


class Turns:
    """The backlogs of all peers, and what lets them move."""

    def __init__(self, delivery: Delivery, awaiting: Alarms[RequestId], limits: Limits) -> None:
        """`awaiting`: until when a request that was sent waits for its response."""
        self._backlogs: dict[Peer, deque[Outgoing]] = {}
        self._probes: Alarms[Peer] = Alarms()  # Until when a silent peer is left in peace.
        self._delivery = delivery
        self._awaiting = awaiting
        self._limits = limits

    @property
    def silent_count(self) -> int:
        """Peers that were asked without confirmation, and gave no sign of life since."""
        return len(self._probes)

    def note_life(self, peer: Peer, *, now: float) -> None:
        """Something came from that peer: it is not one that does not respond."""
        if peer in self._probes:
            self._probes.drop(peer)
            self.advance(peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        """Start what waited for PROBING_RATE alone."""
        for peer in self._probes.take_due(now=now):
            self.advance(peer, now=now)

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        return self._probes.next_timer()

    def _may_start(self, conversation: Conversation, outgoing: Outgoing) -> bool:
        return conversation.in_flight < self._limits.nstart and (
            outgoing.is_confirmable or outgoing.peer not in self._probes
        )

    def start_or_queue(self, conversation: Conversation, outgoing: Outgoing, *, now: float) -> None:
        """Send a request now, or when its turn comes.

        Raises TableFull, and nothing has changed, if the peer's backlog is full.
        """
        if not conversation.waiting and self._may_start(conversation, outgoing):
            self._start(conversation, outgoing, now=now)
            return
        if conversation.waiting >= self._limits.backlog_max:
            raise TableFull(f"{self._limits.backlog_max} requests wait for this peer already")
        self._backlogs.setdefault(outgoing.peer, deque()).append(outgoing)
        conversation.waiting += 1
        self.advance(outgoing.peer, now=now)

    def advance(self, peer: Peer, *, now: float) -> None:
        """Start what may start of a peer's backlog, in its order.

        A confirmable request does not wait behind others that wait for PROBING_RATE alone.
        """
        backlog = self._backlogs.get(peer)
        if backlog is None:
            return
        conversation = self._delivery.conversations[peer]
        for outgoing in tuple(backlog):
            if conversation.in_flight >= self._limits.nstart:
                return
            if self._may_start(conversation, outgoing):
                self.leave_backlog(outgoing)
                self._start(conversation, outgoing, now=now)

    def leave_backlog(self, outgoing: Outgoing) -> Conversation:
        """A request waits no more; what is left is the conversation that it waited in."""
        backlog = self._backlogs[outgoing.peer]
        backlog.remove(outgoing)
        conversation = self._delivery.conversations[outgoing.peer]
        conversation.waiting -= 1
        if not backlog:
            del self._backlogs[outgoing.peer]
        return conversation

    def _start(self, conversation: Conversation, outgoing: Outgoing, *, now: float) -> None:
        conversation.in_flight += 1
        outgoing.stage = Stage.SENT
        peer = outgoing.peer
        if outgoing.is_confirmable:
            timing = outgoing.timing or self._delivery.timing_of(conversation)
            outgoing.key = self._delivery.send(
                outgoing.octets, conversation, peer, outgoing, timing=timing, now=now
            )
            return
        outgoing.key = self._delivery.send(
            outgoing.octets, conversation, peer, outgoing, timing=None, now=now
        )
        self._awaiting.set(outgoing.id, now + outgoing.response_wait)
        rate = (outgoing.timing or self._delivery.timing).probing_rate
        self._probes.set(peer, now + len(outgoing.octets) / rate)

    def free_place(self, peer: Peer, *, now: float) -> None:
        """A request holds its place no more; the next one of the backlog takes it."""
        conversation = self._delivery.conversations[peer]
        conversation.in_flight -= 1
        if conversation.waiting:
            self.advance(peer, now=now)
        if not conversation.is_busy:
            self._delivery.touch(conversation, peer, now=now)
