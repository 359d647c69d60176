"""Programs as their users start them: console scripts, each a process that can be killed."""

from __future__ import annotations

import ctypes
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

STOP_S = 20.0
KILL = signal.SIGKILL
# Below what kernels give out by themselves: between two lives of a program its port stays free.
PORT_FIRST, PORT_LAST = 15_000, 29_999
PR_SET_PDEATHSIG = 1

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def script(name: str) -> str:
    """The console script `name`, beside the interpreter."""
    found = Path(sys.executable).parent / name
    if not found.exists():
        pytest.skip(f"the command {name} is not installed")
    return str(found)


def free_port() -> int:
    """A UDP port of the loopback that nobody has, and that no program is given by chance."""
    # Never of a test's own dice: two runs of one seed would meet at one port.
    dice = random.SystemRandom()
    while True:
        port = dice.randint(PORT_FIRST, PORT_LAST)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _die_with_parent() -> None:
    """If we are killed ourselves, nobody is left behind."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(KILL))


class Program:
    """One console script through all its lives; the log of each is a file of its own."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        before: Sequence[str] = (),
        called: str | None = None,
    ) -> None:
        """`before`: a command that runs another; `called`: how its logs are, else as the script."""
        self.name = called or name
        self.life = 0
        self._command = (*before, script(name), *arguments)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        assert self._process is None, "it runs"
        self.life += 1
        with self._log(self.life).open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  nothing but a system call
            )

    def check(self) -> None:
        """It runs: nothing of what happened to others has ended it."""
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"{self.name} ended with code {code}:\n{self.log()[-2_000:]}"

    def freeze(self) -> None:
        """SIGSTOP: it does nothing any more, and nobody is told."""
        self.check()
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL, and wait until there is nothing left of it."""
        self.check()
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(KILL)
        assert process.wait(STOP_S) == -KILL, self.log()[-2_000:]

    def stop(self) -> None:
        """SIGTERM; it must end by itself and say that all was well."""
        self.check()
        assert self._process is not None
        process, self._process = self._process, None
        process.terminate()
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        assert code == 0, f"{self.name} ended with code {code}:\n{self.log()[-2_000:]}"

    def end(self) -> None:
        """Whatever it does: it is gone afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it said in its present or last life."""
        return self._log(self.life).read_text(errors="replace")

    def events(self, name: str, *, life: int | None = None) -> Iterator[dict[str, object]]:
        """The lines called `name` of every life's log, or of one."""
        for number in range(1, self.life + 1) if life is None else (life,):
            for line in self._log(number).read_text(errors="replace").splitlines():
                if f'"{name}"' not in line:
                    continue
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # The end of a life in the middle of a line.
                if event.get("event") == name:
                    yield event

    def _log(self, life: int) -> Path:
        return self._folder / f"{self.name}-{life}.log"
