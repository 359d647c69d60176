"""CoAP in the clear with foreign implementations, each as client of ours and as our server.

Spec    RFC 7252, 7959 (block-wise), 7641 (Observe), 8132 (FETCH), 6690 (/.well-known/core)
Gives   one suite for each foreign program and role; a case is one exchange
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from amistack.coap.codes import Code
from amistack.coap.link_format import parse
from amistack.coap.options import Option
from interop.conformance.suite import LiveCase, LiveSuite
from interop.peers import aiocoap_plain, libcoap, node_coap
from interop.peers.exchange import (
    BIG,
    BLOCK_WISE,
    CRITICAL,
    DISCOVERY,
    LONG_OPTIONS,
    PLAIN,
    QUERY_SIZE_MAX,
    UNKNOWN_ELECTIVE,
    Answer,
    Ask,
    Client,
    Exchange,
)
from interop.peers.party import LOOPBACK, LOOPBACK_6, OurClient, Party, open_party
from interop.peers.secured import SecuredParty

HELLO: Final = Ask(Code.GET, "hello")
COUNTER: Final = Ask(Code.GET, "counter")
NOTIFICATION_COUNT: Final = 3
EVERYTHING: Final = (*PLAIN, CRITICAL, LONG_OPTIONS, DISCOVERY, *BLOCK_WISE)


class Observer(Client, Protocol):
    """A client that can observe as well."""

    async def observe(self, ask: Ask, count: int) -> list[Answer]:
        """Register, give the first `count` notifications at least, and end it."""


# Foreign clients on our server


@dataclass(frozen=True, slots=True)
class Asked:
    """Our server, and a foreign client for it."""

    party: Party | SecuredParty
    client: Observer


def asked_cases(exchanges: Iterable[Exchange] = EVERYTHING) -> list[LiveCase[Asked]]:
    """What every foreign client does with our server."""

    def of(exchange: Exchange) -> LiveCase[Asked]:
        async def run(bench: Asked) -> Answer:
            return exchange.judged(await bench.client.ask(exchange.ask))

        return LiveCase(exchange.name, exchange.expected, run)

    return [*(of(exchange) for exchange in exchanges), _counted()]


def _counted() -> LiveCase[Asked]:
    """The states may leave one out: of those that wait for an acknowledgement the newest goes."""

    async def run(bench: Asked) -> tuple[set[str], str]:
        bench.party.application.count = 0
        heard = await bench.client.observe(COUNTER, NOTIFICATION_COUNT)
        return {answer.code for answer in heard}, _order_of([int(one.payload) for one in heard])

    return LiveCase("observe: the state and two notifications", ({"2.05"}, "rises from 0"), run)


def _order_of(counts: Sequence[int]) -> str:
    is_rising = all(earlier < later for earlier, later in itertools.pairwise(counts))
    is_whole = len(counts) >= NOTIFICATION_COUNT and counts[0] == 0
    return "rises from 0" if is_whole and is_rising else f"{counts}"


def farewell() -> LiveCase[Asked]:
    """The client that observed before says that it is gone, or resets the next notification."""

    async def run(bench: Asked) -> str:
        await bench.party.observed.is_over.wait()
        return "noticed"

    return LiveCase("observe: the observer goes, and we notice", "noticed", run)


def dismissal() -> LiveCase[Asked]:
    """We end the observation, with a last state; and the client can go on asking."""

    async def run(bench: Asked) -> Answer:
        bench.party.observed.finish()
        return await bench.client.ask(HELLO)

    return LiveCase("observe: we end it, and the client goes on", Answer("2.05", b"hello"), run)


def token_cases() -> list[LiveCase[Asked]]:
    """Tokens of every size that RFC 7252 has but none at all, which these clients never send."""

    def of(size: int) -> LiveCase[Asked]:
        async def run(bench: Asked) -> tuple[Answer, int]:
            client = bench.client
            assert isinstance(client, libcoap.LibcoapClient | node_coap.NodeClient)
            assert isinstance(bench.party, Party)
            answer = await client.ask_under(HELLO, b"t" * size)
            return answer, len(bench.party.tokens_seen[-1])

        return LiveCase(f"token of {size} octets", (Answer("2.05", b"hello"), size), run)

    return [of(size) for size in range(1, 9)]


@asynccontextmanager
async def _aiocoap_asks() -> AsyncIterator[Asked]:
    async with (
        open_party() as party,
        aiocoap_plain.open_client(f"coap://{LOOPBACK}:{party.port}") as client,
    ):
        yield Asked(party, client)


@asynccontextmanager
async def _aiocoap_asks_over_ipv6() -> AsyncIterator[Asked]:
    async with (
        open_party(LOOPBACK_6) as party,
        aiocoap_plain.open_client(f"coap://[{LOOPBACK_6}]:{party.port}") as client,
    ):
        yield Asked(party, client)


@asynccontextmanager
async def _libcoap_asks() -> AsyncIterator[Asked]:
    async with open_party() as party:
        yield Asked(party, libcoap.LibcoapClient(f"coap://{LOOPBACK}:{party.port}"))


@asynccontextmanager
async def _node_asks() -> AsyncIterator[Asked]:
    async with (
        open_party() as party,
        node_coap.open_client((LOOPBACK, party.port)) as client,
    ):
        yield Asked(party, client)


# Our client on foreign servers


def answering_cases(
    exchanges: Iterable[Exchange], observed: Ask = COUNTER
) -> list[LiveCase[Observer]]:
    """What our client does with every foreign server, which has `observed`."""

    def of(exchange: Exchange) -> LiveCase[Observer]:
        async def run(client: Observer) -> Answer:
            return exchange.judged(await client.ask(exchange.ask))

        return LiveCase(exchange.name, exchange.expected, run)

    async def notified(client: Observer) -> tuple[set[str], int]:
        heard = await client.observe(observed, NOTIFICATION_COUNT)
        return {answer.code for answer in heard}, len({answer.payload for answer in heard[:-1]})

    return [
        *(of(exchange) for exchange in exchanges),
        LiveCase(
            "observe: the state and two notifications, then the end",
            ({"2.05"}, NOTIFICATION_COUNT),
            notified,
        ),
    ]


def _answers(
    server: Callable[[], AbstractAsyncContextManager[tuple[str, int]]],
) -> Callable[[], AbstractAsyncContextManager[Observer]]:
    @asynccontextmanager
    async def open_both() -> AsyncIterator[Observer]:
        async with server() as peer, open_party(peer[0]) as party:
            yield OurClient(party, peer)

    return open_both


def _libcoap_server_cases() -> list[LiveCase[Observer]]:
    """What its example server has: a clock, a slow resource, and room for new ones."""
    made = b"made by a stranger"

    async def discovered(client: Observer) -> list[str]:
        answer = await client.ask(Ask(Code.GET, ".well-known/core"))
        return sorted(link.target for link in parse(answer.payload))

    async def example(client: Observer) -> tuple[str, int]:
        answer = await client.ask(Ask(Code.GET, "example_data"))
        return answer.code, len(answer.payload)

    def only_code(name: str, ask: Ask, code: str) -> Exchange:
        return Exchange(name, ask, Answer(code), is_exact=False)

    time = Ask(Code.GET, "time")
    long_query = ("a" * QUERY_SIZE_MAX,)
    elective = (Option(UNKNOWN_ELECTIVE, bytes(300)),)
    slow = Ask(Code.GET, "async", queries=("1",))
    return [
        LiveCase("/.well-known/core", ["/", "/async", "/example_data", "/time"], discovered),
        *answering_cases(
            [
                only_code("GET, CON", time, "2.05"),
                only_code("GET, NON", Ask(Code.GET, "time", is_confirmable=False), "2.05"),
                Exchange("separate response", slow, Answer("2.05", b"done")),
                Exchange("PUT of something new", Ask(Code.PUT, "new", made), Answer("2.01")),
                Exchange("GET of what was put", Ask(Code.GET, "new"), Answer("2.05", made)),
                Exchange("PUT of something else", Ask(Code.PUT, "new", b"else"), Answer("2.04")),
                Exchange("GET of something else", Ask(Code.GET, "new"), Answer("2.05", b"else")),
                Exchange("DELETE", Ask(Code.DELETE, "new"), Answer("2.02")),
                only_code("not found", Ask(Code.GET, "new"), "4.04"),
                only_code("method not allowed", Ask(Code.POST, "time"), "4.05"),
                only_code(
                    "unknown elective option", Ask(Code.GET, "time", options=elective), "2.05"
                ),
                only_code(
                    "a query of 255 octets", Ask(Code.GET, "time", queries=long_query), "2.05"
                ),
                Exchange("PUT of 5 kB", Ask(Code.PUT, "big", BIG), Answer("2.01")),
                Exchange("GET of 5 kB", Ask(Code.GET, "big"), Answer("2.05", BIG)),
            ],
            # It ticks once a second.
            observed=time,
        ),
        LiveCase("GET of its example of 1,500 octets", ("2.05", 1500), example),
    ]


AIOCOAP_ASKS: Final = LiveSuite(
    "aiocoap-client",
    "CoAP: aiocoap's client, our server",
    aiocoap_plain.version,
    _aiocoap_asks,
    lambda: [*asked_cases(), farewell()],
    aiocoap_plain.missing,
)
AIOCOAP_ASKS_IPV6: Final = LiveSuite(
    "aiocoap-client-ipv6",
    "CoAP over IPv6: aiocoap's client, our server",
    aiocoap_plain.version,
    _aiocoap_asks_over_ipv6,
    lambda: asked_cases()[:3],
    aiocoap_plain.missing,
)
AIOCOAP_ANSWERS: Final = LiveSuite(
    "aiocoap-server",
    "CoAP: our client, aiocoap's server",
    aiocoap_plain.version,
    _answers(lambda: aiocoap_plain.open_server(aiocoap_plain.make_site())),
    lambda: answering_cases([*PLAIN, LONG_OPTIONS, DISCOVERY, *BLOCK_WISE]),
    aiocoap_plain.missing,
)
LIBCOAP_ASKS: Final = LiveSuite(
    "libcoap-client",
    "CoAP: libcoap's coap-client, our server",
    libcoap.version,
    _libcoap_asks,
    lambda: [*asked_cases(), farewell(), *token_cases()],
    libcoap.missing,
)
LIBCOAP_ANSWERS: Final = LiveSuite(
    "libcoap-server",
    "CoAP: our client, libcoap's coap-server",
    libcoap.version,
    _answers(libcoap.open_server),
    _libcoap_server_cases,
    libcoap.missing,
)
NODE_ASKS: Final = LiveSuite(
    "node-client",
    "CoAP: node coap's client, our server",
    node_coap.version,
    _node_asks,
    lambda: [*asked_cases(), farewell(), *token_cases()],
    node_coap.missing,
)
NODE_ANSWERS: Final = LiveSuite(
    "node-server",
    "CoAP: our client, node coap's server",
    node_coap.version,
    _answers(node_coap.open_server),
    # It takes the blocks of a body together by their token, which RFC 7959 leaves to the client and
    # ours chooses anew for each; so it only sends large bodies here.
    lambda: answering_cases([*PLAIN, LONG_OPTIONS, DISCOVERY, BLOCK_WISE[0]]),
    node_coap.missing,
)
