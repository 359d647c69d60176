"""Block-wise transfer: honest clients, a server, and a network that loses, repeats and invents."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from amistack.coap.blockwise import (
    BlockOption,
    BlockServer,
    Delivered,
    Limits,
    RequestTags,
    Transfer,
    find_block,
)
from amistack.coap.codes import Code
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import AmiError, CoapError, LocalProtocolError, TableFull
from amistack.machine import Peer
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal

HONEST: Final[Peer] = "honest"
STRANGER: Final[Peer] = "stranger"
STEP_COUNT_MAX: Final = 18
BODY_SIZE_MAX: Final = 200
LIMITS: Final = Limits(
    body_size_max=BODY_SIZE_MAX,
    bodies_max=3,
    bodies_of_peer_max=2,
    body_octets_max=500,
    body_octets_of_peer_max=300,
    responses_max=3,
    responses_of_peer_max=2,
    response_octets_max=500,
    response_octets_of_peer_max=300,
    lifetime=60.0,
)
"""So small that every bound is reached."""
MISLEADING: Final = (
    Code.CONTENT,
    Code.CONTINUE,
    Code.REQUEST_ENTITY_INCOMPLETE,
    Code.REQUEST_ENTITY_TOO_LARGE,
    Code.CHANGED,
    Code.NOT_FOUND,
)
SIZES: Final = (16, 32, 64, 1024)


@functools.lru_cache(maxsize=1024)
def _octets(what: str, size: int) -> bytes:
    return hashlib.shake_128(what.encode()).digest(size)


@dataclass(slots=True)
class _Operation:
    """One transfer of the honest client, and the request that it waits for an answer to."""

    transfer: Transfer
    body: bytes
    asked: Message | None
    past: list[Message] = field(default_factory=list)


class _Play:
    """A client with some transfers, a server with a resource that changes, and a clock."""

    def __init__(self) -> None:
        self.server = BlockServer(limits=LIMITS, block_size=32)
        # What came once may come again: then no tag is used twice.
        self.tags = RequestTags(count_max=3, can_recycle=False)
        self.operations: list[_Operation] = []
        self.answers: set[bytes] = set()
        self.version = 0
        self.answer_size = 70
        self.now = 0.0
        self.trail = Trail()

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        match operation := reader.below(12):
            case 0 | 1:
                self._begin(reader)
            case 2 | 3 | 4 | 5:
                self._exchange(reader, is_lost=False)
            case 6:
                self._exchange(reader, is_lost=True)
            case 7:
                self._repeat(reader)
            case 8:
                self._intrude(reader)
            case 9:
                self._mislead(reader)
            case 10:
                self.version += 1
                self.answer_size = reader.octet()
            case _:
                self.now += reader.octet()
                self.server.handle_timer(now=self.now)
                due = self.server.next_timer()
                promise(due is None or due > self.now, "an alarm that was heard is still due")
        self.trail.note(operation)
        for name, (depth, bound) in self.server.depths.items():
            promise(0 <= depth <= bound, f"{name}: {depth}, at most {bound}")

    def _begin(self, reader: Reader) -> None:
        if len(self.operations) > 8:
            return
        head, size = reader.octet(), reader.octet()
        body = _octets(f"body {len(self.operations)}", size)
        request = Message.request(
            Code.FETCH if head & 1 else Code.PUT, "x" if head & 2 else "y", payload=body
        )
        try:
            transfer = Transfer(
                request,
                peer="server",
                tags=self.tags,
                block_size=SIZES[head >> 2 & 3],
                response_size=SIZES[head >> 4 & 3],
                is_early=bool(head & 0x40),
                body_size_max=BODY_SIZE_MAX,
            )
            self.operations.append(_Operation(transfer, body, transfer.first()))
        except (LocalProtocolError, TableFull) as error:
            self.trail.note(refusal(error))

    def _chosen(self, reader: Reader) -> _Operation | None:
        under_way = [one for one in self.operations if one.asked is not None]
        return under_way[reader.below(len(under_way))] if under_way else None

    def _exchange(self, reader: Reader, *, is_lost: bool) -> None:
        """The next request of a transfer reaches the server; its response is lost, or is not."""
        one = self._chosen(reader)
        if one is None or one.asked is None:
            return
        request = one.asked
        one.past.append(request)
        response = self._serve(request, HONEST)
        if is_lost:
            one.transfer.abandon()
            one.asked = None
            return
        self._hear(one, response)

    def _hear(self, one: _Operation, response: Message, *, is_honest: bool = True) -> None:
        try:
            step = one.transfer.receive(response)
        except CoapError as error:
            promise(one.transfer.is_over, "a transfer that failed is over")
            one.asked = None
            self.trail.note(refusal(error))
            return
        if isinstance(step, Message):
            step.encode()
            one.asked = step
            return
        promise(one.transfer.is_over, "complete, and not over")
        one.asked = None
        self.trail.note(("complete", step.response.code))
        promise(len(step.response.payload) <= BODY_SIZE_MAX, "a body beyond the bound")
        if is_honest and step.response.code == Code.CONTENT:
            promise(step.response.payload in self.answers, "a response made of two")

    def _serve(self, request: Message, peer: Peer) -> Message:
        outcome = self.server.receive(peer, request, now=self.now)
        if isinstance(outcome, Message):
            outcome.encode()
            self.trail.note((outcome.code, "by itself"))
            return outcome
        promise(isinstance(outcome, Delivered), "neither an answer nor a request")
        whole = outcome.request
        promise(find_block(whole.options, OptionNumber.BLOCK1) is None, "a block was handed up")
        if peer == HONEST:
            bodies = {one.body for one in self.operations}
            promise(whole.payload in bodies, "a request made of two, or of a part")
        answer = _octets(f"answer {self.version} to {whole.payload.hex()}", self.answer_size)
        self.answers.add(answer)
        try:
            response = self.server.respond(
                outcome, Message.response(Code.CONTENT, payload=answer), now=self.now
            )
        except LocalProtocolError as error:
            self.trail.note(refusal(error))
            return Message.response(Code.INTERNAL_SERVER_ERROR)
        response.encode()
        return response

    def _repeat(self, reader: Reader) -> None:
        """A request that came once comes again; nobody waits for what is said to it."""
        if self.operations:
            one = self.operations[reader.below(len(self.operations))]
            if one.past:
                self._serve(one.past[reader.below(len(one.past))], HONEST)

    def _intrude(self, reader: Reader) -> None:
        """A stranger's request, with any blocks at all."""
        self._serve(_strange(reader, Code.PUT if reader.below(2) else Code.FETCH), STRANGER)

    def _mislead(self, reader: Reader) -> None:
        """A response of a server that does not keep to the rules."""
        one = self._chosen(reader)
        if one is None:
            return
        response = _strange(reader, MISLEADING[reader.below(len(MISLEADING))])
        self._hear(one, response, is_honest=False)
        # What it makes of that is nobody's business: it goes on by itself, or is over.
        one.transfer.abandon()
        one.asked = None


def _strange(reader: Reader, code: int) -> Message:
    options: list[Option] = []
    head = reader.octet()
    for bit, number in enumerate((OptionNumber.BLOCK1, OptionNumber.BLOCK2)):
        if head >> bit & 1:
            options.append(Option(number, reader.take(reader.below(5))))
        if head >> bit + 2 & 1:
            options.append(
                Option(number, BlockOption(reader.below(5), bool(head & 0x40), 16).encode())
            )
    for bit, number in enumerate((OptionNumber.SIZE1, OptionNumber.ETAG)):
        if head >> bit + 4 & 1:
            options.append(Option(number, reader.take(2)))
    return Message(code, options=in_order(options), payload=_octets("strange", reader.octet() & 63))


def run_blockwise(data: bytes) -> Outcome:
    """Operations: transfers, losses, repetitions, strangers, false servers, time."""
    reader = Reader(data)
    play = _Play()
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    for one in play.operations:
        one.transfer.abandon()
    promise(len(play.tags) == 0, "a tag is kept for an operation that is over")
    for reason in play.server.refused:
        play.trail.note(reason)
    return play.trail.outcome


def run_block_option(data: bytes) -> Outcome:
    """The value of a Block option."""
    try:
        block = BlockOption.decode(data)
    except AmiError as error:
        return refusal(error)
    promise(BlockOption.decode(block.encode()) == block, "a block is read otherwise")
    promise(block.encode() == data.lstrip(b"\x00"), "a block has one shortest form")
    return block.size, block.has_more, block.number > 0


def blockwise_seeds() -> Sequence[bytes]:
    """Transfers that go well, and every operation by itself."""
    small, large, fetch = b"\x00\x00\x05", b"\x00\x00\x60", b"\x00\x05\x50"
    go = b"\x02\x00"
    return [
        small + go * 6,
        large + go * 12,
        fetch + go * 12,
        b"\x00\x41\x20" + go * 8,
        large + large + (b"\x02\x00\x02\x01") * 8,
        large + go * 2 + b"\x06\x00" + large + go * 9 + b"\x07\x00\x00\x07\x00\x01",
        small + go + b"\x0a\x78" + go * 3 + small + go * 5,
        large + go + b"\x0b\x50" + go * 5,
        *(b"\x08\x01" + bytes((head, 3, 1, 2, 4, 0)) for head in (0x04, 0x08, 0x4C, 0x15)),
        *(large + go + b"\x09\x00" + bytes((code, 0x04, code, 9)) for code in range(6)),
    ]


TARGETS: Final = (
    Target(
        "block_option",
        "a Block option is refused by CoapError, or is read again as the same",
        run_block_option,
        lambda: [b"", b"\x06", b"\x0e", b"\x01\x5a", b"\xff\xff\xf6", b"\x07", b"\x00\x06"],
        size_max=8,
    ),
    Target(
        "coap_blockwise",
        "block-wise transfers: bounded, and no body ever made of parts of two",
        run_blockwise,
        blockwise_seeds,
        (b"\x02\x00", b"\x00\x00\x60", b"\x07\x00\x00", b"\x06\x00", b"\x0a\x78"),
        size_max=64,
    ),
)
