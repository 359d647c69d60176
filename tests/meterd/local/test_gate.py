"""Who goes first: a field tool, the network, or both at once.

The contract under test: the side that goes first silences the other for HOLD_S after its last sign
of life, and no longer; recording never waits; a meter that stops serves nobody.
"""

from __future__ import annotations

import pytest

from amistack.errors import ConfigError
from meterd.local.gate import HOLD_S, Gate, Order, Yielding
from meterd.local.settings import LocalSettings

KEY = "02" + "11" * 32


class Conversation:
    """A datagram machine that says what it is told to."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.words: list[tuple[object, bytes]] = []
        self.woken: list[float] = []

    def receive_datagram(self, data: bytes, peer: object, *, now: float) -> None:
        self.heard.append(data)

    def handle_timer(self, *, now: float) -> None:
        self.woken.append(now)

    def data_to_send(self) -> list[tuple[object, bytes]]:
        words, self.words = self.words, []
        return words

    def events(self) -> list[str]:
        return ["event"]

    def next_timer(self) -> float | None:
        return 7.0


@pytest.mark.parametrize(
    ("order", "may_network", "may_local"),
    [
        (Order.LOCAL, False, True),
        (Order.NETWORK, True, False),
        (Order.SHARED, True, True),
    ],
)
def test_side_that_goes_first_silences_the_other_for_so_long_and_no_longer(
    order: Order, may_network: bool, may_local: bool
) -> None:
    gate = Gate(order)
    assert gate.may_network(100.0)
    assert gate.may_local(100.0)
    gate.note_local(100.0)
    gate.note_network(100.0)
    for now in (100.0, 100.0 + HOLD_S - 0.001):
        assert (gate.may_network(now), gate.may_local(now)) == (may_network, may_local)
    assert gate.may_network(100.0 + HOLD_S)
    assert gate.may_local(100.0 + HOLD_S)


def test_tool_that_has_gone_holds_nobody_back() -> None:
    gate = Gate(Order.LOCAL)
    gate.note_local(100.0)
    gate.end_local()
    assert gate.may_network(100.0)


def test_meter_that_stops_serves_no_tool() -> None:
    gate = Gate(Order.SHARED)
    gate.close()
    assert not gate.may_local(0.0)
    assert gate.may_network(0.0)


def test_conversation_falls_silent_while_a_tool_goes_first_and_is_woken_all_the_same() -> None:
    inner, gate = Conversation(), Gate(Order.LOCAL)
    machine = Yielding(inner, gate)  # type: ignore[arg-type]  # of its shape
    machine.receive_datagram(b"one", "peer", now=1.0)
    gate.note_local(2.0)
    machine.receive_datagram(b"two", "peer", now=3.0)
    machine.handle_timer(now=4.0)
    inner.words = [("peer", b"three")]
    assert machine.data_to_send() == []
    assert (inner.heard, inner.woken) == ([b"one"], [4.0])
    assert sum(machine.counters.values()) == 2
    machine.handle_timer(now=2.0 + HOLD_S)
    inner.words = [("peer", b"four")]
    assert machine.data_to_send() == [("peer", b"four")]
    assert (list(machine.events()), machine.next_timer()) == (["event"], 7.0)


def test_network_that_is_heard_holds_a_tool_back() -> None:
    gate = Gate(Order.NETWORK)
    machine = Yielding(Conversation(), gate)  # type: ignore[arg-type]  # as above
    machine.receive_datagram(b"one", "peer", now=1.0)
    assert not gate.may_local(1.0 + HOLD_S - 0.001)
    assert gate.may_local(1.0 + HOLD_S)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"programmers": (KEY,)}, "device or listen"),
        ({"device": "x", "listen": "y", "programmers": (KEY,)}, "device or listen"),
        ({"device": "x"}, "no tool may come in"),
        ({"device": "x", "programmers": (KEY,), "order": "first"}, "expected shared, local"),
        ({"device": "x", "programmers": (KEY,), "baud_rate": 0}, "baud_rate"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LocalSettings(**given)  # type: ignore[arg-type]  # as they may be written
