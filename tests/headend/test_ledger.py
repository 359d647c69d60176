"""The account of every uplink.

The contract under test: whatever meters send and whatever the store does with it, received = stored
+ answered + refused + pending for every kind at every step, and each uplink that is not pending was
answered once, with success if and only if it was stored or had nothing to store. An uplink that is
lost, or ends twice, raises the alarm: one log line for each change, never more.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from amistack.coap.codes import Code, is_success
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.errors import LocalProtocolError, StoreBusy, StoreError, TableFull
from amistack.model.resources import REGISTRATION, REPORT, TIME
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from amistack.stack import SecureRequest
from headend.southbound import service
from headend.southbound.ledger import Ledger, Tally, UplinkKind, kind_of
from headend.southbound.service import Southbound
from headend.store.interface import KeepDelivery, Kept, Outcome, Write
from tests.support import headend as world
from tests.support.headend import NOW, meter_id, post, private_key

METER = meter_id(1)
KEY = private_key("head-end")
IDENTITY = AuthenticationKey(KEY, head_end_credential(encode_public_key(KEY.public_key())))

DISK_FULL = StoreError("the store refused a write: database or disk is full")
GET_TIME = Message.request(Code.GET, TIME)
UPLINKS: dict[str, tuple[UplinkKind, Message]] = {
    "registration": (
        UplinkKind.REGISTRATION,
        post(REGISTRATION, world.registration(METER).encode()),
    ),
    "registration of another": (
        UplinkKind.REGISTRATION,
        post(REGISTRATION, world.registration(meter_id(2)).encode()),
    ),
    "registration that is none": (UplinkKind.REGISTRATION, post(REGISTRATION, b"\x00")),
    "report": (
        UplinkKind.REPORT,
        post(REPORT, world.report(entries=[world.entry(1), world.entry(2)]).encode()),
    ),
    "report of an unknown channel": (
        UplinkKind.REPORT,
        post(REPORT, world.report(blocks=[world.block(9), world.block(1)]).encode()),
    ),
    "report that is none": (UplinkKind.REPORT, post(REPORT, b"\xff")),
    "report of nothing": (UplinkKind.REPORT, post(REPORT, world.report(blocks=[]).encode())),
    "report got": (UplinkKind.REPORT, Message.request(Code.GET, REPORT)),
    "time": (UplinkKind.TIME, GET_TIME),
    "time posted": (UplinkKind.TIME, post(TIME, b"")),
    "nowhere": (UplinkKind.OTHER, post("nowhere", b"")),
    "path that is no text": (
        UplinkKind.OTHER,
        Message.request(Code.GET, "", options=(Option(OptionNumber.URI_PATH, b"\xff\xfe"),)),
    ),
}


class IdleLink:
    """A socket on which nothing passes, with a clock to set."""

    def __init__(self) -> None:
        self.time = 100.0
        self.counters: Counter[str] = Counter()

    def now(self) -> float:
        return self.time

    def settle(self) -> None:
        pass


class WaywardStore:
    """A store whose commits come when a test says so, and how it says."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Write, Callable[[Outcome], None]]] = deque()
        self.is_busy = False

    def submit(self, write: Write, done: Callable[[Outcome], None]) -> None:
        if self.is_busy:
            raise StoreBusy("16384 writes wait already")
        self.waiting.append((write, done))


class Bench:
    """A southbound between meters that are not there and a wayward store."""

    def __init__(self) -> None:
        self.store = WaywardStore()
        self.link = IdleLink()
        self.answers: list[Message] = []
        self.refusal: Exception | None = None
        self.southbound = Southbound(
            key=IDENTITY, store=self.store, entropy=random.Random(3).randbytes,
            dice=random.Random(7), wall=lambda: float(NOW),
        )  # fmt: skip
        self.southbound._link = self.link
        self.southbound._stack.respond = self._respond
        self._count = 0

    def _respond(self, exchange: int, message: Message, *, is_durable: bool, now: float) -> None:
        self.answers.append(message)
        if self.refusal is not None:
            raise self.refusal

    def send(self, message: Message) -> None:
        self._count += 1
        peer = ("192.0.2.7", 5683)
        request = SecureRequest(self._count, METER, b"\x01", peer, message, (self._count, 0))
        self.southbound._on_event(request)


async def made() -> Bench:
    return Bench()


class Uplinks(RuleBasedStateMachine):
    """Everything that can happen to uplinks, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = self.loop.run_until_complete(made())
        self.received: Counter[UplinkKind] = Counter()
        self.outcomes: Counter[tuple[UplinkKind, str]] = Counter()
        self.since: deque[tuple[UplinkKind, float]] = deque()
        self.stored_count = 0

    def teardown(self) -> None:
        self.loop.close()

    def on_loop(self, call: Callable[[], None]) -> None:
        async def called() -> None:
            call()

        self.loop.run_until_complete(called())

    @rule(name=st.sampled_from(sorted(UPLINKS)))
    def send(self, name: str) -> None:
        kind, message = UPLINKS[name]
        before = len(self.bench.store.waiting), len(self.bench.answers)
        self.on_loop(lambda: self.bench.send(message))
        self.received[kind] += 1
        if len(self.bench.store.waiting) > before[0]:
            self.since.append((kind, self.bench.link.time))
            assert len(self.bench.answers) == before[1], "nothing is said before the commit"
            return
        (answer,) = self.bench.answers[before[1] :]
        self.outcomes[kind, "answered" if is_success(answer.code) else "refused"] += 1

    @precondition(lambda self: self.since)
    @rule(count=st.integers(1, 4), data=st.data())
    def commit(self, count: int, data: st.DataObject) -> None:
        for _ in range(min(count, len(self.since))):
            write, done = self.bench.store.waiting.popleft()
            assert isinstance(write, KeepDelivery)
            kind, _ = self.since.popleft()
            kept = data.draw(st.tuples(*[st.sampled_from(Kept)] * len(write.records)))
            self.on_loop(lambda: done(kept))  # noqa: B023  called at once
            assert is_success(self.bench.answers[-1].code)
            self.outcomes[kind, "stored"] += 1
            self.stored_count += len(write.records)

    @precondition(lambda self: self.since)
    @rule(count=st.integers(1, 4))
    def fail_commits(self, count: int) -> None:
        for _ in range(min(count, len(self.since))):
            _, done = self.bench.store.waiting.popleft()
            kind, _ = self.since.popleft()
            self.on_loop(lambda: done(DISK_FULL))  # noqa: B023  called at once
            assert self.bench.answers[-1].code == Code.SERVICE_UNAVAILABLE
            self.outcomes[kind, "refused"] += 1

    @rule()
    def turn_busy_or_free(self) -> None:
        self.bench.store.is_busy = not self.bench.store.is_busy

    @rule()
    def turn_draining_or_not(self) -> None:
        self.bench.southbound._is_draining = not self.bench.southbound._is_draining

    @rule(
        refusal=st.sampled_from([None, LocalProtocolError("exchange is over"), TableFull("full")])
    )
    def let_answers_fail(self, refusal: Exception | None) -> None:
        self.bench.refusal = refusal

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.bench.link.time += seconds

    @invariant()
    def every_uplink_is_accounted_for(self) -> None:
        southbound = self.bench.southbound
        pending = Counter(kind for kind, _ in self.since)
        for kind, tally in southbound.ledger.tallies.items():
            assert tally == Tally(
                self.received[kind],
                self.outcomes[kind, "stored"],
                self.outcomes[kind, "answered"],
                self.outcomes[kind, "refused"],
                pending[kind],
            )
            assert tally.difference == 0
            reasons = southbound.refused_uplinks.items()
            assert tally.refused == sum(n for (name, _), n in reasons if name == kind.value)
        assert sum(southbound.stored_records.values()) == self.stored_count
        assert len(self.bench.answers) == sum(self.received.values()) - len(self.since)
        age = self.bench.link.time - self.since[0][1] if self.since else 0
        assert southbound.oldest_pending_s == pytest.approx(age)
        with capture_logs() as lines:
            southbound.check()
        assert lines == []


Uplinks.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_every_uplink_is_accounted_for = Uplinks.TestCase


@pytest.mark.parametrize("name", sorted(UPLINKS))
def test_kind_is_told_by_the_resource(name: str) -> None:
    kind, message = UPLINKS[name]
    assert kind_of(message) is kind


async def test_uplink_that_is_lost_raises_the_alarm_once_for_each_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    southbound = bench.southbound
    report = post(REPORT, world.report().encode())

    def broken(_: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    with capture_logs() as lines:
        bench.send(report)
        southbound.check()
        assert lines == [], "pending is no difference"
        with monkeypatch.context() as patch:
            patch.setattr(southbound.intake, "take", broken)
            with pytest.raises(ZeroDivisionError):
                bench.send(report)
        for _ in range(3):
            southbound.check()
        said = {"event": "uplinks do not add up", "log_level": "error"}
        assert lines == [{**said, "difference": {"report": 1}}]
        bench.send(GET_TIME)
        southbound.check()
        assert len(lines) == 1, "the difference is still the same"
        # One that ends twice, of another kind.
        southbound.ledger.answer(UplinkKind.TIME)
        southbound.check()
        assert lines[1:] == [{**said, "difference": {"report": 1, "time": -1}}]
        southbound.ledger.receive(UplinkKind.TIME)
        southbound.ledger.refuse(UplinkKind.REPORT, "found again")
        southbound.check()
        southbound.check()
        assert lines[2:] == [{"event": "uplinks add up again", "log_level": "info"}]


async def test_commit_that_is_told_twice_raises_the_alarm() -> None:
    bench = Bench()
    bench.send(post(REPORT, world.report().encode()))
    ((write, done),) = bench.store.waiting
    assert isinstance(write, KeepDelivery)
    for _ in range(2):
        done((Kept.NEW,) * len(write.records))
    assert bench.southbound.tallies["report"].difference == -1


async def test_it_is_looked_at_again_and_again_while_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "CHECK_S", 0.01)
    bench = Bench()
    southbound = bench.southbound
    with capture_logs() as lines:
        southbound._keep_checking()
        for count in (1, 2):
            southbound.ledger.receive(UplinkKind.REGISTRATION)
            await world.until(lambda count=count: len(lines) == count)
        assert [line["difference"] for line in lines] == [{"registration": 1}, {"registration": 2}]
        southbound._link = None
        await southbound.stop()
        southbound.ledger.receive(UplinkKind.REGISTRATION)
        await asyncio.sleep(0.05)
    assert len(lines) == 2, "a southbound that is stopped looks no more"


def test_oldest_is_the_one_that_still_waits() -> None:
    ledger = Ledger()
    kind = UplinkKind.REPORT
    first, second = ledger.wait(kind, now=10), ledger.wait(kind, now=14)
    assert ledger.oldest_age(now=20) == 10
    ledger.store(kind, first)
    assert ledger.oldest_age(now=20) == 6
    ledger.fail(kind, second, "store failed")
    assert ledger.oldest_age(now=20) == 0
