"""Where each meter is to be asked: behind which collector, or at which UDP address.

Spec    RFC 6550 section 7.2 (path sequences, the lollipop), section 6.7.8 (Transit Information)
Gives   the newest path sequence wins, whatever order its news came in; `confirmed` says when the
        place last proved right
Limit   LOCATIONS_MAX meters; TableFull above
Never   lets a meter's word move another meter, or an older path sequence move one that still
        answers where it is
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from amistack.errors import LocalProtocolError, TableFull
from amistack.identifiers import Eui64

SEQUENCE_WINDOW: Final = 16
LINEAR_START: Final = 128
"""From here to 255 a sequence counts up once after a start; below it goes round."""
LIFETIME_S: Final = 7200.0
"""So long after its last confirmation a place yields to any other word about the meter; later if
the row it was learned from lasts longer: until then nobody expects it to be told again."""
LOCATIONS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class BehindCollector:
    """In the mesh, under this collector."""

    collector: Eui64


@dataclass(frozen=True, slots=True)
class AtAddress:
    """On plain IP."""

    host: str
    port: int


Place = BehindCollector | AtAddress


@dataclass(frozen=True, slots=True)
class Location:
    """Where a meter is. Times in seconds of the caller's clock.

    `path_sequence` is the meter's, None where the place is known without one (plain IP);
    `lifetime_s` how long it stands without being confirmed.
    """

    place: Place
    path_sequence: int | None
    learned_at: float
    confirmed_at: float
    lifetime_s: float = LIFETIME_S


def is_newer_path(sequence: int, than: int) -> bool:
    """Whether a path sequence comes after another (RFC 6550 section 7.2).

    False where they are too far apart to be compared: whoever asks keeps what it has.
    """
    if (sequence >= LINEAR_START) is (than >= LINEAR_START):
        if sequence >= LINEAR_START:
            return 0 < sequence - than <= SEQUENCE_WINDOW
        return 0 < (sequence - than) % LINEAR_START <= SEQUENCE_WINDOW
    if sequence >= LINEAR_START:
        # One that has just begun anew, against one that goes round: newer unless it is about
        # to go over to the other's round.
        return 256 + than - sequence > SEQUENCE_WINDOW
    return 256 + sequence - than <= SEQUENCE_WINDOW


class Locations:
    """Of every meter, the one place where it is asked."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._locations: dict[Eui64, Location] = {}

    def __len__(self) -> int:
        return len(self._locations)

    def learn(
        self,
        meter: Eui64,
        place: Place,
        *,
        path_sequence: int | None,
        now: float,
        lifetime_s: float = LIFETIME_S,
    ) -> bool:
        """Take news of a meter's place; whether it is where the meter is asked from now on.

        Raises LocalProtocolError for a path sequence that is none, TableFull at the bound.
        """
        if path_sequence is not None and not 0 <= path_sequence <= 0xFF:
            raise LocalProtocolError(f"path sequence {path_sequence}, expected 0 to 255")
        held = self._locations.get(meter)
        stands_s = max(LIFETIME_S, lifetime_s)
        if held is None:
            if len(self._locations) >= LOCATIONS_MAX:
                raise TableFull(f"{LOCATIONS_MAX} meters have a location, the bound")
        elif now - held.confirmed_at < held.lifetime_s:
            is_same = place == held.place and path_sequence == held.path_sequence
            if not is_same and not _is_news(path_sequence, held.path_sequence):
                self.refused["old path sequence"] += 1
                return False
            if is_same:
                self._locations[meter] = replace(held, confirmed_at=now, lifetime_s=stands_s)
                return True
        self._locations[meter] = Location(place, path_sequence, now, now, stands_s)
        return True

    def confirm(self, meter: Eui64, place: Place, *, now: float) -> bool:
        """An authentic answer came by this place; False if that is not where the meter is asked."""
        held = self._locations.get(meter)
        if held is None or held.place != place:
            return False
        self._locations[meter] = replace(held, confirmed_at=now)
        return True

    def forget(self, meter: Eui64) -> None:
        """The meter is gone, or its place is known to be wrong."""
        self._locations.pop(meter, None)

    def find(self, meter: Eui64) -> Location | None:
        """Where it is, or None."""
        return self._locations.get(meter)


def _is_news(sequence: int | None, held: int | None) -> bool:
    # A place without a sequence was seen by ourselves, in the source of an authentic datagram:
    # the later sight is the better one, either way.
    return sequence is None or held is None or is_newer_path(sequence, held)
