"""Everything that can be asked of a head-end about its mesh: what every door calls.

Gives   plain values; a door only reads what it is told and writes what it gets
Raises  Refusal and its kinds, ConfigError for a profile or certificate that is none, StoreError
Limit   NODES_MAX nodes in one wish
Never   lets the topology know what the store does not: it is told after the commit
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from amistack.errors import ConfigError, LocalProtocolError, MeshError, TableFull
from amistack.identifiers import Eui64, format_eui64
from amistack.links.tcp import key_hash_of
from headend.dcc import views
from headend.dcc.events import Isolated, Tried
from headend.dcc.service import DccService
from headend.domain.mesh import (
    DENIED_MAX,
    DODAG_ID_SIZE,
    PROFILE_DEFAULT,
    Area,
    Assignment,
    Endpoints,
    MeshOrder,
)
from headend.domain.refusals import BadWish, NotThere, TooMany, UnknownNode, listed
from headend.store.interface import FIRST, Store
from headend.store.mesh import (
    AssignAddresses,
    Assigned,
    AssignmentRefused,
    KeepArea,
    KeepDenied,
    ReleaseAddresses,
    Released,
)
from mesh.backhaul import Order, Probed, Traced
from mesh.routing.profile import is_file
from mesh.topology.export import Format, export
from mesh.topology.facts import AreaId, Role
from mesh.topology.paths import Path
from mesh.topology.status import REGISTRATIONS, EndpointState

NODES_MAX: Final = 60_000
NODES_AT_ONCE: Final = 1_000
"""Nodes that are counted or placed between two turns of the loop."""
LINES_AT_ONCE: Final = 200
"""Lines of an export between two turns of the loop."""
ORDERS: Final[Mapping[MeshOrder, Order]] = {
    MeshOrder.REFRESH: Order.ASK_FOR_ROUTES,
    MeshOrder.BUMP_VERSION: Order.BUMP_VERSION,
    MeshOrder.ALLOW: Order.ALLOW,
    MeshOrder.DENY: Order.DENY,
}
ABOUT_ONE: Final = frozenset({MeshOrder.ALLOW, MeshOrder.DENY})


@dataclass(frozen=True, slots=True)
class Carried:
    """What one collector did about an order; `value` is what the order says it is."""

    collector: Eui64
    is_done: bool
    value: int
    detail: str = ""


class MeshOperations:
    """The mesh of one head-end, as its doors see it."""

    def __init__(
        self,
        *,
        store: Store,
        dcc: DccService,
        entropy: Callable[[int], bytes],
        wall: Callable[[], float],
        listen: str,
    ) -> None:
        """`listen` is where collectors find it; `entropy` makes DODAGIDs; `wall` is UTC (s)."""
        self._store = store
        self._wall = wall
        self._dcc = dcc
        self._entropy = entropy
        self.listen = listen

    # Areas and addresses

    async def set_area(
        self, area: AreaId, *, profile: str | None = None, dodag_id: bytes | None = None
    ) -> Area:
        """Make an area, or give one another profile; without one it keeps what it has.

        A new area has PROFILE_DEFAULT then, and a DODAGID is made, if none is given.
        """
        known = self._dcc.center.collectors.areas.get(area)
        if known is not None and dodag_id not in (None, known.dodag_id):
            raise BadWish(f"area {area} has another DODAGID, which stays: {known.dodag_id.hex()}")
        if dodag_id is None:
            # A unique local address (RFC 4193); its interface part is that of a short address 0.
            made = b"\xfd" + self._entropy(7) + bytes.fromhex("000000fffe000000")
            dodag_id = made if known is None else known.dodag_id
        if profile is None:
            profile = PROFILE_DEFAULT if known is None else known.profile
        try:
            wanted = Area(area, profile, dodag_id)
        except LocalProtocolError as error:
            raise BadWish(f"{error}, expected {DODAG_ID_SIZE}") from None
        if is_file(wanted.profile) and not FilePath(wanted.profile).is_absolute():
            raise BadWish(f"profile {wanted.profile}: expected the whole path of the file")
        self._dcc.center.check_area(wanted)
        await self._store.commit(KeepArea(wanted))
        self._dcc.center.add_area(wanted)
        return wanted

    async def assign(
        self,
        area: AreaId,
        nodes: Sequence[Eui64],
        *,
        role: Role = Role.METER,
        certificate: bytes | None = None,
        is_moving: bool = False,
    ) -> Assigned:
        """Give nodes short addresses in an area, all or none; who has one keeps it.

        `certificate` (PEM or DER) is what a collector will show under TLS.
        """
        if not 1 <= len(nodes) <= NODES_MAX:
            raise BadWish(f"{len(nodes)} nodes, expected 1 to {NODES_MAX}")
        der = None if certificate is None else _der(certificate)
        if der is not None and (role is not Role.COLLECTOR or len(nodes) > 1):
            raise BadWish("a certificate is of one collector")
        write = AssignAddresses(
            area,
            tuple(nodes),
            role,
            None if der is None else key_hash_of(der),
            der,
            is_moving,
        )
        outcome = await self._store.commit(write)
        if isinstance(outcome, AssignmentRefused):
            raise _refusal(outcome)
        assert isinstance(outcome, Assigned), "assignments have no other outcome"
        for count, assignment in enumerate(outcome.assignments):
            self._place(assignment)
            if not count % NODES_AT_ONCE:
                await asyncio.sleep(0)
        self._dcc.settle()
        return outcome

    async def release(self, nodes: Sequence[Eui64]) -> None:
        """Take nodes out of their areas, all or none."""
        outcome = await self._store.commit(ReleaseAddresses(tuple(nodes)))
        assert isinstance(outcome, Released), "releases have no other outcome"
        if outcome.unknown:
            named = listed([format_eui64(node) for node in outcome.unknown], between=", ")
            raise UnknownNode(f"nothing was changed: without an address in the mesh: {named}")
        for node in nodes:
            with contextlib.suppress(MeshError):
                self._dcc.center.remove(node, now=self._dcc.now())
        self._dcc.settle()

    async def assignments(
        self, *, after: Eui64 | None = None, limit: int = 1_000
    ) -> Sequence[Assignment]:
        """A page of who has which address, in the order of identifiers."""
        return await self._store.mesh_nodes(after=FIRST if after is None else after, limit=limit)

    def _place(self, assignment: Assignment) -> None:
        try:
            self._dcc.center.place(assignment, now=self._dcc.now())
        except TableFull as error:
            raise TooMany(f"{error}; the address is kept, and known at the next start") from None
        if assignment.is_collector:
            self._dcc.trust(assignment)

    # Looking

    async def areas(self) -> Sequence[views.AreaView]:
        """Every area with its collectors."""
        center, found = self._dcc.center, []
        for number, area in sorted(center.collectors.areas.items()):
            states: Counter[str] = Counter()
            registered: Counter[str] = Counter()
            for status in views.statuses_of(center, number, now=self._dcc.now()):
                states[status.state.value] += 1
                reason = views.reason_of(status)
                if reason is not None:
                    registered[reason] += 1
                if not states.total() % NODES_AT_ONCE:
                    await asyncio.sleep(0)
            found.append(views.area_of(center, area, states, registered, now=self._dcc.now()))
        return found

    async def export(self, form: Format, area: AreaId | None = None) -> AsyncIterator[str]:
        """The topology as lines. What changes meanwhile is in it as it is when its line is made."""
        if area is not None and area not in self._dcc.center.collectors.areas:
            raise UnknownNode(f"there is no area {area}")
        lines = export(self._dcc.center.dcc, form, now=self._dcc.now(), area=area)
        while chunk := list(_some(lines)):
            for line in chunk:
                yield line
            await asyncio.sleep(0)

    async def device(self, node: Eui64) -> views.DeviceView:
        """One node: state, place, and ways to it; of a meter on plain IP where it was heard.

        Raises UnknownNode.
        """
        center = self._dcc.center
        if node in center.dcc.graph:
            return views.device(center, node, now=self._dcc.now())
        overview = await self._store.find_overview(node)
        location = None if overview is None else overview.location
        if location is None:
            raise _unknown(node)
        return views.plain(node, location.path, self._wall() - location.confirmed_at)

    # Asking

    async def ping(self, node: Eui64, *, way: int = 0) -> tuple[Path, Probed]:
        """Ask a node whether it is there, over its best way or an alternate (1 and up)."""
        path = self._way(node, way)
        return path, await self._dcc.probe(path)

    async def trace(
        self, node: Eui64, *, way: int = 0
    ) -> AsyncIterator[tuple[Path, Probed | Traced]]:
        """Ask every node on a way, the nearest first: rows as they are known, then all of them."""
        path = self._way(node, way)
        async for answer in self._dcc.trace(path):
            yield path, answer

    async def isolate(self, node: Eui64) -> AsyncIterator[Tried | Isolated]:
        """Find out which component keeps a node silent: each step, then the end."""
        self._require(node)
        async for event in self._dcc.isolate(node):
            yield event

    async def order(
        self, area: AreaId, order: MeshOrder, node: Eui64 | None = None
    ) -> Sequence[Carried]:
        """Have every collector of an area do something; what each came to.

        Who is to be kept out is noted first, so that a collector that is away now is told later.
        """
        center = self._dcc.center
        if area not in center.collectors.areas:
            raise UnknownNode(f"there is no area {area}")
        if (order in ABOUT_ONE) is (node is None):
            raise BadWish(f"{order.value} is {'about one node' if node is None else 'of an area'}")
        if node is not None:
            if order is MeshOrder.DENY:
                self._check_deniable(area, node)
            await self._note_denied(area, node, is_denied=order is MeshOrder.DENY)
        collectors = [c for c, known in center.collectors.known.items() if known.area == area]
        return await asyncio.gather(*(self._carry(c, order, node) for c in sorted(collectors)))

    def _check_deniable(self, area: AreaId, node: Eui64) -> None:
        center = self._dcc.center
        collector = center.collectors.known.get(node)
        if collector is not None:
            raise BadWish(
                f"{format_eui64(node)} is a collector of area {collector.area}, which cannot be "
                "kept out; `headend mesh release` takes it out of the mesh"
            )
        if not center.dcc.graph.areas.get(area):
            raise UnknownNode(f"area {area} has no nodes: nobody is kept out of it")

    async def _note_denied(self, area: AreaId, node: Eui64, *, is_denied: bool) -> None:
        denied = self._dcc.center.collectors.denied(area)
        if is_denied and node not in denied and len(denied) >= DENIED_MAX:
            raise TooMany(f"{DENIED_MAX} nodes are kept out of area {area}, the bound")
        await self._store.commit(KeepDenied(area, node, is_denied))
        try:
            self._dcc.center.deny(area, node, is_denied=is_denied)
        except TableFull as error:  # Others were noted meanwhile; at the next start it is known.
            raise TooMany(str(error)) from None

    async def _carry(self, collector: Eui64, order: MeshOrder, node: Eui64 | None) -> Carried:
        try:
            done = await self._dcc.order(collector, ORDERS[order], node)
        except (NotThere, TooMany) as error:
            return Carried(collector, is_done=False, value=0, detail=str(error))
        if order is MeshOrder.REFRESH:
            self._dcc.ask_reports(collector)
        return Carried(collector, done.is_done, done.value)

    # Counts

    @property
    def refused(self) -> Mapping[str, int]:
        """What was not believed, by `dcc: reason`."""
        return self._dcc.refused

    @property
    def counters(self) -> Mapping[str, int]:
        """What else is counted, by `mesh: name`."""
        counted = self._dcc.counters + self._dcc.saving.counters
        every = {**self._dcc.center.all_counters, **counted}
        return {f"mesh: {name}": count for name, count in every.items()}

    @property
    def endpoints(self) -> Endpoints:
        """How many nodes are in each state now; how often any came there, or registered."""
        devices = self._dcc.center.dcc.devices
        return Endpoints(
            {state.value: count for state, count in devices.counts().items()},
            {state.value: devices.moves[state] for state in EndpointState},
            {views.words(reason.name): devices.registrations[reason] for reason in REGISTRATIONS},
        )

    @property
    def depths(self) -> Mapping[str, tuple[int, int]]:
        """Each bounded table's name, its depth and its bound."""
        return self._dcc.depths

    # Small things

    def _require(self, node: Eui64) -> None:
        graph = self._dcc.center.dcc.graph
        if node not in graph:
            raise _unknown(node)
        if graph.is_kept_out(node):
            area = graph.area_of(graph.index_of(node))
            raise NotThere(f"{format_eui64(node)} is kept out of area {area}: `headend mesh allow`")

    def _way(self, node: Eui64, number: int) -> Path:
        self._require(node)
        ways = views.ways_of(self._dcc.center.dcc, node)
        if not ways:
            raise NotThere(f"no way to {format_eui64(node)} is known: `headend path` says more")
        if not 0 <= number < len(ways):
            raise BadWish(f"way {number}, expected 0 to {len(ways) - 1}")
        return ways[number][0]


def _unknown(node: Eui64) -> UnknownNode:
    return UnknownNode(f"{format_eui64(node)} has no address in the mesh: `headend mesh assign`")


def _refusal(outcome: AssignmentRefused) -> BadWish | UnknownNode:
    if not outcome.nodes:
        return UnknownNode(f"nothing was assigned: {outcome.reason}")
    named = ", ".join(
        f"{format_eui64(each.node)} (a {each.role.value} of area {each.area})"
        for each in outcome.nodes[:5]
    )
    more = f" and {len(outcome.nodes) - 5} more" if len(outcome.nodes) > 5 else ""
    return BadWish(f"nothing was assigned: {outcome.reason}: {named}{more}; --move moves them")


def _der(certificate: bytes) -> bytes:
    try:
        if certificate.lstrip().startswith(b"-----"):
            parsed = x509.load_pem_x509_certificate(certificate)
        else:
            parsed = x509.load_der_x509_certificate(certificate)
    except ValueError as error:
        raise ConfigError(f"the certificate cannot be read: {error}") from None
    return parsed.public_bytes(Encoding.DER)


def _some(lines: Iterator[str]) -> Iterator[str]:
    for _ in range(LINES_AT_ONCE):
        line = next(lines, None)
        if line is None:
            return
        yield line
