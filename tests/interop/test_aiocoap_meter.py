"""A meter that was written from docs/protocol alone, against a real head-end.

The contract under test: with nothing of ours in it, it enrols, opens a session, registers and
reports, and what the head-end then shows is what it measured, to the unit. Whatever goes wrong is
one line and exit code 1, and is no verdict about a report.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.model import DailyReport, Registration
from amistack.model import pack as our_pack
from headend.cli.main import main as headend

pytest.importorskip("aiocoap", reason="aiocoap is not installed: 32-bit ARM cannot have it")
pytest.importorskip("lakers", reason="lakers is not installed: 32-bit ARM cannot have it")
from interop.peers import aiocoap_meter as stranger

ROOT = Path(__file__).parents[2]
METER = "70b3d5fffe000017"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """A served head-end, and a meter's key that is enrolled there."""

    address: str
    public_key: str
    settings: Path
    key: Path


def meter(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "interop.peers.aiocoap_meter", *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT,
    )  # fmt: skip


def report(site: Site, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    said = {"head_end": site.address, "public_key": site.public_key, "meter": METER,
            "key": str(site.key)} | changed  # fmt: skip
    options = [word for key, it in said.items() for word in (f"--{key.replace('_', '-')}", it)]
    return meter(*options, *arguments)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("aiocoap_meter: ")
    return line


def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("head-end")
    settings, key = home / "headend.toml", home / "meter-key.pem"
    said = subprocess.run(
        [sys.executable, "-m", "headend.cli.main", "init", "--directory", str(home),
         "--listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    ).stdout  # fmt: skip
    public_key = re.search(r'public_key = "([0-9a-f]{66})"', said)
    assert public_key is not None
    process = subprocess.Popen(
        [sys.executable, "-m", "headend.cli.main", "serve", "--config", str(settings)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with process:
        guard = threading.Timer(PATIENCE_S, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            ready = re.search(r"on udp (\S+),", process.stdout.readline())
            assert ready is not None
            guard.cancel()
            made = meter("--meter", METER, "--make-key", str(key))
            assert made.returncode == 0, made.stderr
            (home / "meters.csv").write_text(made.stdout)
            assert headend(["enrol", str(home / "meters.csv"), "--config", str(settings)]) == 0
            yield Site(ready[1], public_key[1], settings, key)
        finally:
            guard.cancel()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            process.kill()


def stored(
    site: Site, capsys: pytest.CaptureFixture[str], *, since: date, until: date
) -> dict[date, dict[str, object]]:
    """What `headend readings --json` shows, by day."""
    capsys.readouterr()
    options = ["--from", str(since), "--to", str(until), "--json", "--config", str(site.settings)]
    assert headend(["readings", METER, *options]) == 0
    readings = json.loads(capsys.readouterr().out)["readings"]
    assert len(readings) == len({one["day"] for one in readings}), "a channel's day, once each"
    return {date.fromisoformat(one["day"]): one for one in readings}


def test_head_end_stores_what_a_stranger_measured(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    day = yesterday()
    first = report(site, "--day", str(day))
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == [
        "registered: model version 1",
        f"reported: {day}, 96 values, {sum(stranger.HOUSEHOLD_WH)} Wh",
        "verdict: all accepted",
    ]
    before = stored(site, capsys, since=day, until=day)
    # The same again, after another handshake, changes nothing; another day comes beside it.
    earlier = day - timedelta(days=1)
    for again in (day, earlier):
        done = report(site, "--day", str(again))
        assert done.stdout.splitlines()[-1] == "verdict: all accepted", done.stderr
    after = stored(site, capsys, since=earlier, until=day)
    assert after[day] == before[day]
    assert sorted(after) == [earlier, day]
    for one, shown in after.items():
        number = (one - date(1970, 1, 1)).days
        values = stranger.energies(number)
        assert len(set(values)) > 10, "a day that says nothing proves nothing"
        assert shown["values"] == values
        assert shown["qualities"] == shown["flags"] == []
        assert (shown["unit"], shown["interval_s"], shown["standard_offset_min"]) == ("Wh", 900, 0)
        opening, closing = (stranger.register_at_midnight(number + more) for more in (0, 1))
        assert (shown["opening"], shown["closing"]) == (opening, closing)
    assert after[earlier]["values"] != after[day]["values"]


def test_verdict_of_the_head_end_is_shown(site: Site) -> None:
    done = report(site, "--day", "2001-02-03")
    assert done.returncode == 0, done.stderr
    number = (date(2001, 2, 3) - date(1970, 1, 1)).days
    shown = f"verdict: report 0 quarantined: 'day {number} is out of range'"
    assert done.stdout.splitlines()[-1] == shown


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param(
            {"public_key": "028e533b6fa0bf7b4625bb30667c01fb607ef9f8b8a80fef5b300628703187b2a3"},
            r"no session: head-end 22eea24e was asked, a10444[0-9a-f]{8} answers",
            id="another head-end",
        ),
        pytest.param(
            {"meter": "70b3d5fffe000018"},
            r".*/reg: 4\.00 Bad Request, EDHOC error 1: 'unknown credential', unprotected",
            id="not enrolled",
        ),
    ],
)
def test_who_does_not_know_the_other_is_told_in_one_line(
    site: Site, changed: dict[str, str], why: str
) -> None:
    assert re.fullmatch(f"aiocoap_meter: {why}", only_line(report(site, **changed)))


def test_enrolled_meter_with_another_key_is_not_believed(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    assert meter("--meter", METER, "--make-key", str(other)).returncode == 0
    assert "'not authentic'" in only_line(report(site, key=str(other)))


def test_key_is_never_overwritten_and_is_its_owners_only(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    made = meter("--meter", METER, "--make-key", str(file))
    assert re.fullmatch(rf"{METER},0[23][0-9a-f]{{64}}\n", made.stdout)
    assert file.stat().st_mode & 0o777 == 0o600
    octets = file.read_bytes()
    assert "File exists" in only_line(meter("--meter", METER, "--make-key", str(file)))
    assert file.read_bytes() == octets


def test_loaded_head_end_gets_the_same_message_1_with_its_challenge_three_times(
    site: Site,
) -> None:
    """A head-end that only ever challenges, as identity.md has it: the meter gives up by itself."""
    heard: list[Message] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as post:
        post.bind(("127.0.0.1", 0))
        post.settimeout(PATIENCE_S)

        def challenge() -> None:
            for number in range(4):
                octets, peer = post.recvfrom(4096)
                asked = Message.decode(octets)
                heard.append(asked)
                echo = Option(OptionNumber.ECHO, bytes([number]) * 8)
                answer = Message.response(Code.UNAUTHORIZED, options=(echo,)).addressed(
                    type=Type.ACK, message_id=asked.message_id, token=asked.token
                )
                post.sendto(answer.encode(), peer)

        thread = threading.Thread(target=challenge)
        thread.start()
        host, port = post.getsockname()
        line = only_line(report(site, head_end=f"{host}:{port}"))
        thread.join(PATIENCE_S)
    assert "no session: 4.01" in line
    assert len({asked.payload for asked in heard}) == 1
    echoes = [asked.option(OptionNumber.ECHO) for asked in heard]
    assert echoes == [None, *(bytes([number]) * 8 for number in range(3))]


def test_credentials_are_those_of_the_page() -> None:
    page = (ROOT / "docs/protocol/identity.md").read_text()
    point = re.search(r"^ {4}(0[23][0-9a-f]{64})$", page, re.MULTILINE)
    shown = re.findall(r"^ {4}(a202[0-9a-f]+(?:\n {4}[0-9a-f]+)+)", page, re.MULTILINE)
    assert point is not None
    key = stranger.public_key(point[1])
    kid = stranger.kid_of_head_end(key)
    eui = bytes.fromhex(METER)
    made = [
        stranger.credential(METER, eui, key),
        stranger.credential(f"head-end {kid.hex()}", kid, key),
    ]
    assert made == [bytes.fromhex("".join(one.split())) for one in shown]


series = st.lists(st.integers(-(2**53) + 1, 2**53 - 1) | st.integers(0, 900), min_size=1)


@given(series)
def test_series_is_packed_as_we_do(values: list[int]) -> None:
    assert stranger.pack(values) == our_pack(values)


@given(st.integers(0, 49_709))
def test_payloads_are_of_the_model_to_the_letter(day: int) -> None:
    said = DailyReport.decode(stranger.daily_report(day))
    (block,) = said.blocks
    assert (said.day, block.values()) == (day, tuple(stranger.energies(day)))
    assert block.opening + block.advance == stranger.register_at_midnight(day + 1)
    (channel,) = Registration.decode(stranger.registration(bytes.fromhex(METER))).channels
    assert (channel.number, channel.interval_s) == (block.channel, block.interval_s)


def test_it_has_nothing_of_ours_and_stays_short() -> None:
    text = Path(stranger.__file__).read_text()
    assert text.count("\n") < 300
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert "aiocoap" in names
    assert not names & {"amistack", "headend", "meterd", "mesh", "interop", "tests", ""}
