"""Drive a stream machine over a serial line, and again when its device comes back.

Gives   the machine's events to one callback, with the link they happened on; 8 data bits, no
        parity, one stop bit, no flow control
Raises  ConfigError where `serialx` is not installed, or what is set fits no line; LinkError from
        `open_serial` when the device cannot be had. `keep_serial` tells of that and tries again
Limit   one program at a time has the device; OPEN_TIMEOUT s to open it. What the kernel's buffer
        for a port holds (4,096 octets for most) is beyond the machine's order of priority
Never   decides anything: noise, silence and starting again are the machine's
"""

from __future__ import annotations

import asyncio
import errno
import random
from typing import TYPE_CHECKING, Final, TypeVar

from amistack.errors import ConfigError, LinkError
from amistack.links.streams import (
    Backoff,
    KeptLink,
    MakeMachine,
    OnDown,
    OnEvent,
    StreamLink,
    ignore_down,
)

if TYPE_CHECKING:
    from types import ModuleType

EventT = TypeVar("EventT")

BAUD_RATE: Final = 115_200
OPEN_TIMEOUT: Final = 10.0
REOPEN_FIRST: Final = 0.5
REOPEN_MAX: Final = 30.0
"""Seconds: a device that is plugged in again should not wait as long as a network."""


async def open_serial(
    make_machine: MakeMachine[EventT],
    on_event: OnEvent[EventT],
    *,
    path: str,
    baud_rate: int = BAUD_RATE,
) -> StreamLink[EventT]:
    """A link on the serial device at `path`. Raises LinkError or ConfigError, in one line."""
    serialx = _serialx()
    if baud_rate < 1:
        raise ConfigError(f"serial line {path} at {baud_rate} baud: choose what its device has")
    link = StreamLink(make_machine, on_event)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            await serialx.create_serial_connection(
                asyncio.get_running_loop(), lambda: link, path, baudrate=baud_rate
            )
    except (OSError, ValueError, serialx.SerialException) as error:
        link.abort()
        raise LinkError(_explain(error, path)) from error
    except BaseException:
        link.abort()
        raise
    return link


def keep_serial(
    make_machine: MakeMachine[EventT],
    on_event: OnEvent[EventT],
    *,
    path: str,
    dice: random.Random,
    baud_rate: int = BAUD_RATE,
    on_down: OnDown = ignore_down,
) -> KeptLink[EventT]:
    """A link on the device at `path`, opened again, with a new machine, when it ends.

    Raises ConfigError at once for what no waiting mends.
    """
    _serialx()
    if baud_rate < 1:
        raise ConfigError(f"serial line {path} at {baud_rate} baud: choose what its device has")

    async def connect() -> StreamLink[EventT]:
        return await open_serial(make_machine, on_event, path=path, baud_rate=baud_rate)

    return KeptLink(connect, Backoff(dice, first=REOPEN_FIRST, longest=REOPEN_MAX), on_down)


def _serialx() -> ModuleType:
    """Only now: most programs have no serial line, and need no library for it."""
    try:
        import serialx
    except ImportError:
        raise ConfigError(
            "serialx is not installed: pip install 'amistack[serial]', or use no serial line"
        ) from None
    return serialx


def _explain(error: Exception, path: str) -> str:
    where = f"serial line {path}"
    if isinstance(error, TimeoutError):
        return f"{where}: does not open in {OPEN_TIMEOUT:g} s; plug the device in again"
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT:
            return f"{where}: no such device; plug it in, or correct the path"
        if error.errno == errno.EACCES:
            return f"{where}: not allowed for this user; add it to the group that has the device"
        if error.errno in (errno.EBUSY, errno.EAGAIN):
            return f"{where}: in use; stop the program that holds it"
        if error.errno == errno.ENOTTY:
            return f"{where}: no serial device; correct the path"
        return f"{where}: {error.strerror or error}"
    return f"{where}: {error}"
