"""A folder in memory whose power can be cut: no kinder than a file system is allowed to be.

What is written is durable only after a flush that worked. Of what is not, a power cut leaves what
the dice say: all, nothing, any piece; later writes without earlier ones; zeros, noise or another
file's old octets in the holes; a truncation undone. A removed file comes back, a new one is gone.
After a flush that failed a file is sick: what was waiting is lost or torn though a reader still
sees it, and later flushes of that file work without making anything durable for sure.

    cut_after     the power goes at the n-th call from now; `crash` brings it back
    kill          the program ends at once, the kernel goes on: everything written is seen
    fail_after    the n-th calls from now fail, after doing none, some or all of their work
    fails_with    as long as it is set every call fails so, or every append that `refuses` names
"""

from __future__ import annotations

import errno as errnos
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

STALE_COUNT_MAX: Final = 8


class PowerCut(Exception):
    """The program ends here; nothing that it calls afterwards does anything."""


@dataclass
class _Write:
    at: int
    octets: bytes


@dataclass
class _Cut:
    size: int


@dataclass(eq=False)
class _Node:
    """A file, whatever its name: what is on disk, what a reader sees, what lies between."""

    durable: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    pending: list[_Write | _Cut] = field(default_factory=list)
    is_sick: bool = False


@dataclass
class _NameChange:
    """`old` (None: a new file) is to become `new` (None: removed)."""

    node: _Node
    old: str | None
    new: str | None


class _TornFile:
    def __init__(self, files: TornFiles, node: _Node) -> None:
        self._files = files
        self._node = node
        self._life = files.life
        self.is_open = True

    def append(self, octets: bytes) -> None:
        self._check()
        files, node = self._files, self._node

        def some() -> None:
            files.write(node, octets[: files.dice.randint(0, len(octets))])

        files.step("append", lambda: files.write(node, octets), some, octets)

    def sync(self) -> None:
        self._check()
        files, node = self._files, self._node

        def fail() -> None:
            if not files.is_off:
                files.settle(node)
                node.is_sick = True

        files.step("sync", lambda: files.flush(node), fail)

    def close(self) -> None:
        if self.is_open and self._life == self._files.life:
            self.is_open = False
            self._files.open_count -= 1

    def _check(self) -> None:
        assert self._life == self._files.life, "a program that has ended goes on writing"
        assert self.is_open, "written to after it was closed"


class TornFiles:
    """See `meterd.files.Files`."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.calls: list[str] = []
        """What was called, oldest first; a call that failed too."""
        self.life = 0
        """How many programs have had the folder."""
        self.is_off = False
        self.is_closed = False
        self.open_count = 0
        self.sync_count = 0
        self.written_octets = 0
        self.fails_with: int | None = None
        self.refuses: Callable[[bytes], bool] | None = None
        self._seen: dict[str, _Node] = {}
        self._durable: dict[str, _Node] = {}
        self._pending: list[_NameChange] = []
        self._stale: list[bytes] = []
        self._cut_at: int | None = None
        self._failures: dict[int, int] = {}

    # Faults

    def cut_after(self, calls: int) -> None:
        """The power goes in the middle of a call: 0 is the next one."""
        self._cut_at = len(self.calls) + calls

    def fail_after(self, calls: Iterable[int], error: int = errnos.ENOSPC) -> None:
        """Those calls from now on fail with the error `error`."""
        self._failures = {len(self.calls) + call: error for call in calls}

    def crash(self) -> None:
        """The power is gone, and back: what was not durable is as the dice say."""
        for change in self._pending:
            if self._coin():
                self._make_durable(change)
        self._pending = []
        # In the order of their names' making: a seed is one history, whatever the addresses are.
        for node in dict.fromkeys(self._durable.values()):
            self.settle(node)
            node.seen = bytearray(node.durable)
            node.is_sick = False
        self._seen = dict(self._durable)
        self.kill()

    def kill(self) -> None:
        """The program has ended; its files are as it left them, in the kernel's eyes."""
        self.life += 1
        self.is_off = self.is_closed = False
        self.open_count = 0
        self._cut_at = None
        self._failures = {}
        self.fails_with = self.refuses = None

    def put(self, name: str, octets: bytes) -> None:
        """A file that was there before, durable."""
        node = _Node(bytearray(octets), bytearray(octets))
        self._seen[name] = self._durable[name] = node

    # The port

    def names(self) -> list[str]:
        self.step("names", lambda: None)
        names = list(self._seen)
        self.dice.shuffle(names)
        return names

    def read(self, name: str, size_max: int) -> bytes:
        self.step("read", lambda: None)
        return bytes(self._seen[name].seen[:size_max])

    def create(self, name: str) -> _TornFile:
        node = _Node()

        def create() -> None:
            self._remove(name)
            self._seen[name] = node
            self._pending.append(_NameChange(node, None, name))

        self.step("create", create, lambda: self._maybe(create))
        self.open_count += 1
        return _TornFile(self, node)

    def open_at(self, name: str, size: int) -> _TornFile:
        assert name in self._seen, "a journal knows its segment"
        node = self._seen[name]
        assert size <= len(node.seen), "cut to more than there is"

        def cut() -> None:
            del node.seen[size:]
            node.pending.append(_Cut(size))

        self.step("open_at", cut, lambda: self._maybe(cut))
        self.open_count += 1
        return _TornFile(self, node)

    def rename(self, old: str, new: str) -> None:
        node = self._seen[old]

        def rename() -> None:
            self._seen[new] = self._seen.pop(old)
            self._pending.append(_NameChange(node, old, new))

        def rename_durably() -> None:
            rename()
            for change in self._pending:
                if change.node is node:
                    self._make_durable(change)
            self._pending = [change for change in self._pending if change.node is not node]

        self.step("rename", rename_durably, lambda: self._maybe(rename))

    def remove(self, name: str) -> None:
        self.step("remove", lambda: self._remove(name), lambda: self._maybe(self._remove, name))

    def close(self) -> None:
        self.is_closed = True

    # How it behaves

    def step(
        self,
        call: str,
        do: Callable[[], object],
        do_some: Callable[[], object] = lambda: None,
        octets: bytes | None = None,
    ) -> None:
        """One call: done, or failed, or where the power goes."""
        assert not self.is_closed, "used after it was closed"
        if self.is_off:
            raise PowerCut
        number = len(self.calls)
        self.calls.append(call)
        if number == self._cut_at:
            self.is_off = True
            do_some()
            raise PowerCut
        error = self._failures.get(number)
        if self.refuses is None or (octets is not None and self.refuses(octets)):
            error = error or self.fails_with
        if error is not None:
            do_some()
            raise OSError(error, os.strerror(error))
        do()

    def write(self, node: _Node, octets: bytes) -> None:
        node.pending.append(_Write(len(node.seen), octets))
        node.seen += octets
        self.written_octets += len(octets)

    def flush(self, node: _Node) -> None:
        self.sync_count += 1
        if node.is_sick:
            self.settle(node)
        for one in node.pending:
            self._carry_out(node.durable, one)
        node.pending = []

    def settle(self, node: _Node) -> None:
        """Make of what is pending what the dice say."""
        style = self.dice.choice(("all", "nothing", "mixed", "mixed"))
        for one in node.pending:
            if style == "all" or (style == "mixed" and self._coin()):
                self._carry_out(node.durable, one)
            elif style == "mixed" and isinstance(one, _Write) and one.octets and self._coin():
                self._tear(node.durable, one)
        node.pending = []

    def _carry_out(self, content: bytearray, one: _Write | _Cut) -> None:
        if isinstance(one, _Cut):
            del content[one.size :]
            return
        if len(content) < one.at:
            content += self._noise(len(content), one.at)
        content[one.at : one.at + len(one.octets)] = one.octets

    def _tear(self, content: bytearray, one: _Write) -> None:
        """A piece of a write arrives; around it is what was there, or noise up to its end."""
        size = len(one.octets)
        begin = self.dice.choice((0, self.dice.randrange(size)))
        end = self.dice.randint(begin, size)
        if self._coin():
            self._carry_out(content, _Write(one.at + begin, one.octets[begin:end]))
        if self._coin() and len(content) < one.at + size:
            content += self._noise(len(content), one.at + size)

    def _noise(self, begin: int, end: int) -> bytes:
        """What a file shows where nothing was written: zeros, or what the disk held there."""
        kind = self.dice.choice(("zeros", "stale", "random"))
        if kind == "random":
            return self.dice.randbytes(end - begin)
        old = self.dice.choice(self._stale) if kind == "stale" and self._stale else b""
        return old[begin:end].ljust(end - begin, b"\0")

    def _remove(self, name: str) -> None:
        node = self._seen.pop(name, None)
        if node is not None:
            self._pending.append(_NameChange(node, name, None))
            self._stale = [*self._stale, bytes(node.seen)][-STALE_COUNT_MAX:]

    def _make_durable(self, change: _NameChange) -> None:
        if change.old is not None and self._durable.get(change.old) is change.node:
            del self._durable[change.old]
        if change.new is not None:
            self._durable[change.new] = change.node

    def _maybe(self, do: Callable[..., object], *arguments: object) -> None:
        if self._coin():
            do(*arguments)

    def _coin(self) -> bool:
        return self.dice.random() < 0.5
