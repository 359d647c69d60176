"""The command `interop conformance`: its table, its JSON, its exit code.

The contract under test: every suite has its entry; a failed case is one line on standard error and
exit code 1; a suite whose program is not installed is said to be not run, with the line that
installs it, and fails nothing.
"""

from __future__ import annotations

import json
import re

import pytest

from interop.cli import main
from interop.conformance import run as run_module
from interop.conformance.run import NAME_WIDTH
from interop.conformance.suite import Case, VectorSuite

GOOD = VectorSuite("good", "what is right", "RFC 1", lambda: [Case("one", 1, lambda: 1)])
BAD = VectorSuite(
    "bad",
    "what is wrong",
    "RFC 2",
    lambda: [Case("first", 1, lambda: 1), Case("second", b"\x01", lambda: b"\x02")],
)
ABSENT = VectorSuite(
    "absent", "what is not here", "peer 3", list, lambda: "no peer: apt-get install peer"
)


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "SUITES", (GOOD, BAD, ABSENT))


@pytest.mark.usefixtures("suites")
def test_a_failed_case_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance"]) == 1
    told = capsys.readouterr()
    assert told.err == "interop: bad: second: expected 01, got 02\n"
    rows = [re.split(r" {2,}", line.strip()) for line in told.out.splitlines()]
    assert rows == [
        ["suite", "cases", "passed", "source"],
        ["good", "1", "1", "RFC 1"],
        ["bad", "2", "1", "RFC 2", "1 FAILED"],
        ["absent", "-", "-", "not run: no peer: apt-get install peer"],
        ["all", "3", "2"],
    ]


@pytest.mark.usefixtures("suites")
def test_json_has_an_entry_for_each_suite_and_says_why_one_was_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["conformance", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "suites": [
            {"name": "good", "cases": 1, "passed": 1, "source": "RFC 1"},
            {"name": "bad", "cases": 2, "passed": 1, "source": "RFC 2"},
            {
                "name": "absent",
                "cases": 0,
                "passed": 0,
                "source": "peer 3",
                "why": "no peer: apt-get install peer",
            },
        ]
    }


@pytest.mark.usefixtures("suites")
def test_chosen_suites_alone_are_run_and_what_is_absent_fails_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["conformance", "--suite", "absent", "--suite", "good", "--markdown"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines() == [
        "| what | judged by | cases | passed |",
        "|---|---|---:|---:|",
        "| what is not here | peer 3 | not run | |",
        "| what is right | RFC 1 | 1 | 1 |",
    ]


@pytest.mark.usefixtures("suites")
def test_list_names_the_suites_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{'good':{NAME_WIDTH}} what is right",
        f"{'bad':{NAME_WIDTH}} what is wrong",
        f"{'absent':{NAME_WIDTH}} what is not here",
    ]


@pytest.mark.usefixtures("suites")
def test_a_name_that_is_no_suite_is_one_line_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["conformance", "--suite", "goood"]) == 1
    assert capsys.readouterr().err == "interop: goood is not a suite; did you mean good?\n"
    assert main(["conformance", "--suite", "zzz"]) == 1
    assert "expected good, bad, absent" in capsys.readouterr().err


def test_the_real_command_judges_octets_and_handshakes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["coap-messages", "oscore-rfc8613", "edhoc-rfc9529"]
    assert main(["conformance", "--json", *(f"--suite={name}" for name in names)]) == 0
    entries = json.loads(capsys.readouterr().out)["suites"]
    assert [entry["name"] for entry in entries] == names
    assert all(entry["cases"] == entry["passed"] > 100 for entry in entries)
