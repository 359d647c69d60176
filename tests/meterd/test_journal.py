"""The journal: what `transact` has returned from survives everything, and nothing else appears.

The contract under test: after a power cut, a killed program or a failing disk, at any call, a
journal shows the state after the transactions that returned, or that and one change more, which
was under way or failed since. Whatever octets a folder holds, the journal opens with a state that
was reached once, or is StoreUnusable in one line. The model is a plain dict.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import meterd.journal
from amistack.errors import StoreError, StoreUnusable
from meterd.journal import Change, Journal
from tests.support.power import PowerCut, TornFiles

State = dict[str, list[tuple[Any, Any]]]
TABLES = ("a", "b")
EMPTY: State = {table: [] for table in TABLES}
KEYS = (0, 1, "one", "two", (1, 2), (3, 4))


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new segment every few transactions."""
    monkeypatch.setattr(meterd.journal, "SEGMENT_SIZE_MAX", 150)


def state_of(journal: Journal) -> State:
    """All the tables, with the order of their keys."""
    return {table: list(journal.table(table).items()) for table in TABLES}


def after(state: State, changes: Sequence[Change]) -> State:
    """The model: what a transaction makes of a state."""
    tables = {table: dict(rows) for table, rows in state.items()}
    for table, key, value in changes:
        if value is None:
            tables[table].pop(key, None)
        else:
            tables[table][key] = value
    return {table: list(rows.items()) for table, rows in tables.items()}


def random_changes(dice: random.Random) -> list[Change]:
    return [
        (
            dice.choice(TABLES),
            dice.choice(KEYS),
            dice.choice((None, dice.randint(-9, 1 << 70), dice.randbytes(dice.randint(0, 40)))),
        )
        for _ in range(dice.randint(1, 3))
    ]


def history(seed: int, count: int) -> list[list[Change]]:
    dice = random.Random(seed)
    return [random_changes(dice) for _ in range(count)]


class Meter:
    """A program with a journal, run until the power goes, and what it may find afterwards."""

    def __init__(self, files: TornFiles) -> None:
        self.files = files
        self.state = EMPTY
        self.may_be: list[State] = []
        """States beside `state` that a start may find: of changes under way, or failed."""
        self.journal: Journal | None = None

    def start(self) -> Journal:
        self.journal = None
        journal = Journal(self.files)
        found = state_of(journal)
        assert found in (self.state, *self.may_be)
        # What was shown once must never be taken back.
        self.state, self.may_be = found, []
        self.journal = journal
        return journal

    def transact(self, changes: Sequence[Change]) -> bool:
        assert self.journal is not None
        self.may_be.append(after(self.state, changes))
        try:
            self.journal.transact(changes)
        except StoreError:
            assert state_of(self.journal) == self.state
            return False
        self.state, self.may_be = self.may_be[-1], []
        assert state_of(self.journal) == self.state
        return True

    def run(self, transactions: Sequence[Sequence[Change]]) -> None:
        self.start()
        for changes in transactions:
            self.transact(changes)

    def prove(self) -> None:
        """The power goes again at once, after a start and after a transaction, and nothing is lost.

        What a journal shows must be on disk already.
        """
        self.start()
        self.files.crash()
        self.start()
        assert self.transact([("a", "proof", 1)])
        self.files.crash()
        self.start()


def calls_of(transactions: Sequence[Sequence[Change]], seed: int) -> list[str]:
    files = TornFiles(random.Random(seed))
    Meter(files).run(transactions)
    return files.calls


def each_cut(
    transactions: Sequence[Sequence[Change]],
    seeds: range,
    then: Callable[[Meter], None],
) -> None:
    """The power goes at every call of a history, with every seed of damage."""
    for seed in seeds:
        for cut in range(len(calls_of(transactions, seed))):
            meter = Meter(TornFiles(random.Random(f"{seed} {cut}")))
            meter.files.cut_after(cut)
            with pytest.raises(PowerCut):
                meter.run(transactions)
            then(meter)


# Power cuts


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("history_seed", range(3))
def test_power_cut_at_every_call_loses_and_invents_nothing(history_seed: int) -> None:
    def then(meter: Meter) -> None:
        meter.files.crash()
        meter.prove()

    each_cut(history(history_seed, 6), range(40), then)


@pytest.mark.usefixtures("small_segments")
def test_power_cut_at_every_call_of_a_recovery_from_a_power_cut_at_every_call() -> None:
    def then(meter: Meter) -> None:
        meter.files.crash()
        for cut in range(50):
            copied = copy.deepcopy(meter)
            copied.files.cut_after(cut)
            try:
                copied.start()
            except PowerCut:
                copied.files.crash()
                copied.prove()
            else:
                return
        pytest.fail("a start that makes no end of calls")

    each_cut(history(7, 4), range(12), then)


@pytest.mark.usefixtures("small_segments")
def test_killed_at_every_call_the_next_start_shows_only_what_is_durable() -> None:
    """The kernel lives on, and shows what a flush never reached; the power goes right after."""

    def then(meter: Meter) -> None:
        meter.files.kill()
        meter.prove()

    each_cut(history(3, 6), range(40), then)


@pytest.mark.usefixtures("small_segments")
def test_killed_and_cut_off_again_and_again_it_still_holds() -> None:
    for seed in range(200):
        dice = random.Random(seed)
        meter = Meter(TornFiles(dice))
        for _ in range(8):
            meter.files.cut_after(dice.randint(0, 30))
            try:
                meter.run([random_changes(dice) for _ in range(9)])
            except PowerCut:
                pass
            dice.choice((meter.files.kill, meter.files.crash))()
        meter.prove()


def test_dice_reach_kept_lost_and_torn_transactions() -> None:
    """Guards the test itself: a disk so kind, or so cruel, that it proves nothing."""
    outcomes = set()
    for seed in range(60):
        meter = Meter(TornFiles(random.Random(seed)))
        meter.start()
        meter.transact([("a", 1, b"first")])
        meter.files.cut_after(1)  # In the middle of a flush.
        with pytest.raises(PowerCut):
            meter.transact([("a", 1, b"second")])
        meter.files.crash()
        journal = meter.start()
        outcomes.add((journal.get("a", 1), journal.dropped_octets > 0))
    assert outcomes == {(b"first", False), (b"first", True), (b"second", False)}


# A failing disk


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("burst", [1, 2, 6], ids=lambda n: f"{n}_calls")
def test_disk_that_fails_at_every_call_changes_nothing_and_is_forgiven(
    burst: int, error: int
) -> None:
    transactions = history(11, 6)
    failed = 0
    for seed in range(6):
        for call in range(len(calls_of(transactions, seed))):
            meter = Meter(TornFiles(random.Random(f"{seed} {call}")))
            meter.files.fail_after(range(call, call + burst), error)
            try:
                meter.start()
            except StoreUnusable:
                assert meter.files.is_closed
                assert meter.files.open_count == 0
                meter.files.kill()
                meter.start()
            for changes in transactions:
                failed += not meter.transact(changes)
            meter.files.fail_after(())
            assert meter.transact([("b", "later", b"on")])
            assert meter.files.open_count == 1
            random.Random(call).choice((meter.files.kill, meter.files.crash))()
            meter.prove()
    assert failed > 50


@pytest.mark.usefixtures("small_segments")
def test_power_cut_among_disk_errors_loses_and_invents_nothing() -> None:
    for seed in range(600):
        dice = random.Random(seed)
        meter = Meter(TornFiles(dice))
        meter.start()
        meter.files.fail_after(sorted(dice.sample(range(30), 12)), errno.EIO)
        meter.files.cut_after(dice.randint(5, 35))
        try:
            for _ in range(15):
                meter.transact(random_changes(dice))
        except PowerCut:
            pass
        dice.choice((meter.files.kill, meter.files.crash))()
        meter.prove()


def test_segment_whose_flush_failed_is_never_written_to_again() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, b"one")])
    files.fail_after([1], errno.EIO)
    with pytest.raises(StoreError, match="Input/output error"):
        journal.transact([("a", 2, b"two")])
    files.calls.clear()
    journal.transact([("a", 3, b"three")])
    assert files.calls == ["create", "append", "sync", "rename", "names", "remove"]
    files.crash()
    assert state_of(Journal(files))["a"] == [(1, b"one"), (3, b"three")]


def test_half_a_frame_on_a_full_disk_is_cut_off_without_a_new_segment() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, b"one")])
    files.calls.clear()
    files.fail_after([0])
    with pytest.raises(StoreError, match="No space left"):
        journal.transact([("a", 2, b"two" * 9)])
    journal.transact([("a", 3, b"three")])
    assert files.calls == ["append", "open_at", "append", "sync"]
    assert Journal(reopened(files)).dropped_octets == 0


def test_new_segment_that_finds_no_room_leaves_none_taken() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    files.fail_after([1, 3])  # The flush, then the new segment's first write.
    for key in (1, 2):
        with pytest.raises(StoreError, match="No space left"):
            journal.transact([("a", key, bytes(99))])
    assert files.names() == ["journal-00000001"]


def test_rename_that_fails_and_is_made_all_the_same_never_hides_what_follows() -> None:
    """The name may be there: then a start takes that segment up, and not the one in use before."""
    for seed in range(20):
        files = TornFiles(random.Random(seed))
        journal = Journal(files)
        journal.transact([("a", 1, b"one")])
        files.fail_after([1, 5], errno.EIO)  # The flush, then the new segment's rename.
        for key in (2, 3):
            with pytest.raises(StoreError):
                journal.transact([("a", key, b"never")])
        journal.transact([("a", 4, b"four")])
        files.crash()
        assert state_of(Journal(files))["a"] == [(1, b"one"), (4, b"four")]


def test_interrupt_in_the_middle_of_a_write_leaves_a_journal_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, b"one")])
    with monkeypatch.context() as patch:

        def interrupted(node: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(files, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.transact([("a", 2, b"two")])
    assert state_of(journal)["a"] == [(1, b"one")]
    journal.transact([("a", 3, b"three")])
    files.crash()
    assert state_of(Journal(files))["a"] == [(1, b"one"), (3, b"three")]


# Against a model


class JournalAgainstModel(RuleBasedStateMachine):
    """Transactions, disk errors, kills and power cuts in any order."""

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        self.meter = Meter(TornFiles(random.Random(seed)))
        self.meter.start()

    @rule(
        changes=st.lists(
            st.tuples(
                st.sampled_from(TABLES),
                st.sampled_from(KEYS),
                st.none() | st.integers() | st.binary(max_size=60) | st.text(max_size=9),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def transact(self, changes: list[Change]) -> None:
        try:
            self.meter.transact(changes)
        except PowerCut:
            self.start_again(is_crash=True)

    @rule(is_crash=st.booleans())
    def start_again(self, is_crash: bool) -> None:
        while True:
            if is_crash:
                self.meter.files.crash()
            else:
                self.meter.files.kill()
            try:
                self.meter.start()
            except (PowerCut, StoreUnusable):
                continue
            return

    @rule(calls=st.integers(0, 12))
    def arm_a_power_cut(self, calls: int) -> None:
        self.meter.files.cut_after(calls)

    @rule(calls=st.sets(st.integers(0, 12), max_size=6), error=st.sampled_from((5, 28)))
    def arm_disk_errors(self, calls: set[int], error: int) -> None:
        self.meter.files.fail_after(calls, error)

    @precondition(lambda self: self.meter.journal is not None)
    @rule()
    def stop_cleanly(self) -> None:
        assert self.meter.journal is not None
        self.meter.journal.close()
        assert self.meter.files.open_count == 0
        self.start_again(is_crash=False)

    @invariant()
    def shows_what_the_model_shows(self) -> None:
        if hasattr(self, "meter") and self.meter.journal is not None:
            assert state_of(self.meter.journal) == self.meter.state


TestJournalAgainstModel = pytest.mark.usefixtures("small_segments")(JournalAgainstModel.TestCase)
TestJournalAgainstModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# Segments


def reopened(files: TornFiles) -> TornFiles:
    files.kill()
    return files


def segments(files: TornFiles) -> dict[str, bytes]:
    return {
        name: files.read(name, 1 << 30) for name in sorted(files.names()) if name != "unfinished"
    }


@pytest.mark.usefixtures("small_segments")
def test_new_segments_keep_everything_and_remove_the_old_ones() -> None:
    files = TornFiles(random.Random(1))
    meter = Meter(files)
    meter.run(history(5, 100))
    assert files.calls.count("rename") > 10
    assert list(segments(files)) == [f"journal-{files.calls.count('rename'):08}"]
    files.kill()
    meter.start()


def test_segment_is_begun_at_the_limit_and_not_before() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    count = 0
    while files.calls.count("rename") < 3:
        journal.transact([("a", 0, bytes(1_000))])
        ((_, octets),) = segments(files).items()
        assert len(octets) <= meterd.journal.SEGMENT_SIZE_MAX
        count += 1
    frame = 1_000 + 8 + 8  # The value, its CBOR around it, and the frame's header.
    assert count == pytest.approx(2 * meterd.journal.SEGMENT_SIZE_MAX / frame, rel=0.02)


def test_tables_larger_than_a_segment_are_not_written_anew_at_every_transaction() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    size = 2 * meterd.journal.SEGMENT_SIZE_MAX
    journal.transact([("a", 0, bytes(size))])
    before = files.written_octets
    for _ in range(1_000):
        journal.transact([("a", 1, bytes(500))])
    assert files.written_octets - before < 1_000 * 520 + 3 * size


def test_of_two_segments_the_newer_one_is_taken_up() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, b"old")])
    (old,) = segments(files).items()
    journal = Journal(reopened(files))
    journal.transact([("a", 1, b"new")])
    files.put(*old)
    journal = Journal(reopened(files))
    assert journal.get("a", 1) == b"new"
    assert journal.dropped_octets == 0
    assert len(segments(files)) == 1


def test_newer_segment_without_a_beginning_gives_way_to_the_older_and_is_counted() -> None:
    """Only a disk that lies about flushes can do this: better a little old than nothing."""
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, b"old")])
    files.put("journal-00000007", b"AMIMTR1\n" + bytes(92))
    journal = Journal(reopened(files))
    assert journal.get("a", 1) == b"old"
    assert journal.dropped_octets == 100
    assert list(segments(files)) == ["journal-00000008"]


def test_empty_newer_segment_gives_way_to_the_older_and_is_counted() -> None:
    files = TornFiles(random.Random(0))
    Journal(files).transact([("a", 1, "kept")])
    files.crash()
    files.put("journal-00000007", b"")
    journal = Journal(files)
    assert journal.get("a", 1) == "kept"
    assert journal.dropped_octets == 1


def test_amendment_of_a_journal_that_dropped_octets_is_durable_with_its_taking_up() -> None:
    def amend(journal: Journal) -> list[Change]:
        count = journal.get("a", "found") or 0
        return [("a", "found", count + journal.dropped_octets), ("a", 1, None)]

    for seed in range(10):
        for cut in range(12):
            files = TornFiles(random.Random(seed))
            journal = Journal(files, amend=amend)
            journal.transact([("a", 1, "doubtful")])
            assert journal.get("a", "found") is None, "nothing was dropped"
            files.crash()
            (name,) = files.names()
            files.put(name, files.read(name, 1 << 20) + b"torn")
            files.cut_after(cut)
            with contextlib.suppress(PowerCut):
                Journal(files, amend=amend)
            files.crash()
            # Whoever comes next finds it amended, even if he would not do it himself.
            journal = Journal(files) if cut == 11 else Journal(files, amend=amend)
            assert journal.get("a", 1) is None
            assert journal.get("a", "found") == 4


def test_files_that_are_no_segments_are_left_alone() -> None:
    files = TornFiles(random.Random(1))
    garbage = [
        *("journal-", "journal-1", "journal-0000001x", "journal-00000001.bak", "notes"),
        *("journal-000000001", "journal-0000000٣", "journal-99999999999999", "Journal-00000001"),
    ]
    for name in garbage:
        files.put(name, b"AMIMTR1\nxx")
    files.put("unfinished", b"half a segment")
    journal = Journal(files)
    journal.transact([("a", 1, b"one")])
    assert sorted(files.names()) == sorted([*garbage, "journal-00000001"])
    journal = Journal(reopened(files))
    assert journal.get("a", 1) == b"one"
    assert journal.dropped_octets == 0


def test_number_of_nine_digits_follows_that_of_eight() -> None:
    files = TornFiles(random.Random(1))
    Journal(files).transact([("a", 1, b"one")])
    ((name, octets),) = segments(files).items()
    files.put("journal-99999999", renamed(octets, name, "journal-99999999"))
    for _ in range(3):
        assert Journal(reopened(files)).get("a", 1) == b"one"
    assert list(segments(files)) == ["journal-100000002"]


# Octets


def crc(octets: bytes, start: int = 0) -> int:
    """CRC-32 as IEEE 802.3 has it, bit by bit: not the routine of the code under test."""
    register = start ^ 0xFFFFFFFF
    for octet in octets:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def segment(name: str, *bodies: bytes) -> bytes:
    """A segment by the book."""
    octets, before = b"AMIMTR1\n", crc(name.encode())
    for body in bodies:
        size = struct.pack("!I", len(body))
        before = crc(size + body, before)
        octets += size + struct.pack("!I", before) + body
    return octets


def bodies_of(octets: bytes) -> list[bytes]:
    bodies, at = [], 8
    while at < len(octets):
        (size,) = struct.unpack_from("!I", octets, at)
        bodies.append(octets[at + 8 : at + 8 + size])
        at += 8 + size
    return bodies


def renamed(octets: bytes, old: str, new: str) -> bytes:
    bodies = bodies_of(octets)
    assert segment(old, *bodies) == octets
    return segment(new, *bodies)


NAME = "journal-00000001"


def opened(octets: bytes, name: str = NAME) -> Journal:
    files = TornFiles(random.Random(1))
    files.put(name, octets)
    return Journal(files)


def test_crc_of_the_test_is_the_published_one() -> None:
    assert crc(b"123456789") == 0xCBF43926  # The check value of CRC-32/ISO-HDLC.


def test_segment_written_by_the_book_is_read() -> None:
    # [["a", 1, h'010203'], ["b", [2, 3], "x"]], then [["a", 1, null], ["a", "k", -1]]: RFC 8949.
    first = bytes.fromhex("82 83 6161 01 43010203 83 6162 820203 6178")
    second = bytes.fromhex("82 83 6161 01 f6 83 6161 616b 20")
    assert state_of(opened(segment(NAME, first))) == {"a": [(1, b"\1\2\3")], "b": [((2, 3), "x")]}
    journal = opened(segment(NAME, first, second))
    assert state_of(journal) == {"a": [("k", -1)], "b": [((2, 3), "x")]}
    assert journal.dropped_octets == 0


def test_segment_is_written_by_the_book() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, b"\1\2\3"), ("b", (2, 3), "x")])
    journal.transact([("a", 1, None)])
    bodies = ["80", "82 83 6161 01 43010203 83 6162 820203 6178", "81 83 6161 01 f6"]
    assert segments(files) == {NAME: segment(NAME, *map(bytes.fromhex, bodies))}


def test_one_flipped_bit_is_always_noticed_and_nothing_behind_it_counts() -> None:
    transactions = history(2, 7)
    files = TornFiles(random.Random(1))
    meter = Meter(files)
    meter.start()
    states, ends = [EMPTY], [len(segments(files)[NAME])]
    for changes in transactions:
        meter.transact(changes)
        states.append(meter.state)
        ends.append(len(segments(files)[NAME]))
    octets = segments(files)[NAME]
    for bit in range(8 * len(octets)):
        damaged = bytearray(octets)
        damaged[bit // 8] ^= 1 << bit % 8
        whole = [index for index, end in enumerate(ends) if end <= bit // 8]
        if not whole:
            with pytest.raises(StoreUnusable, match=r"damaged at its beginning|newer meterd"):
                opened(bytes(damaged))
            continue
        journal = opened(bytes(damaged))
        assert state_of(journal) == states[whole[-1]]
        assert journal.dropped_octets == len(octets) - ends[whole[-1]]


def test_segment_cut_short_anywhere_shows_its_whole_transactions() -> None:
    bodies = [cbor2.dumps([["a", 1, count]]) for count in range(5)]
    octets = segment(NAME, *bodies)
    for size in range(len(octets)):
        whole = [count for count in range(5) if len(segment(NAME, *bodies[: count + 1])) <= size]
        if whole:
            assert opened(octets[:size]).get("a", 1) == whole[-1]
        else:
            with pytest.raises(StoreUnusable, match="damaged at its beginning"):
                opened(octets[:size])


def test_whole_frame_of_another_segment_or_place_does_not_count() -> None:
    """A file system may show old octets where a write was lost: a removed segment's, say."""
    one, two, three = (cbor2.dumps([["a", 1, count]]) for count in (1, 2, 3))
    mine = segment(NAME, one, two)
    elsewhere = segment("journal-00000002", one, two, three)
    assert len(elsewhere) > len(mine)
    journal = opened(mine + elsewhere[len(mine) :])
    assert journal.get("a", 1) == 2
    out_of_order = segment(NAME, one, two, three)
    first, frame = len(segment(NAME, one)), len(mine) - len(segment(NAME, one))
    assert opened(out_of_order[:first] + out_of_order[first + frame :]).get("a", 1) == 1
    with pytest.raises(StoreUnusable, match="damaged at its beginning"):
        opened(elsewhere)


def test_zeros_behind_the_last_frame_are_dropped() -> None:
    journal = opened(segment(NAME, cbor2.dumps([["a", 1, 1]])) + bytes(4096))
    assert journal.get("a", 1) == 1
    assert journal.dropped_octets == 4096


@pytest.mark.parametrize("digit", b"29")
def test_newer_format_is_refused_in_one_line_and_left_as_it_is(digit: int) -> None:
    octets = b"AMIMTR" + bytes([digit]) + b"\nwhatever comes"
    files = TornFiles(random.Random(1))
    files.put(NAME, octets)
    files.put("journal-00000000", segment("journal-00000000", b"\x80"))
    with pytest.raises(StoreUnusable, match="made by a newer meterd") as refusal:
        Journal(files)
    assert "\n" not in str(refusal.value)
    assert files.is_closed
    assert segments(reopened(files))[NAME] == octets


WRONG_SHAPES = {
    "no CBOR": b"\xff",
    "half an array": b"\x81",
    "number": b"\x01",
    "text": cbor2.dumps("abc"),
    "map": cbor2.dumps({"a": 1}),
    "change of two": cbor2.dumps([["a", 1]]),
    "change of four": cbor2.dumps([["a", 1, 2, 3]]),
    "change that is a text": cbor2.dumps(["abc"]),
    "table that is a number": cbor2.dumps([[1, 1, 1]]),
    "key of one": cbor2.dumps([["a", [1], 1]]),
    "key of three": cbor2.dumps([["a", [1, 2, 3], 1]]),
    "key of texts": cbor2.dumps([["a", ["x", "y"], 1]]),
    "key of lists": cbor2.dumps([["a", [[1], [2]], 1]]),
    "key that is octets": cbor2.dumps([["a", b"xy", 1]]),
    "key that is a float": cbor2.dumps([["a", 1.5, 1]]),
    "key that is null": cbor2.dumps([["a", None, 1]]),
    "tag of no day": b"\x81\x83\x61a\x01" + cbor2.dumps(cbor2.CBORTag(0, "no day")),
    "tag of no regular expression": b"\x81\x83\x61a\x01" + cbor2.dumps(cbor2.CBORTag(35, "(")),
    "tag of no fraction": b"\x81\x83\x61a\x01" + cbor2.dumps(cbor2.CBORTag(30, [1, 0])),
    "too deep": b"\x81" * 5_000,
    "list that holds itself": cbor2.dumps([["a", 1, cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)])]]),
    "promises 2^63 values": b"\x9b\x7f" + b"\xff" * 7,
}


@pytest.mark.parametrize("body", WRONG_SHAPES.values(), ids=WRONG_SHAPES.keys())
@pytest.mark.parametrize("before", [(), (b"\x80",)], ids=["first", "later"])
def test_body_of_a_wrong_shape_under_a_right_crc_is_refused_in_one_line(
    body: bytes, before: tuple[bytes, ...]
) -> None:
    with pytest.raises(StoreUnusable, match="holds what no meterd writes") as refusal:
        opened(segment(NAME, *before, body))
    assert "\n" not in str(refusal.value)


@given(octets=st.binary(max_size=200), with_magic=st.booleans())
@settings(deadline=None)
def test_arbitrary_octets_are_no_segment(octets: bytes, with_magic: bool) -> None:
    with pytest.raises(StoreUnusable):
        opened(b"AMIMTR1\n" + octets if with_magic else octets)


@given(body=st.binary(min_size=1, max_size=60), tag=st.none() | st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_arbitrary_body_under_a_right_crc_is_read_or_refused(body: bytes, tag: int | None) -> None:
    if tag is not None:
        head = bytes([0xC0 | tag]) if tag < 24 else b"\xd9" + struct.pack("!H", tag)
        body = b"\x81\x83\x61a\x01" + head + body
    try:
        journal = opened(segment(NAME, b"\x80", body))
    except StoreUnusable:
        return
    assert journal.dropped_octets == 0


def test_file_longer_than_any_segment_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meterd.journal, "SEGMENT_READ_MAX", 100)
    journal = opened(segment(NAME, cbor2.dumps([["a", 1, 1]])) + bytes(1_000_000))
    assert journal.get("a", 1) == 1
    assert journal.dropped_octets < 100


# Values


@given(
    value=st.recursive(
        st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.binary(max_size=20)
        | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    key=st.integers() | st.text(max_size=8) | st.tuples(st.integers(), st.integers()),
)
@settings(deadline=None)
def test_what_is_read_is_what_a_later_start_reads(value: object, key: Any) -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", key, value)])
    assert state_of(journal)["a"] == [(key, value)]
    assert state_of(Journal(reopened(files)))["a"] == [(key, value)]


def test_value_changed_by_its_owner_afterwards_is_not_changed_in_the_journal() -> None:
    journal = Journal(TornFiles(random.Random(1)))
    value = [1, 2]
    journal.transact([("a", 1, value)])
    value.append(3)
    assert journal.get("a", 1) == [1, 2]


def test_tuple_reads_the_same_before_and_after_a_start() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, (1, (2, 3)))])
    assert repr(journal.get("a", 1)) == repr(Journal(reopened(files)).get("a", 1))


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("a", 1, object()), id="object"),
        pytest.param(("a", 1, "\ud800"), id="half a character"),
        pytest.param(("a", 1, bytes(meterd.journal.FRAME_SIZE_MAX)), id="too long"),
        pytest.param(("a", 1, nested(900)), id="too deep to be read back"),
        pytest.param(("a", 1, nested(50_000)), id="too deep"),
        pytest.param(("a", 1, cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)])), id="holds itself"),
        pytest.param(("a", 1.5, 1), id="key that is a float"),
        pytest.param(("a", (1, 2, 3), 1), id="key of three"),
        pytest.param(("a", ("x", 1), 1), id="key of text and number"),
        pytest.param((1, 1, 1), id="table that is a number"),
        pytest.param(("a", 1), id="change of two"),
    ],
)
def test_change_that_cannot_be_kept_is_refused_and_changes_nothing(change: Any) -> None:
    files = TornFiles(random.Random(1))
    meter = Meter(files)
    meter.run([[("a", 1, b"one")]])
    calls = len(files.calls)
    assert meter.journal is not None
    with pytest.raises(StoreError):
        meter.journal.transact([("a", 1, b"two"), change])
    assert len(files.calls) == calls
    assert state_of(meter.journal) == meter.state
    assert meter.transact([("a", 2, b"three")])
    files.crash()
    meter.start()


@pytest.mark.parametrize("segment_size_max", [500, 1_000, 5_000])
def test_tables_too_large_for_a_frame_are_refused_while_they_can_still_be_read(
    monkeypatch: pytest.MonkeyPatch, segment_size_max: int
) -> None:
    """A later start must write them into one frame, whatever they have grown to."""
    monkeypatch.setattr(meterd.journal, "FRAME_SIZE_MAX", 2_000)
    monkeypatch.setattr(meterd.journal, "SEGMENT_SIZE_MAX", segment_size_max)
    meter = Meter(TornFiles(random.Random(1)))
    meter.start()
    kept = 0
    while meter.transact([("a", kept, bytes(190))]):
        kept += 1
        meter.files.kill()
        meter.start()
    assert kept == 10
    assert meter.transact([("a", 0, bytes(100))])
    assert meter.transact([("a", key, None) for key in range(kept)])
    meter.files.crash()
    meter.start()


@pytest.mark.parametrize("segment_size_max", [500, 1_000, 5_000])
def test_tables_grow_to_their_limit_in_one_go(
    monkeypatch: pytest.MonkeyPatch, segment_size_max: int
) -> None:
    monkeypatch.setattr(meterd.journal, "FRAME_SIZE_MAX", 2_000)
    monkeypatch.setattr(meterd.journal, "SEGMENT_SIZE_MAX", segment_size_max)
    meter = Meter(TornFiles(random.Random(1)))
    meter.start()
    while meter.transact([("a", len(meter.state["a"]), bytes(19))]):
        pass
    assert len(meter.state["a"]) > 70
    meter.files.kill()
    meter.start()


def test_empty_transaction_writes_nothing() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    calls = len(files.calls)
    journal.transact([])
    assert len(files.calls) == calls


def test_journal_that_is_closed_takes_nothing_more() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    journal.transact([("a", 1, 1)])
    journal.close()
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.transact([("a", 1, 2)])
    assert Journal(reopened(files)).get("a", 1) == 1


def test_octets_and_flushes_are_counted() -> None:
    files = TornFiles(random.Random(1))
    journal = Journal(files)
    for _ in range(400):
        journal.transact([("a", 1, bytes(1_000))])
    assert journal.written_octets == files.written_octets
    # A new segment flushes its folder too.
    assert journal.sync_count == files.sync_count + files.calls.count("rename")
