"""Tell the service manager that started us how we are: ready, at work, stopping.

Spec    sd_notify(3) and sd_watchdog_enabled(3): lines of NAME=VALUE in one datagram to the Unix
        socket $NOTIFY_SOCKET; a beat at least every $WATCHDOG_USEC, if $WATCHDOG_PID is us
Gives   nothing, and costs nothing, where the environment does not ask for it
Limit   STATUS_SIZE_MAX octets of status; a datagram that finds the socket full is dropped, and the
        next beat comes BEATS_PER_PERIOD times in the period
Never   fails or keeps the loop waiting; beats from anywhere but the event loop that does the work,
        or while that work stands still
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import structlog

LOG: Final = structlog.get_logger("supervision")

BEATS_PER_PERIOD: Final = 3
"""One beat may be lost, and one be late, before the manager takes us for dead."""
STATUS_SIZE_MAX: Final = 200
US_PER_S: Final = 1_000_000
PERIOD_S_MAX: Final = 86_400.0
"""A longer period is no watch at all, and is cut to this."""


class Supervisor:
    """Our end of the service manager's socket. `watch` beats until `close`."""

    def __init__(self, address: str | None = None, *, period_s: float | None = None) -> None:
        """`address` as in $NOTIFY_SOCKET, None for nobody; `period_s` of its watchdog, if any."""
        self._address = address
        self._period_s = period_s
        self._timer: asyncio.TimerHandle | None = None
        self._stall: str | None = None

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, *, process: int | None = None
    ) -> Supervisor:
        """Whoever the environment names, and the watch it asks of `process` (default: this one)."""
        named = environment.get("NOTIFY_SOCKET", "")
        if named[:1] not in ("/", "@") or len(named) < 2:
            return cls()
        address = "\0" + named[1:] if named[0] == "@" else named
        process = os.getpid() if process is None else process
        watched = environment.get("WATCHDOG_PID", str(process))
        period = environment.get("WATCHDOG_USEC", "")
        if watched != str(process) or not (period.isascii() and period.isdigit()):
            return cls(address)
        period_s = min(int(period[:20]) / US_PER_S, PERIOD_S_MAX)
        return cls(address, period_s=period_s or None)

    @property
    def beat_s(self) -> float | None:
        """Seconds from one beat to the next, or None where nobody watches."""
        return None if self._period_s is None else self._period_s / BEATS_PER_PERIOD

    def tell_ready(self, status: str = "") -> None:
        """The start is over."""
        self._tell("READY=1", _status(status))

    def tell_stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", _status("stopping"))

    def watch(self, find_stall: Callable[[], str | None], status: Callable[[], str]) -> None:
        """Beat from the running loop until `close`, but not while `find_stall` gives a reason.

        Both are asked at every beat; what they raise ends the watch, as a fault of ours must.
        """
        if self.beat_s is not None:
            self._beat(asyncio.get_running_loop(), self.beat_s, find_stall, status)

    def close(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(
        self,
        loop: asyncio.AbstractEventLoop,
        beat_s: float,
        find_stall: Callable[[], str | None],
        status: Callable[[], str],
    ) -> None:
        stall = find_stall()
        if stall is None:
            self._tell("WATCHDOG=1", _status(status()))
        else:
            self._tell(_status(f"standing still: {stall}"))
            if self._stall is None:
                LOG.error("standing still", reason=stall)
        self._stall = stall
        self._timer = loop.call_later(beat_s, self._beat, loop, beat_s, find_stall, status)

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        octets = "\n".join(line for line in lines if line).encode(errors="replace")
        # A manager that is away or busy is none of our work's business.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.settimeout(0)
            sender.sendto(octets, self._address)


def _status(text: str) -> str:
    """One line of status; what would begin another line is blanked."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return f"STATUS={line[:STATUS_SIZE_MAX]}" if line else ""
