"""Confirmable messages until they are acknowledged or given up.

Spec    RFC 7252 section 4.2: first timeout between ACK_TIMEOUT and ACK_TIMEOUT times
        ACK_RANDOM_FACTOR, doubled each time, MAX_RETRANSMIT repetitions; RFC 7641 section 4.5.2
        (a newer notification takes over the repetitions of an older one)
Limit   the caller's for messages: it adds no more than its own tables hold. The queue of times
        stays under twice that and QUEUE_SLACK
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from amistack.coap.alarms import QUEUE_SLACK
from amistack.coap.duplicates import Key
from amistack.coap.timing import Timing


@dataclass(slots=True)
class Pending:
    """One confirmable message in flight: its octets, its present timeout (s) and repetitions."""

    datagram: bytes
    timeout: float
    due: float
    timing: Timing
    sent_at: float
    repetition: int = 0


class Retransmission:
    """Says when a confirmable message is to be sent again, and when to give it up."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._pending: dict[Key, Pending] = {}
        self._queue: list[tuple[float, int, Key]] = []
        self._order = 0  # Ties are broken by order of adding, never by comparing peers.

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: Key) -> bool:
        return key in self._pending

    def add(self, key: Key, datagram: bytes, timing: Timing, *, now: float) -> None:
        """Watch a message that is being sent now for the first time."""
        timeout = timing.ack_timeout * self._dice.uniform(1.0, timing.ack_random_factor)
        entry = Pending(datagram, timeout, now + timeout, timing, now)
        self._pending[key] = entry
        self._push(key, entry)

    def remove(self, key: Key) -> Pending | None:
        """It was acknowledged, reset or cancelled: what it was, or None if it was not watched."""
        return self._pending.pop(key, None)

    def replace(self, key: Key, new_key: Key, datagram: bytes) -> None:
        """Send another message in its place, with its times and its repetitions so far.

        Raises KeyError if it is not watched.
        """
        entry = self._pending.pop(key)
        entry.datagram = datagram
        self._pending[new_key] = entry
        self._push(new_key, entry)

    def take_due(self, *, now: float) -> tuple[list[tuple[Key, bytes]], list[Key]]:
        """What to send again now, and what to give up."""
        again: list[tuple[Key, bytes]] = []
        given_up: list[Key] = []
        while self._queue and self._queue[0][0] <= now:
            due, _, key = heapq.heappop(self._queue)
            entry = self._pending.get(key)
            if entry is None or entry.due != due:
                continue
            if entry.repetition == entry.timing.max_retransmit:
                del self._pending[key]
                given_up.append(key)
                continue
            entry.repetition += 1
            entry.timeout *= entry.timing.backoff_factor
            # From now and not from the due time: a driver that slept must not send a burst.
            entry.due = now + entry.timeout
            self._push(key, entry)
            again.append((key, entry.datagram))
        return again, given_up

    def next_timer(self) -> float | None:
        """When `take_due` has something to say."""
        queue = self._queue
        while queue:
            due, _, key = queue[0]
            if self._is_current(due, key):
                return due
            heapq.heappop(queue)
        return None

    def _is_current(self, due: float, key: Key) -> bool:
        entry = self._pending.get(key)
        return entry is not None and entry.due == due

    def _push(self, key: Key, entry: Pending) -> None:
        if len(self._queue) >= QUEUE_SLACK + 2 * len(self._pending):
            # Most of it is about messages long acknowledged.
            self._queue = [item for item in self._queue if self._is_current(item[0], item[2])]
            heapq.heapify(self._queue)
        self._order += 1
        heapq.heappush(self._queue, (entry.due, self._order, key))
