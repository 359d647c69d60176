"""What a replay is told by: windows against a textbook set, and a table that no flood empties.

The contract under test: a counter is new at most once; the window forgets only what is older than
it says; unproven neighbours never displace proven ones.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.identifiers import Eui64
from mesh.security.neighbours import WINDOW_SIZE, Neighbours, Verdict, Window
from tests.mesh.support import A, B


def eui(number: int) -> Eui64:
    return Eui64(number.to_bytes(8))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=120))
def test_window_says_what_a_set_of_all_counters_says(frames: list[tuple[int, bool]]) -> None:
    window = Window()
    seen: set[int] = set()
    broadcasts: set[int] = {-1}
    for counter, is_broadcast in frames:
        verdict = window.verdict(counter, is_broadcast=is_broadcast)
        if counter > max(seen, default=-1):
            expected = Verdict.NEW
        elif (is_broadcast and counter < max(broadcasts)) or max(seen) - counter >= WINDOW_SIZE:
            expected = Verdict.TOO_OLD
        else:
            expected = Verdict.REPEATED if counter in seen else Verdict.NEW
        assert verdict is expected
        if verdict is Verdict.NEW:
            window.mark(counter, is_broadcast=is_broadcast)
            seen.add(counter)
            if is_broadcast:
                broadcasts.add(counter)


def test_unmarked_counter_is_new_again_and_no_other() -> None:
    window = Window()
    for counter in range(10):
        window.mark(counter, is_broadcast=False)
    window.unmark(4)
    verdicts = [window.verdict(counter, is_broadcast=False) for counter in range(10)]
    assert [n for n, verdict in enumerate(verdicts) if verdict is Verdict.NEW] == [4]
    window.unmark(100)
    window.unmark(-100)
    assert window.verdict(9, is_broadcast=False) is Verdict.REPEATED


def test_proof_makes_everything_before_it_old() -> None:
    window = Window()
    window.mark(5, is_broadcast=False)
    window.prove(60)
    for counter in range(60):
        expected = Verdict.REPEATED if counter == 5 else Verdict.TOO_OLD
        assert window.verdict(counter, is_broadcast=False) is expected
        assert window.verdict(counter, is_broadcast=True) is Verdict.TOO_OLD
    assert window.verdict(60, is_broadcast=False) is Verdict.REPEATED
    assert window.verdict(61, is_broadcast=True) is Verdict.NEW


def test_proof_never_takes_a_later_counter_back() -> None:
    window = Window()
    window.mark(90, is_broadcast=False)
    window.prove(60)
    assert window.highest == 90
    assert window.verdict(75, is_broadcast=False) is Verdict.TOO_OLD
    assert window.verdict(90, is_broadcast=False) is Verdict.REPEATED


def test_flood_of_unknown_ones_displaces_no_proven_one() -> None:
    table = Neighbours(proven_count_max=4, unproven_count_max=3)
    for number in range(4):
        table.prove(eui(number), 10)
    for number in range(100, 200):
        table.heard(eui(number)).mark(1, is_broadcast=True)
        assert len(table) <= 7
    assert table.proven == [eui(number) for number in range(4)]
    assert table.displaced_count == 97
    assert table.find(eui(199)) is not None
    assert table.find(eui(150)) is None


def test_proven_one_heard_longest_ago_makes_room() -> None:
    table = Neighbours(proven_count_max=3)
    for number in range(3):
        table.prove(eui(number), 10)
    table.heard(eui(0))
    table.prove(eui(3), 10)
    assert table.proven == [eui(2), eui(0), eui(3)]
    assert not table.is_proven(eui(1))


def test_proof_moves_an_unproven_one_and_keeps_its_counters() -> None:
    table = Neighbours()
    table.heard(A).mark(7, is_broadcast=False)
    table.heard(B)
    assert not table.is_proven(A)
    table.prove(A, 3)
    window = table.find(A)
    assert window is not None
    assert window.highest == 7
    assert table.is_proven(A)
    assert len(table) == 2
    table.forget(A)
    table.forget(B)
    assert len(table) == 0
