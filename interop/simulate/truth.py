"""What a head-end holds at the end, beside what is so: topology, days, sums.

Gives   `topology`: nodes of whose place `headend topology` says what the nodes themselves know;
        `days`: whole days by meter, as they stand in the store and as the household used energy
Never   asks a program what another told it: nodes, households and the clock are asked
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from amistack.identifiers import Eui64, format_eui64
from amistack.model import unpack
from headend.store.interface import StoredBlock
from interop.simulate.homes import OFFSET_MIN, household, node_of
from interop.simulate.town import DAY_S, MIDNIGHT_S, Town
from mesh.sim.capture import EPOCH_S
from mesh.sim.machine import NodeMachine
from mesh.topology.export import Format
from meterd.metrology import HouseholdProfile

INTERVAL_S: Final = 900
WRONG_COUNT_MAX: Final = 100
DELIVERED: Final = 1
"""The channel of delivered energy."""


@dataclass(slots=True)
class Topology:
    """Of all meters with power that have a parent."""

    collectors: int = 0
    """Those that the head-end has a connection to."""
    joined: int = 0
    known: int = 0
    """Those of whom `headend topology` shows a way."""
    agree: int = 0
    """Those whose preferred parent is shown as it is."""
    telling: int = 0
    """Those of whom another is shown, since they chose just now and have yet to tell the root."""
    exact: int = 0
    """Those whose further parents are, too, all of them and in their order."""
    differ: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Days:
    """Whole days of all meters, one by one."""

    expected: int = 0
    stored: int = 0
    right: int = 0
    """Each interval and the sum equal to what the household used."""
    wrong: list[str] = field(default_factory=list)


async def topology(town: Town) -> Topology:
    """Compare what the head-end shows now with what is so."""
    mesh = town.head_end.operations.mesh
    shown = json.loads("\n".join([line async for line in mesh.export(Format.JSON)]))
    places: dict[str, dict[int, str]] = {}
    for link in shown["links"]:
        if link["parent"] is not None:
            places.setdefault(link["reporter"], {})[link["parent"]] = link["neighbour"]
    nodes: dict[str, dict[str, Any]] = {node["node"]: node for node in shown["nodes"]}
    connected = [
        one.node
        for area in await mesh.areas()
        for one in area.collectors
        if one.joined_s is not None
    ]
    found = Topology(collectors=len(connected))
    for number, machine in town.machines():
        if number in town.collectors or not (parents := node_of(machine).parent_set):
            continue
        name = format_eui64(town.stations.addresses[number])
        found.joined += 1
        found.known += nodes.get(name, {}).get("collector") is not None
        said = [neighbour for _, neighbour in sorted(places.get(name, {}).items())]
        true = [format_eui64(parent) for parent in parents]
        found.exact += said == true
        if said[:1] == true[:1]:
            found.agree += 1
        elif is_telling(machine):
            found.telling += 1
        elif len(found.differ) < WRONG_COUNT_MAX:
            found.differ.append(f"{name} has {' '.join(true)}, shown {' '.join(said) or 'none'}")
    return found


def is_telling(machine: NodeMachine) -> bool:
    """Whether the root has yet to acknowledge what this node has to tell of its parents."""
    return not node_of(machine).is_way_acknowledged


def midnights(*, until: float) -> list[tuple[int, float]]:
    """The meters' days that end in the run before `until`, with the world's second of their end."""
    first = int(EPOCH_S + MIDNIGHT_S + OFFSET_MIN * 60) // DAY_S - 1
    found: list[tuple[int, float]] = []
    at = MIDNIGHT_S
    while at < until:
        found.append((first + len(found), at))
        at += DAY_S
    return found


async def days(town: Town) -> Days:
    """Every whole day since a meter was mounted, as it stands in the store now."""
    store, found = town.head_end.store, Days()
    ended = midnights(until=town.clock.now)
    first = midnights(until=MIDNIGHT_S + 1)[0][0] - town.history_days
    last = first + town.history_days - 1 + len(ended)
    for number in town.meters:
        meter = town.stations.addresses[number]
        source = HouseholdProfile(household(town.seed, number), offset_min=OFFSET_MIN)
        blocks = {
            stored.block.day: stored
            for stored in await store.blocks(meter, first, last)
            if stored.block.channel == DELIVERED
        }
        for day in range(first, last + 1):
            found.expected += 1
            stored = blocks.get(day)
            if stored is None:
                continue
            found.stored += 1
            fault = _fault(stored, source, day)
            if fault is None:
                found.right += 1
            elif len(found.wrong) < WRONG_COUNT_MAX:
                found.wrong.append(f"{_named(meter, day)}: {fault}")
    return found


async def stored_reads(town: Town) -> int:
    """How many on-demand reads stand in the store with the result that was told."""
    store, count = town.head_end.store, 0
    for read in town.reads:
        found = await store.find_read(read.identifier) if read.identifier else None
        count += found is not None and found.result is read.result
    return count


def _fault(stored: StoredBlock, source: HouseholdProfile, day: int) -> str | None:
    block = stored.block
    count = DAY_S // INTERVAL_S
    begin = day * DAY_S - OFFSET_MIN * 60
    used = [values[0] for values in source.energy(begin, count)]
    if block.interval_s != INTERVAL_S:
        return f"intervals of {block.interval_s} s"
    if list(unpack(block.packed, count)) != used:
        return "other intervals than were used"
    if block.advance != sum(value or 0 for value in used):
        return f"a sum of {block.advance} Wh"
    return None


def _named(meter: Eui64, day: int) -> str:
    return f"{format_eui64(meter)} day {day}"
