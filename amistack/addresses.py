"""Addresses and ports as people write them in settings.

Raises  ConfigError, one line
"""

from __future__ import annotations

import re
from typing import Final

from amistack.errors import ConfigError

PORT_MAX: Final = 65_535
BACKHAUL_PORT: Final = 7683
"""TCP, where a head-end listens for collectors."""
MESH_PORT: Final = 7684
"""UDP, for frames of the mesh between neighbours."""

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<name>[^\s:\[\]\"\\]+))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)


def parse_address(text: str, *, default_port: int, what: str) -> tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.

    Raises ConfigError; `what` is the setting's name.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        if text.count(":") > 1 and "[" not in text:
            raise ConfigError(f"{what} is {text!r}, expected an IPv6 address as [ADDRESS]:PORT")
        raise ConfigError(f"{what} is {text!r}, expected HOST:PORT")
    host = match["literal"] or match["name"]
    try:
        # What a resolver would stumble over: empty labels and labels that are too long.
        host.encode("idna")
    except UnicodeError:
        raise ConfigError(f"{what} is {text!r}, expected HOST:PORT") from None
    port = default_port if match["port"] is None else int(match["port"])
    if port > PORT_MAX or not host.isprintable():
        raise ConfigError(f"{what} is {text!r}, expected HOST:PORT")
    return host, port
