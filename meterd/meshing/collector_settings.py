"""What a collector's file says.

Raises  ConfigError, one line, from everything here
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amistack.addresses import BACKHAUL_PORT, parse_address
from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from amistack.links.tcp import Tls
from mesh.backhaul import AREA_MAX
from meterd.meshing.settings import MeshSettings

DODAG_ID_SIZE: Final = 16
PIN_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class CollectorNode:
    """The device itself, and the area it serves; `headend mesh area` prints the DODAGID."""

    id: str
    """Its EUI-64, 16 hex digits."""
    area: int
    dodag_id: str
    """The area's, 32 hex digits."""
    storage: Path = Path("collector-data")
    """Where its table of routes and its counters are kept."""

    def __post_init__(self) -> None:
        try:
            parse_eui64(self.id)
        except ConfigError as error:
            raise ConfigError(f"id: {error}") from None
        if not 0 <= self.area <= AREA_MAX:
            raise ConfigError(f"area is {self.area}, expected 0 to {AREA_MAX}")
        _hex(self.dodag_id, DODAG_ID_SIZE, "dodag_id")

    @property
    def eui64(self) -> Eui64:
        """The identifier as octets."""
        return parse_eui64(self.id)

    @property
    def dodag_octets(self) -> bytes:
        """The DODAGID as octets."""
        return bytes.fromhex(self.dodag_id)


@dataclass(frozen=True, slots=True)
class BackhaulSettings:
    """Where the head-end listens for collectors, and how it is known."""

    address: str
    """HOST or HOST:PORT."""
    pin: str | None = None
    """SHA-256 of the public key in the head-end's certificate, 64 hex digits."""
    certificate: Path | None = None
    """The collector's own, in PEM, whose key the head-end knows."""
    key: Path | None = None
    plain: bool = False
    """Without TLS, for a network that nobody else reaches."""

    def __post_init__(self) -> None:
        _ = self.host_and_port
        if self.plain and (self.pin, self.certificate, self.key) != (None, None, None):
            raise ConfigError("plain goes with neither pin, certificate nor key")
        if not self.plain and None in (self.pin, self.certificate, self.key):
            raise ConfigError(
                "pin, certificate and key are missing: set all three, or plain = true for a "
                "network that nobody else reaches"
            )
        if self.pin is not None:
            _hex(self.pin, PIN_SIZE, "pin")

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The address taken apart."""
        return parse_address(self.address, default_port=BACKHAUL_PORT, what="address")

    def make_tls(self) -> Tls | None:
        """TLS 1.3 with the pinned key; None where there is to be none. Raises ConfigError."""
        if self.plain or self.certificate is None or self.pin is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Whose certificate it is, and by whom, says nothing here: the key is pinned.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"certificate {self.certificate} with key {self.key} cannot be used: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from None
        return Tls(context, pins=frozenset({bytes.fromhex(self.pin)}))


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """The whole of a collector's file."""

    collector: CollectorNode
    mesh: MeshSettings
    backhaul: BackhaulSettings


def _hex(text: str, size: int, what: str) -> bytes:
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b""
    if len(octets) != size or text != octets.hex():
        raise ConfigError(f"{what} is {text!r}, expected {2 * size} hex digits in lower case")
    return octets
