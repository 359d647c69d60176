"""Start the programs to be measured, and stop them.

Raises  BenchError, one line, when a program does not get ready or ends by itself
"""

from __future__ import annotations

import contextlib
import selectors
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from interop.bench.figure import BenchError
from interop.bench.measuring import first_core

READY_S: Final = 120.0
STOP_S: Final = 30.0
OUTPUT_TAIL: Final = 300


class Program:
    """A program beside us on the first core; what it says on standard output can be waited for."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self._process = process
        self._errors = errors

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def said(self) -> IO[bytes]:
        """Its standard output."""
        assert self._process.stdout is not None, "it was started with a pipe"
        return self._process.stdout

    def check(self) -> None:
        """Raise BenchError with the end of what it complained about if it has ended."""
        if self._process.poll() is not None:
            raise BenchError(
                f"{self._process.args!r} ended with code {self._process.returncode}: "
                f"{self._complaint()}"
            )

    def wait_line(self, timeout_s: float = READY_S) -> str:
        """The next line that it says. Raises BenchError if none comes."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.said, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise BenchError(f"{self._process.args!r} said nothing for {timeout_s:g} s")
        line = self.said.readline().decode(errors="replace").strip()
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self.check()
        return line

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help in STOP_S seconds."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.said.close()

    def _complaint(self) -> str:
        text = self._errors.read_text(errors="replace")[-OUTPUT_TAIL:]
        return " ".join(text.split()) or "it said nothing about it"


@contextlib.contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Program]:
    """Run `command` on the first core while the block lasts; its errors go to `folder`."""
    errors = folder / "errors.log"
    with errors.open("ab") as file, first_core():
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file
        )
    program = Program(process, errors)
    try:
        yield program
    finally:
        program.stop()
