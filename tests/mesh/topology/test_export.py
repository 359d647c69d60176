"""A topology as text: each form is what its readers expect, and says the same.

The contract under test: JSON parses, GraphML is well-formed XML, dot has balanced statements; all
have every node and every usable link of the area asked for, and the table a line a node.
"""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET

import pytest

from mesh.reports import LinkReport, Reason, TopologyReport
from mesh.topology.dcc import Dcc
from mesh.topology.export import Format, export
from mesh.topology.facts import AreaId, Role
from mesh.topology.graph import HOP_RANK_INCREASE as ROOT_RANK
from tests.mesh.topology.worlds import AREA, World, eui, made_world

WORLD = made_world(4, meters=9, degree=2.6)
GRAPHML = "{http://graphml.graphdrawing.org/xmlns}"


def text(dcc: Dcc, form: Format, area: AreaId | None = None) -> str:
    return "\n".join(export(dcc, form, now=60.0, area=area))


def pair() -> World:
    return World((192,), (1, 9), {frozenset({192, 1}): 128})


def test_json_has_every_node_and_every_word() -> None:
    dcc = WORLD.dcc()
    found = json.loads(text(dcc, Format.JSON))
    assert {node["node"] for node in found["nodes"]} == {eui(each).hex() for each in WORLD.nodes}
    assert len(found["links"]) == 2 * len(WORLD.links)
    for node in found["nodes"]:
        index = int(node["node"], 16) & 0xFFFF
        route = dcc.routes.route_of(eui(index))
        assert node["collector"] == (None if route is None else route.collector.hex())
        assert node["etx"] == (None if route is None else round(route.cost / 128, 2))
        assert node["age_s"] == 60.0


@pytest.mark.parametrize("form", Format, ids=lambda form: form.value)
@pytest.mark.parametrize("after", [0, 1, 5, 12, 20])
def test_nodes_that_go_between_two_lines_have_no_line_any_more(form: Format, after: int) -> None:
    dcc = WORLD.dcc()
    lines = export(dcc, form, now=60.0)
    said = list(itertools.islice(lines, after))
    for short in WORLD.meters[::2]:
        dcc.remove(eui(short))
    said += lines
    assert said
    if form is Format.JSON:
        json.loads("\n".join(said))
    elif form is Format.GRAPHML:
        ET.fromstring("\n".join(said))


def test_graphml_is_well_formed_and_has_every_link_once() -> None:
    root = ET.fromstring(text(WORLD.dcc(), Format.GRAPHML))
    (graph,) = root.findall(f"{GRAPHML}graph")
    nodes = {node.attrib["id"] for node in graph.findall(f"{GRAPHML}node")}
    edges = graph.findall(f"{GRAPHML}edge")
    assert nodes == {eui(each).hex() for each in WORLD.nodes}
    assert len(edges) == len(WORLD.links)
    assert {edge.attrib[end] for edge in edges for end in ("source", "target")} <= nodes
    keys = {key.attrib["id"] for key in root.findall(f"{GRAPHML}key")}
    assert {data.attrib["key"] for data in root.iter(f"{GRAPHML}data")} <= keys
    best = [edge for edge in edges if "true" in [data.text for data in edge]]
    dcc = WORLD.dcc()
    with_parent = [each for each in WORLD.nodes if dcc.routes.parent_of(eui(each)) is not None]
    assert len(best) == len(with_parent)


def test_dot_has_every_node_and_link() -> None:
    lines = text(WORLD.dcc(), Format.DOT).splitlines()
    assert (lines[0], lines[-1]) == ("graph topology {", "}")
    assert sum(" -- " in line for line in lines) == len(WORLD.links)
    assert sum("tooltip=" in line for line in lines) == len(WORLD.nodes)
    assert sum("shape=box" in line for line in lines) == len(WORLD.collectors)
    assert all(line.count('"') % 2 == 0 for line in lines)


def test_table_shows_the_way_and_its_age() -> None:
    dcc = pair().dcc()
    for node, reason in ((9, Reason.ADDRESS_CHANGED), (0xC0, Reason.POWER_RESTORED)):
        dcc.devices.registered(eui(node), reason, now=20.0)
    lines = text(dcc, Format.TABLE).splitlines()
    assert lines[1:] == [
        (
            "    7 0000000700000001 0x0001 meter     reachable     60s    1   512    1.0 "
            "00000007000000c0 00000007000000c0 -                   -    60s"
        ),
        (
            "    7 0000000700000009 0x0009 meter     reachable     60s    -     -      - "
            "-                -                address changed   40s    60s"
        ),
        (
            "    7 00000007000000c0 0x00c0 collector reachable     60s    0   256    0.0 "
            "-                00000007000000c0 power restored    40s    60s"
        ),
        "3 nodes",
    ]
    assert len({len(line) for line in lines[:-1]}) == 1


@pytest.mark.parametrize("form", Format, ids=lambda form: form.value)
def test_one_area_is_told_without_the_others(form: Format) -> None:
    dcc = pair().dcc()
    other = AreaId(8)
    dcc.place(eui(192, 8), area=other, short=192, role=Role.COLLECTOR, now=0.0)
    dcc.place(eui(1, 8), area=other, short=1, now=0.0)
    report = TopologyReport(Reason.COLD_BOOT, 1, ROOT_RANK * 2, 1, (LinkReport(192, 0xFFFF),), ())
    dcc.take_report(report, area=other, short=1, now=0.0)
    whole, one, eight = (text(dcc, form, area) for area in (None, AREA, other))
    for area, said in ((7, one), (8, eight)):
        assert eui(1, area).hex() in said
        assert eui(1, 15 - area).hex() not in said
        assert eui(1, area).hex() in whole
    assert eui(1, 7).hex() not in text(dcc, form, AreaId(99))


def test_empty_topology_can_be_told() -> None:
    dcc = Dcc()
    assert json.loads(text(dcc, Format.JSON)) == {"nodes": [], "links": []}
    assert text(dcc, Format.TABLE).endswith("0 nodes")
    ET.fromstring(text(dcc, Format.GRAPHML))


def test_unusable_and_unknown_are_told_apart() -> None:
    dcc = pair().dcc()
    report = TopologyReport(
        Reason.COLD_BOOT, 9, ROOT_RANK * 2, 1, (LinkReport(192, 0xFFFF, 0),), ()
    )
    dcc.take_report(report, area=AREA, short=1, now=900.0)
    found = json.loads(text(dcc, Format.JSON))
    (link,) = (each for each in found["links"] if each["reporter"] == eui(1).hex())
    assert (link["etx_to"], link["etx_from"], link["parent"]) == ("unusable", None, 0)
