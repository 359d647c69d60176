"""Hosts of a test in network namespaces of its own, joined by cables that lose packets.

Each cable is a pair of virtual Ethernet ends with a subnet of two addresses. Losses are dice of
the kernel's (iptables, `statistic`). Everything is gone with the test.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.debian import needs

CABLE_MAX = 250


class Network:
    """Namespaces by host name, and the cables between them."""

    def __init__(self) -> None:
        self._ip = needs("ip", "iproute2")
        self._iptables = needs("iptables", "iptables")
        if os.geteuid() != 0:
            if os.environ.get("CI") == "true":
                pytest.fail("network namespaces need root")
            pytest.skip("network namespaces need root: run the tests as root for this one")
        self._mark = f"am{os.getpid() % 100_000}"
        self._hosts: list[str] = []
        self._cables = 0

    def add(self, host: str, *, loss: float = 0.0) -> None:
        """A host; of what arrives there a share of `loss` does not."""
        self._run(self._ip, "netns", "add", self.namespace(host))
        self._hosts.append(host)
        self.within(host, self._ip, "link", "set", "lo", "up")
        if loss:
            self.within(
                host,
                *(self._iptables, "-A", "INPUT", "-p", "udp", "-m", "statistic"),
                *("--mode", "random", "--probability", str(loss), "-j", "DROP"),
            )

    def join(self, one: str, other: str) -> tuple[str, str]:
        """A cable between two hosts; the address of each end."""
        self._cables += 1
        assert self._cables <= CABLE_MAX
        ends = [f"{self._mark}{self._cables}{side}" for side in "ab"]
        addresses = [f"10.77.{self._cables}.{number}" for number in (1, 2)]
        self._run(self._ip, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for host, end, address in zip((one, other), ends, addresses, strict=True):
            self._run(self._ip, "link", "set", end, "netns", self.namespace(host))
            self.within(host, self._ip, "addr", "add", f"{address}/30", "dev", end)
            self.within(host, self._ip, "link", "set", end, "up")
        return addresses[0], addresses[1]

    def namespace(self, host: str) -> str:
        """What the kernel knows a host as."""
        return f"{self._mark}-{host}"

    def before(self, host: str) -> tuple[str, ...]:
        """What a command begins with to run on a host."""
        return (self._ip, "netns", "exec", self.namespace(host))

    def within(self, host: str, *command: str) -> None:
        """Run a command on a host."""
        self._run(*self.before(host), *command)

    def close(self) -> None:
        """Take everything down: with a namespace go its ends of cables."""
        for host in self._hosts:
            subprocess.run(
                [self._ip, "netns", "del", self.namespace(host)], check=False, capture_output=True
            )

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network for as long as it takes."""
    made = Network()
    try:
        yield made
    finally:
        made.close()
