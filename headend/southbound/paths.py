"""Paths to meters as text: `udp:192.0.2.7:5683`, `udp:[2001:db8::7]:5683`."""

from __future__ import annotations

from amistack.machine import Peer


def path_of(peer: Peer) -> str:
    """The path that a UDP peer (host, port, ...) is."""
    assert isinstance(peer, tuple), "a UDP peer is a socket address"
    host, port = peer[:2]
    return f"udp:[{host}]:{port}" if ":" in host else f"udp:{host}:{port}"


def peer_of(path: str) -> Peer | None:
    """The UDP peer of a path, as datagrams come from it, or None if it is of another kind."""
    kind, _, address = path.partition(":")
    host, _, port = address.rpartition(":")
    if kind != "udp" or not port.isdigit():
        return None
    if not host.startswith("["):
        return host, int(port)
    # IPv6 has two more numbers; an answer from a peer without them would belong to nobody.
    return host.removeprefix("[").removesuffix("]"), int(port), 0, 0
