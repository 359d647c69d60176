"""Frames on a serial line: a CRC-32 behind each, COBS, and a zero on either side.

Spec    docs/protocol/framing.md, "On a serial line"
Gives   `wrap` and `SerialDeframer`, each the other's inverse; `SERIAL`, both together
Raises  nothing: whatever arrives is a frame, a delimiter, or skipped
Limit   at most ENCODED_SIZE_MAX octets are kept between calls
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from amistack.errors import FrameError
from amistack.framing import cobs
from amistack.framing.carriers import Carrier, Skipped
from amistack.framing.frame import FRAME_SIZE_MAX, Frame

DELIMITER: Final = b"\0"
CRC: Final = struct.Struct("!I")
ENCODED_SIZE_MAX: Final = cobs.encoded_size_max(FRAME_SIZE_MAX + CRC.size)
WIRE_SIZE_MAX: Final = ENCODED_SIZE_MAX + 2 * len(DELIMITER)


def wrap(frame: Frame) -> bytes:
    """The octets of `frame` on a line."""
    octets = frame.encode()
    # A zero in front as well: noise since the last frame then does not reach into this one.
    return DELIMITER + cobs.encode(octets + CRC.pack(zlib.crc32(octets))) + DELIMITER


class SerialDeframer:
    """Finds the frames of one line.

    A zero is always a border, so damage costs the frames that it touches and no others. A
    border that was damaged itself joins what it stood between. More than ENCODED_SIZE_MAX
    octets without a border are no frame: they, and all up to the next border, are skipped.
    """

    def __init__(self) -> None:
        self.octets_received = 0
        self.octets_framed = 0
        self.octets_skipped = 0
        self.octets_idle = 0
        self._buffer = bytearray()
        self._is_lost = False  # More came without a border than any frame has.

    @property
    def octets_pending(self) -> int:
        """How many are kept: since the last border."""
        return len(self._buffer)

    @property
    def error(self) -> FrameError | None:
        """None: a line can always be followed again from the next border on."""
        return None

    def receive_data(self, data: bytes) -> list[Frame | Skipped]:
        """Everything that `data` completes, in order. Raises nothing."""
        self.octets_received += len(data)
        found: list[Frame | Skipped] = []
        *ended, rest = data.split(DELIMITER)
        for piece in ended:
            self._take(piece, found)
            self._end_piece(found)
        self._take(rest, found)
        return found

    def _take(self, piece: bytes, found: list[Frame | Skipped]) -> None:
        """Octets without a border among them."""
        place = 0
        # Accounts are cut at the same octets however the stream was chopped up.
        while len(self._buffer) + len(piece) - place > ENCODED_SIZE_MAX:
            taken = ENCODED_SIZE_MAX + 1 - len(self._buffer)
            self._buffer += piece[place : place + taken]
            place += taken
            self._is_lost = True
            self._skip("no border", found)
        self._buffer += piece[place:]

    def _end_piece(self, found: list[Frame | Skipped]) -> None:
        """A border came."""
        self.octets_idle += len(DELIMITER)
        is_lost, self._is_lost = self._is_lost, False
        if not self._buffer:
            return
        if is_lost:
            self._skip("no border", found)
            return
        try:
            found.append(_unwrap(bytes(self._buffer)))
        except FrameError as error:
            self._skip(error.reason, found)
        else:
            self.octets_framed += len(self._buffer)
            self._buffer.clear()

    def _skip(self, reason: str, found: list[Frame | Skipped]) -> None:
        self.octets_skipped += len(self._buffer)
        found.append(Skipped(bytes(self._buffer), reason))
        self._buffer.clear()


def _unwrap(encoded: bytes) -> Frame:
    """The frame between two borders. Raises FrameError."""
    octets = cobs.decode(encoded)
    if len(octets) < CRC.size:
        raise FrameError("wrong size", f"{len(octets)} octets, expected a CRC of {CRC.size}")
    covered, (crc,) = octets[: -CRC.size], CRC.unpack(octets[-CRC.size :])
    if crc != (expected := zlib.crc32(covered)):
        raise FrameError("wrong crc", f"{crc:#010x}, expected {expected:#010x}")
    return Frame.decode(covered)


SERIAL: Final = Carrier("serial", wrap, SerialDeframer, is_connection=False)
