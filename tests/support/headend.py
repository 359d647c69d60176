"""Values of a head-end's world, made the way meters make them, and small stand-ins that behave."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.model import (
    CONTENT_FORMAT_V1,
    Channel,
    ClockReading,
    ClockState,
    DailyReport,
    FlowDirection,
    IntervalBlock,
    LogEntry,
    Quality,
    ReadAnswer,
    ReadRequest,
    Registration,
    RegistrationReason,
    interval_energy,
    register_energy,
)
from amistack.model.events import PRIMARY_POWER_RESTORED
from amistack.session.fleet import encode_public_key
from headend.domain.asking import NotAnswered, Unreachable
from headend.southbound.ledger import Tally

NOW: Final = 1_795_170_000
"""2026-11-20 09:40 UTC."""
TODAY: Final = NOW // 86_400
YESTERDAY: Final = TODAY - 1
OFFSET_MIN: Final = 60
INTERVAL_S: Final = 900
COUNT: Final = 96


def meter_id(number: int) -> Eui64:
    return Eui64(bytes.fromhex("02004c00") + number.to_bytes(4))


def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    scalar = int.from_bytes(hashlib.sha256(name.encode()).digest())
    return ec.derive_private_key(scalar, ec.SECP256R1())


def public_key(name: str) -> bytes:
    return encode_public_key(private_key(name).public_key())


def channel(
    number: int = 1,
    *,
    flow: FlowDirection = FlowDirection.FORWARD,
    interval_s: int = INTERVAL_S,
) -> Channel:
    return Channel(
        number, interval_energy(interval_s, flow), register_energy(flow), 0, "Wh", interval_s
    )


def registration(
    meter: Eui64,
    *,
    channels: Sequence[Channel] | None = None,
    channel_set: int = 7,
    offset_min: int = OFFSET_MIN,
    versions: tuple[int, ...] = (1,),
) -> Registration:
    return Registration(
        meter,
        versions,
        "meterd 0.1.0",
        channel_set,
        offset_min,
        tuple(
            [channel(1), channel(2, flow=FlowDirection.REVERSE)] if channels is None else channels
        ),
        RegistrationReason.COLD_BOOT,
    )


def block(
    number: int = 1,
    *,
    values: Sequence[int | None] | None = None,
    opening: int = 1_000,
    advance: int | None = None,
    interval_s: int = INTERVAL_S,
    flags: Sequence[Quality] | None = None,
) -> IntervalBlock:
    return IntervalBlock.of(
        list(range(86_400 // interval_s)) if values is None else values,
        channel=number,
        interval_s=interval_s,
        opening=opening,
        advance=advance,
        flags=flags,
    )


def entry(sequence: int = 1, *, detail: str | None = None) -> LogEntry:
    return LogEntry(sequence, NOW - 40_000 + sequence, PRIMARY_POWER_RESTORED, detail)


def report(
    *,
    day: int = YESTERDAY,
    channel_set: int = 7,
    blocks: Sequence[IntervalBlock] | None = None,
    entries: Sequence[LogEntry] = (),
    clock: ClockReading | None = None,
) -> DailyReport:
    return DailyReport(
        channel_set,
        day,
        ClockReading(NOW, ClockState.SET) if clock is None else clock,
        tuple([block()] if blocks is None else blocks),
        tuple(entries),
    )


def post(path: str, payload: bytes) -> Message:
    return Message.request(Code.POST, path, payload=payload, content_format=CONTENT_FORMAT_V1)


async def until(condition: Callable[[], bool], *, deadline_s: float = 5.0) -> None:
    """Let the loop turn until `condition` holds. Raises TimeoutError after `deadline_s`."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110  whatever is waited for has no event
            await asyncio.sleep(0.001)


class TextbookMeters:
    """Meters that answer on-demand reads by the book, to whoever asks: an `Asker`.

    `away` are those never heard, `silent` those that do not answer, `odd` the answers of those
    that do not keep to the book.
    """

    def __init__(self) -> None:
        self.away: set[Eui64] = set()
        self.silent: set[Eui64] = set()
        self.odd: dict[Eui64, Message | NotAnswered] = {}
        self.asked: list[tuple[Eui64, Message, float]] = []
        self.gate: asyncio.Event | None = None

    async def ask(
        self, meter: Eui64, message: Message, *, deadline_s: float
    ) -> tuple[Message, str]:
        self.asked.append((meter, message, deadline_s))
        if meter in self.away:
            raise Unreachable("the meter has not been heard yet")
        if self.gate is not None:
            await self.gate.wait()
        if meter in self.silent:
            raise NotAnswered(f"silent for {deadline_s:g} s", is_timeout=True)
        if meter in self.odd:
            answer = self.odd[meter]
            if isinstance(answer, NotAnswered):
                raise answer
            return answer, self.path_of(meter) or ""
        return content(self.answer(message).encode()), self.path_of(meter) or ""

    def path_of(self, meter: Eui64) -> str | None:
        return None if meter in self.away else "udp:192.0.2.7:5683"

    def answer(self, message: Message) -> ReadAnswer:
        wish = ReadRequest.decode(message.payload)
        since_midnight = IntervalBlock.of(
            [10, None, 30], channel=1, interval_s=INTERVAL_S, opening=2_000, advance=60
        )
        return ReadAnswer(
            wish.identifier,
            7,
            TODAY,
            ClockReading(NOW, ClockState.SET),
            ((1, 2_075), (2, 5)),
            (since_midnight,),
            (entry(9),),
        )


def content(payload: bytes, *, content_format: int | None = CONTENT_FORMAT_V1) -> Message:
    return Message.response(Code.CONTENT, payload=payload, content_format=content_format)


class NoTraffic:
    """A southbound on which nothing ever happens: `Counting`, all zero."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.flagged: dict[str, int] = {}
        self.quarantined: dict[str, int] = {}
        self.depths: dict[str, tuple[int, int]] = {"requests to answer": (0, 4096)}
        self.tallies: dict[str, Tally] = {}
        self.refused_uplinks: dict[tuple[str, str], int] = {}
        self.oldest_pending_s = 0.0
        self.clock_doubt: str | None = None
        self.session_count = 0
        self.stored_records: dict[tuple[str, str], int] = {}
        self.link_counters: dict[str, int] = {}
