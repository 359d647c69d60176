"""The mark for tests that take long.

The contract under test: without AMISTACK_SOAK=1 they are left out, whatever is selected, and said
to be so; with it `-m soak` runs them and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.soak
def test_hours(): pass

def test_short(): pass
"""


@pytest.mark.parametrize(
    ("soak", "arguments", "outcomes"),
    [
        (None, (), {"passed": 1, "deselected": 1}),
        ("0", ("-k", "hours"), {"deselected": 2}),
        ("1", ("-m", "soak"), {"passed": 1, "deselected": 1}),
    ],
)
def test_long_ones_run_only_when_asked_for(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    soak: str | None,
    arguments: tuple[str, ...],
    outcomes: dict[str, int],
) -> None:
    if soak is None:
        monkeypatch.delenv("AMISTACK_SOAK", raising=False)
    else:
        monkeypatch.setenv("AMISTACK_SOAK", soak)
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider", *arguments)
    result.assert_outcomes(**outcomes)
