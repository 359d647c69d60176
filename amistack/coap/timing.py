"""The times of CoAP's message layer, and what follows from them.

Spec    RFC 7252 sections 4.7, 4.8, 4.8.1 and 4.8.2
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Transmission parameters of a path (RFC 7252 table 2); all times in seconds.

    A slow path (many hops) gets longer ones; everything derived follows.
    """

    ack_timeout: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    max_latency: float = 100.0
    backoff_factor: float = 2.0
    """What each timeout of a message is longer by than the one before; the RFC doubles."""
    probing_rate: float = 1.0
    """Octets a second, on average, to a peer that says nothing (PROBING_RATE)."""

    @property
    def max_transmit_span(self) -> float:
        """From the first sending of a confirmable message to its last."""
        return self._timeouts(self.max_retransmit)

    @property
    def max_transmit_wait(self) -> float:
        """From the first sending of a confirmable message to giving it up."""
        return self._timeouts(self.max_retransmit + 1)

    @property
    def exchange_lifetime(self) -> float:
        """How long a message id of a confirmable message must not be used again."""
        return self.max_transmit_span + 2 * self.max_latency + self.ack_timeout

    @property
    def non_lifetime(self) -> float:
        """The same for a non-confirmable message."""
        return self.max_transmit_span + self.max_latency

    def _timeouts(self, count: int) -> float:
        """So many timeouts of one message in a row, by the longest dice."""
        times = sum(self.backoff_factor**index for index in range(count))
        return self.ack_timeout * self.ack_random_factor * times
