"""Two stacks with one session: bodies of any length and observed states over a foul network.

One asks and observes, the other answers, tells states and asks as well. The input says what they
do, and which datagrams are lost, come twice, or overtake others.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

from amistack.coap.blockwise import BLOCK_SIZE_MAX
from amistack.coap.codes import Code, is_success
from amistack.coap.endpoint import ExchangeId
from amistack.coap.message import Message
from amistack.coap.observe import REGISTER, with_observe
from amistack.errors import LocalProtocolError, TableFull
from amistack.machine import Peer
from amistack.session.oscore import SecurityContext
from amistack.stack import (
    NumbersWanted,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    Stack,
)
from interop.fuzz.target import Outcome, Reader, Target, Trail, promise, refusal
from interop.fuzz.targets.honest import HEAD_END_KEY, METER_KEY
from interop.fuzz.targets.oscore import CLIENT_ID, SERVER_ID, born

ASKER: Final[Peer] = b"asker"
TELLER: Final[Peer] = b"teller"
DELAY_S: Final = 0.05
IDENTITY: Final = b"the other"
NUMBERS: Final = 4
"""Sender sequence numbers that a session begins with: few, so that they run out."""
STEP_COUNT_MAX: Final = 10
TURN_COUNT_MAX: Final = 3_000
CALM_S: Final = 600.0
SIZES: Final = (0, 5, BLOCK_SIZE_MAX - 4, BLOCK_SIZE_MAX + 1, 2 * BLOCK_SIZE_MAX + 9)
STATE: Final = "state"


@functools.lru_cache(maxsize=8)
def _derived(generation: int, *, is_asker: bool) -> SecurityContext:
    ids = (SERVER_ID, CLIENT_ID) if is_asker else (CLIENT_ID, SERVER_ID)
    return SecurityContext.derive(
        master_secret=b"a secret of some",
        master_salt=b"salt %d" % generation,
        sender_id=ids[0],
        recipient_id=ids[1],
    )


class _Party:
    """A stack and its program, which answers whatever it is asked."""

    def __init__(self, address: Peer, other: Peer, trail: Trail, *, is_asker: bool) -> None:
        self.address = address
        self.other = other
        self.is_asker = is_asker
        self.trail = trail
        self.stack = Stack(
            key=HEAD_END_KEY if is_asker else METER_KEY,
            entropy=random.Random(repr(address)).randbytes,
            dice=random.Random(repr(address)),
            links=(),
            is_responder=is_asker,
        )
        self.asked: dict[RequestId, bytes] = {}
        self.over: set[RequestId] = set()
        self.delivered: Counter[bytes] = Counter()
        self.observing: dict[RequestId, bytes | None] = {}
        """What each observation brought last."""
        self.stale: set[RequestId] = set()
        self.observers: list[ExchangeId] = []
        self.states: list[bytes] = [b"0"]

    def collect(self, now: float) -> list[bytes]:
        """Take every event up, and give what goes to the other."""
        while events := self.stack.events():
            for event in events:
                self.trail.note((self.is_asker, type(event).__name__))
                self._take(event, now)
        return [octets for _, octets in self.stack.data_to_send()]

    def _take(self, event: object, now: float) -> None:
        match event:
            case NumbersWanted():
                self.stack.numbers_reserved(event.recipient_id, event.until, now=now)
            case SecureRequest():
                self._answer(event, now)
            case SecureResponse():
                self._take_response(event)
            case RequestFailed():
                self.conclude(event.request)
            case ObservationStale():
                promise(event.request in self.observing, "stale, and nothing is observed")
                self.stale.add(event.request)
            case ObservationEnded():
                self.observers.remove(event.exchange)
            case _:
                pass

    def _answer(self, event: SecureRequest, now: float) -> None:
        message = event.message
        if message.path == STATE:
            answer = Message.response(Code.CONTENT, payload=self.states[-1])
        else:
            self.delivered[message.payload] += 1
            answer = Message.response(Code.CHANGED, payload=b"re " + message.payload)
        is_opened = self.stack.respond(
            event.exchange, answer, is_durable=True, opens_observation=True, now=now
        )
        if is_opened:
            self.observers.append(event.exchange)

    def _take_response(self, event: SecureResponse) -> None:
        request, payload = event.request, event.message.payload
        promise(request in self.asked and request not in self.over, "an event after the end")
        if request in self.observing:
            if is_success(event.message.code):
                self.observing[request] = payload
                self.stale.discard(request)
        elif is_success(event.message.code):
            promise(payload == b"re " + self.asked[request], "an answer to something else")
        if event.is_final:
            self.conclude(request)

    def conclude(self, request: RequestId) -> None:
        """No event names that request any more."""
        promise(request in self.asked and request not in self.over, "a request ends twice")
        self.over.add(request)
        self.observing.pop(request, None)
        self.stale.discard(request)


class _Play:
    """Both, and the network between them."""

    def __init__(self) -> None:
        self.trail = Trail()
        self.asker = _Party(ASKER, TELLER, self.trail, is_asker=True)
        self.teller = _Party(TELLER, ASKER, self.trail, is_asker=False)
        self.parties = (self.asker, self.teller)
        self.now = 0.0
        self.flying: list[tuple[float, _Party, bytes]] = []
        self.body_count = 0
        self.generation = -1
        self._new_session()

    def step(self, reader: Reader) -> None:
        """One operation, as the input has it."""
        operation = reader.below(12)
        try:
            match operation:
                case 0 | 1:
                    self._ask(self.parties[operation], reader)
                case 2:
                    self._observe()
                case 3 | 4:
                    self._tell(reader, is_last=operation == 4 and reader.below(4) == 0)
                case 5:
                    self._leave(reader)
                case 6:
                    self._lose(reader)
                case 7:
                    self._double(reader)
                case 8:
                    self._swap(reader)
                case 9 | 10:
                    self._elapse(0.05 * (1 << reader.below(12)))
                case _:
                    if reader.below(4) == 0:
                        self._new_session()
        except (LocalProtocolError, TableFull) as error:
            self.trail.note(refusal(error))
        self._collect()

    # What the programs do

    def _ask(self, party: _Party, reader: Reader) -> None:
        self.body_count += 1
        body = b"%03d " % self.body_count + self._filler(reader)
        identity = IDENTITY
        message = Message.request(Code.POST, "rep", payload=body)
        party.asked[party.stack.request(identity, message, party.other, now=self.now)] = body

    def _filler(self, reader: Reader) -> bytes:
        return bytes((0x40 + self.body_count % 32,)) * SIZES[reader.below(len(SIZES))]

    def _observe(self) -> None:
        asker = self.asker
        message = with_observe(Message.request(Code.FETCH, STATE, payload=b"which"), REGISTER)
        identity = IDENTITY
        request = asker.stack.request(identity, message, asker.other, now=self.now)
        asker.asked[request] = b""
        asker.observing[request] = None

    def _tell(self, reader: Reader, *, is_last: bool) -> None:
        teller = self.teller
        self.body_count += 1
        state = b"%03d " % self.body_count + self._filler(reader)
        teller.states.append(state)
        message = Message.response(Code.CONTENT, payload=state)
        for exchange in tuple(teller.observers):
            teller.stack.notify(exchange, message, is_last=is_last, now=self.now)
            if is_last and exchange in teller.observers:
                teller.observers.remove(exchange)

    def _leave(self, reader: Reader) -> None:
        asker = self.asker
        head = reader.octet()
        if not asker.observing:
            return
        request = list(asker.observing)[(head >> 1) % len(asker.observing)]
        if head & 1:
            asker.stack.deregister(request, now=self.now)
        else:
            asker.stack.cancel(request, now=self.now)
            asker.conclude(request)

    def _new_session(self) -> None:
        self.generation += 1
        for party in self.parties:
            context = _derived(self.generation, is_asker=party.is_asker)
            context = born(context, reserved=NUMBERS)
            party.stack.add_session(IDENTITY, context)

    # What the network does

    def _pick(self, reader: Reader) -> int | None:
        return reader.below(len(self.flying)) if self.flying else None

    def _lose(self, reader: Reader) -> None:
        if (at := self._pick(reader)) is not None:
            del self.flying[at]

    def _double(self, reader: Reader) -> None:
        if (at := self._pick(reader)) is not None:
            _, party, octets = self.flying[at]
            self.flying.append((self.now + 0.1 * reader.octet(), party, octets))

    def _swap(self, reader: Reader) -> None:
        """One is late."""
        if (at := self._pick(reader)) is not None:
            due, party, octets = self.flying[at]
            self.flying[at] = (due + 0.1 * reader.octet(), party, octets)

    def _elapse(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(TURN_COUNT_MAX):
            times = [due for due, _, _ in self.flying]
            times += [due for one in self.parties if (due := one.stack.next_timer()) is not None]
            due = min(times, default=end)
            if due >= end:
                self.now = end
                return
            self.now = max(self.now, due)
            arrived = [one for one in self.flying if one[0] <= self.now]
            self.flying = [one for one in self.flying if one[0] > self.now]
            for _, party, octets in arrived:
                party.stack.receive_datagram(octets, party.other, now=self.now)
                self._collect_from(party)
            for party in self.parties:
                if (timer := party.stack.next_timer()) is not None and timer <= self.now:
                    party.stack.handle_timer(now=self.now)
                    self._collect_from(party)
        promise(False, "the machines never come to rest")  # noqa: FBT003

    def _collect(self) -> None:
        for party in self.parties:
            self._collect_from(party)
            for name, (depth, bound) in party.stack.depths.items():
                promise(0 <= depth <= bound, f"{name}: {depth}, at most {bound}")

    def _collect_from(self, party: _Party) -> None:
        other = self.teller if party.is_asker else self.asker
        self.flying += [(self.now + DELAY_S, other, octets) for octets in party.collect(self.now)]

    # What must be true in the end

    def calm_down(self) -> None:
        """Nothing is lost any more: all ends, and whoever observes has the state, or knows less."""
        self._elapse(CALM_S)
        asker, teller = self.asker, self.teller
        for party, other in ((asker, teller), (teller, asker)):
            told = set(other.asked.values())
            promise(set(party.delivered) <= told, "a body that nobody sent")
            promise(max(party.delivered.values(), default=0) <= 1, "a body twice")
            rest = set(party.asked) - party.over - set(party.observing)
            promise(not rest, "a request without an end")
        for request, state in asker.observing.items():
            promise(state is None or state in teller.states, "a state that was never told")
            promise(
                state == teller.states[-1] or request in asker.stale,
                "an observer whose state is old and who was not told so",
            )
        promise(len(teller.observers) <= len(asker.asked), "more observers than registrations")
        for request in tuple(asker.observing):
            asker.stack.cancel(request, now=self.now)
            asker.conclude(request)
        self._collect()
        if not teller.observers:
            return
        teller.states.append(b"the end")
        for exchange in tuple(teller.observers):
            teller.stack.notify(
                exchange, Message.response(Code.CONTENT, payload=b"the end"), now=self.now
            )
        self._collect()
        self._elapse(CALM_S)
        promise(not teller.observers, "an observer that nobody is")

    def expect_rest(self) -> None:
        """No table keeps what is over."""
        for party in self.parties:
            for name, (depth, _) in party.stack.depths.items():
                promise(depth == 0 or name == "messages remembered", f"{name}: {depth} at rest")


def run_pair(data: bytes) -> Outcome:
    """Operations, until the input is over."""
    reader = Reader(data)
    play = _Play()
    for _ in range(STEP_COUNT_MAX):
        if reader.is_spent:
            break
        play.step(reader)
    play.calm_down()
    play.expect_rest()
    for party in play.parties:
        for reason in party.stack.refused:
            play.trail.note((party.is_asker, reason))
    return play.trail.outcome


def pair_seeds() -> Sequence[bytes]:
    """Conversations that go well, and each fault once."""
    wait = b"\x09\x05"
    every = [b"\x00" + bytes((size,)) + wait for size in range(len(SIZES))]
    every += [b"\x01" + bytes((size,)) + wait for size in range(len(SIZES))]
    for size in range(len(SIZES)):
        tell = b"\x03" + bytes((size,))
        every += [
            b"\x02" + wait + tell + wait + tell + wait,
            b"\x02" + wait + tell + b"\x06\x00" + b"\x09\x09",
            b"\x02" + wait + tell + b"\x07\x00\x20" + tell + b"\x09\x08",
            b"\x02" + wait + tell + b"\x08\x00\x40" + b"\x09\x01" + tell + b"\x09\x08",
            b"\x02" + wait + tell + b"\x09\x01" + tell + b"\x09\x01" + tell,
        ]
    every += [
        b"\x02" + wait + b"\x05\x01" + wait,
        b"\x02" + wait + b"\x05\x00" + b"\x03\x02" + wait,
        b"\x02" + wait + b"\x04\x00\x04" + wait,
        b"\x00\x05" + b"\x09\x01" + b"\x0b\x00" + wait,
        b"\x02" + wait + b"\x0b\x00" + b"\x03\x00" + wait,
    ]
    return every


_TOKENS: Final = (b"\x02\x09\x05", b"\x03\x04", b"\x06\x00", b"\x09\x01", b"\x09\x08", b"\x0a\x0b")

TARGETS: Final = (
    Target(
        "stack_pair",
        "two stacks and a foul network: bodies whole and once, states told or known to be old",
        run_pair,
        pair_seeds,
        _TOKENS,
        size_max=30,
    ),
)
