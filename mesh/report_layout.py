"""The octets of topology reports, declared: readable, normative, and the oracle of the codec.

Spec    docs/protocol/topology.md
Gives   `REPORT` for documentation and dissectors; `parse` and `build`, slowly
Raises  MeshError on octets, LocalProtocolError on a value, that the layout has no place for
"""

from __future__ import annotations

from typing import Final

from construct import (
    Array,
    BitsInteger,
    BitStruct,
    Byte,
    Check,
    Const,
    ConstructError,
    Int16ub,
    Struct,
    Terminated,
    this,
)

from amistack.errors import LocalProtocolError, MeshError
from mesh.reports import (
    NEIGHBOURS_MAX,
    PARENTS_MAX,
    VERSION,
    LinkReport,
    Reason,
    TopologyReport,
)

LINK: Final = Struct(
    "neighbour" / Int16ub,
    "etx_to" / Int16ub,
    "etx_from" / Int16ub,
    "samples" / Byte,
    "age_minutes" / Byte,
)
"""One link: ETX in 1/128, 0 for unknown and 0xFFFF for unusable."""

REPORT: Final = Struct(
    "version" / Const(VERSION, Byte),
    "reason" / Byte,
    "sequence" / Int16ub,
    "rank" / Int16ub,
    "hops" / Byte,
    "counts" / BitStruct("parents" / BitsInteger(4), "neighbours" / BitsInteger(4)),
    Check((this.counts.parents <= PARENTS_MAX) & (this.counts.neighbours <= NEIGHBOURS_MAX)),
    "parents" / Array(this.counts.parents, LINK),
    "neighbours" / Array(this.counts.neighbours, LINK),
    Terminated,
)
"""One topology report, all of its octets."""


def parse(octets: bytes) -> TopologyReport:
    """The report in `octets`. Raises MeshError, reason `not the layout`."""
    try:
        found = REPORT.parse(octets)
        parents, neighbours = (
            tuple(
                LinkReport(
                    link.neighbour, link.etx_to, link.etx_from, link.samples, link.age_minutes
                )
                for link in links
            )
            for links in (found.parents, found.neighbours)
        )
        return TopologyReport(
            Reason(found.reason), found.sequence, found.rank, found.hops, parents, neighbours
        )
    except (ConstructError, LocalProtocolError, ValueError) as error:
        raise MeshError("not the layout", str(error).replace("\n", "; ")) from None


def build(report: TopologyReport) -> bytes:
    """The octets of `report`. Raises LocalProtocolError where it has no place in the layout."""
    try:
        octets: bytes = REPORT.build(
            {
                "reason": int(report.reason),
                "sequence": report.sequence,
                "rank": report.rank,
                "hops": report.hops,
                "counts": {
                    "parents": len(report.parents),
                    "neighbours": len(report.neighbours),
                },
                "parents": [_fields(link) for link in report.parents],
                "neighbours": [_fields(link) for link in report.neighbours],
            }
        )
    except ConstructError as error:
        raise LocalProtocolError(str(error).replace("\n", "; ")) from None
    return octets


def _fields(link: LinkReport) -> dict[str, int]:
    return {
        "neighbour": link.neighbour,
        "etx_to": link.etx_to,
        "etx_from": link.etx_from,
        "samples": link.samples,
        "age_minutes": link.age_minutes,
    }
