"""The messages between a collector and the head-end, declared: readable, normative, an oracle.

Spec    docs/protocol/backhaul.md
Gives   `MESSAGE` for documentation and dissectors; `parse` and `build` between octets and values,
        slowly. `mesh.backhaul.codec` is fast
Raises  MeshError on octets, LocalProtocolError on a value, that the layout has no place for
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from construct import (
    Array,
    Byte,
    Bytes,
    Check,
    Const,
    ConstructError,
    GreedyBytes,
    If,
    Int16ub,
    Int32ub,
    Struct,
    Switch,
    Terminated,
    this,
)

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.backhaul.codec import NO_RELAYS_GIVEN, VERSION, Type
from mesh.backhaul.messages import (
    DODAG_ID_SIZE,
    NO_NODE,
    ORDERS_ABOUT_ONE,
    PARENT_COUNT_MAX,
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

RELAYS: Final = (
    "relay_count" / Byte,
    Check(lambda at: at.relay_count in {*range(ROUTE_LENGTH_MAX + 1), NO_RELAYS_GIVEN}),
    "relays"
    / Array(lambda at: 0 if at.relay_count == NO_RELAYS_GIVEN else at.relay_count, Int16ub),
)
"""How many relays, 255 for a way that the collector chooses; then they."""

WAY: Final = Struct("request" / Int32ub, "destination" / Int16ub, "deadline" / Int16ub, *RELAYS)

BODIES: Final = {
    Type.HELLO: Struct(
        "area" / Int32ub,
        "dodag_id" / Bytes(DODAG_ID_SIZE),
        "collector" / Bytes(8),
        "short" / Int16ub,
        "dodag_version" / Byte,
        "hop_rank_increase" / Int16ub,
        "route_count" / Int32ub,
        "epoch" / Int32ub,
    ),
    Type.WELCOME: Struct("status" / Byte, "epoch" / Int32ub),
    Type.UP: Struct(
        "source" / Int16ub,
        "kind" / Byte,
        "priority" / Byte,
        "hops" / Byte,
        "last_hop" / Int16ub,
        "attempt" / Byte,
        "held" / Int16ub,
        "payload" / GreedyBytes,
    ),
    Type.DOWN: Struct(
        "request" / Int32ub,
        "destination" / Int16ub,
        "kind" / Byte,
        "priority" / Byte,
        "attempt" / Byte,
        "deadline" / Int16ub,
        *RELAYS,
        "payload" / GreedyBytes,
    ),
    Type.FATE: Struct("request" / Int32ub, "what" / Byte, "relay" / Int16ub, "neighbour" / Int16ub),
    Type.ROUTE_ROW: Struct(
        "target" / Int16ub,
        "path_sequence" / Byte,
        "lifetime" / Int32ub,
        "parent_count" / Byte,
        Check((this.parent_count >= 1) & (this.parent_count <= PARENT_COUNT_MAX)),
        "parents" / Array(this.parent_count, Int16ub),
    ),
    Type.ROUTE_GONE: Struct("target" / Int16ub, "path_sequence" / Byte, "why" / Byte),
    Type.TABLE_BEGIN: Struct("stream" / Int16ub, "route_count" / Int32ub),
    Type.TABLE_END: Struct("stream" / Int16ub),
    Type.FORGET: Struct("target" / Int16ub, "path_sequence" / Byte),
    Type.COMMAND: Struct(
        "request" / Int32ub,
        "order" / Byte,
        "node" / If(lambda at: at.order in ORDERS_ABOUT_ONE, Bytes(8)),
        "short" / If(lambda at: at.order in ORDERS_ABOUT_ONE, Int16ub),
    ),
    Type.COMMAND_DONE: Struct(
        "request" / Int32ub, "done" / Byte, Check(this.done <= 1), "value" / Int32ub
    ),
    Type.BROADCAST: Struct(
        "request" / Int32ub,
        "kind" / Byte,
        "priority" / Byte,
        "subtree" / Int16ub,
        "payload" / GreedyBytes,
    ),
    Type.PROBE: WAY,
    Type.TRACE: WAY,
    Type.PROBED: Struct(
        "request" / Int32ub, "outcome" / Byte, "hops" / Byte, "round_trip_ms" / Int32ub
    ),
    Type.TRACED: Struct(
        "request" / Int32ub,
        "row_count" / Byte,
        "rows"
        / Array(
            this.row_count,
            Struct("node" / Int16ub, "outcome" / Byte, "round_trip_ms" / Int32ub),
        ),
    ),
}
"""What each message says behind its first two octets."""

MESSAGE: Final = Struct(
    "version" / Const(VERSION, Byte),
    "type" / Byte,
    Check(lambda at: at.type in BODIES),
    "body" / Switch(this.type, BODIES),
    Terminated,
)
"""One message, all of its octets."""

_CLASSES: Final[dict[Type, type[Any]]] = {
    Type.HELLO: Hello,
    Type.WELCOME: Welcome,
    Type.UP: Up,
    Type.DOWN: Down,
    Type.FATE: Fate,
    Type.ROUTE_ROW: RouteRow,
    Type.ROUTE_GONE: RouteGone,
    Type.TABLE_BEGIN: TableBegin,
    Type.TABLE_END: TableEnd,
    Type.FORGET: Forget,
    Type.COMMAND: Command,
    Type.COMMAND_DONE: CommandDone,
    Type.BROADCAST: Broadcast,
    Type.PROBE: Probe,
    Type.TRACE: Trace,
    Type.PROBED: Probed,
    Type.TRACED: Traced,
}
_FIELD_TYPES: Final[dict[str, type[Any]]] = {
    "priority": Priority,
    "collector": Eui64,
    "status": Status,
    "what": What,
    "why": Why,
    "order": Order,
    "outcome": Outcome,
}


def parse(octets: bytes) -> Message:
    """The message in `octets`. Raises MeshError, reason `not the layout`."""
    try:
        found = MESSAGE.parse(octets)
        return _value_of(Type(found.type), dict(found.body))
    except (ConstructError, LocalProtocolError, ValueError) as error:
        raise MeshError("not the layout", str(error).replace("\n", "; ")) from None


def build(message: Message) -> bytes:
    """The octets of `message`. Raises LocalProtocolError where it has no place in the layout."""
    number = next(number for number, made in _CLASSES.items() if isinstance(message, made))
    body = dataclasses.asdict(message)
    if "relays" in body:
        is_given = body["relays"] is not None
        body["relay_count"] = len(body["relays"]) if is_given else NO_RELAYS_GIVEN
        body["relays"] = body["relays"] or ()
    if isinstance(message, RouteRow):
        body["parent_count"] = len(message.parents)
    if isinstance(message, Traced):
        body["row_count"] = len(message.rows)
    if isinstance(message, Broadcast):
        body["subtree"] = NO_NODE if message.subtree is None else message.subtree
    if isinstance(message, CommandDone):
        body["done"] = message.is_done
    try:
        octets: bytes = MESSAGE.build({"type": int(number), "body": body})
    except ConstructError as error:
        raise LocalProtocolError(str(error).replace("\n", "; ")) from None
    return octets


def _value_of(number: Type, fields: dict[str, Any]) -> Message:
    fields.pop("_io", None)
    if "relays" in fields:
        is_given = fields.pop("relay_count") != NO_RELAYS_GIVEN
        fields["relays"] = tuple(fields["relays"]) if is_given else None
    if "parents" in fields:
        del fields["parent_count"]
        fields["parents"] = tuple(fields["parents"])
    if "rows" in fields:
        del fields["row_count"]
        fields["rows"] = tuple(
            TraceRow(row.node, Outcome(row.outcome), row.round_trip_ms) for row in fields["rows"]
        )
    if "subtree" in fields:
        fields["subtree"] = None if fields["subtree"] == NO_NODE else fields["subtree"]
    if number is Type.COMMAND:
        fields["short"] = fields["short"] or NO_NODE
    if "done" in fields:
        fields["is_done"] = bool(fields.pop("done"))
    for name, made in _FIELD_TYPES.items():
        if name in fields:
            fields[name] = made(fields[name])
    message: Message = _CLASSES[number](**fields)
    return message
