"""Where meters stand and what was delivered, by the HTTP door and the terminal.

The contract under test: both doors do what the operations do and no more; a shipment file is taken
as it is, octet for octet; every refusal is one line, with the meters or places named, and exit
code 1.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import cbor2
import pytest
import pytest_asyncio

from amistack.session.signing import sign1
from headend.api.documents import (
    EnrolmentDocument,
    HistoryDocument,
    MeterDocument,
    StandingDocument,
)
from headend.cli.main import main
from headend.client import read_document
from headend.store.sqlite import SqliteStore
from tests.headend.test_api import Door
from tests.headend.test_cli import Server, command, make_home, only_line, served
from tests.support.headend import meter_id, private_key, public_key

A, B = meter_id(1), meter_id(2)
MAKER = private_key("maker")
CSV = (
    "meter,public_key,serial\n"
    f"{A.hex()},{public_key(A.hex()).hex()},A-1\n{B.hex()},{public_key(B.hex()).hex()},B-2\n"
).encode()
SIGNED = sign1(MAKER, cbor2.dumps({0: 1, 2: "pallet 7", 3: [[A, public_key(A.hex()), {2: "A-1"}]]}))

# See tests/headend/test_cli.py.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    store = SqliteStore.open(tmp_path / "s.sqlite")
    made = Door(store)
    yield made
    await made.http.aclose()
    await store.close()


async def standing(door: Door, step: str, *meters: str, reason: str = "why") -> StandingDocument:
    response = await door.http.post(
        "/v1/standing",
        json={"step": step, "meters": list(meters), "reason": reason, "actor": "somebody"},
    )
    assert response.status_code == 200, response.text
    return read_document(StandingDocument, response.json())


# HTTP


async def test_shipment_is_taken_rehearsed_and_enrolled(door: Door) -> None:
    for query, outcome in (
        ({"dry_run": "true"}, EnrolmentDocument(2, 0, 0)),
        ({"actor": "stock"}, EnrolmentDocument(2, 0, 0)),
        ({"enrol": "true"}, EnrolmentDocument(0, 2, 2)),
    ):
        response = await door.http.post("/v1/shipments", content=CSV, params=query)
        assert read_document(EnrolmentDocument, response.json()) == outcome
    history = await door.get(f"/v1/meters/{A.hex()}/history", HistoryDocument)
    assert (history.meter, history.serial, history.model) == (A.hex(), "A-1", "")
    told = [(one.number, one.step, one.state, one.actor) for one in history.steps]
    assert told == [(2, "enrol", "enrolled", ""), (1, "import", "known", "stock")]


async def test_signed_shipment_needs_its_makers_key(door: Door) -> None:
    refused = await door.http.post("/v1/shipments", content=SIGNED)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/bad-shipment")
    other = {"manufacturer_key": public_key("other").hex()}
    assert (await door.http.post("/v1/shipments", content=SIGNED, params=other)).status_code == 422
    key = {"manufacturer_key": public_key("maker").hex()}
    taken = await door.http.post("/v1/shipments", content=SIGNED, params=key)
    assert read_document(EnrolmentDocument, taken.json()) == EnrolmentDocument(1, 0, 0)
    (step,) = (await door.get(f"/v1/meters/{A.hex()}/history", HistoryDocument)).steps
    assert step.reason == "shipment pallet 7"


async def test_bad_shipment_names_its_places(door: Door) -> None:
    response = await door.http.post("/v1/shipments", content=b"meter,public_key\nx,y\n1\n")
    assert response.status_code == 422
    assert [one["pointer"] for one in response.json()["errors"]] == ["line 3", "line 2"]


async def test_step_moves_meters_and_tells_which(door: Door) -> None:
    await door.enrol(A, B)
    assert await standing(door, "suspend", A.hex()) == StandingDocument((A.hex(),), 0)
    assert await standing(door, "suspend", A.hex(), B.hex()) == StandingDocument((B.hex(),), 1)
    found = await door.get(f"/v1/meters/{A.hex()}", MeterDocument)
    assert found.state == "suspended"


async def test_step_that_is_refused_names_meters_and_where_they_stand(door: Door) -> None:
    await door.enrol(A)
    await standing(door, "revoke", A.hex())
    response = await door.http.post(
        "/v1/standing", json={"step": "resume", "meters": [A.hex(), B.hex()], "reason": "why"}
    )
    assert (response.status_code, response.json()["type"]) == (409, "/problems/no-such-step")
    errors = [(one["pointer"], one["detail"]) for one in response.json()["errors"]]
    assert errors == [(A.hex(), "revoked"), (B.hex(), "not in the registry")]


@pytest.mark.parametrize(
    "body",
    [
        {"step": "import", "meters": [A.hex()], "reason": "why"},
        {"step": "bless", "meters": [A.hex()], "reason": "why"},
        {"step": "suspend", "meters": [], "reason": "why"},
        {"step": "suspend", "meters": ["x"], "reason": "why"},
        {"step": "suspend", "meters": [A.hex()], "reason": ""},
        {"step": "suspend", "meters": [A.hex()]},
        {"step": "suspend", "meters": [A.hex()], "reason": "why", "force": True},
    ],
)
async def test_wish_that_cannot_be_is_a_problem_and_changes_nothing(
    door: Door, body: dict[str, object]
) -> None:
    await door.enrol(A)
    response = await door.http.post("/v1/standing", json=body)
    assert response.status_code == 422
    assert (await door.get(f"/v1/meters/{A.hex()}", MeterDocument)).state == "enrolled"


async def test_history_of_a_stranger_is_404(door: Door) -> None:
    assert (await door.http.get(f"/v1/meters/{A.hex()}/history")).status_code == 404


# The terminal


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(make_home(tmp_path_factory.mktemp("home"))) as made:
        yield made.wait_until_ready()


def test_the_whole_life_of_a_meter_by_commands(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = server.home
    file, key = tmp_path / "shipment.cbor", public_key("maker").hex()
    file.write_bytes(SIGNED)

    def do(*arguments: str) -> str:
        capsys.readouterr()
        assert main(command(home, *arguments)) == 0
        return capsys.readouterr().out

    take = ["shipment", "import", str(file), "--manufacturer-key", key]
    assert do(*take, "--dry-run") == "1 would be known from now on, 0 known already\n"
    assert do(*take) == "1 known from now on, 0 known already\n"
    assert do("meters", "enrol", A.hex(), "--reason", "installed") == "1 enrolled\n"
    listed = tmp_path / "list.csv"
    listed.write_text(f"meter,public_key\n{A.hex()},{public_key(A.hex()).hex()}  # here\n")
    assert do("meters", "suspend", "--list", str(listed), "--reason", "test") == "1 suspended\n"
    assert do("meters", "suspend", A.hex(), "--reason", "again") == "0 suspended, 1 before\n"
    assert "suspended" in do("meters").splitlines()[1]
    assert do("meters", "resume", A.hex(), "--reason", "fine") == "1 resumed\n"
    assert do("meters", "rekey", A.hex()) == "0 to agree on new keys, 1 before\n"
    told = json.loads(do("meters", "revoke", A.hex(), "--reason", "stolen", "--json"))
    assert told == {"changed": [A.hex()], "already": 0}
    lines = do("meters", "history", A.hex()).splitlines()
    assert lines[0].split() == ["serial", "A-1"]
    assert [line.split()[1] for line in lines[2:]] == [
        "revoke", "resume", "suspend", "enrol", "import",
    ]  # fmt: skip
    assert all("command line: " in line for line in lines[2:])
    assert json.loads(do("meters", "history", A.hex(), "--json"))["steps"][0]["reason"] == "stolen"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["meters", "suspend", "--reason", "x"], "no meter is named"),
        (["meters", "suspend", "x", "--reason", "x"], "is not a meter"),
        (["meters", "suspend", B.hex(), "--reason", "x"], "not in the registry"),
        (["meters", "suspend", B.hex(), "--reason", " "], "no reason is given"),
        (["meters", "suspend", "--list", "/nowhere/list", "--reason", "x"], "cannot be read"),
        (["meters", "history", B.hex()], "is not enrolled"),
        (["shipment", "import", "/nowhere/file"], "cannot be read"),
        (["shipment", "import", "SIGNED"], "name its manufacturer's key"),
        (["shipment", "import", "SIGNED", "--manufacturer-key", "abc"], "is not a public key"),
        (["shipment", "import", "SIGNED", "--manufacturer-key", "/nowhere/k"], "cannot be read"),
    ],
)
def test_refusal_is_one_line_and_exit_code_1(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    file = tmp_path / "file.cbor"
    file.write_bytes(SIGNED)
    words = [str(file) if word == "SIGNED" else word for word in arguments]
    assert main(command(server.home, *words)) == 1
    assert said in only_line(capsys.readouterr().err)


def test_step_without_a_reason_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["meters", "revoke", A.hex()])
    assert stop.value.code == 2
