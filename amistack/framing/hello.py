"""The payloads of the frames that are for the link itself: hello and goodbye.

Spec    docs/protocol/framing.md, "Hello" and "Goodbye"
Raises  FrameError on octets, LocalProtocolError on a value, that is neither
Limit   VERSION_COUNT_MAX versions in a hello; TEXT_SIZE_MAX octets of text in a goodbye
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from amistack.errors import FrameError, LocalProtocolError

VERSION_COUNT_MAX: Final = 16
RUN_MAX: Final = 0xFFFF_FFFF
SILENCE_MAX_LIMIT: Final = 0xFFFF
TEXT_SIZE_MAX: Final = 128

_TAIL: Final = struct.Struct("!HII")  # silence limit, run, run heard


@dataclass(frozen=True, slots=True)
class Hello:
    """What each side says first: which versions it speaks, and how patient it is.

    ::

        octet   0      1..n                 n+1..n+2          n+3..n+6  n+7..n+10
                n      versions, ascending  silence_max (s)   run       heard

    `silence_max`: after so many seconds without a frame its sender gives the other side up.
    `run`: a number of 1 to 2^32 - 1 for this start of the sender, `heard`: that of the other
    side's, 0 as long as it was not heard. Raises LocalProtocolError for anything else.
    """

    versions: tuple[int, ...]
    silence_max: int
    run: int
    heard: int = 0

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault is not None:
            raise LocalProtocolError(fault)

    def _fault(self) -> str | None:
        if not 1 <= len(self.versions) <= VERSION_COUNT_MAX:
            return f"{len(self.versions)} versions, expected 1 to {VERSION_COUNT_MAX}"
        ascending = all(
            low < high for low, high in zip(self.versions, self.versions[1:], strict=False)
        )
        if not ascending or self.versions[0] < 1 or self.versions[-1] > 0xFF:
            return f"versions {self.versions}, expected 1 to 255, ascending"
        if not 1 <= self.silence_max <= SILENCE_MAX_LIMIT:
            return f"silence of {self.silence_max} s, expected 1 to {SILENCE_MAX_LIMIT}"
        if not 1 <= self.run <= RUN_MAX or not 0 <= self.heard <= RUN_MAX:
            return f"runs {self.run} and {self.heard}, expected 1, or 0, to {RUN_MAX}"
        return None

    def encode(self) -> bytes:
        """The payload of a HELLO frame."""
        head = bytes((len(self.versions), *self.versions))
        return head + _TAIL.pack(self.silence_max, self.run, self.heard)

    @classmethod
    def decode(cls, octets: bytes) -> Hello:
        """What a HELLO frame says. Raises FrameError, reason `bad hello`."""
        count = octets[0] if octets else 0
        if len(octets) != 1 + count + _TAIL.size:
            raise FrameError("bad hello", f"{len(octets)} octets with {count} versions")
        silence_max, run, heard = _TAIL.unpack_from(octets, 1 + count)
        try:
            return cls(tuple(octets[1 : 1 + count]), silence_max, run, heard)
        except LocalProtocolError as error:
            raise FrameError("bad hello", str(error)) from None


class Farewell(enum.IntEnum):
    """Why one side leaves. A number that is not here means as much as DONE."""

    DONE = 0
    NO_COMMON_VERSION = 1
    UNREADABLE = 2
    SILENT = 3
    UNEXPECTED_PEER = 4
    BUSY = 5


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last frame of its sender: a number, then words for people.

    `code` is a `Farewell`, or a number that this version does not know. Raises
    LocalProtocolError for a text of more than TEXT_SIZE_MAX octets in UTF-8.
    """

    code: int
    text: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.code <= 0xFF:
            raise LocalProtocolError(f"code {self.code}, expected 0 to 255")
        size = len(self.text.encode(errors="replace"))
        if size > TEXT_SIZE_MAX:
            raise LocalProtocolError(f"text of {size} octets, at most {TEXT_SIZE_MAX}")

    def encode(self) -> bytes:
        """The payload of a GOODBYE frame."""
        return bytes((self.code,)) + self.text.encode(errors="replace")

    @classmethod
    def decode(cls, octets: bytes) -> Goodbye:
        """What a GOODBYE frame says. Raises FrameError, reason `bad goodbye`."""
        if not 1 <= len(octets) <= 1 + TEXT_SIZE_MAX:
            raise FrameError("bad goodbye", f"{len(octets)} octets")
        try:
            return cls(octets[0], octets[1:].decode())
        except UnicodeDecodeError:
            raise FrameError("bad goodbye", "its text is no UTF-8") from None
