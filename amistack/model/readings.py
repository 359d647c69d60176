"""A channel's intervals in a row, between two reads of its register.

Spec    docs/protocol/model.md, "Interval block"
Raises  `ModelError` on a block that cannot be, and from `values` on octets that are not packed
        values: taking a block apart and unpacking it are two steps
Never   unpacks by itself: a head-end stores `packed` as it came
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.packing import VALUE_COUNT_MAX, WIDTH_MAX, pack, unpack
from amistack.model.quality import (
    GOOD,
    Quality,
    QualityRun,
    check_runs,
    expand,
    runs_from_tree,
    runs_of,
    runs_to_tree,
)

CHANNEL_MAX: Final = 255
BLOCK_COUNT_MAX: Final = 16
"""In one message."""

PACKED_SIZE_MAX: Final = 8 + VALUE_COUNT_MAX // 16 + VALUE_COUNT_MAX // 8 * (1 + WIDTH_MAX)


def _packed(values: Sequence[int | None]) -> bytes:
    """The values as they travel. Nobody reads what stands for a missing one: the shorter of two."""
    if None not in values:
        return pack([value for value in values if value is not None])
    # The smallest widens no group of offsets; the one before needs no new beginning.
    smallest = min((value for value in values if value is not None), default=0)
    held, latest = [], 0
    for value in values:
        latest = latest if value is None else value
        held.append(latest)
    return min(
        pack([smallest if value is None else value for value in values]), pack(held), key=len
    )


@dataclass(frozen=True, slots=True)
class IntervalBlock:
    """`count` intervals of `interval_s` seconds on one channel; make one with `of`.

    `opening` is the register at the first instant, in the channel's unit (Wh), and
    `opening + advance` the register at the last. `packed` holds the value of each interval
    (`packing`); where `qualities` say MISSING, what is packed means nothing.
    """

    channel: int
    interval_s: int
    count: int
    opening: int
    advance: int
    packed: bytes
    qualities: tuple[QualityRun, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.channel, 0, CHANNEL_MAX, "channel")
        wire.check_interval(self.interval_s)
        wire.integer(self.count, 0, wire.DAY_S // self.interval_s, "interval count")
        wire.integer(self.opening, -wire.REGISTER_MAX, wire.REGISTER_MAX, "opening")
        wire.integer(self.advance, -wire.REGISTER_MAX, wire.REGISTER_MAX, "advance")
        wire.integer(self.closing, -wire.REGISTER_MAX, wire.REGISTER_MAX, "closing")
        wire.octets(self.packed, 0, PACKED_SIZE_MAX, "packed values")
        if self.qualities:
            check_runs(self.qualities, self.count)

    @classmethod
    def of(
        cls,
        values: Sequence[int | None],
        *,
        channel: int,
        interval_s: int,
        opening: int,
        advance: int | None = None,
        flags: Sequence[Quality] | None = None,
    ) -> IntervalBlock:
        """The block of `values`, None for a missing one, with `flags` for each or for none.

        `advance` is the sum of the values unless given; it must be given if one is missing.
        """
        if flags is None:
            flags = [GOOD] * len(values)
        if len(flags) != len(values):
            raise ModelError("bad quality", f"{len(flags)} flags for {len(values)} values")
        marked = [
            flag | Quality.MISSING if value is None else flag
            for value, flag in zip(values, flags, strict=True)
        ]
        known = [value for value in values if value is not None]
        if len(known) < len(values) and advance is None:
            raise ModelError("bad block", "no advance, though an interval is missing")
        if any(
            flag & Quality.MISSING and value is not None
            for value, flag in zip(values, marked, strict=True)
        ):
            raise ModelError("bad quality", "a known value is flagged as missing")
        return cls(
            channel,
            interval_s,
            len(values),
            opening,
            sum(known) if advance is None else advance,
            _packed(values),
            runs_of(marked),
        )

    @property
    def closing(self) -> int:
        """The register at the last instant."""
        return self.opening + self.advance

    @property
    def has_missing(self) -> bool:
        """Whether some interval has no value."""
        return any(run.flags & Quality.MISSING for run in self.qualities)

    @property
    def is_consistent(self) -> bool:
        """Whether the values add up to the advance; with one missing nothing can be said: True.

        Raises ModelError if `packed` is not packed values.
        """
        return self.has_missing or sum(unpack(self.packed, self.count)) == self.advance

    def values(self) -> tuple[int | None, ...]:
        """The value of each interval, None for a missing one. Unpacks anew at every call.

        Raises ModelError if `packed` is not packed values.
        """
        values: list[int | None] = [*unpack(self.packed, self.count)]
        for run in self.qualities:
            if run.flags & Quality.MISSING:
                values[run.first : run.end] = [None] * run.count
        return tuple(values)

    def flags(self) -> list[Quality]:
        """The flags of each interval."""
        return expand(self.qualities, self.count)

    def to_tree(self) -> list[object]:
        """The block's items. `count` is not among them: a day has as many as fit."""
        items: list[object] = [
            self.channel,
            wire.interval_to_tree(self.interval_s),
            self.opening,
            self.advance,
            self.packed,
        ]
        if self.qualities:
            items.append(runs_to_tree(self.qualities))
        return items

    @classmethod
    def from_tree(cls, item: object, *, count: int | None = None) -> IntervalBlock:
        """The block that `to_tree` wrote, of a whole day unless `count` says otherwise."""
        items = wire.array(item, 5, 6, "block")
        interval_s = wire.interval_from_tree(items[1])
        return cls(
            wire.integer(items[0], 0, CHANNEL_MAX, "channel"),
            interval_s,
            wire.DAY_S // interval_s if count is None else count,
            wire.integer(items[2], -wire.REGISTER_MAX, wire.REGISTER_MAX, "opening"),
            wire.integer(items[3], -wire.REGISTER_MAX, wire.REGISTER_MAX, "advance"),
            wire.octets(items[4], 0, PACKED_SIZE_MAX, "packed values"),
            runs_from_tree(items[5]) if len(items) > 5 else (),
        )
