"""The helper that finds Debian's programs: nothing that CI should judge is skipped in silence."""

from __future__ import annotations

import pytest

from tests.support.debian import needs


def test_a_program_that_is_there_is_found() -> None:
    assert needs("sh", "dash").endswith("/sh")


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_a_missing_program_skips_with_the_cure_and_fails_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install -y no-package"):
        needs("no-such-program", "no-package")
