"""What `meterd.toml` says. Paths are relative to the file's own folder.

Raises  ConfigError, one line, from everything here
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from amistack.session.fleet import parse_public_key
from meterd.metrology import ConstantSource, HouseholdProfile, ReplaySource, Source

DEFAULT_PORT: Final = 5683
_OFFSET: Final = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """The device itself."""

    id: str
    """Its EUI-64, 16 hex digits."""
    key: Path = Path("meter-key.pem")
    """Its private key, mode 0600; `meterd init` makes one."""
    storage: Path = Path("meter.sqlite")
    """Where intervals, logs and the security session are kept."""
    standard_offset: str = "+00:00"
    """The fixed standard time that its days follow, all year."""
    register_start: tuple[int, ...] = ()
    """Wh on each channel's register before the first interval ever; 0 where not given."""

    def __post_init__(self) -> None:
        parse_eui64(self.id)
        if any(start < 0 for start in self.register_start):
            raise ConfigError(f"register_start is {list(self.register_start)}, expected 0 or more")
        if not -12 * 60 <= self.standard_offset_min <= 14 * 60:
            raise ConfigError(
                f"standard_offset is {self.standard_offset!r}, expected -12:00 to +14:00"
            )

    @property
    def eui64(self) -> Eui64:
        """The identifier as octets."""
        return parse_eui64(self.id)

    @property
    def standard_offset_min(self) -> int:
        """Minutes east of UTC."""
        match = _OFFSET.fullmatch(self.standard_offset)
        if match is None or int(match[3]) >= 60:
            raise ConfigError(
                f"standard_offset is {self.standard_offset!r}, expected such as '+01:00'"
            )
        minutes = int(match[2]) * 60 + int(match[3])
        return -minutes if match[1] == "-" else minutes


@dataclass(frozen=True, slots=True)
class HeadEndSettings:
    """The head-end to report to; `headend init` prints these lines."""

    address: str
    """HOST, HOST:PORT or [IPV6]:PORT; 5683 without a port."""
    public_key: str
    """The key that it must prove to own, 66 hex digits: nobody else is talked to."""

    def __post_init__(self) -> None:
        _ = self.host_and_port
        parse_public_key(self.public_key)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The address taken apart."""
        return parse_address(self.address, default_port=DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """The meter's own end of the link."""

    listen: str = "0.0.0.0:0"
    """HOST:PORT to bind to; port 0 takes any free one. `[::]:0` for IPv6."""

    def __post_init__(self) -> None:
        _ = self.host_and_port

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The address taken apart."""
        return parse_address(self.listen, default_port=DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """When the daily report goes out."""

    report_delay_s: float = 300.0
    """Seconds after midnight before yesterday's report is owed."""
    report_spread_s: float = 3600.0
    """It goes out at a random moment within so many seconds after that."""
    start_spread_s: float = 5.0
    """After a start the first handshake waits a random part of so many seconds."""

    def __post_init__(self) -> None:
        for name in ("report_delay_s", "report_spread_s", "start_spread_s"):
            if not 0 <= getattr(self, name) <= 86_400:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to 86400 s")


@dataclass(frozen=True, slots=True)
class MetrologySettings:
    """Where the energy comes from; docs/operating/metrology.md has every source."""

    source: str = "profile"
    interval_s: int | None = None
    # profile
    seed: int | None = None
    solar: bool | None = None
    latitude: float | None = None
    # constant
    watts: float | None = None
    received_watts: float | None = None
    # replay
    path: Path | None = None
    unit: str | None = None
    zone: str | None = None
    stamp: str | None = None
    shift: str | None = None
    time_column: str | None = None
    value_column: str | None = None
    received_column: str | None = None

    def __post_init__(self) -> None:
        taken = _SOURCE_KEYS.get(self.source)
        if taken is None:
            raise ConfigError(f"source is {self.source!r}, expected {', '.join(_SOURCE_KEYS)}")
        for name in _EVERY_SOURCE_KEY - taken:
            if getattr(self, name) is not None:
                raise ConfigError(f"{name} does not go with source {self.source!r}")
        needed = {"replay": ("path", "unit"), "constant": ("watts",)}.get(self.source, ())
        for name in needed:
            if getattr(self, name) is None:
                raise ConfigError(f"{name} is missing; source {self.source!r} needs it")

    def open(self, *, offset_min: int, today: int, default_seed: int) -> Source:
        """The source. Raises SourceError or ConfigError.

        `today` is the UTC second at which a replay's shift was fixed; the same at every start.
        """
        given = {
            name: getattr(self, name)
            for name in _SOURCE_KEYS[self.source]
            if getattr(self, name) is not None
        }
        return _OPENERS[self.source](given, offset_min, today, default_seed)


_SOURCE_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "profile": frozenset({"seed", "interval_s", "solar", "latitude"}),
    "constant": frozenset({"watts", "received_watts", "interval_s"}),
    "replay": frozenset(
        {
            "path",
            "unit",
            "zone",
            "stamp",
            "interval_s",
            "shift",
            "time_column",
            "value_column",
            "received_column",
        }
    ),
}
_EVERY_SOURCE_KEY: Final = frozenset().union(*_SOURCE_KEYS.values())

_Opener = Callable[[Mapping[str, object], int, int, int], Source]


def _open_profile(given: Mapping[str, object], offset_min: int, _: int, seed: int) -> Source:
    return HouseholdProfile(**{"seed": seed, **given}, offset_min=offset_min)  # type: ignore[arg-type]  # keys and types were checked


def _open_constant(given: Mapping[str, object], offset_min: int, _: int, __: int) -> Source:
    return ConstantSource(**given, offset_min=offset_min)  # type: ignore[arg-type]  # as above


def _open_replay(given: Mapping[str, object], offset_min: int, today: int, _: int) -> Source:
    return ReplaySource.open(**given, offset_min=offset_min, today=today)  # type: ignore[arg-type]  # as above


_OPENERS: Final[Mapping[str, _Opener]] = {
    "profile": _open_profile,
    "constant": _open_constant,
    "replay": _open_replay,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file."""

    meter: MeterSettings
    headend: HeadEndSettings
    metrology: MetrologySettings = field(default_factory=MetrologySettings)
    link: LinkSettings = field(default_factory=LinkSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)


def parse_address(text: str, *, default_port: int) -> tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT` or `[IPV6]:PORT`. Raises ConfigError."""
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        host, port = text, str(default_port)
    if host.startswith("["):
        host = host.removeprefix("[").removesuffix("]")
    elif ":" in host:
        raise ConfigError(f"{text!r} is not an address: write an IPv6 one as [ADDRESS]:PORT")
    if not host or not port.isdigit() or int(port) > 0xFFFF:
        raise ConfigError(f"{text!r} is not an address, expected HOST:PORT")
    return host, int(port)
