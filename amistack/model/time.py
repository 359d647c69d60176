"""The head-end's answer to the question what time it is.

Spec    docs/protocol/model.md, "Time"
Raises  `ModelError`, and nothing else, from the decoder
"""

from __future__ import annotations

from dataclasses import dataclass

from amistack.model import wire


@dataclass(frozen=True, slots=True)
class TimeAnswer:
    """`received_ms`: when the question came, UTC in milliseconds. `held_ms`: until the answer left.

    The meter halves its own round trip, less `held_ms`, to bound the error.
    """

    received_ms: int
    held_ms: int

    def __post_init__(self) -> None:
        wire.integer(self.received_ms, 0, wire.UTC_MS_MAX, "time of receipt")
        wire.integer(self.held_ms, 0, wire.HELD_MS_MAX, "time held")

    def encode(self) -> bytes:
        """The answer's one encoding."""
        return wire.dump([self.received_ms, self.held_ms])

    @classmethod
    def decode(cls, data: bytes) -> TimeAnswer:
        """The answer that `data` is the encoding of."""
        items = wire.array(wire.load(data), 2, 2, "time")
        return cls(
            wire.integer(items[0], 0, wire.UTC_MS_MAX, "time of receipt"),
            wire.integer(items[1], 0, wire.HELD_MS_MAX, "time held"),
        )
