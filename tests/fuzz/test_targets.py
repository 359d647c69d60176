"""Every fuzz target, on what is known and on what nobody made on purpose.

The contract under test: no input makes an exception other than the layer's own escape it, and what
a layer promises beyond that holds: for the seeds, for the inputs that come with the project, and
for 20,000 seeded mutations of them (`make soak-fuzz` runs each for ten minutes).
"""

from __future__ import annotations

import os
import warnings
from typing import Final

import pytest

from interop.fuzz import corpus
from interop.fuzz.crashes import minimise
from interop.fuzz.engine import Crash, Fuzzer, no_hanging
from interop.fuzz.target import Target
from interop.fuzz.targets import every

RUN_COUNT: Final = 20_000
SEED: Final = int(os.environ.get("AMISTACK_SEED", "1"))

each = pytest.mark.parametrize("target", every().values(), ids=lambda target: target.name)


def told(target: Target, crash: Crash) -> str:
    small = minimise(target, crash)
    return f"{small} (seed {small.seed}, run {small.run}), by {small.data.hex()}\n{small.trace}"


@pytest.mark.timeout(600)  # A run that hangs is found by `no_hanging`; a busy machine is slow.
@each
def test_nothing_but_its_own_escapes_a_layer(target: Target) -> None:
    fuzzer = corpus.fuzzer(target, seed=SEED)
    with no_hanging(lambda: fuzzer.beat_count):
        crash = fuzzer.replay() or fuzzer.mutate(RUN_COUNT)
    assert crash is None, told(target, crash)
    assert fuzzer.run_count == RUN_COUNT


@each
def test_one_seed_has_one_history(target: Target) -> None:
    fuzzers = [Fuzzer(target, seed=3), Fuzzer(target, seed=3)]
    for fuzzer in fuzzers:
        assert fuzzer.replay() is None
        assert fuzzer.mutate(150) is None
    assert fuzzers[0].corpus == fuzzers[1].corpus
    assert fuzzers[0].outcomes == fuzzers[1].outcomes


@each
def test_seeds_go_deeper_than_garbage(target: Target) -> None:
    seeds = target.seeds()
    assert seeds == target.seeds(), "the same in every run"
    assert all(len(data) <= target.size_max for data in seeds), "none is cut"
    deep = {outcome for data in seeds for outcome in corpus.outcomes_of(target, data)}
    garbage = {
        outcome
        for number in range(200)
        for outcome in corpus.outcomes_of(target, number.to_bytes(2, "big") * (number % 9))
    }
    assert deep - garbage, "octets without a sense come as far"


def test_names_are_words_and_what_is_checked_is_said() -> None:
    assert len(every()) >= 30
    for name, target in every().items():
        assert name == target.name
        assert name.replace("_", "").isalnum()
        assert name == name.lower()
        assert 20 < len(target.checks) < 120
        assert not target.checks.endswith(".")


@each
def test_inputs_that_come_with_the_project_fit_and_are_few(target: Target) -> None:
    kept = corpus.kept(target.name)
    assert len(set(kept)) == len(kept)
    assert sum(map(len, kept)) <= 16_384
    assert all(len(data) <= target.size_max for data in kept)


@pytest.fixture(autouse=True)
def quiet() -> object:
    """Foreign parsers may warn of what they are given; here that is the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
