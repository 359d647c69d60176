"""What a mesh is tuned to: one table of figures for each kind of network.

Gives   `load_profile`, by name for the ones in the box or by path; `is_file`, `anywhere`; `NAMES`
Raises  ConfigError, one line: the file, the key, what was seen and what was expected
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.settings import load
from mesh.routing.messages import (
    HOP_RANK_INCREASE_MAX,
    INTERVAL_EXPONENT_MAX,
    INTERVAL_EXPONENT_MIN,
    LIFETIME_INFINITE,
    LONGEST_EXPONENT_MIN,
    ROUTE_LIFE_MIN,
    Configuration,
    are_intervals,
)

_FOLDER: Final = Path(__file__).parent.parent / "profiles"
NAMES: Final = ("rfc8036", "wisun-large", "wisun-small", "lab")
"""The profiles in the box."""
SUFFIX: Final = ".toml"


@dataclass(frozen=True, slots=True)
class Dodag:
    """What the root tells everybody in its DODAG Configuration option."""

    interval_min: int = 9
    """DIOIntervalMin: Trickle's Imin is 2 to this power, in milliseconds."""
    interval_doublings: int = 14
    redundancy: int = 10
    """Trickle's k; 0 suppresses nothing."""
    hop_rank_increase_min: int = 256
    """MinHopRankIncrease, and also the rank that ETX 1.0 adds: a rank is a path's ETX."""
    rank_increase_max: int = 1024
    """MaxRankIncrease (RFC 6550 section 8.2.2.4)."""
    lifetime: int = 6
    """Of a route at the root, in `lifetime_unit`."""
    lifetime_unit: int = 1200
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Parents:
    """How parents are chosen (RFC 6719 section 5)."""

    count_max: int = 3
    """PARENT_SET_SIZE."""
    link_etx_max: float = 4.0
    """MAX_LINK_METRIC."""
    path_etx_max: float = 128.0
    """MAX_PATH_COST."""
    switch_etx: float = 1.5
    """PARENT_SWITCH_THRESHOLD: how much better another one must be at once."""
    switch_etx_small: float = 0.3
    """How much better it must have been all through `switch_time`; on long paths 8 %."""
    switch_time: float = 600.0
    """Seconds."""
    failures_max: int = 2
    """Frames in a row, each with all its attempts, after which a parent has failed."""
    probe_interval: float = 1500.0
    """Seconds without traffic after which a link of the parent set is tried."""
    deny_time: float = 600.0
    """Seconds for which a neighbour that failed is no parent, unless it proves itself."""
    neighbour_age_max: float = 28800.0
    """Seconds after which a neighbour of whom nothing was heard is forgotten."""
    neighbour_count_max: int = 64


@dataclass(frozen=True, slots=True)
class Repair:
    """How a node without a parent comes back."""

    dis_interval_min: float = 1.0
    """Seconds from the first solicitation to the second; doubled from there on."""
    dis_interval_max: float = 180.0
    settle_time: float = 0.4
    """Seconds in which a node without parents gathers neighbours before it chooses."""
    version_settle_time: float = 3.0
    """Seconds at most that a node waits for its own parents to reach a new version."""
    poison_count: int = 2
    """How often a rank without end is said to everybody."""


@dataclass(frozen=True, slots=True)
class Routes:
    """How the root learns where everybody is (RFC 6550 section 9)."""

    dao_delay: float = 1.0
    """DAO_DELAY: seconds in which changes gather."""
    first_spread: float = 30.0
    """Seconds over which the first DAO of a life is spread, for each ETX of the path; unless the
    node has something else to say."""
    report_spread: float = 900.0
    """Seconds over which the first topology report of a life is spread, from when the root knows
    the node; more in a wide area."""
    dao_retry: float = 5.0
    """Seconds to the first repetition; doubled for each next one."""
    dao_tries: int = 4
    refresh_share: float = 0.5
    """Which part of a route's lifetime goes by before it is told again."""


@dataclass(frozen=True, slots=True)
class Links:
    """How one hop is crossed."""

    attempts_max: int = 5
    """Transmissions of one frame to one neighbour."""
    blocked_max: int = 8
    """Times in a row that the radio finds no free moment, before another frame is tried."""
    ack_wait: float = 0.06
    """Seconds from the end of a frame to the end of its acknowledgement, at the most."""
    retry_delay: float = 0.05
    """Seconds: the first random delay before a repetition is up to this; doubled each time."""
    hop_limit: int = 64
    """What a packet starts with; packets from a root have their route's length."""
    queue_count_max: int = 32
    """Packets of each priority that wait."""


@dataclass(frozen=True, slots=True)
class Flood:
    """How a packet for everybody spreads (RFC 7731, one data message proactively forwarded)."""

    interval: float = 0.5
    """Seconds: Trickle's interval for one packet, not doubled."""
    redundancy: int = 3
    """Copies heard after which a node does not repeat it any more."""
    repeats: int = 2
    """Intervals in which a node may repeat it."""
    seen_max: int = 64
    """Packets that are remembered so as not to be taken twice."""
    seen_time: float = 300.0
    """Seconds for which they are."""


@dataclass(frozen=True, slots=True)
class Profile:
    """All figures of a network. The defaults are those of `rfc8036`."""

    dodag: Dodag = field(default_factory=Dodag)
    parents: Parents = field(default_factory=Parents)
    repair: Repair = field(default_factory=Repair)
    routes: Routes = field(default_factory=Routes)
    links: Links = field(default_factory=Links)
    flood: Flood = field(default_factory=Flood)

    def __post_init__(self) -> None:
        for part in dataclasses.fields(self):
            table = getattr(self, part.name)
            for key in dataclasses.fields(table):
                value = getattr(table, key.name)
                if not 0 <= value < 1e9:
                    raise ConfigError(f"{part.name}.{key.name} is {value}: out of range")
        if not 1 <= self.dodag.hop_rank_increase_min <= HOP_RANK_INCREASE_MAX:
            raise ConfigError(f"dodag.hop_rank_increase_min: expected 1 to {HOP_RANK_INCREASE_MAX}")
        if not are_intervals(self.dodag.interval_min, self.dodag.interval_doublings):
            raise ConfigError(
                "dodag.interval_min and interval_doublings: expected "
                f"{INTERVAL_EXPONENT_MIN} to {INTERVAL_EXPONENT_MAX}, "
                f"at least {LONGEST_EXPONENT_MIN} together"
            )
        if self.dodag.rank_increase_max > 0xFFFF or self.dodag.redundancy > 0xFF:
            raise ConfigError("dodag.rank_increase_max or redundancy: too large for its field")
        if not 1 <= self.dodag.lifetime <= 0xFF or not 1 <= self.dodag.lifetime_unit <= 0xFFFF:
            raise ConfigError("dodag.lifetime or lifetime_unit: 0, or too large for its field")
        life = self.dodag.lifetime * self.dodag.lifetime_unit
        if self.dodag.lifetime != LIFETIME_INFINITE and life < ROUTE_LIFE_MIN:
            raise ConfigError(
                f"dodag.lifetime and lifetime_unit: {life} s, expected at least {ROUTE_LIFE_MIN}"
            )
        if self.parents.count_max < 1 or self.parents.neighbour_count_max < 2:
            raise ConfigError("parents.count_max or neighbour_count_max: too few")
        if min(self.links.attempts_max, self.links.blocked_max, self.links.queue_count_max) < 1:
            raise ConfigError(
                "links.attempts_max, blocked_max or queue_count_max: expected at least 1"
            )

    @property
    def configuration(self) -> Configuration:
        """What a root of this network puts into its DIOs."""
        return Configuration(
            self.dodag.interval_doublings,
            self.dodag.interval_min,
            self.dodag.redundancy,
            self.dodag.rank_increase_max,
            self.dodag.hop_rank_increase_min,
            self.dodag.lifetime,
            self.dodag.lifetime_unit,
        )


def is_file(name: str) -> bool:
    """Whether a profile is named by the path of its file."""
    return name.endswith(SUFFIX)


def anywhere(name: str) -> str:
    """The name by which a profile is found from every folder: a file's with its whole path."""
    return str(Path(name).absolute()) if is_file(name) else name


def load_profile(name: str | Path) -> Profile:
    """The profile of that name, or in that file. Raises ConfigError."""
    if isinstance(name, Path) or is_file(name):
        return load(Path(name), Profile)
    if name not in NAMES:
        raise ConfigError(f"no profile {name!r}: expected one of {', '.join(NAMES)}, or a file")
    return load(_FOLDER / (name + SUFFIX), Profile)
