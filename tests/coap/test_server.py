"""The answering side of an endpoint: for every wrong message, what goes out and what is counted.

The contract under test: RFC 7252 sections 4.2, 4.3, 5.2 to 5.4 and 5.10.2, RFC 8974 section 2.2.2.
One table lists the cases; nothing in it is handed up, and nothing of it is left behind.
"""

from __future__ import annotations

import pytest

from amistack.coap.codes import Code, Type, format_code
from amistack.coap.endpoint import Endpoint, Limits, RequestFailed, RequestReceived
from amistack.coap.message import MESSAGE_SIZE_MAX, Message
from amistack.coap.options import UNDERSTOOD, Option, OptionNumber, check_options
from amistack.errors import CoapError
from tests.coap.bench import GET, PEER, WARM, Bench, con, empty, non
from tests.support.worlds import FixedDice

NOTHING = ""
RESET = "RST 0.00 EMPTY"


def request(*options: Option, kind: Type = Type.CON, code: int = Code.GET) -> Message:
    return Message(code, kind, 7, b"t", options)


def response(*options: Option, kind: Type = Type.CON, token: bytes = b"t") -> Message:
    return Message(Code.CONTENT, kind, 7, token, options)


UNKNOWN = Option(2049, b"x")
URI_PORT = Option(OptionNumber.URI_PORT, b"\x16\x33")
BAD_OPTION = "ACK 4.02 BAD_OPTION"
NO_PROXY = "ACK 5.05 PROXYING_NOT_SUPPORTED"

# Case: the octets or the message that comes in, what goes out, what is counted.
CASES: dict[str, tuple[Message | str, str, str | None]] = {
    # Requests, section 5.4.
    "CON, unknown critical option": (request(UNKNOWN), BAD_OPTION, "bad option"),
    "NON, unknown critical option": (request(UNKNOWN, kind=Type.NON), NOTHING, "bad option"),
    "CON, Uri-Port twice": (request(URI_PORT, URI_PORT), BAD_OPTION, "bad option"),
    "NON, Uri-Port twice": (request(URI_PORT, URI_PORT, kind=Type.NON), NOTHING, "bad option"),
    "CON, Accept twice": (request(Option(17, b""), Option(17, b"")), BAD_OPTION, "bad option"),
    "CON, Uri-Host empty": (request(Option(3, b"")), BAD_OPTION, "bad option"),
    "CON, Uri-Host too long": (request(Option(3, bytes(256))), BAD_OPTION, "bad option"),
    "CON, Uri-Path too long": (request(Option(11, bytes(256))), BAD_OPTION, "bad option"),
    "CON, Accept too long": (request(Option(17, bytes(3))), BAD_OPTION, "bad option"),
    "CON, If-Match": (request(Option(1, b"etag")), BAD_OPTION, "bad option"),
    "CON, If-None-Match": (request(Option(5, b"")), BAD_OPTION, "bad option"),
    "CON, Proxy-Uri": (request(Option(35, b"coap://a/b")), NO_PROXY, "bad option"),
    "CON, Proxy-Scheme": (request(Option(39, b"coap")), NO_PROXY, "bad option"),
    "NON, Proxy-Uri": (request(Option(35, b"coap://a"), kind=Type.NON), NOTHING, "bad option"),
    "CON, Proxy-Uri empty": (request(Option(35, b"")), NO_PROXY, "bad option"),
    # Empty messages, sections 4.2 and 4.3.
    "ping": (empty(Type.CON, 7), RESET, None),
    "NON, empty": (empty(Type.NON, 7), NOTHING, "empty message that asks nothing"),
    "CON, empty with a token": ("41000007 74", RESET, "empty message with content"),
    "ACK, empty with a payload": ("60000007 ff00", NOTHING, "empty message with content"),
    # Acknowledgements and resets of nothing.
    "ACK, unknown id": (empty(Type.ACK, 7), NOTHING, "unknown message id"),
    "RST, unknown id": (empty(Type.RST, 7), NOTHING, "unknown message id"),
    "ACK, response to nothing": (response(kind=Type.ACK), NOTHING, "unknown message id"),
    "ACK, request": (request(kind=Type.ACK), NOTHING, "request or response where none may be"),
    "RST, request": (request(kind=Type.RST), NOTHING, "request or response where none may be"),
    "RST, response": (response(kind=Type.RST), NOTHING, "request or response where none may be"),
    # Responses that nobody asked for, sections 4.2, 4.3 and 5.3.2; RFC 7641 3.6.
    "CON, response to nothing": (response(), RESET, "response to no request"),
    "NON, response to nothing": (response(kind=Type.NON), NOTHING, "response to no request"),
    "CON, notification": (response(Option(6, b"\1")), RESET, "response to no request"),
    "NON, notification": (
        response(Option(6, b"\1"), kind=Type.NON),
        RESET,
        "response to no request",
    ),
    # What cannot be read, sections 3, 4.2 and 4.3.
    "CON, class 1": ("40200007", RESET, "reserved code class"),
    "CON, class 3": ("40600007", RESET, "reserved code class"),
    "CON, class 6": ("40c00007", RESET, "reserved code class"),
    "CON, class 7": ("40e00007", RESET, "reserved code class"),
    "NON, class 7": ("50e00007", NOTHING, "reserved code class"),
    "CON, marker without payload": ("40010007 ff", RESET, "payload marker without payload"),
    "NON, marker without payload": ("50010007 ff", NOTHING, "payload marker without payload"),
    "CON, option cut off": ("40010007 b4", RESET, "truncated"),
    "CON, option nibble 15": ("40010007 f0", RESET, "reserved option nibble"),
    "CON, token length 15": ("4f010007" + "00" * 20, RESET, "bad token length"),
    "CON, token cut off": ("44010007 00", RESET, "truncated"),
    "version 2": ("80010007", NOTHING, "unknown version"),
    "three octets": ("400100", NOTHING, "truncated"),
    "CON, too long": ("40010007 ff" + "00" * MESSAGE_SIZE_MAX, RESET, "too long"),
    # RFC 8974 2.2.2: never a reset, which would say that no long token is understood.
    "CON, token of 257": (
        Message(Code.GET, Type.CON, 7, bytes(257)),
        "ACK 4.00 BAD_REQUEST",
        "token too long",
    ),
    "NON, token of 257": (
        Message(Code.GET, Type.NON, 7, bytes(257)),
        "NON 4.00 BAD_REQUEST",
        "token too long",
    ),
    "CON, longest token of all": (
        Message(Code.GET, Type.CON, 7, bytes(MESSAGE_SIZE_MAX - 6)),
        "ACK 4.00 BAD_REQUEST",
        "token too long",
    ),
}


@pytest.mark.parametrize(("incoming", "outgoing", "reason"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_is_answered_and_counted_and_not_handed_up(
    incoming: Message | str, outgoing: str, reason: str | None
) -> None:
    bench = Bench()
    octets = bytes.fromhex(incoming) if isinstance(incoming, str) else incoming.encode()
    bench.receive(octets)
    sent = bench.sent()
    assert [f"{one.type.name} {format_code(one.code)}" for one in sent] == (
        [outgoing] if outgoing else []
    )
    for one in sent:
        assert one.type is Type.NON or one.message_id == 7
        if not one.is_empty and isinstance(incoming, Message):
            assert one.token == incoming.token
    assert bench.events() == []
    assert bench.endpoint.refused == ({} if reason is None else {reason: 1})
    bench.assert_nothing_left()


def test_a_diagnostic_says_which_option_it_was() -> None:
    """5.5.2."""
    bench = Bench()
    bench.receive(request(UNKNOWN))
    assert b"2049" in bench.sent_one().payload


@pytest.mark.parametrize(
    "message",
    [
        request(code=0x1F),
        request(code=0x08),
        request(code=Code.FETCH),
        request(code=Code.PATCH),
        request(code=Code.IPATCH),
        request(Option(2048, b"elective"), Option(2048, b"twice")),
        request(Option(3, b"meter.example"), Option(7, b"\x16\x33")),
        request(Option(4, bytes(9))),
        request(Option(14, bytes(5)), Option(14, b"")),
        request(Option(6, bytes(4))),
        request(Option(11, b"a"), Option(11, b"b"), Option(15, b"c"), Option(15, b"d")),
    ],
    ids=str,
)
def test_what_the_layer_above_has_to_judge_is_handed_up(message: Message) -> None:
    """Unknown methods (5.8), elective options out of their bounds (5.4.3, 5.4.5), Uri-Host."""
    bench = Bench()
    bench.receive(message)
    assert bench.asked().message == message
    assert bench.endpoint.refused == {}


def test_what_is_understood_may_differ_between_resources() -> None:
    """5.4.1: the endpoint lets through what any resource acts on; another refuses it itself."""
    bench = Bench()
    understood = UNDERSTOOD | {OptionNumber.IF_MATCH, OptionNumber.IF_NONE_MATCH}
    bench.endpoint = Endpoint(dice=FixedDice(1), understood=understood)
    message = request(Option(1, b"one"), Option(1, b"two"), Option(5, b""))
    bench.receive(message)
    assert bench.asked().message.option_values(OptionNumber.IF_MATCH) == [b"one", b"two"]
    with pytest.raises(CoapError, match="option 1 is not understood"):
        check_options(message.options)
    bench.receive(Message(Code.GET, Type.CON, 8, b"t", (Option(5, b"x"),)))
    assert bench.sent_one().code == Code.BAD_OPTION


# Responses to requests of ours

UNFIT = {
    "ACK with another token": (Type.ACK, b"other", None, "token of another request"),
    "CON with another token": (Type.CON, b"other", RESET, "response to no request"),
    "NON with another token": (Type.NON, b"other", None, "response to no request"),
    "RST with a response": (Type.RST, None, None, "request or response where none may be"),
}


@pytest.mark.parametrize(("kind", "token", "outgoing", "reason"), UNFIT.values(), ids=UNFIT.keys())
def test_a_response_that_does_not_fit_leaves_the_request_waiting(
    kind: Type, token: bytes | None, outgoing: str | None, reason: str
) -> None:
    """5.3.2."""
    bench = Bench()
    bench.request()
    asked = bench.sent_one()
    token = asked.token if token is None else token
    bench.receive(Message(Code.CONTENT, kind, asked.message_id, token))
    assert [str(one.type.name) for one in bench.sent()] == ([] if outgoing is None else ["RST"])
    assert bench.events() == []
    assert bench.endpoint.refused == {reason: 1}
    assert bench.endpoint.next_timer() is not None


def test_a_non_confirmable_request_cannot_be_acknowledged() -> None:
    """4.3: neither bare nor with a response; the response itself may come in any fit message."""
    bench = Bench()
    bench.request(is_confirmable=False)
    asked = bench.sent_one()
    bench.receive(empty(Type.ACK, asked.message_id))
    bench.receive(WARM.addressed(type=Type.ACK, message_id=asked.message_id, token=asked.token))
    assert bench.events() == []
    assert bench.endpoint.refused == {"acknowledgement of a non-confirmable message": 2}
    bench.receive(WARM.addressed(type=Type.NON, message_id=1, token=asked.token))
    assert len(bench.events()) == 1
    bench.assert_nothing_left()


def test_a_response_in_the_acknowledgement_of_a_separate_response_is_none() -> None:
    bench = Bench()
    bench.receive(con())
    asked = bench.asked()
    bench.wake()
    bench.respond(asked.exchange)
    _, separate = bench.sent()
    bench.receive(WARM.addressed(type=Type.ACK, message_id=separate.message_id, token=b"x"))
    assert bench.endpoint.refused == {"request or response where none may be": 1}
    assert bench.endpoint.next_timer() is not None
    bench.receive(empty(Type.ACK, separate.message_id))
    bench.assert_nothing_left()


@pytest.mark.parametrize(("kind", "outgoing"), [(Type.CON, [Type.RST]), (Type.NON, [])])
def test_the_late_response_to_a_cancelled_request_is_rejected(
    kind: Type, outgoing: list[Type]
) -> None:
    bench = Bench()
    request_ = bench.request()
    asked = bench.sent_one()
    bench.receive(empty(Type.ACK, asked.message_id))
    bench.endpoint.cancel(request_, now=bench.now)
    bench.receive(WARM.addressed(type=kind, message_id=5, token=asked.token))
    assert [one.type for one in bench.sent()] == outgoing
    assert bench.events() == []
    bench.assert_nothing_left()


@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_a_response_after_the_empty_acknowledgement_may_be_of_either_kind(kind: Type) -> None:
    """5.2.2; FETCH, PATCH and iPATCH (RFC 8132) are no different."""
    for code in (Code.GET, Code.FETCH, Code.PATCH, Code.IPATCH):
        bench = Bench()
        bench.request(Message.request(code, "a"))
        asked = bench.sent_one()
        bench.receive(empty(Type.ACK, asked.message_id))
        for answer_code in (Code.CONFLICT,):
            message = Message.response(answer_code)
            bench.receive(message.addressed(type=kind, message_id=5, token=asked.token))
        assert len(bench.events()) == 1
        bench.assert_nothing_left()


def test_a_slow_answer_to_fetch_patch_and_ipatch_is_separate() -> None:
    """RFC 8132 changes nothing about messages."""
    codes = [Code.FETCH, Code.PATCH, Code.IPATCH]
    answers = [Code.CONTENT, Code.CONFLICT, Code.UNPROCESSABLE_ENTITY]
    for method, code in zip(codes, answers, strict=True):
        bench = Bench()
        bench.receive(con(method))
        exchange = bench.asked().exchange
        bench.wake()
        bench.respond(exchange, Message.response(code))
        acknowledgement, separate = bench.sent()
        assert acknowledgement == empty(Type.ACK, 0x7D34)
        assert (separate.type, separate.code) == (Type.CON, code)
        bench.receive(empty(Type.ACK, separate.message_id))
        bench.assert_nothing_left()


# Long tokens


@pytest.mark.parametrize("size", [8, 9, 12, 13, 14, 255, 256])
@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_a_long_token_comes_back_as_it_is(size: int, kind: Type) -> None:
    """RFC 8974 2.1: in every kind of response."""
    token = bytes(range(256))[:size]
    bench = Bench()
    request_ = con(token=token) if kind is Type.CON else non(token=token)
    bench.receive(request_)
    exchange = bench.asked().exchange
    bench.respond(exchange)
    assert bench.sent_one().token == token
    bench.assert_nothing_left()
    if kind is Type.CON:
        bench.receive(request_)
        exchange = bench.asked().exchange
        bench.wake()
        bench.respond(exchange)
        _, separate = bench.sent()
        assert separate.token == token
        bench.receive(empty(Type.ACK, separate.message_id))
        bench.assert_nothing_left()


def test_a_response_with_a_long_token_is_no_answer_of_ours() -> None:
    bench = Bench()
    bench.request()
    asked = bench.sent_one()
    bench.receive(WARM.addressed(type=Type.CON, message_id=4, token=asked.token + bytes(300)))
    assert bench.sent_one() == empty(Type.RST, 4)
    assert bench.events() == []


def test_the_bound_of_tokens_can_be_chosen() -> None:
    bench = Bench(limits=Limits(token_size_max=8))
    bench.receive(con(token=bytes(9)))
    assert bench.sent_one().code == Code.BAD_REQUEST
    bench.receive(con(token=bytes(8), message_id=2))
    bench.asked()


def test_our_own_tokens_are_two_octets() -> None:
    bench = Bench()
    bench.request()
    assert len(bench.sent_one().token) == 2


# How long a message of a peer's may come again


def test_a_peer_on_a_slow_path_is_remembered_longer() -> None:
    """It learns the same times as we do, and repeats for longer than the default."""
    bench = Bench()
    bench.request(hop_count=200)
    path = bench.endpoint._delivery.conversations[PEER].path
    assert path is not None
    assert path.timing.exchange_lifetime > 600
    bench.receive(con())
    asked = [event for event in bench.events() if isinstance(event, RequestReceived)]
    bench.respond(asked[0].exchange)
    bench.now += 600
    bench.endpoint.handle_timer(now=bench.now)
    bench.events()
    bench.receive(con())
    assert bench.events() == []


def test_a_request_that_is_answered_with_a_reset_fails() -> None:
    """Guards the table: it is not only silence that a peer can answer."""
    bench = Bench()
    bench.request(GET)
    bench.receive(empty(Type.RST, bench.sent_one().message_id))
    (event,) = bench.events()
    assert isinstance(event, RequestFailed)
