"""The HTTP door, first form: `/v1`, JSON, problems as RFC 9457 has them.

Gives   `make_api`: an ASGI application over `Operations`; /openapi.json describes it
Limit   BODY_SIZE_MAX octets of a request
Never   decides anything: what may be and what it means is the operations'
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from headend.api import documents as d
from headend.api.mesh import add_mesh
from headend.api.problems import install, problem
from headend.collection.download import DEADLINE_S as PAGE_DEADLINE_S
from headend.collection.on_demand import DEADLINE_S, DEADLINE_S_MAX
from headend.domain.refusals import BadWish
from headend.domain.standing import ACTOR_SIZE_MAX, METER_COUNT_MAX, REASON_SIZE_MAX, Step
from headend.lifecycle.enrolment import DEVICE_COUNT_MAX, LIST_SIZE_MAX, check_devices
from headend.mdm.days import parse_day
from headend.operations import PAGE_SIZE_MAX, Operations

BODY_SIZE_MAX: Final = LIST_SIZE_MAX
TEXT_SIZE_MAX: Final = 200
KEY_TEXT_SIZE_MAX: Final = 2_000

Limit = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)]

# ASGI leaves the values of its mappings open.
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class DeviceRequest(BaseModel):
    """One meter and its public key, in hex."""

    model_config = ConfigDict(strict=True, extra="forbid")

    meter: str = Field(max_length=TEXT_SIZE_MAX)
    public_key: str = Field(max_length=TEXT_SIZE_MAX)


class StepRequest(BaseModel):
    """A step with meters, and why it is taken; `actor` is whoever takes it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    step: Literal["enrol", "suspend", "resume", "revoke", "retire"]
    meters: list[Annotated[str, Field(max_length=TEXT_SIZE_MAX)]] = Field(
        min_length=1, max_length=METER_COUNT_MAX
    )
    reason: str = Field(max_length=REASON_SIZE_MAX)
    actor: str = Field(default="", max_length=ACTOR_SIZE_MAX)


class RekeyRequest(BaseModel):
    """Meters that are to agree on new keys."""

    model_config = ConfigDict(strict=True, extra="forbid")

    meters: list[Annotated[str, Field(max_length=TEXT_SIZE_MAX)]] = Field(
        min_length=1, max_length=METER_COUNT_MAX
    )


class RotationRequest(BaseModel):
    """The root's statement on the next key, in hex; without one the next key is made."""

    model_config = ConfigDict(strict=True, extra="forbid")

    statement: str | None = Field(default=None, max_length=KEY_TEXT_SIZE_MAX)


class FinishRequest(BaseModel):
    """With `force` the old key goes though meters have yet to confirm the new one."""

    model_config = ConfigDict(strict=True, extra="forbid")

    force: bool = False


class ReadRequest(BaseModel):
    """How an on-demand read is wanted; `deadline_s` seconds are waited for the meter."""

    model_config = ConfigDict(strict=True, extra="forbid")

    deadline_s: float = Field(default=DEADLINE_S, gt=0, le=DEADLINE_S_MAX)


class DumpRequest(BaseModel):
    """How a dump is wanted; `deadline_s` seconds are waited for each page of it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    deadline_s: float = Field(default=PAGE_DEADLINE_S, gt=0, le=DEADLINE_S_MAX)


def make_api(operations: Operations, *, version: str = "") -> FastAPI:
    """The application that serves `operations`."""
    problems: dict[int | str, dict[str, object]] = {
        "default": {"model": d.ProblemDocument, "description": "Why not (RFC 9457)"}
    }
    api = FastAPI(
        title="Head-end",
        version=version or "1",
        docs_url=None,
        redoc_url=None,
        responses=problems,
        redirect_slashes=False,
    )
    install(api)
    api.add_middleware(_BodyBound)
    _add_meters(api, operations)
    _add_keys(api, operations)
    _add_readings(api, operations)
    _add_reads(api, operations)
    add_mesh(api, operations)

    @api.get("/v1/status")
    async def status() -> d.StatusDocument:
        """Counts, queues, and what was refused, flagged or set aside, by reason."""
        return d.status_document(await operations.status())

    return api


def _add_meters(api: FastAPI, operations: Operations) -> None:
    @api.get("/v1/meters")
    async def meters(after: str | None = None, limit: Limit = 100) -> d.MeterPage:
        """The registry, a page at a time."""
        start = None if after is None else parse_eui64(after[:TEXT_SIZE_MAX])
        page = await operations.meters(after=start, limit=limit)
        listed = tuple(d.meter_document(overview) for overview in page)
        return d.MeterPage(listed, listed[-1].meter if len(listed) == limit else None)

    @api.post("/v1/meters")
    async def enrol(
        devices: Annotated[list[DeviceRequest], Field(max_length=DEVICE_COUNT_MAX)],
        actor: Annotated[str, Query(max_length=ACTOR_SIZE_MAX)] = "",
    ) -> d.EnrolmentDocument:
        """Enrol meters: all of the list, or none."""
        rows = [(f"/{i}", device.meter, device.public_key) for i, device in enumerate(devices)]
        # Every key is a point to be checked: a long list must not hold up the meters.
        checked = await asyncio.to_thread(check_devices, rows)
        enrolled = await operations.enrol(checked, actor=actor)
        return d.EnrolmentDocument(enrolled.new, enrolled.known, enrolled.moved)

    @api.get("/v1/meters/{meter}")
    async def meter(meter: str) -> d.MeterDocument:
        """One meter of the registry."""
        return d.meter_document(await operations.meter(_meter(meter)))

    @api.get("/v1/meters/{meter}/history")
    async def history(meter: str, limit: Limit = 100) -> d.HistoryDocument:
        """Every step that was taken with the meter, and what its maker says of it."""
        identifier = _meter(meter)
        return d.history_document(identifier, *await operations.history(identifier, limit=limit))

    @api.post("/v1/standing")
    async def change_standing(wish: StepRequest) -> d.StandingDocument:
        """Take a step with meters: with all of the list, or with none. In force when answered."""
        meters = [_meter(meter) for meter in wish.meters]
        outcome = await operations.change_standing(
            meters, Step[wish.step.upper()], reason=wish.reason, actor=wish.actor
        )
        return d.standing_document(outcome)

    @api.post("/v1/rekeys")
    async def rekey(wish: RekeyRequest) -> d.StandingDocument:
        """End the sessions with meters, so that each agrees on new keys when it next speaks."""
        outcome = await operations.rekey([_meter(meter) for meter in wish.meters])
        return d.standing_document(outcome)

    @api.post("/v1/shipments")
    async def import_shipment(
        request: Request,
        manufacturer_key: Annotated[str | None, Query(max_length=KEY_TEXT_SIZE_MAX)] = None,
        enrol: bool = False,
        dry_run: bool = False,
        actor: Annotated[str, Query(max_length=ACTOR_SIZE_MAX)] = "",
    ) -> d.EnrolmentDocument:
        """Import a manufacturer's shipment file, CSV or CBOR, as the body: all of it, or nothing.

        With `enrol` its meters may join at once; with `dry_run` only the outcome is told.
        """
        enrolled = await operations.import_shipment(
            await request.body(),
            manufacturer_key=manufacturer_key,
            may_join=enrol,
            is_rehearsal=dry_run,
            actor=actor,
        )
        return d.EnrolmentDocument(enrolled.new, enrolled.known, enrolled.moved)

    @api.get("/v1/suspicions")
    async def suspicions() -> d.SuspicionsDocument:
        """Meters of which there seem to be two, one a copy of the other."""
        return d.suspicions_document(await operations.suspicions())

    @api.delete("/v1/suspicions/{meter}")
    async def dismiss(meter: str) -> d.DismissalDocument:
        """Suspect a meter no more."""
        return d.DismissalDocument(await operations.dismiss(_meter(meter)))

    @api.get("/v1/meters/{meter}/log")
    async def log(meter: str, limit: Limit = 100) -> d.LogDocument:
        """What the meter logged, as far as it was reported."""
        return d.log_document(await operations.log(_meter(meter), limit=limit))


def _add_keys(api: FastAPI, operations: Operations) -> None:
    @api.get("/v1/keys")
    async def keys() -> d.KeysDocument:
        """The head-end's keys, and how many meters confirmed each."""
        return d.keys_document(await operations.keys())

    @api.post("/v1/keys/next")
    async def begin(wish: RotationRequest) -> d.KeysDocument:
        """Make the next key; or, with the root's statement on it, begin to tell the meters."""
        statement = None
        if wish.statement is not None:
            try:
                statement = bytes.fromhex(wish.statement)
            except ValueError:
                raise BadWish("the statement is not in hex") from None
        return d.keys_document(await operations.begin_rotation(statement))

    @api.post("/v1/keys/finish")
    async def finish(wish: FinishRequest) -> d.KeysDocument:
        """Let the next key take the old one's place."""
        return d.keys_document(await operations.finish_rotation(is_forced=wish.force))


def _add_readings(api: FastAPI, operations: Operations) -> None:
    @api.get("/v1/meters/{meter}/readings")
    async def readings(
        meter: str,
        first: Annotated[str, Query(alias="from", max_length=TEXT_SIZE_MAX)],
        last: Annotated[str, Query(alias="to", max_length=TEXT_SIZE_MAX)],
    ) -> d.ReadingsDocument:
        """One meter's days from `from` to `to`, both included."""
        days = await operations.readings(_meter(meter), parse_day(first), parse_day(last))
        return d.readings_document(days)

    @api.get("/v1/days/{day}/readings")
    async def readings_of_day(day: str) -> d.ReadingsDocument:
        """Every meter's readings of one day."""
        return d.readings_document(await operations.readings_of_day(parse_day(day)))


def _add_reads(api: FastAPI, operations: Operations) -> None:
    @api.post("/v1/meters/{meter}/reads", status_code=HTTPStatus.CREATED)
    async def read(
        meter: str, response: Response, wish: ReadRequest | None = None
    ) -> d.ReadDocument:
        """Read a meter now. However it ends, the read is stored and answered with its result."""
        wish = ReadRequest() if wish is None else wish
        done = await operations.read(_meter(meter), deadline_s=wish.deadline_s)
        response.headers["Location"] = f"/v1/reads/{done.identifier.hex()}"
        return d.read_document(done, await operations.readings_of_read(done))

    @api.post("/v1/meters/{meter}/dumps")
    async def download(meter: str, wish: DumpRequest | None = None) -> d.DownloadDocument:
        """Take all that a meter holds: nothing of it is stored."""
        wish = DumpRequest() if wish is None else wish
        done = await operations.download(_meter(meter), deadline_s=wish.deadline_s)
        return d.download_document(done)

    @api.get("/v1/reads")
    async def reads(meter: str | None = None, limit: Limit = 100) -> d.ReadsDocument:
        """On-demand reads, newest first."""
        found = await operations.reads(None if meter is None else _meter(meter), limit=limit)
        return d.ReadsDocument(tuple(d.read_document(one) for one in found))

    @api.get("/v1/reads/{identifier}")
    async def find_read(identifier: str) -> d.ReadDocument:
        """One on-demand read, with what the meter answered."""
        try:
            octets = bytes.fromhex(identifier)
        except ValueError:
            raise BadWish(f"{identifier[:40]!r} is not the identifier of a read") from None
        found = await operations.find_read(octets)
        return d.read_document(found, await operations.readings_of_read(found))


def _meter(text: str) -> Eui64:
    try:
        return parse_eui64(text[:TEXT_SIZE_MAX])
    except ConfigError as error:
        raise BadWish(str(error)) from None


class _BodyBound:
    """Refuses a request body of more than BODY_SIZE_MAX octets before it is all in memory."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0
        is_started = False

        async def bounded() -> Scope:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_SIZE_MAX:
                raise _TooLong
            return message

        async def noting(message: Scope) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self._app(scope, bounded, noting)
        except _TooLong:
            if not is_started:
                refusal = problem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"a request of more than {BODY_SIZE_MAX} octets",
                )
                await refusal(scope, receive, send)


class _TooLong(BaseException):
    """Not an Exception: nothing between here and the middleware may answer it."""
