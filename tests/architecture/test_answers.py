"""docs/operating/answers.md says what is answered in every case, and which test shows it.

The contract under test: every row of its tables has all columns, and ends with the name of a test
that exists.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ANSWERS: Final = ROOT / "docs" / "operating" / "answers.md"
COLUMNS: Final = (
    "case",
    "where refused",
    "code or text",
    "what is kept",
    "counter",
    "shown by",
)
NODE: Final = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)(?:\[[^`]*\])?`")


def rows_in(text: str) -> Iterator[tuple[int, list[str]]]:
    """Every row of every table, header and rule included, with its line."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("|"):
            yield number, [cell.strip() for cell in line.strip().strip("|").split("|")]


def functions_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def faults_of(text: str, root: Path) -> list[str]:
    """What is wrong with the tables."""
    faults = []
    for number, cells in rows_in(text):
        if tuple(cells) == COLUMNS or set("".join(cells)) <= set("-: "):
            continue
        if len(cells) != len(COLUMNS) or not all(cells):
            faults.append(f"line {number}: {len(cells)} columns, or an empty one")
            continue
        node = NODE.fullmatch(cells[-1])
        if node is None:
            faults.append(f"line {number}: {cells[-1]!r} names no test")
        elif not (root / node["file"]).is_file():
            faults.append(f"line {number}: there is no {node['file']}")
        elif node["test"] not in functions_in(root / node["file"]):
            faults.append(f"line {number}: {node['file']} has no {node['test']}")
    return faults


HERE: Final = "tests/architecture/test_answers.py"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f"| a | b | c | d | e | `{HERE}::test_that_is_none` |", "has no test_that_is_none"),
        ("| a | b | c | d | e | `tests/none.py::test_x` |", "there is no tests/none.py"),
        ("| a | b | c | d | e | seen |", "names no test"),
        (f"| a | b | c | d | `{HERE}::test_every_row_names_a_test` |", "5 columns"),
        (f"| a |  | c | d | e | `{HERE}::test_every_row_names_a_test` |", "an empty one"),
    ],
)
def test_row_that_shows_nothing_is_recognised(row: str, said: str) -> None:
    (fault,) = faults_of(row, ROOT)
    assert said in fault


def test_every_row_names_a_test() -> None:
    text = ANSWERS.read_text(encoding="utf-8")
    assert len(list(rows_in(text))) > 20
    assert not faults_of(text, ROOT)
