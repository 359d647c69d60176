"""Reads on demand of whatever a meter keeps, and those that it cannot answer.

The contract under test: any combination of days, registers, log and self-test is answered with what
is kept, in blocks if it is long; a read that cannot be answered is refused with its reason, put on
record and counted, and harms no other.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import SourceError
from amistack.model import CONTENT_FORMAT_V1, ClockReading, ClockState, ReadParts
from amistack.model.diagnosis import Check, Diagnosis, Finding, Occasion, Outcome
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.events import COLD_STARTED, REGISTERED
from amistack.model.history import DayRange, HistoryAnswer, HistoryParts, HistoryRequest
from amistack.model.resources import HISTORY
from meterd.agent import ReadAnswered
from meterd.agent import composition as composition_module
from meterd.metrology.source import Energy
from meterd.recorder import RETENTION_DAYS
from tests.meterd.bench import DAY, EPOCH, METER, Bench
from tests.meterd.test_recorder import StubSource
from tests.support.head_end import read_request

TODAY = int(EPOCH) // DAY
NAME = b"identity"
EVERYTHING = HistoryParts.REGISTERS | HistoryParts.INTERVALS | HistoryParts.LOG


def bench(make_source: Callable[[], StubSource] = lambda: StubSource(900, flow_count=2)) -> Bench:
    one = Bench(make_source=make_source)
    one.power_on()
    one.world.elapse(60)
    assert one.recorder.owed_days() == []
    return one


def ask(one: Bench, message: Message, *, wait: float = 30) -> Message:
    before = len(one.head_end.answers)
    one.head_end.ask(METER, message, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(wait)
    (answer,) = one.head_end.answers[before:]
    return answer.message


def look_back(one: Bench, parts: HistoryParts, *ranges: tuple[int, int]) -> Message:
    wanted = HistoryRequest(NAME, parts, tuple(DayRange(*each) for each in ranges))
    return ask(
        one,
        Message.request(
            Code.FETCH, HISTORY, payload=wanted.encode(), content_format=CONTENT_FORMAT_V1
        ),
    )


def answered(one: Bench, parts: HistoryParts, *ranges: tuple[int, int]) -> HistoryAnswer:
    message = look_back(one, parts, *ranges)
    assert message.code == Code.CONTENT
    answer = HistoryAnswer.decode(message.payload)
    assert answer.identifier == NAME
    return answer


def failures(one: Bench) -> list[str | None]:
    entries = one.storage.entries(0, 2**32, limit=10_000)
    return [entry.detail for entry in entries if entry.event == READ_FAILED]


@pytest.mark.requirement("B1-FR-19")
def test_idle_meter_answers_a_read_outside_its_schedule_completely() -> None:
    one = bench()
    one.world.elapse(2 * 3600)
    answer = answered(one, EVERYTHING, (TODAY, TODAY))
    utc = answer.clock.utc_s
    assert abs(utc - one.utc(one.world.now)) <= 31
    assert answer.clock.state is ClockState.SET
    (today,) = answer.days
    assert [block.channel for block in today.blocks] == [1, 2]
    for block in today.blocks:
        assert block.count == utc % DAY // 900
        assert block.values() == tuple(
            StubSource(900, flow_count=2).value(TODAY * DAY + 900 * n, block.channel - 1)
            for n in range(block.count)
        )
    assert [channel for channel, _ in answer.registers] == [1, 2]
    assert [entry.event for entry in today.entries] == [COLD_STARTED, REGISTERED]
    assert today.channel_set == one.head_end.registrations[0].channel_set


def test_any_days_in_any_number_of_ranges_are_answered() -> None:
    one = bench()
    oldest = TODAY - RETENTION_DAYS
    ranges = (oldest, oldest + 1), (TODAY - 20, TODAY - 20), (TODAY - 3, TODAY - 1)
    answer = answered(one, HistoryParts.INTERVALS, *ranges)
    assert [one.day for one in answer.days] == [
        day for first, last in ranges for day in range(first, last + 1)
    ]
    for past in answer.days:
        assert list(past.blocks) == one.recorder.block(past.day)
        assert past.entries == ()
    assert answer.registers == ()


def test_everything_that_is_kept_comes_in_blocks() -> None:
    one = bench()
    message = look_back(one, EVERYTHING, (0, 49_710))
    assert len(message.payload) > 4_096
    days = HistoryAnswer.decode(message.payload).days
    assert [past.day for past in days] == list(range(TODAY - RETENTION_DAYS, TODAY + 1))
    assert all(len(line.datagram) <= 4_096 for line in one.world.datagrams())


def test_log_of_a_past_day_comes_though_it_was_reported() -> None:
    one = bench()
    one.world.run(until=one.midnight(TODAY + 1) + 400)
    assert one.recorder.entries_of(TODAY) == []
    answer = answered(one, HistoryParts.LOG, (TODAY, TODAY + 1))
    assert [[entry.event for entry in past.entries] for past in answer.days] == [
        [COLD_STARTED, REGISTERED],
        [],
    ]
    assert answer.days[0].blocks == ()


def test_registers_alone_need_no_days() -> None:
    one = bench()
    answer = answered(one, HistoryParts.REGISTERS)
    assert answer.days == ()
    assert len(answer.registers) == 2
    assert one.events(ReadAnswered) == [ReadAnswered(NAME)]


def test_days_beside_those_that_are_kept_are_left_out() -> None:
    one = bench()
    oldest = TODAY - RETENTION_DAYS
    answer = answered(one, HistoryParts.INTERVALS, (oldest - 9, oldest), (TODAY, TODAY + 9))
    assert [past.day for past in answer.days] == [oldest, TODAY]


def test_self_test_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []
    finding = Finding(Check.PROGRAM, Outcome.PASSED)

    def look(now: float) -> Diagnosis:
        looked.append(now)
        return Diagnosis(ClockReading(5, ClockState.SET), Occasion.DEMAND, (finding,))

    real = composition_module.OnDemand

    def with_self_test(*args: object, **kwargs: object) -> object:
        return real(*args, **{**kwargs, "self_test": look})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(composition_module, "OnDemand", with_self_test)
        one = bench()
    answer = answered(one, HistoryParts.SELF_TEST | HistoryParts.REGISTERS)
    assert answer.diagnosis is not None
    assert answer.diagnosis.findings == (finding,)
    assert len(looked) == 1
    assert answered(one, HistoryParts.REGISTERS).diagnosis is None
    assert len(looked) == 1


# What cannot be answered


@pytest.mark.parametrize("ranges", [((0, TODAY - RETENTION_DAYS - 1),), ((TODAY + 1, TODAY + 5),)])
def test_days_that_are_not_kept_are_refused_with_the_reason(
    ranges: tuple[tuple[int, int], ...],
) -> None:
    one = bench()
    answer = look_back(one, HistoryParts.INTERVALS, *ranges)
    assert (answer.code, answer.payload) == (Code.UNPROCESSABLE_ENTITY, b"days not kept")
    assert failures(one) == ["on demand: days not kept"]
    assert one.agent.counters["hist refused: days not kept"] == 1
    assert one.events(ReadAnswered) == []


def test_self_test_of_a_meter_without_one_is_refused() -> None:
    one = bench()
    answer = look_back(one, HistoryParts.SELF_TEST)
    assert (answer.code, answer.payload) == (Code.UNPROCESSABLE_ENTITY, b"no self-test")
    assert failures(one) == ["on demand: no self-test"]


class BlindSource(StubSource):
    """A source that cannot be read while `is_blind`."""

    is_blind = False

    def partial(self, start: int, now: float) -> Energy:
        if self.is_blind:
            raise SourceError("the sensor is gone")
        return super().partial(start, now)


@pytest.mark.requirement("B1-FR-139", "B1-FR-140")
def test_meter_that_cannot_read_its_source_knows_it_says_so_and_logs_it() -> None:
    source = BlindSource(900)
    one = bench(lambda: source)
    source.is_blind = True
    answer = ask(one, read_request(NAME, ReadParts.REGISTERS | ReadParts.INTERVALS))
    assert (answer.code, answer.payload) == (Code.INTERNAL_SERVER_ERROR, b"source failed")
    assert failures(one) == ["on demand: source failed"]
    assert one.agent.counters["read refused: source failed"] == 1
    # What needs no source is answered all the same.
    assert ask(one, read_request(NAME, ReadParts.INTERVALS)).code == Code.CONTENT
    source.is_blind = False
    assert ask(one, read_request(NAME, ReadParts.REGISTERS)).code == Code.CONTENT
    assert failures(one) == ["on demand: source failed"]


class NoisySource(StubSource):
    """Values that hardly can be packed."""

    def value(self, start: int, place: int) -> int | None:
        if self.known_from is not None and start < self.known_from:
            return None
        return start * 7919 % (1 << 16)


def test_more_than_a_body_holds_is_refused_and_less_of_it_answered() -> None:
    one = bench(lambda: NoisySource(60, flow_count=1, known_from=(TODAY - 30) * DAY))
    answer = look_back(one, HistoryParts.INTERVALS, (TODAY - 30, TODAY))
    assert (answer.code, answer.payload) == (Code.INTERNAL_SERVER_ERROR, b"too long")
    assert failures(one) == ["on demand: too long"]
    assert one.agent.counters["hist refused: too long"] == 1
    message = look_back(one, HistoryParts.INTERVALS, (TODAY - 18, TODAY))
    assert 50_000 < len(message.payload) < 65_536
    assert len(HistoryAnswer.decode(message.payload).days) == 19


def test_failure_that_cannot_be_logged_is_answered_later() -> None:
    one = bench()
    one.fill_disk()
    answer = look_back(one, HistoryParts.INTERVALS, (0, 1))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    one.mend_disk()
    one.world.elapse(100)
    assert failures(one) == []


_GOOD = HistoryRequest(NAME, HistoryParts.INTERVALS, (DayRange(TODAY, TODAY),)).encode()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message.request(Code.GET, HISTORY), Code.METHOD_NOT_ALLOWED),
        (Message.request(Code.FETCH, HISTORY, payload=_GOOD), Code.UNSUPPORTED_CONTENT_FORMAT),
        *(
            (
                Message.request(Code.FETCH, HISTORY, payload=bad, content_format=CONTENT_FORMAT_V1),
                Code.BAD_REQUEST,
            )
            for bad in (
                b"",
                _GOOD[:-1],
                _GOOD + b"\0",
                b"\x83\x48identity\x01\x81\x82\x01\x02",  # Registers are of no day.
                b"\x83\x48identity\x02\x80",  # Intervals are of some.
                b"\x83\x48identity\x02\x82\x82\x01\x02\x82\x03\x04",  # Ranges that touch.
                b"\x83\x48identity\x02\x81\x82\x02\x01",
            )
        ),
    ],
)
def test_request_that_is_none_is_refused_with_its_code(message: Message, code: Code) -> None:
    one = bench()
    assert ask(one, message).code == code
    assert one.events(ReadAnswered) == []
    assert failures(one) == []
