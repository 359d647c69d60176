"""Talk to the running head-end about its mesh, over its Unix socket.

Gives   the documents of headend/api/mesh_documents.py; topology, trace, isolation as they come
Raises  ApiError, one line: nobody answers, or the problem that was answered
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from amistack.identifiers import Eui64, format_eui64
from headend.api.mesh_documents import (
    AreaMade,
    AssignedDocument,
    AssignmentDocument,
    AssignmentPage,
    DeviceDocument,
    IsolationDocument,
    MeshDocument,
    OrderDocument,
    PingDocument,
    ReleasedDocument,
    TracingDocument,
)
from headend.client import PAGE_SIZE, ApiError, HeadEndClient, read_document

ASK_TIMEOUT_S: Final = 240.0
"""An order and a ping over 24 hops have their answer, or are given up, before that."""
ASSIGN_TIMEOUT_S: Final = 300.0

Line = TypeVar("Line", TracingDocument, IsolationDocument)


class MeshClient(HeadEndClient):
    """For commands: each method waits for its answer."""

    def mesh(self) -> MeshDocument:
        """Areas, collectors, and how many nodes are in each state."""
        return self.call("GET", "/v1/mesh", MeshDocument)

    def set_area(
        self, area: int, *, profile: str | None = None, dodag_id: str | None = None
    ) -> AreaMade:
        """Make an area, or give one another profile; without one it keeps what it has."""
        body = {"area": area, "profile": profile, "dodag_id": dodag_id}
        return self.call("POST", "/v1/mesh/areas", AreaMade, body=body)

    def addresses(self) -> Iterator[AssignmentDocument]:
        """Who has which short address, page by page."""
        after: str | None = None
        while True:
            query: dict[str, str | int] = {"limit": PAGE_SIZE}
            if after is not None:
                query["after"] = after
            page = self.call("GET", "/v1/mesh/addresses", AssignmentPage, query=query)
            yield from page.assignments
            if (after := page.next) is None:
                return

    def assign(
        self,
        area: int,
        nodes: Sequence[Eui64],
        *,
        role: str = "meter",
        certificate: str | None = None,
        is_moving: bool = False,
    ) -> AssignedDocument:
        """Give nodes short addresses: all, or none."""
        body = {
            "area": area,
            "nodes": list(map(format_eui64, nodes)),
            "role": role,
            "certificate": certificate,
            "move": is_moving,
        }
        return self.call(
            "POST", "/v1/mesh/addresses", AssignedDocument, body=body, timeout_s=ASSIGN_TIMEOUT_S
        )

    def release(self, nodes: Sequence[Eui64]) -> ReleasedDocument:
        """Take nodes out of the mesh: all, or none."""
        body = {"nodes": list(map(format_eui64, nodes))}
        return self.call("POST", "/v1/mesh/releases", ReleasedDocument, body=body)

    def order(self, area: int, order: str, node: Eui64 | None = None) -> OrderDocument:
        """Have every collector of an area do something."""
        named = None if node is None else format_eui64(node)
        body = {"area": area, "order": order, "node": named}
        return self.call(
            "POST", "/v1/mesh/orders", OrderDocument, body=body, timeout_s=ASK_TIMEOUT_S
        )

    def topology(self, form: str, area: int | None = None) -> Iterator[str]:
        """The topology, line by line."""
        query: dict[str, str | int] = {"format": form}
        if area is not None:
            query["area"] = area
        return self.lines("GET", "/v1/topology", query=query)

    def device(self, node: Eui64) -> DeviceDocument:
        """One node: state, place, ways."""
        return self.call("GET", f"/v1/nodes/{format_eui64(node)}", DeviceDocument)

    def ping(self, node: Eui64, *, way: int = 0) -> PingDocument:
        """Ask a node whether it is there. However it ends, that is no error."""
        return self.call(
            "POST",
            f"/v1/nodes/{format_eui64(node)}/ping",
            PingDocument,
            query={"way": way},
            timeout_s=ASK_TIMEOUT_S,
        )

    def trace(self, node: Eui64, *, way: int = 0) -> Iterator[TracingDocument]:
        """Ask every node on a way: each row as it is known, all of them last."""
        path = f"/v1/nodes/{format_eui64(node)}/trace"
        return _read(TracingDocument, self.lines("POST", path, query={"way": way}))

    def isolate(self, node: Eui64) -> Iterator[IsolationDocument]:
        """Which component keeps a node silent: each step as it is known, the verdict last."""
        path = f"/v1/nodes/{format_eui64(node)}/isolate"
        return _read(IsolationDocument, self.lines("POST", path))


def _read(kind: type[Line], lines: Iterator[str]) -> Iterator[Line]:
    for line in lines:
        try:
            yield read_document(kind, json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise ApiError(
                f"a line of the answer is not understood ({error}): "
                "do this command and the head-end have the same version?"
            ) from error
