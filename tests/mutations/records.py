"""Recorded mutations: defects that somebody could make, each with the test that must notice it.

A record is a `[[mutation]]` of a TOML file beside this module:

    name          its own, in words with hyphens
    requirement   the id whose test it is; left out where the catalogue has no row for it
    test          the node id of the test, all cases of it
    file          the module that is changed
    find          the text in it that is replaced: there exactly once
    replace       what stands there instead
    breaks        what goes wrong then, in one line
    mentions      what is in the failing lines, so that it fails for this reason and no other
    raises        the exception that ends the test, where that is no failed assertion

Raises  RecordError, one line with the file and the name of the record
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parents[1]
OPTIONAL: Final = frozenset({"requirement", "raises", "replace"})


class RecordError(Exception):
    """A record that cannot be used any more, or never could; the message is one line."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One record, and the TOML file that it is from."""

    source: str
    name: str
    test: str
    file: str
    find: str
    replace: str
    breaks: str
    mentions: str
    requirement: str | None = None
    raises: str | None = None

    def __str__(self) -> str:
        return f"{self.source}: {self.name}"


KEYS: Final = frozenset(field.name for field in fields(Mutation)) - {"source"}


def read_records(folder: Path = FOLDER) -> list[Mutation]:
    """All records of a folder. Raises RecordError."""
    found: dict[str, Mutation] = {}
    for path in sorted(folder.glob("*.toml")):
        for row in _rows_of(path):
            one = _mutation(path.name, row)
            if one.name in found:
                raise RecordError(f"{one}: {found[one.name].source} has one of that name, too")
            found[one.name] = one
    return list(found.values())


def _rows_of(path: Path) -> Iterable[Mapping[str, object]]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path.name}: {error}") from error
    rows = tree.pop("mutation", [])
    if tree or not isinstance(rows, list):
        raise RecordError(f"{path.name}: expected [[mutation]] and nothing else")
    return rows


def _mutation(source: str, row: Mapping[str, object]) -> Mutation:
    texts = {key: value for key, value in row.items() if isinstance(value, str) and value}
    where = f"{source}: {texts.get('name', 'a mutation without a name')}"
    if strange := sorted(row.keys() - texts.keys() - {"replace"}):
        raise RecordError(f"{where}: {strange[0]} is no text")
    if unknown := sorted(texts.keys() - KEYS):
        raise RecordError(f"{where}: {unknown[0]} is no key of a record")
    if missing := sorted(KEYS - texts.keys() - OPTIONAL):
        raise RecordError(f"{where}: {missing[0]} is missing")
    if "replace" not in row:
        raise RecordError(f"{where}: replace is missing")
    return Mutation(source, **{"replace": "", **texts})


def mutated(one: Mutation, root: Path) -> str:
    """The text of the module with the mutation in it. Raises RecordError if it does not apply."""
    path = root / one.file
    if not path.is_file():
        raise RecordError(f"{one}: there is no {one.file}")
    text = path.read_text(encoding="utf-8")
    count = text.count(one.find)
    if count != 1:
        shown = one.find.strip().splitlines()[0]
        raise RecordError(
            f"{one}: its text is in {one.file} {count} times, expected once: {shown!r}"
        )
    changed = text.replace(one.find, one.replace)
    try:
        is_same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text))
    except SyntaxError as error:
        raise RecordError(f"{one}: {one.file} is no Python then: {error.msg}") from error
    if is_same:
        raise RecordError(f"{one}: it changes nothing that runs")
    return changed


def chosen(every: Iterable[Mutation], wanted: Iterable[str]) -> list[Mutation]:
    """Those whose name, requirement or file of records is wanted; all if nothing is.

    Raises RecordError for a word that chooses nothing.
    """
    words, found = list(wanted), list(every)
    for word in words:
        if not any(_answers_to(one, word) for one in found):
            raise RecordError(f"{word} is no name, requirement or file of a recorded mutation")
    return [one for one in found if not words or any(_answers_to(one, word) for word in words)]


def _answers_to(one: Mutation, word: str) -> bool:
    return word in (one.name, one.requirement, one.source, one.source.removesuffix(".toml"))
