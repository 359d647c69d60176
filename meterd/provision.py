"""Make a device's identity: a key, a settings file, and the line that enrols it.

Raises  ConfigError, one line; nothing that exists is overwritten
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amistack.addresses import parse_address
from amistack.errors import ConfigError
from amistack.identifiers import Eui64, format_eui64
from amistack.keystore import find_secret, load_key, make_key, save_key
from amistack.session.fleet import encode_public_key, parse_public_key
from meterd.config import DEFAULT_PORT, parse_offset

KEY_FILE: Final = "meter-key.pem"
CONFIG_FILE: Final = "meterd.toml"
STREET_MAX: Final = 10_000

_LOCAL: Final = 0x02
"""The bit of an EUI-64's first octet that says it is made here, not bought (universal/local)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A device as it is enrolled."""

    meter: Eui64
    public_key: bytes

    @property
    def line(self) -> str:
        """The line for `headend enrol`."""
        return f"{format_eui64(self.meter)},{self.public_key.hex()}"


@dataclass(frozen=True, slots=True)
class Template:
    """What goes into the settings file besides the identity."""

    address: str = ""
    public_key: str = ""
    root_key: str = ""
    standard_offset: str = "+00:00"
    register_start: tuple[int, ...] = ()
    metrology: tuple[str, ...] = ('source = "profile"',)
    schedule: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parse_offset(self.standard_offset)
        if self.address:
            parse_address(self.address, default_port=DEFAULT_PORT, what="address")
        for key in (self.public_key, self.root_key):
            if key:
                parse_public_key(key)


def random_eui64(entropy: bytes) -> Eui64:
    """An EUI-64 from 8 random octets, marked as locally administered and individual."""
    return Eui64(bytes(((entropy[0] | _LOCAL) & ~0x01,)) + entropy[1:8])


def provision(directory: Path, template: Template, *, meter: Eui64 | None = None) -> Identity:
    """Make the identity in `directory`: a key file (0600) and a settings file.

    A key that is there already is kept, and only the enrolment line is given again.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be made: {error.strerror or error}") from error
    config_path, key_path = directory / CONFIG_FILE, directory / KEY_FILE
    if config_path.exists():
        raise ConfigError(
            f"{config_path} exists: nothing is overwritten; `meterd identity` prints its line"
        )
    meter = meter or random_eui64(os.urandom(8))
    secret = find_secret("meterd", None)
    if not key_path.exists():
        save_key(key_path, make_key(), secret)
    identity = Identity(meter, encode_public_key(load_key(key_path, secret).public_key()))
    try:
        # "x": also not what somebody else made in this very moment.
        with config_path.open("x", encoding="utf-8") as file:
            file.write(_config(meter, template))
    except OSError as error:
        raise ConfigError(f"{config_path} cannot be written: {error.strerror or error}") from error
    return identity


def _config(meter: Eui64, template: Template) -> str:
    """The settings file's text."""
    device = [
        "# A meter. Paths are relative to this file.",
        "[meter]",
        f'id = "{format_eui64(meter)}"',
        f'standard_offset = "{template.standard_offset}"',
    ]
    if template.register_start:
        device.append(f"register_start = {list(template.register_start)}")
    headend = []
    if not (template.address and template.public_key):
        headend.append("# `headend init` prints the two lines that belong here:")
    if template.public_key and not template.address:
        headend[:] = ["# Without an address it is found by DNS-SD, if it announces itself."]
    headend.append(
        f'address = "{template.address}"' if template.address else '# address = "HOST:5683"'
    )
    headend.append(
        f'public_key = "{template.public_key}"'
        if template.public_key
        else '# public_key = "66 hex digits"'
    )
    if template.root_key:
        headend.append(f'root_key = "{template.root_key}"')
    parts = [
        device,
        ["[headend]", *headend],
        [
            "# Where the energy comes from: docs/operating/metrology.md",
            "[metrology]",
            *template.metrology,
        ],
    ]
    if template.schedule:
        parts.append(["[schedule]", *template.schedule])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"
