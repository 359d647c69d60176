"""The retransmission timeout of one path, from what was measured on it.

Spec    RFC 6298 section 2 for round trips that are certain; for those of repeated messages a
        cautious blend, in the manner of CoCoA (draft-ietf-core-cocoa-03 section 4.2)
Gives   `timing`: the parameters for the next confirmable message
Limit   a timeout stands between its floor (the base timing's, and more for each hop) and
        TIMEOUT_MAX; seven numbers a path
Never   goes below the base timing: a peer may take ACK_TIMEOUT to think before it acknowledges
        (PROCESSING_DELAY, RFC 7252 section 4.8.2), however near it is
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from amistack.coap.timing import Timing

TIMEOUT_MAX: Final = 32.0
"""Seconds. With round trips longer than about 25 s a message is repeated in vain, and no more."""
HOP_TIME: Final = 0.25
"""Seconds added to the floor for each hop of a mesh: there and back, with queues on the way."""

SLOW_TIMEOUT: Final = 5.0
SLOW_BACKOFF: Final = 1.5
"""Above SLOW_TIMEOUT (s) timeouts grow by this, or a message would be tried for half an hour. From
there on it is still tried for longer than on a path of the default times."""

RTT_SHARE: Final = 1 / 8
VARIANCE_SHARE: Final = 1 / 4
VARIANCE_COUNT: Final = 4
MARGIN: Final = 1 / 4
"""The timeout is longer than the smoothed round trip by at least this share of it."""

WEAK_SHARE: Final = 1 / 4
WEAKER_SHARE: Final = 1 / 16
WEAK_REPETITION_MAX: Final = 2
SILENCE_FACTOR: Final = 1.5


class PathTiming:
    """The estimator of one path. It is as old as its peer's conversation, and forgotten with it."""

    __slots__ = ("_base", "_floor", "_rtt", "_timeout", "_timing", "_variance")

    def __init__(self, base: Timing, *, hop_count: int = 0) -> None:
        """`base`: what holds before anything is measured. `hop_count`: hops to the peer."""
        self._base = base
        self._rtt = 0.0
        self._variance = 0.0
        self._timeout = 0.0
        self._floor = 0.0
        self._timing = base
        self.set_hop_count(hop_count)

    @property
    def timing(self) -> Timing:
        """The parameters for the next confirmable message; the base's own object while they do."""
        return self._timing

    @property
    def round_trip(self) -> float | None:
        """The smoothed round trip (s), or None where none was certain yet."""
        return self._rtt or None

    def set_hop_count(self, hop_count: int) -> None:
        """The path has so many hops now (0 for unknown): its timeouts have another floor."""
        self._floor = min(
            max(TIMEOUT_MAX, self._base.ack_timeout),
            self._base.ack_timeout + HOP_TIME * max(hop_count, 0),
        )
        self._set(max(self._timeout, self._floor))

    def take_sample(self, seconds: float, *, repetition: int = 0) -> None:
        """A message was acknowledged so long after its first sending.

        With a `repetition` nobody knows which copy was acknowledged: the time is an upper bound
        of the round trip, so it counts a little, or where many are missing very little.
        """
        seconds = max(seconds, 0.0)
        if repetition:
            share = WEAK_SHARE if repetition <= WEAK_REPETITION_MAX else WEAKER_SHARE
            # An upper bound counts up to the largest timeout only: an outage is no round trip.
            bound = min(seconds, TIMEOUT_MAX) * (1 + MARGIN)
            self._set(self._timeout + share * (bound - self._timeout))
            return
        if not self._rtt:
            self._rtt, self._variance = seconds, seconds / 2
        else:
            self._variance += VARIANCE_SHARE * (abs(self._rtt - seconds) - self._variance)
            self._rtt += RTT_SHARE * (seconds - self._rtt)
        margin = max(VARIANCE_COUNT * self._variance, MARGIN * self._rtt)
        self._set(self._rtt + margin)

    def note_silence(self) -> None:
        """A message was given up: the next one is more patient (RFC 6298 section 5.5)."""
        self._set(self._timeout * SILENCE_FACTOR)

    def _set(self, timeout: float) -> None:
        base = self._base
        self._timeout = timeout = min(max(timeout, self._floor), max(TIMEOUT_MAX, self._floor))
        if timeout == self._timing.ack_timeout:
            return
        if timeout <= base.ack_timeout:
            self._timing = base
            return
        backoff = min(base.backoff_factor, SLOW_BACKOFF) if timeout > SLOW_TIMEOUT else None
        self._timing = replace(
            base, ack_timeout=timeout, backoff_factor=backoff or base.backoff_factor
        )
