"""The container recipes, as far as they can be judged without running one.

The contract under test: every instruction is one that builders know, what is copied exists, every
shell line parses, and the commands that a container runs, and those that the recipe tells a person,
are ones that the programs understand; nothing runs as root.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from headend.cli.main import _parser as headend_parser
from meterd.cli import _parser as meterd_parser

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "packaging" / "container"
PARSERS: Final[Mapping[str, argparse.ArgumentParser]] = {
    "meterd": meterd_parser(),
    "headend": headend_parser(),
}
NAMES: Final = tuple(PARSERS)
INSTRUCTIONS: Final = {
    "ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL",
    "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip


def _recipe(name: str) -> list[tuple[str, str]]:
    """Instruction and the rest of its line, continuations joined, comments left out."""
    text = (FOLDER / f"Containerfile.{name}").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [(word, rest) for line in joined if line for word, _, rest in [line.partition(" ")]]


def _all(name: str, instruction: str) -> list[str]:
    return [rest for word, rest in _recipe(name) if word == instruction]


@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_is_known(name: str) -> None:
    assert {word for word, _ in _recipe(name)} <= INSTRUCTIONS
    assert _recipe(name)[0][0] == "ARG"
    assert len(_all(name, "FROM")) == 2


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_there(name: str) -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    copied: set[str] = set()
    for rest in _all(name, "COPY"):
        *sources, _ = rest.split()
        if sources[0] == "--from=build":
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            copied.add(source)
    assert set(packages["targets"]["wheel"]["packages"]) <= copied
    assert {"pyproject.toml", "constraints.txt", "README.md"} <= copied


@pytest.mark.parametrize("name", NAMES)
def test_shell_lines_parse_and_install_what_is_pinned(name: str) -> None:
    for rest in _all(name, "RUN"):
        subprocess.run(["sh", "-n", "-c", rest], check=True, timeout=10)
    (install,) = [rest for rest in _all(name, "RUN") if "pip install" in rest]
    assert "-c constraints.txt" in install
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = re.search(r"'\.\[([a-z,]+)\]'", install)
    assert wanted is not None
    assert set(wanted[1].split(",")) <= set(extras["optional-dependencies"])


@pytest.mark.parametrize("name", NAMES)
def test_container_runs_commands_that_exist_and_not_as_root(name: str) -> None:
    (entry,), (command,), (user,) = (_all(name, word) for word in ("ENTRYPOINT", "CMD", "USER"))
    program, *arguments = [*json.loads(entry), *json.loads(command)]
    assert program == name
    PARSERS[name].parse_args(arguments)
    (health,) = _all(name, "HEALTHCHECK")
    program, *arguments = json.loads(health.partition("CMD ")[2])
    assert program == name
    PARSERS[name].parse_args(arguments)
    assert user == name
    assert "--uid" in " ".join(_all(name, "RUN"))
    words = [word for word, _ in _recipe(name)]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert _all(name, "STOPSIGNAL") == ["SIGTERM"]
    # Settings are looked for where the volume is.
    assert _all(name, "WORKDIR")[-1] == _all(name, "VOLUME")[0] == f"/var/lib/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_a_recipe_tells_are_understood(name: str) -> None:
    text = (FOLDER / f"Containerfile.{name}").read_text(encoding="utf-8")
    told = [line[1:].strip() for line in text.splitlines() if line.startswith("#   podman")]
    assert len(told) >= 3
    for line in told:
        words = shlex.split(line)
        assert words[:2] in (["podman", "build"], ["podman", "run"], ["podman", "exec"])
        if words[1] == "build":
            assert (ROOT / words[words.index("-f") + 1]).is_file()
        elif name in words[-4:]:
            arguments = words[len(words) - words[::-1].index(name) :]
            if arguments:
                PARSERS[name].parse_args(arguments)
