"""Every suite of `interop conformance`: what others published, and what others wrote, judges us.

The contract under test: each case gives what its source expects. Published values are a test each;
a suite with a foreign program is one test, as it is started once. Where that program is not
installed the test is skipped with the line that installs it, and fails in CI.
"""

from __future__ import annotations

import os

import pytest

from interop.conformance.registry import SUITES
from interop.conformance.suite import Case, LiveSuite, Suite, VectorSuite, judge

PUBLISHED = [
    pytest.param(suite, case, id=f"{suite.name}: {case.name}")
    for suite in SUITES
    if isinstance(suite, VectorSuite) and not suite.is_live
    for case in suite.cases()
]
LIVE = [pytest.param(suite, id=suite.name) for suite in SUITES if suite.is_live]

FROM_OUTSIDE_MIN = 150


@pytest.mark.parametrize(("suite", "case"), PUBLISHED)
def test_published_case_is_as_its_source_has_it(suite: Suite, case: Case) -> None:
    outcome = judge(case)
    assert outcome.has_passed, str(outcome)


@pytest.mark.parametrize("suite", LIVE)
def test_foreign_implementation_and_we_understand_each_other(suite: Suite) -> None:
    why = suite.missing()
    if why is not None and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why is not None:
        pytest.skip(why)
    outcomes = list(suite.run())
    assert outcomes
    failed = [str(outcome) for outcome in outcomes if not outcome.has_passed]
    assert not failed, "\n".join(failed)


def test_no_two_suites_and_no_two_cases_of_a_suite_have_one_name() -> None:
    names = [suite.name for suite in SUITES]
    assert len(set(names)) == len(names)
    for suite in SUITES:
        if suite.missing() is not None or not isinstance(suite, VectorSuite | LiveSuite):
            continue
        cases = [case.name for case in suite.cases()]
        assert len(set(cases)) == len(cases), suite.name


def test_there_are_more_cases_from_outside_than_were_asked_for() -> None:
    assert len(PUBLISHED) >= FROM_OUTSIDE_MIN
    # Both roles of each foreign program.
    assert {suite.values[0].name for suite in LIVE} >= {  # type: ignore[attr-defined]
        "edhoc-lakers",
        "edhoc-aiocoap-client",
        "edhoc-aiocoap-server",
        "oscore-aiocoap-client",
        "oscore-aiocoap-server",
        "aiocoap-client",
        "aiocoap-server",
        "libcoap-client",
        "libcoap-server",
        "node-client",
        "node-server",
    }
