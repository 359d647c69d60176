"""The HTTP door to the mesh: `/v1/mesh`, `/v1/topology`, and what can be asked of one node.

Limit   lists of NODES_MAX nodes; a trace, an isolation and a topology come line by line
Never   decides anything: what may be and what it means is the operations'
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal, TypeVar

from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from headend.api import mesh_documents as d
from headend.dcc.operations import NODES_MAX
from headend.domain.mesh import DODAG_ID_SIZE, MeshOrder
from headend.domain.refusals import BadWish, Refusal
from headend.operations import PAGE_SIZE_MAX, Operations
from mesh.backhaul import AREA_MAX
from mesh.topology.export import Format
from mesh.topology.facts import AreaId, Role

TEXT_SIZE_MAX: Final = 200
PATH_SIZE_MAX: Final = 4_096
CERTIFICATE_SIZE_MAX: Final = 20_000
WAY_MAX: Final = 3
TYPES: Final = {
    Format.TABLE: "text/plain; charset=utf-8",
    Format.JSON: "application/json",
    Format.GRAPHML: "application/graphml+xml",
    Format.DOT: "text/vnd.graphviz",
}
LINES: Final = "application/x-ndjson"

Node = Annotated[str, Field(max_length=TEXT_SIZE_MAX)]
AreaNumber = Annotated[int, Field(ge=0, le=AREA_MAX)]
Way = Annotated[int, Query(ge=0, le=WAY_MAX)]

Line = TypeVar("Line", d.IsolationDocument, d.TracingDocument)


class AreaRequest(BaseModel):
    """An area: a profile's name or whole path, or its own; a DODAGID in hex, or one is made."""

    model_config = ConfigDict(strict=True, extra="forbid")

    area: AreaNumber
    profile: str | None = Field(default=None, max_length=PATH_SIZE_MAX)
    dodag_id: str | None = Field(default=None, max_length=2 * DODAG_ID_SIZE)


class AssignRequest(BaseModel):
    """Nodes that are to have short addresses in an area; a collector's certificate in PEM."""

    model_config = ConfigDict(strict=True, extra="forbid")

    area: AreaNumber
    nodes: list[Node] = Field(min_length=1, max_length=NODES_MAX)
    role: Literal["meter", "collector"] = "meter"
    certificate: str | None = Field(default=None, max_length=CERTIFICATE_SIZE_MAX)
    move: bool = False


class ReleaseRequest(BaseModel):
    """Nodes that are to have none any more."""

    model_config = ConfigDict(strict=True, extra="forbid")

    nodes: list[Node] = Field(min_length=1, max_length=NODES_MAX)


class OrderRequest(BaseModel):
    """What the collectors of an area are to do; `node` for the orders about one."""

    model_config = ConfigDict(strict=True, extra="forbid")

    area: AreaNumber
    order: Literal["refresh", "bump-version", "allow", "deny"]
    node: Node | None = None


def add_mesh(api: FastAPI, operations: Operations) -> None:
    """All of it."""
    _add_areas(api, operations)
    _add_questions(api, operations)


def _add_areas(api: FastAPI, operations: Operations) -> None:
    @api.get("/v1/mesh")
    async def mesh() -> d.MeshDocument:
        """Areas, their collectors, and how many nodes are in each state."""
        return d.mesh_document(operations.mesh.listen, await operations.mesh.areas())

    @api.post("/v1/mesh/areas")
    async def set_area(wish: AreaRequest) -> d.AreaMade:
        """Make an area, or give one another profile."""
        dodag_id = None if wish.dodag_id is None else _hex(wish.dodag_id, "the DODAGID")
        made = await operations.mesh.set_area(
            AreaId(wish.area), profile=wish.profile, dodag_id=dodag_id
        )
        return d.area_made(made)

    @api.get("/v1/mesh/addresses")
    async def addresses(
        after: Annotated[str | None, Query(max_length=TEXT_SIZE_MAX)] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = 1_000,
    ) -> d.AssignmentPage:
        """Who has which short address, a page at a time."""
        start = None if after is None else _node(after)
        page = await operations.mesh.assignments(after=start, limit=limit)
        listed = tuple(map(d.assignment_document, page))
        return d.AssignmentPage(listed, listed[-1].node if len(listed) == limit else None)

    @api.post("/v1/mesh/addresses")
    async def assign(wish: AssignRequest) -> d.AssignedDocument:
        """Give nodes short addresses: all of the list, or none."""
        outcome = await operations.mesh.assign(
            AreaId(wish.area),
            [_node(node) for node in wish.nodes],
            role=Role(wish.role),
            certificate=None if wish.certificate is None else wish.certificate.encode(),
            is_moving=wish.move,
        )
        return d.assigned_document(outcome)

    @api.post("/v1/mesh/releases")
    async def release(wish: ReleaseRequest) -> d.ReleasedDocument:
        """Take nodes out of the mesh: all of the list, or none."""
        await operations.mesh.release([_node(node) for node in wish.nodes])
        return d.ReleasedDocument(len(wish.nodes))

    @api.post("/v1/mesh/orders")
    async def order(wish: OrderRequest) -> d.OrderDocument:
        """Have every collector of an area do something."""
        node = None if wish.node is None else _node(wish.node)
        done = await operations.mesh.order(AreaId(wish.area), MeshOrder(wish.order), node)
        return d.order_document(done)


def _add_questions(api: FastAPI, operations: Operations) -> None:
    @api.get("/v1/topology", response_class=StreamingResponse)
    async def topology(
        area: Annotated[int | None, Query(ge=0, le=AREA_MAX)] = None,
        form: Annotated[Literal["table", "json", "graphml", "dot"], Query(alias="format")] = "json",
    ) -> StreamingResponse:
        """The graph with the age of every fact, line by line."""
        kind = Format(form)
        lines = operations.mesh.export(kind, None if area is None else AreaId(area))
        return StreamingResponse(await _begun(lines), media_type=TYPES[kind])

    @api.get("/v1/nodes/{node}")
    async def device(node: str) -> d.DeviceDocument:
        """One node: state, where it is asked, the best way to it and its alternates."""
        return d.device_document(await operations.mesh.device(_node(node)))

    @api.post("/v1/nodes/{node}/ping")
    async def ping(node: str, way: Way = 0) -> d.PingDocument:
        """Ask a node whether it is there, over its best way, or the alternate of that number."""
        return d.ping_document(*await operations.mesh.ping(_node(node), way=way))

    @api.post("/v1/nodes/{node}/trace", response_class=StreamingResponse)
    async def trace(node: str, way: Way = 0) -> StreamingResponse:
        """Ask every node on a way, the nearest first: a JSON object a line, all of it last."""
        known = operations.mesh.trace(_node(node), way=way)
        lines = (d.tracing_document(path, answer) async for path, answer in known)
        return await _streamed(d.TracingDocument, lines)

    @api.post("/v1/nodes/{node}/isolate", response_class=StreamingResponse)
    async def isolate(node: str) -> StreamingResponse:
        """Which component keeps a node silent: a JSON object a line, the verdict last."""
        known = operations.mesh.isolate(_node(node))
        lines = (d.isolation_document(event) async for event in known)
        return await _streamed(d.IsolationDocument, lines)


async def _streamed(kind: type[Line], documents: AsyncIterator[Line]) -> StreamingResponse:
    """An object a line. What is refused before the first is a problem; later it is the last one."""

    async def lines() -> AsyncIterator[str]:
        has_begun = False
        try:
            async for document in documents:
                yield json.dumps(dataclasses.asdict(document))
                has_begun = True
        except Refusal as refusal:
            if not has_begun:
                raise
            yield json.dumps(dataclasses.asdict(kind(failed=str(refusal))))

    return StreamingResponse(await _begun(lines()), media_type=LINES)


async def _begun(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The same lines with their ends. The first is made now, so that a refusal is one."""
    first = await anext(lines, None)

    async def rest() -> AsyncIterator[str]:
        if first is not None:
            yield first + "\n"
        async for line in lines:
            yield line + "\n"

    return rest()


def _node(text: str) -> Eui64:
    try:
        return parse_eui64(text[:TEXT_SIZE_MAX])
    except ConfigError as error:
        raise BadWish(str(error)) from None


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise BadWish(f"{what} is not in hex") from None
