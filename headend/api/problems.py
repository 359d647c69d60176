"""Every error of the HTTP door as a problem document (RFC 9457).

Gives   `application/problem+json` for refusals, bad requests, wrong routes and our own failures
Never   shows an exception's insides, or what was in a request that it refuses
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from amistack.errors import ConfigError, StoreError
from headend.api.documents import PlaceDocument, ProblemDocument
from headend.domain.refusals import (
    BadEnrolment,
    BadShipment,
    BadWish,
    EnrolmentRefused,
    NoMesh,
    NotHad,
    NotThere,
    Refusal,
    RotationRefused,
    StepRefused,
    Stopping,
    TooMany,
    UnknownMeter,
    UnknownNode,
    UnknownRead,
    standing,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 5

_KINDS: Final[Mapping[type[Exception], tuple[HTTPStatus, str, str]]] = {
    UnknownMeter: (HTTPStatus.NOT_FOUND, "unknown-meter", "Unknown meter"),
    UnknownRead: (HTTPStatus.NOT_FOUND, "unknown-read", "Unknown on-demand read"),
    EnrolmentRefused: (HTTPStatus.CONFLICT, "enrolment-conflict", "Known with another key"),
    BadEnrolment: (HTTPStatus.UNPROCESSABLE_ENTITY, "bad-enrolment", "Nothing was enrolled"),
    BadShipment: (HTTPStatus.UNPROCESSABLE_ENTITY, "bad-shipment", "Nothing was imported"),
    StepRefused: (HTTPStatus.CONFLICT, "no-such-step", "Nothing was changed"),
    RotationRefused: (HTTPStatus.CONFLICT, "no-rotation", "The head-end's keys stay"),
    UnknownNode: (HTTPStatus.NOT_FOUND, "unknown-node", "Not in the mesh"),
    NoMesh: (HTTPStatus.NOT_FOUND, "no-mesh", "No mesh"),
    NotThere: (HTTPStatus.SERVICE_UNAVAILABLE, "not-there", "Nobody can be asked"),
    NotHad: (HTTPStatus.GATEWAY_TIMEOUT, "not-had", "The meter did not give it"),
    BadWish: (HTTPStatus.UNPROCESSABLE_ENTITY, "bad-request", "Cannot be granted"),
    ConfigError: (HTTPStatus.UNPROCESSABLE_ENTITY, "bad-request", "Cannot be granted"),
    TooMany: (HTTPStatus.SERVICE_UNAVAILABLE, "too-many", "Too many at once"),
    Stopping: (HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "Stopping"),
    StoreError: (HTTPStatus.SERVICE_UNAVAILABLE, "store-failed", "The store cannot do it now"),
}
"""Status, last part of the type, and title. Types are explained in docs/operating/headend.md."""


def install(api: FastAPI) -> None:
    """Have `api` answer every error with a problem document."""
    for kind in (Refusal, ConfigError, StoreError):
        api.add_exception_handler(kind, _answer_refusal)
    api.add_exception_handler(RequestValidationError, _answer_invalid)
    api.add_exception_handler(HTTPException, _answer_http)
    api.add_exception_handler(Exception, _answer_failure)


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "",
    title: str = "",
    errors: Sequence[PlaceDocument] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as an answer; without `kind` it is no more than its status says."""
    document = ProblemDocument(
        f"/problems/{kind}" if kind else "about:blank",
        title or HTTPStatus(status).phrase,
        status,
        detail,
        tuple(errors),
    )
    every = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        every.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Response(
        json.dumps(dataclasses.asdict(document)), status, headers=every, media_type=MEDIA_TYPE
    )


async def _answer_refusal(_: Request, error: Exception) -> Response:
    status, kind, title = next(
        facts for known in type(error).__mro__ if (facts := _KINDS.get(known)) is not None
    )
    errors: list[PlaceDocument] = []
    if isinstance(error, BadEnrolment | BadShipment):
        for said in error.problems:
            place, _colon, detail = said.partition(": ")
            errors.append(PlaceDocument(place, detail or said))
    elif isinstance(error, EnrolmentRefused):
        errors = [
            PlaceDocument(meter.hex(), "known with another public key") for meter in error.meters
        ]
    elif isinstance(error, StepRefused):
        errors = [PlaceDocument(meter.hex(), standing(state)) for meter, state in error.meters]
    return problem(status, str(error), kind=kind, title=title, errors=errors)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = []
    for fault in error.errors()[:100]:
        where, *rest = (str(part) for part in fault["loc"])
        pointer = "/" + "/".join(rest) if where == "body" else ".".join(rest)
        places.append(PlaceDocument(pointer, str(fault["msg"])))
    first = places[0]
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"{first.pointer or 'the request'}: {first.detail}{more}",
        kind="bad-request",
        title="Cannot be granted",
        errors=places,
    )


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path[:200]}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method[:20]} is not possible here"
    else:
        detail = str(error.detail)
    return problem(error.status_code, detail, headers=error.headers)


async def _answer_failure(_: Request, __: Exception) -> Response:
    # The server logs the exception; the caller learns no more than that it is our fault.
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "the head-end failed on this; its log says more"
    )
