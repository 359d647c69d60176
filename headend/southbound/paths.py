"""Paths to meters as text, and back.

::

    udp:192.0.2.7:5683   udp:[2001:db8::7]:5683   mesh:7:02004c0000000001/70b3d5fffe0000c1

A meter of the mesh is named by its area and its EUI-64; then comes the collector by which it was
last heard.
"""

from __future__ import annotations

from amistack.machine import Peer
from headend.domain.mesh import MeshPeer


def path_of(peer: Peer) -> str:
    """The path that a peer is: of the mesh, or of UDP (host, port, ...)."""
    if isinstance(peer, MeshPeer):
        return str(peer)
    assert isinstance(peer, tuple), "a UDP peer is a socket address"
    host, port = peer[:2]
    return f"udp:[{host}]:{port}" if ":" in host else f"udp:{host}:{port}"


def peer_of(path: str) -> Peer | None:
    """The peer of a path, as datagrams come from it, or None if it is of another kind."""
    kind, _, address = path.partition(":")
    host, _, port = address.rpartition(":")
    if kind != "udp" or not port.isdigit():
        return MeshPeer.parse(path)
    if not host.startswith("["):
        return host, int(port)
    # IPv6 has two more numbers; an answer from a peer without them would belong to nobody.
    return host.removeprefix("[").removesuffix("]"), int(port), 0, 0
