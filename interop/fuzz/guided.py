"""Let atheris drive a target: inputs guided by which code they reach.

Atheris is libFuzzer for Python. It takes its process for itself and ends it as it likes, so it gets
one of its own (`atheris_child`); what it finds comes back as files.

Raises  FuzzError when that process does not start
"""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from interop.fuzz import corpus
from interop.fuzz.crashes import FuzzError, load
from interop.fuzz.engine import HANG_S, Crash, Fuzzer, probe_watched
from interop.fuzz.target import Target

CHILD: Final = "interop.fuzz.atheris_child"
ARTIFACTS: Final = ("crash-", "timeout-", "oom-", "leak-")
SAID_COUNT_MAX: Final = 40
"""Lines of the child that are kept, to tell why it ended."""
GRACE_S: Final = 10.0

_STATUS: Final = re.compile(r"#(\d+)\s+\w+.*corp: (\d+)")


@dataclass(frozen=True, slots=True)
class Job:
    """What atheris is to do; without `seconds` and `runs` it goes on until it is stopped."""

    target: Target
    seed: int
    seconds: float | None
    runs: int | None


def is_installed() -> bool:
    """Whether there is an atheris for this interpreter."""
    return importlib.util.find_spec("atheris") is not None


def drive(job: Job, fuzzer: Fuzzer, show: Callable[[Fuzzer], None]) -> Crash | None:
    """Run it to its end; the crash that it found. Its corpus is the fuzzer's then.

    `fuzzer` has run its seeds already; `show` is called as often as the child says how it goes.
    """
    if job.seconds == 0 or job.runs == 0:
        return None
    with tempfile.TemporaryDirectory(prefix="interop-fuzz-") as name:
        folder = Path(name)
        inputs = folder / "corpus"
        corpus.add(inputs, fuzzer.corpus)
        said = _run(job, folder, fuzzer, show)
        _take_over(fuzzer, inputs)
        found = sorted(one for one in folder.iterdir() if one.name.startswith(ARTIFACTS))
        if not found:
            return None
        data = load(found[0])
    crash = probe_watched(job.target, data, seed=job.seed)
    if crash is None:
        return Crash(
            job.target.name,
            data,
            "OnlyUnderAtheris",
            "nowhere known",
            said[-1] if said else "",
            "\n".join(said) + "\n",
            job.seed,
            fuzzer.run_count,
        )
    return replace(crash, run=fuzzer.run_count)


def arguments(job: Job, folder: Path) -> list[str]:
    """The child's command line."""
    words = [
        sys.executable,
        "-m",
        CHILD,
        job.target.name,
        str(folder / "corpus"),
        f"-seed={job.seed % 0xFFFFFFFF or 1}",
        f"-max_len={job.target.size_max}",
        f"-timeout={HANG_S}",
        f"-artifact_prefix={folder}/",
        "-print_pcs=0",
    ]
    if job.seconds is not None:
        words.append(f"-max_total_time={math.ceil(job.seconds)}")
    if job.runs is not None:
        words.append(f"-runs={job.runs}")
    if job.target.tokens:
        dictionary = folder / "tokens"
        dictionary.write_text(
            "".join(f'"{_escaped(token)}"\n' for token in job.target.tokens if token),
            encoding="ascii",
        )
        words.append(f"-dict={dictionary}")
    return words


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in token)


def _run(job: Job, folder: Path, fuzzer: Fuzzer, show: Callable[[Fuzzer], None]) -> list[str]:
    """Start the child and follow it to its end; the last lines that it said."""
    try:
        child = subprocess.Popen(
            arguments(job, folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise FuzzError(f"atheris cannot be started: {error.strerror or error}") from error
    said: list[str] = []
    try:
        assert child.stderr is not None
        _follow(child.stderr, said, fuzzer, show)
        code = child.wait()
    except BaseException:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        _take_over(fuzzer, folder / "corpus")
        raise
    finally:
        if child.stderr is not None:
            child.stderr.close()
    has_found = any(one.name.startswith(ARTIFACTS) for one in folder.iterdir())
    if code and not has_found:
        raise FuzzError(f"atheris ended with {code}: {said[-1] if said else 'nothing said'}")
    return said


def _follow(
    stream: IO[str], said: list[str], fuzzer: Fuzzer, show: Callable[[Fuzzer], None]
) -> None:
    for line in stream:
        status = _STATUS.match(line)
        if status is None:
            said.append(line.rstrip())
            del said[:-SAID_COUNT_MAX]
            continue
        fuzzer.run_count = int(status[1])
        show(fuzzer)


def _take_over(fuzzer: Fuzzer, inputs: Path) -> None:
    """What atheris kept is the fuzzer's corpus, too; a crash among it comes as an artifact."""
    fuzzer.take(corpus.read(inputs))
    fuzzer.replay()
