"""Block-wise transfer: the option, the sequences of RFC 7959, and both ends on a bad network.

The contract under test: the option's codec is exact and raises nothing but CoapError; client and
server say what the figures of RFC 7959 section 3 say; whatever is lost, comes twice or late, a body
arrives as it was sent or the transfer fails with a typed error, and is never made of two.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import (
    BLOCK_SIZES,
    BlockOption,
    BlockServer,
    Complete,
    Delivered,
    Limits,
    RequestTags,
    Transfer,
    find_block,
    operation_key,
)
from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, uint_value
from amistack.errors import CoapError, LocalProtocolError

CLIENT = "client"
NOW = 1000.0


def body_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# The option


@pytest.mark.parametrize(
    ("octets", "meant"),
    [
        # The two values that RFC 7959 section 3 gives as numbers.
        (bytes((33,)), BlockOption(2, has_more=False, size=32)),
        (bytes((59,)), BlockOption(3, has_more=True, size=128)),
        (b"", BlockOption(0, has_more=False, size=16)),
        (b"\x08", BlockOption(0, has_more=True, size=16)),
        (b"\x0e", BlockOption(0, has_more=True, size=1024)),
        (b"\xff\xff\xfe", BlockOption(0xFFFFF, has_more=True, size=1024)),
    ],
)
def test_known_values_of_the_option(octets: bytes, meant: BlockOption) -> None:
    assert BlockOption.decode(octets) == meant
    assert meant.encode() == octets


def test_block_is_shown_as_in_the_figures() -> None:
    assert str(BlockOption(3, has_more=True, size=128)) == "3/1/128"


@given(st.integers(0, 0xFFFFF), st.booleans(), st.sampled_from(BLOCK_SIZES))
def test_decode_inverts_encode(number: int, has_more: bool, size: int) -> None:
    block = BlockOption(number, has_more, size)
    assert BlockOption.decode(block.encode()) == block
    assert len(block.encode()) <= 3


@given(st.binary(max_size=6))
def test_arbitrary_octets_never_raise_anything_but_coap_error(octets: bytes) -> None:
    if len(octets) > 3 or (octets and octets[-1] & 7 == 7):
        with pytest.raises(CoapError, match=r"bad option|reserved block size"):
            BlockOption.decode(octets)
    else:
        assert BlockOption.decode(octets).encode() == octets.lstrip(b"\0")


@pytest.mark.parametrize(("number", "size"), [(-1, 16), (0x100000, 16), (0, 0), (0, 17), (0, 2048)])
def test_block_that_cannot_be_written_is_refused(number: int, size: int) -> None:
    with pytest.raises(LocalProtocolError):
        BlockOption(number, has_more=False, size=size)


def test_block_option_that_repeats_is_refused_whatever_it_says() -> None:
    twice = [Option(OptionNumber.BLOCK1, b"\x06"), Option(OptionNumber.BLOCK1, b"\x06")]
    with pytest.raises(CoapError, match="bad option"):
        find_block(twice, OptionNumber.BLOCK1)
    assert find_block(twice, OptionNumber.BLOCK2) is None


NOT_IN_THE_KEY = {
    # Elective and NoCacheKey by their number (RFC 7252 section 5.4.6).
    OptionNumber.SIZE1: b"\x10",
    OptionNumber.SIZE2: b"\x10",
    OptionNumber.ECHO: b"echo",
    # Block-wise transfer's own (RFC 9175 section 3.3).
    OptionNumber.BLOCK1: b"\x0e",
    OptionNumber.BLOCK2: b"\x0e",
    # RFC 7641 section 2; RFC 7959 section 2.10.
    OptionNumber.OBSERVE: b"",
    OptionNumber.IF_NONE_MATCH: b"",
}


@pytest.mark.parametrize("number", [int(number) for number in OptionNumber])
def test_every_option_separates_operations_or_does_not(number: int) -> None:
    plain = Message.request(Code.PUT, "a")
    with_it = Message.request(Code.PUT, "a", options=[Option(number, b"\x01")])
    assert (operation_key(plain) == operation_key(with_it)) == (number in NOT_IN_THE_KEY)


def test_absent_empty_and_set_request_tags_are_three_operations() -> None:
    tagged = [
        Message.request(Code.PUT, "a", options=[Option(OptionNumber.REQUEST_TAG, tag)])
        for tag in (b"", b"\0")
    ]
    assert len({operation_key(one) for one in [Message.request(Code.PUT, "a"), *tagged]}) == 3


# The figures


@dataclass(frozen=True)
class Row:
    """One request and its response: their blocks as in the figures, and octets of payload.

    `is_again`: the response was lost, and the same request comes a second time.
    """

    asked: str
    asked_size: int
    code: str
    answered: str
    answered_size: int
    is_again: bool = False


@dataclass(frozen=True)
class Figure:
    """A sequence of RFC 7959 section 3. Sizes that the figure leaves open are chosen here."""

    request: Message
    code: Code
    response_size: int
    rows: list[Row]
    client: dict[str, int | bool] = field(default_factory=dict)
    server_block_size: int = 128
    is_server_atomic: bool = True


GET = Message.request(Code.GET, "status")


def put(size: int) -> Message:
    return Message.request(Code.PUT, "options", payload=body_of(size))


def post(size: int) -> Message:
    return Message.request(Code.POST, "soap", payload=body_of(size))


LATE = [
    Row("", 0, "2.05", "2:0/1/128", 128),
    Row("2:2/0/64", 0, "2.05", "2:2/1/64", 64),
    Row("2:3/0/64", 0, "2.05", "2:3/1/64", 64),
    Row("2:4/0/64", 0, "2.05", "2:4/1/64", 64),
    Row("2:5/0/64", 0, "2.05", "2:5/0/64", 30),
]

FIGURES = {
    "2: simple block-wise GET": Figure(
        GET,
        Code.CONTENT,
        300,
        [
            Row("", 0, "2.05", "2:0/1/128", 128),
            Row("2:1/0/128", 0, "2.05", "2:1/1/128", 128),
            Row("2:2/0/128", 0, "2.05", "2:2/0/128", 44),
        ],
    ),
    "3: block-wise GET with early negotiation": Figure(
        GET,
        Code.CONTENT,
        350,
        [
            Row("2:0/0/64", 0, "2.05", "2:0/1/64", 64),
            Row("2:1/0/64", 0, "2.05", "2:1/1/64", 64),
            Row("2:2/0/64", 0, "2.05", "2:2/1/64", 64),
            Row("2:3/0/64", 0, "2.05", "2:3/1/64", 64),
            Row("2:4/0/64", 0, "2.05", "2:4/1/64", 64),
            Row("2:5/0/64", 0, "2.05", "2:5/0/64", 30),
        ],
        {"response_size": 64, "is_early": True},
    ),
    "4: block-wise GET with late negotiation": Figure(
        GET, Code.CONTENT, 350, LATE, {"response_size": 64}
    ),
    "5: the same with a lost CON": Figure(GET, Code.CONTENT, 350, LATE, {"response_size": 64}),
    "6: the same with a lost ACK": Figure(
        GET,
        Code.CONTENT,
        350,
        [LATE[0], LATE[1], Row("2:2/0/64", 0, "2.05", "2:2/1/64", 64, is_again=True), *LATE[2:]],
        {"response_size": 64},
    ),
    "7: simple atomic block-wise PUT": Figure(
        put(300),
        Code.CHANGED,
        0,
        [
            Row("1:0/1/128", 128, "2.31", "1:0/1/128", 0),
            Row("1:1/1/128", 128, "2.31", "1:1/1/128", 0),
            Row("1:2/0/128", 44, "2.04", "1:2/0/128", 0),
        ],
        {"block_size": 128},
    ),
    "8: simple stateless block-wise PUT": Figure(
        put(300),
        Code.CHANGED,
        0,
        [
            Row("1:0/1/128", 128, "2.04", "1:0/0/128", 0),
            Row("1:1/1/128", 128, "2.04", "1:1/0/128", 0),
            Row("1:2/0/128", 44, "2.04", "1:2/0/128", 0),
        ],
        {"block_size": 128},
        is_server_atomic=False,
    ),
    "9: simple atomic block-wise PUT with negotiation": Figure(
        put(212),
        Code.CHANGED,
        0,
        [
            Row("1:0/1/128", 128, "2.31", "1:0/1/32", 0),
            Row("1:4/1/32", 32, "2.31", "1:4/1/32", 0),
            Row("1:5/1/32", 32, "2.31", "1:5/1/32", 0),
            Row("1:6/0/32", 20, "2.04", "1:6/0/32", 0),
        ],
        {"block_size": 128},
        server_block_size=32,
    ),
    "10: atomic block-wise POST with block-wise response": Figure(
        post(300),
        Code.CHANGED,
        400,
        [
            Row("1:0/1/128", 128, "2.31", "1:0/1/128", 0),
            Row("1:1/1/128", 128, "2.31", "1:1/1/128", 0),
            Row("1:2/0/128", 44, "2.04", "1:2/0/128 2:0/1/128", 128),
            Row("2:1/0/128", 0, "2.04", "2:1/1/128", 128),
            Row("2:2/0/128", 0, "2.04", "2:2/1/128", 128),
            Row("2:3/0/128", 0, "2.04", "2:3/0/128", 16),
        ],
        {"block_size": 128},
    ),
    "11: the same with early negotiation": Figure(
        post(300),
        Code.CHANGED,
        212,
        [
            Row("1:0/1/128", 128, "2.31", "1:0/1/128", 0),
            Row("1:1/1/128", 128, "2.31", "1:1/1/128", 0),
            Row("1:2/0/128 2:0/0/64", 44, "2.04", "1:2/0/128 2:0/1/64", 64),
            Row("2:1/0/64", 0, "2.04", "2:1/1/64", 64),
            Row("2:2/0/64", 0, "2.04", "2:2/1/64", 64),
            Row("2:3/0/64", 0, "2.04", "2:3/0/64", 20),
        ],
        {"block_size": 128, "response_size": 64, "is_early": True},
    ),
}
"""RFC 7959 section 3: options and codes are the figures' own (IETF Trust, for use in code)."""

OBSERVE_FIGURES = {
    "12: Observe sequence with block-wise response": (
        {},
        "2:0/1/128",
        "0/1/128 1/1/128 2/0/128",
    ),
    "13: Observe sequence with early negotiation": (
        {"response_size": 64, "is_early": True},
        "2:0/1/64",
        "0/1/64 1/1/64 2/1/64 3/1/64 4/0/64",
    ),
}


def blocks_of(message: Message) -> str:
    """`1:0/1/128 2:0/0/64`, as the figures have it."""
    found = {
        kind: find_block(message.options, number)
        for kind, number in ((1, OptionNumber.BLOCK1), (2, OptionNumber.BLOCK2))
    }
    return " ".join(f"{kind}:{block}" for kind, block in found.items() if block is not None)


def block_options(text: str) -> list[Option]:
    options = []
    for word in text.split():
        kind, _, block = word.partition(":")
        number, has_more, size = map(int, block.split("/"))
        option = OptionNumber.BLOCK1 if kind == "1" else OptionNumber.BLOCK2
        options.append(Option(option, BlockOption(number, bool(has_more), size).encode()))
    return options


def code_of(text: str) -> int:
    cls, detail = text.split(".")
    return int(cls) << 5 | int(detail)


def offset_of(text: str, kind: str) -> int:
    for word in text.split():
        if word.startswith(kind):
            number, _, size = map(int, word.partition(":")[2].split("/"))
            return number * size
    return 0


@pytest.mark.parametrize("name", FIGURES)
def test_client_says_what_the_figure_says(name: str) -> None:
    figure = FIGURES[name]
    response_body = body_of(figure.response_size, 1)
    transfer = Transfer(figure.request, **figure.client)  # type: ignore[arg-type]
    step: Message | Complete = transfer.first()
    for row in figure.rows:
        if row.is_again:
            continue  # Sent again by the message layer, which this one does not hear of.
        assert isinstance(step, Message)
        assert (blocks_of(step), len(step.payload)) == (row.asked, row.asked_size)
        assert step.code == figure.request.code
        assert step.path == figure.request.path
        start = offset_of(row.answered, "2")
        answer = Message.response(
            code_of(row.code),
            payload=response_body[start : start + row.answered_size],
            options=block_options(row.answered),
        )
        step = transfer.receive(answer)
    assert step == Complete(Message.response(figure.code, payload=response_body))
    assert transfer.is_over


@pytest.mark.parametrize("name", [n for n, figure in FIGURES.items() if figure.is_server_atomic])
def test_server_says_what_the_figure_says(name: str) -> None:
    figure = FIGURES[name]
    server = BlockServer(block_size=figure.server_block_size)
    response = Message.response(figure.code, payload=body_of(figure.response_size, 1))
    delivered_count = 0
    for row in figure.rows:
        start = offset_of(row.asked, "1")
        asked = Message.request(
            figure.request.code,
            figure.request.path,
            payload=figure.request.payload[start : start + row.asked_size],
            options=block_options(row.asked),
        )
        answer = server.receive(CLIENT, asked, now=NOW)
        if isinstance(answer, Delivered):
            delivered_count += 1
            assert answer.request == figure.request
            answer = server.respond(answer, response, now=NOW)
        assert (format_code(answer.code)[:4], blocks_of(answer)) == (row.code, row.answered)
        start = offset_of(row.answered, "2")
        assert answer.payload == response.payload[start : start + row.answered_size]
    assert delivered_count == 1
    assert not server.refused


@pytest.mark.parametrize("name", OBSERVE_FIGURES)
def test_notification_in_blocks_is_collected_as_in_the_figure(name: str) -> None:
    """Figures 12 and 13: the first block comes by itself, the others are asked for.

    Values of Observe and ETag, and the 53 octets of the last block, are the figures' own.
    """
    client, asked, blocks = OBSERVE_FIGURES[name]
    request = Message.request(Code.GET, "status-icon", options=[Option(OptionNumber.OBSERVE, b"")])
    server = BlockServer(block_size=128)
    first = Transfer(request, **client).first()  # type: ignore[arg-type]
    registration = server.receive(CLIENT, first, now=NOW)
    assert isinstance(registration, Delivered)

    collected = []
    for sequence, etag, seed in ((62350, "6f00f38e", 1), (62354, "6f00f392", 2)):
        representation = Message.response(
            Code.CONTENT,
            payload=body_of(256 + 53, seed),
            options=in_order(
                [
                    Option(OptionNumber.OBSERVE, uint_value(sequence)),
                    Option(OptionNumber.ETAG, bytes.fromhex(etag)),
                ]
            ),
        )
        # The registration waits for the notifications; the same words answer both.
        step: Message | Complete = server.respond(registration, representation, now=NOW)
        assert isinstance(step, Message)
        assert blocks_of(step) == asked
        assert step.option(OptionNumber.OBSERVE) == uint_value(sequence)
        seen = [blocks_of(step)[2:]]
        transfer = Transfer(request, **client)  # type: ignore[arg-type]
        while not isinstance(step := transfer.receive(step), Complete):
            assert step.option(OptionNumber.OBSERVE) is None
            answer = server.receive(CLIENT, step, now=NOW)
            assert isinstance(answer, Message)
            assert answer.option(OptionNumber.OBSERVE) is None
            assert answer.option(OptionNumber.ETAG) == bytes.fromhex(etag)
            step = answer
            seen.append(blocks_of(step)[2:])
        assert " ".join(seen) == blocks
        assert step.response == representation
        collected.append(step.response)
    assert len(collected) == 2


# Both ends


def exchange(
    transfer: Transfer, server: BlockServer, resource: Resource, *, now: float = NOW
) -> Message:
    """Client and server on a perfect network."""
    step: Message | Complete = transfer.first()
    while isinstance(step, Message):
        answer = server.receive(CLIENT, step, now=now)
        if isinstance(answer, Delivered):
            answer = server.respond(answer, resource.answer(answer.request), now=now)
        step = transfer.receive(answer)
    return step.response


class Resource:
    """Answers with what it was asked, turned around, or with what it is now."""

    def __init__(self, representations: list[bytes]) -> None:
        self.representations = representations
        self.version = 0
        self.bodies: list[bytes] = []

    def answer(self, request: Message) -> Message:
        self.bodies.append(request.payload)
        if request.code == Code.GET:
            return Message.response(Code.CONTENT, payload=self.representations[self.version])
        if request.code == Code.PUT:
            return Message.response(Code.CHANGED)
        return Message.response(
            Code.CONTENT if request.code == Code.FETCH else Code.CHANGED,
            payload=request.payload[::-1],
        )


bodies = st.builds(body_of, st.integers(0, 5000), st.integers(0, 99))
sizes = st.sampled_from(BLOCK_SIZES)
methods = st.sampled_from([Code.GET, Code.PUT, Code.POST, Code.FETCH])


@settings(deadline=None)
@given(methods, bodies, sizes, sizes, sizes, st.booleans())
def test_any_body_arrives_with_any_pair_of_sizes(
    method: Code, body: bytes, ours: int, asked: int, theirs: int, is_early: bool
) -> None:
    resource = Resource([body])
    server = BlockServer(block_size=theirs)
    request = Message.request(method, "a/b", payload=b"" if method == Code.GET else body)
    transfer = Transfer(request, block_size=ours, response_size=asked, is_early=is_early)
    response = exchange(transfer, server, resource)
    expected = resource.answer(request)
    assert resource.bodies == [request.payload] * 2
    assert (response.code, response.payload) == (expected.code, expected.payload)
    assert not server.refused
    # Nothing of the request is left; the response is kept for as long as it may be asked for.
    assert server.depths["bodies under way"] == (0, Limits().bodies_max)
    server.handle_timer(now=NOW + Limits().lifetime)
    assert server.next_timer() is None
    assert all(depth == 0 for depth, _ in server.depths.values())


TRIES_MAX = 4
STEPS_MAX = 4000


@dataclass
class Operation:
    """One transfer of the client, with the one request that it waits for."""

    request: Message
    transfer: Transfer
    token: bytes = b""
    waiting: Message | None = None
    tries: int = 0
    outcome: Message | CoapError | None = None


class Network:
    """A client with several operations at once, a server, and a channel that keeps no order.

    Nothing below sorts out repetitions, so that no tag may serve twice. Whatever chance there is
    comes from `dice`.
    """

    def __init__(self, dice: random.Random, server: BlockServer, resource: Resource) -> None:
        self.dice = dice
        self.server = server
        self.resource = resource
        self.now = NOW
        self.tags = RequestTags(can_recycle=False)
        self.to_server: list[Message] = []
        self.to_client: list[Message] = []
        self.operations: list[Operation] = []
        self.token_count = 0

    def start(self, request: Message, **more: int | bool) -> None:
        transfer = Transfer(request, peer="server", tags=self.tags, **more)  # type: ignore[arg-type]
        operation = Operation(request, transfer)
        self.operations.append(operation)
        self.ask(operation, transfer.first())

    def ask(self, operation: Operation, message: Message) -> None:
        self.token_count += 1
        operation.token = self.token_count.to_bytes(3, "big")
        operation.tries = 0
        operation.waiting = message.addressed(
            type=message.type, message_id=0, token=operation.token
        )
        self.send(operation)

    def send(self, operation: Operation) -> None:
        assert operation.waiting is not None
        if operation.tries == TRIES_MAX:
            operation.transfer.abandon()
            operation.waiting = None
            return
        operation.tries += 1
        self.to_server.append(operation.waiting)

    def take(self, queue: list[Message]) -> Message | None:
        """A message from anywhere in the queue: lost, left there for another time, or neither."""
        message = queue.pop(self.dice.randrange(len(queue)))
        fate = self.dice.random()
        if fate < 0.05:
            return None
        if fate < 0.25:
            queue.append(message)
        return message

    def step(self) -> None:
        self.now += 0.1
        if self.dice.random() < 0.1:
            self.resource.version = self.dice.randrange(len(self.resource.representations))
        waiting = [one for one in self.operations if one.waiting is not None]
        if not self.to_server and not self.to_client:
            for operation in waiting:
                self.send(operation)
            return
        if self.to_server and (not self.to_client or self.dice.random() < 0.5):
            request = self.take(self.to_server)
            if request is None:
                return
            answer = self.server.receive(CLIENT, request, now=self.now)
            if isinstance(answer, Delivered):
                response = self.resource.answer(answer.request)
                answer = self.server.respond(answer, response, now=self.now)
            self.to_client.append(
                answer.addressed(type=answer.type, message_id=0, token=request.token)
            )
            return
        response_ = self.take(self.to_client)
        for operation in waiting:
            if response_ is not None and operation.token == response_.token:
                self.hear(operation, response_)

    def hear(self, operation: Operation, response: Message) -> None:
        operation.waiting = None
        try:
            step = operation.transfer.receive(response)
        except CoapError as error:
            operation.outcome = error
            return
        if isinstance(step, Complete):
            operation.outcome = step.response
        else:
            self.ask(operation, step)

    def run(self) -> None:
        for _ in range(STEPS_MAX):
            if not any(one.waiting is not None for one in self.operations):
                return
            self.step()
        raise AssertionError("transfers without an end")


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, 1 << 32),
    st.lists(st.tuples(methods, st.integers(0, 2000), sizes), min_size=1, max_size=4),
    st.sampled_from(BLOCK_SIZES[2:5]),
    st.booleans(),
    st.booleans(),
)
def test_body_arrives_whole_or_the_transfer_fails_and_bodies_never_mix(
    seed: int,
    operations: list[tuple[Code, int, int]],
    theirs: int,
    is_early: bool,
    is_forgetful: bool,
) -> None:
    dice = random.Random(seed)
    representations = [dice.randbytes(dice.randrange(300, 900)) for _ in range(3)]
    limits = Limits(responses_max=0) if is_forgetful else Limits(bodies_of_peer_max=2)
    resource = Resource(representations)
    network = Network(dice, BlockServer(limits=limits, block_size=theirs), resource)
    for method, size, ours in operations:
        payload = b"" if method == Code.GET else dice.randbytes(size)
        request = Message.request(method, "a", payload=payload)
        network.start(request, block_size=max(ours, 64), is_early=is_early)
    network.run()

    sent = {one.request.payload for one in network.operations}
    assert set(resource.bodies) <= sent
    for one in network.operations:
        outcome = one.outcome
        if not isinstance(outcome, Message) or outcome.code >= Code.BAD_REQUEST:
            continue  # Given up, or failed as it should.
        if one.request.code == Code.GET:
            assert outcome.payload in representations
        else:
            assert one.request.payload in resource.bodies
            expected = b"" if one.request.code == Code.PUT else one.request.payload[::-1]
            assert outcome.payload == expected
    assert len(network.tags) == 0


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 8), st.integers(0, 9), st.integers(0, 99)),
        min_size=1,
        max_size=6,
    )
)
def test_client_that_forgets_what_it_said_is_followed_and_bodies_never_mix(
    attempts: list[tuple[int, int, int, int]],
) -> None:
    """One that restarts knows no tags: each body comes under the absent one, and begins alike.

    Each may break off, and each of its blocks may come again while it is under way.
    """
    server = BlockServer()
    resource = Resource([])
    sent: list[bytes] = []
    for alike, count, broken_off_after, repeated in attempts:
        body = body_of(16 * alike) + body_of(16 * count, 1 + len(sent))
        sent.append(body)
        transfer = Transfer(Message.request(Code.PUT, "a", payload=body), block_size=16)
        step: Message | Complete = transfer.first()
        said: list[Message] = []
        for _ in range(broken_off_after + 1):
            assert isinstance(step, Message)
            said.append(step)
            answer = server.receive(CLIENT, step, now=NOW)
            if isinstance(answer, Delivered):
                answer = server.respond(answer, resource.answer(answer.request), now=NOW)
            step = transfer.receive(answer)
            if isinstance(step, Complete):
                assert step.response.code == Code.CHANGED
                assert resource.bodies[-1] == body
                break
            server.receive(CLIENT, said[repeated % len(said)], now=NOW)
    assert set(resource.bodies) <= set(sent)
    assert not server.refused


@settings(deadline=None)
@given(bodies, sizes, st.lists(st.integers(0, 400), max_size=6))
def test_repeated_block_is_answered_again_and_changes_nothing(
    body: bytes, size: int, repeated: list[int]
) -> None:
    """Any earlier block may come again at any time, and the last one after the end as well."""
    server = BlockServer()
    resource = Resource([b""])
    transfer = Transfer(Message.request(Code.POST, "a", payload=body), block_size=size)
    said: list[tuple[Message, Message]] = []
    step: Message | Complete = transfer.first()
    while isinstance(step, Message):
        answer = server.receive(CLIENT, step, now=NOW)
        if isinstance(answer, Delivered):
            answer = server.respond(answer, resource.answer(answer.request), now=NOW)
        block = find_block(step.options, OptionNumber.BLOCK1)
        if block is not None and (block.has_more or block.number):
            said.append((step, answer))
            if not block.has_more:
                assert server.receive(CLIENT, step, now=NOW) == answer
            for index in repeated if block.has_more else ():
                earlier, answered = said[index % len(said)]
                assert server.receive(CLIENT, earlier, now=NOW) == answered
        step = transfer.receive(answer)
    assert step.response.payload == body[::-1]
    assert resource.bodies == [body]
    assert not server.refused
