"""Start and stop the programs of the demo, by their console scripts.

Raises  DemoError, one line, when a program cannot be started or ends by itself
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from amistack.errors import AmiError

STOP_S: Final = 10.0
"""Seconds that a program has to end after SIGTERM before it is killed."""
OUTPUT_TAIL: Final = 4_000


class DemoError(AmiError):
    """The demo cannot go on; the message is one line that says what to look at."""


def script(name: str) -> str:
    """The console script `name`, beside the interpreter that runs this or on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"the command {name!r} is not installed: `make setup` installs it")
    return found


async def run(name: str, *arguments: str) -> str:
    """Run a command to its end; what it printed. Raises DemoError with its own line if it fails."""
    process = await asyncio.create_subprocess_exec(
        script(name),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        raise DemoError(_last_line(err.decode(errors="replace")) or f"{name} failed")
    return out.decode()


class Program:
    """A program that runs beside us, its output in a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], log: Path) -> Program:
        """Start the console script `name`; its output goes to `log`."""
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                script(name), *arguments, stdout=file, stderr=file, start_new_session=True
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raise DemoError with its last line if it has ended."""
        if self._process.returncode is not None:
            text = self._log.read_text(errors="replace")[-OUTPUT_TAIL:]
            raise DemoError(
                f"{self.name} ended with code {self._process.returncode}: "
                f"{_last_line(text) or f'see {self._log}'}"
            )

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help in STOP_S seconds."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
