"""The head-end's settings: headend.toml, or what holds without one.

Gives   frozen settings, every path absolute or relative to the settings file's own folder
Raises  ConfigError, one line: the file, the key, what was seen and what was expected
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.settings import load

FILE_NAME: Final = "headend.toml"
PORT: Final = 5683
"""The port of CoAP (RFC 7252 section 6.1)."""
PORT_MAX: Final = 65_535
SOCKET_PATH_SIZE_MAX: Final = 107
"""Octets that fit in a Unix socket's address, less the closing zero (unix(7))."""
METRICS_EXAMPLE: Final = "127.0.0.1:9464 or [::1]:9464"
MESH_EXAMPLE: Final = "0.0.0.0:7683 or [::]:7683"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
ADDRESS_EXAMPLE: Final = f"0.0.0.0:{PORT} or [::]:{PORT}"
LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where meters find the head-end: `listen`, an address and a UDP port.

    `0.0.0.0:5683` serves IPv4 on every interface, `[::]:5683` IPv6 and IPv4.
    """

    listen: str = f"0.0.0.0:{PORT}"
    announce: bool = False
    """Whether meters on the same link that were given no address are told it, by DNS-SD."""
    trust_clock: bool = False
    """Whether this host's clock is to be believed whatever speaks against it."""

    def __post_init__(self) -> None:
        split_address(self.listen, "listen")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`."""
        return split_address(self.listen, "listen")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the commands and programs of this machine find it: a Unix socket, its owner's only."""

    socket: Path = Path("headend.sock")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where everything is kept: one SQLite file, with its companions beside it."""

    path: Path = Path("headend.sqlite")


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """The head-end's private key, which every meter trusts by its public half."""

    key: Path = Path("headend-key.pem")
    root_key: str | None = None
    """The public key that vouches for later ones, 66 hex digits; None: keys cannot be changed."""
    secret: Path | None = None
    """The file with the secret that seals keys at rest; else a credential or the environment."""

    def __post_init__(self) -> None:
        try:
            _ = self.root
        except ConfigError as error:
            raise ConfigError(f"root_key: {error}") from None

    @property
    def root(self) -> bytes | None:
        """The octets of `root_key`."""
        if self.root_key is None:
            return None
        from amistack.session.fleet import parse_public_key  # Only here: it costs a start time.

        return parse_public_key(self.root_key)

    def find_secret(self) -> bytes | None:
        """The secret, if there is one. Raises ConfigError."""
        from amistack.keystore import find_secret

        return find_secret("headend", self.secret)


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where Prometheus finds the metrics, by HTTP and unprotected: `listen`, a TCP address.

    None without it. Port 0 takes any free one; the log says which.
    """

    listen: str | None = None

    def __post_init__(self) -> None:
        if self.listen is not None:
            split_address(self.listen, "listen", METRICS_EXAMPLE)

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of `listen`."""
        if self.listen is None:
            return None
        return split_address(self.listen, "listen", METRICS_EXAMPLE)


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Where collectors find the head-end: `listen`, a TCP address. None without it, and no mesh.

    Under TLS with this `certificate` and its `key` (files in PEM); `plain` says that there is to be
    none, though others than this machine can reach the address.
    """

    listen: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            raise ConfigError("certificate and key go together: set both, or none")
        if self.listen is None:
            return
        host, _ = split_address(self.listen, "listen", MESH_EXAMPLE)
        if self.certificate is None and not self.plain and host not in LOOPBACK:
            raise ConfigError(
                f"listen is {self.listen!r} without TLS: set certificate and key, "
                "or plain = true for a network that nobody else reaches"
            )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of `listen`."""
        if self.listen is None:
            return None
        return split_address(self.listen, "listen", MESH_EXAMPLE)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What goes to standard error: events of this `level` and above."""

    level: str = "info"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"level is {self.level!r}, expected one of {', '.join(LEVELS)}")


@dataclass(frozen=True, slots=True)
class Settings:
    """All of headend.toml, a table for each field."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    api: ApiSettings = dataclasses.field(default_factory=ApiSettings)
    store: StoreSettings = dataclasses.field(default_factory=StoreSettings)
    identity: IdentitySettings = dataclasses.field(default_factory=IdentitySettings)
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    metrics: MetricsSettings = dataclasses.field(default_factory=MetricsSettings)
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)


def read_settings(path: Path | None) -> Settings:
    """The settings in the file at `path`, or in headend.toml here, or those without any file.

    Raises ConfigError. A file that was named must be there.
    """
    file = Path(FILE_NAME) if path is None else path
    settings = Settings() if path is None and not file.exists() else load(file, Settings)
    settings = _anchored(settings, file.parent)
    size = len(str(settings.api.socket).encode())
    if size > SOCKET_PATH_SIZE_MAX:
        raise ConfigError(
            f"{file}: api.socket is a path of {size} octets, at most {SOCKET_PATH_SIZE_MAX} fit; "
            "choose a shorter one, such as /run/headend/headend.sock"
        )
    return settings


def with_metrics(settings: Settings, listen: str) -> Settings:
    """`settings` with the metrics at another address. Raises ConfigError."""
    split_address(listen, "--metrics", METRICS_EXAMPLE)
    return dataclasses.replace(settings, metrics=MetricsSettings(listen))


def _anchored(settings: Settings, folder: Path) -> Settings:
    """`settings` with the paths that were not set taken from `folder`; the others are already."""
    default = Settings()

    def at(path: Path, unset: Path) -> Path:
        return folder / path if path == unset else path

    return dataclasses.replace(
        settings,
        api=ApiSettings(at(settings.api.socket, default.api.socket)),
        store=StoreSettings(at(settings.store.path, default.store.path)),
        identity=dataclasses.replace(
            settings.identity, key=at(settings.identity.key, default.identity.key)
        ),
    )


def split_address(text: str, what: str, example: str = ADDRESS_EXAMPLE) -> tuple[str, int]:
    """Host and port of `192.0.2.7:5683`, `name:5683` or `[2001:db8::7]:5683`.

    Raises ConfigError; `what` names the setting in its message.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    is_readable = colon and host and port.isascii() and port.isdigit()
    if not is_readable or (":" in host and not is_bracketed) or int(port[:6]) > PORT_MAX:
        raise ConfigError(f"{what} is {text!r}, expected an address and a port, such as {example}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
