"""CoAP's octets, its registries, and the link format, as the RFCs print them.

Spec    RFC 7252 sections 2.2, 3, 4.8, 5.10, 12.1 and appendix A; RFC 8974 section 2.1; the options
        and codes of RFC 7641, 7959, 7967, 8132, 8516, 8613, 9175, 9668; RFC 6690 section 5
Gives   three suites: messages, registries, link format
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final, TypedDict, cast

from amistack.coap.codes import Code, Type, is_request, is_response
from amistack.coap.link_format import Link, build, parse, select
from amistack.coap.message import Message, decode_body, encode_body
from amistack.coap.options import (
    DEFINITIONS,
    Option,
    OptionNumber,
    is_critical,
    read_uint,
    uint_value,
)
from amistack.coap.timing import Timing
from amistack.errors import CoapError
from interop.conformance.suite import Case, VectorSuite
from interop.vectors import load


class MessageFields(TypedDict, total=False):
    """A message as a figure has it; octets as hex, the code as class.detail."""

    type: str
    code: str
    message_id: str
    token: str
    options: Sequence[tuple[int, str]]
    payload: str


class MessageVector(MessageFields):
    """A message with its octets."""

    where: str
    name: str
    octets: str


class Refused(TypedDict):
    """Octets that are a message format error."""

    where: str
    name: str
    octets: str


class OptionHead(TypedDict):
    """The head of one option, where delta or length is `value`."""

    where: str
    field: str
    value: int
    octets: str


class Uint(TypedDict):
    """A number and its shortest octets, and longer ones that a receiver tolerates."""

    where: str
    number: int
    octets: str
    longer: Sequence[str]


class Token(TypedDict):
    """A GET with a token of that many octets."""

    where: str
    size: int
    octets: str


class Messages(TypedDict):
    """The file `coap-messages`."""

    messages: Sequence[MessageVector]
    refused: Sequence[Refused]
    headers: Sequence[OptionHead]
    uints: Sequence[Uint]
    tokens: Sequence[Token]


class OptionRow(TypedDict, total=False):
    """One registered option; `is_value_ignored` where a receiver takes any length."""

    number: int
    name: str
    format: str
    length: tuple[int, int]
    is_repeatable: bool
    is_critical: bool
    is_value_ignored: bool
    where: str


class CodeRow(TypedDict):
    """One registered code."""

    code: str
    name: str
    where: str


class Registries(TypedDict):
    """The file `coap-registries`."""

    options: Sequence[OptionRow]
    codes: Sequence[CodeRow]
    timing: Mapping[str, float]


class LinkRow(TypedDict):
    """One link and what is said about it."""

    target: str
    rt: Sequence[str]
    ct: Sequence[int]
    sz: int | None
    title: str | None
    obs: bool


class Document(TypedDict):
    """A document of the link format; `is_written_alike` where our writer gives the same octets."""

    where: str
    name: str
    document: str
    links: Sequence[LinkRow]
    is_written_alike: bool


class Filter(TypedDict):
    """A query for /.well-known/core, and the targets that it leaves."""

    where: str
    query: str
    document: str
    targets: Sequence[str]


class Links(TypedDict):
    """The file `link-format`."""

    documents: Sequence[Document]
    filters: Sequence[Filter]


def message_of(fields: MessageFields) -> Message:
    """The message that a figure shows."""
    return Message(
        code_of(fields["code"]),
        Type[fields["type"]],
        int(fields["message_id"], 16),
        bytes.fromhex(fields["token"]),
        tuple(Option(number, bytes.fromhex(value)) for number, value in fields["options"]),
        bytes.fromhex(fields.get("payload", "")),
    )


def code_of(text: str) -> int:
    """`2.05` as an octet."""
    kind, _, detail = text.partition(".")
    return int(kind) << 5 | int(detail)


def message_cases() -> list[Case]:
    """Messages both ways, format errors, option heads, numbers, tokens."""
    vectors = cast("Messages", load("coap-messages"))
    cases: list[Case] = []
    for vector in vectors["messages"]:
        message, octets = message_of(vector), bytes.fromhex(vector["octets"])
        name = f"{vector['where']}, {vector['name']}"
        cases.append(Case(f"{name}: written", octets, message.encode))
        cases.append(Case(f"{name}: read", message, functools.partial(Message.decode, octets)))
    for refused in vectors["refused"]:
        octets = bytes.fromhex(refused["octets"])
        name = f"{refused['where']}, {refused['name']}: refused"
        cases.append(Case(name, "CoapError", functools.partial(_refusal_of, octets)))
    for head in vectors["headers"]:
        cases += _head_cases(head)
    for uint in vectors["uints"]:
        cases += _uint_cases(uint)
    for token in vectors["tokens"]:
        octets = bytes.fromhex(token["octets"])
        message = Message(Code.GET, Type.CON, 0x7D34, b"\x5a" * token["size"])
        name = f"{token['where']}, token of {token['size']} octets"
        cases.append(Case(f"{name}: read", message, functools.partial(Message.decode, octets)))
        cases.append(Case(f"{name}: written", octets, message.encode))
    return cases


def _refusal_of(octets: bytes) -> str:
    try:
        return f"accepted as {Message.decode(octets)}"
    except CoapError as error:
        return type(error).__name__


def _head_cases(head: OptionHead) -> list[Case]:
    octets = bytes.fromhex(head["octets"])
    if head["field"] == "delta":
        option = Option(head["value"], b"")
    else:
        option = Option(1, bytes(head["value"]))
        octets += option.value
    name = f"{head['where']}, option {head['field']} {head['value']}"
    return [
        Case(f"{name}: written", octets, functools.partial(encode_body, (option,), b"")),
        Case(f"{name}: read", ((option,), b""), functools.partial(decode_body, octets, 0)),
    ]


def _uint_cases(uint: Uint) -> list[Case]:
    name = f"{uint['where']}, the number {uint['number']}"
    octets = bytes.fromhex(uint["octets"])
    longer = [bytes.fromhex(text) for text in uint["longer"]]
    return [
        Case(f"{name}: written", octets, functools.partial(uint_value, uint["number"])),
        Case(f"{name}: read", uint["number"], functools.partial(read_uint, octets)),
        Case(
            f"{name}: read with zeros in front",
            [uint["number"]] * len(longer),
            lambda: [read_uint(value) for value in longer],
        ),
    ]


def registry_cases() -> list[Case]:
    """Every option and code that we know, and the times that follow from the parameters."""
    registries = cast("Registries", load("coap-registries"))
    timing = Timing()
    # Those that are parameters of our machines; the names are the RFC's.
    ours = {
        "ACK_TIMEOUT": timing.ack_timeout,
        "ACK_RANDOM_FACTOR": timing.ack_random_factor,
        "MAX_RETRANSMIT": timing.max_retransmit,
        "MAX_TRANSMIT_SPAN": timing.max_transmit_span,
        "MAX_TRANSMIT_WAIT": timing.max_transmit_wait,
        "MAX_LATENCY": timing.max_latency,
        "EXCHANGE_LIFETIME": timing.exchange_lifetime,
        "NON_LIFETIME": timing.non_lifetime,
    }
    return [
        *(_option_case(row) for row in registries["options"]),
        *(_code_case(row) for row in registries["codes"]),
        *(
            Case(f"RFC 7252 section 4.8, {name}", value, functools.partial(ours.get, name))
            for name, value in registries["timing"].items()
            if name in ours
        ),
    ]


def _option_case(row: OptionRow) -> Case:
    def ours() -> object:
        number = OptionNumber(row["number"])
        _, length_max = row["length"]
        definition = DEFINITIONS[number]
        return (
            number.name,
            definition.format.value,
            definition.length_min,
            length_max if row.get("is_value_ignored", False) else definition.length_max,
            definition.is_repeatable,
            is_critical(number),
        )

    name = row["name"].upper().replace("-", "_")
    expected = (name, row["format"], *row["length"], row["is_repeatable"], row["is_critical"])
    return Case(f"{row['where']}, option {row['number']} {row['name']}", expected, ours)


def _code_case(row: CodeRow) -> Case:
    name = row["name"].upper().replace(" ", "_").replace("-", "_")
    code = code_of(row["code"])

    def ours() -> object:
        named = Code[name]
        return int(named), is_request(named), is_response(named)

    is_method = row["code"].startswith("0.")
    return Case(
        f"{row['where']}, {row['code']} {row['name']}", (code, is_method, not is_method), ours
    )


def link_cases() -> list[Case]:
    """Documents both ways, and filters."""
    vectors = cast("Links", load("link-format"))
    cases: list[Case] = []
    for document in vectors["documents"]:
        octets = document["document"].encode()
        links = tuple(_link(row) for row in document["links"])
        name = f"{document['where']}, {document['name']}"
        cases.append(Case(f"{name}: read", links, functools.partial(parse, octets)))
        if document["is_written_alike"]:
            cases.append(Case(f"{name}: written", octets, functools.partial(build, links)))
    return cases + [
        Case(
            f"{one['where']}, filter {one['query']}",
            list(one["targets"]),
            functools.partial(_selected, one),
        )
        for one in vectors["filters"]
    ]


def _selected(one: Filter) -> list[str]:
    links = parse(one["document"].encode())
    return [link.target for link in select(links, [one["query"]])]


def _link(row: LinkRow) -> Link:
    interfaces = cast("Mapping[str, Sequence[str]]", row)["if"]  # A keyword cannot be a field.
    return Link(
        row["target"],
        tuple(row["rt"]),
        tuple(interfaces),
        tuple(row["ct"]),
        row["sz"],
        row["title"],
        row["obs"],
    )


MESSAGES: Final = VectorSuite(
    "coap-messages",
    "CoAP: messages, options and tokens as octets, and what must be refused",
    "RFC 7252, 7641, 8974",
    message_cases,
)
REGISTRIES: Final = VectorSuite(
    "coap-registries",
    "CoAP: the registered options and codes, and the times of the message layer",
    "RFC 7252, 7641, 7959, 7967, 8132, 8516, 8613, 9175, 9668",
    registry_cases,
)
LINKS: Final = VectorSuite(
    "link-format",
    "Link format: documents and filters",
    "RFC 6690, 7641",
    link_cases,
)
