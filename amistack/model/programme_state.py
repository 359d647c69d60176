"""What a meter says about programmes: the one that runs, one that waits, why one was refused.

Spec    docs/protocol/model.md, "Programme"
Raises  `ModelError`, and nothing else, from every decoder
"""

from __future__ import annotations

from dataclasses import dataclass

from amistack.model import wire
from amistack.model.programme import DIGEST_SIZE, VERSION_MAX, Programme
from amistack.model.programme_check import (
    FAULT_COUNT_MAX,
    PLACE_SIZE_MAX,
    REASON_SIZE_MAX,
    Fault,
)


@dataclass(frozen=True, slots=True)
class ProgrammeStamp:
    """A programme by its version and digest, and from when on it runs (UTC s).

    It is the acknowledgement, too: the meter has it, durably.
    """

    version: int
    digest: bytes
    since: int

    def __post_init__(self) -> None:
        wire.integer(self.version, 0, VERSION_MAX, "version")
        wire.octets(self.digest, DIGEST_SIZE, DIGEST_SIZE, "digest")
        wire.integer(self.since, 0, wire.UTC_S_MAX, "time it runs from")

    def to_tree(self) -> list[object]:
        """The stamp's items."""
        return [self.version, self.digest, self.since]

    @classmethod
    def from_tree(cls, item: object) -> ProgrammeStamp:
        """The stamp that `to_tree` wrote."""
        version, digest, since = wire.array(item, 3, 3, "stamp")
        return cls(
            wire.integer(version, 0, VERSION_MAX, "version"),
            wire.octets(digest, DIGEST_SIZE, DIGEST_SIZE, "digest"),
            wire.integer(since, 0, wire.UTC_S_MAX, "time it runs from"),
        )

    def encode(self) -> bytes:
        """The stamp's one encoding."""
        return wire.dump(self.to_tree())

    @classmethod
    def decode(cls, data: bytes) -> ProgrammeStamp:
        """The stamp that `data` is the encoding of."""
        return cls.from_tree(wire.load(data))


@dataclass(frozen=True, slots=True)
class ProgrammeState:
    """What runs, whole; what waits, if anything; what a roll-back would return to, if anything."""

    running: ProgrammeStamp
    waiting: ProgrammeStamp | None
    previous: ProgrammeStamp | None
    programme: Programme

    def encode(self) -> bytes:
        """The state's one encoding."""
        return wire.dump(
            [
                self.running.to_tree(),
                [] if self.waiting is None else self.waiting.to_tree(),
                [] if self.previous is None else self.previous.to_tree(),
                self.programme.encode(),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ProgrammeState:
        """The state that `data` is the encoding of."""
        running, waiting, previous, programme = wire.array(wire.load(data), 4, 4, "state")
        return cls(
            ProgrammeStamp.from_tree(running),
            _stamp_or_none(waiting),
            _stamp_or_none(previous),
            Programme.decode(wire.octets(programme, 1, wire.PAYLOAD_SIZE_MAX, "programme")),
        )


@dataclass(frozen=True, slots=True)
class RollBack:
    """Asks a meter to return to `version`: the one before, or what runs while another waits."""

    version: int

    def __post_init__(self) -> None:
        wire.integer(self.version, 0, VERSION_MAX, "version")

    def encode(self) -> bytes:
        """The command's one encoding."""
        return wire.dump([self.version])

    @classmethod
    def decode(cls, data: bytes) -> RollBack:
        """The command that `data` is the encoding of."""
        (version,) = wire.array(wire.load(data), 1, 1, "roll-back")
        return cls(wire.integer(version, 0, VERSION_MAX, "version"))


@dataclass(frozen=True, slots=True)
class ProgrammeRefusal:
    """Why that version was not taken: every fault, up to FAULT_COUNT_MAX. Nothing has changed."""

    version: int
    faults: tuple[Fault, ...]

    def __post_init__(self) -> None:
        wire.integer(self.version, 0, VERSION_MAX, "version")
        wire.array(self.faults, 1, FAULT_COUNT_MAX, "faults")

    def encode(self) -> bytes:
        """The refusal's one encoding."""
        return wire.dump([self.version, [[fault.place, fault.reason] for fault in self.faults]])

    @classmethod
    def decode(cls, data: bytes) -> ProgrammeRefusal:
        """The refusal that `data` is the encoding of."""
        version, items = wire.array(wire.load(data), 2, 2, "refusal")
        return cls(
            wire.integer(version, 0, VERSION_MAX, "version"),
            tuple(_fault(item) for item in wire.array(items, 1, FAULT_COUNT_MAX, "faults")),
        )


def _stamp_or_none(item: object) -> ProgrammeStamp | None:
    return ProgrammeStamp.from_tree(item) if wire.array(item, 0, 3, "stamp") else None


def _fault(item: object) -> Fault:
    place, reason = wire.array(item, 2, 2, "fault")
    return Fault(
        wire.text(place, 1, PLACE_SIZE_MAX, "place"),
        wire.text(reason, 1, REASON_SIZE_MAX, "reason"),
    )
