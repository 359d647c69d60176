"""Talk to the running head-end over its Unix socket: the one client of every command and program.

Gives   the documents of headend/api/documents.py; keys that are not known are ignored
Raises  ApiError, one line: nobody answers, or the problem that was answered
"""

from __future__ import annotations

import dataclasses
import errno
import types
import typing
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import httpx

from amistack.errors import AmiError
from amistack.identifiers import Eui64, format_eui64
from amistack.model.dump import PAGE_COUNT_MAX
from headend.api.documents import (
    DismissalDocument,
    DownloadDocument,
    EnrolmentDocument,
    HistoryDocument,
    KeysDocument,
    LogDocument,
    MeterDocument,
    MeterPage,
    ProblemDocument,
    ReadDocument,
    ReadingsDocument,
    ReadsDocument,
    StandingDocument,
    StatusDocument,
    SuspicionsDocument,
)
from headend.unix_http import UnixTransport

T = TypeVar("T")
TIMEOUT_S: Final = 30.0
LONG_TIMEOUT_S: Final = 300.0
"""For lists of up to 100,000 meters, each with a key to be checked."""
READ_GRACE_S: Final = 15.0
"""Beyond a read's own deadline: for its turn, and for storing what came of it."""
PAGE_SIZE: Final = 1_000
_BASE_URL: Final = "http://head-end"


class ApiError(AmiError):
    """The head-end did not do it; `problem` is what it answered, None if nobody did."""

    def __init__(self, message: str, problem: ProblemDocument | None = None) -> None:
        super().__init__(message)
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """One request, and what its answer is read as."""

    method: str
    path: str
    kind: type[Any]
    query: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    body: object = None
    timeout_s: float = TIMEOUT_S
    octets: bytes | None = None
    """A body that is no JSON."""


@dataclasses.dataclass(frozen=True, slots=True)
class ShipmentWish:
    """How a shipment file is to be taken; see `Operations.import_shipment`."""

    manufacturer_key: str | None = None
    may_join: bool = False
    is_rehearsal: bool = False
    actor: str = ""


class HeadEndClient:
    """For commands: each method waits for its answer."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url=_BASE_URL, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def status(self) -> StatusDocument:
        """How the head-end is."""
        return cast("StatusDocument", self._do(_status()))

    def enrol(self, devices: Iterable[tuple[str, str]], *, actor: str = "") -> EnrolmentDocument:
        """Enrol meters with their public keys, both in hex: all, or none."""
        return cast("EnrolmentDocument", self._do(_enrol(devices, actor)))

    def meters(self) -> Iterator[MeterDocument]:
        """Every meter of the registry, page by page."""
        after: str | None = None
        while True:
            page = cast("MeterPage", self._do(_meters(after)))
            yield from page.meters
            if (after := page.next) is None:
                return

    def import_shipment(self, octets: bytes, wish: ShipmentWish) -> EnrolmentDocument:
        """Import a manufacturer's shipment file: all of it, or nothing."""
        return cast("EnrolmentDocument", self._do(_shipment(octets, wish)))

    def change_standing(
        self, meters: Sequence[str], step: str, *, reason: str, actor: str = ""
    ) -> StandingDocument:
        """Take a step (`suspend`, ...) with meters, each as text: with all, or with none."""
        return cast("StandingDocument", self._do(_step(meters, step, reason, actor)))

    def rekey(self, meters: Sequence[str]) -> StandingDocument:
        """Have meters agree on new keys when they next speak."""
        return cast("StandingDocument", self._do(_rekey(meters)))

    def keys(self) -> KeysDocument:
        """The head-end's keys, and how many meters confirmed each."""
        return cast("KeysDocument", self._do(_Call("GET", "/v1/keys", KeysDocument)))

    def begin_rotation(self, statement: bytes | None = None) -> KeysDocument:
        """Make the next key, or take the root's statement on it."""
        return cast("KeysDocument", self._do(_begin_rotation(statement)))

    def finish_rotation(self, *, is_forced: bool = False) -> KeysDocument:
        """Let the next key take the old one's place."""
        return cast("KeysDocument", self._do(_finish_rotation(is_forced=is_forced)))

    def history(self, meter: Eui64, *, limit: int = 1000) -> HistoryDocument:
        """Every step taken with a meter, newest first."""
        return cast("HistoryDocument", self._do(_history(meter, limit)))

    def meter(self, meter: Eui64) -> MeterDocument:
        """One meter of the registry."""
        return cast("MeterDocument", self._do(_meter(meter)))

    def suspicions(self) -> SuspicionsDocument:
        """Meters of which there seem to be two, the latest first."""
        return cast("SuspicionsDocument", self._do(_suspicions()))

    def dismiss(self, meter: Eui64) -> DismissalDocument:
        """Suspect a meter no more."""
        return cast("DismissalDocument", self._do(_dismiss(meter)))

    def read(self, meter: Eui64, *, deadline_s: float) -> ReadDocument:
        """Read a meter now. However it ends, that is no error."""
        return cast("ReadDocument", self._do(_read(meter, deadline_s)))

    def download(self, meter: Eui64, *, deadline_s: float) -> DownloadDocument:
        """All that a meter holds, each page within `deadline_s`."""
        return cast("DownloadDocument", self._do(_download(meter, deadline_s)))

    def reads(self, meter: Eui64 | None = None, *, limit: int = 100) -> ReadsDocument:
        """On-demand reads, newest first."""
        return cast("ReadsDocument", self._do(_reads(meter, limit)))

    def find_read(self, identifier: str) -> ReadDocument:
        """One on-demand read by its identifier (hex), with what the meter answered."""
        return cast("ReadDocument", self._do(_find_read(identifier)))

    def readings(self, meter: Eui64, first: str, last: str) -> ReadingsDocument:
        """A meter's days from `first` to `last` (`2026-11-20`), both included."""
        return cast("ReadingsDocument", self._do(_readings(meter, first, last)))

    def readings_of_day(self, day: str) -> ReadingsDocument:
        """Every meter's readings of one day."""
        return cast("ReadingsDocument", self._do(_readings_of_day(day)))

    def log(self, meter: Eui64, *, limit: int = 100) -> LogDocument:
        """A meter's log as far as it was reported, newest first."""
        return cast("LogDocument", self._do(_log(meter, limit)))

    def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        timeout_s: float = TIMEOUT_S,
    ) -> T:
        """Any other request, its answer read as `kind`."""
        call = _Call(method, path, kind, query or {}, body=body, timeout_s=timeout_s)
        return cast("T", self._do(call))

    def lines(
        self, method: str, path: str, *, query: Mapping[str, str | int] | None = None
    ) -> Iterator[str]:
        """The lines of an answer that comes bit by bit."""
        call = _Call(method, path, ProblemDocument, query or {})
        try:
            # Between two lines it may take as long as a probe is waited for.
            timeout = httpx.Timeout(call.timeout_s, read=LONG_TIMEOUT_S)
            with self._http.stream(method, path, params=call.query, timeout=timeout) as response:
                if response.status_code >= HTTPStatus.BAD_REQUEST:
                    response.read()
                    _take(response, call)
                yield from response.iter_lines()
        except httpx.HTTPError as error:
            raise ApiError(_explain(error, self._socket, call)) from error

    def _do(self, call: _Call) -> object:
        try:
            response = self._http.request(
                call.method,
                call.path,
                params=call.query,
                json=call.body,
                content=call.octets,
                timeout=call.timeout_s,
            )
        except httpx.HTTPError as error:
            raise ApiError(_explain(error, self._socket, call)) from error
        return _take(response, call)


class AsyncHeadEndClient:
    """The same for programs with an event loop."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = httpx.AsyncClient(
            transport=UnixTransport(socket), base_url=_BASE_URL, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def status(self) -> StatusDocument:
        """How the head-end is."""
        return cast("StatusDocument", await self._do(_status()))

    async def enrol(
        self, devices: Iterable[tuple[str, str]], *, actor: str = ""
    ) -> EnrolmentDocument:
        """Enrol meters with their public keys, both in hex: all, or none."""
        return cast("EnrolmentDocument", await self._do(_enrol(devices, actor)))

    async def meters(self) -> AsyncIterator[MeterDocument]:
        """Every meter of the registry, page by page."""
        after: str | None = None
        while True:
            page = cast("MeterPage", await self._do(_meters(after)))
            for meter in page.meters:
                yield meter
            if (after := page.next) is None:
                return

    async def import_shipment(self, octets: bytes, wish: ShipmentWish) -> EnrolmentDocument:
        """Import a manufacturer's shipment file: all of it, or nothing."""
        return cast("EnrolmentDocument", await self._do(_shipment(octets, wish)))

    async def change_standing(
        self, meters: Sequence[str], step: str, *, reason: str, actor: str = ""
    ) -> StandingDocument:
        """Take a step (`suspend`, ...) with meters, each as text: with all, or with none."""
        return cast("StandingDocument", await self._do(_step(meters, step, reason, actor)))

    async def rekey(self, meters: Sequence[str]) -> StandingDocument:
        """Have meters agree on new keys when they next speak."""
        return cast("StandingDocument", await self._do(_rekey(meters)))

    async def keys(self) -> KeysDocument:
        """The head-end's keys, and how many meters confirmed each."""
        return cast("KeysDocument", await self._do(_Call("GET", "/v1/keys", KeysDocument)))

    async def begin_rotation(self, statement: bytes | None = None) -> KeysDocument:
        """Make the next key, or take the root's statement on it."""
        return cast("KeysDocument", await self._do(_begin_rotation(statement)))

    async def finish_rotation(self, *, is_forced: bool = False) -> KeysDocument:
        """Let the next key take the old one's place."""
        return cast("KeysDocument", await self._do(_finish_rotation(is_forced=is_forced)))

    async def history(self, meter: Eui64, *, limit: int = 1000) -> HistoryDocument:
        """Every step taken with a meter, newest first."""
        return cast("HistoryDocument", await self._do(_history(meter, limit)))

    async def meter(self, meter: Eui64) -> MeterDocument:
        """One meter of the registry."""
        return cast("MeterDocument", await self._do(_meter(meter)))

    async def read(self, meter: Eui64, *, deadline_s: float) -> ReadDocument:
        """Read a meter now. However it ends, that is no error."""
        return cast("ReadDocument", await self._do(_read(meter, deadline_s)))

    async def download(self, meter: Eui64, *, deadline_s: float) -> DownloadDocument:
        """All that a meter holds, each page within `deadline_s`."""
        return cast("DownloadDocument", await self._do(_download(meter, deadline_s)))

    async def reads(self, meter: Eui64 | None = None, *, limit: int = 100) -> ReadsDocument:
        """On-demand reads, newest first."""
        return cast("ReadsDocument", await self._do(_reads(meter, limit)))

    async def find_read(self, identifier: str) -> ReadDocument:
        """One on-demand read by its identifier (hex), with what the meter answered."""
        return cast("ReadDocument", await self._do(_find_read(identifier)))

    async def readings(self, meter: Eui64, first: str, last: str) -> ReadingsDocument:
        """A meter's days from `first` to `last` (`2026-11-20`), both included."""
        return cast("ReadingsDocument", await self._do(_readings(meter, first, last)))

    async def readings_of_day(self, day: str) -> ReadingsDocument:
        """Every meter's readings of one day."""
        return cast("ReadingsDocument", await self._do(_readings_of_day(day)))

    async def log(self, meter: Eui64, *, limit: int = 100) -> LogDocument:
        """A meter's log as far as it was reported, newest first."""
        return cast("LogDocument", await self._do(_log(meter, limit)))

    async def _do(self, call: _Call) -> object:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                params=call.query,
                json=call.body,
                content=call.octets,
                timeout=call.timeout_s,
            )
        except httpx.HTTPError as error:
            raise ApiError(_explain(error, self._socket, call)) from error
        return _take(response, call)


# What is asked, the same for both


def _suspicions() -> _Call:
    return _Call("GET", "/v1/suspicions", SuspicionsDocument)


def _dismiss(meter: Eui64) -> _Call:
    return _Call("DELETE", f"/v1/suspicions/{format_eui64(meter)}", DismissalDocument)


def _status() -> _Call:
    return _Call("GET", "/v1/status", StatusDocument)


def _enrol(devices: Iterable[tuple[str, str]], actor: str) -> _Call:
    body = [{"meter": meter, "public_key": key} for meter, key in devices]
    query: dict[str, str | int] = {"actor": actor} if actor else {}
    return _Call(
        "POST", "/v1/meters", EnrolmentDocument, query, body=body, timeout_s=LONG_TIMEOUT_S
    )


def _shipment(octets: bytes, wish: ShipmentWish) -> _Call:
    query: dict[str, str | int] = {
        "enrol": int(wish.may_join),
        "dry_run": int(wish.is_rehearsal),
        "actor": wish.actor,
    }
    if wish.manufacturer_key is not None:
        query["manufacturer_key"] = wish.manufacturer_key
    return _Call(
        "POST", "/v1/shipments", EnrolmentDocument, query, octets=octets, timeout_s=LONG_TIMEOUT_S
    )


def _step(meters: Sequence[str], step: str, reason: str, actor: str) -> _Call:
    body = {"step": step, "meters": list(meters), "reason": reason, "actor": actor}
    return _Call("POST", "/v1/standing", StandingDocument, body=body, timeout_s=LONG_TIMEOUT_S)


def _rekey(meters: Sequence[str]) -> _Call:
    body = {"meters": list(meters)}
    return _Call("POST", "/v1/rekeys", StandingDocument, body=body, timeout_s=LONG_TIMEOUT_S)


def _begin_rotation(statement: bytes | None) -> _Call:
    body = {} if statement is None else {"statement": statement.hex()}
    return _Call("POST", "/v1/keys/next", KeysDocument, body=body)


def _finish_rotation(*, is_forced: bool) -> _Call:
    return _Call("POST", "/v1/keys/finish", KeysDocument, body={"force": is_forced})


def _history(meter: Eui64, limit: int) -> _Call:
    path = f"/v1/meters/{format_eui64(meter)}/history"
    return _Call("GET", path, HistoryDocument, {"limit": limit})


def _meters(after: str | None) -> _Call:
    query: dict[str, str | int] = {"limit": PAGE_SIZE}
    if after is not None:
        query["after"] = after
    return _Call("GET", "/v1/meters", MeterPage, query)


def _meter(meter: Eui64) -> _Call:
    return _Call("GET", f"/v1/meters/{format_eui64(meter)}", MeterDocument)


def _read(meter: Eui64, deadline_s: float) -> _Call:
    return _Call(
        "POST",
        f"/v1/meters/{format_eui64(meter)}/reads",
        ReadDocument,
        body={"deadline_s": deadline_s},
        timeout_s=deadline_s + READ_GRACE_S,
    )


def _download(meter: Eui64, deadline_s: float) -> _Call:
    return _Call(
        "POST",
        f"/v1/meters/{format_eui64(meter)}/dumps",
        DownloadDocument,
        body={"deadline_s": deadline_s},
        timeout_s=PAGE_COUNT_MAX * deadline_s + READ_GRACE_S,
    )


def _reads(meter: Eui64 | None, limit: int) -> _Call:
    query: dict[str, str | int] = {"limit": limit}
    if meter is not None:
        query["meter"] = format_eui64(meter)
    return _Call("GET", "/v1/reads", ReadsDocument, query)


def _find_read(identifier: str) -> _Call:
    return _Call("GET", f"/v1/reads/{identifier}", ReadDocument)


def _readings(meter: Eui64, first: str, last: str) -> _Call:
    path = f"/v1/meters/{format_eui64(meter)}/readings"
    return _Call("GET", path, ReadingsDocument, {"from": first, "to": last})


def _readings_of_day(day: str) -> _Call:
    return _Call("GET", f"/v1/days/{day}/readings", ReadingsDocument)


def _log(meter: Eui64, limit: int) -> _Call:
    return _Call("GET", f"/v1/meters/{format_eui64(meter)}/log", LogDocument, {"limit": limit})


# What comes of it


def _take(response: httpx.Response, call: _Call) -> object:
    try:
        tree: object = response.json()
    except ValueError:
        raise ApiError(f"the answer to {call.path} is not JSON: is this a head-end?") from None
    try:
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            problem = read_document(ProblemDocument, tree)
            raise ApiError(problem.detail or problem.title, problem)
        return read_document(call.kind, tree)
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(
            f"the answer to {call.path} is not understood ({error}): "
            "do this command and the head-end have the same version?"
        ) from error


def _explain(error: httpx.HTTPError, socket: Path, call: _Call) -> str:
    if isinstance(error, httpx.ConnectError):
        cause = _os_error(error)
        if cause is not None and cause.errno == errno.EACCES:
            return f"{socket} belongs to another user: run this as the user of the head-end"
        return (
            f"no head-end answers at {socket}: start it with `headend serve`, "
            "or name another's settings with --config"
        )
    if isinstance(error, httpx.TimeoutException):
        return f"the head-end at {socket} gave no answer within {call.timeout_s:g} s"
    return f"the head-end at {socket} broke off: it is stopping, or its log says why"


def _os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def read_document(kind: type[T], tree: object) -> T:
    """The document of that dataclass in a JSON tree; keys that it does not know are ignored.

    Raises KeyError, TypeError or ValueError where it is no such document.
    """
    return cast("T", _read_value(kind, tree))


def _read_value(hint: Any, tree: object) -> object:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(tree, Mapping):
            raise TypeError(f"{type(tree).__name__} in place of an object")
        kind = cast("type[Any]", hint)
        hints = typing.get_type_hints(kind)
        # A key with a default may be absent; the dataclass itself misses the others.
        return kind(
            **{name: _read_value(hints[name], tree[name]) for name in hints if name in tree}
        )
    if origin is tuple:
        if not isinstance(tree, Sequence) or isinstance(tree, str):
            raise TypeError(f"{type(tree).__name__} in place of an array")
        item = arguments[0]
        if item in _PLAIN or typing.get_origin(item) is types.UnionType:
            return tuple(tree)  # A year of values is long: taken as JSON has them.
        return tuple(_read_value(item, one) for one in tree)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(tree, Mapping):
            raise TypeError(f"{type(tree).__name__} in place of an object")
        return {str(key): _read_value(arguments[1], one) for key, one in tree.items()}
    if origin in (types.UnionType, typing.Union):
        if tree is None or all(arm in _PLAIN for arm in arguments):
            return tree
        inner = next(arm for arm in arguments if arm is not type(None))
        return _read_value(inner, tree)
    if not isinstance(tree, hint):
        raise TypeError(f"{type(tree).__name__} in place of {hint.__name__}")
    return tree


_PLAIN: Final = (str, int, float, bool, type(None))
