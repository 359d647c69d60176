"""Which resources a server has, as `/.well-known/core` tells it.

Spec    RFC 6690 (link format and its filter), RFC 7252 section 7.2.1 (`ct`), RFC 7641 section 6
        (`obs`). Relations and anchors (`rel`, `anchor`, `title*`) are read over
Gives   `build` and `parse` between documents and links, `select` for a query's filter
Raises  CoapError on a document or filter that is none; LocalProtocolError on a link that cannot be
        written
Limit   DOCUMENT_SIZE_MAX octets and LINK_COUNT_MAX links a document
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from amistack.errors import CoapError, LocalProtocolError

WELL_KNOWN_CORE: Final = ".well-known/core"
CONTENT_FORMAT: Final = 40
"""application/link-format (RFC 6690 section 7.2)."""

DOCUMENT_SIZE_MAX: Final = 65_536
LINK_COUNT_MAX: Final = 1_024
CARDINAL_MAX: Final = 9_999_999_999
"""The greatest number in an attribute; the RFC has no bound."""

_TARGET: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+")
_WORD: Final = re.compile(r"[!#-\[\]-~]+")
_SEPARATOR: Final = re.compile(r"[ \t\r\n,]*")
_READ_TARGET: Final = re.compile(r"<([^<>]*)>[ \t\r\n]*")
_READ_ATTRIBUTE: Final = re.compile(
    r";[ \t\r\n]*([!#$&+\-.^_`|~0-9A-Za-z]+\*?)"
    r"(?:[ \t\r\n]*=[ \t\r\n]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\",;<>\\ \t\r\n]+)))?[ \t\r\n]*",
    re.DOTALL,
)
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_NAME: Final = re.compile(r"[!#$&+\-.^_`|~0-9A-Za-z]+")
_OWN: Final = frozenset({"href", "rt", "if", "ct", "sz", "title", "obs"})
"""Attributes that have a field of their own."""
_CARDINAL: Final = re.compile(r"0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Link:
    """One resource: its path (with `/` in front, percent-encoded) and what is said about it.

    `size` is the greatest one expected, in octets. `attributes` are others, each a name and a
    number or None for no value; a name may come more than once.
    """

    target: str
    resource_types: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    content_formats: tuple[int, ...] = ()
    size: int | None = None
    title: str | None = None
    is_observable: bool = False
    attributes: tuple[tuple[str, int | None], ...] = ()


def build(links: Iterable[Link]) -> bytes:
    """The document that lists `links`, in their order."""
    written = [_write(link) for link in links]
    if len(written) > LINK_COUNT_MAX:
        raise LocalProtocolError(f"{len(written)} links, at most {LINK_COUNT_MAX} are listed")
    try:
        document = ",".join(written).encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a title that UTF-8 cannot hold") from None
    if len(document) > DOCUMENT_SIZE_MAX:
        raise LocalProtocolError(
            f"links of {len(document)} octets, at most {DOCUMENT_SIZE_MAX} are listed"
        )
    return document


def parse(document: bytes) -> tuple[Link, ...]:
    """The links in `document`. Raises CoapError, reason `bad link format`.

    Of an attribute that stands twice in a link the first counts; of unknown ones only those without
    a value, or with a plain number, are kept.
    """
    if len(document) > DOCUMENT_SIZE_MAX:
        raise _bad(f"{len(document)} octets, at most {DOCUMENT_SIZE_MAX}")
    try:
        text = document.decode()
    except UnicodeDecodeError:
        raise _bad("not UTF-8") from None
    links: list[Link] = []
    at = _skip(_SEPARATOR, text, 0)
    while at < len(text):
        link, at = _read(text, at)
        if len(links) == LINK_COUNT_MAX:
            raise _bad(f"more than {LINK_COUNT_MAX} links")
        links.append(link)
        after = _skip(_SEPARATOR, text, at)
        if after < len(text) and "," not in text[at:after]:
            raise _bad(f"expected a comma at character {at}")
        at = after
    return tuple(links)


def select(links: Iterable[Link], queries: Iterable[str]) -> tuple[Link, ...]:
    """The links that every query fits: `rt=meter`, `rt=met*`, `href=/reg*` (section 4.1).

    Raises CoapError, reason `bad filter`, for a query without `=`.
    """
    chosen = tuple(links)
    for query in queries:
        name, equals, pattern = query.partition("=")
        if not equals or not name:
            raise CoapError("bad filter", f"{query!r}, expected an attribute, =, and a value")
        chosen = tuple(link for link in chosen if _fits(_values(link, name), pattern))
    return chosen


def _fits(values: Iterable[str], pattern: str) -> bool:
    if pattern.endswith("*"):
        return any(value.startswith(pattern[:-1]) for value in values)
    return pattern in values


def _values(link: Link, name: str) -> tuple[str, ...]:
    """The values of one attribute, each on its own (section 4.1); none if it is not there."""
    match name:
        case "href":
            return (link.target,)
        case "rt":
            return link.resource_types
        case "if":
            return link.interfaces
        case "ct":
            return tuple(str(format_) for format_ in link.content_formats)
        case "sz":
            return () if link.size is None else (str(link.size),)
        case "title":
            return () if link.title is None else (link.title,)
        case "obs":
            return ("",) if link.is_observable else ()
        case _:
            return tuple(
                "" if value is None else str(value)
                for known, value in link.attributes
                if known == name
            )


def _write(link: Link) -> str:
    if not _TARGET.fullmatch(link.target):
        raise LocalProtocolError(f"{link.target!r} is not a link's target: expected it encoded")
    for word in (*link.resource_types, *link.interfaces):
        if not _WORD.fullmatch(word):
            raise LocalProtocolError(f"{word!r} is not a link's value: expected one word")
    parts = [f"<{link.target}>"]
    if link.resource_types:
        parts.append(f'rt="{" ".join(link.resource_types)}"')
    if link.interfaces:
        parts.append(f'if="{" ".join(link.interfaces)}"')
    if link.content_formats:
        numbers = " ".join(map(_cardinal, link.content_formats))
        parts.append(f"ct={numbers}" if len(link.content_formats) == 1 else f'ct="{numbers}"')
    if link.size is not None:
        parts.append(f"sz={_cardinal(link.size)}")
    if link.title is not None:
        escaped = re.sub(r'(["\\])', r"\\\1", link.title)
        parts.append(f'title="{escaped}"')
    if link.is_observable:
        parts.append("obs")
    for name, value in link.attributes:
        if name in _OWN or not _NAME.fullmatch(name):
            raise LocalProtocolError(f"{name!r} is no name of a further attribute")
        parts.append(name if value is None else f"{name}={_cardinal(value)}")
    return ";".join(parts)


def _cardinal(value: int) -> str:
    if not 0 <= value <= CARDINAL_MAX:
        raise LocalProtocolError(f"a number of a link out of 0 to {CARDINAL_MAX}")
    return str(value)


def _read(text: str, start: int) -> tuple[Link, int]:
    """The link that begins at `start`, and where it ends."""
    head = _READ_TARGET.match(text, start)
    if head is None or not _TARGET.fullmatch(head[1]):
        raise _bad(f"no target at character {start}")
    attributes: dict[str, str] = {}
    others: list[tuple[str, int | None]] = []
    at = head.end()
    while at < len(text) and text[at] == ";":
        found = _READ_ATTRIBUTE.match(text, at)
        if found is None:
            raise _bad(f"no attribute at character {at}")
        name, quoted, plain = found.groups()
        value = plain or "" if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
        attributes.setdefault(name, value)
        if name not in _OWN and quoted is None and (not value or _CARDINAL.fullmatch(value)):
            others.append((name, int(value) if value else None))
        at = found.end()
    size = attributes.get("sz")
    link = Link(
        head[1],
        tuple(attributes.get("rt", "").split()),
        tuple(attributes.get("if", "").split()),
        tuple(_number(word) for word in attributes.get("ct", "").split()),
        None if size is None else _number(size),
        attributes.get("title"),
        "obs" in attributes,
        tuple(others),
    )
    return link, at


def _number(text: str) -> int:
    if not _CARDINAL.fullmatch(text):
        raise _bad(f"{text!r} where a number stands")
    return int(text)


def _skip(what: re.Pattern[str], text: str, at: int) -> int:
    found = what.match(text, at)
    return at if found is None else found.end()


def _bad(detail: str) -> CoapError:
    return CoapError("bad link format", detail)
