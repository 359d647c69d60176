"""One packet on its way out in fragments: which goes next, and when it is given up.

Spec    RFC 8931 section 6: all fragments once before any is repeated, oldest first; the last of a
        round asks for an acknowledgement, under a timer that doubles
Out     `take_due`, one fragment at a time, `gap` seconds apart; `next_due`
Never   knows neighbours, tags' pools or packets' meaning
"""

from __future__ import annotations

import enum

from mesh.fragments.codec import BITMAP_FULL, BITMAP_NULL, Fragment, FragmentAck, bit_of
from mesh.fragments.settings import FragmentSettings


class Progress(enum.Enum):
    """Where a packet stands."""

    GOING = "going"
    DONE = "done"
    REFUSED = "refused on the way"
    UNANSWERED = "no answer"
    EXHAUSTED = "one fragment never arrives"


class Outbound:
    """One packet under one tag."""

    def __init__(
        self,
        packet: bytes,
        *,
        tag: int,
        settings: FragmentSettings,
        now: float,
        rto: float,
    ) -> None:
        self.tag = tag
        self.packet = packet
        self.has_been_answered = False
        self.sent_count = 0
        self._settings = settings
        self._pieces = [
            (place, packet[place : place + settings.fragment_size])
            for place in range(0, len(packet), settings.fragment_size)
        ]
        self._tries = [0] * len(self._pieces)
        self._missing = set(range(len(self._pieces)))
        # What is still to go in this round, next first; at its end we ask what has arrived.
        self._round = list(range(len(self._pieces)))
        self._outstanding = 0
        self._last_sent = 0
        self._window = settings.window
        self._gap = settings.gap
        self._rto = rto
        self._silent_count = 0
        self._send_at: float | None = now
        self._answer_by: float | None = None
        self._asked_at: float | None = None

    @property
    def piece_count(self) -> int:
        """How many fragments it has."""
        return len(self._pieces)

    def next_due(self) -> float | None:
        """When `take_due` has something to do."""
        return self._send_at if self._send_at is not None else self._answer_by

    def take_due(self, *, now: float) -> Fragment | Progress | None:
        """The next fragment, if it is time; or how it ended, if that is."""
        if self._send_at is not None:
            return self._next_piece(now=now) if now >= self._send_at else None
        if self._answer_by is None or now < self._answer_by:
            return None
        self._silent_count += 1
        if self._silent_count > self._settings.retry_count_max:
            return Progress.UNANSWERED
        # An answer to either question would be taken for one to both: no sample of that.
        self._asked_at = None
        self._rto = min(self._rto * 2, self._settings.rto_max)
        self._answer_by = now + self._rto
        return self._fragment(self._last_sent, wants_ack=True)

    def receive_ack(self, ack: FragmentAck, *, now: float) -> Progress:
        """What has arrived there, or not."""
        if ack.bitmap == BITMAP_NULL:
            return Progress.REFUSED
        self.has_been_answered = True
        if ack.bitmap == BITMAP_FULL:
            return Progress.DONE
        if self._answer_by is None or not ack.bitmap & bit_of(self._last_sent):
            # What answers our last question knows of the fragment that asked it. This is older.
            return Progress.GOING
        if ack.has_congestion:
            # Until the end of this packet (RFC 8931 section 7.1, UseECN).
            self._window = max(1, self._window // 2)
            self._gap = self._gap * 2
        self._silent_count = 0
        self._outstanding = 0
        self._missing = {
            piece for piece in range(len(self._pieces)) if not ack.bitmap & bit_of(piece)
        }
        unsent = [piece for piece in sorted(self._missing) if self._tries[piece] == 0]
        again = [piece for piece in sorted(self._missing) if self._tries[piece] > 0]
        self._round = unsent or again
        if not self._round:
            # Everything was said to be there, and yet it is not whole: ask until it is.
            self._round = [self._last_sent]
        if any(self._tries[piece] > self._settings.retry_count_max for piece in self._round):
            return Progress.EXHAUSTED
        if self._asked_at is not None:
            sample = now - self._asked_at
            self._rto = min(max(self._settings.rto / 2, 3 * sample), self._settings.rto_max)
            self._asked_at = None
        self._answer_by = None
        self._send_at = now
        return Progress.GOING

    def _next_piece(self, *, now: float) -> Fragment:
        piece = self._round.pop(0)
        self._outstanding += 1
        is_last = not self._round or self._outstanding >= self._window
        self._tries[piece] += 1
        self._last_sent = piece
        if is_last:
            self._send_at = None
            self._asked_at = now
            self._answer_by = now + self._rto
        else:
            self._send_at = now + self._gap
        return self._fragment(piece, wants_ack=is_last)

    def _fragment(self, piece: int, *, wants_ack: bool) -> Fragment:
        self.sent_count += 1
        place, octets = self._pieces[piece]
        offset = len(self.packet) if piece == 0 else place
        return Fragment(self.tag, piece, offset, octets, wants_ack)
