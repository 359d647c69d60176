"""What a radio is and who hears whom how well.

Spec    IEEE 802.15.4g SUN FSK for times and sizes; log-distance path loss with log-normal shadowing
Gives   parameters from a file, and for a placement the mean power of every pair that matters
Raises  ConfigError for a file that is no radio
Limit   PLACE_COUNT_MAX places; a pair whose mean power is below the noise is no pair at all:
        neither received nor felt
"""

from __future__ import annotations

import array
import bisect
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Final

from amistack.errors import ConfigError
from amistack.settings import load

PLACE_COUNT_MAX: Final = 20_000
SHADOWING_SIGMAS_MAX: Final = 3.0
DICE_SIDES: Final = 65_536
"""A fall of the dice is 16 bits; a frame's fading is that quantile of the normal distribution."""
NEVER: Final = DICE_SIDES
NORMAL: Final = NormalDist()
TAIL_COUNT: Final = 4096
SUFFIX: Final = ".toml"
_FOLDER: Final = Path(__file__).parent / "radios"

Place = tuple[float, float]
"""East and north, in metres."""


_RANGES: Final = (
    ("rate_bps", 1_000, 10_000_000),
    ("phy_octets", 0, 100),
    ("mac_octets", 0, 100),
    ("frame_octets_max", 64, 2047),
    ("transmit_dbm", -30, 40),
    ("fixed_loss_db", 0, 100),
    ("path_loss_1m_db", 0, 100),
    ("path_loss_exponent", 1.5, 6),
    ("shadowing_link_db", 0, 20),
    ("shadowing_frame_db", 0, 20),
    ("asymmetry_db", 0, 20),
    ("noise_dbm", -140, -60),
    ("sensitivity_dbm", -140, -40),
    ("capture_db", 0, 40),
    ("turnaround_s", 0, 0.1),
    ("cca_symbols", 1, 1000),
    ("backoff_exponent_min", 0, 10),
    ("backoff_exponent_max", 0, 10),
    ("backoffs_max", 0, 20),
    ("busy_dbm", -140, 0),
)


@dataclass(frozen=True, slots=True)
class RadioParameters:
    """One kind of radio, and the air around it. dB, dBm, seconds, octets, bits a second."""

    name: str
    rate_bps: int
    rates_bps: tuple[int, ...]
    phy_octets: int
    mac_octets: int
    frame_octets_max: int
    transmit_dbm: float
    fixed_loss_db: float
    path_loss_1m_db: float
    path_loss_exponent: float
    shadowing_link_db: float
    shadowing_frame_db: float
    asymmetry_db: float
    noise_dbm: float
    sensitivity_dbm: float
    capture_db: float
    turnaround_s: float
    cca_symbols: int
    backoff_exponent_min: int
    backoff_exponent_max: int
    backoffs_max: int
    busy_dbm: float

    def __post_init__(self) -> None:
        for key, low, high in _RANGES:
            value = getattr(self, key)
            if not low <= value <= high:
                raise ConfigError(f"{key} is {value:g}, expected {low:g} to {high:g}")
        if self.rate_bps not in self.rates_bps:
            raise ConfigError(f"rate_bps is {self.rate_bps}, expected one of rates_bps")
        if self.sensitivity_dbm < self.noise_dbm + self.capture_db:
            raise ConfigError(
                f"sensitivity_dbm is {self.sensitivity_dbm:g}, expected at least noise and capture "
                f"together, {self.noise_dbm + self.capture_db:g}"
            )

    def at_rate(self, rate_bps: int) -> RadioParameters:
        """The same radio in another of its rates. Raises ConfigError if it has no such."""
        if rate_bps not in self.rates_bps:
            raise ConfigError(
                f"{rate_bps} bit/s is not a rate of {self.name}: "
                f"expected one of {', '.join(map(str, self.rates_bps))}"
            )
        return replace(self, rate_bps=rate_bps)

    def with_frames(self, octets_max: int) -> RadioParameters:
        """The same radio with other frames at the longest. Raises ConfigError."""
        return replace(self, frame_octets_max=octets_max)

    def airtime(self, size: int) -> float:
        """For how many seconds a frame of `size` octets holds the channel."""
        return (self.phy_octets + self.mac_octets + size) * 8 / self.rate_bps

    @property
    def cca_s(self) -> float:
        """How long a look at the channel takes (2-FSK: a bit a symbol)."""
        return self.cca_symbols / self.rate_bps

    @property
    def backoff_s(self) -> float:
        """The unit of backing off: 802.15.4g's aUnitBackoffPeriod."""
        return self.turnaround_s + self.cca_s

    def mean_dbm(self, distance: float) -> float:
        """The power at `distance` metres before shadowing."""
        loss = self.path_loss_1m_db + 10 * self.path_loss_exponent * math.log10(max(distance, 1.0))
        return self.transmit_dbm - self.fixed_loss_db - loss

    def reach(self, dbm: float) -> float:
        """The distance in metres at which the power before shadowing is `dbm`."""
        budget = self.transmit_dbm - self.fixed_loss_db - self.path_loss_1m_db - dbm
        return float(10 ** (budget / (10 * self.path_loss_exponent)))

    def reception_ratio(self, mean_dbm: float) -> float:
        """The share of frames received in silence, over a link of this mean power."""
        margin = mean_dbm - self.sensitivity_dbm
        if not self.shadowing_frame_db:
            return float(margin >= 0)
        return NORMAL.cdf(margin / self.shadowing_frame_db)


def read_radio(name: str) -> RadioParameters:
    """The radio of that name that comes with the simulator, or the one in a file `*.toml`.

    Raises ConfigError with one line.
    """
    if name.endswith(SUFFIX):
        return load(Path(name), RadioParameters)
    if name not in radios():
        raise ConfigError(f"no radio {name!r}: expected one of {', '.join(radios())}, or a file")
    return load(_FOLDER / (name + SUFFIX), RadioParameters)


def radios() -> list[str]:
    """The names of the radios that come with the simulator."""
    return sorted(file.stem for file in _FOLDER.glob(f"*{SUFFIX}"))


@cache
def fading(sigma_db: float) -> tuple[float, ...]:
    """The fading in dB for each fall of the dice, rising; the mean of a step's two ends."""
    if not sigma_db:
        return (0.0,) * DICE_SIDES
    sides = DICE_SIDES
    # The distribution is even, so half of it is enough.
    lower = [sigma_db * NORMAL.inv_cdf((side + 0.5) / sides) for side in range(sides // 2)]
    return (*lower, *(-value for value in reversed(lower)))


class Links:
    """Who hears whom, and how well: one row for each sender.

    `receivers[s]` are those that sender `s` reaches, `means[s]` at which mean power in dBm, and
    `needs[s]` from which fall of the dice on a frame is heard in silence (NEVER if at no fall).
    `index[s]` finds a receiver's column. Rows are changed in place by `set_loss`.
    """

    def __init__(self, radio: RadioParameters, powers: Sequence[Mapping[int, float]]) -> None:
        """`powers[s]` gives for each receiver the mean power in dBm."""
        self.radio = radio
        self.count = len(powers)
        self.fading = fading(radio.shadowing_frame_db)
        # To have pairs in one order whatever the mapping's own is.
        rows = [sorted(row.items()) for row in powers]
        self.receivers: list[tuple[int, ...]] = [tuple(r for r, _ in row) for row in rows]
        # Arrays, for they are small: every frame looks at a row that was long not looked at.
        self.means = [array.array("d", (power for _, power in row)) for row in rows]
        self.needs = [array.array("I", map(self._need, row)) for row in self.means]
        self.index: list[dict[int, int]] = [
            {receiver: column for column, receiver in enumerate(row)} for row in self.receivers
        ]
        self._plain = [row[:] for row in self.means]
        self._losses: dict[tuple[int, int], float] = {}

    def _need(self, mean_dbm: float) -> int:
        return bisect.bisect_left(self.fading, self.radio.sensitivity_dbm - mean_dbm)

    def mean_dbm(self, sender: int, receiver: int) -> float | None:
        """The mean power of the pair now, or None if it is no pair."""
        column = self.index[sender].get(receiver)
        return None if column is None else self.means[sender][column]

    def reception_ratio(self, sender: int, receiver: int) -> float:
        """The share of frames from `sender` that `receiver` gets in silence, now."""
        column = self.index[sender].get(receiver)
        return 0.0 if column is None else 1 - self.needs[sender][column] / DICE_SIDES

    def etx(self, sender: int, receiver: int) -> float:
        """The true mean count of transmissions until a frame is acknowledged; maybe infinite."""
        both = self.reception_ratio(sender, receiver) * self.reception_ratio(receiver, sender)
        return 1 / both if both else math.inf

    def change_loss(self, sender: int, receiver: int, loss_db: float) -> None:
        """Add `loss_db` to what one direction of a pair loses; the same negative undoes it."""
        column = self.index[sender].get(receiver)
        if column is None:
            return
        loss = self._losses.get((sender, receiver), 0.0) + loss_db
        # What was added is taken away again: rounding must not stay behind.
        if abs(loss) < 1e-9:
            loss = 0.0
        self._losses[sender, receiver] = loss
        mean = self._plain[sender][column] - loss
        self.means[sender][column] = mean
        self.needs[sender][column] = self._need(mean)


def links_between(
    places: Sequence[Place], radio: RadioParameters, *, chance: random.Random
) -> Links:
    """The links of a placement: path loss, a draw of shadowing a pair, and of asymmetry.

    Raises ConfigError above PLACE_COUNT_MAX.
    """
    count = len(places)
    if count > PLACE_COUNT_MAX:
        raise ConfigError(f"{count} places, at most {PLACE_COUNT_MAX}")
    sigma = radio.shadowing_link_db
    floor_dbm = radio.noise_dbm
    reach = radio.reach(floor_dbm - SHADOWING_SIGMAS_MAX * sigma)
    powers: list[dict[int, float]] = [{} for _ in range(count)]
    # West to east, so that the candidates of a place stand behind it in the list.
    order = sorted(range(count), key=lambda place: (places[place], place))
    xs = [places[place][0] for place in order]
    ys = [places[place][1] for place in order]
    # The chance that shadowing lets a pair be one, by the square of its distance.
    limit = reach * reach
    step = limit / TAIL_COUNT
    tails = [_tail(radio, math.sqrt((n + 0.5) * step), floor_dbm) for n in range(TAIL_COUNT + 1)]
    dice = chance.random
    for first in range(count):
        x, y = xs[first], ys[first]
        start, end = first + 1, bisect.bisect_right(xs, x + reach)
        squares = [
            (east - x) * (east - x) + (north - y) * (north - y)
            for east, north in zip(xs[start:end], ys[start:end], strict=True)
        ]
        for second, square in enumerate(squares, start):
            if square >= limit:
                continue
            fall = dice()
            if fall >= tails[int(square / step)]:
                continue
            # Given that it is below the tail, the fall is the shadowing's own quantile.
            shadow = -sigma * NORMAL.inv_cdf(fall) if sigma and fall else sigma
            shadow = min(shadow, SHADOWING_SIGMAS_MAX * sigma)
            tilt = chance.gauss(0, radio.asymmetry_db) / 2
            mean = radio.mean_dbm(math.sqrt(square)) + shadow
            a, b = order[first], order[second]
            if mean + tilt >= floor_dbm:
                powers[a][b] = mean + tilt
            if mean - tilt >= floor_dbm:
                powers[b][a] = mean - tilt
    return Links(radio, powers)


def _tail(radio: RadioParameters, distance: float, floor_dbm: float) -> float:
    """A bound of the chance that shadowing and asymmetry lift a pair to the floor."""
    wanting = floor_dbm - radio.mean_dbm(distance) - 2 * radio.asymmetry_db
    if not radio.shadowing_link_db:
        return float(wanting <= 0)
    # A little above the truth, for the cell is not a point.
    return min(1.0, 1.05 * NORMAL.cdf(-wanting / radio.shadowing_link_db))
