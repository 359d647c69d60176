"""Ties tests to the requirements catalogue in docs/requirements.

Gives   the mark `requirement(*ids)`, checked while tests are collected, and the option
        `--requirements`: which test shows which requirement, printed and in build/requirements.json
Raises  a collection error at a test whose ids are unknown, not strings, or too many;
        `UsageError` where the catalogue itself cannot be read
Limit   at most IDS_PER_TEST_MAX ids on one test, so that a mark stays a claim somebody can check
Never   writes from a worker of a distributed run, or runs a test when only the report is wanted
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import pytest

CATALOGUE_FOLDER: Final = Path("docs", "requirements")
REPORT_FILE: Final = Path("build", "requirements.json")
IDS_PER_TEST_MAX: Final = 4
MARK: Final = "requirement"

TestsById: TypeAlias = Mapping[str, Sequence[str]]


class CatalogueError(Exception):
    """The catalogue cannot be read, or names two requirements alike."""


@dataclass(frozen=True, slots=True)
class Document:
    """One file of the catalogue: the ids in it, in its order."""

    name: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every requirement this project answers to."""

    documents: tuple[Document, ...]
    ids: frozenset[str]

    def nearest(self, wanted: str) -> str | None:
        """The id most like `wanted`, or None if nothing is."""
        found = difflib.get_close_matches(wanted, sorted(self.ids), n=1)
        return found[0] if found else None


def read_catalogue(folder: Path) -> Catalogue:
    """The catalogue in the TOML files of `folder`. Raises CatalogueError."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise CatalogueError(f"no *.toml in {folder}, expected the requirements catalogue")
    owners: dict[str, str] = {}
    documents = []
    for file in files:
        ids = _ids_in(file)
        for id_ in ids:
            if id_ in owners:
                raise CatalogueError(f"{id_} is in {owners[id_]} and in {file.name}")
            owners[id_] = file.name
        documents.append(Document(file.stem.upper(), ids))
    return Catalogue(tuple(documents), frozenset(owners))


def _ids_in(file: Path) -> tuple[str, ...]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        ids = [str(row["id"]) for row in content.get("requirement", ())]
        services = [_service_id(row) for row in content.get("service", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogueError(f"{file.name}: {error!r}") from error
    repeated = [id_ for id_, count in Counter(ids).items() if count > 1]
    if repeated:
        raise CatalogueError(f"{file.name} has {repeated[0]} more than once")
    # Rows of one service that differ only in the scenario have one name.
    return (*ids, *dict.fromkeys(services))


def _service_id(row: Mapping[str, str]) -> str:
    return ":".join((row["requirement"], row["verb"], row["name"], row["provider"]))


def ids_of(item: pytest.Item) -> tuple[str, ...]:
    """The ids on `item`, its class and its module, each once; what is not a string is left out."""
    given = (arg for mark in item.iter_markers(MARK) for arg in mark.args)
    return tuple(dict.fromkeys(arg for arg in given if isinstance(arg, str)))


def faults_of(item: pytest.Item, catalogue: Catalogue) -> list[str]:
    """What is wrong with the marks of `item`; one line each."""
    faults = []
    for mark in item.iter_markers(MARK):
        if mark.kwargs or not mark.args:
            faults.append("takes one or more ids and nothing else")
        faults += [
            f"{arg!r} is not an id: expected a string"
            for arg in mark.args
            if not isinstance(arg, str)
        ]
    ids = ids_of(item)
    for id_ in ids:
        if id_ not in catalogue.ids:
            near = catalogue.nearest(id_)
            hint = "" if near is None else f"; nearest is {near!r}"
            faults.append(f"{id_!r} is not in the catalogue{hint}")
    if len(ids) > IDS_PER_TEST_MAX:
        faults.append(f"{len(ids)} ids, at most {IDS_PER_TEST_MAX}: {', '.join(ids)}")
    return faults


def tests_by_id(items: Iterable[pytest.Item], catalogue: Catalogue) -> TestsById:
    """For every id of the catalogue the tests that carry it, in order of collection.

    A parametrised test stands under its own name where every case of it carries the id, and
    case by case otherwise.
    """
    items = list(items)
    case_counts = Counter(_test_name(item) for item in items)
    cases: dict[str, dict[str, list[str]]] = {id_: {} for id_ in catalogue.ids}
    for item in items:
        for id_ in ids_of(item):
            if id_ in cases:
                cases[id_].setdefault(_test_name(item), []).append(item.nodeid)
    return {
        id_: [
            name
            for test, nodes in cases[id_].items()
            for name in ([test] if len(nodes) == case_counts[test] else nodes)
        ]
        for document in catalogue.documents
        for id_ in document.ids
    }


def _test_name(item: pytest.Item) -> str:
    if isinstance(item, pytest.Function) and item.parent is not None:
        return f"{item.parent.nodeid}::{item.originalname}"
    return item.nodeid


# What follows is pytest's side: options, marks, hooks.

_CATALOGUE: Final = pytest.StashKey[Catalogue]()
_REPORT: Final = pytest.StashKey[TestsById]()
_FAULTS: Final = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("requirements").addoption(
        "--requirements",
        action="store_true",
        help="print which test shows which requirement and write it to "
        f"{REPORT_FILE.as_posix()}; runs no test",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # This early, because `pytest_configure` is where workers are started, or are not.
    if config.getoption("requirements"):
        config.option.collectonly = True


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARK}(*ids): the test shows these requirements of docs/requirements; "
        f"at most {IDS_PER_TEST_MAX}",
    )


def _catalogue_of(config: pytest.Config) -> Catalogue:
    if _CATALOGUE not in config.stash:
        config.stash[_CATALOGUE] = read_catalogue(config.rootpath / CATALOGUE_FOLDER)
    return config.stash[_CATALOGUE]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, object, object]:
    """Refuse a badly marked test here, where that is an error of its module, on workers too."""
    made = yield
    candidates = made if isinstance(made, list) else [made]
    faults: dict[str, None] = {}
    for item in candidates:
        if not isinstance(item, pytest.Item) or item.get_closest_marker(MARK) is None:
            continue
        try:
            catalogue = _catalogue_of(collector.config)
        except CatalogueError as error:
            raise pytest.Collector.CollectError(f"requirements catalogue: {error}") from error
        faults |= dict.fromkeys(faults_of(item, catalogue))
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise pytest.Collector.CollectError(f"{collector.nodeid}::{name}: mark {MARK}:\n{lines}")
    return made


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> Generator[None]:
    config = session.config
    if not config.getoption("requirements") or hasattr(config, "workerinput"):
        return (yield)
    try:
        catalogue = _catalogue_of(config)
    except CatalogueError as error:
        raise pytest.UsageError(f"requirements catalogue: {error}") from error
    # Marks that a hook put on afterwards have not passed the check at collection.
    config.stash[_FAULTS] = [
        f"{item.nodeid}: {fault}" for item in session.items for fault in faults_of(item, catalogue)
    ]
    config.stash[_REPORT] = tests_by_id(session.items, catalogue)
    _write(config.rootpath / REPORT_FILE, config.stash[_REPORT])
    # The terminal would list every test; it is shown none, and counts them all the same.
    items, session.items = session.items, []
    try:
        return (yield)
    finally:
        session.items = items


def _write(file: Path, report: TestsById) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {id_: {"tests": list(tests)} for id_, tests in report.items()}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(_FAULTS, []):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    report = config.stash.get(_REPORT, None)
    if report is None:
        return
    write = terminalreporter.write_line
    catalogue = _catalogue_of(config)
    for id_, tests in report.items():
        if tests:
            write(id_)
            for test in tests:
                write(f"    {test}")
    width = max(len(document.name) for document in catalogue.documents)
    for document in catalogue.documents:
        shown = sum(bool(report[id_]) for id_ in document.ids)
        write(f"{document.name:<{width}}  {shown}/{len(document.ids)}")
    write(f"written to {REPORT_FILE.as_posix()}")
    for fault in config.stash[_FAULTS]:
        write(f"ERROR {fault}", red=True)
    if broken := len(terminalreporter.stats.get("error", ())):
        write(f"INCOMPLETE: {broken} not collected, see the errors above", red=True)
