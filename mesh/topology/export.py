"""A topology as text: table, JSON, GraphML or Graphviz's dot, line by line.

Gives   `table`, `json_lines`, `graphml`, `dot`: iterators of lines without their ends, so that
        100,000 nodes never stand in memory as one text
Never   writes a file; minds if the topology changes between two lines: a line says what is true
        when it is made, and who is gone by then has none
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from amistack.identifiers import format_eui64
from mesh.reports import (
    ETX_ONE,
    ETX_UNKNOWN,
    ETX_UNUSABLE,
    HOPS_UNKNOWN,
    INFINITE_RANK,
)
from mesh.topology.dcc import Dcc
from mesh.topology.facts import AreaId, Index, LinkFact, NodeFact, Role

Value = str | int | float | None


class Format(enum.Enum):
    """The forms there are, by the names that a command line gives them."""

    TABLE = "table"
    JSON = "json"
    GRAPHML = "graphml"
    DOT = "dot"


def export(dcc: Dcc, form: Format, *, now: float, area: AreaId | None = None) -> Iterator[str]:
    """The whole topology, or one area of it."""
    return WRITERS[form](dcc, now, area)


def table(dcc: Dcc, now: float, area: AreaId | None = None) -> Iterator[str]:
    """One line a node, for people: the best way, what it costs, how old the word is."""
    yield (
        f"{'area':>5} {'node':16} {'short':>6} {'role':9} {'state':11} {'for':>5} {'hops':>4} "
        f"{'rank':>5} {'etx':>6} {'via':16} {'collector':16} {'registered':15} {'ago':>5} "
        f"{'age':>6}"
    )
    count = 0
    for fact in _facts(dcc, now, area):
        node = _node(dcc, fact, now)
        count += 1
        yield (
            f"{node['area']:>5} {node['node']:16} {fact.short:#06x} {node['role']:9} "
            f"{node['state']:11} {_age(node['state_age_s']):>5} {_shown(node['hops']):>4} "
            f"{_shown(node['rank']):>5} {_shown(node['etx']):>6} {_shown(node['via']):16} "
            f"{_shown(node['collector']):16} {_registered(node['registered_for']):15} "
            f"{_age(node['registered_age_s'], never='-'):>5} {_age(fact.age_s):>6}"
        )
    yield f"{count} nodes"


def json_lines(dcc: Dcc, now: float, area: AreaId | None = None) -> Iterator[str]:
    """One object with `nodes` and `links`; a link is one end's word, so most stand there twice."""
    yield '{"nodes": ['
    yield from _separated(json.dumps(_node(dcc, fact, now)) for fact in _facts(dcc, now, area))
    yield '], "links": ['
    yield from _separated(
        json.dumps(_link(fact, link)) for fact in _facts(dcc, now, area) for link in fact.links
    )
    yield "]}"


def graphml(dcc: Dcc, now: float, area: AreaId | None = None) -> Iterator[str]:
    """GraphML 1.0, an undirected graph of what links cost in transmissions."""
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    for key, kind in _NODE_KEYS.items():
        yield f'  <key id="{key}" for="node" attr.name="{key}" attr.type="{kind}"/>'
    yield '  <key id="cost" for="edge" attr.name="cost" attr.type="double"/>'
    yield '  <key id="is_best" for="edge" attr.name="is_best" attr.type="boolean"/>'
    yield '  <graph id="topology" edgedefault="undirected">'
    for fact in _facts(dcc, now, area):
        node = _node(dcc, fact, now)
        yield f"    <node id={quoteattr(format_eui64(fact.node))}>"
        for key in _NODE_KEYS:
            if (value := node[key]) is not None:
                yield f'      <data key="{key}">{escape(str(value))}</data>'
        yield "    </node>"
    for one, other, cost, is_best in _edges(dcc, area):
        yield f'    <edge source="{one}" target="{other}">'
        yield f'      <data key="cost">{cost}</data>'
        yield f'      <data key="is_best">{str(is_best).lower()}</data>'
        yield "    </edge>"
    yield "  </graph>"
    yield "</graphml>"


def dot(dcc: Dcc, now: float, area: AreaId | None = None) -> Iterator[str]:
    """Graphviz: collectors as boxes, best ways bold, the rest thin."""
    yield "graph topology {"
    yield "  node [shape=ellipse fontsize=9];"
    for fact in _facts(dcc, now, area):
        shape = " shape=box" if fact.role is Role.COLLECTOR else ""
        status = dcc.devices.status_of(fact.node, now=now)
        state = f"{status.state.value} for {_age(now - status.since)}"
        name = format_eui64(fact.node)
        yield f'  "{name}" [label="{name[-6:]}\\n{fact.short:#06x}" tooltip="{state}"{shape}];'
    for one, other, cost, is_best in _edges(dcc, area):
        style = "style=bold" if is_best else "style=dotted"
        yield f'  "{one}" -- "{other}" [label="{cost}" {style}];'
    yield "}"


WRITERS: Final[Mapping[Format, Callable[[Dcc, float, AreaId | None], Iterator[str]]]] = {
    Format.TABLE: table,
    Format.JSON: json_lines,
    Format.GRAPHML: graphml,
    Format.DOT: dot,
}

_NODE_KEYS: Final = {
    "area": "int",
    "short": "int",
    "role": "string",
    "state": "string",
    "state_age_s": "double",
    "heard_age_s": "double",
    "backhaul": "string",
    "rank": "int",
    "hops": "int",
    "etx": "double",
    "via": "string",
    "collector": "string",
    "age_s": "double",
    "registered_for": "string",
    "registered_age_s": "double",
}
"""What is told of a node, and its type in GraphML."""


def _facts(dcc: Dcc, now: float, area: AreaId | None) -> Iterator[NodeFact]:
    for index in dcc.graph.nodes(area):
        if dcc.graph.is_used(index):
            yield dcc.graph.fact_of(index, now=now)


def _node(dcc: Dcc, fact: NodeFact, now: float) -> dict[str, Value]:
    """A node with `node` and what _NODE_KEYS names; hops and rank are its own word."""
    status = dcc.devices.status_of(fact.node, now=now)
    route = dcc.routes.route_of(fact.node)
    registered_for = status.registered_for
    return {
        "node": format_eui64(fact.node),
        "area": fact.area,
        "short": fact.short,
        "role": fact.role.value,
        "state": status.state.value,
        "state_age_s": round(now - status.since, 1),
        "heard_age_s": _since(status.heard_at, now),
        "backhaul": None if fact.backhaul is None else fact.backhaul.value,
        "rank": None if fact.rank == INFINITE_RANK else fact.rank,
        "hops": None if fact.hops == HOPS_UNKNOWN else fact.hops,
        "etx": None if route is None else _etx(route.cost),
        "via": None if route is None or not route.hops else format_eui64(route.nodes[-2]),
        "collector": None if route is None else format_eui64(route.collector),
        "age_s": None if fact.age_s is None else round(fact.age_s, 1),
        "registered_for": None if registered_for is None else registered_for.name.lower(),
        "registered_age_s": _since(status.registered_at, now),
    }


def _link(fact: NodeFact, link: LinkFact) -> dict[str, Value]:
    return {
        "reporter": format_eui64(fact.node),
        "neighbour": format_eui64(link.neighbour),
        "etx_to": _reported(link.etx_to),
        "etx_from": _reported(link.etx_from),
        "samples": link.samples,
        "age_s": round(link.age_s, 1),
        "parent": link.place,
    }


def _edges(dcc: Dcc, area: AreaId | None) -> Iterator[tuple[str, str, float, bool]]:
    """Each usable link once: its ends, its cost in transmissions, whether a best way goes over."""
    graph, routes = dcc.graph, dcc.routes

    def is_above(upper: Index, lower: Index) -> bool:
        return routes.parent_of(graph.eui_of(lower)) == graph.eui_of(upper)

    for one in graph.nodes(area):
        if not graph.is_used(one):
            continue
        found = []
        for other, cost in sorted(graph.costs[one].items()):
            if one < other:
                is_best = is_above(one, other) or is_above(other, one)
                ends = format_eui64(graph.eui_of(one)), format_eui64(graph.eui_of(other))
                found.append((*ends, _etx(cost), is_best))
        yield from found


def _etx(cost: int) -> float:
    return round(cost / ETX_ONE, 2)


def _reported(etx: int) -> float | str | None:
    """None where nobody knows; where nothing gets through, that word."""
    if etx == ETX_UNUSABLE:
        return "unusable"
    return None if etx == ETX_UNKNOWN else _etx(etx)


def _shown(value: Value) -> str:
    return "-" if value is None else str(value)


def _registered(reason: Value) -> str:
    return _shown(reason).replace("_", " ")


def _since(at: float | None, now: float) -> float | None:
    return None if at is None else round(now - at, 1)


def _age(age_s: Value, *, never: str = "never") -> str:
    if not isinstance(age_s, int | float):
        return never
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if age_s >= 2 * size:
            return f"{age_s / size:.0f}{unit}"
    return f"{age_s:.0f}s"


def _separated(lines: Iterator[str]) -> Iterator[str]:
    """A comma after every line but the last."""
    last = next(lines, None)
    for line in lines:
        yield f"{last},"
        last = line
    if last is not None:
        yield last
