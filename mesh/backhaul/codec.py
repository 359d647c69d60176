"""The messages between a collector and the head-end, as octets.

Spec    docs/protocol/backhaul.md; `mesh.backhaul.layout` declares the same
Gives   `encode` and `decode`, exact inverses
Raises  MeshError on octets that are no message, `unknown version` before anything else that may
        be wrong, then `unknown message`: a newer peer's, to be counted and passed over
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, TypeVar

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.backhaul.messages import (
    MESSAGE_SIZE_MAX,
    NO_NODE,
    ORDERS_ABOUT_ONE,
    Broadcast,
    Command,
    CommandDone,
    Down,
    Fate,
    Forget,
    Hello,
    Message,
    Order,
    Outcome,
    Probe,
    Probed,
    RouteGone,
    RouteRow,
    Status,
    TableBegin,
    TableEnd,
    Trace,
    Traced,
    TraceRow,
    Up,
    Welcome,
    What,
    Why,
)
from mesh.packet import ROUTE_LENGTH_MAX

VERSION: Final = 1
NO_RELAYS_GIVEN: Final = 0xFF

HEAD: Final = struct.Struct("!BB")  # version, type
HELLO: Final = struct.Struct("!I16s8sHBHII")
WELCOME: Final = struct.Struct("!BI")
UP: Final = struct.Struct("!HBBBHBH")
DOWN: Final = struct.Struct("!IHBBBHB")
FATE: Final = struct.Struct("!IBHH")
ROUTE_ROW: Final = struct.Struct("!HBIB")
ROUTE_GONE: Final = struct.Struct("!HBB")
TABLE_BEGIN: Final = struct.Struct("!HI")
TABLE_END: Final = struct.Struct("!H")
FORGET: Final = struct.Struct("!HB")
COMMAND: Final = struct.Struct("!IB")
NODE: Final = struct.Struct("!8sH")
COMMAND_DONE: Final = struct.Struct("!IBI")
BROADCAST: Final = struct.Struct("!IBBH")
PROBE: Final = struct.Struct("!IHHB")
PROBED: Final = struct.Struct("!IBBI")
TRACED: Final = struct.Struct("!IB")
TRACE_ROW: Final = struct.Struct("!HBI")


class Type(enum.IntEnum):
    """The second octet of a message: below 64 from the collector, from 64 on to it."""

    HELLO = 1
    UP = 2
    FATE = 3
    ROUTE_ROW = 4
    ROUTE_GONE = 5
    TABLE_BEGIN = 6
    TABLE_END = 7
    COMMAND_DONE = 8
    PROBED = 9
    TRACED = 10
    WELCOME = 64
    DOWN = 65
    FORGET = 66
    COMMAND = 67
    BROADCAST = 68
    PROBE = 69
    TRACE = 70


def encode(message: Message) -> bytes:
    """The octets of `message`: the payload of one frame."""
    kind, body = _body_of(message)
    return HEAD.pack(VERSION, kind) + body


def _body_of(message: Message) -> tuple[Type, bytes]:
    match message:
        case Up(source, kind, priority, payload, hops, last_hop, attempt, held):
            head = UP.pack(source, kind, priority, hops, last_hop, attempt, held)
            return Type.UP, head + payload
        case Down(request, destination, kind, priority, payload, attempt, deadline, relays):
            head = DOWN.pack(
                request, destination, kind, priority, attempt, deadline, _relay_count(relays)
            )
            return Type.DOWN, head + _pack_shorts(relays or ()) + payload
        case Fate(request, what, relay, neighbour):
            return Type.FATE, FATE.pack(request, what, relay, neighbour)
        case RouteRow(target, parents, path_sequence, lifetime):
            head = ROUTE_ROW.pack(target, path_sequence, lifetime, len(parents))
            return Type.ROUTE_ROW, head + _pack_shorts(parents)
        case RouteGone(target, path_sequence, why):
            return Type.ROUTE_GONE, ROUTE_GONE.pack(target, path_sequence, why)
        case TableBegin(stream, route_count):
            return Type.TABLE_BEGIN, TABLE_BEGIN.pack(stream, route_count)
        case TableEnd(stream):
            return Type.TABLE_END, TABLE_END.pack(stream)
        case Forget(target, path_sequence):
            return Type.FORGET, FORGET.pack(target, path_sequence)
        case Command(request, order, node, short):
            about = b"" if node is None else NODE.pack(node, short)
            return Type.COMMAND, COMMAND.pack(request, order) + about
        case CommandDone(request, is_done, value):
            return Type.COMMAND_DONE, COMMAND_DONE.pack(request, is_done, value)
        case Broadcast(request, kind, priority, payload, subtree):
            top = NO_NODE if subtree is None else subtree
            return Type.BROADCAST, BROADCAST.pack(request, kind, priority, top) + payload
        case Probe(request, destination, relays, deadline):
            head = PROBE.pack(request, destination, deadline, _relay_count(relays))
            return Type.PROBE, head + _pack_shorts(relays or ())
        case Trace(request, destination, relays, deadline):
            head = PROBE.pack(request, destination, deadline, _relay_count(relays))
            return Type.TRACE, head + _pack_shorts(relays or ())
        case Probed(request, outcome, hops, round_trip_ms):
            return Type.PROBED, PROBED.pack(request, outcome, hops, round_trip_ms)
        case Traced(request, rows):
            packed = [TRACE_ROW.pack(row.node, row.outcome, row.round_trip_ms) for row in rows]
            return Type.TRACED, TRACED.pack(request, len(rows)) + b"".join(packed)
        case Welcome(status, epoch):
            return Type.WELCOME, WELCOME.pack(status, epoch)
        case Hello():
            return Type.HELLO, HELLO.pack(
                message.area,
                message.dodag_id,
                message.collector,
                message.short,
                message.dodag_version,
                message.hop_rank_increase,
                message.route_count,
                message.epoch,
            )


def decode(octets: bytes) -> Message:
    """The message that `octets` hold: all of them, and nothing else. Raises MeshError."""
    if octets and octets[0] != VERSION:
        raise MeshError("unknown version", f"{octets[0]}, expected {VERSION}")
    if not HEAD.size <= len(octets) <= MESSAGE_SIZE_MAX:
        raise MeshError(
            "wrong size", f"{len(octets)} octets, expected {HEAD.size} to {MESSAGE_SIZE_MAX}"
        )
    read = _READERS.get(octets[1])
    if read is None:
        raise MeshError("unknown message", f"type {octets[1]}")
    body = _Body(octets)
    try:
        message = read(body)
    except (LocalProtocolError, ValueError) as error:
        # Values refuse what has no place in them, enumerations what is not in them.
        raise MeshError("message malformed", str(error)) from None
    body.end()
    return message


class _Body:
    """What is left to read of one message."""

    __slots__ = ("_octets", "_place")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._place = HEAD.size

    def head(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def take(self, size: int) -> bytes:
        end = self._place + size
        if end > len(self._octets):
            raise MeshError("wrong size", f"{len(self._octets)} octets, expected {end} or more")
        taken = self._octets[self._place : end]
        self._place = end
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._octets) - self._place)

    def shorts(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"!{count}H", self.take(2 * count))

    def relays(self, count: int) -> tuple[int, ...] | None:
        if count == NO_RELAYS_GIVEN:
            return None
        if count > ROUTE_LENGTH_MAX:
            raise MeshError("message malformed", f"{count} relays, at most {ROUTE_LENGTH_MAX}")
        return self.shorts(count)

    def end(self) -> None:
        if self._place != len(self._octets):
            raise MeshError("wrong size", f"{len(self._octets)} octets, expected {self._place}")


def _read_hello(body: _Body) -> Hello:
    area, dodag_id, collector, *rest = HELLO.unpack(body.take(HELLO.size))
    return Hello(area, dodag_id, Eui64(collector), *rest)


def _read_welcome(body: _Body) -> Welcome:
    status, epoch = body.head(WELCOME)
    return Welcome(Status(status), epoch)


def _read_up(body: _Body) -> Up:
    source, kind, priority, hops, last_hop, attempt, held = body.head(UP)
    return Up(source, kind, Priority(priority), body.rest(), hops, last_hop, attempt, held)


def _read_down(body: _Body) -> Down:
    request, destination, kind, priority, attempt, deadline, count = body.head(DOWN)
    relays = body.relays(count)
    return Down(
        request, destination, kind, Priority(priority), body.rest(), attempt, deadline, relays
    )


def _read_fate(body: _Body) -> Fate:
    request, what, relay, neighbour = body.head(FATE)
    return Fate(request, What(what), relay, neighbour)


def _read_route_row(body: _Body) -> RouteRow:
    target, path_sequence, lifetime, count = body.head(ROUTE_ROW)
    return RouteRow(target, body.shorts(count), path_sequence, lifetime)


def _read_route_gone(body: _Body) -> RouteGone:
    target, path_sequence, why = body.head(ROUTE_GONE)
    return RouteGone(target, path_sequence, Why(why))


def _read_command(body: _Body) -> Command:
    request, order = body.head(COMMAND)
    if order not in ORDERS_ABOUT_ONE:
        return Command(request, Order(order))
    node, short = NODE.unpack(body.take(NODE.size))
    return Command(request, Order(order), Eui64(node), short)


def _read_command_done(body: _Body) -> CommandDone:
    request, is_done, value = body.head(COMMAND_DONE)
    return CommandDone(request, _flag(is_done), value)


def _read_broadcast(body: _Body) -> Broadcast:
    request, kind, priority, top = body.head(BROADCAST)
    subtree = None if top == NO_NODE else top
    return Broadcast(request, kind, Priority(priority), body.rest(), subtree)


def _read_way(body: _Body) -> tuple[int, int, tuple[int, ...] | None, int]:
    request, destination, deadline, count = body.head(PROBE)
    return request, destination, body.relays(count), deadline


def _read_probed(body: _Body) -> Probed:
    request, outcome, hops, round_trip_ms = body.head(PROBED)
    return Probed(request, Outcome(outcome), hops, round_trip_ms)


def _read_traced(body: _Body) -> Traced:
    request, count = body.head(TRACED)
    rows = []
    for _ in range(count):
        node, outcome, round_trip_ms = body.head(TRACE_ROW)
        rows.append(TraceRow(node, Outcome(outcome), round_trip_ms))
    return Traced(request, tuple(rows))


MessageT = TypeVar("MessageT", bound=Message)


def _plain(make: Callable[..., MessageT], layout: struct.Struct) -> Callable[[_Body], MessageT]:
    """A reader of a message that is its head alone."""
    return lambda body: make(*body.head(layout))


_READERS: Final[dict[int, Callable[[_Body], Message]]] = {
    Type.HELLO: _read_hello,
    Type.UP: _read_up,
    Type.FATE: _read_fate,
    Type.ROUTE_ROW: _read_route_row,
    Type.ROUTE_GONE: _read_route_gone,
    Type.TABLE_BEGIN: _plain(TableBegin, TABLE_BEGIN),
    Type.TABLE_END: _plain(TableEnd, TABLE_END),
    Type.COMMAND_DONE: _read_command_done,
    Type.PROBED: _read_probed,
    Type.TRACED: _read_traced,
    Type.WELCOME: _read_welcome,
    Type.DOWN: _read_down,
    Type.FORGET: _plain(Forget, FORGET),
    Type.COMMAND: _read_command,
    Type.BROADCAST: _read_broadcast,
    Type.PROBE: lambda body: Probe(*_read_way(body)),
    Type.TRACE: lambda body: Trace(*_read_way(body)),
}


def _flag(octet: int) -> bool:
    if octet > 1:
        raise MeshError("message malformed", f"{octet} where 0 or 1 stands")
    return bool(octet)


def _relay_count(relays: tuple[int, ...] | None) -> int:
    return NO_RELAYS_GIVEN if relays is None else len(relays)


def _pack_shorts(shorts: tuple[int, ...]) -> bytes:
    return struct.pack(f"!{len(shorts)}H", *shorts)
