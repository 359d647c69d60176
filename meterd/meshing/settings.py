"""What a node's settings say of its mesh.

Raises  ConfigError, one line, from everything here
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amistack.addresses import MESH_PORT, parse_address
from amistack.errors import ConfigError

if TYPE_CHECKING:
    from mesh.routing.profile import Profile


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """A node's place in the mesh; frames go over UDP. `headend mesh assign` gives `short`."""

    short: int
    """Its address in the area, which the head-end assigned."""
    network_key: Path = Path("network-key")
    """The file with the area's network key, 32 hex digits, mode 0600."""
    key_index: int = 0
    profile: str = "lab"
    """What the area is tuned to: a name, or a TOML file."""
    listen: str = f"0.0.0.0:{MESH_PORT}"
    """HOST:PORT for frames of neighbours."""
    neighbours: tuple[str, ...] = ()
    """HOST or HOST:PORT of nodes nearby; who knows one of two is enough."""

    def __post_init__(self) -> None:
        # Only now: a meter on plain IP needs none of it.
        from mesh.lan import NEIGHBOURS_MAX
        from mesh.packet import NODE_ADDRESS_MAX
        from mesh.security.frame import KEY_INDEX_MAX

        if not 1 <= self.short <= NODE_ADDRESS_MAX:
            raise ConfigError(f"short is {self.short}, expected 1 to {NODE_ADDRESS_MAX}")
        if not 0 <= self.key_index <= KEY_INDEX_MAX:
            raise ConfigError(f"key_index is {self.key_index}, expected 0 to {KEY_INDEX_MAX}")
        if len(self.neighbours) > NEIGHBOURS_MAX:
            raise ConfigError(f"{len(self.neighbours)} neighbours, at most {NEIGHBOURS_MAX}")
        _ = self.host_and_port
        _ = self.neighbour_addresses

    @property
    def host_and_port(self) -> tuple[str, int]:
        """`listen` taken apart."""
        return parse_address(self.listen, default_port=MESH_PORT, what="listen")

    @property
    def neighbour_addresses(self) -> tuple[tuple[str, int], ...]:
        """The neighbours' hosts and ports."""
        return tuple(
            parse_address(text, default_port=MESH_PORT, what="neighbours")
            for text in self.neighbours
        )

    def load_profile(self) -> Profile:
        """The area's figures. Raises ConfigError."""
        from mesh.routing.profile import load_profile

        return load_profile(self.profile)
