"""The message exchanges that the RFCs draw, octet by octet, between two endpoints of ours.

The contract under test: what both sides send is what the figures show, in their order, with their
header fields; and where a figure loses a message or a client its memory, it ends as drawn.

Origin: RFC 7252 appendix A, figures 16 to 23 (figure 24 is multicast, which an endpoint has nothing
to do with); RFC 7641 appendix A.1, figures 3 and 4. Header fields, options and payloads are those
of the figures; they were put into octets by hand from RFC 7252 figure 7. Our tokens are two octets
by themselves; here they are made the figures' one.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from amistack.coap.codes import Code
from amistack.coap.endpoint import (
    Endpoint,
    Event,
    ExchangeId,
    Failure,
    ObservationStale,
    RequestFailed,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from tests.coap.bench import GET, WARM
from tests.support.worlds import FixedDice

PATH = "bb74656d7065726174757265"  # Uri-Path: temperature
BODY = "ff32322e332043"  # 22.3 C
OBSERVE = Message.request(Code.GET, "temperature", options=[Option(OptionNumber.OBSERVE, b"")])
OBSERVED_PATH = "605b74656d7065726174757265"  # Observe: 0 (register), Uri-Path: temperature


class Figure:
    """Client and server, with the network between them in the test's hands."""

    def __init__(self, *, client_id: int, token: int, server_id: int = 0xAD7B) -> None:
        self.now = 100.0
        self.client = Endpoint(dice=FixedDice(1))
        self.server = Endpoint(dice=FixedDice(2))
        self.set_client(client_id, token)
        self.server._delivery.conversation("client", now=self.now).next_message_id = server_id
        self.asked: list[ExchangeId] = []
        self.seen: list[Event] = []

    def set_client(self, message_id: int, token: int) -> None:
        self.client._delivery.conversation("server", now=self.now).next_message_id = message_id
        self.client._client._next_token = token

    def ask(self, message: Message = GET, *, is_confirmable: bool = True) -> RequestId:
        return self.client.request(message, "server", now=self.now, is_confirmable=is_confirmable)

    def client_sends(self, octets: str, *, is_lost: bool = False) -> None:
        """The client has that to send, and nothing else; it arrives."""
        assert [data.hex() for _, data in self.client.data_to_send()] == [octets.replace(" ", "")]
        if not is_lost:
            data = bytes.fromhex(octets)
            self.server.receive_datagram(data, "client", now=self.now)
        for event in self.server.events():
            if isinstance(event, RequestReceived):
                self.asked.append(event.exchange)

    def server_sends(self, octets: str, *, is_lost: bool = False) -> None:
        """The server has that to send, and nothing else; it arrives."""
        assert [data.hex() for _, data in self.server.data_to_send()] == [octets.replace(" ", "")]
        if not is_lost:
            data = bytes.fromhex(octets)
            self.client.receive_datagram(data, "server", now=self.now)
        self.seen += self.client.events()

    def answer(self, message: Message = WARM, *, opens_observation: bool = False) -> ExchangeId:
        exchange = self.asked.pop()
        self.server.respond(exchange, message, opens_observation=opens_observation, now=self.now)
        return exchange

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.client.handle_timer(now=self.now)
        self.server.handle_timer(now=self.now)
        self.seen += self.client.events()

    def ends_with(self, *bodies: bytes) -> None:
        assert self.client.data_to_send() == self.server.data_to_send() == []
        assert all(isinstance(event, ResponseReceived) for event in self.seen)
        assert tuple(event.message.payload for event in self.seen) == bodies  # type: ignore[union-attr]
        assert self.client.next_timer() is None
        assert self.client.refused == self.server.refused == {}


@pytest.fixture(autouse=True)
def tokens_of_one_octet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amistack.coap.client.TOKEN_SIZE", 1)


def test_figure_16_confirmable_request_and_piggybacked_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its token is empty: a token of 0 octets, which a client may have once at a time."""
    monkeypatch.setattr("amistack.coap.client.TOKEN_SIZE", 0)
    figure = Figure(client_id=0x7D34, token=0)
    figure.ask()
    figure.client_sends("40017d34" + PATH)
    figure.answer()
    figure.server_sends("60457d34" + BODY)
    figure.ends_with(b"22.3 C")


def test_figure_17_with_a_token() -> None:
    figure = Figure(client_id=0x7D35, token=0x20)
    figure.ask()
    figure.client_sends("41017d35 20" + PATH)
    figure.answer()
    figure.server_sends("61457d35 20" + BODY)
    figure.ends_with(b"22.3 C")


def test_figure_18_request_is_lost_and_sent_again() -> None:
    figure = Figure(client_id=0x7D36, token=0x31)
    figure.ask()
    figure.client_sends("41017d36 31" + PATH, is_lost=True)
    figure.pass_time(2)
    figure.client_sends("41017d36 31" + PATH)
    figure.answer()
    figure.server_sends("61457d36 31" + BODY)
    figure.ends_with(b"22.3 C")


def test_figure_19_response_is_lost_and_the_request_sent_again() -> None:
    figure = Figure(client_id=0x7D37, token=0x42)
    figure.ask()
    figure.client_sends("41017d37 42" + PATH)
    figure.answer()
    figure.server_sends("61457d37 42" + BODY, is_lost=True)
    figure.pass_time(2)
    figure.client_sends("41017d37 42" + PATH)
    assert figure.asked == []  # It was not asked again.
    figure.server_sends("61457d37 42" + BODY)
    figure.ends_with(b"22.3 C")


def test_figure_20_separate_response() -> None:
    figure = Figure(client_id=0x7D38, token=0x53, server_id=0xAD7B)
    figure.ask()
    figure.client_sends("41017d38 53" + PATH)
    figure.pass_time(1)
    figure.server_sends("60007d38")
    figure.pass_time(5)
    figure.answer()
    figure.server_sends("4145ad7b 53" + BODY)
    figure.client_sends("6000ad7b")
    figure.ends_with(b"22.3 C")


def test_figure_21_client_lost_its_memory_and_resets_the_response() -> None:
    figure = Figure(client_id=0x7D39, token=0x64, server_id=0xAD7C)
    figure.ask()
    figure.client_sends("41017d39 64" + PATH)
    figure.pass_time(1)
    figure.server_sends("60007d39")
    figure.client = Endpoint(dice=random.Random(3))
    figure.answer()
    figure.server_sends("4145ad7c 64" + BODY)
    figure.client_sends("7000ad7c")
    assert figure.server.next_timer() is None
    assert (figure.seen, figure.client.refused) == ([], {"response to no request": 1})


def test_figure_22_both_non_confirmable() -> None:
    figure = Figure(client_id=0x7D40, token=0x75, server_id=0xAD7D)
    figure.ask(is_confirmable=False)
    figure.client_sends("51017d40 75" + PATH)
    figure.answer()
    figure.server_sends("5145ad7d 75" + BODY)
    figure.ends_with(b"22.3 C")


def test_figure_23_non_confirmable_request_and_confirmable_response() -> None:
    """Our servers answer in kind; the client takes what the figure's server sends."""
    figure = Figure(client_id=0x7D41, token=0x86)
    figure.ask(is_confirmable=False)
    figure.client_sends("51017d41 86" + PATH)
    figure.client.receive_datagram(bytes.fromhex("4145ad7e86" + BODY), "server", now=figure.now)
    figure.seen += figure.client.events()
    figure.client_sends("6000ad7e")
    figure.server.refused.clear()  # To the figure's server it was an acknowledgement.
    figure.ends_with(b"22.3 C")


def temperature(celsius: str, *options: Option) -> Message:
    return Message.response(
        Code.CONTENT, payload=f"{celsius} Cel".encode(), max_age=15, options=options
    )


CELSIUS = {name: name.encode().hex() + "2043656c" for name in ("18.5", "19.2", "19.7")}
ETAG = Option(OptionNumber.ETAG, bytes.fromhex("78797a7a79"))


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the next notification's number that of a figure, whose server takes its clock."""

    def set_next(number: int) -> None:
        monkeypatch.setattr("amistack.coap.observers._after", lambda _: number)

    return set_next


def test_figures_3_and_4_of_observe_register_notify_lose_and_register_again(
    numbers: Callable[[int], None],
) -> None:
    figure = Figure(client_id=0x1633, token=0x4A, server_id=0x7B50)
    figure.now = 3.0
    first = figure.ask(OBSERVE)
    figure.client_sends("41011633 4a" + OBSERVED_PATH)
    figure.now = 9.0
    numbers(9)
    exchange = figure.answer(temperature("18.5"), opens_observation=True)
    figure.server_sends("61451633 4a 6109 810f ff" + CELSIUS["18.5"])
    figure.now = 16.0
    numbers(16)
    figure.server.notify(exchange, temperature("19.2"), is_confirmable=False, now=figure.now)
    figure.server_sends("51457b50 4a 6110 810f ff" + CELSIUS["19.2"])
    figure.pass_time(9)
    numbers(25)
    figure.server.notify(exchange, temperature("19.7"), is_confirmable=False, now=figure.now)
    figure.server_sends("51457b51 4a 6119 810f ff" + CELSIUS["19.7"], is_lost=True)
    assert figure.client.next_timer() == 16 + 15 + 5  # Max-Age, and the shortest dice.
    figure.pass_time(13)
    assert figure.seen.pop() == ObservationStale(first, "server")
    # The figure's client takes another token.
    figure.client.cancel(first, now=figure.now)
    figure.set_client(0x1634, 0xB2)
    figure.ask(OBSERVE)
    figure.client_sends("41011634 b2" + OBSERVED_PATH)
    figure.now = 44.0
    numbers(44)
    figure.answer(temperature("19.7", ETAG), opens_observation=True)
    figure.server_sends("61451634 b2 4578797a7a79 212c 810f ff" + CELSIUS["19.7"])
    payloads = [
        event.message.payload for event in figure.seen if isinstance(event, ResponseReceived)
    ]
    assert payloads == [b"18.5 Cel", b"19.2 Cel", b"19.7 Cel"]
    assert figure.client.refused == figure.server.refused == {}


def test_registration_under_the_same_token_with_an_etag_may_be_answered_valid() -> None:
    """3.3.1 and 3.3: a 2.03 says that a stored representation is the present one."""
    figure = Figure(client_id=0x1635, token=0xF9)
    asked = figure.ask(OBSERVE)
    figure.client_sends("41011635 f9" + OBSERVED_PATH)
    figure.answer(temperature("19.7", ETAG), opens_observation=True)
    figure.server_sends("61451635 f9 4578797a7a79 2101 810f ff" + CELSIUS["19.7"])
    again = Message.request(Code.GET, "temperature", options=[ETAG])
    figure.client.register_again(asked, again, now=figure.now)
    figure.client_sends("41011636 f9 4578797a7a79 20 5b 74656d7065726174757265")
    valid = Message.response(Code.VALID, max_age=15, options=[ETAG])
    figure.answer(valid, opens_observation=True)
    figure.server_sends("61431636 f9 4578797a7a79 2102 810f")
    last = figure.seen[-1]
    assert isinstance(last, ResponseReceived)
    assert (last.request, last.message.code, last.is_final) == (asked, Code.VALID, False)


def test_a_request_that_no_figure_answers_fails() -> None:
    """Guards the tests above: silence is no success."""
    figure = Figure(client_id=1, token=1)
    request = figure.ask()
    figure.client_sends("41010001 01" + PATH, is_lost=True)
    for _ in range(5):
        figure.pass_time(100)
        figure.client.data_to_send()
    assert figure.seen == [RequestFailed(request, "server", Failure.NO_ACKNOWLEDGEMENT)]
