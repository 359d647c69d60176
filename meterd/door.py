"""The door at which a running `meterd` says how it is: a Unix socket that only its owner may open.

Whoever connects is given a line of JSON for each meter of the process. A door that hears takes one
line before; any other hears nothing. `Door.open` opens it in the running loop, `ask` is the other
side.

Gives   meterd.status.MeterStatus as JSON, one line a meter, in the order of the meters
Raises  StatusUnavailable, one line that says what to do, from `ask`; LinkError from `open_door`
Limit   CONNECTIONS_MAX at a time, one more is closed at once; ANSWER_S for an answer to be taken;
        ANSWER_SIZE_MAX octets of it are read; WORD_SIZE_MAX octets of a line that is heard
Never   outlives its process: what a killed one left is replaced
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from amistack.errors import AmiError, LinkError

DOOR: Final = "status.sock"
"""The socket's name in its folder."""
CONNECTIONS_MAX: Final = 8
ANSWER_S: Final = 10.0
ANSWER_SIZE_MAX: Final = 64 * 1024 * 1024
"""Room for the largest street."""
BACKLOG: Final = 8
WORD_SIZE_MAX: Final = 64
ADDRESS_SIZE_MAX: Final = 100
"""Octets of a path that fit into a Unix socket's address; a longer one is reached another way."""


class StatusUnavailable(AmiError):
    """Nobody says how the meter is; the message is one line that says what to do."""


class Door:
    """An open door. `close` shuts it and removes the socket."""

    def __init__(
        self,
        path: Path,
        tell: Callable[[], Iterable[str]],
        *,
        hear: Callable[[str], None] | None = None,
    ) -> None:
        """`hear` takes the line that comes before each answer; neither it nor `tell` may raise."""
        self._path = path
        self._tell = tell
        self._hear = hear
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Serve from now on. Raises LinkError."""
        listening = _listening(self._path)
        try:
            self._server = await asyncio.start_unix_server(
                self._admit, sock=listening, limit=WORD_SIZE_MAX
            )
        except BaseException:
            listening.close()
            raise

    async def close(self) -> None:
        """Shut it; who is being answered is left there."""
        if self._server is None:
            return
        self._server.close()
        for answering in self._answering:
            answering.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None, "a task of the server's"
        if len(self._answering) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._answering.add(own)
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._hear is not None:
                    self._hear((await reader.readline()).decode(errors="replace").strip())
                for line in self._tell():
                    writer.write(line.encode() + b"\n")
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, ValueError):
            pass  # Whoever asked has gone, does not listen, or does not stop talking.
        finally:
            writer.transport.abort()
            self._answering.discard(own)


def ask(path: Path, say: str | None = None) -> list[str]:
    """The lines that the program behind the door at `path` says. Raises StatusUnavailable.

    `say` is the line for a door that hears.
    """
    octets = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(ANSWER_S)
            with _reachable(path) as address:
                asking.connect(address)
            if say is not None:
                asking.sendall(f"{say}\n".encode())
            while len(octets) <= ANSWER_SIZE_MAX and (more := asking.recv(65_536)):
                octets += more
    except (FileNotFoundError, ConnectionRefusedError):
        raise StatusUnavailable(f"no meterd is running: nobody answers at {path}") from None
    except PermissionError:
        raise StatusUnavailable(
            f"{path} is for its owner alone: ask as the user that meterd runs as, or as root"
        ) from None
    except TimeoutError:
        raise StatusUnavailable(
            f"{path}: meterd did not answer within {ANSWER_S:g} s; its log says more"
        ) from None
    except OSError as error:
        raise StatusUnavailable(f"{path} cannot be asked: {error.strerror or error}") from None
    if not octets.endswith(b"\n") or len(octets) > ANSWER_SIZE_MAX:
        raise StatusUnavailable(f"{path} gave no whole answer: ask again")
    return octets.decode(errors="replace").splitlines()


def _listening(path: Path) -> socket.socket:
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        with _reachable(path) as address:
            listening.bind(address)
        listening.listen(BACKLOG)
        listening.settimeout(0)
    except OSError as error:
        listening.close()
        raise LinkError(f"{path} cannot be made: {error.strerror or error}") from error
    finally:
        os.umask(old_mask)
    return listening


def _clear(path: Path) -> None:
    """Remove a socket on which nobody answers. Raises LinkError for anything else."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # Nothing there; what else may be wrong shows when it is made.
    if not stat.S_ISSOCK(mode):
        raise LinkError(f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            with _reachable(path) as address:
                probe.connect(address)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise LinkError(f"{path} cannot be used: {error.strerror or error}") from error
    raise LinkError(f"{path} is in use by another meterd")


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """The address of a Unix socket at `path`: by way of its open folder where that is too long."""
    if len(os.fsencode(path)) <= ADDRESS_SIZE_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
