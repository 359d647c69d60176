"""Backoff, and the link that comes back.

The contract under test: waits double up to their bound with a share of chance; a link that ended
or could not be had is opened again, until it is closed; every failure is told with the wait.
"""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from amistack.errors import ConfigError, LinkError
from amistack.links import streams
from amistack.links.streams import Backoff, KeptLink, StreamLink
from tests.links.streams_support import WAIT_MAX, Plain


def test_waits_double_up_to_their_bound_with_up_to_half_as_much_by_chance() -> None:
    backoff = Backoff(random.Random(3), first=2.0, longest=300.0)
    for _ in range(2):
        waits = [backoff.next_wait() for _ in range(12)]
        for index, wait in enumerate(waits):
            least = min(2.0 * 2**index, 300.0)
            assert least <= wait <= 1.5 * least
        backoff.reset()
    shares = [Backoff(random.Random(seed)).next_wait() for seed in range(40)]
    assert max(shares) - min(shares) > 0.7


def plain_link() -> StreamLink[bytes]:
    return StreamLink(lambda link, *, now: Plain(), lambda link, event: None)


async def test_link_is_opened_again_after_failures_and_ends_until_it_is_closed() -> None:
    made: list[StreamLink[bytes]] = []
    told: list[tuple[str | None, float]] = []
    third = asyncio.Event()

    async def connect() -> StreamLink[bytes]:
        if len(told) in (0, 2):
            raise LinkError(f"no medium {len(told)}")
        made.append(plain_link())
        if len(made) == 2:
            third.set()
        else:
            asyncio.get_running_loop().call_soon(made[-1].connection_lost, None)
        return made[-1]

    kept = KeptLink(
        connect,
        Backoff(random.Random(1), first=0.001, longest=0.01),
        lambda error, wait: told.append((str(error) if error else None, wait)),
    )
    await asyncio.wait_for(third.wait(), WAIT_MAX)
    assert [said for said, _ in told] == ["no medium 0", None, "no medium 2"]
    assert kept.counters == {"failures": 2, "streams": 2}
    await asyncio.sleep(0)
    assert kept.link is made[1]
    await kept.close()
    assert len(told) == 3


async def test_good_stream_makes_the_next_wait_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LASTED_MIN", 0.02)
    told: list[float] = []
    enough = asyncio.Event()
    count = 0

    async def connect() -> StreamLink[bytes]:
        nonlocal count
        count += 1
        if count < 4:
            raise LinkError("none")
        link = plain_link()
        asyncio.get_running_loop().call_later(0.03, link.connection_lost, None)
        return link

    def on_down(error: LinkError | None, wait: float) -> None:
        told.append(wait)
        if error is None:
            enough.set()

    kept = KeptLink(connect, Backoff(random.Random(1), first=0.004), on_down)
    await asyncio.wait_for(enough.wait(), WAIT_MAX)
    await kept.close()
    assert told[2] >= 0.016
    assert told[3] <= 0.006


async def test_closing_while_it_waits_or_connects_ends_it_at_once() -> None:
    async def never() -> StreamLink[bytes]:
        await asyncio.Event().wait()
        raise AssertionError

    async def failing() -> StreamLink[bytes]:
        raise LinkError("none")

    for connect in (never, failing):
        kept = KeptLink(connect, Backoff(random.Random(1), first=3600))
        await asyncio.sleep(0)
        await asyncio.wait_for(kept.close(), 1)


async def test_callback_that_fails_does_not_keep_the_link_from_coming_back() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: failures.append(str(context["exception"]))
    )
    tried = asyncio.Event()

    async def connect() -> StreamLink[bytes]:
        if failures:
            tried.set()
        raise LinkError("none")

    def on_down(error: LinkError | None, wait: float) -> None:
        raise ValueError("of the callback")

    kept = KeptLink(connect, Backoff(random.Random(1), first=0.001), on_down)
    await asyncio.wait_for(tried.wait(), WAIT_MAX)
    await kept.close()
    assert set(failures) == {"of the callback"}


async def test_error_that_no_waiting_mends_comes_out_at_the_close() -> None:
    async def connect() -> StreamLink[bytes]:
        raise ConfigError("no library")

    kept = KeptLink(connect, Backoff(random.Random(1)))
    await asyncio.sleep(0)
    with pytest.raises(ConfigError, match="no library"):
        await kept.close()


async def test_closing_before_the_stream_begins_ends_it_without_a_machine() -> None:
    link = plain_link()
    link.close()
    await asyncio.wait_for(link.wait_ended(), 1)
    assert link.machine is None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: link, *listening.getsockname())
        await asyncio.sleep(0.01)
    assert link.machine is None
