"""A meter whose power goes at any moment: nothing recorded, logged or promised is lost or invented.

The contract under test, with the power cut at every call to the file system. The recorder on its
storage: what a method returned from is there after the next start; what was under way is there
whole or not at all; every recorded interval is the source's, the registers go on from it, no
complete day is owed twice or forgotten, a log entry's number never names another entry, and a
sender number that was handed out stays handed out. The whole agent in its world: no pair of key and
nonce covers two plaintexts, and in the end every day is at the head-end, as the source has it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

import meterd.journal
from amistack.errors import StoreError
from amistack.model import LogEntry, ReadParts
from amistack.model.events import CLOCK_SET, PRIMARY_POWER_RESTORED, STORAGE_DAMAGED
from amistack.stack import SEQUENCE_BLOCK
from meterd.agent import Reported, Schedule, Secured, StorageDamaged
from meterd.journal import HEADER, MAGIC_SIZE, SEGMENT_SIZE_MAX
from meterd.recorder import Recorder
from meterd.storage import SavedSession, Storage
from tests.meterd.bench import DAY, EPOCH, METER, Bench, Sealed, watched_nonces
from tests.meterd.test_recorder import StubSource
from tests.support.power import PowerCut, TornFiles
from tests.support.worlds import LinkQuality

TODAY = int(EPOCH) // DAY
FIRST = TODAY - 3
"""The first day that the sources know."""
START_WH = 1_000


@pytest.fixture(params=[None, 2_000], ids=["one segment", "many segments"])
def segment_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(meterd.journal, "SEGMENT_SIZE_MAX", request.param)


# The recorder on its storage


@dataclass(frozen=True)
class Model:
    """What a storage should hold, in plain values; the days follow from `until` and the source."""

    until: int | None = None
    owed: frozenset[int] = frozenset()
    log: tuple[LogEntry, ...] = ()
    session: SavedSession | None = None


class Program:
    """A recorder on its storage, started again whenever its power is back, beside a model of it."""

    def __init__(self, seed: object, source: StubSource) -> None:
        self.dice = random.Random(f"program {seed}")
        self.files = TornFiles(random.Random(f"files {seed}"))
        self.source = source
        self.model = Model()
        self.may_be: list[Model] = []
        """States beside `model` that a start may find: of what was under way, or failed since."""
        self.names: dict[int, LogEntry] = {}
        """Every log entry that anybody has ever seen, by its number."""
        self.handed_out: dict[bytes, int] = {}
        """For each session the first sender number that was not handed out."""
        self.session_count = 0
        self.cut_count = 0
        self.damage_count = 0
        self.failure_count = 0
        self.utc = FIRST * DAY + 100

    # Its power

    def start(self) -> None:
        """Open the files, as often as the power needs; compare what is found with the model."""
        while True:
            try:
                self.storage = Storage.on(self.files)
                self.recorder = Recorder(
                    self.storage, self.source, offset_min=0, register_start=[START_WH]
                )
            except PowerCut:
                self.lose_power()
            else:
                break
        found = self.found()
        if self.storage.lost_octets:
            self.may_be = [replace(one, session=None) for one in (self.model, *self.may_be)]
            assert found in self.may_be
        else:
            assert found in (self.model, *self.may_be)
        self.model, self.may_be = found, []
        self.see(found.log)
        self.check_days()

    def lose_power(self) -> None:
        self.cut_count += 1
        self.files.crash()

    def found(self) -> Model:
        return Model(
            self.recorder.recorded_until,
            frozenset(self.recorder.owed_days()),
            tuple(self.storage.entries(0, 1 << 32, limit=1 << 20)),
            self.storage.session(),
        )

    def see(self, entries: tuple[LogEntry, ...]) -> None:
        for entry in entries:
            assert self.names.setdefault(entry.sequence, entry) == entry

    def check_days(self) -> None:
        """Every interval up to where it says that it has recorded, and the registers over them."""
        until = self.recorder.recorded_until
        register = START_WH
        for day in range(FIRST, int(self.utc) // DAY + 2):
            end = min(until or 0, (day + 1) * DAY)
            expected = tuple(
                self.source.value(second, 0)
                for second in range(day * DAY, end, self.source.interval_s)
            )
            blocks = self.recorder.block(day)
            if not expected:
                assert blocks == []
                continue
            (block,) = blocks
            assert block.values() == expected
            assert block.opening == register
            register = block.closing
            assert register == block.opening + sum(value or 0 for value in expected)
        if until is not None:
            assert self.recorder.registers(until)[0][1] == register

    # What it does

    def do(self, after: Callable[[Model], Model], act: Callable[[], object]) -> bool:
        """Carry out one change; whether it was made. PowerCut goes through."""
        self.may_be.append(after(self.model))
        try:
            act()
        except StoreError:
            self.failure_count += 1
            assert self.found() == self.model
            return False
        self.model, self.may_be = self.may_be[-1], []
        assert self.found() == self.model
        return True

    def turn(self) -> None:
        """One thing that a meter does, by the dice."""
        if self.storage.lost_octets:
            self.take_damage()
        elif self.model.session is None:
            self.join()
        else:
            self.dice.choices(
                (self.record, self.log, self.report, self.reserve, self.accept, self.join),
                (10, 3, 3, 2, 2, 0.5),
            )[0]()

    def record(self) -> None:
        interval_s = self.source.interval_s
        # Mostly the next interval; sometimes after hours without power.
        self.utc += interval_s * self.dice.choice((1, 1, 1, 1, 2, 5))

        def after(model: Model) -> Model:
            begin = model.until if model.until is not None else FIRST * DAY
            end = max(self.utc - self.utc % interval_s, begin)
            complete = range(begin // DAY, end // DAY)
            return replace(model, until=end, owed=model.owed | set(complete))

        self.do(after, lambda: self.recorder.advance(self.utc))

    def log(self) -> None:
        at, detail = self.utc, f"{self.dice.randrange(10**9)}"
        told: list[LogEntry] = []

        def after(model: Model) -> Model:
            entry = LogEntry(self.next_number(), at, CLOCK_SET, detail)
            return replace(model, log=(*model.log, entry))

        if self.do(after, lambda: told.append(self.recorder.log(at, CLOCK_SET, detail))):
            self.see(tuple(told))

    def next_number(self) -> int:
        """What a new entry will be called: the one value that is asked of the storage itself."""
        return self.storage._next_sequence

    def report(self) -> None:
        days = self.recorder.owed_days()
        if not days:
            return
        day = days[0]
        entries = self.recorder.entries_due(day)

        def after(model: Model) -> Model:
            log = tuple(entry for entry in model.log if entry not in entries)
            return replace(model, owed=model.owed - {day}, log=log)

        self.do(after, lambda: self.recorder.settle(day, entries))

    def join(self) -> None:
        self.session_count += 1
        name = bytes([self.session_count % 250])
        session = SavedSession(
            b"head-end",
            name,
            b"sender",
            self.dice.randbytes(16),
            self.dice.randbytes(8),
            SEQUENCE_BLOCK,
            (0, 0),
        )
        if self.do(
            lambda model: replace(model, session=session),
            lambda: self.storage.keep_session(session),
        ):
            self.handed_out = {name: SEQUENCE_BLOCK}

    def reserve(self) -> None:
        session = self.model.session
        assert session is not None
        until = session.reserved_until + SEQUENCE_BLOCK
        if self.do(
            lambda model: replace(model, session=replace(session, reserved_until=until)),
            lambda: self.storage.reserve_numbers(session.recipient_id, until),
        ):
            self.handed_out[session.recipient_id] = until

    def accept(self) -> None:
        session = self.model.session
        assert session is not None
        window = (session.window[0] + 1, self.dice.getrandbits(63))
        self.do(
            lambda model: replace(model, session=replace(session, window=window)),
            lambda: self.storage.keep_window(session.recipient_id, window),
        )

    def take_damage(self) -> None:
        """As the agent does it."""
        lost = self.storage.lost_octets
        detail = f"{lost} octets"

        def act() -> None:
            with self.storage.together():
                self.recorder.log(self.utc, STORAGE_DAMAGED, detail, skipped=lost)
                self.storage.settle_loss()

        def after(model: Model) -> Model:
            number = self.next_number() + lost
            return replace(
                model, log=(*model.log, LogEntry(number, self.utc, STORAGE_DAMAGED, detail))
            )

        if self.do(after, act):
            self.damage_count += 1

    def run(self, turn_count: int) -> None:
        """Start, and do so many things; PowerCut goes through."""
        self.start()
        for _ in range(turn_count):
            self.turn()
            self.check_numbers()

    def check_numbers(self) -> None:
        session = self.storage.session()
        if session is not None:
            assert session.reserved_until >= self.handed_out.get(session.recipient_id, 0)

    def run_on(self, turn_count: int, cuts: Iterator[int]) -> None:
        """Run to the end of the power of the last cut, then in peace; settle everything."""
        for cut in cuts:
            self.files.cut_after(cut)
            try:
                self.run(turn_count)
            except PowerCut:
                self.lose_power()
            self.files.kill()
        self.run(turn_count)
        while self.recorder.owed_days():
            self.report()
        self.files.crash()
        self.start()
        assert self.model.owed == frozenset()
        assert self.storage.lost_octets == 0


def source_of(seed: int, interval_s: int) -> StubSource:
    return StubSource(interval_s, gap_every=3 + seed % 4, known_from=FIRST * DAY)


TURN_COUNT = 40


@pytest.mark.usefixtures("segment_size")
@pytest.mark.parametrize("seed", range(2))
def test_power_cut_at_every_call_loses_and_invents_nothing(seed: int) -> None:
    source = source_of(seed, 6 * 3600)
    whole = Program(seed, source)
    whole.run(TURN_COUNT)
    assert whole.recorder.recorded_until > (FIRST + 3) * DAY, "three days"
    assert whole.names
    for cut in range(len(whole.files.calls)):
        one = Program(seed, source)
        # Of the same dice: up to the cut the very same calls.
        one.run_on(TURN_COUNT, iter([cut]))
        assert one.cut_count == 1
        # And once more, while it starts again.
        twice = Program(seed, source)
        twice.run_on(TURN_COUNT, iter([cut, cut % 9]))
        assert twice.cut_count == 2


@pytest.mark.usefixtures("segment_size")
def test_long_histories_of_cuts_failures_and_kills_lose_and_invent_nothing() -> None:
    met: Counter[str] = Counter()
    for seed in range(20):
        source = source_of(seed, 900)
        one = Program(seed, source)
        dice = random.Random(seed)
        while one.utc < (FIRST + 3) * DAY:
            one.files.cut_after(dice.randrange(60))
            failures = [call for call in range(60) if dice.random() < 0.1]
            # Starts go well: those that do not are the journal's own tests.
            try:
                one.start()
                one.files.fail_after(failures)
                for _ in range(25):
                    one.turn()
                    one.check_numbers()
            except PowerCut:
                one.lose_power()
            else:
                one.files.kill()
        one.run_on(20, iter([]))
        met["cuts"] += one.cut_count
        met["failures"] += one.failure_count
        met["damage"] += one.damage_count
        met["entries"] += len(one.names)
    # Guards the dice: without all of these the test proves little.
    assert met["cuts"] > 100
    assert met["failures"] > 50
    assert met["damage"] > 20
    assert met["entries"] > 300


# The whole agent


LOSSY = LinkQuality(loss=0.1, duplication=0.1, delay_min=0.01, delay_max=0.5)
LAST = TODAY + 2
"""The last day that is whole at the end of a run."""


@dataclass
class Street:
    """One meter in its world, whose power goes `cut_count` times."""

    seed: int
    is_damaged: bool = False
    one: Bench = field(init=False)
    dice: random.Random = field(init=False)
    calls: Counter[str] = field(default_factory=Counter)
    """The calls in the middle of which the power went."""
    reads: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(f"street {self.seed}")
        self.one = Bench(
            seed=self.seed,
            quality=LOSSY,
            make_source=lambda: StubSource(gap_every=5, known_from=FIRST * DAY),
            schedule=Schedule(60.0, 30.0, 5.0),
        )

    def run(self) -> None:
        """Three days with power cuts, and a night in peace."""
        self.ask_now_and_then()
        end = self.one.midnight(LAST + 1)
        self.power_on(self.next_cut())
        while self.one.world.now < end:
            try:
                # A meter that does little is cut off all the same: the plug needs no file call.
                self.one.world.elapse(self.dice.choice((5.0, 60.0, 3600.0, 20_000.0)))
                self.one.power_off()
            except PowerCut:
                self.note_cut()
                self.one.power_off()
            if self.is_damaged and self.dice.random() < 0.3:
                self.damage()
            # Dark for a moment, or for a night.
            self.one.world.elapse(self.dice.choice((0.0, 1.0, 1.0, 30.0, 9_000.0)))
            self.power_on(self.next_cut())
        self.one.power_off()
        self.power_on(None)
        self.one.world.elapse(3 * 3600)

    def next_cut(self) -> int | None:
        return self.dice.choice((None, *(self.dice.randrange(most) for most in (4, 12, 40, 120))))

    def power_on(self, cut: int | None) -> None:
        while True:
            try:
                if cut is not None:
                    self.one.files.cut_after(cut)
                self.one.power_on()
            except PowerCut:
                self.note_cut()
                self.one.files.crash()
                cut = self.next_cut()
            else:
                break
        self.replay()

    def replay(self) -> None:
        """Somebody has kept what the meter was sent last, and sends it again."""
        kept = [line.datagram for line in self.one.world.datagrams() if line.receiver == "meter"]
        for datagram in kept[-6:]:
            self.one.world.send("head-end", "meter", datagram)

    def note_cut(self) -> None:
        self.calls[self.one.files.calls[-1]] += 1

    def ask_now_and_then(self) -> None:
        """The head-end reads the meter, whether it is there or not."""
        one = self.one

        def ask() -> None:
            if one.head_end._stack.session_of(METER) is not None:
                self.reads += 1
                one.head_end.read(
                    METER,
                    ReadParts.REGISTERS | ReadParts.LOG,
                    "meter",
                    now=one.world.now,
                    name=self.reads.to_bytes(8, "big"),
                )
                one.settle_head_end()

        at = 20.0
        while at < one.midnight(LAST + 1):
            one.world.at(at, ask)
            at += self.dice.choice((2.0, 50.0, 4_000.0, 30_000.0))

    def damage(self) -> None:
        """Something in the newest segment behind its first frame is not what it was.

        What was durable is lost: no honest disk does that.
        """
        files = self.one.files
        name = max(files.names())
        octets = bytearray(files.read(name, 1 << 22))
        size, _ = HEADER.unpack_from(octets, MAGIC_SIZE)
        behind = MAGIC_SIZE + HEADER.size + size
        if len(octets) == behind:
            octets += b"\xa5"
        else:
            octets[self.dice.randrange(behind, len(octets))] ^= 1 << self.dice.randrange(8)
        files.put(name, bytes(octets))

    def check(self) -> None:
        """What must be true at the end of every run."""
        one = self.one
        assert one.recorder.owed_days() == []
        contents = defaultdict(set)
        names: dict[int, LogEntry] = {}
        for report in one.head_end.reports:
            contents[report.day].add(report.blocks)
            for entry in report.entries:
                assert names.setdefault(entry.sequence, entry) == entry
        for answer in one.head_end.read_answers:
            for entry in answer.entries:
                assert names.setdefault(entry.sequence, entry) == entry
        assert sorted(contents) == list(range(FIRST, LAST + 1))
        source = one.make_source()
        assert isinstance(source, StubSource)
        register = 0
        for day in range(FIRST, LAST + 1):
            ((block,),) = contents[day]
            expected = tuple(
                source.value(second, 0) for second in range(day * DAY, (day + 1) * DAY, 3600)
            )
            assert block.values() == expected
            assert block.opening == register
            register += sum(value or 0 for value in expected)
            assert block.closing == register
        reported = [event.day for event in one.events(Reported) if isinstance(event, Reported)]
        # Not every one: the power may go when it is settled and before anybody is told.
        assert set(reported) <= set(contents)


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> Sealed:
    return watched_nonces(monkeypatch)


@pytest.mark.parametrize(
    ("is_damaged", "seed_count"), [(False, 50), (True, 25)], ids=["honest disk", "damaged disk"]
)
def test_whatever_power_cuts_every_day_arrives_and_no_nonce_covers_two_plaintexts(
    sealed: Sealed, monkeypatch: pytest.MonkeyPatch, is_damaged: bool, seed_count: int
) -> None:
    met: Counter[str] = Counter()
    for seed in range(seed_count):
        monkeypatch.setattr(meterd.journal, "SEGMENT_SIZE_MAX", (SEGMENT_SIZE_MAX, 2_000)[seed % 2])
        street = Street(seed, is_damaged)
        street.run()
        street.check()
        met.update(street.calls)
        met["starts"] += street.one.start_count
        met["answers"] += len(street.one.head_end.read_answers)
        met["sessions"] += len(street.one.events(Secured))
        met["damage"] += len(street.one.events(StorageDamaged))
        met["restored"] += sum(
            entry.event == PRIMARY_POWER_RESTORED
            for report in street.one.head_end.reports
            for entry in report.entries
        )
    sealed.check()
    # Guards the dice: without all of these the test proves little.
    assert met["append"] > 100
    assert met["sync"] > 100
    assert met["rename"] > 10
    assert met["starts"] > 500
    assert met["answers"] > 100
    assert met["sessions"] > 50
    assert met["damage"] > (100 if is_damaged else 10)
    assert met["restored"] > 100
