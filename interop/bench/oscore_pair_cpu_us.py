"""What it costs to open a protected request and to protect its answer.

What    CPU of one request of 300 octets of payload and its answer, from datagram to datagram:
        as the head-end's stack does it: read, the context found among 200,000, verified, answered,
        sealed, written
Limit   the same in straight-line code: two AEAD operations with fresh objects, and the least
        parsing; `interop.bench.bare` says what that is
Worry   a ratio above 1.5, or a figure that grows with the number of contexts: five million meters
        report in a few hours, and this is paid for each
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.message import HEADER, VERSION, Message
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.resources import REPORT
from amistack.session.oscore import (
    AES_CCM_16_64_128,
    ContextTable,
    ReplayWindow,
    SecurityContext,
    protect_request,
)
from amistack.session.oscore.direct import SEALED_CODE, open_request, seal_answer
from interop.bench import bare as bare_code
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.measuring import contest

NAME: Final = "oscore_pair_cpu_us"
GOAL: Final = 1.5
CONTEXT_COUNTS: Final[Mapping[Size, int]] = {
    Size.FULL: 200_000,
    Size.QUICK: 20_000,
    Size.TINY: 50,
}
REQUEST_COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 4_000, Size.QUICK: 4_000, Size.TINY: 20}
REPETITIONS: Final[Mapping[Size, int]] = {Size.FULL: 19, Size.QUICK: 7, Size.TINY: 1}
PAYLOAD_SIZE: Final = 300
ANSWER_SIZE: Final = 12
METER_KID: Final = b"\x05"
ANSWER_CODE: Final = int(Code.CHANGED)
ANSWER_OPTIONS: Final = Message.response(ANSWER_CODE, content_format=CONTENT_FORMAT_V1).options
ACK: Final = VERSION << 6 | Type.ACK << 4


def measure(size: Size) -> Figure:
    """Prepare requests of many meters and open them, by ours and by the bare code in turn."""
    dice = random.Random(1)
    keys = [
        (number.to_bytes(4, "big"), dice.randbytes(16), dice.randbytes(16), dice.randbytes(13))
        for number in range(CONTEXT_COUNTS[size])
    ]
    table = ContextTable()
    contexts = [
        context_of(METER_KID, kid, to_meter, to_head_end, iv)
        for kid, to_head_end, to_meter, iv in keys
    ]
    for context in contexts:
        table.add(context)
    bare_table = bare_code.table_of(contexts)
    payload, answer = dice.randbytes(PAYLOAD_SIZE), dice.randbytes(ANSWER_SIZE)
    meters: dict[int, SecurityContext] = {}

    def requests() -> list[bytes]:
        """Datagrams of meters drawn at random."""
        datagrams = []
        for index in range(REQUEST_COUNTS[size]):
            number = dice.randrange(len(keys))
            kid, to_head_end, to_meter, iv = keys[number]
            if number not in meters:
                meters[number] = context_of(kid, METER_KID, to_head_end, to_meter, iv)
            datagrams.append(request(meters[number], payload, index))
        return datagrams

    def ours() -> Callable[[], int]:
        datagrams = requests()

        def work() -> int:
            for datagram in datagrams:
                answered(datagram, table, answer)
            return len(datagrams)

        return work

    def bare() -> Callable[[], int]:
        datagrams = requests()

        def work() -> int:
            for datagram in datagrams:
                opened = bare_code.open_request(datagram, bare_table)
                bare_code.seal_answer(datagram, opened, answer)
            return len(datagrams)

        return work

    check(request(context_of(*_meter_side(keys[0])), payload, 7), keys[0], payload, answer)
    value, limit = contest(ours, bare, repetitions=REPETITIONS[size])
    return Figure(
        NAME,
        value,
        "us",
        limit,
        GOAL,
        f"{len(keys)} contexts, {REPETITIONS[size]} x {REQUEST_COUNTS[size]} pairs",
    )


Keys = tuple[bytes, bytes, bytes, bytes]
"""Kid, key towards the head-end, key towards the meter, common IV."""


def _meter_side(keys: Keys) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    kid, to_head_end, to_meter, iv = keys
    return kid, METER_KID, to_head_end, to_meter, iv


def context_of(
    sender_id: bytes, recipient_id: bytes, sender_key: bytes, recipient_key: bytes, iv: bytes
) -> SecurityContext:
    """One side's context."""
    return SecurityContext(
        sender_id=sender_id,
        recipient_id=recipient_id,
        id_context=None,
        algorithm=AES_CCM_16_64_128,
        sender_key=sender_key,
        recipient_key=recipient_key,
        common_iv=iv,
        replay_window=ReplayWindow(),
        reserved_until=1 << 20,
    )


def request(context: SecurityContext, payload: bytes, index: int) -> bytes:
    """A meter's report as a datagram."""
    message = Message.request(Code.POST, REPORT, payload=payload, content_format=CONTENT_FORMAT_V1)
    protected, _ = protect_request(context, message)
    message_id = index & 0xFFFF
    return protected.addressed(
        type=Type.CON, message_id=message_id, token=message_id.to_bytes(2, "big")
    ).encode()


def answered(datagram: bytes, table: ContextTable, answer: bytes) -> bytes:
    """What is measured: from the request's octets to the answer's."""
    opened = open_request(datagram, table)
    if opened is None:
        raise BenchError("a request was not opened")
    _, request, binding = opened
    response = Message(ANSWER_CODE, options=ANSWER_OPTIONS, payload=answer)
    body = seal_answer(response, binding)
    if body is None:
        raise BenchError("an answer was not sealed")
    token = request.token
    return HEADER.pack(ACK | len(token), SEALED_CODE, request.message_id) + token + body


def check(datagram: bytes, keys: Keys, payload: bytes, answer: bytes) -> None:
    """Ours and the bare code must do the same work, or their ratio means nothing."""
    kid, to_head_end, to_meter, iv = keys
    head_end = context_of(METER_KID, kid, to_meter, to_head_end, iv)
    table = ContextTable()
    table.add(head_end)
    bare_table = bare_code.table_of([head_end])
    opened = bare_code.open_request(datagram, bare_table)
    if opened[2] != payload or bare_code.seal_answer(datagram, opened, answer) != answered(
        datagram, table, answer
    ):
        raise BenchError("the bare code and ours give different octets")
