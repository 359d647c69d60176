"""What a loop on a virtual clock must not do: run threads, or ask a name service.

Raises  RuntimeError where a thread is wanted
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, NoReturn


class LoopApart(asyncio.BaseEventLoop):
    """The part that such loops have in common, before the one that keeps their time."""

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]  # takes anything
        """Refused: a thread knows nothing of virtual time."""
        raise RuntimeError("a thread on a virtual clock: pass an inline implementation instead")

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,  # noqa: ARG002
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,  # noqa: ARG002
    ) -> list[Any]:
        """Addresses name themselves here; there is no name service."""
        return [(socket.AF_INET, type, proto, "", (host, port))]
