"""The commands, and the life of the server that they talk to.

The contract under test: whatever an operator can mend is one line on standard error that says how,
and a code that is not 0; never a traceback. The server stops cleanly on SIGTERM, and starts again
where it was, also after it was killed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amistack.session.fleet import parse_public_key
from headend.api.documents import (
    ChannelDayDocument,
    ProblemDocument,
    QualityDocument,
    ReadingsDocument,
)
from headend.cli import show
from headend.cli.main import main
from headend.client import ApiError, AsyncHeadEndClient, HeadEndClient, read_document
from tests.support.headend import meter_id, public_key

METER = meter_id(1).hex()
PATIENCE_S = 30.0

# httpcore's synchronous backend leaves a Unix socket open on which nobody answered; it is found
# whenever it is collected, so any test here may be the one that hears of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_home(folder: Path) -> Path:
    """A folder with a head-end's identity and settings: any free port."""
    assert main(["init", "--directory", str(folder), "--listen", "127.0.0.1:0"]) == 0
    return folder


class Server:
    """`headend serve` as a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headend.cli.main", "serve", "--config",
             str(home / "headend.toml")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.ready = ""

    def wait_until_ready(self) -> Server:
        assert self.process.stdout is not None
        guard = threading.Timer(PATIENCE_S, self.process.kill)
        guard.start()
        self.ready = self.process.stdout.readline()
        guard.cancel()
        assert self.ready.startswith("headend is ready on udp 127.0.0.1:"), self.ready
        return self

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and standard error after a signal."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors

    def client(self) -> HeadEndClient:
        return HeadEndClient(self.home / "headend.sock")


@contextlib.contextmanager
def served(home: Path) -> Iterator[Server]:
    server = Server(home)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def command(home: Path, *arguments: str) -> list[str]:
    return [*arguments, "--config", str(home / "headend.toml")]


def enrolment_file(folder: Path, *numbers: int) -> Path:
    file = folder / "devices.csv"
    lines = [f"{meter_id(n).hex()},{public_key(str(n)).hex()}" for n in numbers]
    file.write_text("\n".join(["meter,public_key", *lines]) + "\n")
    return file


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("headend: ")
    return line


# init


def test_init_makes_an_identity_and_says_what_meters_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "new"
    arguments = ["init", "--directory", str(home), "--advertise", "ami.example:5683"]
    assert main(arguments) == 0
    said = tomllib.loads(capsys.readouterr().out)
    assert said["headend"]["address"] == "ami.example:5683"
    parse_public_key(said["headend"]["public_key"])
    assert stat.S_IMODE((home / "headend-key.pem").stat().st_mode) == 0o600
    assert tomllib.loads((home / "headend.toml").read_text())["server"] == {}

    before = {file.name: file.read_bytes() for file in home.iterdir()}
    assert main(arguments) == 0
    assert tomllib.loads(capsys.readouterr().out) == said
    assert {file.name: file.read_bytes() for file in home.iterdir()} == before


def test_init_will_not_change_what_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_home(tmp_path)
    capsys.readouterr()
    assert main(["init", "--directory", str(tmp_path), "--listen", "0.0.0.0:1"]) == 1
    assert "change it there" in only_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "nowhere"], "--listen is 'nowhere', expected an address and a port"),
        (["--advertise", "a:b"], "--advertise is 'a:b'"),
    ],
)
def test_init_with_a_wrong_address_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    home = tmp_path / "new"
    assert main(["init", "--directory", str(home), *arguments]) == 1
    assert said in only_line(capsys.readouterr().err)
    assert not home.exists()


# What serve refuses


def typo(home: Path) -> None:
    (home / "headend.toml").write_text("[server]\nlissen = 'x'\n")


def no_key(home: Path) -> None:
    (home / "headend-key.pem").unlink()


def open_key(home: Path) -> None:
    (home / "headend-key.pem").chmod(0o644)


def no_key_at_all(home: Path) -> None:
    (home / "headend-key.pem").write_text("not a key")


def corrupt_store(home: Path) -> None:
    (home / "headend.sqlite").write_bytes(b"rubbish " * 2_000)


def newer_store(home: Path) -> None:
    from headend.store.sqlite.schema import connect

    connect(home / "headend.sqlite").close()
    made = sqlite3.connect(home / "headend.sqlite")
    made.execute("PRAGMA user_version = 99")
    made.close()


def no_folder(home: Path) -> None:
    with (home / "headend.toml").open("a") as file:
        file.write('[store]\npath = "nowhere/headend.sqlite"\n')
    text = (home / "headend.toml").read_text().replace("[store]\n# Where", "# Where")
    (home / "headend.toml").write_text(text)


def file_for_a_socket(home: Path) -> None:
    (home / "headend.sock").write_text("precious")


def foreign_address(home: Path) -> None:
    text = (home / "headend.toml").read_text().replace("127.0.0.1:0", "192.0.2.1:5683")
    (home / "headend.toml").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (typo, "server.lissen is not a setting; did you mean 'listen'?"),
        (no_key, "run `headend init`"),
        (open_key, "chmod 600"),
        (no_key_at_all, "is not a private key in PEM"),
        (corrupt_store, "restore it from a backup"),
        (newer_store, "newer head-end (schema 99"),
        (no_folder, "check that its folder exists"),
        (file_for_a_socket, "is no socket; name another file"),
        (foreign_address, "no such address"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_serve_refuses_in_one_line_what_the_operator_can_mend(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    home = make_home(tmp_path / "home")
    spoil(home)
    with served(home) as server:
        out, errors = server.process.communicate(timeout=PATIENCE_S)
    assert server.process.returncode == 1
    assert said in only_line(errors)
    assert out == ""
    assert not (home / "headend.sock").is_socket()


def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        text = (home / "headend.toml").read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}")
        (home / "headend.toml").write_text(text)
        with served(home) as server:
            _, errors = server.process.communicate(timeout=PATIENCE_S)
    assert server.process.returncode == 1
    assert f"port {port} is in use: stop the program that holds it" in only_line(errors)


# What the commands refuse without a server


def bad_list(folder: Path) -> str:
    file = folder / "bad.csv"
    file.write_text("meter,public_key\nx,y\n")
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status"], "no head-end answers at {home}/headend.sock: start it with `headend serve`"),
        (["meters"], "start it with `headend serve`"),
        (["read", METER], "start it with `headend serve`"),
        (["read", "99"], "'99' is not a meter: expected an EUI-64 as 16 hex digits"),
        (["readings", METER, "--from", "2026-11-20"], "start it with `headend serve`"),
        (["enrol", "{home}/absent"], "{home}/absent cannot be read: No such file"),
        (["enrol", "{home}/bad.csv"], "{home}/bad.csv: nothing was enrolled: line 2: 'x' is not"),
        (["enrol", "{home}/headend-key.pem"], "nothing was enrolled: line 1: "),
        (["enrol", "{home}"], "cannot be read: Is a directory"),
    ],
)
def test_command_that_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    home = make_home(tmp_path / "home")
    bad_list(home)
    capsys.readouterr()
    filled = [argument.format(home=home) for argument in arguments]
    assert main(command(home, *filled)) == 1
    captured = capsys.readouterr()
    assert said.format(home=home) in only_line(captured.err)
    assert captured.out == ""


def test_stale_socket_is_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    assert main(["status", "--socket", str(path)]) == 1
    assert "start it with `headend serve`" in only_line(capsys.readouterr().err)


def test_someone_else_on_the_socket_is_told_from_a_head_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        assert main(["status", "--socket", str(path)]) == 1
        thread.join()
    assert "is not JSON: is this a head-end?" in only_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["readings", METER],
        ["read"],
        *(["read", METER, "--deadline", text] for text in ("0", "601", "nan", "soon")),
    ],
)
def test_wrong_command_line_is_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert re.fullmatch(r"headend \d+\.\d+\.\d+\n", capsys.readouterr().out)


# The server's life


def test_server_stops_on_sigterm_and_starts_again_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(tmp_path / "home")
    capsys.readouterr()
    with served(home) as server:
        server.wait_until_ready()
        assert stat.S_IMODE((home / "headend.sock").stat().st_mode) == 0o600
        assert main(command(home, "meters")) == 0
        assert "no meters are enrolled" in capsys.readouterr().out
        file = str(enrolment_file(tmp_path, 1, 2))
        assert main(command(home, "enrol", file)) == 0
        assert capsys.readouterr().out == "2 enrolled, 0 known already\n"
        assert main(command(home, "read", METER, "--deadline", "2")) == 3
        assert "unreachable: the meter has not been heard yet" in capsys.readouterr().out
        code, errors = server.end()
        assert code == 0
        assert [json.loads(line)["event"] for line in errors.splitlines()] == [
            "started", "stopping", "stopped",
        ]  # fmt: skip
        assert not (home / "headend.sock").exists()

    with served(home) as server:
        server.wait_until_ready()
        assert main(command(home, "meters", "--json")) == 0
        listed = json.loads(capsys.readouterr().out)
        assert [meter["meter"] for meter in listed] == [METER, meter_id(2).hex()]
        assert main(command(home, "status")) == 0
        shown = capsys.readouterr().out
        assert re.search(r"meters enrolled +2\n", shown)
        assert re.search(r"on-demand reads +1, 0 answered\n", shown)
        assert re.search(r"store queue +\d+ of 16384\n", shown)
        assert main(command(home, "status", "--json")) == 0
        assert json.loads(capsys.readouterr().out)["counts"]["meters"] == 2
        assert main(command(home, "read", meter_id(9).hex())) == 1
        assert "is not enrolled" in only_line(capsys.readouterr().err)
        assert main(command(home, "readings", METER, "--from", "yesterday")) == 1
        assert "'yesterday' is not a day" in only_line(capsys.readouterr().err)
        file = tmp_path / "other.csv"
        file.write_text(f"{METER},{public_key('another').hex()}\n")
        assert main(command(home, "enrol", str(file))) == 1
        assert "known with another public key" in only_line(capsys.readouterr().err)

        # A second one on the same store, while the first goes on.
        with served(home) as second:
            _, errors = second.process.communicate(timeout=PATIENCE_S)
        assert second.process.returncode == 1
        assert f"in use by another head-end (process {server.process.pid})" in only_line(errors)
        assert main(command(home, "status")) == 0
        code, _ = server.end(signal.SIGINT)
        assert code == 0


def test_killed_server_starts_again_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(tmp_path / "home")
    with served(home) as server:
        server.wait_until_ready()
        assert main(command(home, "enrol", str(enrolment_file(tmp_path, 1)))) == 0
        server.end(signal.SIGKILL)
    assert (home / "headend.sock").exists(), "left behind"
    with served(home) as server:
        server.wait_until_ready()
        with server.client() as client:
            assert [meter.meter for meter in client.meters()] == [METER]
        assert server.end()[0] == 0


def test_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with served(home) as server:
        server.wait_until_ready()
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "headend.cli.main", *command(home, "status")],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, "")
        server.end()


async def test_programs_use_the_same_client_with_an_event_loop(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with served(home) as server:
        server.wait_until_ready()
        async with AsyncHeadEndClient(home / "headend.sock") as client:
            enrolled = await client.enrol([(METER, public_key("1").hex())])
            assert enrolled.new == 1
            assert [meter.meter async for meter in client.meters()] == [METER]
            assert (await client.meter(meter_id(1))).meter == METER
            assert (await client.read(meter_id(1), deadline_s=1)).result == "unreachable"
            assert len((await client.reads(meter_id(1))).reads) == 1
            assert (await client.readings(meter_id(1), "2026-11-19", "2026-11-20")).readings == ()
            assert (await client.readings_of_day("2026-11-19")).readings == ()
            assert (await client.log(meter_id(1))).entries == ()
            assert (await client.status()).counts.meters == 1
            with pytest.raises(ApiError, match="is not enrolled") as refusal:
                await client.meter(meter_id(9))
            assert refusal.value.problem is not None
            assert refusal.value.problem.type == "/problems/unknown-meter"
        server.end()
        async with AsyncHeadEndClient(home / "headend.sock") as client:
            with pytest.raises(ApiError, match="start it with `headend serve`"):
                await client.status()


def test_commands_start_quickly() -> None:
    """A command needs neither the server's framework nor its validation."""
    code = (
        "import sys; import headend.client, headend.cli.main, headend.cli.show; "
        "sys.exit(int(bool({'fastapi', 'uvicorn', 'pydantic', 'uvloop'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is printed of readings


def day(unit: str = "Wh") -> ChannelDayDocument:
    return ChannelDayDocument(
        METER, "2026-03-29", 60, "2026-03-28T23:00:00Z", 1,
        "0.0.7.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0", "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0", unit,
        21_600, (100, None, 0.5, 3), (QualityDocument(1, 2, ("missing", "power off")),),
        1_000, 2_500, 1_500, ("clock doubtful",), "schedule", "udp:192.0.2.7:5683",
        "2026-03-30T00:10:00Z",
    )  # fmt: skip


def test_csv_has_a_line_for_every_interval() -> None:
    text, other_count = show.readings_csv([day(), day("varh")])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert other_count == 4, "what is not in Wh is counted, never shown as Wh"
    assert [(row["start_utc"], row["value_wh"], row["quality"]) for row in rows] == [
        ("2026-03-28T23:00:00Z", "100", ""),
        ("2026-03-29T05:00:00Z", "", "missing; power off"),
        ("2026-03-29T11:00:00Z", "0.5", "missing; power off"),
        ("2026-03-29T17:00:00Z", "3", ""),
    ]
    # The 29th of March 2026 has 23 hours in Berlin, but 24 in the meter's standard time.
    assert [row["start_local"] for row in rows] == [
        f"2026-03-29T{hour}:00:00+01:00" for hour in ("00", "06", "12", "18")
    ]
    assert {(row["duration_s"], row["channel"]) for row in rows} == {("21600", "1")}


def test_table_says_sum_registers_gaps_and_provenance() -> None:
    lines = show.readings_table([day()]).splitlines()
    assert lines[0] == (
        "2026-03-29  channel 1 delivered  1.500 kWh (1000 to 2500 Wh), 1 missing; schedule over "
        "udp:192.0.2.7:5683, received 2026-03-30T00:10:00Z; clock doubtful"
    )
    assert lines[2].split() == ["2026-03-29T06:00:00+01:00", "-", "Wh", "missing;", "power", "off"]
    assert show.readings_table([]) == "nothing is stored of those days"


def test_document_written_is_the_document_read() -> None:
    made = ReadingsDocument((day(),))
    tree = json.loads(show.as_json(made))
    tree["to come"] = {"unknown": 1}
    assert read_document(ReadingsDocument, tree) == made


@pytest.mark.parametrize(
    "tree", [None, [], {}, {"readings": 3}, {"readings": "x"}, {"readings": [{}]}, "text"]
)
def test_document_that_is_none_is_refused(tree: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_document(ReadingsDocument, tree)


def test_problem_without_places_is_read() -> None:
    tree = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "x"}
    assert read_document(ProblemDocument, tree).errors == ()
