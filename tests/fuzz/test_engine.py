"""The engine: inputs are run, what is new is kept, what breaks is told apart.

The contract under test: a defect within reach is found; the same seed runs the same inputs; an
input is kept if, and only if, its outcome is new; a crash names the project's own line; a run
without an end is ended.
"""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from amistack.coap.options import read_text
from amistack.errors import CoapError, ConfigError
from interop.fuzz import engine
from interop.fuzz.engine import Fuzzer, Hang, no_hanging, probe, probe_watched
from interop.fuzz.target import (
    Outcome,
    PromiseBroken,
    Reader,
    Trail,
    promise,
    refusal,
    size_class,
)
from tests.fuzz.toys import run_endless, run_fragile, run_promising, run_sturdy, toy


def test_a_defect_is_found_and_named() -> None:
    fuzzer = Fuzzer(toy(run_fragile), seed=1)
    assert fuzzer.replay() is None
    crash = fuzzer.mutate(100_000)
    assert crash is not None
    assert crash.kind == "KeyError"
    assert b"\xde" in crash.data
    assert crash.run == fuzzer.run_count > 0
    assert crash.seed == 1
    assert "run_fragile" in crash.trace
    assert probe(fuzzer.target, crash.data) is not None, "it breaks again"


def test_the_same_seed_comes_to_the_same_defect_and_another_to_another() -> None:
    found = [Fuzzer(toy(run_fragile), seed=seed) for seed in (4, 4, 5)]
    crashes = [(fuzzer.replay(), fuzzer.mutate(100_000))[1] for fuzzer in found]
    assert None not in crashes
    first, again, other = crashes
    assert first == again
    assert first != other


def test_a_broken_promise_is_a_crash_and_a_refusal_is_none() -> None:
    crash = probe(toy(run_promising), b"\xad")
    assert crash is not None
    assert crash.kind == "PromiseBroken"
    assert crash.message == "an octet that never comes came"
    assert probe(toy(run_sturdy), b"\xff") is None


def test_what_is_new_is_kept_and_nothing_else() -> None:
    fuzzer = Fuzzer(toy(run_sturdy, (b"\xff",)), seed=1)
    assert fuzzer.replay() is None
    assert fuzzer.mutate(20_000) is None
    # The one refusal, and eight octets that are taken.
    assert len(fuzzer.outcomes) == 9
    assert len(fuzzer.corpus) == 9
    assert len({run_sturdy(data) for data in fuzzer.corpus}) == 9


def test_of_several_outcomes_one_new_one_is_enough() -> None:
    fuzzer = Fuzzer(toy(lambda data: frozenset(data[:4]), (b"ab",)), seed=1)
    fuzzer.replay()
    assert fuzzer.outcomes == set(b"ab")
    fuzzer.mutate(2_000)
    assert len(fuzzer.corpus) < len(fuzzer.outcomes) <= 256


def test_corpus_and_outcomes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CORPUS_MAX", 10)
    monkeypatch.setattr(engine, "OUTCOME_COUNT_MAX", 20)
    fuzzer = Fuzzer(toy(lambda data: data), seed=1)
    fuzzer.replay()
    fuzzer.mutate(500)
    assert len(fuzzer.corpus) == 10
    assert len(fuzzer.outcomes) == 20


def test_a_crash_in_the_corpus_is_run_zero() -> None:
    fuzzer = Fuzzer(toy(run_fragile), seed=1, corpus=[b"fine", b"\xde"])
    crash = fuzzer.replay()
    assert crash is not None
    assert crash.run == 0
    assert crash.data == b"\xde"


def test_an_empty_corpus_is_no_obstacle() -> None:
    fuzzer = Fuzzer(toy(run_sturdy, ()), seed=1)
    assert fuzzer.replay() is None
    assert fuzzer.mutate(100) is None
    assert fuzzer.run_count == 100


def test_taken_inputs_are_run_once() -> None:
    fuzzer = Fuzzer(toy(run_sturdy, (b"\x01",)), seed=1)
    fuzzer.replay()
    fuzzer.take([b"\x01", b"\x02", b"\x02"])
    before = fuzzer.beat_count
    assert fuzzer.replay() is None
    assert fuzzer.beat_count == before + 1
    assert fuzzer.corpus == [b"\x01", b"\x02"]


def test_a_crash_names_the_line_of_the_project_and_not_the_targets() -> None:
    def run(data: bytes) -> Outcome:
        read_text(None)  # type: ignore[arg-type]
        return None

    crash = probe(toy(run), b"")
    assert crash is not None
    assert crash.kind == "AttributeError"
    assert crash.where.startswith("amistack/coap/options.py:")
    assert crash.where.endswith(" in read_text")


def test_a_run_without_an_end_is_ended() -> None:
    fuzzer = Fuzzer(toy(run_endless, (b"\xee",)), seed=1)
    with no_hanging(lambda: fuzzer.beat_count, hang_s=0.05):
        crash = fuzzer.replay()
    assert crash is not None
    assert crash.kind == "Hang"


def test_runs_that_end_are_left_alone_however_many() -> None:
    fuzzer = Fuzzer(toy(run_sturdy), seed=1)
    fuzzer.replay()
    end = time.monotonic() + 2.5
    with no_hanging(lambda: fuzzer.beat_count, hang_s=0.8):
        while time.monotonic() < end:
            assert fuzzer.mutate(1_000) is None
    assert probe_watched(toy(run_sturdy), b"") is None


def test_beside_the_main_thread_nothing_is_watched() -> None:
    outcomes: list[object] = []

    def work() -> None:
        with no_hanging(lambda: 0, hang_s=0.001):
            outcomes.append(probe(toy(run_sturdy), b""))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes == [None]


def test_no_target_takes_a_hang_for_a_refusal() -> None:
    assert not issubclass(Hang, Exception)


# What targets are made of


def test_refusals_are_told_apart_by_kind_reason_and_line() -> None:
    def refused(reason: str, *, elsewhere: bool = False) -> Outcome:
        try:
            if elsewhere:
                raise CoapError(reason)
            raise CoapError(reason)
        except CoapError as error:
            return refusal(error)

    assert refused("a") == refused("a")
    assert len({refused("a"), refused("b"), refused("a", elsewhere=True)}) == 3
    assert isinstance(refusal(ConfigError("any text at all")), tuple)


@pytest.mark.parametrize("reason", ["x" * 65, "what\nthe peer said", "\u00fcber"])
def test_a_reason_that_is_no_label_is_a_broken_promise(reason: str) -> None:
    with pytest.raises(PromiseBroken, match="no label"):
        refusal(CoapError(reason))


def test_promise_says_what_is_broken() -> None:
    promise([1], "kept")
    with pytest.raises(PromiseBroken, match="broken"):
        promise([], "broken")


def test_a_reader_gives_zeros_at_its_end() -> None:
    reader = Reader(b"\x05\x02ab\x01\x00cd")
    assert reader.octet() == 5
    assert reader.piece() == b"ab"
    assert reader.number(2) == 256
    assert not reader.is_spent
    assert reader.below(7) == ord("c") % 7
    assert reader.rest() == b"d"
    assert reader.is_spent
    assert (reader.octet(), reader.below(3), reader.take(2), reader.rest()) == (0, 0, b"", b"")


def test_a_trail_is_of_steps_with_the_one_before() -> None:
    first, second = Trail(), Trail()
    for step in "aab":
        first.note(step)
    for step in "aba":
        second.note(step)
    assert first.outcome == {(None, "a"), ("a", "a"), ("a", "b")}
    assert first.outcome != second.outcome


def test_size_classes_double() -> None:
    assert [size_class(size) for size in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 3, 3, 4, 4, 5]
    classes = [size_class(size) for size in range(5000)]
    assert all(one <= other for one, other in itertools.pairwise(classes))
