"""Make a crash small, keep it in a file, and take it up again.

Gives   `minimise`: the same defect by as few and as plain octets as a bounded search finds;
        `save` and `load`
Raises  FuzzError where a file cannot be written or read

A crash is two files: `NAME.bin`, the input as it is, which any fuzzer replays; and `NAME.txt`
beside it, for people: the traceback, the seed and the command that shows it again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from amistack.errors import AmiError
from interop.fuzz.engine import Crash, no_hanging, probe
from interop.fuzz.target import Target

PROBE_COUNT_MAX: Final = 5_000
"""Runs that making an input smaller may take."""
FILE_SIZE_MAX: Final = 1 << 20


class FuzzError(AmiError):
    """A target that is none, or a file that cannot be used. One line."""


def command(target: str, file: Path) -> str:
    """The command that runs one input again."""
    return f"interop fuzz {target} --replay {file}"


def minimise(target: Target, crash: Crash, *, probe_count_max: int = PROBE_COUNT_MAX) -> Crash:
    """The crash by the smallest input found that shows the same defect, octets 0 where they may be.

    A run that has no end is left as it is: each try would take as long.
    """
    if crash.kind == "Hang":
        return crash
    search = _Search(target, crash, probe_count_max)
    with no_hanging(lambda: search.probe_count):
        search.shorten()
        search.clear()
        search.shorten()
    return search.best


@dataclass(slots=True)
class _Search:
    """The smallest crash so far, and what the search has cost."""

    target: Target
    best: Crash
    probe_count_max: int
    probe_count: int = 0

    def shorten(self) -> None:
        """Leave out halves, then quarters, and so on, down to single octets."""
        size = max(1, len(self.best.data) // 2)
        while True:
            at = 0
            while at < len(self.best.data):
                data = self.best.data
                if not self._take(data[:at] + data[at + size :]):
                    if self.probe_count >= self.probe_count_max:
                        return
                    at += size
            if size == 1:
                return
            size //= 2

    def clear(self) -> None:
        """Make every octet 0 that may be."""
        for at, octet in enumerate(self.best.data):
            if octet:
                data = self.best.data
                self._take(data[:at] + b"\x00" + data[at + 1 :])

    def _take(self, data: bytes) -> bool:
        """Go on with `data` if they show the same defect."""
        if self.probe_count >= self.probe_count_max:
            return False
        self.probe_count += 1
        crash = probe(self.target, data, seed=self.best.seed)
        if crash is None or crash.identity != self.best.identity:
            return False
        self.best = replace(crash, run=self.best.run)
        return True


def save(crash: Crash, folder: Path, *, found_size: int) -> Path:
    """Keep a crash in `folder`: the path of its input. `found_size`: octets before minimising."""
    name = f"crash-{crash.target}-{hashlib.sha256(crash.data).hexdigest()[:12]}"
    file = folder / f"{name}.bin"
    report = (
        f"{crash}\n\n"
        f"target     {crash.target}\n"
        f"seed       {crash.seed}\n"
        f"run        {crash.run}{'' if crash.run else ' (an input of the corpus)'}\n"
        f"size       {len(crash.data)} octets, found with {found_size}\n"
        f"reproduce  {command(crash.target, file)}\n"
        f"octets     {crash.data[:256].hex()}{'...' if len(crash.data) > 256 else ''}\n\n"
        f"{crash.trace}"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(crash.data)
        file.with_suffix(".txt").write_text(report, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise FuzzError(f"{file} cannot be written: {error.strerror or error}") from error
    return file


def load(file: Path) -> bytes:
    """The input in a file. Raises FuzzError."""
    try:
        if file.stat().st_size > FILE_SIZE_MAX:
            raise FuzzError(f"{file} is larger than {FILE_SIZE_MAX} octets, no fuzz input")
        return file.read_bytes()
    except OSError as error:
        raise FuzzError(f"{file} cannot be read: {error.strerror or error}") from error
