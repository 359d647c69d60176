"""The requirements plugin, by small projects that use it.

The contract under test: a mark that is no honest claim (unknown id, more than four, not a
string) is an error at collection, on workers too; `--requirements` runs no test, lists
every id of the catalogue in the file with the tests that carry it, and fails whenever what
it says is not the whole truth.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.requirements_plugin import CatalogueError, Document, read_catalogue

ROOT: Final = Path(__file__).parents[2]
PLUGIN: Final = "tests.support.requirements_plugin"
FOLDER: Final = ROOT / "docs" / "requirements"

B1: Final = "".join(f'[[requirement]]\nid = "B1-FR-{n:02}"\n' for n in range(1, 7))
SERVICES: Final = "".join(
    f'[[service]]\nrequirement = "REQ-B3001"\nscenario = "{scenario}"\nverb = "created"\n'
    'name = "MeterSystemEvent"\nprovider = "Head End"\n'
    for scenario in ("B3-S1", "B3-S3")
)
SERVICE: Final = "REQ-B3001:created:MeterSystemEvent:Head End"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a catalogue of two documents, six ids and one."""
    folder = pytester.mkdir("docs") / "requirements"
    folder.mkdir()
    (folder / "b1.toml").write_text(B1, encoding="utf-8")
    (folder / "services.toml").write_text(SERVICES, encoding="utf-8")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def write_tests(project: pytest.Pytester, source: str, name: str = "test_x") -> None:
    header = "import pytest\nrequirement = pytest.mark.requirement\n"
    project.makepyfile(**{name: header + source})


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    return project.runpytest_inprocess(
        "-q", "-p", PLUGIN, "-p", "no:cacheprovider", "--strict-markers", *args
    )


def report_of(project: pytest.Pytester) -> Mapping[str, list[str]]:
    text = (project.path / "build" / "requirements.json").read_text(encoding="utf-8")
    return {id_: entry["tests"] for id_, entry in json.loads(text).items()}


def test_report_names_every_id_and_its_tests(project: pytest.Pytester) -> None:
    write_tests(
        project,
        f"@requirement('B1-FR-02', {SERVICE!r})\ndef test_a(): assert False\n"
        "@requirement('B1-FR-02')\ndef test_b(): assert False\n",
    )
    result = run(project, "--collect-only", "--requirements")
    assert result.ret == pytest.ExitCode.OK
    assert report_of(project) == {
        "B1-FR-01": [],
        "B1-FR-02": ["test_x.py::test_a", "test_x.py::test_b"],
        "B1-FR-03": [],
        "B1-FR-04": [],
        "B1-FR-05": [],
        "B1-FR-06": [],
        SERVICE: ["test_x.py::test_a"],
    }
    result.stdout.fnmatch_lines(
        [
            "B1-FR-02",
            "    test_x.py::test_a",
            "    test_x.py::test_b",
            SERVICE,
            "    test_x.py::test_a",
            "B1  * 1/6",
            "SERVICES  1/1",
        ],
        consecutive=True,
    )
    result.stdout.no_fnmatch_line("*B1-FR-01*")
    result.stdout.no_fnmatch_line("test_x.py::test_a")


def test_report_runs_no_test_even_without_collect_only(project: pytest.Pytester) -> None:
    write_tests(project, "def test_a(): open('ran', 'w').close()\n")
    assert run(project, "--requirements").ret == pytest.ExitCode.OK
    assert not (project.path / "ran").exists()
    assert len(report_of(project)) == 7


def test_tests_run_as_usual_without_the_option(project: pytest.Pytester) -> None:
    write_tests(project, "@requirement('B1-FR-01')\ndef test_a(): pass\n")
    run(project).assert_outcomes(passed=1)
    assert not (project.path / "build").exists()


def test_four_ids_are_not_too_many(project: pytest.Pytester) -> None:
    ids = [f"B1-FR-{n:02}" for n in range(1, 5)]
    write_tests(project, f"@requirement(*{ids})\ndef test_a(): pass\n")
    assert run(project, "--requirements").ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ("@requirement(*(f'B1-FR-0{n}' for n in range(1, 6)))", "*5 ids, at most 4: B1-FR-01,*"),
        ("@requirement('B1-FR-2')", "*'B1-FR-2' is not in the catalogue; nearest is 'B1-FR-?2'*"),
        ("@requirement('quite different')", "*'quite different' is not in the catalogue"),
        ("@requirement(['B1-FR-01'])", "*[[]'B1-FR-01'[]] is not an id: expected a string*"),
        ("@requirement(85)", "*85 is not an id: expected a string*"),
        ("@requirement()", "*takes one or more ids and nothing else*"),
        ("@requirement('B1-FR-01', why='x')", "*takes one or more ids and nothing else*"),
    ],
)
@pytest.mark.parametrize("option", [(), ("--requirements",)], ids=["run", "report"])
def test_bad_mark_is_a_collection_error(
    marks: str, message: str, option: tuple[str, ...], project: pytest.Pytester
) -> None:
    write_tests(project, f"{marks}\ndef test_a(): pass\n")
    result = run(project, *option)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_x.py::test_a: mark requirement:", message])


def test_marks_of_module_and_class_are_inherited_and_counted(project: pytest.Pytester) -> None:
    write_tests(
        project,
        "pytestmark = requirement('B1-FR-01')\n"
        "@requirement('B1-FR-02')\n"
        "class TestThing:\n"
        "    @requirement('B1-FR-02', 'B1-FR-03')\n"
        "    def test_a(self): pass\n"
        "def test_b(): pass\n",
    )
    assert run(project, "--requirements").ret == pytest.ExitCode.OK
    report = report_of(project)
    assert report["B1-FR-01"] == ["test_x.py::TestThing::test_a", "test_x.py::test_b"]
    assert report["B1-FR-02"] == ["test_x.py::TestThing::test_a"]
    assert report["B1-FR-03"] == ["test_x.py::TestThing::test_a"]


def test_inherited_ids_count_towards_the_four(project: pytest.Pytester) -> None:
    write_tests(
        project,
        "pytestmark = requirement('B1-FR-01', 'B1-FR-02')\n"
        "@requirement('B1-FR-03', 'B1-FR-04', 'B1-FR-05')\n"
        "def test_a(): pass\n",
    )
    result = run(project, "--requirements")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*5 ids, at most 4*"])


def test_cases_of_a_parametrised_test_are_counted_one_by_one(project: pytest.Pytester) -> None:
    write_tests(
        project,
        "@requirement('B1-FR-01')\n"
        "@pytest.mark.parametrize('n', [\n"
        "    pytest.param(1, marks=requirement('B1-FR-02', 'B1-FR-03', 'B1-FR-04')),\n"
        "    pytest.param(2, marks=requirement('B1-FR-04', 'B1-FR-05', 'B1-FR-06')),\n"
        "])\n"
        "def test_a(n): pass\n",
    )
    assert run(project, "--requirements").ret == pytest.ExitCode.OK
    report = report_of(project)
    assert report["B1-FR-01"] == ["test_x.py::test_a"]
    assert report["B1-FR-02"] == ["test_x.py::test_a[1]"]
    assert report["B1-FR-04"] == ["test_x.py::test_a"]
    assert report["B1-FR-06"] == ["test_x.py::test_a[2]"]


def test_one_case_with_too_many_is_refused(project: pytest.Pytester) -> None:
    write_tests(
        project,
        "@requirement('B1-FR-01')\n"
        "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=requirement(\n"
        "    'B1-FR-02', 'B1-FR-03', 'B1-FR-04', 'B1-FR-05'))])\n"
        "def test_a(n): pass\n",
    )
    assert run(project, "--requirements").ret == pytest.ExitCode.INTERRUPTED


def test_error_in_another_module_leaves_a_report_that_says_so(project: pytest.Pytester) -> None:
    write_tests(project, "@requirement('B1-FR-01')\ndef test_a(): pass\n", "test_good")
    write_tests(project, "raise RuntimeError('broken')\n", "test_broken")
    result = run(project, "--requirements")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert report_of(project)["B1-FR-01"] == ["test_good.py::test_a"]
    result.stdout.fnmatch_lines(["*RuntimeError: broken", "B1-FR-01", "INCOMPLETE: 1 not coll*"])


def test_mark_put_on_by_a_hook_is_checked_by_the_report(project: pytest.Pytester) -> None:
    project.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    items[0].add_marker(pytest.mark.requirement('B1-FR-99'))\n"
    )
    write_tests(project, "def test_a(): pass\n")
    result = run(project, "--requirements")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR test_x.py::test_a: 'B1-FR-99' is not in the catalogue*"])


def test_workers_refuse_bad_marks_and_write_nothing(project: pytest.Pytester) -> None:
    write_tests(project, "@requirement('B1-FR-99')\ndef test_a(): pass\n", "test_bad")
    project.syspathinsert(ROOT)
    result = project.runpytest_subprocess("-q", "-n", "1", "-p", PLUGIN, "-p", "no:cacheprovider")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*'B1-FR-99' is not in the catalogue*"])
    assert not (project.path / "build").exists()


def test_report_starts_no_workers(project: pytest.Pytester) -> None:
    write_tests(project, "@requirement('B1-FR-01')\ndef test_a(): pass\n")
    result = run(project, "--requirements", "-n", "1")
    assert result.ret == pytest.ExitCode.OK
    assert report_of(project)["B1-FR-01"] == ["test_x.py::test_a"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("c6.toml", '[[requirement]]\nid = "B1-FR-01"\n', "B1-FR-01 is in b1.toml and in c6.toml"),
        ("c6.toml", '[[requirement]]\nid = "C6"\n' * 2, "c6.toml has C6 more than once"),
        ("c6.toml", "[[requirement]]\nname = 'x'\n", "c6.toml: KeyError"),
        ("c6.toml", "[[service]]\nrequirement = 'x'\n", "c6.toml: KeyError"),
        ("c6.toml", "[[service]]\nrequirement = 1\nverb='x'\nname='x'\nprovider='x'", "c6.toml: T"),
        ("c6.toml", "requirement = 3\n", "c6.toml: TypeError"),
        ("c6.toml", "[[requirement]\n", "c6.toml: TOMLDecodeError"),
        ("c6.toml", "[requirement]\nid = 'x'\n", "c6.toml: TypeError"),
    ],
)
def test_unusable_catalogue_is_refused_in_a_sentence(
    file: str, text: str, message: str, project: pytest.Pytester
) -> None:
    (project.path / "docs" / "requirements" / file).write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(project.path / "docs" / "requirements")
    write_tests(project, "@requirement('B1-FR-01')\ndef test_a(): pass\n")
    result = run(project)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*requirements catalogue: {message}*"])


def test_missing_catalogue_is_a_usage_error_of_the_report(project: pytest.Pytester) -> None:
    shutil.rmtree(project.path / "docs")
    write_tests(project, "def test_a(): pass\n")
    result = run(project, "--requirements")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*requirements catalogue: no [*].toml in *"])


@given(st.text(max_size=40))
def test_arbitrary_catalogue_text_gives_ids_or_catalogue_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.toml").write_text(text, encoding="utf-8")
        try:
            read_catalogue(Path(folder))
        except CatalogueError:
            pass


# The catalogue itself.


def test_catalogue_has_the_documents_and_counts_it_should() -> None:
    """Ids are never dropped by accident: a change here is meant."""
    counts = {document.name: len(document.ids) for document in read_catalogue(FOLDER).documents}
    assert counts == {
        "AMI-ENT": 187,
        "AMI-ENT-SERVICES": 123,
        "B1": 206,
        "C6": 109,
        "I2": 47,
        "REMOTE-PROGRAMMING": 34,
    }


def test_rows_of_one_service_differ_in_nothing_but_the_scenario() -> None:
    text = (FOLDER / "ami-ent-services.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["service"]
    keys = [(*(row[k] for k in ("requirement", "verb", "name", "provider")),) for row in rows]
    assert (len(rows), len(set(keys))) == (140, 123)
    assert sum(keys.count(key) > 1 for key in set(keys)) == 14
    with_scenario = {(key, row["scenario"]) for key, row in zip(keys, rows, strict=True)}
    assert len(with_scenario) == len(rows)


def test_every_requirement_says_what_where_and_how_to_check() -> None:
    for file in FOLDER.glob("*.toml"):
        for row in tomllib.loads(file.read_text(encoding="utf-8")).get("requirement", ()):
            assert all(row[key].strip() for key in ("id", "source", "kind", "text", "check")), row
            assert row["systems"], row["id"]


def test_ids_begin_with_the_name_of_their_document() -> None:
    prefixes = {
        "AMI-ENT": "ENT-",
        "AMI-ENT-SERVICES": "REQ-",
        "B1": "B1-",
        "C6": "C6-",
        "I2": "I2-",
        "REMOTE-PROGRAMMING": "RP-",
    }

    def strays(document: Document) -> list[str]:
        return [i for i in document.ids if not i.startswith(prefixes[document.name])]

    assert [strays(document) for document in read_catalogue(FOLDER).documents] == [[]] * 6
