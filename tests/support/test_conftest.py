"""What tests/conftest.py gives to every test.

The contract under test: an asynchronous test runs on asyncio's loop under its own name,
one marked `both_loops` on uvloop's as well, and both under no deadline of hypothesis.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def test_only_marked_tests_run_on_both_loops(pytester: pytest.Pytester) -> None:
    pytest.importorskip("uvloop")
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        "import asyncio, pytest\n"
        "def family(): return type(asyncio.get_running_loop()).__module__.split('.')[0]\n"
        "async def test_one(): assert family() == 'asyncio'\n"
        "@pytest.mark.both_loops\n"
        "async def test_both(request): assert family() == request.node.callspec.id\n"
        "def test_none(): pass\n"
    )
    result = pytester.runpytest_inprocess("-v", "--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)
    for name in ("test_one", "test_both[[]asyncio[]]", "test_both[[]uvloop[]]", "test_none"):
        result.stdout.fnmatch_lines([f"*::{name} PASSED*"])


def test_no_profile_sets_a_deadline() -> None:
    assert settings().deadline is None
    for name in ("ci", "dev"):
        assert settings.get_profile(name).deadline is None
    assert settings.get_profile("ci").derandomize
