"""A collector and a head-end that know each other by their keys.

The contract under test: over TLS the collector joins with the key that was assigned with its
certificate; with another pin, or another key of its own, it does not, and the log says why.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from amistack.keystore import make_network_key
from amistack.links.tcp import key_hash_of
from tests.scenarios.processes import Program, free_port, script

COLLECTOR = "02000000000000c1"
PATIENCE_S = 60.0


def certificate(folder: Path, name: str) -> bytes:
    """A self-signed certificate with its key, in files; the hash of its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}-key.pem").write_bytes(pem)
    return key_hash_of(made.public_bytes(Encoding.DER))


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.2)


def reasons_of(collector: Program) -> list[str]:
    """Why it has no connection, each time that it had none."""
    return [str(line["reason"]) for line in collector.events("no connection to the head-end")]


class Pair:
    """A head-end under TLS, and a collector that can be started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_tcp_port()
        self.pin = certificate(folder, "head-end")
        certificate(folder, "collector")
        certificate(folder, "other")
        self.headend("init", "--directory", str(folder), "--listen", f"127.0.0.1:{free_port()}")
        file = folder / "headend.toml"
        text = file.read_text(encoding="utf-8")
        mesh = (
            f'[mesh]\nlisten = "127.0.0.1:{self.port}"\n'
            'certificate = "head-end.pem"\nkey = "head-end-key.pem"\n'
        )
        file.write_text(text.replace("[mesh]\n", mesh), encoding="utf-8")
        self.program = Program("headend", ("serve",), folder, called="head-end")
        self.program.start()
        wait_for((folder / "headend.sock").exists)
        self.headend("mesh", "area", "7", "--profile", "lab")
        make_network_key(folder / "network-key")
        self.headend(
            "mesh", "assign", "--collector", "--certificate", "collector.pem", "7", COLLECTOR
        )
        self.collector: Program | None = None

    def headend(self, *arguments: str) -> str:
        done = subprocess.run(
            [script("headend"), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> Any:
        return json.loads(self.headend("mesh", "status", "--json"))["areas"][0]

    def start_collector(self, *, pin: bytes, name: str = "collector") -> Program:
        if self.collector is not None:
            self.collector.stop()
        (self.folder / "collector.toml").write_text(
            f'[collector]\nid = "{COLLECTOR}"\narea = 7\ndodag_id = "{self.status()["dodag_id"]}"\n'
            '[mesh]\nshort = 1\nprofile = "lab"\nlisten = "127.0.0.1:0"\n'
            f'[backhaul]\naddress = "127.0.0.1:{self.port}"\npin = "{pin.hex()}"\n'
            f'certificate = "{name}.pem"\nkey = "{name}-key.pem"\n',
            encoding="utf-8",
        )
        command = ("run", "--role", "collector", "--config", "collector.toml")
        self.collector = Program("meterd", command, self.folder, called="collector")
        self.collector.start()
        return self.collector

    def has_joined(self) -> bool:
        return self.status()["collectors"][0]["joined_s"] is not None


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    try:
        yield made
    finally:
        for program in (made.collector, made.program):
            if program is not None:
                program.end()


@pytest.mark.timeout(240)
def test_each_side_is_known_by_its_key_and_by_nothing_else(pair: Pair) -> None:
    stranger = pair.start_collector(pin=bytes(32))
    wait_for(lambda: bool(reasons_of(stranger)))
    assert "pin" in reasons_of(stranger)[0]
    assert not pair.has_joined()

    impostor = pair.start_collector(pin=pair.pin, name="other")
    wait_for(lambda: bool(reasons_of(impostor)))
    assert not pair.has_joined()

    pair.start_collector(pin=pair.pin)
    wait_for(pair.has_joined)
