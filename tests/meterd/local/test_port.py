"""A field tool at a meter's local port.

The contract under test: who is not on the list gets nothing, who may read changes nothing, and each
attempt is told of; a dump is all that the meter holds; a line with noise on it only takes longer.
"""

from __future__ import annotations

import random

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.framing import TCP
from amistack.model import CONTENT_FORMAT_V1, DailyReport, ReadAnswer, Registration
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    Position,
    Refusal,
    SwitchState,
)
from amistack.model.dump import DumpPage
from amistack.model.events import REGISTERED
from amistack.model.holdings import LogBatch
from amistack.model.messages import TextMessage
from amistack.model.resources import SWITCH
from amistack.session.credentials import AuthenticationKey, Kid, ccs_credential
from meterd.local.gate import HOLD_S, Order
from meterd.local.tool import Failed, Ready
from meterd.storage import LOG, entry_of
from tests.meterd.bench import METER
from tests.meterd.display.test_viewing import Meter
from tests.meterd.local.bench import PROGRAMMER, READER, STRANGER, VIEWER, Port, fetch, tool_key
from tests.meterd.switch.house import MONDAY
from tests.support.head_end import key_of


@pytest.fixture
def meter() -> Meter:
    made = Meter(watts=2_000)
    made.recorder.advance(MONDAY)
    return made


def command(sequence: int, action: Action) -> Message:
    wanted = ControlCommand(sequence, MONDAY + 86_400, action)
    return Message.request(
        Code.POST, SWITCH, payload=wanted.encode(), content_format=CONTENT_FORMAT_V1
    )


@pytest.mark.parametrize("carrier", [None, TCP])
def test_tool_on_the_list_is_let_in_and_served(meter: Meter, carrier: object) -> None:
    port = Port(meter) if carrier is None else Port(meter, carrier=TCP)
    assert port.connect()
    answer = port.ask(command(1, Action.DISCONNECT))
    assert isinstance(answer, Message)
    assert ControlAnswer.decode(answer.payload).refusal is Refusal.NONE
    assert meter.switch.state(now=0.0).position is Position.OPEN
    (attempt,) = port.attempts
    assert attempt[1]
    assert attempt[0].startswith("tool ")


@pytest.mark.requirement("B1-FR-110")
def test_none_wrong_and_insufficient_credentials_are_refused_and_a_valid_one_is_served(
    meter: Meter,
) -> None:
    # Wrong: a key that the meter was not told of.
    port = Port(meter, tool=STRANGER)
    assert not port.connect()
    assert any(isinstance(told, Failed) for told in port.told)
    assert port.attempts[0][0].startswith("local port: unknown tool")
    assert not any(is_granted for _, is_granted in port.attempts)
    # None: plain CoAP on the same line.
    port = Port(meter)
    plain = fetch(0)
    octets = Message(plain.code, plain.type, 7, b"", plain.options, plain.payload).encode()
    port.station.receive_datagram(octets, "line", now=0.0)
    ((_, said),) = port.station.data_to_send()
    assert Message.decode(said).code == Code.UNAUTHORIZED
    assert port.attempts == [("local port: session: not protected", False)]
    # Insufficient: a tool that may look at what is now, and not take all that there is.
    port = Port(meter, tool=VIEWER)
    assert port.connect()
    answer = port.ask(fetch(0))
    assert isinstance(answer, Message)
    assert (answer.code, answer.payload) == (Code.FORBIDDEN, b"may not do that")
    looked = port.ask(Message.request(Code.GET, SWITCH))
    assert isinstance(looked, Message)
    assert looked.code == Code.CONTENT
    assert [is_granted for _, is_granted in port.attempts] == [True, False]
    # Valid.
    port = Port(meter, tool=READER)
    assert port.connect()
    assert port.take_dump()
    assert [is_granted for _, is_granted in port.attempts] == [True, True]


def test_tool_that_may_only_read_changes_nothing(meter: Meter) -> None:
    port = Port(meter, tool=READER)
    assert port.connect()
    answer = port.ask(command(1, Action.DISCONNECT))
    assert isinstance(answer, Message)
    assert (answer.code, answer.payload) == (Code.FORBIDDEN, b"may not do that")
    assert meter.switch.state(now=0.0).newest == 0


def test_tool_with_the_name_of_another_but_not_its_key_is_refused(meter: Meter) -> None:
    known = tool_key(PROGRAMMER).credential.id_cred
    assert isinstance(known, Kid)
    key = key_of(77)
    own = ccs_credential(known.value, "field tool", key.public_key())
    port = Port(meter, key=AuthenticationKey(key, own))
    port.connect()
    answer = port.ask(fetch(0)) if Ready() in port.told else "not let in"
    assert not isinstance(answer, Message) or answer.code != Code.CONTENT
    assert not any(is_granted for _, is_granted in port.attempts)
    assert port.attempts


def test_tool_refuses_a_meter_that_is_not_the_one_it_was_sent_to(meter: Meter) -> None:
    port = Port(meter, expected=tool_key(99))
    assert not port.connect()
    assert not any(is_granted for _, is_granted in port.attempts)


@pytest.mark.requirement("B1-FR-108", "B1-FR-26")
def test_dump_holds_all_that_the_meter_holds(meter: Meter) -> None:
    meter.mailbox.take(
        TextMessage(3, MONDAY, MONDAY + 900, is_to_acknowledge=True, text="Hello"), now=0.0
    )
    meter.command(1, Action.DISCONNECT)
    meter.run(20)
    for at in range(700):
        meter.storage.keep_entry(
            MONDAY + at, REGISTERED, "x" * (at % 60) or None, is_time_doubtful=False
        )
    meter.storage.settle_entries(range(100))
    port = Port(meter)
    port.line.now = meter.now
    assert port.connect()
    asked = port.ask(Message.request(Code.GET, SWITCH))
    assert isinstance(asked, Message)
    assert SwitchState.decode(asked.payload).position is Position.OPEN
    parts = port.take_dump()
    by_path: dict[str, list[bytes]] = {}
    for part in parts:
        by_path.setdefault(part.path, []).append(part.payload)

    registration = Registration.decode(by_path["reg"][0])
    assert (registration.meter, registration.channels) == (METER, meter.recorder.channels)
    # Every day, block by block.
    reports = [DailyReport.decode(payload) for payload in by_path["rep"]]
    today = meter.recorder.day_of(MONDAY)
    assert [report.day for report in reports] == list(range(today - 1, today - 46, -1))
    for report in reports:
        assert list(report.blocks) == meter.recorder.block(report.day)
    read = ReadAnswer.decode(by_path["read"][0])
    assert read.registers == meter.recorder.registers(meter.clock.utc(port.line.now))
    # The whole log, what was reported as well.
    logged = [entry for payload in by_path["log"] for entry in LogBatch.decode(payload).entries]
    assert logged == [entry_of(*row) for row in sorted(meter.storage.items(LOG))]
    assert len(logged) == 700
    # What the switch and the display hold.
    (switch,) = (SwitchState.decode(payload) for payload in by_path["switch"])
    assert (switch.position, switch.newest) == (Position.OPEN, 1)
    assert [TextMessage.decode(payload).text for payload in by_path["text"]] == ["Hello"]
    assert "msg" in by_path
    assert port.snapshot.counters == {}


def test_attempt_to_dump_is_told_of_whether_it_works_or_not(meter: Meter) -> None:
    port = Port(meter, tool=READER)
    port.connect()
    port.take_dump()
    refused = Port(meter, tool=STRANGER)
    refused.connect()
    assert [is_granted for _, is_granted in port.attempts] == [True, True]
    assert port.attempts[1] == ("dump", True)
    assert [is_granted for _, is_granted in refused.attempts] == [False] * len(refused.attempts)
    assert refused.attempts


def test_pages_are_of_one_moment_and_are_forgotten_with_the_line(meter: Meter) -> None:
    for at in range(2_000):
        meter.storage.keep_entry(MONDAY + at, REGISTERED, f"{at:060}", is_time_doubtful=False)
    port = Port(meter)
    port.connect()
    first = port.ask(fetch(0))
    assert isinstance(first, Message)
    assert DumpPage.decode(first.payload).count > 1
    known = port.attempts.copy()
    meter.storage.drop_entries_before(2**32)
    second = port.ask(fetch(1))
    assert isinstance(second, Message)
    # The log of that moment, which is gone by now; and it is no dump of its own.
    batches = [part for part in DumpPage.decode(second.payload).parts() if part.path == "log"]
    assert len(LogBatch.decode(batches[-1].payload).entries) > 1
    assert port.attempts == known
    late = port.ask(fetch(60))
    assert isinstance(late, Message)
    assert (late.code, late.payload) == (Code.NOT_FOUND, b"no such page, begin with 0")
    port.near.end(now=port.line.now)
    assert port.dump._pages == []


def test_noise_on_the_line_costs_time_and_nothing_else(meter: Meter) -> None:
    port = Port(meter)
    dice = random.Random(3)

    def noise(data: bytes) -> bytes:
        if dice.random() < 0.01:
            place = dice.randrange(len(data))
            return data[:place] + bytes((data[place] ^ 0x55,)) + data[place + 1 :]
        return data

    port.line.noise = noise
    assert port.connect()
    quiet = Port(meter)
    assert quiet.connect()
    assert port.take_dump() == quiet.take_dump()


def test_tool_that_is_pulled_out_has_no_session_any_more_and_comes_back(meter: Meter) -> None:
    port = Port(meter)
    assert port.connect()
    port.near.end(now=port.line.now)
    assert port.station._stack.session_count == 0
    again = Port(meter)
    assert again.connect()


# Who goes first


def test_order_says_who_goes_first_and_shared_serves_both(meter: Meter) -> None:
    for order, is_served in ((Order.SHARED, True), (Order.LOCAL, True), (Order.NETWORK, False)):
        port = Port(meter, order=order)
        assert port.connect()
        port.gate.note_network(port.line.now)
        answer = port.ask(Message.request(Code.GET, SWITCH))
        assert isinstance(answer, Message)
        assert (answer.code == Code.CONTENT) is is_served
        now = port.line.now
        # A local session suspends the network's only where it goes first.
        assert port.gate.may_network(now) is (order is not Order.LOCAL)
        assert port.gate.may_network(now + HOLD_S)
        if not is_served:
            assert answer.code == Code.SERVICE_UNAVAILABLE
            port.line.now += HOLD_S
            served = port.ask(Message.request(Code.GET, SWITCH))
            assert isinstance(served, Message)
            assert served.code == Code.CONTENT
        port.near.end(now=now)
        assert port.gate.may_network(now)
