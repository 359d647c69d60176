"""What `meterd.toml` says. Paths are relative to the file's own folder.

Raises  ConfigError, one line, from everything here
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.addresses import parse_address
from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from amistack.model.registration import STANDARD_OFFSET_MIN_LEAST, STANDARD_OFFSET_MIN_MOST
from amistack.model.wire import DAY_S, INTERVAL_S_MIN
from amistack.session.fleet import parse_public_key
from amistack.session.trust import Trust
from meterd.board import BoardSettings
from meterd.gpio import PinSettings
from meterd.home.settings import HomeSettings
from meterd.local.settings import LocalSettings
from meterd.meshing.settings import MeshSettings
from meterd.metrology import ConstantSource, HouseholdProfile, ReplaySource, Source
from meterd.metrology.live_settings import LIVE_KEYS, LIVE_NEEDED_KEYS, check_live

if TYPE_CHECKING:
    from meterd.metrology.drivers import Driver

DEFAULT_PORT: Final = 5683
REGISTER_START_MAX: Final = 10**12
"""Wh: the most that a dial of nine digits of kWh shows."""

_OFFSET: Final = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """The device itself."""

    id: str
    """Its EUI-64, 16 hex digits."""
    key: Path = Path("meter-key.pem")
    """Its private key, mode 0600; `meterd init` makes one."""
    secret: Path | None = None
    """The file with the secret that its key is encrypted under; else a credential, or nothing."""
    storage: Path = Path("meter-data")
    """Where intervals, logs and the security session are kept."""
    standard_offset: str = "+00:00"
    """The fixed standard time that its days follow, all year."""
    register_start: tuple[int, ...] = ()
    """Wh on each channel's register before the first interval ever; 0 where not given."""

    def __post_init__(self) -> None:
        try:
            parse_eui64(self.id)
        except ConfigError as error:
            raise ConfigError(f"id: {error}") from None
        if any(not 0 <= start <= REGISTER_START_MAX for start in self.register_start):
            raise ConfigError(
                f"register_start is {list(self.register_start)}, expected 0 to {REGISTER_START_MAX}"
            )
        _ = self.standard_offset_min

    def find_secret(self) -> bytes | None:
        """The secret, if there is one. Raises ConfigError."""
        from amistack.keystore import find_secret

        return find_secret("meterd", self.secret)

    @property
    def eui64(self) -> Eui64:
        """The identifier as octets."""
        return parse_eui64(self.id)

    @property
    def standard_offset_min(self) -> int:
        """Minutes east of UTC."""
        return parse_offset(self.standard_offset)


@dataclass(frozen=True, slots=True)
class HeadEndSettings:
    """The head-end to report to; `headend init` prints these lines."""

    public_key: str
    """The key that it must prove to own, 66 hex digits: nobody else is talked to."""
    address: str | None = None
    """HOST, HOST:PORT or [IPV6]:PORT; 5683 without a port. Absent: found by DNS-SD."""
    root_key: str | None = None
    """The key that vouches for the head-end's later ones, 66 hex digits; `headend pki root`."""

    def __post_init__(self) -> None:
        if self.host_and_port is not None and not self.host_and_port[1]:
            raise ConfigError(f"address is {self.address!r}, expected a port above 0")
        for name, text in (("public_key", self.public_key), ("root_key", self.root_key)):
            try:
                if text is not None:
                    parse_public_key(text)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None

    @property
    def trust(self) -> Trust:
        """What the meter trusts before it hears otherwise."""
        root = None if self.root_key is None else parse_public_key(self.root_key)
        return Trust.provisioned(parse_public_key(self.public_key), root)

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """The address taken apart, if there is one."""
        if self.address is None:
            return None
        return parse_address(self.address, default_port=DEFAULT_PORT, what="address")


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
        return parse_address(self.listen, default_port=DEFAULT_PORT, what="listen")


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """When the daily report goes out."""

    report_delay_s: float = 300.0
    """Seconds after midnight before yesterday's report is owed."""
    report_spread_s: float = 3600.0
    """It goes out at a random moment within so many seconds after that."""
    start_spread_s: float = 5.0
    """After a start the first handshake waits a random part of so many seconds."""
    catch_up_s: float = 2.0
    """Seconds, in the mean, between the reports of older days that are still owed."""

    def __post_init__(self) -> None:
        for name in ("report_delay_s", "report_spread_s", "start_spread_s", "catch_up_s"):
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
    # every real meter: dsmr, sml, modbus, pulse
    received: bool | None = None
    reactive: bool | None = None
    voltage: bool | None = None
    meter: str | None = None
    dial_kwh: float | None = None
    power_max_w: float | None = None
    tolerance_s: float | None = None
    silence_s: float | None = None
    device: str | None = None
    baud_rate: int | None = None
    # dsmr
    check_sum: bool | None = None
    # modbus
    address: str | None = None
    unit_id: int | None = None
    poll_s: float | None = None
    model: str | None = None
    delivered_register: int | None = None
    received_register: int | None = None
    reactive_register: int | None = None
    voltage_registers: tuple[int, ...] | None = None
    register_v: float | None = None
    register_table: str | None = None
    register_words: str | None = None
    register_wh: float | None = None
    low_word_first: bool | None = None
    # pulse
    pulses_per_kwh: int | None = None
    gpio_chip: str | None = None
    gpio_line: int | None = None
    debounce_ms: int | None = None

    def __post_init__(self) -> None:
        taken = _SOURCE_KEYS.get(self.source)
        if taken is None:
            raise ConfigError(f"source is {self.source!r}, expected {', '.join(_SOURCE_KEYS)}")
        for name in sorted(_EVERY_SOURCE_KEY - taken):
            if getattr(self, name) is not None:
                raise ConfigError(f"{name} does not go with source {self.source!r}")
        for name in _NEEDED_KEYS.get(self.source, ()):
            if getattr(self, name) is None:
                raise ConfigError(f"{name} is missing; source {self.source!r} needs it")
        if self.interval_s is not None and (
            not INTERVAL_S_MIN <= self.interval_s <= DAY_S or DAY_S % self.interval_s
        ):
            raise ConfigError(
                f"interval_s is {self.interval_s}, expected {INTERVAL_S_MIN} or more that divide a "
                "day, such as 900"
            )
        if self.is_live:
            check_live(self)

    @property
    def is_live(self) -> bool:
        """Whether the values come from a real meter, by `open_driver`; else `open` has them."""
        return self.source in LIVE_KEYS

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

    def open_driver(
        self, *, offset_min: int, today: int, register_start: Sequence[int], kept: str | None
    ) -> Driver:
        """What listens to a real meter, and has its source. Raises SourceError or ConfigError.

        `today`: the UTC second of the first start, before which nothing can be known. `kept`: the
        state of the source that the storage has, if it has one.
        """
        # Only now: a street of made-up households needs none of it.
        from meterd.metrology.opening import open_driver

        return open_driver(
            self, offset_min=offset_min, today=today, register_start=register_start, kept=kept
        )


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
    **LIVE_KEYS,
}
_NEEDED_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "replay": ("path", "unit"),
    "constant": ("watts",),
    **LIVE_NEEDED_KEYS,
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
    mesh: MeshSettings | None = None
    """Its way to the head-end, where it has none of its own."""
    local: LocalSettings | None = None
    """The port for field tools."""
    home: HomeSettings | None = None
    """The network of the customer's home devices."""
    pins: PinSettings | None = None
    """Contacts and a relay on the pins of a small computer."""
    board: BoardSettings | None = None
    """What a small computer says of itself."""

    def __post_init__(self) -> None:
        if self.mesh is not None and self.headend.address is not None:
            raise ConfigError("headend.address: in a mesh there is none, a collector knows it")


def parse_offset(text: str) -> int:
    """Minutes east of UTC of `+HH:MM` or `-HH:MM`. Raises ConfigError."""
    match = _OFFSET.fullmatch(text)
    if match is None or int(match[3]) >= 60:
        raise ConfigError(f"standard_offset is {text!r}, expected such as '+01:00'")
    minutes = int(match[2]) * 60 + int(match[3])
    if match[1] == "-":
        minutes = -minutes
    if not STANDARD_OFFSET_MIN_LEAST <= minutes <= STANDARD_OFFSET_MIN_MOST:
        raise ConfigError(f"standard_offset is {text!r}, expected -12:00 to +14:00")
    return minutes
