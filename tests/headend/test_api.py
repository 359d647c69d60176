"""The HTTP door.

The contract under test: every route gives its document, the one that its client reads; every error,
also a wrong route, a wrong method, a wrong body or a failure of ours, is a problem document of RFC
9457 with one line of detail that shows nothing of the inside; nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from amistack.errors import StoreError
from amistack.model.dump import DumpPart, pages_of
from headend.api import app as api_app
from headend.api.app import make_api
from headend.api.documents import (
    DownloadDocument,
    EnrolmentDocument,
    LogDocument,
    MeterDocument,
    MeterPage,
    ProblemDocument,
    ReadDocument,
    ReadingsDocument,
    ReadsDocument,
    StatusDocument,
)
from headend.client import read_document
from headend.collection.download import Downloads
from headend.collection.on_demand import OnDemandReads
from headend.domain.meters import StoredSession
from headend.mdm.days import format_day
from headend.operations import Operations
from headend.southbound.intake import Intake, Uplink
from headend.southbound.known import KnownMeters
from headend.status import About
from headend.store.interface import KeepDelivery, KeepSession, Kept
from headend.store.sqlite import SqliteStore
from tests.support import headend as world
from tests.support.headend import NOW, YESTERDAY, meter_id, post, public_key

METER, OTHER = meter_id(1), meter_id(2)
DAY = format_day(YESTERDAY)


class Door:
    """The API over a real store, with meters that answer by the book."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.meters = world.TextbookMeters()
        self.traffic = world.NoTraffic()
        self._drawn = 0
        self.reads = OnDemandReads(
            store=store, asker=self.meters, entropy=self._draw, wall=lambda: NOW + 0.25
        )
        self.operations = Operations(
            about=About("0.1.0", NOW, "127.0.0.1:5683"),
            store=store,
            counting=self.traffic,
            reads=self.reads,
            wall=lambda: NOW + 0.25,
            downloads=Downloads(store=store, asker=self.meters),
        )
        transport = httpx.ASGITransport(make_api(self.operations), raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://head-end")

    def _draw(self, size: int) -> bytes:
        self._drawn += 1
        return self._drawn.to_bytes(size)

    async def enrol(self, *meters: world.Eui64) -> httpx.Response:
        devices = [
            {"meter": meter.hex(), "public_key": public_key(meter.hex()).hex()} for meter in meters
        ]
        return await self.http.post("/v1/meters", json=devices)

    async def report(self, meter: world.Eui64 = METER) -> None:
        """A meter has registered and reported yesterday."""
        session = StoredSession(
            meter, meter, b"", b"s" * 16, b"", 10, 64, (0, 0), NOW
        )  # fmt: skip
        await self.store.commit(KeepSession(session, "udp:192.0.2.7:5683"))
        intake = Intake(KnownMeters())
        flags = [world.Quality(0)] * 94 + [world.Quality.POWER_OFF] * 2
        made = world.report(
            blocks=[
                world.block(1, values=[None, *range(95)], advance=5_000, flags=flags),
                world.block(2, values=[0] * 96),
            ],
            entries=[world.entry(3, detail="night")],
        )
        for path, payload in (("reg", world.registration(meter).encode()), ("rep", made.encode())):
            taken = intake.take(Uplink(meter, post(path, payload), NOW * 1000))
            write = KeepDelivery(
                meter, meter, (1, 1), "udp:192.0.2.7:5683", NOW * 1000, taken.records
            )
            outcome = await self.store.commit(write)
            assert isinstance(outcome, tuple)
            assert set(outcome) == {Kept.NEW}
            taken.answer(outcome, 0)

    async def get(self, path: str, kind: type[Any], **query: str | int) -> Any:
        response = await self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        return read_document(kind, response.json())


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    made = Door(store)
    yield made
    await made.http.aclose()
    await store.close()


def problem_of(response: httpx.Response, status: int) -> ProblemDocument:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: ProblemDocument = read_document(ProblemDocument, response.json())
    assert problem.status == status
    assert problem.title
    assert problem.detail
    assert "\n" not in problem.detail
    return problem


# Documents


async def test_enrolment_is_counted_and_repeating_it_harmless(door: Door) -> None:
    response = await door.enrol(METER, OTHER)
    assert read_document(EnrolmentDocument, response.json()) == EnrolmentDocument(2, 0)
    response = await door.enrol(METER, meter_id(3))
    assert read_document(EnrolmentDocument, response.json()) == EnrolmentDocument(1, 1)


async def test_meters_come_a_page_at_a_time(door: Door) -> None:
    await door.enrol(*[meter_id(number) for number in range(5)])
    first = await door.get("/v1/meters", MeterPage, limit=3)
    assert [meter.meter for meter in first.meters] == [meter_id(n).hex() for n in range(3)]
    assert first.next == meter_id(2).hex()
    second = await door.get("/v1/meters", MeterPage, limit=3, after=first.next)
    assert [meter.meter for meter in second.meters] == [meter_id(3).hex(), meter_id(4).hex()]
    assert second.next is None


async def test_meter_shows_what_it_declared(door: Door) -> None:
    await door.enrol(METER)
    fresh = await door.get(f"/v1/meters/{METER.hex()}", MeterDocument)
    assert (fresh.is_secured, fresh.path, fresh.registration, fresh.newest_day) == (
        False, None, None, None,
    )  # fmt: skip
    await door.report()
    known: MeterDocument = await door.get("/v1/meters/02-00-4C-00-00-00-00-01", MeterDocument)
    assert known.is_secured
    assert known.public_key == public_key(METER.hex()).hex()
    assert known.newest_day == DAY
    assert known.registration is not None
    assert known.registration.reason == "cold boot"
    assert known.registration.standard_offset_min == 60
    assert [channel.unit for channel in known.registration.channels] == ["Wh", "Wh"]


async def test_readings_of_a_meter_and_of_a_day_are_the_same(door: Door) -> None:
    await door.enrol(METER, OTHER)
    await door.report(METER)
    await door.report(OTHER)
    path = f"/v1/meters/{METER.hex()}/readings"
    one = await door.get(path, ReadingsDocument, **{"from": DAY, "to": DAY})
    every = await door.get(f"/v1/days/{DAY}/readings", ReadingsDocument)
    assert [(day.meter, day.channel) for day in every.readings] == [
        (METER.hex(), 1), (METER.hex(), 2), (OTHER.hex(), 1), (OTHER.hex(), 2),
    ]  # fmt: skip
    assert one.readings == every.readings[:2]
    first = one.readings[0]
    assert first.values == (None, *range(95))
    assert [(run.first, run.count, run.flags) for run in first.qualities] == [
        (0, 1, ("missing",)),
        (94, 2, ("power off",)),
    ]
    assert (first.opening, first.total, first.closing) == (1_000, 5_000, 6_000)
    assert first.start == f"{format_day(YESTERDAY - 1)}T23:00:00Z"
    assert first.received_at == "2026-11-20T10:20:00Z"
    assert (first.method, first.path) == ("schedule", "udp:192.0.2.7:5683")


async def test_log_is_shown_newest_first(door: Door) -> None:
    await door.enrol(METER)
    await door.report()
    log = await door.get(f"/v1/meters/{METER.hex()}/log", LogDocument)
    assert [(entry.sequence, entry.event_type, entry.detail) for entry in log.entries] == [
        (3, "3.26.0.216", "night")
    ]


async def test_read_is_created_and_found_again(door: Door) -> None:
    await door.enrol(METER)
    await door.report()
    response = await door.http.post(f"/v1/meters/{METER.hex()}/reads", json={"deadline_s": 5})
    assert response.status_code == 201
    read: ReadDocument = read_document(ReadDocument, response.json())
    assert read.result == "answered"
    assert read.answered_at is not None
    assert read.answered_at.endswith(".250Z")
    assert read.answer is not None
    assert [(register.channel, register.value) for register in read.answer.registers] == [
        (1, 2_075), (2, 5),
    ]  # fmt: skip
    (since_midnight,) = read.answer.readings
    assert since_midnight.values == (10, None, 30)
    assert since_midnight.total == 60
    assert [entry.sequence for entry in read.answer.entries] == [9]
    again = await door.get(response.headers["location"], ReadDocument)
    assert again == read
    listed = await door.get("/v1/reads", ReadsDocument, meter=METER.hex())
    assert [one.identifier for one in listed.reads] == [read.identifier]


async def test_read_of_an_undeclared_channel_shows_no_value(door: Door) -> None:
    await door.enrol(METER)
    response = await door.http.post(f"/v1/meters/{METER.hex()}/reads")
    read: ReadDocument = read_document(ReadDocument, response.json())
    assert read.answer is not None
    assert [register.value for register in read.answer.registers] == [None, None]
    assert read.answer.readings == ()


async def test_read_without_an_answer_is_a_read_all_the_same(door: Door) -> None:
    await door.enrol(METER)
    door.meters.silent.add(METER)
    response = await door.http.post(f"/v1/meters/{METER.hex()}/reads", json={"deadline_s": 1.5})
    assert response.status_code == 201
    read: ReadDocument = read_document(ReadDocument, response.json())
    assert (read.result, read.answer, read.answered_at) == ("timed out", None, None)


async def test_dump_is_had_whole_or_is_a_problem(door: Door) -> None:
    await door.enrol(METER)
    url = f"/v1/meters/{METER.hex()}/dumps"
    (page,) = pages_of([DumpPart("log", b"entries")])
    door.meters.odd[METER] = world.content(page.encode())
    response = await door.http.post(url, json={"deadline_s": 5})
    assert response.status_code == 200
    dump: DownloadDocument = read_document(DownloadDocument, response.json())
    assert [bytes.fromhex(one) for one in dump.pages] == [page.encode()]
    assert (dump.meter, dump.path) == (METER.hex(), "udp:192.0.2.7:5683")
    door.meters.silent.add(METER)
    response = await door.http.post(url)
    assert (response.status_code, response.json()["type"].rpartition("/")[2]) == (504, "not-had")
    assert response.json()["detail"] == "page 0: silent for 120 s"
    assert (await door.http.post(url, json={"deadline_s": 601})).status_code == 422
    nobody = f"/v1/meters/{OTHER.hex()}/dumps"
    assert (await door.http.post(nobody)).status_code == 404


async def test_status_shows_counts_queues_and_reasons(door: Door) -> None:
    await door.enrol(METER)
    await door.report()
    door.traffic.refused["oscore: replay"] = 3
    door.traffic.flagged["negative"] = 2
    door.traffic.quarantined["unreadable whole"] = 1
    status: StatusDocument = await door.get("/v1/status", StatusDocument)
    assert (status.version, status.listen) == ("0.1.0", "127.0.0.1:5683")
    assert status.counts.meters == status.counts.secured == status.counts.reports == 1
    assert status.counts.reports_of_day[DAY] == 1
    assert status.queues["on-demand reads"].bound == 5_120
    assert status.queues["requests to answer"].depth == 0
    assert status.refused == {"oscore: replay": 3}
    assert status.flagged == {"negative": 2}
    assert status.quarantined == {"unreadable whole": 1}


async def test_openapi_describes_every_route(door: Door) -> None:
    described = (await door.http.get("/openapi.json")).json()
    assert set(described["paths"]) == {
        "/v1/status", "/v1/meters", "/v1/meters/{meter}", "/v1/meters/{meter}/log",
        "/v1/meters/{meter}/dumps",
        "/v1/meters/{meter}/readings", "/v1/days/{day}/readings", "/v1/meters/{meter}/reads",
        "/v1/reads", "/v1/reads/{identifier}", "/v1/meters/{meter}/history", "/v1/standing",
        "/v1/rekeys", "/v1/shipments", "/v1/keys", "/v1/keys/next", "/v1/keys/finish",
        "/v1/suspicions", "/v1/suspicions/{meter}",
        "/v1/mesh", "/v1/mesh/areas", "/v1/mesh/addresses", "/v1/mesh/releases", "/v1/mesh/orders",
        "/v1/topology", "/v1/nodes/{node}", "/v1/nodes/{node}/ping", "/v1/nodes/{node}/trace",
        "/v1/nodes/{node}/isolate",
    }  # fmt: skip


# Problems


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "said"),
    [
        ("GET", "/v1/nothing", None, 404, "", "there is nothing at /v1/nothing"),
        ("GET", "/v1/meters/", None, 404, "", "there is nothing at"),
        ("DELETE", "/v1/meters", None, 405, "", "DELETE is not possible here"),
        (
            "GET", "/v1/meters/02004c0000000009", None, 404, "unknown-meter",
            "meter 02004c0000000009 is not enrolled",
        ),
        ("GET", "/v1/meters/99", None, 422, "bad-request", "'99' is not a meter"),
        (
            "GET", "/v1/meters/02004c0000000009/log", None, 404, "unknown-meter", "not enrolled",
        ),
        ("GET", "/v1/meters?limit=0", None, 422, "bad-request", "limit: "),
        ("GET", "/v1/meters?limit=many", None, 422, "bad-request", "limit: "),
        ("GET", "/v1/meters?after=x", None, 422, "bad-request", "'x' is not a meter"),
        (
            "GET", "/v1/meters/02004c0000000001/readings", None, 422, "bad-request",
            "from: Field required, and 1 more",
        ),
        (
            "GET", "/v1/meters/02004c0000000001/readings?from=2026-13-01&to=2026-01-01", None,
            422, "bad-request", "'2026-13-01' is not a day",
        ),
        (
            "GET", "/v1/meters/02004c0000000001/readings?from=2026-01-02&to=2026-01-01", None,
            422, "bad-request", "the last day is before the first",
        ),
        (
            "GET", "/v1/meters/02004c0000000001/readings?from=2024-01-01&to=2026-01-01", None,
            422, "bad-request", "732 days, expected 366 at most",
        ),
        ("GET", "/v1/days/today/readings", None, 422, "bad-request", "'today' is not a day"),
        ("GET", "/v1/reads/zz", None, 422, "bad-request", "not the identifier of a read"),
        ("GET", "/v1/reads/00ff", None, 404, "unknown-read", "no on-demand read 00ff"),
        (
            "POST", "/v1/meters/02004c0000000009/reads", b"{}", 404, "unknown-meter",
            "not enrolled",
        ),
        (
            "POST", "/v1/meters/02004c0000000001/reads", b'{"deadline_s": "5"}', 422,
            "bad-request", "/deadline_s: ",
        ),
        (
            "POST", "/v1/meters/02004c0000000001/reads", b'{"deadline_s": 601}', 422,
            "bad-request", "/deadline_s: ",
        ),
        (
            "POST", "/v1/meters/02004c0000000001/reads", b'{"deadline": 5}', 422,
            "bad-request", "/deadline: ",
        ),
        ("POST", "/v1/meters", b"{", 422, "bad-request", "JSON"),
        ("POST", "/v1/meters", b"[]", 422, "bad-enrolment", "the list is empty"),
        ("POST", "/v1/meters", b'{"meter": 1}', 422, "bad-request", "list"),
        (
            "POST", "/v1/meters", b'[{"meter": "1", "public_key": "2"}]', 422, "bad-enrolment",
            "/0: '1' is not a meter",
        ),
        (
            "POST", "/v1/meters", b'[{"meter": "1", "public_key": "2", "name": "x"}]', 422,
            "bad-request", "/0/name: ",
        ),
        ("POST", "/v1/meters", b'[{"meter": 1}]', 422, "bad-request", "and 1 more"),
    ],
)  # fmt: skip
async def test_every_error_is_a_problem_of_one_line(
    door: Door, method: str, path: str, body: bytes | None, status: int, kind: str, said: str
) -> None:
    await door.enrol(METER)
    headers = {} if body is None else {"content-type": "application/json"}
    response = await door.http.request(method, path, content=body, headers=headers)
    problem = problem_of(response, status)
    assert problem.type == (f"/problems/{kind}" if kind else "about:blank")
    assert said in problem.detail


async def test_refused_method_says_what_is_possible(door: Door) -> None:
    response = await door.http.delete("/v1/status")
    assert response.headers["allow"] == "GET"


async def test_conflicting_enrolment_names_the_meters_and_enrols_nobody(door: Door) -> None:
    await door.enrol(METER)
    devices = [
        {"meter": OTHER.hex(), "public_key": public_key("x").hex()},
        {"meter": METER.hex(), "public_key": public_key("x").hex()},
    ]
    problem = problem_of(await door.http.post("/v1/meters", json=devices), 409)
    assert problem.type == "/problems/enrolment-conflict"
    assert [place.pointer for place in problem.errors] == [METER.hex()]
    problem_of(await door.http.get(f"/v1/meters/{OTHER.hex()}"), 404)


async def test_bad_rows_are_all_named_in_the_problem(door: Door) -> None:
    devices = [{"meter": "x", "public_key": "y"}] * 8
    problem = problem_of(await door.http.post("/v1/meters", json=devices), 422)
    assert [place.pointer for place in problem.errors] == [f"/{i}" for i in range(8)]
    assert problem.detail.endswith("and 3 more")


async def test_body_beyond_the_bound_is_refused(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_app, "BODY_SIZE_MAX", 1_000)
    response = await door.http.post("/v1/meters", content=b"[" + b" " * 1_000 + b"]")
    problem = problem_of(response, 413)
    assert problem.detail == "a request of more than 1000 octets"


async def test_store_that_fails_is_503_and_tells_when_to_come_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("the store cannot be read: disk I/O error")

    monkeypatch.setattr(door.store, "counts", fail)
    response = await door.http.get("/v1/status")
    problem = problem_of(response, 503)
    assert problem.type == "/problems/store-failed"
    assert response.headers["retry-after"] == "5"


async def test_stopping_head_end_begins_no_read(door: Door) -> None:
    await door.enrol(METER)
    door.reads.stop()
    problem = problem_of(await door.http.post(f"/v1/meters/{METER.hex()}/reads"), 503)
    assert problem.type == "/problems/stopping"


async def test_failure_of_ours_shows_nothing_of_the_inside(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(door.operations, "status", fail)
    problem = problem_of(await door.http.get("/v1/status"), 500)
    assert problem.detail == "the head-end failed on this; its log says more"
    assert "secret" not in json.dumps((await door.http.get("/v1/status")).json())
