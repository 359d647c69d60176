"""EDHOC carried in CoAP with aiocoap, which has lakers inside, and OSCORE under the keys agreed on.

Spec    RFC 9528 appendix A.2; RFC 9668 (message_3 with the first request)
Gives   our stack joins aiocoap's server, either way, and aiocoap's client joins our stack: then
        whole exchanges
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import cbor2

from interop.conformance import live_lakers
from interop.conformance.live_plain import Asked, Observer, answering_cases, asked_cases, dismissal
from interop.conformance.suite import LiveSuite
from interop.peers import aiocoap_oscore, aiocoap_plain
from interop.peers.exchange import LONG_OPTIONS, PLAIN
from interop.peers.identities import HEAD_END, METER, Identity
from interop.peers.party import LOOPBACK
from interop.peers.secured import SecuredClient, open_secured

C_I: Final = b"\x0c"
CONFIRMABLE: Final = [one for one in PLAIN if one.ask.is_confirmable]

# COSE labels of the library's formats (RFC 9052 7, RFC 9360, RFC 9528 10.8).
KCCS: Final = 14
SUITE_2: Final = 2
METHOD_3: Final = 3


def missing() -> str | None:
    """The line that installs both, or None if they are there."""
    return aiocoap_plain.missing() or live_lakers.missing()


def version() -> str:
    """What judges."""
    return f"{aiocoap_plain.version()} with {live_lakers.version()}"


def credentials(own: Identity, peer: Identity, **more: object) -> object:
    """The library's credentials for a party that is `own` and knows `peer`."""
    from aiocoap.edhoc import EdhocCredentials

    return EdhocCredentials(
        suite=SUITE_2,
        method=METHOD_3,
        own_cred_style="by-key-id",
        own_cred={KCCS: cbor2.loads(own.key.credential.octets)},
        private_key={1: 2, -1: 1, -4: own.scalar},
        peer_cred={KCCS: cbor2.loads(peer.key.credential.octets)},
        **more,
    )


def _known(root: str) -> dict[str, object]:
    return {f"{root}/*": credentials(HEAD_END, METER)}


def _we_join(*, is_combining: bool) -> Callable[[], AbstractAsyncContextManager[Observer]]:
    @asynccontextmanager
    async def open_both() -> AsyncIterator[Observer]:
        async with aiocoap_oscore.open_server(_known) as peer, open_secured(METER) as party:
            trusted = HEAD_END.key.credential
            await party.join(peer, trusted, c_i=C_I, is_combining=is_combining)
            yield SecuredClient(party, peer)

    return open_both


@asynccontextmanager
async def _they_join() -> AsyncIterator[Asked]:
    async with open_secured(HEAD_END, METER.key.credential) as party:
        root = f"coap://{LOOPBACK}:{party.port}"
        async with aiocoap_oscore.open_client(root, credentials(METER, HEAD_END)) as client:
            yield Asked(party, client)


WE_JOIN: Final = LiveSuite(
    "edhoc-aiocoap-server",
    "EDHOC, then OSCORE: our stack joins aiocoap's server",
    version,
    _we_join(is_combining=False),
    lambda: answering_cases([*CONFIRMABLE, LONG_OPTIONS]),
    missing,
)
WE_JOIN_COMBINED: Final = LiveSuite(
    "edhoc-aiocoap-combined",
    "EDHOC, message_3 with the first OSCORE request: our stack joins aiocoap's server",
    version,
    _we_join(is_combining=True),
    lambda: answering_cases(CONFIRMABLE[:3]),
    missing,
)
THEY_JOIN: Final = LiveSuite(
    "edhoc-aiocoap-client",
    "EDHOC, message_3 with the first OSCORE request: aiocoap's client joins our stack",
    version,
    _they_join,
    lambda: [*asked_cases([*PLAIN, LONG_OPTIONS]), dismissal()],
    missing,
)
