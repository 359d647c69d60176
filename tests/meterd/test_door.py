"""The door at which a running meter says how it is.

The contract under test: whoever owns it gets every line, whole; others, and too many at a time, get
nothing and keep nobody busy; a socket that a killed process left is replaced, anything else at its
place is not touched; nobody there is one line that says what to do.
"""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from amistack.errors import LinkError
from meterd import door as door_module
from meterd.door import CONNECTIONS_MAX, DOOR, Door, StatusUnavailable, ask


async def _asked(path: Path) -> list[str]:
    return await asyncio.get_running_loop().run_in_executor(None, ask, path)


def _is_there(path: Path) -> bool:
    return path.exists()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / DOOR


@pytest.mark.both_loops
async def test_every_line_is_told_again_and_again(path: Path) -> None:
    lines = ["{}", '{"a": 1}']
    door = Door(path, lambda: lines)
    await door.open()
    assert await _asked(path) == lines
    lines.append("later")
    assert await _asked(path) == lines
    await door.close()
    assert not _is_there(path)


async def test_answer_of_megabytes_is_whole(path: Path) -> None:
    lines = ["x" * 1000] * 10_000
    door = Door(path, lambda: lines)
    await door.open()
    assert await _asked(path) == lines
    await door.close()


async def test_only_its_owner_may_open_it(path: Path) -> None:
    door = Door(path, list)
    await door.open()
    assert _mode(path) == 0o600
    await door.close()


async def test_folder_too_deep_for_a_socket_address_will_do(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    door = Door(folder / DOOR, lambda: ["{}"])
    await door.open()
    assert await _asked(folder / DOOR) == ["{}"]
    await door.close()
    assert not list(folder.iterdir())


async def test_one_connection_too_many_is_closed_at_once(path: Path) -> None:
    door = Door(path, lambda: ("x" * 100_000 for _ in range(100)))
    await door.open()
    held = []
    for _ in range(CONNECTIONS_MAX):
        held.append(await asyncio.open_unix_connection(str(path)))
        await asyncio.sleep(0.01)
    with pytest.raises(StatusUnavailable, match=r"no whole answer|cannot be asked"):
        await _asked(path)
    for _, writer in held:
        writer.close()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not door._answering:
            break
    assert len(await _asked(path)) == 100
    await door.close()


async def test_one_who_does_not_listen_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "ANSWER_S", 0.1)
    door = Door(path, lambda: ("x" * 100_000 for _ in range(100)))
    await door.open()
    _, writer = await asyncio.open_unix_connection(str(path))
    await asyncio.sleep(0.3)
    assert not door._answering
    writer.close()
    await door.close()


async def test_what_is_said_to_it_changes_nothing(path: Path) -> None:
    door = Door(path, lambda: ["{}"])
    await door.open()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"\0" * 100_000)
    assert await reader.readline() == b"{}\n"
    writer.close()
    assert await _asked(path) == ["{}"]
    await door.close()


async def test_socket_of_a_killed_process_is_replaced(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    door = Door(path, lambda: ["{}"])
    await door.open()
    assert await _asked(path) == ["{}"]
    await door.close()


def _file(path: Path) -> object:
    path.write_text("mine")
    return None


def _served(path: Path) -> object:
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(path))
    other.listen()
    return other


@pytest.mark.parametrize(
    ("put", "says"),
    [(_file, "is no socket"), (_served, "in use by another meterd")],
)
async def test_what_is_another_s_is_not_touched(
    path: Path, put: Callable[[Path], object], says: str
) -> None:
    other = put(path)
    with pytest.raises(LinkError, match=says):
        await Door(path, list).open()
    assert _is_there(path)
    if isinstance(other, socket.socket):
        other.close()


async def test_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="cannot be made: No such file"):
        await Door(tmp_path / "none" / DOOR, list).open()


@pytest.mark.parametrize("is_left", [False, True])
def test_nobody_there_is_one_line(path: Path, *, is_left: bool) -> None:
    if is_left:
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
    with pytest.raises(StatusUnavailable) as refused:
        ask(path)
    assert "no meterd is running" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("octets", [b"", b'{"half": '])
def test_half_an_answer_is_none(path: Path, octets: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        asking = asyncio.run(_half(listening, path, octets))
    assert asking == "no whole answer"


async def _half(listening: socket.socket, path: Path, octets: bytes) -> str:
    listening.settimeout(5)
    loop = asyncio.get_running_loop()

    def answer() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.sendall(octets)

    answering = loop.run_in_executor(None, answer)
    try:
        await _asked(path)
    except StatusUnavailable as error:
        return "no whole answer" if "no whole answer" in str(error) else str(error)
    finally:
        await answering
    return "answered"


def test_one_who_never_answers_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "ANSWER_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(StatusUnavailable, match="did not answer within"):
            ask(path)


def _lines() -> Iterable[str]:
    return ()


async def test_nothing_to_tell_yet_is_no_whole_answer(path: Path) -> None:
    door = Door(path, _lines)
    await door.open()
    with pytest.raises(StatusUnavailable, match="ask again"):
        await _asked(path)
    await door.close()
