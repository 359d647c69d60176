"""What a flood of false message_1 costs the head-end.

What    CPU of the head-end's stack for each spoofed message_1 under load: every one from another
        address, well formed, with a real ephemeral key; a meter joins in the midst of them
Worry   more than 30 us: a thousand such datagrams a second, some 80 kB, would take a tenth of a
        core from the meters; any growth of memory, an answer longer than what it answers, or a
        meter that needs more than 3 tries to join is an error, not a figure
"""

from __future__ import annotations

import gc
import hashlib
import random
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Type
from amistack.coap.message import Message
from amistack.session.credentials import AuthenticationKey
from amistack.session.edhoc import Initiator, ephemeral_from_bytes, prepend_connection_id
from amistack.session.fleet import encode_public_key, meter_credential
from amistack.session.gate import BURST_MAX
from amistack.session.handshakes import (
    CONTENT_FORMAT_CID_EDHOC,
    WELL_KNOWN_EDHOC,
    CredentialWanted,
    SessionProposed,
)
from amistack.stack import Stack
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.fleet import identity_of, key_of, known
from interop.bench.measuring import cpu_us_each

NAME: Final = "edhoc_flood_cpu_us"
GOAL: Final = 30.0
COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 10_000, Size.QUICK: 10_000, Size.TINY: 300}

FLOOD_RATE: Final = 10_000
"""Datagrams in a second of the stack's clock."""
TRY_COUNT_MAX: Final = 3
GROWN_MAX: Final = 1024
"""Octets over a tenth of the flood: what the measuring itself leaves behind."""
KEY_COUNT: Final = 16
"""Ephemeral keys of the flood: it repeats them, as one who wants to be cheap would."""
HEAD_END: Final = ("192.0.2.1", 5683)
METER: Final = ("198.51.100.7", 5683)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one flood did, beside its cost."""

    cpu_us: float
    answer_share_max: float
    grown_octets: int
    try_count: int


def datagrams(count: int) -> list[tuple[bytes, tuple[str, int]]]:
    """So many message_1, each from another address, with another message id and C_I."""
    key = AuthenticationKey(
        key_of("meter"),
        meter_credential(known(0).meter, encode_public_key(key_of("meter").public_key())),
    )
    firsts = []
    for number in range(KEY_COUNT):
        scalar = hashlib.sha256(b"flood" + number.to_bytes(2, "big")).digest()
        initiator = Initiator(key, method=3, suites=(2,), c_i=b"\x05")
        firsts.append(initiator.message_1(ephemeral_from_bytes(2, scalar))[:-1])
    made = []
    for number in range(count):
        c_i = b"\x44" + number.to_bytes(4, "big")
        request = Message.request(
            2,
            WELL_KNOWN_EDHOC,
            payload=prepend_connection_id(None, firsts[number % KEY_COUNT] + c_i),
            content_format=CONTENT_FORMAT_CID_EDHOC,
        )
        octets = request.addressed(
            type=Type.CON, message_id=number & 0xFFFF, token=(number & 0xFFFF).to_bytes(2, "big")
        ).encode()
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        made.append((octets, (address, 40_000 + number % 20_000)))
    return made


class Flood:
    """A head-end's stack, a flood towards it, and one meter that wants to join meanwhile."""

    def __init__(self, count: int) -> None:
        dice = random.Random(8)
        self.head_end = Stack(
            key=identity_of("head-end"), entropy=dice.randbytes, dice=dice, links=()
        )
        meter = key_of("meter")
        self._credential = meter_credential(known(0).meter, encode_public_key(meter.public_key()))
        self._meter = Stack(
            key=AuthenticationKey(meter, self._credential),
            entropy=dice.randbytes,
            dice=dice,
            links=(),
            is_responder=False,
        )
        # Enough to be under load, whatever is measured afterwards.
        self._ahead, self._flood = datagrams(2 * BURST_MAX), datagrams(count)
        self._now = 1000.0
        self._answer_share_max = 0.0
        self.try_count = 0

    def run(self) -> Outcome:
        """The flood, measured; then the meter joins while it goes on."""
        self._pour(self._ahead)
        self._forget_answers()
        tracemalloc.start()
        try:
            # The same twice: what is made once, free lists say, is made by the first.
            before = grown = 0
            for _ in range(2):
                self._pour(self._flood[: len(self._flood) // 10])
                self._forget_answers()
                gc.collect()
                before, grown = grown, tracemalloc.get_traced_memory()[0]
            grown -= before
        finally:
            tracemalloc.stop()
        cpu_us = cpu_us_each(lambda: self._pour(self._flood))
        self._look_at_answers()
        self._join()
        return Outcome(cpu_us, self._answer_share_max, grown, self.try_count)

    def _pour(self, flood: list[tuple[bytes, tuple[str, int]]]) -> int:
        head_end, now = self.head_end, self._now
        step = 1.0 / FLOOD_RATE
        for octets, address in flood:
            now += step
            head_end.receive_datagram(octets, address, now=now)
        self._now = now
        return len(flood)

    def _forget_answers(self) -> None:
        self.head_end.data_to_send()
        self.head_end.events()

    def _look_at_answers(self) -> None:
        asked = {address: len(octets) for octets, address in self._flood}
        for peer, answer in self.head_end.data_to_send():
            size = asked.get(peer)  # type: ignore[call-overload]  # A peer here is an address.
            if size is not None:
                self._answer_share_max = max(self._answer_share_max, len(answer) / size)

    def _join(self) -> None:
        """The meter's handshake, each of its datagrams amid a thousand false ones."""
        self._meter.connect(METER, [identity_of("head-end").credential], c_i=b"\x01", now=self._now)
        for _ in range(2 * TRY_COUNT_MAX):
            self._pour(self._flood[:1000])
            self._forget_answers()
            for _, octets in self._meter.data_to_send():
                self.try_count += b"edhoc" in octets and b"\xff\xf5" in octets
                self.head_end.receive_datagram(octets, METER, now=self._now)
            self._answer_events()
            for peer, octets in self.head_end.data_to_send():
                if peer == METER:
                    self._meter.receive_datagram(octets, METER, now=self._now)
            if any(isinstance(event, SessionProposed) for event in self._meter.events()):
                return
        raise BenchError("the meter did not join under the flood")

    def _answer_events(self) -> None:
        for event in self.head_end.events():
            if isinstance(event, CredentialWanted):
                self.head_end.provide_credential(event, self._credential, now=self._now)
        for event in self.head_end.events():
            if isinstance(event, SessionProposed):
                self.head_end.accept_session(event, b"meter", reserved_until=64, now=self._now)


def measure(size: Size) -> Figure:
    """One flood of the size's length."""
    return flood(COUNTS[size])


def flood(count: int) -> Figure:
    """One flood of so many datagrams.

    Raises BenchError where memory grows, answers do, or the meter stays outside.
    """
    outcome = Flood(count).run()
    if outcome.answer_share_max > 1:
        raise BenchError(f"an answer of {outcome.answer_share_max:.2f} times its question")
    if outcome.try_count > TRY_COUNT_MAX:
        raise BenchError(f"the meter needed {outcome.try_count} tries, at most {TRY_COUNT_MAX}")
    if outcome.grown_octets > GROWN_MAX:
        raise BenchError(f"memory grew by {outcome.grown_octets} octets, at most {GROWN_MAX}")
    return Figure(
        NAME,
        outcome.cpu_us,
        "us",
        None,
        GOAL,
        f"{count} datagrams; memory grew by {outcome.grown_octets} octets in all; answers at most "
        f"{outcome.answer_share_max:.0%} of their questions; the meter joined in "
        f"{outcome.try_count} tries",
    )
