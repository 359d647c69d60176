"""A running meter's home area network: the socket over which its devices are tried.

Limit   RETRY_S between two attempts to have the socket: the home's network may come up later
Never   ends because of what a device does, or keeps the meter from starting
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from amistack.errors import LinkError
from amistack.links.host import OpenLink
from amistack.links.udp import UdpLink
from meterd.home.settings import HomeSettings
from meterd.home.subscriptions import Subscriptions
from meterd.home.watch import HomeWatch

RETRY_S: Final = 60.0


class HomeNetwork:
    """One meter's."""

    def __init__(
        self,
        settings: HomeSettings,
        subscriptions: Subscriptions,
        watch: HomeWatch,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self.watch = watch
        self.subscriptions = subscriptions
        self._settings = settings
        self._retry_s = retry_s
        self._link: UdpLink[None] | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(
        self,
        open_link: OpenLink,
        *,
        now: Callable[[], float],
        settle: Callable[[], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Try the devices from now on; `settle` is called when something of theirs was logged.

        Raises StoreError where the devices of the settings cannot be kept.
        """
        self.subscriptions.on_told = settle
        self.subscriptions.fix(self._settings.subscriptions, now=now())
        if not await self._try(open_link, log):
            self._opening = asyncio.create_task(self._keep_trying(open_link, log))

    @property
    def address(self) -> tuple[str, int]:
        """Where the meter speaks from. Only once the socket is there."""
        assert self._link is not None, "no socket yet"
        return self._link.address

    @property
    def counts(self) -> dict[str, int]:
        """What was counted since the start."""
        return {f"home: {reason}": count for reason, count in self.watch.counters.items()}

    def close(self) -> None:
        """Give the socket back."""
        if self._opening is not None:
            self._opening.cancel()
        if self._link is not None:
            self._link.close()

    async def _try(self, open_link: OpenLink, log: structlog.typing.FilteringBoundLogger) -> bool:
        """Whether the socket is there."""
        host, port = self._settings.host_and_port
        try:
            link = await open_link(self.watch, lambda _: None, host=host, port=port)
        except LinkError as error:
            log.warning("no home network", reason=str(error), retry_s=self._retry_s)
            return False
        self._link = link

        def refresh() -> None:
            self.watch.refresh(now=link.now())
            link.settle()

        self.subscriptions.on_change = refresh
        refresh()
        return True

    async def _keep_trying(
        self, open_link: OpenLink, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            if await self._try(open_link, log):
                return
