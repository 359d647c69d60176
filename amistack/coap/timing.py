"""The times of CoAP's message layer, and what follows from them.

Spec    RFC 7252 sections 4.8, 4.8.1 and 4.8.2
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

    @property
    def max_transmit_span(self) -> float:
        """From the first sending of a confirmable message to its last."""
        return self.ack_timeout * ((1 << self.max_retransmit) - 1) * self.ack_random_factor

    @property
    def max_transmit_wait(self) -> float:
        """From the first sending of a confirmable message to giving it up."""
        return self.ack_timeout * ((1 << (self.max_retransmit + 1)) - 1) * self.ack_random_factor

    @property
    def exchange_lifetime(self) -> float:
        """How long a message id of a confirmable message must not be used again."""
        return self.max_transmit_span + 2 * self.max_latency + self.ack_timeout

    @property
    def non_lifetime(self) -> float:
        """The same for a non-confirmable message."""
        return self.max_transmit_span + self.max_latency
