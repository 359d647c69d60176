"""What anybody on the network may announce as a head-end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zeroconf.asyncio import AsyncServiceInfo

from amistack.links.discovery import SERVICE, TXT_KID, TXT_VERSION, is_head_end, peers_in
from interop.fuzz.target import Outcome, Reader, Target, promise, size_class

KID: Final = "c0ffee01"


def run_announcement(data: bytes) -> Outcome:
    """A port, a count, addresses of 4 or 16 octets, and the octets of a TXT record."""
    reader = Reader(data)
    port = reader.number(2)
    head = reader.octet()
    addresses = [reader.take(16 if head >> place & 1 else 4) for place in range(head >> 5)]
    info = AsyncServiceInfo(
        SERVICE,
        f"someone.{SERVICE}",
        addresses=[one for one in addresses if len(one) in (4, 16)],
        port=port,
        properties=reader.rest(),
        server="someone.local.",
        interface_index=3 if head & 16 else None,
    )
    is_ours = is_head_end(info.properties, KID)
    outcome: list[Outcome] = [is_ours]
    for is_ipv6 in (False, True):
        peers = peers_in(info, is_ipv6=is_ipv6)
        for peer in peers:
            assert isinstance(peer, tuple)
            promise(peer[1] == port, "another port than announced")
            promise(len(peer) == (4 if is_ipv6 else 2), "an address of the other family")
        outcome.append(size_class(len(peers)))
    return tuple(outcome)


def announcement_seeds() -> Sequence[bytes]:
    """Announcements of head-ends, of ours and of others."""
    version, number = TXT_VERSION
    ours = (f"{version}={number}", f"{TXT_KID}={KID}")

    def txt(*texts: str) -> bytes:
        return b"".join(bytes((len(text),)) + text.encode() for text in texts)

    link_local = bytes.fromhex("fe80000000000000020000fffe000001")
    return [
        b"\x16\x33\x20" + bytes((192, 0, 2, 7)) + txt(*ours),
        b"\x16\x33\x51" + link_local + bytes((10, 0, 0, 1)) + txt(*ours, "x", "=y"),
        b"\x16\x33\x60" + bytes(4) + bytes((224, 0, 0, 1)) + bytes((127, 0, 0, 1)) + txt(ours[0]),
        b"\x00\x00\x00" + txt(*(text.upper() for text in ours), ours[0]),
        b"\x00\x00\x00\x05ab",
    ]


TARGETS: Final = (
    Target(
        "dns_sd",
        "an announcement on the network: ours or not, and addresses that one host can have",
        run_announcement,
        announcement_seeds,
        tokens=(
            b"\x0aamistack=1",
            b"\x0ckid=c0ffee01",
            b"=",
            b"\x00",
            b"\xff",
            b"\xfe\x80",
            b"\xff\x02",
        ),
        size_max=256,
    ),
)
