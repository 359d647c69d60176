"""How fragments are sent, kept and given up: the parameters of RFC 8931 section 7.1, and bounds.

Raises  ConfigError for values that contradict each other
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError
from mesh.fragments.codec import FRAGMENT_SIZE_MAX, HEADER, SEQUENCE_COUNT
from mesh.packet import PACKET_SIZE_MAX
from mesh.security import UNICAST_OVERHEAD

RADIO_SIZE_MIN: Final = 127
RADIO_SIZE_MAX: Final = 2047
FRAGMENT_SIZE_MIN: Final = -(-PACKET_SIZE_MAX // SEQUENCE_COUNT)
"""With smaller ones the longest packet has more fragments than the bitmap has bits."""


@dataclass(frozen=True, slots=True)
class FragmentSettings:
    """One node's. Times in seconds, sizes in octets.

    `packet_size_max` is what goes into a frame whole. The radio of an area is the same
    everywhere, so that a fragment that fits into the first hop fits into all.
    """

    packet_size_max: int
    fragment_size: int
    gap: float = 0.05  # a frame may go some hops before the next is let loose
    window: int = SEQUENCE_COUNT  # one acknowledgement a round: half duplex (RFC 8931 section 7.1)
    rto: float = 3.0
    rto_max: float = 24.0
    retry_count_max: int = 3  # of one fragment, and of a question that nobody answers
    restart_count_max: int = 1  # of a packet, under another tag
    reassembly_timeout: float = 60.0
    linger: float = 60.0  # how long a finished tag is still answered for
    label_timeout: float = 60.0  # without a sign of its packet, at a relay

    sending_count_max: int = 8
    reassembly_count_max: int = 8
    reassembly_count_of_one_max: int = 3  # of one neighbour
    finished_count_max: int = 64  # whole packets that are answered for; the oldest goes
    label_count_max: int = 64  # those of finished packets make room
    label_count_of_one_max: int = 24

    def __post_init__(self) -> None:
        if not FRAGMENT_SIZE_MIN <= self.fragment_size <= FRAGMENT_SIZE_MAX:
            raise ConfigError(
                f"fragments of {self.fragment_size} octets, "
                f"expected {FRAGMENT_SIZE_MIN} to {FRAGMENT_SIZE_MAX}"
            )
        if not 1 <= self.window <= SEQUENCE_COUNT:
            raise ConfigError(f"a window of {self.window}, expected 1 to {SEQUENCE_COUNT}")
        if not 0 < self.rto <= self.rto_max < self.reassembly_timeout:
            raise ConfigError("expected rto <= rto_max < reassembly_timeout, and above 0")

    @classmethod
    def for_radio(cls, size_max: int, *, overhead: int = 0) -> FragmentSettings:
        """For frames of `size_max` octets, `overhead` of which the radio's own MAC takes.

        Raises ConfigError outside of RADIO_SIZE_MIN to RADIO_SIZE_MAX, or if nothing is left.
        """
        if not RADIO_SIZE_MIN <= size_max <= RADIO_SIZE_MAX:
            raise ConfigError(
                f"frames of {size_max} octets, expected {RADIO_SIZE_MIN} to {RADIO_SIZE_MAX}"
            )
        room = size_max - overhead - UNICAST_OVERHEAD
        return cls(packet_size_max=room, fragment_size=min(room - HEADER.size, FRAGMENT_SIZE_MAX))

    @classmethod
    def where_needed(cls, size_max: int, *, overhead: int) -> FragmentSettings | None:
        """As `for_radio`; None for a radio whose frames have room for every packet."""
        if size_max - overhead >= UNICAST_OVERHEAD + PACKET_SIZE_MAX:
            return None
        return cls.for_radio(size_max, overhead=overhead)
