"""Scenarios: a settlement, its load, what goes wrong in it and for how long.

Gives   the scenarios in `mesh/scenarios` by name, or one from a file
Raises  ConfigError with one line
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.settings import load
from mesh.sim.placement import Shape
from mesh.sim.radio import RadioParameters, read_radio

SUFFIX: Final = ".toml"
HOURS_MAX: Final = 24 * 366.0
FAULT_COUNT_MAX: Final = 1000
_FOLDER: Final = Path(__file__).parent.parent / "scenarios"


class FaultKind(enum.Enum):
    """What goes wrong."""

    CRASH = "crash"  # nodes lose power; with `for_s`, they come back
    RESTART = "restart"  # nodes start anew at once, without what was only in memory
    AREA_OFF = "area-off"  # all within `radius_m` of a drawn place lose power
    LINK_FADE = "link-fade"  # a share of all pairs loses `loss_db`
    JAM = "jam"  # noise of `jam_dbm` within `radius_m` of a drawn place
    BACKHAUL = "backhaul"  # the collectors' way to the head-end is cut
    DRIFT = "drift"  # clocks run fast or slow, by up to `ppm`
    DAMAGE = "damage"  # a `share` of the frames heard has a bit turned over
    DOUBLE = "double"  # a `share` of the frames heard is heard twice
    PARTITION = "partition"  # the pairs across a line through the middle lose everything


class Whom(enum.Enum):
    """Whom a fault of single nodes meets."""

    METERS = "meters"
    RELAYS = "relays"  # meters that are somebody's preferred parent at that time
    COLLECTORS = "collectors"


_NODE_FAULTS: Final = frozenset(
    (FaultKind.CRASH, FaultKind.RESTART, FaultKind.BACKHAUL, FaultKind.DRIFT)
)


@dataclass(frozen=True, slots=True)
class Settlement:
    """How many nodes stand where."""

    shape: str = "grid"
    meters: int = 25
    collectors: int = 1

    def __post_init__(self) -> None:
        _among("shape", self.shape, Shape)
        _between("meters", self.meters, 1, 20_000)
        _between("collectors", self.collectors, 1, 100)

    @property
    def shape_kind(self) -> Shape:
        """The shape as what it is."""
        return Shape(self.shape)


@dataclass(frozen=True, slots=True)
class Load:
    """What meters send and are asked, each on the average in a day; sizes in octets.

    Classes as RFC 8036 section 4.2 has them.
    """

    c1_per_day: float = 0.1
    c2_per_day: float = 1.0
    c3_per_day: float = 1.0
    c4_per_day: float = 6.0
    on_demand_per_day: float = 1.0
    c1_octets: int = 100
    c2_octets: int = 150
    c3_octets: int = 200
    c4_octets: int = 400
    request_octets: int = 40
    answer_octets: int = 120
    bursts_per_day: float = 0.0
    """Bursts in the whole network: `burst_count` neighbours send a C1 within a second."""
    burst_count: int = 10

    def __post_init__(self) -> None:
        for key in ("c1", "c2", "c3", "c4", "on_demand", "bursts"):
            _between(f"{key}_per_day", getattr(self, f"{key}_per_day"), 0, 86_400)
        for key in ("c1", "c2", "c3", "c4", "request", "answer"):
            _between(f"{key}_octets", getattr(self, f"{key}_octets"), 16, 1280)
        _between("burst_count", self.burst_count, 1, 1000)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: at a time, or by chance `per_day`."""

    kind: str
    at_s: float = 0.0
    per_day: float = 0.0
    for_s: float = 0.0
    """How long; 0 means for ever."""
    whom: str = "meters"
    count: int = 0
    share: float = 0.0
    radius_m: float = 0.0
    loss_db: float = 200.0
    jam_dbm: float = -80.0
    ppm: float = 0.0

    def __post_init__(self) -> None:
        _among("kind", self.kind, FaultKind)
        _among("whom", self.whom, Whom)
        _between("at_s", self.at_s, 0, HOURS_MAX * 3600)
        _between("for_s", self.for_s, 0, HOURS_MAX * 3600)
        _between("per_day", self.per_day, 0, 86_400)
        _between("count", self.count, 0, 20_000)
        _between("share", self.share, 0, 1)
        _between("radius_m", self.radius_m, 0, 1e5)
        _between("loss_db", self.loss_db, 0, 300)
        _between("jam_dbm", self.jam_dbm, -140, 0)
        _between("ppm", self.ppm, 0, 100_000)
        kind = self.what
        if kind in _NODE_FAULTS and not self.count and not self.share:
            raise ConfigError(f"a {self.kind} needs a count or a share")
        if kind in (FaultKind.AREA_OFF, FaultKind.JAM) and not self.radius_m:
            raise ConfigError(f"a fault of kind {self.kind} needs radius_m")
        if kind in (FaultKind.LINK_FADE, FaultKind.DAMAGE, FaultKind.DOUBLE) and not self.share:
            raise ConfigError(f"a fault of kind {self.kind} needs a share")
        if kind is FaultKind.DRIFT and not self.ppm:
            raise ConfigError("a fault of kind drift needs ppm")
        if kind is FaultKind.BACKHAUL and self.target is not Whom.COLLECTORS:
            raise ConfigError('a fault of kind backhaul needs whom = "collectors"')
        if self.per_day and self.at_s:
            raise ConfigError("a fault has at_s or per_day, not both")

    @property
    def what(self) -> FaultKind:
        """The kind as what it is."""
        return FaultKind(self.kind)

    @property
    def target(self) -> Whom:
        """Whom it meets."""
        return Whom(self.whom)


@dataclass(frozen=True, slots=True)
class Isolations:
    """Failures of single parts, one after the other, each isolated by the head-end."""

    each: int = 0
    """How many of a meter, a relay, a link, a collector and a backhaul."""
    settle_s: float = 1800.0
    """From one being mended to the next."""

    def __post_init__(self) -> None:
        _between("each", self.each, 0, 10_000)
        _between("settle_s", self.settle_s, 0, HOURS_MAX * 3600)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario, whole."""

    name: str
    text: str
    hours: float
    """Simulated in all."""
    power_up_s: float = 30.0
    """Within this all meters get power for the first time."""
    forming_s: float = 900.0
    """Without load, from the start."""
    draining_s: float = 900.0
    """Without new load, before the end."""
    radio: str = "ref-915"
    rate_bps: int = 100_000
    frame_octets_max: int = 0
    """The longest frame, where it is another than the radio's; 0 for the radio's."""
    profile: str = "rfc8036"
    cipher: str = "aes-ccm"
    """`fast` for the same sizes without the cost: there is no outsider in such a world."""
    settlement: Settlement = field(default_factory=Settlement)
    load: Load = field(default_factory=Load)
    faults: tuple[Fault, ...] = ()
    isolations: Isolations = field(default_factory=Isolations)

    def __post_init__(self) -> None:
        if not 0 < self.hours <= HOURS_MAX:
            raise ConfigError(f"hours is {self.hours:g}, expected above 0 and up to {HOURS_MAX:g}")
        _between("power_up_s", self.power_up_s, 0, HOURS_MAX * 3600)
        _between("forming_s", self.forming_s, 0, HOURS_MAX * 3600)
        _between("draining_s", self.draining_s, 0, HOURS_MAX * 3600)
        if self.cipher not in ("aes-ccm", "fast"):
            raise ConfigError(f"cipher is {self.cipher!r}, expected aes-ccm or fast")
        if len(self.faults) > FAULT_COUNT_MAX:
            raise ConfigError(f"{len(self.faults)} faults, at most {FAULT_COUNT_MAX}")


def radio_of(scenario: Scenario) -> RadioParameters:
    """The radio, at the rate and with the frames that the scenario has. Raises ConfigError."""
    radio = read_radio(scenario.radio).at_rate(scenario.rate_bps)
    return radio.with_frames(scenario.frame_octets_max) if scenario.frame_octets_max else radio


def scenarios() -> list[str]:
    """The names of the scenarios in the box."""
    return sorted(file.stem for file in _FOLDER.glob(f"*{SUFFIX}"))


def read_scenario(name: str) -> Scenario:
    """The scenario of that name, or in a file `*.toml`. Raises ConfigError."""
    if name.endswith(SUFFIX):
        return load(Path(name), Scenario)
    if name not in scenarios():
        raise ConfigError(
            f"no scenario {name!r}: expected one of {', '.join(scenarios())}, or a file"
        )
    return load(_FOLDER / (name + SUFFIX), Scenario)


def _between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key} is {value:g}, expected {low:g} to {high:g}")


def _among(key: str, value: str, kinds: type[enum.Enum]) -> None:
    known = [kind.value for kind in kinds]
    if value not in known:
        raise ConfigError(f"{key} is {value!r}, expected one of {', '.join(known)}")
