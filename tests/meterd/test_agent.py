"""A meter in conversation with a head-end by the book, on a clock and a network of the test's own.

The contract under test: what is owed is said until it is acknowledged, once each and newest first;
nothing is said that is not durable; whoever is not the head-end changes nothing; whatever the
network does, every owed day arrives in the end, and no pair of key and nonce covers two plaintexts.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.errors import StoreError
from amistack.model import (
    CONTENT_FORMAT_V1,
    ClockState,
    DailyReport,
    Disposition,
    ReadAnswer,
    ReadParts,
    RecordKind,
    RecordRef,
    RegistrationReason,
    ReportAcknowledgement,
    Verdict,
)
from amistack.model.event_catalogue import READ_FAILED
from amistack.model.events import (
    COLD_STARTED,
    PRIMARY_POWER_RESTORED,
    REGISTERED,
    STORAGE_DAMAGED,
)
from amistack.model.resources import READ
from amistack.session.oscore import REPLAY
from amistack.stack import HELD_MAX, SEQUENCE_BLOCK, SEQUENCE_LOW, Stack
from meterd.agent import (
    PAYLOAD_SIZE_MAX,
    REPLAYS_MAX,
    RETRY_MAX,
    STORAGE_RETRY_S,
    WAIT_MAX,
    Hindered,
    ReadAnswered,
    Registered,
    Reported,
    Schedule,
    Secured,
    Stage,
    StorageDamaged,
    StorageFailed,
)
from meterd.agent import session as session_module
from meterd.recorder import RETENTION_DAYS
from meterd.storage import Storage
from tests.meterd.bench import DAY, EPOCH, METER, Bench, Sealed, watched_nonces
from tests.meterd.test_recorder import StubSource
from tests.support.head_end import Heard, changed, head_end_key, read_request
from tests.support.worlds import Fate, LinkQuality

TODAY = int(EPOCH) // DAY
YESTERDAY = TODAY - 1
EVERY_OWED = list(range(YESTERDAY, YESTERDAY - RETENTION_DAYS, -1))
ALL_PARTS = ReadParts.REGISTERS | ReadParts.INTERVALS | ReadParts.LOG


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sealed]:
    """Watches every nonce of every test of this module."""
    record = watched_nonces(monkeypatch)
    yield record
    if record.plaintexts:
        record.check()


def bench(**settings: object) -> Bench:
    return Bench(**settings)  # type: ignore[arg-type]


def settled(**settings: object) -> Bench:
    """A bench whose meter has said everything it owed."""
    one = bench(**settings)
    one.power_on()
    one.world.elapse(60)
    assert one.recorder.owed_days() == []
    return one


def texts(one: Bench) -> list[str]:
    return [event.reason for event in one.events(Hindered) if isinstance(event, Hindered)]


# The textbook


def test_first_start_secures_registers_and_reports_yesterday_then_older_days(
    sealed: Sealed,
) -> None:
    one = settled()
    kinds = [type(event) for _, event in one.log]
    assert kinds == [Secured, Registered, *[Reported] * RETENTION_DAYS]
    assert one.head_end.days == EVERY_OWED
    (registration,) = one.head_end.registrations
    assert registration.meter == METER
    assert registration.reason is RegistrationReason.COLD_BOOT
    assert registration.channels == one.recorder.channels
    assert one.head_end.refused == one.agent.refused == {}
    assert not one.agent.counters["hindered"]
    sealed.check()


@pytest.mark.requirement("B1-FR-118")
def test_reports_say_what_was_recorded_and_what_was_logged() -> None:
    one = settled()
    for report in one.head_end.reports:
        assert list(report.blocks) == one.recorder.block(report.day)
        assert report.entries == ()  # The log began today.
    one.world.run(until=one.midnight(TODAY + 1) + 400)
    report = one.head_end.reports[-1]
    assert report.day == TODAY
    assert report.clock.state is ClockState.SET
    assert [entry.event for entry in report.entries] == [COLD_STARTED, REGISTERED]
    assert one.recorder.entries_of(TODAY) == []


def test_first_start_before_the_hour_of_reports_waits_for_nothing() -> None:
    one = bench(epoch=TODAY * DAY + 60.0, schedule=Schedule(3600.0, 3600.0, 1.0))
    one.power_on()
    one.world.elapse(60)
    assert one.head_end.days == EVERY_OWED


def test_start_is_spread() -> None:
    firsts = set()
    for seed in range(5):
        one = bench(seed=seed, schedule=Schedule(0, 0, 100.0))
        one.power_on()
        one.world.elapse(100.1)
        first = one.world.datagrams()[0].time
        assert 0 <= first <= 100
        firsts.add(first)
    assert len(firsts) == 5


@pytest.mark.parametrize("spread_s", [0.0, 3600.0])
@pytest.mark.parametrize("offset_min", [0, 60, -330])
def test_days_report_goes_out_after_delay_and_spread_every_day(
    spread_s: float, offset_min: int
) -> None:
    source = lambda: StubSource(900)  # noqa: E731
    one = settled(
        offset_min=offset_min,
        schedule=Schedule(300.0, spread_s, 1.0),
        make_source=source,
    )
    first = one.today()
    sent: list[float] = []
    for day in range(first, first + 3):
        midnight = one.midnight(day + 1)
        before = len(one.head_end.reports)
        one.world.run(until=midnight + 300 - 0.1)
        assert len(one.head_end.reports) == before, "not before its time"
        one.world.run(until=midnight + 300 + spread_s + 1)
        assert one.head_end.days[before:] == [day]
        sent.append(one.head_end.heard[-1].now - midnight)
    assert all(300 <= at <= 300 + spread_s + 1 for at in sent)
    assert max(sent) - min(sent) < 0.1, "the same moment every day"
    assert one.head_end.session_count == 1


@pytest.mark.parametrize("epoch", [EPOCH + 0.1, EPOCH + 1 / 3, EPOCH + 0.7000001])
def test_rounding_wakes_nobody_again_and_again(epoch: float) -> None:
    # The world itself refuses a machine that wants to be woken more than three times at once.
    one = settled(epoch=epoch, schedule=Schedule(0.3, 0.7, 0.1))
    before = one.host.wakeup_count
    one.world.elapse(DAY)
    # One for each hour's interval, one for the report, a few for CoAP.
    assert one.host.wakeup_count - before < 30


# Restarts


def test_restart_uses_the_same_session_and_repeats_nothing_acknowledged(sealed: Sealed) -> None:
    one = settled()
    heard = len(one.head_end.heard)
    one.restart()
    assert one.agent.stage is Stage.REGISTERING
    one.world.elapse(60)
    assert one.head_end.session_count == 1
    (again,) = one.head_end.heard[heard:]
    assert again.registration is not None
    assert again.registration.reason is RegistrationReason.POWER_RESTORED
    assert [entry.event for entry in one.recorder.entries_of(TODAY)] == [
        COLD_STARTED,
        REGISTERED,
        PRIMARY_POWER_RESTORED,
        REGISTERED,
    ]
    sealed.check()


def test_restart_amid_the_history_goes_on_where_it_was() -> None:
    one = bench()
    one.power_on()
    while len(one.events(Reported)) < 20:
        one.world.elapse(0.01)
    one.restart()
    one.world.elapse(60)
    counts = Counter(one.head_end.days)
    assert sorted(counts, reverse=True) == EVERY_OWED
    # The report whose acknowledgement was under way may have come twice, no other.
    assert sum(counts.values()) <= RETENTION_DAYS + 1
    assert one.head_end.session_count == 1


@pytest.mark.parametrize("restart_count", [70])
def test_many_restarts_keep_one_session_and_never_repeat_a_number(
    sealed: Sealed, restart_count: int
) -> None:
    one = settled()
    for _ in range(restart_count):
        one.restart()
        one.world.elapse(2)
    assert one.head_end.session_count == 1
    assert len(one.head_end.registrations) == 1 + restart_count
    saved = one.storage.session()
    assert saved is not None
    assert saved.reserved_until >= SEQUENCE_BLOCK * restart_count
    sealed.check()


def test_restart_with_another_head_end_configured_begins_anew() -> None:
    one = settled()
    one.power_off()
    one.trusted = head_end_key(2).credential
    one.power_on()
    assert one.agent.stage is Stage.SECURING
    one.world.elapse(30)
    assert len(one.head_end.registrations) == 1


def test_absence_of_days_is_recorded_and_reported_newest_first() -> None:
    one = settled()
    one.power_off()
    before = len(one.head_end.reports)
    one.world.run(until=one.midnight(TODAY + 4) + 7200)
    one.power_on()
    one.world.elapse(60)
    assert one.head_end.days[before:] == [TODAY + 3, TODAY + 2, TODAY + 1, TODAY]


# What the head-end says


def test_later_is_obeyed_and_not_a_second_less() -> None:
    one = bench()
    said: list[float] = []

    def busy(heard: Heard) -> Message:
        if heard.report is not None and len(said) < 3:
            said.append(heard.now)
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=600)
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = busy
    one.power_on()
    one.world.elapse(5000)
    tries = [heard.now for heard in one.head_end.heard if heard.report is not None]
    assert len(said) == 3
    for earlier, later in itertools.pairwise(tries[:4]):
        assert 600 <= later - earlier <= 901
    assert one.head_end.days[:4] == [YESTERDAY] * 4
    assert one.recorder.owed_days() == []


def test_later_without_a_number_or_without_end_is_bounded() -> None:
    one = bench()
    answers = iter(
        [
            Message.response(Code.SERVICE_UNAVAILABLE),
            Message.response(Code.SERVICE_UNAVAILABLE, max_age=0xFFFFFFFF),
        ]
    )
    one.head_end.answer_to = lambda heard: next(answers, None) or one.head_end.plain_answer(heard)
    one.power_on()
    one.world.elapse(2 * DAY)
    waits = [event.retry_s for event in one.events(Hindered) if isinstance(event, Hindered)]
    assert 60 <= waits[0] <= 90
    assert WAIT_MAX <= waits[1] <= 1.5 * WAIT_MAX
    assert len(one.head_end.registrations) == 3


@pytest.mark.parametrize(
    "answer",
    [
        changed(b""),
        changed(b"\xff\x00"),
        changed(ReportAcknowledgement(0, 0).encode()[:-1]),
        changed(b"\x83\x00\x00\x00\x00"),
        Message.response(Code.CHANGED),
        Message.response(Code.NOT_FOUND),
        Message.response(Code.FORBIDDEN, payload=b"\xff\xfe no text"),
        Message.response(Code.UNPROCESSABLE_ENTITY, payload=b"x" * 500),
        Message.response(Code.CONTENT, payload=ReportAcknowledgement(0, 0).encode()),
    ],
    ids=lambda answer: f"{answer.code:#x}-{answer.payload[:4].hex()}",
)
@pytest.mark.parametrize("what", ["registration", "report"])
def test_answer_that_is_no_acknowledgement_counts_for_nothing(answer: Message, what: str) -> None:
    one = bench()
    wrong: list[float] = []

    def answer_to(heard: Heard) -> Message:
        if getattr(heard, what) is not None and len(wrong) < 2:
            wrong.append(heard.now)
            return answer
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer_to
    one.power_on()
    one.world.elapse(100)
    assert len(one.events(Hindered)) == 2
    assert one.recorder.owed_days() == []
    assert one.head_end.session_count == 1
    if what == "report":
        assert one.head_end.days == [YESTERDAY] * 2 + EVERY_OWED
    else:
        assert len(one.head_end.registrations) == 3


def test_verdicts_are_reported_and_final() -> None:
    one = bench()
    verdicts = (
        Verdict(RecordRef(RecordKind.BLOCK, 0), Disposition.QUARANTINED, "unknown channel"),
        Verdict(RecordRef(RecordKind.ENTRY, 3), Disposition.UNREADABLE, "bad"),
    )

    def judge(heard: Heard) -> Message:
        if heard.report is not None and heard.report.day == YESTERDAY:
            return changed(
                ReportAcknowledgement(int(one.utc(heard.now) * 1000), 0, verdicts).encode()
            )
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = judge
    one.power_on()
    one.world.elapse(60)
    reported = [event for event in one.events(Reported) if isinstance(event, Reported)]
    assert reported[0].day == YESTERDAY
    assert reported[0].verdicts == (
        "block 0: quarantined, unknown channel",
        "entry 3: unreadable, bad",
    )
    assert {event.verdicts for event in reported[1:]} == {()}
    assert one.head_end.days == EVERY_OWED


@pytest.mark.parametrize(
    ("error", "state"),
    [(0.0, ClockState.SET), (19.0, ClockState.SET), (-45.0, ClockState.DOUBTFUL)],
)
def test_clock_in_a_report_says_how_far_it_is_to_be_believed(
    error: float, state: ClockState
) -> None:
    one = settled(clock_error=error)
    assert {report.clock.state for report in one.head_end.reports} == {state}
    best = one.agent._clock.best
    assert best is not None
    assert abs(best.error_s + error) <= best.bound_s + 0.001


def test_head_end_that_does_not_know_the_time_changes_no_clock() -> None:
    one = settled()
    before = list(one.agent._clock._samples)
    one.head_end.is_time_known = False
    one.world.run(until=one.midnight(TODAY + 1) + 3600)
    assert one.head_end.days[-1] == TODAY
    assert list(one.agent._clock._samples) == before
    assert one.agent._clock.state is ClockState.SET


# Sessions that are lost, and people who would like to be the head-end


def test_head_end_that_forgot_everything_gets_a_new_session(sealed: Sealed) -> None:
    one = settled()
    old = one.storage.session()
    one.head_end.forget_sessions()
    one.world.run(until=one.midnight(TODAY + 1) + 600)
    new = one.storage.session()
    assert old is not None
    assert new is not None
    assert new.recipient_id != old.recipient_id
    assert one.head_end.session_count == 2
    assert one.head_end.days[-1] == TODAY
    assert one.head_end.registrations[-1].reason is RegistrationReason.COLD_BOOT
    sealed.check()


def _forge(
    one: Bench, code: Code, payload: bytes = b"go away", *, count: int | None = None
) -> None:
    """Answer every request under way to the head-end in its place, unprotected; the first `count`.

    The one after those is lost.
    """
    told: set[int] = set()

    def passes(sender: object, receiver: object, datagram: bytes) -> bool:
        if receiver != "head-end":
            return True
        message = Message.decode(datagram)
        if message.type is Type.CON and (count is None or len(told) < count):
            told.add(message.message_id)
            forged = Message.response(code, payload=payload).addressed(
                type=Type.ACK, message_id=message.message_id, token=message.token
            )
            one.world.passes = None
            one.world.send("head-end", "meter", forged.encode())
            one.world.passes = passes
        return False

    one.world.passes = passes


@pytest.mark.parametrize("code", [Code.UNAUTHORIZED, Code.BAD_REQUEST])
def test_forged_refusal_costs_handshakes_apart_and_not_the_session(code: Code) -> None:
    one = settled()
    old = one.storage.session()
    _forge(one, code)
    one.world.run(until=one.midnight(TODAY + 1) + 7200)
    assert one.storage.session() == old
    assert one.agent._stack.session_of(one.agent._head_end_name) is not None
    # Two hours of lies: each attempt costs a wait that grows, so there are few.
    assert len(one.events(Hindered)) < 25
    assert one.head_end.days[-1] != TODAY
    one.world.passes = None
    one.world.elapse(2 * RETRY_MAX)
    assert one.head_end.days[-1] == TODAY
    assert one.recorder.owed_days() == []


def test_message_taken_for_a_replay_goes_again_under_a_new_number_without_a_handshake() -> None:
    """So a head-end that is killed between commit and answer costs no handshake."""
    one = settled()
    asked_before = len(one.head_end.registrations)
    _forge(one, Code.UNAUTHORIZED, REPLAY.encode(), count=REPLAYS_MAX - 1)
    one.world.run(until=one.midnight(TODAY + 1) + 3600)
    assert one.agent.stage is Stage.REPORTING
    assert one.recorder.owed_days() == [TODAY]
    one.world.passes = None
    one.world.elapse(2 * RETRY_MAX)
    assert one.recorder.owed_days() == []
    assert one.head_end.session_count == 1
    assert len(one.head_end.registrations) == asked_before


@pytest.mark.parametrize(("limit", "sessions"), [(64, 2), (1 << 19, 1)])
def test_meter_whose_keys_are_half_worn_opens_a_new_session(
    limit: int, sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = settled()
    monkeypatch.setattr(session_module, "NUMBERS_MAX", limit)
    context = one.agent._stack.session_of(one.agent._head_end_name)
    assert context is not None
    while context.reserved_until - context.next_sequence_number >= SEQUENCE_LOW:
        context.take_sequence_number()
    one.world.run(until=one.midnight(TODAY + 1) + 3600)
    assert one.head_end.days[-1] == TODAY
    assert one.head_end.session_count == sessions


def test_meter_whose_every_number_is_taken_opens_a_new_session() -> None:
    """Its storage is older than what the head-end has heard: from a backup, or a copy."""
    one = settled()
    old = one.storage.session()
    _forge(one, Code.UNAUTHORIZED, REPLAY.encode(), count=REPLAYS_MAX)
    one.world.run(until=one.midnight(TODAY + 1) + 3600)
    assert one.agent.stage is Stage.SECURING
    one.world.passes = None
    one.world.elapse(2 * RETRY_MAX)
    assert one.recorder.owed_days() == []
    assert one.storage.session() != old


@pytest.mark.parametrize("code", [Code.CHANGED, Code.CREATED, Code.NOT_FOUND, Code.CONTENT])
def test_forged_answer_is_never_an_acknowledgement(code: Code) -> None:
    one = settled()
    before = len(one.events(Reported))
    _forge(one, code)
    one.world.run(until=one.midnight(TODAY + 1) + 3600)
    assert one.recorder.owed_days() == [TODAY]
    assert len(one.events(Reported)) == before
    one.world.passes = None
    one.world.elapse(2 * RETRY_MAX)
    assert one.recorder.owed_days() == []
    assert one.head_end.session_count == 1


def test_head_end_with_another_key_never_hears_a_word_and_is_asked_ever_less_often() -> None:
    one = bench(trusted=head_end_key(2).credential)
    one.power_on()
    one.world.elapse(4 * 3600)
    assert one.head_end.heard == []
    assert one.storage.session() is None
    assert one.agent.stage is Stage.SECURING
    times = [at for at, event in one.log if isinstance(event, Hindered)]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[0] < 5
    assert RETRY_MAX <= max(waits) <= 1.5 * RETRY_MAX + 1
    for number in range(8):
        assert waits[number] >= 2.0 * 2**number
    assert all("handshake" in text for text in texts(one))


def test_meter_that_is_not_enrolled_tries_again_until_it_is() -> None:
    one = bench()
    enrolled, one.head_end.meters = one.head_end.meters, {}
    one.power_on()
    one.world.elapse(120)
    assert one.head_end.heard == []
    one.head_end.meters = enrolled
    one.world.elapse(2 * RETRY_MAX)
    assert one.recorder.owed_days() == []


def test_meter_answers_no_handshake_and_nothing_unprotected() -> None:
    one = settled()
    wanted = {".well-known/edhoc": Code.UNAUTHORIZED, READ: Code.UNAUTHORIZED}
    for number, (path, code) in enumerate(wanted.items()):
        request = Message.request(
            Code.POST, path, payload=b"\xf5\x03\x02\x41\x01", content_format=65
        ).addressed(type=Type.CON, message_id=number, token=b"t")
        before = len(one.world.datagrams())
        one.world.send("stranger", "meter", request.encode())
        one.world.elapse(1)
        (answer,) = [
            Message.decode(line.datagram)
            for line in one.world.datagrams()[before:]
            if line.sender == "meter"
        ]
        assert answer.code == code


# Networks


@pytest.mark.parametrize("lost_count", [1, 2, 3, 7])
def test_lost_messages_are_sent_again(lost_count: int) -> None:
    one = bench()
    rest = {"meter": lost_count, "head-end": lost_count}

    def passes(sender: object, receiver: object, datagram: bytes) -> bool:
        rest[str(sender)] -= 1
        return rest[str(sender)] < 0

    one.world.passes = passes
    one.power_on()
    one.world.elapse(1200)
    assert one.recorder.owed_days() == []
    assert sorted(set(one.head_end.days), reverse=True) == EVERY_OWED


def test_head_end_that_is_away_for_three_days_gets_all_of_it_newest_first(sealed: Sealed) -> None:
    one = bench(schedule=Schedule(300.0, 600.0, 1.0))
    one.silence_head_end()
    one.power_on()
    one.world.run(until=one.midnight(TODAY + 3) + 2 * 3600)
    assert one.head_end.heard == []
    # Patience has a bound, so that the end of the silence is noticed.
    last = [event for event in one.events(Hindered) if isinstance(event, Hindered)][-1]
    assert RETRY_MAX <= last.retry_s <= 1.5 * RETRY_MAX
    one.open_head_end()
    one.world.elapse(2 * RETRY_MAX + 100)
    today = TODAY + 3
    assert one.head_end.days == [today - back for back in range(1, RETENTION_DAYS + 1)]
    logged = [entry for report in one.head_end.reports for entry in report.entries]
    # Of each day whose report was an hour late one entry tells.
    assert [(entry.event, entry.detail) for entry in logged] == [
        (COLD_STARTED, None),
        *((READ_FAILED, f"day {day}") for day in (YESTERDAY, TODAY, TODAY + 1)),
    ]
    sealed.check()


def test_head_end_away_in_the_middle_of_a_session_is_no_reason_for_a_new_one() -> None:
    one = settled()
    one.silence_head_end()
    one.world.run(until=one.midnight(TODAY + 3) + 2 * 3600)
    one.open_head_end()
    one.world.elapse(2 * RETRY_MAX)
    assert one.head_end.days[-3:] == [TODAY + 2, TODAY + 1, TODAY]
    assert one.head_end.session_count == 1


FOUL = LinkQuality(loss=0.4, duplication=0.2, delay_min=0.01, delay_max=2.5)


def _foul_run(seed: int) -> Bench:
    """A first start, a power cut at some moment, a midnight, a head-end that forgets, a read."""
    one = bench(
        seed=seed,
        quality=FOUL,
        schedule=Schedule(60.0, 30.0, 5.0),
        make_source=lambda: StubSource(
            known_from=int(EPOCH) - 3 * DAY, gap_every=5, flow_count=1 + seed % 2
        ),
    )
    one.power_on()
    one.world.elapse(one.world.dice.uniform(0, 60))
    one.restart()
    one.world.elapse(one.world.dice.uniform(0, 900))
    if seed % 3 == 0:
        one.head_end.forget_sessions()
    one.world.run(until=one.midnight(TODAY + 1) + one.world.dice.uniform(0, 200))
    one.restart()
    one.world.elapse(3600)
    if one.agent._stack.session_of(one.agent._head_end_name) is not None:
        for number in range(3):
            one.head_end.read(
                METER, ALL_PARTS, "meter", now=one.world.now, name=bytes([number]) * 8
            )
            one.settle_head_end()
    one.world.elapse(2 * 3600)
    return one


def _registers(one: Bench, utc: int) -> list[int]:
    """What the registers of a foul world's meter show at `utc`, by its source alone."""
    source = one.make_source()
    assert isinstance(source, StubSource)
    begin = utc - utc % source.interval_s
    return [
        sum(
            source.value(second, place) or 0
            for second in range((TODAY - 3) * DAY, begin, source.interval_s)
        )
        + (source.partial(begin, utc)[place] or 0)
        for place in range(len(source.flows))
    ]


@pytest.mark.parametrize("block", range(10), ids=lambda block: f"seeds_{block}0")
def test_in_every_foul_world_every_owed_day_arrives_with_one_content(
    sealed: Sealed, block: int
) -> None:
    for seed in range(10 * block, 10 * block + 10):
        one = _foul_run(seed)
        contents: dict[int, set[tuple[object, ...]]] = defaultdict(set)
        for report in one.head_end.reports:
            contents[report.day].add(report.blocks)
        # Liveness: all that was owed came, and its acknowledgement arrived.
        assert sorted(contents) == list(range(TODAY - 3, TODAY + 1)), f"seed {seed}"
        assert one.recorder.owed_days() == [], f"seed {seed}"
        # Safety: whenever a day came, it came with the same content, which is the recorded one.
        for day, seen in contents.items():
            assert seen == {tuple(one.recorder.block(day))}, f"seed {seed}"
        logged = Counter(
            entry.sequence for report in one.head_end.reports for entry in set(report.entries)
        )
        assert set(logged) >= {0, 1}
        for answer in one.head_end.read_answers:
            low, high = (_registers(one, answer.clock.utc_s + more) for more in (0, 1))
            for least, (_, register), most in zip(low, answer.registers, high, strict=True):
                assert least <= register <= most, f"seed {seed}"
    sealed.check()


def test_same_seed_gives_the_same_run() -> None:
    histories = []
    for _ in range(2):
        one = _foul_run(4)
        histories.append((one.log, len(one.world.history), one.head_end.days))
    assert histories[0] == histories[1]


def test_foul_worlds_are_foul() -> None:
    """Guards the dice: they must lose, repeat, hinder and answer, or they prove nothing."""
    runs = [_foul_run(seed) for seed in range(12)]
    fates = Counter(line.fate for one in runs for line in one.world.history)
    assert fates[Fate.LOST] >= 50
    assert fates[Fate.DELIVERED] > fates[Fate.SENT] - fates[Fate.LOST]
    assert sum(len(one.events(Hindered)) for one in runs) >= 1
    assert any(len(one.head_end.reports) > 4 for one in runs)
    assert {one.head_end.session_count for one in runs} >= {1, 2}
    assert all(one.head_end.read_answers for one in runs)


# On-demand reads


def _ask(one: Bench, message: Message) -> Message:
    before = len(one.head_end.answers)
    one.head_end.ask(METER, message, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(1)
    (answer,) = one.head_end.answers[before:]
    return answer.message


@pytest.mark.requirement("B1-FR-32")
def test_read_gives_registers_now_intervals_since_midnight_and_the_log() -> None:
    source = StubSource(900, flow_count=2)
    one = settled(make_source=lambda: source)
    one.world.run(until=one.midnight(TODAY) + 15 * 3600 + 1000)
    now = one.world.now
    answer = ReadAnswer.decode(_ask(one, read_request(b"identifier", ALL_PARTS)).payload)
    assert answer.identifier == b"identifier"
    assert answer.day == TODAY
    assert answer.clock.utc_s == int(one.utc(now + 0.01))
    assert answer.clock.state is ClockState.SET
    first = (TODAY - RETENTION_DAYS) * DAY
    utc = int(one.utc(now))
    begin = utc - utc % 900
    for place, (channel, register) in enumerate(answer.registers):
        assert channel == place + 1
        whole = sum(source.value(second, place) or 0 for second in range(first, begin, 900))
        assert register == whole + (source.partial(begin, one.utc(now + 0.01))[place] or 0)
    assert len(answer.registers) == len(answer.blocks) == 2
    for place, block in enumerate(answer.blocks):
        assert block.count == (15 * 3600 + 1000) // 900
        assert block.values() == tuple(
            source.value(TODAY * DAY + i * 900, place) for i in range(block.count)
        )
    assert [entry.event for entry in answer.entries] == [COLD_STARTED, REGISTERED]
    # Only a meter with this session's keys can have said so: that is its identifier.
    assert one.head_end.answers[-1].identity == METER
    assert one.events(ReadAnswered) == [ReadAnswered(b"identifier")]


@pytest.mark.parametrize("parts", range(1, 8))
def test_read_gives_what_was_asked_and_nothing_else(parts: int) -> None:
    one = settled()
    wanted = ReadParts(parts)
    answer = ReadAnswer.decode(_ask(one, read_request(b"identity", wanted)).payload)
    assert bool(answer.registers) is bool(wanted & ReadParts.REGISTERS)
    assert bool(answer.blocks) is bool(wanted & ReadParts.INTERVALS)
    assert bool(answer.entries) is bool(wanted & ReadParts.LOG)


def test_read_at_midnight_opens_the_new_day() -> None:
    one = settled(schedule=Schedule(300, 0, 1))
    one.world.run(until=one.midnight(TODAY + 1))
    answer = ReadAnswer.decode(_ask(one, read_request(b"midnight", ALL_PARTS)).payload)
    assert answer.day == TODAY + 1
    assert answer.blocks == answer.entries == ()
    (block,) = one.recorder.block(TODAY)
    assert block.count == 24
    assert answer.registers == ((1, block.closing),)
    one.world.elapse(400)
    assert one.head_end.days[-1] == TODAY


def test_read_changes_nothing_in_what_is_owed() -> None:
    one = settled()
    for number in range(5):
        _ask(one, read_request(bytes([number]) * 8, ALL_PARTS))
    one.world.run(until=one.midnight(TODAY + 1) + 600)
    report = one.head_end.reports[-1]
    assert report.day == TODAY
    assert [entry.event for entry in report.entries] == [COLD_STARTED, REGISTERED]


_GOOD = read_request(b"identity", ALL_PARTS).payload


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message.request(Code.GET, "nowhere"), Code.NOT_FOUND),
        (Message.request(Code.FETCH, "read/more"), Code.NOT_FOUND),
        (Message.request(Code.FETCH), Code.NOT_FOUND),
        (Message.request(Code.GET, READ), Code.METHOD_NOT_ALLOWED),
        (
            Message.request(Code.POST, READ, payload=_GOOD, content_format=CONTENT_FORMAT_V1),
            Code.METHOD_NOT_ALLOWED,
        ),
        (Message.request(Code.FETCH, READ, payload=_GOOD), Code.UNSUPPORTED_CONTENT_FORMAT),
        (
            Message.request(Code.FETCH, READ, payload=_GOOD, content_format=60),
            Code.UNSUPPORTED_CONTENT_FORMAT,
        ),
        *(
            (
                Message.request(Code.FETCH, READ, payload=bad, content_format=CONTENT_FORMAT_V1),
                Code.BAD_REQUEST,
            )
            for bad in (b"", b"\xff", _GOOD[:-1], _GOOD + b"\x00", b"\x82\x48identity\x08")
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else None,
)
def test_request_that_is_no_read_is_refused_with_its_code(message: Message, code: Code) -> None:
    one = settled()
    assert _ask(one, message).code == code
    assert one.events(ReadAnswered) == []
    assert _ask(one, read_request(b"identity", ALL_PARTS)).code == Code.CONTENT


def test_answer_goes_under_the_requests_nonce_only_when_that_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = settled()
    order: list[str] = []
    keep, respond = one.storage.keep_window, Stack.respond

    def kept(recipient_id: bytes, window: tuple[int, int]) -> None:
        keep(recipient_id, window)
        order.append("kept")

    def responded(stack: Stack, *args: object, **kwargs: object) -> None:
        if stack is one.agent._stack:
            assert kwargs["is_durable"] is True
            saved = one.storage.session()
            assert saved is not None
            assert saved.window == (1, 0)
            order.append("answered")
        respond(stack, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(one.storage, "keep_window", kept)
    monkeypatch.setattr(Stack, "respond", responded)
    _ask(one, read_request(b"identity", ALL_PARTS))
    assert order == ["kept", "answered"]


def _request_of_head_end(one: Bench) -> bytes:
    """The datagram of a read, caught on its way and not delivered."""
    caught: list[bytes] = []

    def passes(sender: object, receiver: object, datagram: bytes) -> bool:
        if receiver == "meter":
            caught.append(datagram)
        return False

    one.world.passes = passes
    request = one.head_end.read(METER, ReadParts.REGISTERS, "meter", now=one.world.now)
    one.settle_head_end()
    one.head_end.cancel(request, now=one.world.now)
    one.settle_head_end()
    one.world.passes = None
    (datagram,) = caught
    return datagram


@pytest.mark.parametrize("crash", ["before the commit", "after the commit", "after the answer"])
def test_power_cut_around_an_answer_never_uses_a_nonce_twice(
    sealed: Sealed, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    class PowerCut(Exception):
        pass

    one = settled()
    datagram = _request_of_head_end(one)
    keep = one.storage.keep_window

    def cut(recipient_id: bytes, window: tuple[int, int]) -> None:
        if crash == "after the commit":
            keep(recipient_id, window)
        raise PowerCut

    if crash != "after the answer":
        monkeypatch.setattr(one.storage, "keep_window", cut)
        with pytest.raises(PowerCut):
            one.agent.receive_datagram(datagram, "head-end", now=one.world.now)
    else:
        one.agent.receive_datagram(datagram, "head-end", now=one.world.now)
        one.agent.data_to_send()  # Sent, and lost.
    one.restart()
    one.world.elapse(3700)  # The register has moved: another answer would be another plaintext.
    before = len(one.world.datagrams())
    one.agent.receive_datagram(datagram, "head-end", now=one.world.now)
    one.host.settle()
    answers = [
        Message.decode(line.datagram)
        for line in one.world.datagrams()[before:]
        if line.sender == "meter"
    ]
    (answer,) = answers
    if crash == "before the commit":
        assert answer.option(OptionNumber.OSCORE) is not None
        assert len(one.events(ReadAnswered)) == 1
    else:
        assert answer.code == Code.UNAUTHORIZED
        assert one.agent.refused == {"session: replay": 1}
    sealed.check()


# Sizes


def _fill_log(one: Bench, count: int, at: float) -> None:
    with one.storage.together():
        for _ in range(count):
            one.recorder.log(at, REGISTERED, "d" * 64)


def test_minutes_on_two_channels_and_a_long_log_fit_by_cutting_the_log() -> None:
    one = bench(
        make_source=lambda: StubSource(60, flow_count=2, known_from=TODAY * DAY),
        epoch=TODAY * DAY + 40_000.0,
    )
    # Values of 10 bits, on 1,440 minutes and 2 channels: 3,600 octets without any log.
    one.power_on()
    one.world.elapse(30)
    _fill_log(one, 200, one.utc(one.world.now))
    one.world.run(until=one.midnight(TODAY + 1) + 600)
    assert one.head_end.days == [TODAY]
    assert len(one.head_end.reports[0].encode()) <= 4_000
    assert one.head_end.reports[0].entries == ()
    answer = _ask(one, read_request(b"identity", ALL_PARTS))
    assert answer.code == Code.CONTENT
    assert all(len(line.datagram) <= 4096 for line in one.world.history)


def test_log_that_does_not_fit_goes_with_the_reports_that_follow() -> None:
    one = settled()
    _fill_log(one, 200, one.utc(one.world.now))
    one.world.run(until=one.midnight(TODAY + 12) + 600)
    reports = one.head_end.reports[RETENTION_DAYS:]
    assert all(len(report.encode()) <= PAYLOAD_SIZE_MAX for report in reports)
    sequences = [entry.sequence for report in reports for entry in report.entries]
    assert sequences == list(range(202))


def test_read_of_a_long_log_gives_the_newest_that_fit() -> None:
    one = settled()
    _fill_log(one, 50, one.utc(one.world.now))
    answer = ReadAnswer.decode(_ask(one, read_request(b"identity", ALL_PARTS)).payload)
    assert 10 < len(answer.entries) < 52
    assert answer.entries[-1].sequence == 51
    assert len(answer.encode()) <= PAYLOAD_SIZE_MAX


class HugeSource(StubSource):
    """Minutes of a town: the values of one day fill more than a message."""

    def value(self, start: int, place: int) -> int | None:
        if self.known_from is not None and start < self.known_from:
            return None
        if start // DAY == YESTERDAY or start // DAY == TODAY:
            return start * 7919 % (1 << 26)
        return start % 100


def test_day_too_long_for_a_message_does_not_block_the_others() -> None:
    one = bench(
        make_source=lambda: HugeSource(60, flow_count=2, known_from=(TODAY - 3) * DAY),
    )
    one.power_on()
    one.world.elapse(60)
    # It comes in blocks, and in its turn.
    assert one.head_end.days == [YESTERDAY, TODAY - 2, TODAY - 3]
    assert one.recorder.owed_days() == []
    assert len(one.head_end.reports[0].encode()) > 4_096
    for report in one.head_end.reports:
        assert list(report.blocks) == one.recorder.block(report.day)
    assert texts(one) == []
    # So does the answer when it is asked for.
    answer = _ask(one, read_request(b"identity", ReadParts.INTERVALS))
    assert len(answer.payload) > 4_096
    assert all(len(line.datagram) <= 4_096 for line in one.world.datagrams())
    assert ReadAnswer.decode(answer.payload).blocks == tuple(one.recorder.block(TODAY))


# Disks


def test_full_disk_at_midnight_says_nothing_that_is_not_durable_and_recovers() -> None:
    one = settled()
    one.world.run(until=one.midnight(TODAY + 1) - 1)
    one.fill_disk()
    one.world.elapse(3600)
    assert len(one.events(StorageFailed)) >= 3600 / STORAGE_RETRY_S - 2
    assert len(one.events(StorageFailed)) <= 3600 / STORAGE_RETRY_S + 2
    assert one.head_end.days[-1] != TODAY
    one.mend_disk()
    one.world.elapse(3 * STORAGE_RETRY_S)
    assert one.head_end.days[-1] == TODAY
    assert one.recorder.block(TODAY)[0].count == 24
    assert one.recorder.owed_days() == []


def test_acknowledgement_that_cannot_be_kept_means_the_report_goes_again() -> None:
    one = settled()
    one.world.run(until=one.midnight(TODAY + 1) + 100)
    one.fill_disk()
    one.world.elapse(300)
    assert one.head_end.days.count(TODAY) >= 1
    assert one.recorder.owed_days() == [TODAY]
    assert one.events(Reported)[-1] != Reported(TODAY)
    one.mend_disk()
    one.world.elapse(3 * STORAGE_RETRY_S)
    assert one.recorder.owed_days() == []
    reports = [report for report in one.head_end.reports if report.day == TODAY]
    assert len(reports) >= 2
    assert len({report.blocks for report in reports}) == 1


def test_numbers_that_cannot_be_reserved_are_asked_for_until_they_are(sealed: Sealed) -> None:
    one = settled()
    session = one.storage.session()
    assert session is not None
    # Days and log entries find room, the session's row does not.
    one.files.refuses = lambda octets: session.master_secret in octets
    one.fill_disk()
    # The block in use lasts a while; then nothing more is said.
    for day in range(TODAY + 1, TODAY + 64):
        one.world.run(until=one.midnight(day) + 600)
        if one.events(StorageFailed):
            break
    reported = len(one.head_end.reports)
    one.world.elapse(2 * DAY)
    assert len(one.head_end.reports) == reported
    assert one.recorder.block(day + 1)[0].count == 24, "it records on"
    one.mend_disk()
    one.world.elapse(3 * STORAGE_RETRY_S)
    assert one.recorder.owed_days() == []
    assert one.head_end.session_count == 1
    assert one.agent._stack._secured._numbers._held == {}
    assert HELD_MAX > 2  # The few messages that were held meanwhile had room.
    sealed.check()


def test_session_that_cannot_be_kept_is_not_used() -> None:
    one = bench()
    one.power_on()
    one.fill_disk()
    one.world.elapse(600)
    assert one.events(StorageFailed)
    assert one.head_end.heard == []
    assert one.storage.session() is None
    assert one.agent._stack._secured._approaches._proposed == {}
    assert one.agent._stack.session_of(one.agent._head_end_name) is None
    one.mend_disk()
    one.world.elapse(3 * STORAGE_RETRY_S)
    assert one.recorder.owed_days() == []


def test_read_whose_window_cannot_be_kept_is_answered_later(sealed: Sealed) -> None:
    one = settled()
    one.fill_disk()
    answer = _ask(one, read_request(b"identity", ALL_PARTS))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert one.events(ReadAnswered) == []
    assert one.agent._stack._secured._answers._exchanges == {}
    one.mend_disk()
    assert _ask(one, read_request(b"identity", ALL_PARTS)).code == Code.CONTENT
    sealed.check()


def test_every_call_failing_for_hours_is_survived(sealed: Sealed) -> None:
    one = settled()
    one.fill_disk()
    heard = len(one.head_end.heard)
    one.world.run(until=one.midnight(TODAY + 1) + 3600)
    assert _ask(one, read_request(b"identity", ALL_PARTS)).code == Code.SERVICE_UNAVAILABLE
    assert len(one.head_end.heard) == heard
    one.mend_disk()
    one.world.elapse(1000)
    assert one.head_end.days[-1] == TODAY
    assert one.recorder.owed_days() == []
    sealed.check()


def test_disk_that_fails_at_the_start_is_a_store_error() -> None:
    one = settled()
    one.power_off()
    one.world.elapse(7200)
    # The journal opens with these calls; the interval of meanwhile is what cannot be kept.
    opening = len(one.files.calls)
    Storage.on(one.files).close()
    opening = len(one.files.calls) - opening
    one.files.kill()
    one.files.fail_after(range(opening, opening + 9))
    with pytest.raises(StoreError, match="No space left"):
        one.power_on()
    one.files.kill()
    one.power_on()
    one.world.elapse(60)
    # What the failed write left half done may have cost a handshake.
    assert len(one.head_end.registrations) == 2
    assert one.recorder.recorded_until == one.recorder.next_due(one.utc(one.world.now)) - 3600


def test_damaged_storage_costs_a_handshake_and_is_logged_and_told_once(sealed: Sealed) -> None:
    one = settled()
    before = [entry.sequence for entry in one.recorder.entries_of(TODAY)]
    one.power_off()
    (name,) = one.files.names()
    octets = one.files.read(name, 1 << 20)
    # The registration, a log entry, was the last that was kept: now the disk has lost its end.
    one.files.put(name, octets[:-3])
    one.power_on()
    assert one.agent.stage is Stage.SECURING
    assert one.agent.counters["storage damaged"] == 1
    one.world.elapse(60)
    assert one.head_end.session_count == 2
    (damaged,) = one.events(StorageDamaged)
    assert isinstance(damaged, StorageDamaged)
    assert damaged.lost_octets > 0
    one.restart()
    one.world.run(until=one.midnight(TODAY + 1) + 600)
    assert one.head_end.session_count == 2, "the new session is as good as any"
    assert len(one.events(StorageDamaged)) == 1
    entries = one.head_end.reports[-1].entries
    (entry,) = (entry for entry in entries if entry.event == STORAGE_DAMAGED)
    assert entry.detail == f"{damaged.lost_octets} octets lost"
    # Whatever the lost entries were called, no other entry has their names.
    assert entry.sequence > max(before)
    assert [one.sequence for one in entries if one.sequence > entry.sequence]
    sealed.check()


# Garbage


def test_garbage_and_replays_change_nothing() -> None:
    one = settled()
    recorded = [line.datagram for line in one.world.datagrams() if line.receiver == "meter"]
    before = (one.storage.session(), one.recorder.owed_days(), one.agent.stage, len(one.log))
    dice = one.world.dice
    for number in range(600):
        octets = bytearray(dice.choice(recorded))
        if number % 3:
            octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
        if number % 7 == 0:
            octets = bytearray(dice.randbytes(dice.randrange(60)))
        one.world.send("head-end" if number % 2 else "stranger", "meter", bytes(octets))
    one.world.elapse(10)
    assert (one.storage.session(), one.recorder.owed_days(), one.agent.stage, len(one.log)) == (
        before
    )
    one.world.run(until=one.midnight(TODAY + 1) + 600)
    assert one.head_end.days[-1] == TODAY
    assert isinstance(one.head_end.reports[-1], DailyReport)


def test_nothing_is_due_before_the_start() -> None:
    """A socket may be open, and its timer run, while the start still reads the disk."""
    one = bench()
    one.silence_head_end()
    one.power_on()
    one.world.elapse(5)
    one.power_off()
    agent = one.unstarted()
    before = one.storage.entries(0, 1 << 32, limit=99)
    assert agent.next_timer() is None
    agent.handle_timer(now=one.world.now)
    assert agent.data_to_send() == []
    assert one.storage.entries(0, 1 << 32, limit=99) == before
