"""The command `interop fuzz`: drive targets, say how it goes, keep what breaks.

Raises  FuzzError, one line: a target that is none, a file that cannot be used
Exit    0 nothing broke, also when Ctrl-C ended it; 1 a crash was found: one line says which
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

from interop.fuzz import corpus, guided, targets
from interop.fuzz.crashes import FuzzError, command, load, minimise, save
from interop.fuzz.engine import Crash, Fuzzer, no_hanging, probe_watched
from interop.fuzz.options import EVERY, SECONDS, Driver, Options
from interop.fuzz.target import Target

BATCH_S: Final = 0.1
"""Between two looks at the clock, about."""
SHOWN_EVERY_S: Final = 0.5
LOGGED_EVERY_S: Final = 10.0
"""The same where nobody watches: a line each time, and not the same line again."""


def fuzz(options: Options) -> int:
    """Do what was asked for; the exit code."""
    if options.is_list:
        width = max(map(len, targets.every()))
        for target in targets.every().values():
            print(f"{target.name:{width}}  {target.checks}")
        return 0
    if not options.names:
        raise FuzzError("no target; `interop fuzz --list` names them, `all` is all of them")
    chosen = (
        list(targets.every().values())
        if options.names == (EVERY,)
        else [targets.find(name) for name in options.names]
    )
    if options.replay:
        return _replay(chosen, options)
    if options.distil is not None and len(chosen) > 1:
        raise FuzzError("--distil writes one file: name one target")
    crash_count = 0
    for target in chosen:
        session = _Session(target, options, is_alone=len(chosen) == 1)
        try:
            crash_count += session.run()
        except KeyboardInterrupt:
            session.interrupted()
            break
    return 1 if crash_count else 0


def _replay(chosen: list[Target], options: Options) -> int:
    crash_count = 0
    for target in chosen:
        for file in options.replay:
            data = load(file)
            crash = probe_watched(target, data, seed=options.seed)
            if crash is None:
                print(f"{target.name}: {file}: nothing broke ({len(data)} octets)")
                continue
            crash_count += 1
            print(crash.trace, end="", flush=True)
            if options.minimise:
                report(target, crash, options)
            else:
                print(f"interop: {target.name}: {crash}", file=sys.stderr, flush=True)
    return 1 if crash_count else 0


def report(target: Target, crash: Crash, options: Options) -> None:
    """Make a crash small, save it, and say so in one line on standard error."""
    found_size = len(crash.data)
    if options.minimise:
        crash = minimise(target, crash)
    file = save(crash, options.crashes, found_size=found_size)
    shorter = f", made of {found_size}" if len(crash.data) < found_size else ""
    print(
        f"interop: {target.name}: {crash} (seed {crash.seed}, run {crash.run}, "
        f"{len(crash.data)} octets{shorter}); again: {command(target.name, file)}",
        file=sys.stderr,
        flush=True,
    )


@dataclass(slots=True)
class _Session:
    """One target, driven for as long as was asked."""

    target: Target
    options: Options
    is_alone: bool
    fuzzer: Fuzzer = field(init=False)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.target.name, sys.stdout)
        folder = self._folder()
        self.fuzzer = corpus.fuzzer(self.target, seed=self.options.seed, folder=folder)

    def run(self) -> int:
        """Drive it; how many crashes there were, which is at most one."""
        driver = self.options.driver
        if driver is Driver.ATHERIS and not guided.is_installed():
            raise FuzzError("atheris is not installed: pip install atheris, or --driver seeded")
        is_guided = driver is Driver.ATHERIS or (
            driver is Driver.AUTO and guided.is_installed() and self.options.distil is None
        )
        with no_hanging(lambda: self.fuzzer.beat_count):
            crash = self.fuzzer.replay()
        if crash is None:
            crash = self._guided() if is_guided else self._seeded()
        self._keep()
        self.progress.end(self.fuzzer)
        if crash is None:
            return 0
        report(self.target, crash, self.options)
        return 1

    def interrupted(self) -> None:
        """Ctrl-C: keep what was found, and end as if it were time."""
        self._keep()
        self.progress.end(self.fuzzer, "interrupted")

    def _seeded(self) -> Crash | None:
        begun = time.monotonic()
        fuzzer, runs = self.fuzzer, self.options.runs
        seconds = None if runs is not None else self._seconds()
        batch = 16
        with no_hanging(lambda: fuzzer.beat_count):
            while True:
                now = time.monotonic()
                if runs is not None:
                    left = runs - fuzzer.run_count
                    if left <= 0:
                        return None
                    batch = min(batch, left)
                elif seconds is not None and now - begun >= seconds:
                    return None
                crash = fuzzer.mutate(batch)
                if crash is not None:
                    return crash
                took = time.monotonic() - now
                batch = max(1, min(batch * 2, 100_000) if took < BATCH_S / 2 else batch // 2 or 1)
                self.progress.show(fuzzer)

    def _guided(self) -> Crash | None:
        job = guided.Job(
            self.target,
            seed=self.options.seed,
            seconds=None if self.options.runs is not None else self._seconds(),
            runs=self.options.runs,
        )
        return guided.drive(job, self.fuzzer, self.progress.show)

    def _seconds(self) -> float:
        return SECONDS if self.options.seconds is None else self.options.seconds

    def _folder(self) -> Path | None:
        folder = self.options.corpus
        return folder if folder is None or self.is_alone else folder / self.target.name

    def _keep(self) -> None:
        folder = self._folder()
        if folder is not None:
            corpus.add(folder, self.fuzzer.corpus)
        if self.options.distil is not None:
            few = corpus.distilled(self.target, self.fuzzer.corpus)
            text = "".join(f"{corpus.format_line(data)}\n" for data in few)
            try:
                self.options.distil.write_text(text, encoding="ascii")
            except OSError as error:
                raise FuzzError(
                    f"{self.options.distil} cannot be written: {error.strerror or error}"
                ) from error


class Progress:
    """The line that says how it goes: in place on a terminal, now and then elsewhere."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._begun = self._shown = time.monotonic()

    def show(self, fuzzer: Fuzzer) -> None:
        """Say how it goes, unless that was said just now."""
        now = time.monotonic()
        if now - self._shown >= (SHOWN_EVERY_S if self._is_terminal else LOGGED_EVERY_S):
            self._shown = now
            self._write(fuzzer, "\r" if self._is_terminal else "\n")

    def end(self, fuzzer: Fuzzer, remark: str = "") -> None:
        """Say how it went."""
        self._write(fuzzer, "\n", remark)

    def _write(self, fuzzer: Fuzzer, end: str, remark: str = "") -> None:
        took = max(time.monotonic() - self._begun, 1e-6)
        line = (
            f"{self._name:18} {fuzzer.run_count:>11,} runs {fuzzer.run_count / took:>9,.0f}/s  "
            f"corpus {len(fuzzer.corpus):>5,}  outcomes {len(fuzzer.outcomes):>6,}  {took:>7.1f} s"
            f"{'  ' + remark if remark else ''}"
        )
        self._stream.write(f"{line:<90}{end}" if self._is_terminal else f"{line}{end}")
        self._stream.flush()
