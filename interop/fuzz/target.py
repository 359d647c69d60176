"""What a fuzz target is, and how one reads its input as a sequence of operations.

A target is a plain function of octets. It takes apart what refusals it expects, and returns an
outcome: something small and hashable that tells this run from runs that went otherwise, by which a
fuzzer without compiled coverage knows what is worth keeping; a frozenset is several of them, and
the run is worth keeping if one of them is new. Whatever the function raises is a
defect: an exception that is not the layer's own, or `PromiseBroken` where the layer promises more
than not to fall over.

Never   reads a clock, keeps anything from one run to the next, or makes chance: the same octets
        have the same outcome, in every process
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import AmiError, RemoteProtocolError

Outcome = Hashable

INPUT_SIZE_MAX: Final = 1024
REASON_SIZE_MAX: Final = 64
"""Characters of a refusal's reason: it is a counter's label, and never what a peer said."""


class PromiseBroken(Exception):
    """Something happened that the layer says never happens."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to be fuzzed.

    `checks` says in one line what holds for every input. `seeds` makes inputs that go deep: what a
    proper peer would send. `tokens` are octets with a meaning, for the mutator to strew about. With
    `is_cbor` it also changes inputs item by item. No input is longer than `size_max`.
    """

    name: str
    checks: str
    run: Callable[[bytes], Outcome]
    seeds: Callable[[], Sequence[bytes]]
    tokens: tuple[bytes, ...] = ()
    is_cbor: bool = False
    size_max: int = INPUT_SIZE_MAX


def promise(holds: object, what: str) -> None:
    """Raise PromiseBroken, saying `what`, unless it holds."""
    if not holds:
        raise PromiseBroken(what)


def refusal(error: AmiError) -> Outcome:
    """The outcome of an input that was refused: how, why, and by which line.

    Raises PromiseBroken where the reason is no short fixed phrase.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    line = 0 if trace is None else trace.tb_lineno
    if not isinstance(error, RemoteProtocolError):
        return type(error).__name__, line
    reason = str(error.reason)
    if len(reason) > REASON_SIZE_MAX or not reason.isascii() or not reason.isprintable():
        raise PromiseBroken(f"reason {reason[:80]!r} is no label") from error
    return type(error).__name__, reason, line


def size_class(size: int) -> int:
    """How large something is, roughly: 0, 1, 2, 3 for up to 4, 4 for up to 8, and so on."""
    return (size - 1).bit_length() + 1 if size > 1 else size


class Trail:
    """The outcomes of a sequence of operations: each with the one before it."""

    __slots__ = ("_last", "_steps")

    def __init__(self) -> None:
        self._last: Outcome = None
        self._steps: set[Outcome] = set()

    def note(self, step: Outcome) -> None:
        """Something happened."""
        self._steps.add((self._last, step))
        self._last = step

    @property
    def outcome(self) -> Outcome:
        """All of it."""
        return frozenset(self._steps)


class Reader:
    """An input read as operations and their arguments, octet by octet. At its end all is zero."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self._at >= len(self._octets)

    def octet(self) -> int:
        """The next octet."""
        at = self._at
        self._at = at + 1
        return self._octets[at] if at < len(self._octets) else 0

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1, of one octet; `bound` is at least 1."""
        return self.octet() % bound

    def number(self, size: int) -> int:
        """A number of `size` octets."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """The next `size` octets, or as many as are left."""
        at = self._at
        self._at = at + size
        return self._octets[at : at + size]

    def piece(self) -> bytes:
        """Some octets, as many as the next octet says."""
        return self.take(self.octet())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(max(0, len(self._octets) - self._at))
