"""Rules of the house that no other tool checks.

The contract under test: nothing in the project names the machine it was written on;
pinned versions come from no particular registry; every shipped module introduces itself
and stays small enough to read; protocol code takes time and chance as arguments; the
decision records look alike and are all in their index.

Each rule is a function from text to what is wrong with it, tried first on a text that breaks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SHIPPED: Final = ("amistack", "mesh", "headend", "meterd", "interop")
DECISIONS: Final = ROOT / "docs" / "decisions"
MODULE_LINES_MAX: Final = 1000

BUILT: Final = {"build", "dist", "__pycache__"}
HIDDEN_BUT_OURS: Final = {".ci", ".github", ".gitignore"}

MACHINE_PATH: Final = re.compile(
    rb"(?<![\w.:/~-])/(?:home|root|work|workspace|Users|builds)/[\w.]|[A-Z]:\\Users\\"
)
PIN: Final = re.compile(r"[A-Za-z0-9._-]+(?:\[[a-z0-9,_-]+\])?==[A-Za-z0-9.!+_-]+(?: ; [^:/@]+)?")
RECORD_NAME: Final = re.compile(r"(\d{4})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
RECORD_START: Final = re.compile(
    r"# (?P<number>\d+)\. (?P<title>[^\n]+)\n\n"
    r"\| date \| status \| concerns \|\n\|---\|---\|---\|\n"
    r"\| (?P<date>\d{4}-\d\d-\d\d) "
    r"\| (?P<status>accepted|superseded by \d+|withdrawn) "
    r"\| (?P<concerns>[^|\n]+) \|\n"
)
RECORD_SECTIONS: Final = ["Context", "Decision", "Consequences", "Instead of"]


def project_files(folder: Path = ROOT) -> Iterator[Path]:
    """Every file that is ours: neither built, nor hidden, nor an environment."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.name not in HIDDEN_BUT_OURS:
            continue
        if path.name in BUILT or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            if not (path / "pyvenv.cfg").exists():
                yield from project_files(path)
        else:
            yield path


def shipped_modules() -> list[Path]:
    return [path for name in SHIPPED for path in sorted((ROOT / name).rglob("*.py"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def found_in(text: bytes, pattern: re.Pattern[bytes]) -> list[str]:
    return [
        f"line {number}: {line.strip().decode(errors='replace')[:100]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize(
    "parts", [("", "work", "main"), ("", "home", "pi"), ("", "root", "x"), ("C:", "Users", "x")]
)
def test_path_of_a_machine_is_recognised(parts: tuple[str, ...]) -> None:
    path = ("\\" if parts[0] else "/").join(parts).encode()
    assert found_in(b"see " + path, MACHINE_PATH)
    assert found_in(b'"' + path + b'"', MACHINE_PATH)


@pytest.mark.parametrize("text", [b"coap://head-end/work/a", b"docs/work/a.md", b"~/work/a", b"/"])
def test_other_paths_are_left_alone(text: bytes) -> None:
    assert not found_in(text, MACHINE_PATH)


def test_no_file_names_the_machine_it_was_written_on() -> None:
    files = list(project_files())
    assert Path(__file__) in files
    assert ROOT / "pyproject.toml" in files
    found = [
        f"{named(path)} {line}"
        for path in files
        for line in found_in(path.read_bytes(), MACHINE_PATH)
    ]
    assert not found, "\n".join(found)


def strange_pins(text: str) -> list[str]:
    """Lines that are more, or less, than a name and a version."""
    return [line for line in text.splitlines() if not PIN.fullmatch(line)]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://registry.example/simple",
        "cbor2 @ https://registry.example/cbor2-5.9.0.whl",
        "cbor2>=5.9",
        "    # via amistack (https://registry.example)",
    ],
)
def test_constraint_that_is_not_a_pin_is_recognised(line: str) -> None:
    assert strange_pins(f"cbor2==5.9.0\n{line}\n") == [line]


def test_constraints_are_names_and_versions_only() -> None:
    assert strange_pins((ROOT / "constraints.txt").read_text(encoding="utf-8")) == []


def lacks_introduction(path: Path) -> bool:
    """Whether a module says nothing about itself. A package with nothing in it need not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    is_empty_package = path.name == "__init__.py" and not tree.body and is_alone(path)
    return ast.get_docstring(tree) is None and not is_empty_package


def is_alone(path: Path) -> bool:
    return all(other == path for other in path.parent.glob("*.py"))


def test_module_without_a_docstring_is_recognised(tmp_path: Path) -> None:
    package = tmp_path / "__init__.py"
    package.touch()
    assert not lacks_introduction(package)
    module = tmp_path / "codec.py"
    module.write_text('from __future__ import annotations\n\n"""Too late."""\n', encoding="utf-8")
    assert lacks_introduction(module)
    assert lacks_introduction(package)


def test_every_shipped_module_introduces_itself() -> None:
    silent = [named(path) for path in shipped_modules() if lacks_introduction(path)]
    assert not silent, f"no docstring: {', '.join(silent)}"


def test_no_shipped_module_is_too_long_to_read() -> None:
    long = [
        f"{named(path)}: {count} lines, at most {MODULE_LINES_MAX}"
        for path in shipped_modules()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES_MAX
    ]
    assert not long, "\n".join(long)


# What gives the time of day or an unrepeatable number, by its module. `None`: all of the module.
AMBIENT: Final[dict[str, frozenset[str] | None]] = {
    "time": None,
    "secrets": None,
    "os": frozenset({"urandom", "getrandom"}),
    "uuid": frozenset({"uuid1", "uuid4"}),
    "datetime": frozenset({"now", "utcnow", "today"}),
}
RANDOM_ALLOWED: Final = frozenset({"Random"})


def is_ambient(module: str, name: str) -> bool:
    if module == "random":
        return name not in RANDOM_ALLOWED
    forbidden = AMBIENT.get(module, frozenset())
    return forbidden is None or name in forbidden


def ambient_uses(source: str) -> list[str]:
    """Where `source` reads a clock or draws chance that nobody handed to it."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}  # the local name of each module, or of a class taken from it
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = alias.name
                if AMBIENT.get(alias.name, frozenset()) is None:
                    found.append((node.lineno, f"import {alias.name}"))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if is_ambient(node.module, alias.name):
                    found.append((node.lineno, f"from {node.module} import {alias.name}"))
                elif node.module == "datetime":
                    modules[alias.asname or alias.name] = "datetime"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            module = modules.get(owner) or modules.get(owner.split(".", maxsplit=1)[0])
            if module is not None and is_ambient(module, node.attr):
                found.append((node.lineno, f"{owner}.{node.attr}"))
    return [f"line {line}: {what}" for line, what in sorted(found)]


@pytest.mark.parametrize(
    ("source", "use"),
    [
        ("import time", "import time"),
        ("from time import monotonic", "from time import monotonic"),
        ("import random\nrandom.random()", "random.random"),
        ("import random as dice\ndice.randint(1, 6)", "dice.randint"),
        ("import random\nrandom.SystemRandom()", "random.SystemRandom"),
        ("from random import choice", "from random import choice"),
        ("import os\nos.urandom(8)", "os.urandom"),
        ("from datetime import UTC, datetime\ndatetime.now(UTC)", "datetime.now"),
        ("import datetime\ndatetime.date.today()", "datetime.date.today"),
        ("def f():\n    from secrets import token_bytes", "from secrets import token_bytes"),
    ],
)
def test_clock_and_dice_are_recognised(source: str, use: str) -> None:
    assert [found.split(": ")[1] for found in ambient_uses(source)] == [use]


@pytest.mark.parametrize(
    "source",
    [
        "import random\ndef f(dice: random.Random) -> float: return dice.random()",
        "from random import Random\nRandom(7).random()",
        "import datetime\ndatetime.datetime.fromtimestamp(0, datetime.UTC)",
        "import os\nos.fspath('x')",
        "self.time.now()",
    ],
)
def test_time_and_chance_as_arguments_are_left_alone(source: str) -> None:
    assert ambient_uses(source) == []


def test_protocol_code_takes_time_and_chance_as_arguments() -> None:
    links = ROOT / "amistack" / "links"
    found = [
        f"{named(path)} {use}"
        for path in sorted((ROOT / "amistack").rglob("*.py"))
        if links not in path.parents
        for use in ambient_uses(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def record_faults(name: str, text: str) -> list[str]:
    """What is wrong with the form of the decision record `name`."""
    file_number = RECORD_NAME.fullmatch(name)
    start = RECORD_START.match(text)
    if file_number is None:
        return [f"{name}: expected NNNN-some-words.md"]
    if start is None:
        return [f"{name}: expected the title and the table that docs/decisions/README.md shows"]
    faults = []
    if int(file_number[1]) != int(start["number"]):
        faults.append(f"{name}: its title has number {start['number']}")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    if sections != RECORD_SECTIONS:
        faults.append(f"{name}: sections {sections}, expected {RECORD_SECTIONS}")
    return faults


def index_of(records: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of the index for records given as name and text."""
    return [
        f"| [{name[:4]}]({name}) | {start['title']} | {start['date']} | {start['status']} "
        f"| {start['concerns']} |"
        for name, text in records
        if (start := RECORD_START.match(text))
    ]


def read_records() -> list[tuple[str, str]]:
    return [
        (path.name, path.read_text(encoding="utf-8"))
        for path in sorted(DECISIONS.glob("*.md"))
        if path.name != "README.md"
    ]


RECORD: Final = (
    "# 3. Machines take time from outside\n\n"
    "| date | status | concerns |\n|---|---|---|\n| 2026-11-20 | accepted | amistack, mesh |\n\n"
    "## Context\nA.\n\n## Decision\nB.\n\n## Consequences\nC.\n\n## Instead of\nD.\n"
)


def test_record_in_form_has_no_fault() -> None:
    assert record_faults("0003-machines.md", RECORD) == []
    (line,) = index_of([("0003-machines.md", RECORD)])
    assert line == (
        "| [0003](0003-machines.md) | Machines take time from outside | 2026-11-20 | accepted "
        "| amistack, mesh |"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("3-machines.md", RECORD),
        ("0004-machines.md", RECORD),
        ("0003-machines.md", RECORD.replace("| accepted |", "| agreed |")),
        ("0003-machines.md", RECORD.replace("| date | status | concerns |\n", "")),
        ("0003-machines.md", RECORD.replace("## Instead of\n", "")),
    ],
)
def test_record_out_of_form_is_recognised(name: str, text: str) -> None:
    assert record_faults(name, text)


def test_decision_records_have_the_form() -> None:
    records = read_records()
    faults = [fault for name, text in records for fault in record_faults(name, text)]
    assert not faults, "\n".join(faults)
    numbers = [name[:4] for name, _ in records]
    assert len(set(numbers)) == len(numbers), f"a number is used twice: {numbers}"


def test_index_of_decisions_lists_every_record() -> None:
    readme = (DECISIONS / "README.md").read_text(encoding="utf-8")
    index = readme.split("## Index", maxsplit=1)[1]
    lines = [line for line in index.splitlines() if line.startswith("| [")]
    expected = index_of(read_records())
    assert lines == expected, "the index should read:\n" + "\n".join(expected)
