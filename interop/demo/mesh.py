"""The demo's mesh: a street behind two collectors, each house in reach of a few others alone.

Houses stand in a grid, a collector at either end of its middle row. Who is in reach is a node's
list of neighbours; frames are datagrams on loopback.

Raises  DemoError, ApiError's one line, when a command fails
"""

from __future__ import annotations

import json
import math
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interop.demo.processes import Program, run

AREA: Final = 1
PROFILE: Final = "lab"
COLLECTORS: Final = ("02000000000000c1", "02000000000000c2")
REACH: Final = 1.5
"""Steps of the grid: the eight houses around one."""
REACH_LARGE: Final = 2.5
LARGE: Final = 100
"""Meters from which the houses stand closer, or the way would be too long."""
CATCH_UP_S: Final = 30
"""Seconds between older days: all at once they fill the way for those who join."""
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands, and which nodes before it are in its reach."""

    column: float
    row: float
    neighbours: tuple[int, ...]


def places(meter_count: int) -> list[Place]:
    """The places of two collectors, and behind them of so many meters."""
    columns = math.ceil(math.sqrt(2 * meter_count))
    rows = math.ceil(meter_count / columns)
    middle = (rows - 1) / 2
    reach = REACH if meter_count <= LARGE else REACH_LARGE
    spots = [(-1.0, middle), (float(columns), middle)]
    spots += [(float(at % columns), float(at // columns)) for at in range(meter_count)]
    found: list[Place] = []
    for column, row in spots:
        near = (
            number
            for number, other in enumerate(found)
            if math.dist((column, row), (other.column, other.row)) <= reach
        )
        found.append(Place(column, row, tuple(near)))
    return found


class Mesh:
    """The area, its collectors, and what each meter's settings need."""

    def __init__(self, folder: Path, config: Path) -> None:
        """`config` is the head-end's settings file."""
        self._folder = folder
        self._config = ("--config", str(config))
        self._ports: list[int] = []
        self._places: list[Place] = []

    async def lay(self, meter_count: int) -> None:
        """Make the area and its network key, and choose places and ports."""
        self._folder.mkdir()
        self._places = places(meter_count)
        self._ports = free_ports(len(self._places))
        await run("meterd", "network-key", str(self._key))
        await run("headend", "mesh", "area", str(AREA), "--profile", PROFILE, *self._config)

    async def start_collectors(self) -> list[Program]:
        """Two collectors, connected to the head-end by TCP on loopback."""
        area = json.loads(await run("headend", "mesh", "status", "--json", *self._config))
        (dodag_id,) = (one["dodag_id"] for one in area["areas"] if one["area"] == AREA)
        shorts = await self._assign(COLLECTORS, "--collector")
        programs = []
        for number, (node, short) in enumerate(zip(COLLECTORS, shorts, strict=True)):
            folder = self._folder / node
            folder.mkdir()
            shutil.copy(self._key, folder / "network-key")
            file = folder / "collector.toml"
            file.write_text(
                f'[collector]\nid = "{node}"\narea = {AREA}\ndodag_id = "{dodag_id}"\n\n'
                f"{self._mesh_table(number, short)}\n"
                f'[backhaul]\naddress = "{area["listen"]}"\nplain = true\n',
                encoding="utf-8",
            )
            command = ["run", "--role", "collector", "--config", str(file)]
            command += ["--log-level", "warning"]
            programs.append(await Program.start("meterd", command, self._folder / f"{node}.log"))
        return programs

    async def join(self, meters: Sequence[str], folders: Sequence[Path]) -> None:
        """Write each meter's place into its settings, which name no address of the head-end."""
        shorts = await self._assign(meters)
        for number, (folder, short) in enumerate(zip(folders, shorts, strict=True)):
            shutil.copy(self._key, folder / "network-key")
            file = folder / "meterd.toml"
            kept = [
                line
                for line in file.read_text(encoding="utf-8").splitlines()
                if not line.startswith(("address", "catch_up_s"))
            ]
            at = next(n for n, line in enumerate(kept) if line.startswith("[schedule]"))
            kept.insert(at + 1, f"catch_up_s = {CATCH_UP_S}")
            table = self._mesh_table(len(COLLECTORS) + number, short)
            file.write_text("\n".join([*kept, "", table]), encoding="utf-8")

    @property
    def _key(self) -> Path:
        return self._folder / "network-key"

    async def _assign(self, nodes: Sequence[str], *options: str) -> list[int]:
        """The nodes' short addresses, in their order."""
        listed = self._folder / "nodes.csv"
        listed.write_text("\n".join(nodes) + "\n", encoding="utf-8")
        printed = await run(
            *("headend", "mesh", "assign", *options, "--json", "--file", str(listed), str(AREA)),
            *self._config,
        )
        shorts = {one["node"]: one["short"] for one in json.loads(printed)["assignments"]}
        return [shorts[node] for node in nodes]

    def _mesh_table(self, place: int, short: int) -> str:
        neighbours = ", ".join(
            f'"{LOOPBACK}:{self._ports[number]}"' for number in self._places[place].neighbours
        )
        return (
            f'[mesh]\nshort = {short}\nprofile = "{PROFILE}"\n'
            f'listen = "{LOOPBACK}:{self._ports[place]}"\nneighbours = [{neighbours}]\n'
        )


def free_ports(count: int) -> list[int]:
    """UDP ports of loopback that nobody has at the moment."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def with_mesh(settings: str) -> str:
    """A head-end's settings with a place for collectors, on any free port of loopback."""
    return settings.replace("[mesh]\n", f'[mesh]\nlisten = "{LOOPBACK}:0"\n', 1)
