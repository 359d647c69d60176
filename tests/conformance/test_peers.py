"""What starts foreign programs, where they are not as they should be.

The contract under test: what is missing is said with the line that installs it; npm's failure is
one line; what a program does not do becomes PeerError, not a hang.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from amistack.coap.codes import Code
from interop.conformance import live_edhoc, live_lakers
from interop.peers import aiocoap_plain, libcoap, node_coap
from interop.peers.exchange import Ask
from interop.peers.party import LOOPBACK, OurClient, PeerError, open_party

HELLO = Ask(Code.GET, "hello")


def test_programs_that_are_not_installed_are_said_with_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert (libcoap.missing() or "").endswith("apt-get install -y libcoap3-bin")
    assert (node_coap.missing() or "").endswith("apt-get install -y nodejs npm")
    assert libcoap.version() == "libcoap"


def test_libraries_that_are_not_installed_are_said_with_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (aiocoap_plain.missing() or "").endswith("pip install 'aiocoap[oscore]'")
    assert (live_lakers.missing() or "").endswith("pip install lakers-python")
    assert live_edhoc.missing() == aiocoap_plain.missing()


def test_a_newer_name_of_a_program_is_found_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shutil, "which", lambda name: f"/bin/{name}" if name == "coap-client-openssl" else None
    )
    assert libcoap.find(libcoap.CLIENTS) == "/bin/coap-client-openssl"
    assert libcoap.find(libcoap.SERVERS) is None


def npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: object) -> list[list[str]]:
    """An npm that does as it is told, and what it was called with."""
    calls = []

    def run(line: list[str], *, cwd: Path, timeout: float, **_: object) -> object:
        calls.append(line)
        assert (cwd / "package.json").exists()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(node_coap, "CACHE", tmp_path / "peers")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_npm_installs_once_and_runs_no_script_of_a_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = npm(monkeypatch, tmp_path, subprocess.CompletedProcess([], 0, "", ""))
    assert node_coap.missing() is None
    folder = node_coap.installed()
    assert sorted(path.name for path in folder.iterdir()) == sorted(node_coap.FILES)
    assert len(calls) == 1
    assert "--ignore-scripts" in calls[0]
    assert [path.name for path in (tmp_path / "peers").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (
            subprocess.CompletedProcess([], 1, "", "npm error code ENOTFOUND\nnpm error more"),
            "npm could not install node coap 1.5.0: npm error code ENOTFOUND",
        ),
        (subprocess.CompletedProcess([], 1, "", ""), "no word from npm"),
        (subprocess.TimeoutExpired("npm", 120), "npm did not install node coap 1.5.0 in 120 s"),
    ],
    ids=["error", "silence", "timeout"],
)
def test_failure_of_npm_is_one_line_and_leaves_nothing(
    outcome: object, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    npm(monkeypatch, tmp_path, outcome)
    told = node_coap.missing() or ""
    assert why in told
    assert "\n" not in told
    assert list((tmp_path / "peers").iterdir()) == []


def test_every_package_of_the_node_peer_is_pinned_to_one_version() -> None:
    import json

    package = json.loads((node_coap.SOURCES / "package.json").read_text(encoding="utf-8"))
    pins = {**package["dependencies"], **package["overrides"]}
    assert len(pins) > 20
    assert all(version.replace(".", "").isdigit() for version in pins.values())


async def test_a_server_that_does_not_start_is_a_peer_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libcoap, "SERVERS", ("false",))
    with pytest.raises(PeerError, match="did not start"):
        async with libcoap.open_server():
            pytest.fail("it was said to be there")


async def test_a_client_without_a_response_is_a_peer_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libcoap, "CLIENTS", ("true",))
    client = libcoap.LibcoapClient(f"coap://{LOOPBACK}:1")
    with pytest.raises(PeerError, match="no response"):
        await client.ask(HELLO)


async def test_a_request_that_is_reset_is_a_peer_error() -> None:
    async with open_party() as party, open_party() as other:
        client = OurClient(party, (LOOPBACK, other.port))
        other.endpoint.receive_datagram = (  # type: ignore[method-assign]
            lambda data, peer, *, now: party.endpoint.receive_datagram(
                b"\x70\x00" + data[2:4], (LOOPBACK, other.port), now=party.link.now()
            )
        )
        with pytest.raises(PeerError, match="reset"):
            await client.ask(HELLO)


async def test_two_parties_of_ours_do_everything_that_strangers_are_asked_for() -> None:
    """Guards the live suites: their exchanges can be had, and each answer is checked."""
    from interop.conformance.live_plain import EVERYTHING

    async with open_party() as server, open_party() as party:
        client = OurClient(party, (LOOPBACK, server.port))
        for exchange in EVERYTHING:
            assert exchange.judged(await client.ask(exchange.ask)) == exchange.expected
        heard = await client.observe(Ask(Code.GET, "counter"), 3)
        assert [answer.payload for answer in heard[:3]] == [b"0", b"1", b"2"]
        await server.observed.is_over.wait()
