"""Inputs that were worth keeping: what comes with the project, and folders of users.

Gives   `kept`: for a target the inputs that stand in `interop/fuzz/corpus/TARGET/*.hex`, one a line
        in hex, `#` begins a comment; `read` and `add` for a folder of raw files, one an input, as
        libFuzzer and others have them
Raises  FuzzError where a folder cannot be used
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from interop.fuzz.crashes import FuzzError, load
from interop.fuzz.engine import CORPUS_MAX, Fuzzer
from interop.fuzz.target import Outcome, Target

LINE_SIZE: Final = 96
"""Hex digits in a line of a `.hex` file; an input goes on where a line ends in a backslash."""


def kept(target: str) -> Sequence[bytes]:
    """The inputs that come with the project for that target, in a fixed order."""
    folder = resources.files("interop.fuzz") / "corpus" / target
    if not folder.is_dir():
        return ()
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".hex")), key=str)
    return [data for file in files for data in parse(file.read_text(encoding="utf-8"))]


def parse(text: str) -> Sequence[bytes]:
    """The inputs in the text of a `.hex` file. Raises ValueError where one is no hex."""
    lines = (line.partition("#")[0].strip() for line in text.replace("\\\n", "").splitlines())
    return [b"" if line == "-" else bytes.fromhex(line) for line in lines if line]


def format_line(data: bytes) -> str:
    """An input as it stands in a `.hex` file; the empty one is `-`."""
    digits = data.hex() or "-"
    pieces = [digits[at : at + LINE_SIZE] for at in range(0, len(digits), LINE_SIZE)]
    return "\\\n".join(pieces)


def read(folder: Path) -> Sequence[bytes]:
    """The inputs in a folder of raw files, at most CORPUS_MAX, in the order of their names."""
    if not folder.exists():
        return ()
    try:
        files = sorted(one for one in folder.iterdir() if one.is_file())
    except OSError as error:
        raise FuzzError(f"{folder} cannot be read: {error.strerror or error}") from error
    return [load(file) for file in files[:CORPUS_MAX]]


def add(folder: Path, inputs: Iterable[bytes]) -> int:
    """Put inputs into a folder, each under its digest; how many were not there yet."""
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for data in inputs:
            file = folder / hashlib.sha256(data).hexdigest()[:24]
            if not file.exists():
                file.write_bytes(data)
                count += 1
    except OSError as error:
        raise FuzzError(f"{folder} cannot be written: {error.strerror or error}") from error
    return count


def distilled(target: Target, inputs: Iterable[bytes]) -> Sequence[bytes]:
    """As few of `inputs`, the short ones first, as together have the outcomes of all.

    Those that the target's own seeds have already need none. Raises what an input crashes with.
    """
    seen: set[Outcome] = set()
    for data in target.seeds():
        seen |= outcomes_of(target, data)
    few = []
    for data in sorted(dict.fromkeys(inputs), key=lambda one: (len(one), one)):
        outcomes = outcomes_of(target, data)
        if not outcomes <= seen:
            seen |= outcomes
            few.append(data)
    return few


def outcomes_of(target: Target, data: bytes) -> frozenset[Outcome]:
    """The outcomes of one run. Raises what it crashes with."""
    outcome = target.run(data)
    return outcome if isinstance(outcome, frozenset) else frozenset((outcome,))


def fuzzer(target: Target, *, seed: int, folder: Path | None = None) -> Fuzzer:
    """A fuzzer that begins with everything that is known about a target."""
    inputs = list(kept(target.name))
    if folder is not None:
        inputs += read(folder)
    return Fuzzer(target, seed=seed, corpus=inputs)
