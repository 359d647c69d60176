"""What is asked of every server, ours and foreign ones, and what it must answer.

Gives   `Ask`, a request in nobody's terms, and `EXCHANGES`, those that any CoAP server with the
        resources of `application` answers alike
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from amistack.coap.codes import Code, format_code
from amistack.coap.options import Option

TEXT: Final = 0
"""Content-Format text/plain (RFC 7252 section 12.3)."""
OCTETS: Final = 42
"""Content-Format application/octet-stream (RFC 7252 section 12.3)."""
UNSUPPORTED_FORMAT: Final = 65_000
UNKNOWN_CRITICAL: Final = 65_001
UNKNOWN_ELECTIVE: Final = 65_002

BIG_SIZE: Final = 5_000
BIG: Final = bytes(index % 251 for index in range(BIG_SIZE))
QUERY_SIZE_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, for whichever client sends it."""

    code: Code
    path: str
    payload: bytes = b""
    queries: tuple[str, ...] = ()
    content_format: int | None = None
    is_confirmable: bool = True
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the code as class.detail, and the payload."""

    code: str
    payload: bytes = b""

    def __repr__(self) -> str:
        head, size = self.payload[:60], len(self.payload)
        return f"{self.code} {head!r}" + (f"... [{size} octets]" if size > len(head) else "")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and the answer that it must get. Only the code counts without `is_exact`."""

    name: str
    ask: Ask
    expected: Answer
    is_exact: bool = True

    def judged(self, answer: Answer) -> Answer:
        """What of `answer` is compared with what is expected."""
        return answer if self.is_exact else Answer(answer.code)


class Client(Protocol):
    """Whoever can send an `Ask`."""

    async def ask(self, ask: Ask) -> Answer:
        """Send it, and wait for the response."""


def answer_of(code: int, payload: bytes) -> Answer:
    """An answer from the code's octet."""
    return Answer(format_code(code).split(maxsplit=1)[0], payload)


def digest(body: bytes) -> bytes:
    """What a server says about a large body that it got."""
    return hashlib.sha256(body).hexdigest().encode()


LONG_QUERIES: Final = ("a" * QUERY_SIZE_MAX, "b" * 13, "c" * 12, "")

PLAIN: Final = (
    Exchange("GET, CON", Ask(Code.GET, "hello"), Answer("2.05", b"hello")),
    Exchange("GET, NON", Ask(Code.GET, "hello", is_confirmable=False), Answer("2.05", b"hello")),
    Exchange("PUT", Ask(Code.PUT, "kept", b"21.5 C", content_format=TEXT), Answer("2.04")),
    Exchange("GET of what was put", Ask(Code.GET, "kept"), Answer("2.05", b"21.5 C")),
    Exchange("DELETE", Ask(Code.DELETE, "kept"), Answer("2.02")),
    Exchange("POST, CON", Ask(Code.POST, "echo", b"ping"), Answer("2.04", b"re ping")),
    Exchange(
        "POST, NON",
        Ask(Code.POST, "echo", b"ping", is_confirmable=False),
        Answer("2.04", b"re ping"),
    ),
    Exchange("POST without payload", Ask(Code.POST, "echo"), Answer("2.04", b"re ")),
    Exchange(
        "FETCH", Ask(Code.FETCH, "echo", b"all", content_format=OCTETS), Answer("2.05", b"re all")
    ),
    Exchange(
        "a query of two",
        Ask(Code.GET, "query", queries=("a=1", "b=2")),
        Answer("2.05", b"a=1&b=2"),
    ),
    Exchange("separate response", Ask(Code.GET, "slow"), Answer("2.05", b"at last")),
    Exchange(
        "late response to a NON",
        Ask(Code.GET, "slow", is_confirmable=False),
        Answer("2.05", b"at last"),
    ),
    Exchange("not found", Ask(Code.GET, "missing"), Answer("4.04"), is_exact=False),
    Exchange("method not allowed", Ask(Code.DELETE, "hello"), Answer("4.05"), is_exact=False),
    Exchange("forbidden", Ask(Code.POST, "secret"), Answer("4.03"), is_exact=False),
    Exchange(
        "unsupported content format",
        Ask(Code.PUT, "kept", b"x", content_format=UNSUPPORTED_FORMAT),
        Answer("4.15"),
        is_exact=False,
    ),
    Exchange("unavailable for now", Ask(Code.GET, "busy"), Answer("5.03"), is_exact=False),
    Exchange(
        "unknown elective option",
        Ask(Code.GET, "hello", options=(Option(UNKNOWN_ELECTIVE, bytes(300)),)),
        Answer("2.05", b"hello"),
    ),
)

CRITICAL: Final = Exchange(
    "unknown critical option",
    Ask(Code.GET, "hello", options=(Option(UNKNOWN_CRITICAL, b"?"),)),
    Answer("4.02"),
    is_exact=False,
)

LONG_OPTIONS: Final = Exchange(
    "a query of 255 octets, and one of none",
    Ask(Code.GET, "query", queries=LONG_QUERIES),
    Answer("2.05", "&".join(LONG_QUERIES).encode()),
)

DISCOVERY: Final = Exchange(
    "/.well-known/core", Ask(Code.GET, ".well-known/core"), Answer("2.05"), is_exact=False
)

BLOCK_WISE: Final = (
    Exchange("GET of 5 kB", Ask(Code.GET, "big"), Answer("2.05", BIG)),
    Exchange("PUT of 5 kB", Ask(Code.PUT, "big", BIG), Answer("2.04", digest(BIG))),
    Exchange(
        "FETCH with 5 kB",
        Ask(Code.FETCH, "big", BIG, content_format=OCTETS),
        Answer("2.05", digest(BIG)),
    ),
    Exchange("POST of 5 kB both ways", Ask(Code.POST, "big", BIG), Answer("2.04", BIG[::-1])),
)
