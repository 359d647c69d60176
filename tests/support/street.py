"""A street in this process: the real head-end's southbound side and real meters, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from amistack.keystore import make_key
from amistack.links import open_udp
from amistack.links.host import Host, OpenLink
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from headend.domain.meters import Meter as EnrolledMeter
from headend.domain.meters import MeterState
from headend.southbound.service import Southbound
from headend.store.interface import EnrolMeters
from headend.store.sqlite import SqliteStore
from meterd.daemon import Meter, load_settings
from meterd.provision import Identity, Template, provision

AT_ONCE = ("report_delay_s = 0", "report_spread_s = 0", "start_spread_s = 0", "catch_up_s = 0")


@dataclass
class Street:
    store: SqliteStore
    southbound: Southbound
    identities: list[Identity]
    meters: list[Meter]

    async def until(
        self, condition: Callable[[], object], *, what: str, timeout_s: float = 30.0
    ) -> None:
        """Wait for `condition`, an async function, to be true."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not await condition():  # type: ignore[misc]
            assert loop.time() < end, f"{what} did not come about within {timeout_s} s"
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def street(
    folder: Path,
    metrology: Sequence[Sequence[str]],
    *,
    standard_offsets: Sequence[str] = (),
    host: str = "127.0.0.1",
    open_link: OpenLink = open_udp,
) -> AsyncIterator[Street]:
    """A meter for each `metrology` (lines of that table), enrolled and started.

    Everybody is at `host`; the meters' links are opened by `open_link`.
    """
    key = make_key()
    public_key = encode_public_key(key.public_key())
    store = SqliteStore.open(folder / "headend.sqlite")
    southbound = Southbound(
        key=AuthenticationKey(key, head_end_credential(public_key)),
        store=store,
        entropy=os.urandom,
        dice=random.Random(1),
        wall=time.time,
    )
    _, port = await southbound.start(host, 0)
    at = f"[{host}]" if ":" in host else host
    identities: list[Identity] = []
    meters: list[Meter] = []
    try:
        for number, lines in enumerate(metrology):
            template = Template(
                address=f"{at}:{port}",
                public_key=public_key.hex(),
                standard_offset=standard_offsets[number] if standard_offsets else "+00:00",
                metrology=tuple(lines),
                schedule=AT_ONCE,
            )
            identities.append(provision(folder / f"meter-{number}", template))
        now = int(time.time())
        await store.commit(
            EnrolMeters(
                tuple(
                    EnrolledMeter(one.meter, one.public_key, MeterState.ENROLLED, now)
                    for one in identities
                )
            )
        )
        for number in range(len(metrology)):
            file = folder / f"meter-{number}" / "meterd.toml"
            file.write_text(file.read_text() + f'\n[link]\nlisten = "{at}:0"\n')
            meter = await Meter.open(load_settings(file), host=Host(open_link=open_link))
            meters.append(meter)
            await meter.start()
        yield Street(store, southbound, identities, meters)
    finally:
        for meter in meters:
            meter.stop()
        await southbound.drain(2.0)
        await southbound.stop()
        await store.close()
