"""Which Partial IVs of a peer were accepted already.

Spec    RFC 8613 sections 3.2.2 and 7.4 (whose default is 32 wide; ours is 64)
Gives   `state`, two integers to store: the bitmap has at most 63 bits, so that both fit a signed
        64-bit column; messages in order keep it at 0
Raises  LocalProtocolError on accepting what is not fresh, or on a state that is none
Never   forgets: what was accepted or fell out of the window is refused for good
"""

from __future__ import annotations

from typing import Final

from amistack.errors import LocalProtocolError

WINDOW_SIZE_MIN: Final = 32
WINDOW_SIZE_MAX: Final = 64

BASE_MAX: Final = 1 << 40
"""One above the highest Partial IV: the base of a window that has nothing fresh any more."""


class ReplayWindow:
    """A window of `size` numbers that slides with the highest one accepted.

    ::

        number   ... base-1 | base | base+1  base+2 ... base+size-1 | base+size ...
                 refused    | free |  bit 0   bit 1 ...  bit size-2 | free

    `base` is the lowest number that can still come, so its own bit would always be 0 and has
    no place in the bitmap.
    """

    __slots__ = ("_base", "_bitmap", "_size")

    def __init__(self, size: int = WINDOW_SIZE_MAX) -> None:
        if not WINDOW_SIZE_MIN <= size <= WINDOW_SIZE_MAX:
            raise LocalProtocolError(
                f"replay window of {size}, expected {WINDOW_SIZE_MIN} to {WINDOW_SIZE_MAX}"
            )
        self._size = size
        self._base = 0
        self._bitmap = 0

    def __repr__(self) -> str:
        return f"ReplayWindow(base={self._base}, bitmap={self._bitmap:#x}, size={self._size})"

    @property
    def size(self) -> int:
        """How many numbers behind the highest accepted one may still come, itself included."""
        return self._size

    @property
    def state(self) -> tuple[int, int]:
        """Base and bitmap: what `restore` needs."""
        return self._base, self._bitmap

    @classmethod
    def restore(cls, base: int, bitmap: int, size: int = WINDOW_SIZE_MAX) -> ReplayWindow:
        """The window with that state, which may come from a wider or a narrower one.

        Raises LocalProtocolError on a state that no window gives.
        """
        if not 0 <= base <= BASE_MAX:
            raise LocalProtocolError(f"replay window base {base}, expected 0 to {BASE_MAX}")
        highest = base + bitmap.bit_length()
        if not 0 <= bitmap < 1 << (WINDOW_SIZE_MAX - 1) or (bitmap and highest >= BASE_MAX):
            raise LocalProtocolError(f"replay window bitmap {bitmap:#x}, expected one of 63 bits")
        window = cls(size)
        window._settle(base, bitmap << 1)
        return window

    def is_fresh(self, piv: int) -> bool:
        """Whether that Partial IV was never accepted and is not too old to know."""
        offset = piv - self._base
        if piv >= BASE_MAX:
            return False
        if offset <= 0:
            return offset == 0
        if offset >= self._size:
            return True
        return not self._bitmap >> (offset - 1) & 1

    def accept(self, piv: int) -> None:
        """Refuse that Partial IV from now on. Raises LocalProtocolError if it is not fresh."""
        offset = piv - self._base
        if not offset and not self._bitmap and piv < BASE_MAX:
            self._base += 1
            return
        if not self.is_fresh(piv):
            raise LocalProtocolError(f"Partial IV {piv} is not fresh, ask is_fresh first")
        # The bitmap is slid before the bit is set: a jump may be as far as 2^40.
        slide = max(0, offset - self._size + 1)
        self._settle(self._base + slide, self._bitmap << 1 >> slide | 1 << (offset - slide))

    def _settle(self, base: int, seen: int) -> None:
        """Take `seen`, whose bit 0 is `base`, and move up past what can never come."""
        excess = max(0, seen.bit_length() - self._size)
        base, seen = base + excess, seen >> excess
        ones = (~seen & (seen + 1)).bit_length() - 1
        self._base = base + ones
        self._bitmap = seen >> ones >> 1
