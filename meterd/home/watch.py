"""Whether the subscribed home devices answer: a machine that tries each, one ping at a time.

A try is CoAP's ping (RFC 7252 section 4.3), which every CoAP device answers without a program for
it: an empty confirmable message, repeated RETRANSMIT_MAX times, that a reset (or any other message
of the device) ends. Waiting for reports instead would need a device that knows the meter.

    waiting --period--> under way --answered--> waiting
                           |   ^
                           |   +-- TRY_AGAIN_S -- so far not FAILURE_COUNT in a row
                           +-- given up

FAILURE_COUNT tries in a row that came to nothing make it silent: told once, as is its return. That
is DETECTION_S at most behind the period in which it fell silent.

In      datagrams, time; changes by `Subscriptions.on_change`
Raises  nothing: what cannot be kept is tried again
Limit   the subscribed devices; one try of each under way
Never   speaks to who is not subscribed, or takes anything from them; believes more of an answer
        than that the device is there: it is not authentic
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.coap.retransmission import Retransmission
from amistack.coap.timing import Timing
from amistack.errors import CoapError, StoreError
from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.model.home import DeviceState, Subscription
from meterd.home.subscriptions import Subscriptions

RETRANSMIT_MAX: Final = 2
TIMING: Final = Timing(max_retransmit=RETRANSMIT_MAX)
"""Of a home: one hop, or two."""
FAILURE_COUNT: Final = 3
TRY_AGAIN_S: Final = 30.0
FIRST_WITHIN_S: Final = 10.0
"""Seconds, by chance up to these, from a start or a subscription to the first try."""
SPREAD: Final = 0.1
"""The share of a period by which a try may come earlier, so that a home's are not in step."""
STORAGE_RETRY_S: Final = 60.0
DETECTION_S: Final = FAILURE_COUNT * TIMING.max_transmit_wait + (FAILURE_COUNT - 1) * TRY_AGAIN_S
"""Seconds from the first try without an answer to the event, at most."""
MESSAGE_ID_COUNT: Final = 1 << 16


def socket_address(subscription: Subscription) -> Peer:
    """Where a device is, as a socket has it."""
    if len(subscription.address) > 4:
        return (subscription.host, subscription.port, 0, 0)
    return (subscription.host, subscription.port)


@dataclass(slots=True)
class _Trial:
    """A device as it is tried: when next, or the message that is under way."""

    subscription: Subscription
    peer: Peer
    due: float | None
    message_id: int = 0
    failures: int = 0


class HomeWatch:
    """The meter's end of its home area network."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        *,
        dice: random.Random,
        peer_of: Callable[[Subscription], Peer] = socket_address,
        timing: Timing = TIMING,
        try_again_s: float = TRY_AGAIN_S,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._subscriptions = subscriptions
        self._dice = dice
        self._peer_of = peer_of
        self._timing = timing
        self._try_again_s = try_again_s
        self._trials: dict[Eui64, _Trial] = {}
        self._by_peer: dict[Peer, Eui64] = {}
        self._pings = Retransmission(dice)
        self._next_id = dice.randrange(MESSAGE_ID_COUNT)
        self._outgoing: list[tuple[Peer, bytes]] = []

    # Commands from above

    def refresh(self, *, now: float) -> None:
        """Look again who is subscribed: at the start, and after each change."""
        wanted = {one.subscription.device: one.subscription for one in self._subscriptions.all()}
        for device in [one for one in self._trials if wanted.get(one) != self._of(one)]:
            trial = self._trials.pop(device)
            self._pings.remove((trial.peer, trial.message_id))
            del self._by_peer[trial.peer]
        for device, subscription in wanted.items():
            if device not in self._trials:
                peer = self._peer_of(subscription)
                due = now + self._dice.uniform(0.0, FIRST_WITHIN_S)
                self._trials[device] = _Trial(subscription, peer, due)
                self._by_peer[peer] = device

    # Inputs from below

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        device = self._by_peer.get(peer)
        if device is None:
            self.counters["not heard: nobody who is subscribed"] += 1
            return
        try:
            message = Message.decode(data)
        except CoapError:
            self.counters["not heard: no message"] += 1
            return
        trial = self._trials[device]
        if message.type in (Type.RST, Type.ACK):
            if self._pings.remove((peer, message.message_id)) is None:
                self.counters["not heard: answer to nothing"] += 1
                return
        else:
            if message.type is Type.CON:
                # Nobody here understands it; its sender need not repeat it (section 4.2).
                reset = Message(Code.EMPTY, Type.RST, message.message_id)
                self._outgoing.append((peer, reset.encode()))
            self._pings.remove((peer, trial.message_id))
        self._note_answer(trial, now)

    def handle_timer(self, *, now: float) -> None:
        """Try who is due, and give up who did not answer. Early, late or twice is harmless."""
        again, given_up = self._pings.take_due(now=now)
        self._outgoing += [(peer, datagram) for (peer, _), datagram in again]
        for peer, _ in given_up:
            device = self._by_peer.get(peer)
            if device is not None:
                self._note_failure(self._trials[device], now)
        for trial in self._trials.values():
            if trial.due is not None and trial.due <= now:
                self._ping(trial, now)

    # Outputs, for the driver to collect

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def events(self) -> list[None]:
        """None: everything is dealt with here."""
        return []

    def next_timer(self) -> float | None:
        """When to wake."""
        times = [trial.due for trial in self._trials.values() if trial.due is not None]
        if (repetition := self._pings.next_timer()) is not None:
            times.append(repetition)
        return min(times, default=None)

    # Inside

    def _of(self, device: Eui64) -> Subscription:
        return self._trials[device].subscription

    def _ping(self, trial: _Trial, now: float) -> None:
        trial.due, trial.message_id = None, self._next_id
        self._next_id = (self._next_id + 1) % MESSAGE_ID_COUNT
        datagram = Message(Code.EMPTY, Type.CON, trial.message_id).encode()
        self._pings.add((trial.peer, trial.message_id), datagram, self._timing, now=now)
        self._outgoing.append((trial.peer, datagram))
        self.counters["pings"] += 1

    def _note_answer(self, trial: _Trial, now: float) -> None:
        trial.failures = 0
        trial.due = now + self._period(trial)
        self._mark(trial, DeviceState.ANSWERING, "", now)

    def _note_failure(self, trial: _Trial, now: float) -> None:
        trial.failures += 1
        self.counters["pings without an answer"] += 1
        if trial.failures < FAILURE_COUNT:
            trial.due = now + self._try_again_s
            return
        trial.due = now + self._period(trial)
        self._mark(trial, DeviceState.SILENT, f"{FAILURE_COUNT} tries", now)

    def _mark(self, trial: _Trial, state: DeviceState, detail: str, now: float) -> None:
        try:
            self._subscriptions.mark(trial.subscription.device, state, detail, now=now)
        except StoreError:
            # Told with the next try.
            self.counters["state not kept"] += 1
            trial.due = now + STORAGE_RETRY_S

    def _period(self, trial: _Trial) -> float:
        return trial.subscription.period_s * self._dice.uniform(1.0 - SPREAD, 1.0)
