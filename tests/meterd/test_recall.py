"""Past days that a head-end asks for once more.

The contract under test: a meter owes again what it is asked for and still keeps, durably before it
says so, and nothing else; it sends that as it sends any report, and settles it as any; what is no
such request is refused and changes nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.errors import StoreError
from amistack.model import CONTENT_FORMAT_V1, ReportRequest
from amistack.model.resources import READ, REPORT
from amistack.stack import SecureResponse, Stack
from meterd.agent import RETRY_MIN, Reported, Stage
from meterd.recorder import RETENTION_DAYS, Recorder
from meterd.storage import Storage
from tests.meterd.bench import DAY, EPOCH, METER, Bench, Sealed, watched_nonces
from tests.meterd.test_recorder import MIDNIGHT, StubSource
from tests.support.head_end import Heard
from tests.support.power import TornFiles
from tests.support.worlds import BAD

TODAY = int(EPOCH) // DAY
YESTERDAY = TODAY - 1
OLDEST = TODAY - RETENTION_DAYS
DAY_MAX = 49_710


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sealed]:
    """Watches every nonce of every test of this module."""
    record = watched_nonces(monkeypatch)
    yield record
    if record.plaintexts:
        record.check()


def settled() -> Bench:
    """A bench whose meter has said everything it owed."""
    one = Bench()
    one.power_on()
    one.world.elapse(60)
    assert one.recorder.owed_days() == []
    assert one.agent.stage is Stage.REPORTING
    one.head_end.heard.clear()
    one.log.clear()
    return one


def recall(first_day: int, last_day: int) -> Message:
    return Message.request(
        Code.POST,
        REPORT,
        payload=ReportRequest(first_day, last_day).encode(),
        content_format=CONTENT_FORMAT_V1,
    )


def ask(one: Bench, message: Message, *, wait: float = 30) -> Message:
    """The meter's answer to a request of the head-end."""
    before = len(one.head_end.answers)
    one.head_end.ask(METER, message, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(wait)
    assert not one.head_end.failures
    answers: list[SecureResponse] = one.head_end.answers[before:]
    (answer,) = answers
    return answer.message


# What is owed again


class Recorded:
    """A recorder whose storage holds every day that it can, all settled."""

    def __init__(self, *, day_count: int = RETENTION_DAYS, hour: int = 5) -> None:
        self.storage = Storage.on(TornFiles(random.Random(1)))
        known_from = MIDNIGHT - day_count * DAY
        self.recorder = Recorder(self.storage, StubSource(known_from=known_from), offset_min=0)
        self.recorder.advance(MIDNIGHT + hour * 3600)
        self.today = MIDNIGHT // DAY
        for day in self.recorder.owed_days():
            self.recorder.settle(day, ())
        assert self.recorder.owed_days() == []

    def kept(self) -> set[int]:
        return set(range(self.today - RETENTION_DAYS, self.today))


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


@settings(deadline=None, max_examples=100)
@given(
    days=st.tuples(*[st.one_of(st.integers(20_640, 20_710), st.integers(0, DAY_MAX))] * 2).map(
        sorted
    )
)
def test_those_days_are_owed_that_are_asked_for_and_kept(
    recorded: Recorded, days: list[int]
) -> None:
    expected = sorted(set(range(days[0], days[1] + 1)) & recorded.kept(), reverse=True)
    assert recorded.recorder.owe_again(*days) == len(expected)
    assert recorded.recorder.owed_days() == expected
    assert recorded.recorder.owe_again(*days) == len(expected), "asking twice is harmless"
    assert recorded.recorder.owed_days() == expected
    for day in expected:
        recorded.recorder.settle(day, ())
    assert recorded.recorder.owed_days() == []


def test_day_that_still_runs_is_never_owed() -> None:
    one = Recorded(hour=23)
    assert one.recorder.owe_again(one.today, DAY_MAX) == 0
    assert one.recorder.owed_days() == []


def test_days_before_the_first_record_are_not_owed() -> None:
    one = Recorded(day_count=3)
    assert one.recorder.owe_again(0, DAY_MAX) == 3
    assert one.recorder.owed_days() == [one.today - 1, one.today - 2, one.today - 3]


def test_recorder_without_a_record_owes_nothing() -> None:
    recorder = Recorder(Storage.on(TornFiles(random.Random(1))), StubSource(), offset_min=0)
    assert recorder.owe_again(0, DAY_MAX) == 0
    assert recorder.owed_days() == []


def test_what_is_owed_already_stays_owed() -> None:
    one = Recorded()
    one.recorder.owe_again(one.today - 5, one.today - 4)
    assert one.recorder.owe_again(one.today - 4, one.today - 3) == 2
    assert one.recorder.owed_days() == [one.today - 3, one.today - 4, one.today - 5]


def test_what_is_owed_again_outlives_a_power_cut() -> None:
    one = settled()
    one.silence_head_end()
    one.agent._recorder.owe_again(YESTERDAY - 3, YESTERDAY)
    one.power_off()
    one.open_head_end()
    one.power_on()
    assert one.recorder.owed_days() == [YESTERDAY - n for n in range(4)]
    one.world.elapse(60)
    assert one.head_end.days == [YESTERDAY - n for n in range(4)]


# In conversation


def test_days_that_are_asked_for_are_sent_at_once_newest_first() -> None:
    one = settled()
    answer = ask(one, recall(YESTERDAY - 4, YESTERDAY - 1))
    assert (answer.code, answer.payload) == (Code.CHANGED, b"")
    assert one.head_end.days == [YESTERDAY - n for n in range(1, 5)]
    assert one.recorder.owed_days() == []
    assert one.agent.counters["reports asked for again"] == 4
    for report in one.head_end.reports:
        assert list(report.blocks) == one.recorder.block(report.day)


def test_everything_is_sent_when_everything_is_asked_for() -> None:
    one = settled()
    assert ask(one, recall(0, DAY_MAX)).code == Code.CHANGED
    assert one.head_end.days == list(range(YESTERDAY, OLDEST - 1, -1))


@pytest.mark.parametrize(
    ("first", "last"), [(0, OLDEST - 1), (TODAY, TODAY), (TODAY + 1, DAY_MAX), (0, 0)]
)
def test_days_that_are_not_kept_are_granted_and_not_sent(first: int, last: int) -> None:
    """What a meter has not, no asking again will bring."""
    one = settled()
    assert ask(one, recall(first, last)).code == Code.CHANGED
    assert one.head_end.heard == []
    assert one.recorder.owed_days() == []


def test_next_days_report_comes_at_its_time_all_the_same() -> None:
    one = settled()
    ask(one, recall(YESTERDAY, YESTERDAY))
    one.world.run(until=one.midnight(TODAY + 1) + 299)
    assert one.head_end.days == [YESTERDAY]
    one.world.run(until=one.midnight(TODAY + 1) + 310)
    assert one.head_end.days == [YESTERDAY, TODAY]


def test_days_asked_for_while_reporting_follow_what_is_under_way() -> None:
    one = Bench()
    one.power_on()
    while len(one.events(Reported)) < 10:
        one.world.elapse(0.01)
    assert one.agent._uplink.is_busy
    assert ask(one, recall(OLDEST, YESTERDAY), wait=60).code == Code.CHANGED
    counts = Counter(one.head_end.days)
    assert set(counts) == set(range(OLDEST, TODAY))
    assert max(counts.values()) == 2
    assert one.recorder.owed_days() == []


def test_days_asked_for_while_registering_wait_for_that() -> None:
    one = settled()
    one.head_end.answer_to = lambda heard: (
        Message.response(Code.SERVICE_UNAVAILABLE, max_age=60)
        if heard.registration is not None
        else one.head_end.plain_answer(heard)
    )
    one.restart()
    one.world.elapse(10)
    assert one.agent.stage is Stage.REGISTERING
    assert ask(one, recall(YESTERDAY, YESTERDAY)).code == Code.CHANGED
    assert one.head_end.days == []
    assert one.recorder.owed_days() == [YESTERDAY]
    one.head_end.answer_to = None
    one.world.elapse(200)
    assert one.head_end.days == [YESTERDAY]


def test_meter_that_was_told_to_come_later_does_not_come_sooner_for_being_asked() -> None:
    one = settled()
    told: list[float] = []

    def busy(heard: Heard) -> Message:
        if not told:
            told.append(heard.now)
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=600)
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = busy
    ask(one, recall(YESTERDAY, YESTERDAY))
    assert ask(one, recall(YESTERDAY - 1, YESTERDAY)).code == Code.CHANGED
    assert len(one.head_end.heard) == 1
    one.world.elapse(1000)
    assert one.head_end.days == [YESTERDAY, YESTERDAY, YESTERDAY - 1]
    assert one.head_end.heard[1].now - told[0] >= 600
    assert one.agent._patience.backoff.retry_s == RETRY_MIN


def test_repeated_datagrams_and_losses_still_bring_every_day() -> None:
    one = settled()
    one.world.quality = BAD
    one.head_end.ask(METER, recall(YESTERDAY - 3, YESTERDAY), "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(3000)
    assert set(one.head_end.days) == {YESTERDAY - n for n in range(4)}
    assert one.recorder.owed_days() == []


# What is refused


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message.request(Code.GET, REPORT), Code.METHOD_NOT_ALLOWED),
        (
            Message.request(
                Code.FETCH,
                REPORT,
                payload=ReportRequest(OLDEST, YESTERDAY).encode(),
                content_format=CONTENT_FORMAT_V1,
            ),
            Code.METHOD_NOT_ALLOWED,
        ),
        (
            Message.request(Code.POST, REPORT, payload=ReportRequest(OLDEST, YESTERDAY).encode()),
            Code.UNSUPPORTED_CONTENT_FORMAT,
        ),
        (
            Message.request(
                Code.POST,
                REPORT,
                payload=ReportRequest(OLDEST, YESTERDAY).encode(),
                content_format=60,
            ),
            Code.UNSUPPORTED_CONTENT_FORMAT,
        ),
        *(
            (
                Message.request(Code.POST, REPORT, payload=bad, content_format=CONTENT_FORMAT_V1),
                Code.BAD_REQUEST,
            )
            for bad in (
                b"",
                b"\xff",
                ReportRequest(OLDEST, YESTERDAY).encode()[:-1],
                ReportRequest(OLDEST, YESTERDAY).encode() + b"\0",
                b"\x82\x02\x01",  # The last before the first.
                b"\x82\x20\x01",
                b"\x82\x00\x1a\x00\x01\x00\x00",
                b"\x81\x01",
                b"\x83\x01\x02\x03",
                b"\x82\x01\x61\x31",
            )
        ),
    ],
)
def test_request_that_is_none_is_refused_with_its_code_and_changes_nothing(
    message: Message, code: Code
) -> None:
    one = settled()
    assert ask(one, message).code == code
    assert one.recorder.owed_days() == []
    assert one.head_end.heard == []
    assert ask(one, recall(YESTERDAY, YESTERDAY)).code == Code.CHANGED
    assert one.head_end.days == [YESTERDAY]


def test_recall_of_another_path_is_no_recall() -> None:
    one = settled()
    wish = recall(OLDEST, YESTERDAY)
    elsewhere = Message(
        code=wish.code,
        options=tuple(
            Option(option.number, READ.encode())
            if option.number == OptionNumber.URI_PATH
            else option
            for option in wish.options
        ),
        payload=wish.payload,
    )
    assert ask(one, elsewhere).code == Code.METHOD_NOT_ALLOWED
    assert one.recorder.owed_days() == []


def test_recall_that_was_recorded_owes_nothing_when_it_comes_again() -> None:
    one = settled()
    ask(one, recall(YESTERDAY, YESTERDAY))
    datagram = next(
        passage.datagram
        for passage in reversed(one.world.datagrams())
        if passage.sender == "head-end" and 0 < Message.decode(passage.datagram).code < 0x20
    )
    for octet in range(3):
        one.world.send("thief", "meter", datagram[:2] + bytes((0, octet)) + datagram[4:])
        one.world.elapse(5)
    one.restart()
    one.world.send("thief", "meter", datagram[:2] + b"\1\1" + datagram[4:])
    one.world.elapse(60)
    assert one.head_end.days == [YESTERDAY]
    assert one.agent.refused["session: replay"] == 1


# What is durable when


def test_window_and_days_are_durable_before_the_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = settled()
    order: list[str] = []
    keep, owe, together, respond = (
        one.storage.keep_window,
        one.storage.owe,
        one.storage.together,
        Stack.respond,
    )

    def kept(recipient_id: bytes, window: tuple[int, int]) -> None:
        keep(recipient_id, window)
        order.append("window")

    def owed(day: int) -> None:
        owe(day)
        order.append("day")

    def as_one() -> AbstractContextManager[None]:
        order.append("together")
        return together()

    def responded(stack: Stack, *args: object, **kwargs: object) -> None:
        if stack is one.agent._stack:
            assert kwargs["is_durable"] is True
            order.append("yes")
        respond(stack, *args, **kwargs)  # type: ignore[arg-type]  # Handed on as they came.

    with monkeypatch.context() as patch:
        patch.setattr(one.storage, "keep_window", kept)
        patch.setattr(one.storage, "owe", owed)
        patch.setattr(one.storage, "together", as_one)
        patch.setattr(Stack, "respond", responded)
        ask(one, recall(YESTERDAY - 1, YESTERDAY), wait=0.025)
    assert order[:5] == ["window", "together", "day", "day", "yes"]


def test_days_that_cannot_be_kept_are_answered_later_and_none_is_owed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = settled()
    real = one.storage.owe

    def fails(day: int) -> None:
        if day == YESTERDAY:
            raise StoreError("no space left on device")
        real(day)

    with monkeypatch.context() as patch:
        patch.setattr(one.storage, "owe", fails)
        answer = ask(one, recall(YESTERDAY - 3, YESTERDAY))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert answer.uint_option(OptionNumber.MAX_AGE) == 60
    assert one.recorder.owed_days() == []
    one.world.elapse(100)
    assert ask(one, recall(YESTERDAY - 3, YESTERDAY)).code == Code.CHANGED
    assert one.head_end.days == [YESTERDAY - n for n in range(4)]


def test_full_disk_answers_later(sealed: Sealed) -> None:
    one = settled()
    one.fill_disk()
    assert ask(one, recall(OLDEST, YESTERDAY)).code == Code.SERVICE_UNAVAILABLE
    one.mend_disk()
    one.world.elapse(100)
    assert one.recorder.owed_days() == []
    assert ask(one, recall(YESTERDAY, YESTERDAY)).code == Code.CHANGED
    assert one.head_end.days == [YESTERDAY]
    sealed.check()
