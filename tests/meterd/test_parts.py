"""Parts of a meter in its agent: who is asked, who is woken, and who speaks first.

The contract under test: a request goes to the resource of its path and nowhere else; a part is
woken when it asked for that; of the voices that are due the most urgent speaks, one at a time; an
alarm waits for no patience; what a part cannot keep stops nobody for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from amistack.coap.codes import Code
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.errors import ModelError, StoreError
from amistack.model import CONTENT_FORMAT_V1
from meterd.agent import STORAGE_RETRY_S, Agent, Hindered, Recovered, Stage, StorageFailed
from meterd.agent.patience import ALARM_RETRY_S
from meterd.agent.turns import SILENT_S
from meterd.parts import Due, Resource, Urgency, granted, refused, unfit
from tests.meterd.bench import EPOCH, METER, Bench
from tests.support.head_end import Heard, changed

DAY = 86_400
TODAY = int(EPOCH) // DAY


@dataclass
class Echo:
    """A resource that says what it was told."""

    path: str
    kind: str = "amistack.echo"
    asked: list[bytes] = field(default_factory=list)
    error: Exception | None = None

    def answer(self, message: Message, *, now: float) -> Message:
        if (other := unfit(message, Code.POST, Code.GET)) is not None:
            return other
        if self.error is not None:
            raise self.error
        self.asked.append(message.payload)
        return granted(Code.CHANGED, message.payload)


@dataclass
class Clockwork:
    """A part that is woken at given times."""

    at: list[float]
    echo: Echo = field(default_factory=lambda: Echo("echo"))
    woken: list[float] = field(default_factory=list)
    fails_until: float = 0.0

    def resources(self) -> Sequence[Resource]:
        return (self.echo,)

    def handle_timer(self, *, now: float) -> None:
        if now < self.fails_until:
            self.woken.append(now)
            raise StoreError("no space left on device")
        self.woken.append(now)
        self.at = [one for one in self.at if one > now]

    def next_timer(self) -> float | None:
        return min(self.at, default=None)


@dataclass
class Speaker:
    """A voice with words to say, each at its time; what came of them is in `log`."""

    name: str
    urgency: Urgency
    at: list[float]
    log: list[tuple[str, str]]
    is_mute: bool = False
    asked: list[float] = field(default_factory=list)

    def next_word(self, *, now: float) -> Due | None:
        return Due(min(self.at), self.urgency) if self.at else None

    def word(self, *, now: float) -> Message | None:
        self.asked.append(now)
        if self.is_mute:
            return None
        self.log.append((self.name, "word"))
        return Message.request(
            Code.POST, "words", payload=self.name.encode(), content_format=CONTENT_FORMAT_V1
        )

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        assert sent <= now
        if message.payload == b"nonsense":
            raise ModelError("not CBOR")
        self.log.append((self.name, "answer"))
        self.at.remove(min(self.at))

    def take_failure(self, reason: str, *, now: float) -> float:
        self.log.append((self.name, f"failure: {reason}"))
        self.at[self.at.index(min(self.at))] = now + 30
        return 30.0

    def take_back(self, *, now: float) -> None:
        self.log.append((self.name, "back"))


def bench(
    monkeypatch: pytest.MonkeyPatch,
    parts: Sequence[object] = (),
    voices: Sequence[object] = (),
) -> Bench:
    one = Bench()
    made = Agent.__init__

    def init(agent: Agent, **settings: object) -> None:
        made(agent, **{**settings, "parts": parts, "voices": voices})  # type: ignore[arg-type]

    monkeypatch.setattr(Agent, "__init__", init)
    kind = type(one.head_end)
    understood = kind._understood

    def listen(head_end: object, request: object, now: float) -> Heard:
        message = request.message  # type: ignore[attr-defined]
        if message.path == "words":
            return Heard(now, METER, message)
        return understood(head_end, request, now)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "_understood", listen)
    return one


def settled(one: Bench) -> Bench:
    one.power_on()
    one.world.elapse(60)
    assert one.agent.stage is Stage.REPORTING
    return one


def ask(one: Bench, message: Message, *, wait: float = 1) -> Message:
    before = len(one.head_end.answers)
    one.head_end.ask(METER, message, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(wait)
    (answer,) = one.head_end.answers[before:]
    return answer.message


def post(path: str, payload: bytes = b"\x01") -> Message:
    return Message.request(Code.POST, path, payload=payload, content_format=CONTENT_FORMAT_V1)


# Resources


def test_request_goes_to_the_resource_of_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Clockwork([])
    one = settled(bench(monkeypatch, [part]))
    answer = ask(one, post("echo", b"\x05"))
    assert (answer.code, answer.payload) == (Code.CHANGED, b"\x05")
    assert part.echo.asked == [b"\x05"]
    assert ask(one, post("echo/more")).code == Code.NOT_FOUND
    assert ask(one, Message.request(Code.DELETE, "echo")).code == Code.METHOD_NOT_ALLOWED
    bare = Message.request(Code.POST, "echo", payload=b"\x05")
    assert ask(one, bare).code == Code.UNSUPPORTED_CONTENT_FORMAT
    assert part.echo.asked == [b"\x05"]
    links = one.agent._answering.links
    assert Link("/echo", ("amistack.echo",), content_formats=(CONTENT_FORMAT_V1,)) in links


def test_bad_request_is_answered_with_its_reason_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = Clockwork([])
    part.echo.error = ModelError("wrong size", "that nobody needs to know")
    one = settled(bench(monkeypatch, [part]))
    answer = ask(one, post("echo"))
    assert (answer.code, answer.payload) == (Code.BAD_REQUEST, b"wrong size")
    assert one.agent.counters["echo refused: wrong size"] == 1


def test_request_whose_promise_cannot_be_kept_is_answered_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = Clockwork([])
    part.echo.error = StoreError("no space left on device")
    one = settled(bench(monkeypatch, [part]))
    assert ask(one, post("echo")).code == Code.SERVICE_UNAVAILABLE
    assert len(one.events(StorageFailed)) == 1


def test_two_resources_of_one_path_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench(monkeypatch, [Clockwork([]), Clockwork([])])
    with pytest.raises(AssertionError, match="two resources at echo"):
        one.power_on()


def test_reason_of_a_refusal_has_a_bound() -> None:
    assert len(refused(Code.FORBIDDEN, "x" * 500).payload) == 64


# Timers


def test_part_is_woken_when_it_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Clockwork([5.0, 700.5, 700.6])
    one = settled(bench(monkeypatch, [part]))
    one.world.elapse(1000)
    assert part.woken == [5.0, 700.5, 700.6]


def test_part_that_cannot_keep_anything_stops_nobody_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = Clockwork([100.0], fails_until=100 + 2.5 * STORAGE_RETRY_S)
    one = settled(bench(monkeypatch, [part]))
    one.world.elapse(600)
    assert part.woken == [100 + n * STORAGE_RETRY_S for n in range(4)]
    assert len(one.events(StorageFailed)) == 3
    one.world.run(until=one.midnight(TODAY + 1) + 400)
    assert one.head_end.days[-1] == TODAY


# Voices


def test_most_urgent_voice_speaks_first_and_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    voices = [
        Speaker("catching up", Urgency.RECOVERY, [100.0], log),
        Speaker("alarm", Urgency.ALARM, [100.0], log),
        Speaker("hourly", Urgency.FREQUENT, [100.0, 100.0], log),
        Speaker("later", Urgency.ALARM, [200.0], log),
    ]
    one = settled(bench(monkeypatch, voices=voices))
    one.world.elapse(300)
    order = ["alarm", "hourly", "hourly", "catching up", "later"]
    assert log == [(name, what) for name in order for what in ("word", "answer")]


def test_of_equal_voices_the_oldest_speaks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    voices = [
        Speaker("young", Urgency.DEFAULT, [99.0], log),
        Speaker("old", Urgency.DEFAULT, [98.0], log),
    ]
    one = bench(monkeypatch, voices=voices)
    one.head_end.answer_to = lambda heard: (
        one.head_end.plain_answer(heard) if one.world.now >= 100 else None
    )
    one.power_on()
    one.world.elapse(400)
    words = [name for name, what in log if what == "answer"]
    assert words == ["old", "young"]


def test_voice_that_fails_paces_itself_and_holds_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    failing = Speaker("failing", Urgency.FREQUENT, [100.0], log)
    other = Speaker("other", Urgency.DEFAULT, [110.0], log)
    one = settled(bench(monkeypatch, voices=[failing, other]))
    said: list[float] = []

    def answer(heard: Heard) -> Message:
        if heard.message.payload == b"failing" and len(said) < 2:
            said.append(heard.now)
            return (
                Message.response(Code.FORBIDDEN, payload=b"no")
                if not said[1:]
                else changed(b"nonsense")
            )
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer
    one.world.elapse(200)
    assert log == [
        ("failing", "word"),
        ("failing", "failure: 4.03 FORBIDDEN no"),
        ("other", "word"),
        ("other", "answer"),
        ("failing", "word"),
        ("failing", "failure: acknowledgement: not CBOR"),
        ("failing", "word"),
        ("failing", "answer"),
    ]
    assert [event.retry_s for event in one.events(Hindered) if isinstance(event, Hindered)] == [
        30.0,
        30.0,
    ]
    # After the first failure the other came through, after the second it did itself.
    assert len(one.events(Recovered)) == 2


def test_later_holds_every_voice_and_is_nobodys_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    alarm = Speaker("alarm", Urgency.ALARM, [100.0], log)
    other = Speaker("other", Urgency.FREQUENT, [150.0], log)
    one = settled(bench(monkeypatch, voices=[alarm, other]))
    told: list[float] = []

    def answer(heard: Heard) -> Message:
        if not told:
            told.append(heard.now)
            return Message.response(Code.SERVICE_UNAVAILABLE, max_age=500)
        return one.head_end.plain_answer(heard)

    one.head_end.answer_to = answer
    one.world.elapse(540)
    assert log == [("alarm", "word"), ("alarm", "back")]
    one.world.elapse(400)
    assert [name for name, what in log if what == "answer"] == ["alarm", "other"]


def test_word_whose_session_was_forgotten_is_said_in_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[tuple[str, str]] = []
    one = settled(bench(monkeypatch, voices=[Speaker("word", Urgency.FREQUENT, [100.0], log)]))
    one.head_end.forget_sessions()
    one.world.elapse(120)
    assert [what for _, what in log] == ["word", "back", "word", "answer"]
    assert one.head_end.session_count == 2


def test_voice_that_has_nothing_to_say_after_all_is_asked_again_only_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[tuple[str, str]] = []
    mute = Speaker("mute", Urgency.ALARM, [100.0], log, is_mute=True)
    other = Speaker("other", Urgency.DEFAULT, [110.5], log)
    one = settled(bench(monkeypatch, voices=[mute, other]))
    one.world.elapse(60)
    assert log == [("other", "word"), ("other", "answer")]
    assert 15 <= len(mute.asked) <= 25
    assert all(
        later - earlier >= SILENT_S
        for earlier, later in zip(mute.asked, mute.asked[2:], strict=False)
    )


@pytest.mark.parametrize(("urgency", "is_soon"), [(Urgency.ALARM, True), (Urgency.FREQUENT, False)])
def test_alarm_shortens_the_patience_with_a_head_end_that_was_away(
    urgency: Urgency, is_soon: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    speaker = Speaker("word", urgency, [], log)
    one = bench(monkeypatch, voices=[speaker])
    one.silence_head_end()
    one.power_on()
    count = 0
    while count == len(one.events(Hindered)) or one.world.now < 3 * 3600:
        count = len(one.events(Hindered))
        one.world.elapse(10)
    (at, wait) = [(at, e.retry_s) for at, e in one.log if isinstance(e, Hindered)][-1]
    assert wait > 2 * ALARM_RETRY_S
    # It has just become patient. Now there is something to say, and somebody to hear it.
    one.open_head_end()
    speaker.at.append(one.world.now)
    one.world.send("stranger", "meter", b"\0")  # Whatever comes, it looks again.
    one.world.run(until=at + ALARM_RETRY_S + 30)
    assert bool(log) == is_soon
    one.world.run(until=at + wait + 30)
    assert log == [("word", "word"), ("word", "answer")]


def test_alarm_does_not_shorten_what_the_head_end_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[tuple[str, str]] = []
    speaker = Speaker("alarm", Urgency.ALARM, [60.0], log)
    one = bench(monkeypatch, voices=[speaker])
    one.head_end.answer_to = lambda heard: (
        Message.response(Code.SERVICE_UNAVAILABLE, max_age=2000)
        if one.world.now < 1000
        else one.head_end.plain_answer(heard)
    )
    one.power_on()
    one.world.elapse(2000)
    assert len(one.head_end.heard) == 1
    one.world.elapse(1100)
    assert [what for _, what in log] == ["word", "answer"]
