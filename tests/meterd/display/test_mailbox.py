"""Text messages in a meter: taken once, shown in their time, answered for.

The contract under test: a message is in force from its start until before its end; what became of
it is told and survives a restart; a full mailbox refuses rather than forget what is not over.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ModelError, StoreUnusable
from amistack.model import CONTENT_FORMAT_V1, ClockState, EndDeviceEventType
from amistack.model.messages import (
    MESSAGE_COUNT_MAX,
    MessageList,
    MessageState,
    TextMessage,
)
from meterd.display import DisplayPart, Mailbox
from meterd.display.mailbox import ACKNOWLEDGED, DISPLAYED, NO_ROOM, OVER_ALREADY
from meterd.storage import MESSAGE, Storage
from tests.meterd.switch.house import MONDAY, Clock
from tests.support.power import TornFiles

HELLO = TextMessage(
    7, MONDAY + 100, MONDAY + 200, is_to_acknowledge=True, text="Save power from 5 to 8 pm, please"
)


class Bench:
    def __init__(self) -> None:
        self.files = TornFiles(random.Random(0))
        self.clock = Clock()
        self.log: list[tuple[EndDeviceEventType, str | None]] = []
        self.open()

    def open(self) -> None:
        self.files.kill()
        storage = Storage.on(self.files)
        self.mailbox = Mailbox(storage, self.clock, log=lambda *entry: self.log.append(entry))

    def shown(self, now: float) -> list[int]:
        return [one.identifier for one in self.mailbox.in_force(now=now)]

    def states(self, now: float) -> dict[int, tuple[MessageState, int]]:
        told = self.mailbox.standings(now=now).standings
        return {one.identifier: (one.state, one.since_s - MONDAY) for one in told}


def test_message_is_shown_from_its_start_until_before_its_end() -> None:
    bench = Bench()
    assert bench.mailbox.take(HELLO, now=0.0) is None
    assert [bench.shown(at) for at in (99.9, 100.0, 199.9, 200.0)] == [[], [7], [7], []]
    assert bench.states(50.0) == {7: (MessageState.WAITING, 0)}
    assert bench.states(200.0) == {7: (MessageState.OVER, 200)}


def test_shown_and_acknowledged_are_logged_once_and_survive_a_restart() -> None:
    bench = Bench()
    bench.mailbox.take(HELLO, now=0.0)
    # Nobody has seen it yet.
    assert bench.mailbox.acknowledge(now=120.0) is None
    bench.mailbox.mark_shown([7, 8], now=120.0)
    bench.mailbox.mark_shown([7], now=121.0)
    assert bench.states(122.0) == {7: (MessageState.SHOWN, 120)}
    assert bench.mailbox.acknowledge(now=130.0) == 7
    assert bench.mailbox.acknowledge(now=131.0) is None
    bench.open()
    # Acknowledged is not over, and is not shown any more.
    assert bench.states(500.0) == {7: (MessageState.ACKNOWLEDGED, 130)}
    assert bench.shown(140.0) == []
    assert bench.log == [(DISPLAYED, "message 7"), (ACKNOWLEDGED, "message 7")]


def test_message_that_asks_for_nothing_is_not_acknowledged() -> None:
    bench = Bench()
    bench.mailbox.take(replace(HELLO, is_to_acknowledge=False), now=0.0)
    bench.mailbox.mark_shown([7], now=120.0)
    assert bench.mailbox.acknowledge(now=130.0) is None


def test_taking_the_same_again_changes_nothing_and_another_text_begins_anew() -> None:
    bench = Bench()
    bench.mailbox.take(HELLO, now=0.0)
    bench.mailbox.mark_shown([7], now=120.0)
    bench.mailbox.take(HELLO, now=130.0)
    assert bench.states(131.0) == {7: (MessageState.SHOWN, 120)}
    bench.mailbox.take(replace(HELLO, text="Thank you"), now=140.0)
    assert bench.states(141.0) == {7: (MessageState.WAITING, 140)}
    assert bench.mailbox.in_force(now=141.0)[0].text == "Thank you"


def test_end_that_is_past_takes_a_message_off_and_refuses_a_new_one() -> None:
    bench = Bench()
    assert bench.mailbox.take(replace(HELLO, ends_s=MONDAY + 101), now=101.0) == OVER_ALREADY
    bench.mailbox.take(HELLO, now=0.0)
    assert bench.mailbox.take(replace(HELLO, ends_s=MONDAY + 110), now=150.0) is None
    assert bench.shown(150.0) == []
    assert bench.states(151.0) == {7: (MessageState.OVER, 150)}


def test_full_mailbox_forgets_what_is_over_and_refuses_otherwise() -> None:
    bench = Bench()
    for number in range(MESSAGE_COUNT_MAX):
        message = replace(HELLO, identifier=number, ends_s=MONDAY + 1_000 + number)
        assert bench.mailbox.take(message, now=0.0) is None
    late = replace(HELLO, identifier=99, ends_s=MONDAY + 9_000)
    assert bench.mailbox.take(late, now=900.0) == NO_ROOM
    assert 99 not in bench.states(900.0)
    assert bench.mailbox.take(late, now=1_001.0) is None
    assert set(bench.states(1_001.0)) == {*range(1, MESSAGE_COUNT_MAX), 99}


def test_clock_that_is_unset_shows_nothing_and_takes_all_the_same() -> None:
    bench = Bench()
    bench.clock.state = ClockState.UNSET
    assert bench.mailbox.take(replace(HELLO, ends_s=MONDAY + 101), now=150.0) is None
    assert bench.shown(100.5) == []
    bench.clock.state = ClockState.SET
    assert bench.shown(100.5) == [7]


@pytest.mark.parametrize("row", [[b"\x00", 0, 0], [HELLO.encode(), 9, 0]])
def test_row_that_no_meterd_writes_is_refused_in_a_line(row: list[object]) -> None:
    storage = Storage.on(TornFiles(random.Random(0)))
    storage.put((MESSAGE, 7, row))
    with pytest.raises(StoreUnusable, match="none of ours"):
        Mailbox(storage, Clock(), log=lambda *_: None)


def test_resource_takes_lists_and_refuses() -> None:
    bench = Bench()
    (resource,) = DisplayPart(bench.mailbox).resources()

    def put(payload: bytes, content_format: int | None = CONTENT_FORMAT_V1) -> Message:
        request = Message.request(
            Code.PUT, resource.path, payload=payload, content_format=content_format
        )
        return resource.answer(request, now=0.0)

    assert put(HELLO.encode()).code == Code.CHANGED
    past = replace(HELLO, identifier=8, starts_s=1, ends_s=2)
    answer = put(past.encode())
    assert (answer.code, answer.payload) == (Code.FORBIDDEN, OVER_ALREADY.encode())
    assert put(HELLO.encode(), None).code == Code.UNSUPPORTED_CONTENT_FORMAT
    with pytest.raises(ModelError):
        put(b"\x00")
    told = resource.answer(Message.request(Code.GET, resource.path), now=0.0)
    assert [one.identifier for one in MessageList.decode(told.payload).standings] == [7]
    deleted = resource.answer(Message.request(Code.DELETE, resource.path), now=0.0)
    assert deleted.code == Code.METHOD_NOT_ALLOWED
