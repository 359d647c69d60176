"""The resources that foreign clients try on our server; `exchange` says what they must get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.link_format import CONTENT_FORMAT as CONTENT_FORMAT_LINK
from amistack.coap.link_format import WELL_KNOWN_CORE, Link, build, select
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from interop.peers.exchange import BIG, TEXT, UNSUPPORTED_FORMAT, digest

SLOW_S: Final = 0.3

LINKS: Final = (
    Link("/hello", ("greeting",), content_formats=(TEXT,)),
    Link("/kept"),
    Link("/echo"),
    Link("/big", size=len(BIG)),
    Link("/counter", is_observable=True),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, after how many seconds it is to be given, and whether it may be observed."""

    message: Message
    after_s: float = 0.0
    is_observable: bool = False


class Application:
    """A server's resources: what stands behind each path. One value is kept."""

    def __init__(self) -> None:
        self.kept = b""
        self.count = 0

    def answer(self, request: Message) -> Reply:
        """What a request gets."""
        path, code = request.path, request.code
        match path, code:
            case "slow", Code.GET:
                return Reply(content(b"at last"), SLOW_S)
            case "counter", Code.GET:
                return Reply(self._counter(), is_observable=True)
            case _:
                return Reply(self._answer(path, code, request))

    def tick(self) -> Message:
        """The counter goes on by one; what its observers are told."""
        self.count += 1
        return self._counter()

    def _counter(self) -> Message:
        return content(b"%d" % self.count)

    def _answer(self, path: str, code: int, request: Message) -> Message:
        payload = request.payload
        match path, code:
            case "hello", Code.GET:
                return content(b"hello", content_format=TEXT)
            case "kept", Code.PUT if request.content_format == UNSUPPORTED_FORMAT:
                return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
            case "kept", Code.PUT:
                self.kept = payload
                return Message.response(Code.CHANGED)
            case "kept", Code.GET:
                return content(self.kept)
            case "kept", Code.DELETE:
                self.kept = b""
                return Message.response(Code.DELETED)
            case "echo", Code.POST:
                return Message.response(Code.CHANGED, payload=b"re " + payload)
            case "echo", Code.FETCH:
                return content(b"re " + payload)
            case "query", Code.GET:
                return content(b"&".join(request.option_values(OptionNumber.URI_QUERY)))
            case "secret", _:
                return Message.response(Code.FORBIDDEN)
            case "busy", _:
                return Message.response(Code.SERVICE_UNAVAILABLE, max_age=5)
            case "big", Code.GET:
                return content(BIG)
            case "big", Code.PUT:
                return Message.response(Code.CHANGED, payload=digest(payload))
            case "big", Code.FETCH:
                return content(digest(payload))
            case "big", Code.POST:
                return Message.response(Code.CHANGED, payload=payload[::-1])
            case _ if path == WELL_KNOWN_CORE and code == Code.GET:
                queries = (q.decode() for q in request.option_values(OptionNumber.URI_QUERY))
                links = select(LINKS, queries)
                return content(build(links), content_format=CONTENT_FORMAT_LINK)
            case (("hello" | "kept" | "echo" | "query" | "slow" | "big" | "counter"), _):
                return Message.response(Code.METHOD_NOT_ALLOWED)
            case _:
                return Message.response(Code.NOT_FOUND)


def content(payload: bytes, *, content_format: int | None = None) -> Message:
    """A 2.05."""
    return Message.response(Code.CONTENT, payload=payload, content_format=content_format)
