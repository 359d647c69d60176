"""Twelve meters and two collectors, each a process on a host of its own, three hops deep.

    head-end --- c1 --- m1  m2 \\       each of m5 to m8 in reach of two of m1 to m4,
             \\-- c2 --- m3  m4 /       each of m9 to m12 in reach of two of m5 to m8

The contract under test: over cables that lose packets the tree forms by itself, every meter
registers and is read over it; a relay that dies in the middle of a read does not cost the read;
a collector that dies costs the street behind it only the time to hang elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from amistack.identifiers import parse_eui64
from amistack.keystore import make_network_key
from headend.api.documents import ReadDocument
from headend.client import AsyncHeadEndClient
from meterd.provision import Template, provision
from tests.scenarios.namespaces import Network, network
from tests.scenarios.processes import Program, script

LOSS = 0.02
AREA = 7
PATIENCE_S = 150.0
READ_DEADLINE_S = 30.0
COLLECTORS = {"c1": "02000000000000c1", "c2": "02000000000000c2"}
METERS = {f"m{number}": f"02000000000000{number:02x}" for number in range(1, 13)}
ABOVE = {
    "m1": ["c1"],
    "m2": ["c1"],
    "m3": ["c2"],
    "m4": ["c2"],
    "m5": ["m1", "m2"],
    "m6": ["m2", "m3"],
    "m7": ["m3", "m4"],
    "m8": ["m4", "m1"],
    "m9": ["m5", "m6"],
    "m10": ["m6", "m7"],
    "m11": ["m7", "m8"],
    "m12": ["m8", "m5"],
}


class MeshStreet:
    """The programs, and what an operator asks of them."""

    def __init__(self, folder: Path, hosts: Network) -> None:
        self.folder = folder
        self.hosts = hosts
        self.programs: dict[str, Program] = {}

    def headend(self, *arguments: str) -> str:
        done = subprocess.run(
            [script("headend"), *arguments, "--config", str(self.folder / "he" / "headend.toml")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"headend {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.headend(*arguments, "--json"))

    def build(self) -> None:
        for host in ("he", *COLLECTORS, *METERS):
            self.hosts.add(host, loss=0.0 if host == "he" else LOSS)
        backhauls = {host: self.hosts.join("he", host)[0] for host in COLLECTORS}
        near: dict[str, list[str]] = {host: [] for host in METERS}
        for host, others in ABOVE.items():
            near[host] = [self.hosts.join(other, host)[0] for other in others]
        key = self._start_head_end()
        self.headend("mesh", "area", str(AREA), "--profile", "lab")
        make_network_key(self.folder / "network-key")
        dodag_id = self.ask("mesh", "status")["areas"][0]["dodag_id"]
        shorts = self._assign(COLLECTORS, "--collector")
        for host, node in COLLECTORS.items():
            table = self._mesh(host, shorts[node], [])
            self._write(
                host,
                "collector.toml",
                f'[collector]\nid = "{node}"\narea = {AREA}\ndodag_id = "{dodag_id}"\n{table}'
                f'[backhaul]\naddress = "{backhauls[host]}:7683"\nplain = true\n',
            )
            self._start(host, "--role", "collector", "--config", "collector.toml")
        eager = ("report_delay_s = 0", "report_spread_s = 0", "catch_up_s = 10")
        template = Template(public_key=key, schedule=eager)
        lines = [
            provision(self.folder / host, template, meter=parse_eui64(node)).line
            for host, node in METERS.items()
        ]
        (self.folder / "meters.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.headend("enrol", str(self.folder / "meters.csv"))
        shorts = self._assign(METERS)
        for host, node in METERS.items():
            file = self.folder / host / "meterd.toml"
            text = file.read_text(encoding="utf-8")
            self._write(host, "meterd.toml", text + self._mesh(host, shorts[node], near[host]))
            self._start(host, "--config", "meterd.toml")

    def _start_head_end(self) -> str:
        folder = self.folder / "he"
        printed = subprocess.run(
            [script("headend"), "init", "--directory", str(folder), "--listen", "127.0.0.1:5683"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        (line,) = (line for line in printed.splitlines() if line.startswith("public_key"))
        file = folder / "headend.toml"
        text = file.read_text(encoding="utf-8")
        listen = '[mesh]\nlisten = "0.0.0.0:7683"\nplain = true\n'
        file.write_text(text.replace("[mesh]\n", listen), encoding="utf-8")
        self.programs["he"] = Program(
            "headend", ("serve",), folder, before=self.hosts.before("he"), called="he"
        )
        self.programs["he"].start()
        wait_for((folder / "headend.sock").exists)
        return line.split('"')[1]

    def _assign(self, nodes: dict[str, str], *options: str) -> dict[str, int]:
        made = self.ask("mesh", "assign", *options, str(AREA), *nodes.values())
        return {one["node"]: one["short"] for one in made["assignments"]}

    def _mesh(self, host: str, short: int, neighbours: list[str]) -> str:
        listed = ", ".join(f'"{address}"' for address in neighbours)
        (self.folder / host).mkdir(exist_ok=True)
        key = self.folder / host / "network-key"
        key.write_bytes((self.folder / "network-key").read_bytes())
        key.chmod(0o600)
        return f'\n[mesh]\nshort = {short}\nprofile = "lab"\nneighbours = [{listed}]\n'

    def _write(self, host: str, name: str, text: str) -> None:
        (self.folder / host / name).write_text(text, encoding="utf-8")

    def _start(self, host: str, *arguments: str) -> None:
        self.programs[host] = Program(
            "meterd",
            ("run", *arguments),
            self.folder / host,
            before=self.hosts.before(host),
            called=host,
        )
        self.programs[host].start()

    def registered(self) -> int:
        return asyncio.run(self._registered())

    def relays_of(self, host: str) -> list[str]:
        """The hosts on the best way to a meter, from the collector on, itself included."""
        ways = self.ask("path", METERS[host])["ways"]
        return [named(hop["node"]) for hop in ways[0]["hops"]] if ways else []

    def hops(self, host: str) -> int:
        """How many hops away a meter answers a ping from; 0 if it does not."""
        ping = self.ask("ping", METERS[host])
        return int(ping["hops"]) if ping["outcome"] == "answered" else 0

    def read(self, *hosts: str) -> list[ReadDocument]:
        """What became of an on-demand read of each."""
        return asyncio.run(self._read(hosts))

    async def _registered(self) -> int:
        async with AsyncHeadEndClient(self._socket) as client:
            return (await client.status()).counts.registered

    async def _read(self, hosts: Sequence[str]) -> list[ReadDocument]:
        async with AsyncHeadEndClient(self._socket) as client:
            reads = (
                client.read(parse_eui64(METERS[host]), deadline_s=READ_DEADLINE_S) for host in hosts
            )
            return await asyncio.gather(*reads)

    @property
    def _socket(self) -> Path:
        return self.folder / "he" / "headend.sock"


def named(node: str) -> str:
    return next(host for host, one in (COLLECTORS | METERS).items() if one == node)


def wait_for(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.5)


@pytest.fixture
def street(tmp_path: Path) -> Iterator[MeshStreet]:
    with network() as hosts:
        made = MeshStreet(tmp_path, hosts)
        try:
            yield made
        finally:
            for program in made.programs.values():
                program.end()


@pytest.mark.timeout(420)
def test_a_street_in_namespaces_forms_is_read_and_survives_its_relays(street: MeshStreet) -> None:
    street.build()
    wait_for(lambda: street.registered() == len(METERS))
    assert max(street.hops(host) for host in ("m9", "m10", "m11", "m12")) >= 3
    answers = street.read(*METERS)
    assert {answer.result for answer in answers} == {"answered"}
    assert all(f"mesh:{AREA}:" in (answer.path or "") for answer in answers)

    # A relay dies in the middle of a read: the request lies in its socket when it is killed.
    relay = street.relays_of("m9")[1]
    assert relay in ("m5", "m6")
    street.programs[relay].freeze()
    killing = threading.Timer(0.7, street.programs[relay].kill)
    killing.start()
    (answer,) = street.read("m9")
    killing.join()
    assert answer.result == "answered"
    assert not street.programs[relay].is_running
    left = [host for host in METERS if host != relay]
    assert {answer.result for answer in street.read(*left)} == {"answered"}

    # A collector dies: who is left is read over the other one.
    street.programs["c1"].kill()
    waiting = set(left)

    def is_all_read_over_the_other() -> bool:
        hosts = sorted(waiting)
        for host, answer in zip(hosts, street.read(*hosts), strict=True):
            if answer.result == "answered" and (answer.path or "").endswith(COLLECTORS["c2"]):
                waiting.discard(host)
        return not waiting

    wait_for(is_all_read_over_the_other)
    for name, program in street.programs.items():
        if program.is_running and name != "he":
            program.stop()
    street.programs["he"].stop()
