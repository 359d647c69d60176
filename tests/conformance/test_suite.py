"""How a suite runs: what a case that fails, raises or hangs becomes.

The contract under test: a suite gives one outcome for each case, in order, whatever the cases do; a
bench that does not open fails all of them; nothing is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from amistack.errors import CoapError
from interop.conformance import suite as suite_module
from interop.conformance.suite import (
    Case,
    LiveCase,
    LiveSuite,
    Outcome,
    VectorSuite,
    nothing,
    reason_of,
    shown,
)
from interop.peers.party import PeerError


def refuse() -> object:
    raise CoapError("bad option", "option 9")


def test_each_case_has_one_outcome_whatever_it_does() -> None:
    suite = VectorSuite(
        "s",
        "t",
        "source",
        lambda: [
            Case("right", b"\x01", lambda: b"\x01"),
            Case("wrong", b"\x01", lambda: b"\x02"),
            Case("of another type", 1, lambda: "1"),
            Case("raises", 1, refuse),
        ],
    )
    assert suite.missing() is None
    assert list(suite.run()) == [
        Outcome("right", has_passed=True, expected="01", got="01"),
        Outcome("wrong", has_passed=False, expected="01", got="02"),
        Outcome("of another type", has_passed=False, expected="1", got="'1'"),
        Outcome("raises", has_passed=False, expected="1", got="CoapError: bad option: option 9"),
    ]


def test_of_two_transcripts_the_first_difference_is_shown() -> None:
    assert Outcome.of("n", ["a", "b", "c"], ["a", "x", "c"]) == Outcome(
        "n", has_passed=False, expected="'b'", got="'x'"
    )
    assert Outcome.of("n", ["a"], ["a", "b"]) == Outcome(
        "n", has_passed=False, expected="'nothing more'", got="'b'"
    )
    assert Outcome.of("n", ["a"], ["a"]).has_passed
    assert "FAILED n: expected 'b', got 'x'" in str(Outcome.of("n", ["b"], ["x"]))


def live(cases: list[LiveCase[str]], *, opens: bool = True) -> LiveSuite[str]:
    @asynccontextmanager
    async def bench() -> AsyncIterator[str]:
        if not opens:
            raise PeerError("the program did not start")
        yield "bench"

    return LiveSuite("s", "t", lambda: "peer 1.0", bench, lambda: cases, nothing)


async def give(bench: str) -> str:
    return bench


async def fail(bench: str) -> str:
    raise PeerError("no response")


async def hang(bench: str) -> str:
    await asyncio.sleep(3600)
    return bench


def test_an_exchange_that_fails_or_hangs_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite_module, "CASE_S_MAX", 0.02)
    suite = live(
        [LiveCase("a", "bench", fail), LiveCase("b", "bench", hang), LiveCase("c", "bench", give)]
    )
    assert suite.source == "peer 1.0"
    assert [(one.name, one.has_passed, one.got) for one in suite.run()] == [
        ("a", False, "PeerError: no response"),
        ("b", False, "TimeoutError"),
        ("c", True, "'bench'"),
    ]


def test_a_program_that_does_not_start_fails_every_case() -> None:
    suite = live([LiveCase("a", "bench", give), LiveCase("b", "bench", give)], opens=False)
    assert [one.has_passed for one in suite.run()] == [False, False]
    assert {one.got for one in suite.run()} == {"PeerError: the program did not start"}


def test_reason_of_a_refusal_is_its_fixed_word_group() -> None:
    assert reason_of(refuse) == "bad option"
    assert reason_of(lambda: 1) == "accepted"


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"", "(no octets)"), (b"\xab", "ab"), (None, "None"), ("a", "'a'"), ([1], "[1]")],
)
def test_values_are_shown_for_people(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_long_value_is_cut_in_its_middle() -> None:
    text = shown(bytes(1000) + b"\xff")
    assert len(text) == suite_module.SHOWN_SIZE_MAX + 3
    assert text.startswith("00")
    assert text.endswith("ff")
