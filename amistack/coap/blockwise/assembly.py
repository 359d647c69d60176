"""A request body as far as its blocks came, and where a further one belongs.

Spec    RFC 7959 sections 2.3 and 2.5 (in order, atomic; starting anew overwrites)
Never   joins blocks of two bodies: what does not continue or repeat what is here is refused
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from amistack.coap.blockwise.block import BlockOption
from amistack.coap.options import Option


class Place(enum.Enum):
    """Where a block stands to the body that it may be of."""

    NEXT = "next"
    REPEATED = "repeated"
    REWRITES = "rewrites what came after it"


@dataclass(slots=True)
class Assembly:
    """A request body under way.

    When octets come a second time from the start on, this is a repetition by the network, or
    another body that starts alike (its sender may have restarted). Which of them shows where a
    block differs (another body: what was there goes) or goes on at the end (the same).
    `rewound_to` is how far the second coming is, or None when there is none.
    """

    options: tuple[Option, ...]
    """Of the request, but those of this layer."""
    octets: bytearray = field(default_factory=bytearray)
    rewound_to: int | None = None
    asked_size: int | None = None
    """Of the response's blocks, where the requests said so far."""
    wants_size: bool = False

    def place_of(self, block: BlockOption, payload: bytes) -> Place | None:
        """Where a block belongs, or None where it does not fit. Changes nothing."""
        start, held = block.offset, len(self.octets)
        end = start + len(payload)
        if block.has_more and end <= held and self.octets[start:end] == payload:
            return Place.REPEATED
        if start == held:
            return Place.NEXT
        if 0 < start <= (self.rewound_to or 0):
            return Place.REWRITES
        return None

    def size_with(self, place: Place, block: BlockOption, payload: bytes) -> int:
        """Octets of the body once the block is in its place."""
        return len(self.octets) if place is Place.REPEATED else block.offset + len(payload)

    def take(self, place: Place, block: BlockOption, payload: bytes) -> None:
        """Put a block in its place, which `place_of` found."""
        start = block.offset
        if place is Place.REPEATED:
            if start <= (self.rewound_to or 0):
                end = max(start + len(payload), self.rewound_to or 0)
                self.rewound_to = end if end < len(self.octets) else None
            return
        del self.octets[start:]
        self.octets += payload
        self.rewound_to = None
