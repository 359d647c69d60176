"""Recorded mutations apply, and what plants them judges rightly.

The contract under test: every record stands for one change of a module that is there exactly once,
and for a test that carries its requirement; a mutation counts as noticed only if its test is green
without it and fails with it in the assertion that the record names; the project is not touched.
`make mutations` plants them all; here some are, as samples.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.mutations import runner
from tests.mutations.records import (
    FOLDER,
    ROOT,
    Mutation,
    RecordError,
    chosen,
    mutated,
    read_records,
)
from tests.mutations.runner import Case, Copy, copied, faults_of, judge, red_without

SAMPLES = ("clock-out-of-step-at-120", "failed-read-not-logged", "events-in-the-order-they-came")
ROWS_MIN = 20
"""Requirements of the meter for which a recorded mutation shows that the test can fail."""


# The records


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    with copied() as made:
        yield made


def test_every_record_applies_to_a_module_and_a_test_that_carries_its_requirement(
    copy: Copy,
) -> None:
    every = read_records()
    assert "\n".join(faults_of(every, copy)) == ""
    assert len({one.requirement for one in every} - {None}) >= ROWS_MIN


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_noticed_by_its_test(copy: Copy, name: str) -> None:
    (one,) = (one for one in read_records() if one.name == name)
    assert list(red_without([one], copy)) == []
    with copy.planted(one):
        verdict = judge(one, copy.run([one.test], limit_s=runner.TEST_S))
    assert verdict.is_noticed, verdict.why


# What plants them, on a toy


CODE = """
LIMIT = 3


def is_over(value):
    return value > LIMIT


def is_even(value):
    return value % 2 == 0  # or not
"""
TESTS = """
import pytest

import toy


@pytest.mark.requirement("T-1")
@pytest.mark.parametrize("value", [3, 4])
def test_limit(value):
    assert toy.is_over(value) == (value == 4)


@pytest.mark.requirement("T-2")
def test_even():
    assert toy.is_even(2)


def test_nothing():
    (one,) = [value for value in (1, 5) if toy.is_over(value)]
"""
SETTINGS = """
[tool.pytest.ini_options]
addopts = "-p tests.support.requirements_plugin"
asyncio_default_fixture_loop_scope = "function"
"""
CATALOGUE = """
[[requirement]]
id = "T-1"
[[requirement]]
id = "T-2"
"""
GOOD = Mutation(
    "toys.toml",
    "at-the-limit",
    test="test_toy.py::test_limit",
    file="toy.py",
    find="value > LIMIT",
    replace="value >= LIMIT",
    breaks="the limit itself is over it",
    mentions="assert True == (3 == 4)",
    requirement="T-1",
)
SURVIVOR = dataclasses.replace(
    GOOD,
    name="never-even",
    requirement="T-2",
    test="test_toy.py::test_even",
    find="value % 2 == 0",
    replace="value > 0",
)
UNMARKED = dataclasses.replace(
    GOOD,
    name="never-over",
    requirement=None,
    test="test_toy.py::test_nothing",
    replace="value > LIMIT + 9",
    mentions="(one,) =",
    raises="ValueError",
)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A project of one module and three tests."""
    for name, text in {
        "toy.py": CODE,
        "test_toy.py": TESTS,
        "pyproject.toml": SETTINGS,
        "docs/requirements/t.toml": CATALOGUE,
        ".venv/big": "left out",
        "build/big": "left out",
        "packaging/build": "not left out",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, toy: Path, *every: Mutation) -> None:
    """Make the command run these records on the toy."""

    def copy_toy() -> AbstractContextManager[Copy]:
        return copied(toy)

    monkeypatch.setattr(runner, "read_records", lambda: list(every))
    monkeypatch.setattr(runner, "copied", copy_toy)


def test_what_is_noticed_and_what_survives_is_said_in_a_line_each(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, toy, GOOD, SURVIVOR, UNMARKED)
    assert runner.main([]) == 1
    first, second, breaks, test, why, third, total = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in (first, second, third)] == [
        ["at-the-limit", "T-1", "noticed"],
        ["never-even", "T-2", "MISSED"],
        ["never-over", "-", "noticed"],
    ]
    assert (breaks.strip(), test.strip()) == (SURVIVOR.breaks, SURVIVOR.test)
    assert why.strip() == "SURVIVED: the test passes with it"
    assert total.startswith("2 of 3 mutations noticed, 2 requirements, ")
    assert (toy / "toy.py").read_text(encoding="utf-8") == CODE


def test_copy_is_as_before_after_a_mutation_and_leaves_out_what_is_hidden_or_built(
    toy: Path,
) -> None:
    with copied(toy) as copy:
        with copy.planted(GOOD):
            assert "value >= LIMIT" in (copy.folder / "toy.py").read_text(encoding="utf-8")
        assert (copy.folder / "toy.py").read_text(encoding="utf-8") == CODE
        assert not (copy.folder / ".venv").exists()
        assert not (copy.folder / "build").exists()
        assert (copy.folder / "packaging" / "build").exists()
    assert not copy.folder.exists()


def test_test_without_an_end_is_ended(toy: Path) -> None:
    endless = dataclasses.replace(GOOD, replace="[0 for _ in iter(int, 1)] or value")
    with copied(toy) as copy, copy.planted(endless):
        cases = copy.run([endless.test], limit_s=5.0)
    assert cases is None
    assert "did not end within" in judge(endless, cases).why


def test_test_that_fails_by_itself_shows_nothing(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "toy.py").write_text(CODE.replace("= 3", "= 4"), encoding="utf-8")
    use(monkeypatch, toy, GOOD)
    assert runner.main([]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "test_limit[4] fails without a mutation: assert False == (4 == 4)\n"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"find": "value >= LIMIT"}, "its text is in toy.py 0 times, expected once"),
        ({"find": "(value)"}, "its text is in toy.py 2 times, expected once: '(value)'"),
        ({"replace": "value >"}, "toy.py is no Python then: "),
        ({"replace": "value > LIMIT  # now"}, "it changes nothing that runs"),
        ({"file": "joy.py"}, "there is no joy.py"),
        ({"test": "test_toy.py::test_limits"}, "there is no test test_toy.py::test_limits"),
        ({"test": "test_joy.py::test_limit"}, "there is no test test_joy.py::test_limit"),
        (
            {"requirement": "T-2"},
            "test_toy.py::test_limit does not carry the mark T-2",
        ),
        (
            {"test": "test_toy.py::test_nothing"},
            "test_toy.py::test_nothing does not carry the mark T-1",
        ),
    ],
)
def test_record_that_is_stale_is_said_in_one_line_and_nothing_is_run(
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    why: str,
) -> None:
    use(monkeypatch, toy, dataclasses.replace(GOOD, **changed))
    assert runner.main([]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"toys.toml: at-the-limit: {why}")


# Verdicts


def failure(fault: str, said: str = "", **kind: bool) -> list[Case]:
    return [Case("one"), Case("other", fault, said, **kind)]


@pytest.mark.parametrize(
    ("cases", "why"),
    [
        ([Case("one"), Case("other")], "SURVIVED"),
        ([], "could not be run"),
        (None, "did not end"),
        (failure("assert True", ">  assert something"), "red for another reason"),
        (failure("ImportError: no toy", "E  assert True == (3 == 4)"), "broken, not noticed"),
        (failure("assert True", "E  assert True == (3 == 4)", is_error=True), "broken"),
    ],
)
def test_what_is_not_noticed_says_why(cases: list[Case] | None, why: str) -> None:
    verdict = judge(GOOD, cases)
    assert not verdict.is_noticed
    assert why in verdict.why


@pytest.mark.parametrize(
    "fault",
    [
        "assert True == (3 == 4)",
        "AssertionError: at the limit",
        "Failed: DID NOT RAISE <class 'X'>",
    ],
)
def test_failed_assertion_with_its_words_is_noticed(fault: str) -> None:
    assert judge(GOOD, failure(fault, "E   assert True == (3 == 4)")).is_noticed


def test_other_exception_is_noticed_only_if_the_record_names_it() -> None:
    cases = failure("amistack.errors.ModelError: out of range", ">  assert True == (3 == 4)")
    assert not judge(GOOD, cases).is_noticed
    assert not judge(dataclasses.replace(GOOD, raises="StoreError"), cases).is_noticed
    assert judge(dataclasses.replace(GOOD, raises="ModelError"), cases).is_noticed


# Reading them


ROW = """
[[mutation]]
name = "a-name"
test = "test_toy.py::test_limit"
file = "toy.py"
find = "value"
replace = ""
breaks = "it"
mentions = "it"
"""


def read(folder: Path, **files: str) -> list[Mutation]:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(textwrap.dedent(text), encoding="utf-8")
    return read_records(folder)


def test_record_is_read_from_its_file(tmp_path: Path) -> None:
    (one,) = read(tmp_path, some=ROW)
    assert (one.source, one.name, one.replace, one.requirement) == ("some.toml", "a-name", "", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ROW + ROW, "some.toml: a-name: some.toml has one of that name, too"),
        (ROW.replace('file = "toy.py"\n', ""), "some.toml: a-name: file is missing"),
        (ROW.replace('replace = ""\n', ""), "some.toml: a-name: replace is missing"),
        (ROW.replace('"a-name"', "7"), "some.toml: a mutation without a name: name is no text"),
        (ROW + 'colour = "red"\n', "some.toml: a-name: colour is no key of a record"),
        (ROW.replace('"value"', '""'), "some.toml: a-name: find is no text"),
        ("[mutations]\n", "some.toml: expected [[mutation]] and nothing else"),
        ("[[mutation]\n", "some.toml: "),
    ],
)
def test_record_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RecordError) as caught:
        read(tmp_path, some=text)
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["at-the-limit", "never-even", "never-over"]),
        (["T-1", "never-over"], ["at-the-limit", "never-over"]),
        (["toys"], ["at-the-limit", "never-even", "never-over"]),
        (["toys.toml", "T-2"], ["at-the-limit", "never-even", "never-over"]),
    ],
)
def test_some_are_chosen_by_name_requirement_or_file(words: list[str], names: list[str]) -> None:
    assert [one.name for one in chosen([GOOD, SURVIVOR, UNMARKED], words)] == names


def test_word_that_chooses_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["B1-FR-9999"]) == 2
    assert capsys.readouterr().err == (
        "mutations: B1-FR-9999 is no name, requirement or file of a recorded mutation\n"
    )


def test_list_names_every_record_and_what_it_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--list", "clock"]) == 0
    said = capsys.readouterr().out
    every = [one for one in read_records() if one.source == "clock.toml"]
    assert every
    for one in every:
        assert f"{one.name}\n    {one.requirement or '-'}: {one.breaks}\n    {one.test}\n" in said


def test_records_stand_beside_what_reads_them() -> None:
    assert {one.source for one in read_records()} == {path.name for path in FOLDER.glob("*.toml")}
    assert all(mutated(one, ROOT) for one in read_records())
