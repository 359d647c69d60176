"""Frames on a TCP stream: two octets that say how many follow, then the frame.

Spec    docs/protocol/framing.md, "On TCP"
Gives   `wrap` and `StreamDeframer`, each the other's inverse; `TCP`, both together
Raises  nothing: what cannot be followed any further is in `StreamDeframer.error`
Limit   at most PREFIX.size + FRAME_SIZE_MAX - 1 octets are kept between calls
"""

from __future__ import annotations

import struct
from typing import Final

from amistack.errors import FrameError
from amistack.framing.carriers import Carrier, Skipped
from amistack.framing.frame import FRAME_SIZE_MAX, FRAME_SIZE_MIN, VERSION, Frame

PREFIX: Final = struct.Struct("!H")
WIRE_SIZE_MAX: Final = PREFIX.size + FRAME_SIZE_MAX
AFTER_END: Final = "after the end of the stream"


def wrap(frame: Frame) -> bytes:
    """The octets of `frame` on a stream."""
    octets = frame.encode()
    return PREFIX.pack(len(octets)) + octets


class StreamDeframer:
    """Finds the frames of one stream.

    TCP loses and damages nothing, so a size that no frame has, or a version that is not ours,
    means that the other side speaks something else: from there on nothing is believed, all is
    skipped, and `error` says why. Anything else that is wrong costs its own frame.
    """

    def __init__(self) -> None:
        self.octets_received = 0
        self.octets_framed = 0
        self.octets_skipped = 0
        self.octets_idle = 0  # A stream has no delimiters.
        self._buffer = b""
        self._error: FrameError | None = None

    @property
    def octets_pending(self) -> int:
        """How many are kept: the beginning of a frame."""
        return len(self._buffer)

    @property
    def error(self) -> FrameError | None:
        """Why nothing more is read from this stream. Set once, with the octets in an account."""
        return self._error

    def receive_data(self, data: bytes) -> list[Frame | Skipped]:
        """Everything that `data` completes, in order. Raises nothing."""
        self.octets_received += len(data)
        if self._error is not None:
            return [self._skip(data, AFTER_END)] if data else []
        buffer = self._buffer + data if self._buffer else data
        found: list[Frame | Skipped] = []
        place, end = 0, len(buffer)
        while place + PREFIX.size <= end:
            (size,) = PREFIX.unpack_from(buffer, place)
            frame_at = place + PREFIX.size
            self._error = _fatal(size, buffer[frame_at : frame_at + 1])
            if self._error is not None:
                found.append(self._skip(buffer[place:], self._error.reason))
                place = end
                break
            if frame_at + size > end:
                break
            try:
                found.append(Frame.decode(buffer[frame_at : frame_at + size]))
            except FrameError as error:
                found.append(self._skip(buffer[place : frame_at + size], error.reason))
            else:
                self.octets_framed += PREFIX.size + size
            place = frame_at + size
        self._buffer = buffer[place:]
        return found

    def _skip(self, octets: bytes, reason: str) -> Skipped:
        self.octets_skipped += len(octets)
        return Skipped(octets, reason)


def _fatal(size: int, version: bytes) -> FrameError | None:
    """What is wrong with the beginning of a frame; `version` is empty if it is not here yet."""
    if not FRAME_SIZE_MIN <= size <= FRAME_SIZE_MAX:
        return FrameError("wrong size", f"{size}, expected {FRAME_SIZE_MIN} to {FRAME_SIZE_MAX}")
    if version and version[0] != VERSION:
        return FrameError("unknown version", f"{version[0]}, expected {VERSION}")
    return None


TCP: Final = Carrier("tcp", wrap, StreamDeframer, is_connection=True)
