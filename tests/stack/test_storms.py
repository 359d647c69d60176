"""Everything at once: bodies in blocks, observations, new sessions, restarts, and an attacker.

The contract under test, for every seed: whatever somebody on the way drops, holds back, reorders,
sends again, changes or invents, and whenever either side dies and comes back with its disk or with
an old copy of it, no nonce of a key covers two plaintexts; what a program commits was said by its
peer, whole, and is committed at most once; what it is answered belongs to what it asked; observed
states never go back; every request ends; nothing but what is documented escapes; and at rest
nothing is under way.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from amistack.coap.codes import Code
from amistack.coap.endpoint import ExchangeId, Limits
from amistack.coap.message import Message, in_order
from amistack.coap.observe import REGISTER, with_observe
from amistack.coap.options import Option, OptionNumber, uint_value
from amistack.errors import CoapError, LocalProtocolError, TableFull
from amistack.machine import Peer
from amistack.stack import (
    Event,
    ObservationEnded,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
)
from tests.session.oscore_support import RecordingCipher
from tests.stack.parties import (
    CONTENT,
    HEAD_END_NAME,
    METER,
    Disk,
    Party,
    Street,
    leaks,
)
from tests.support.worlds import PERFECT, LinkQuality, World

METER_AT, HEAD_END_AT = Street.METER_AT, Street.HEAD_END_AT
SEEDS: Final = range(90)
OPERATION_COUNT: Final = 80
SIZES: Final = (0, 5, 400, 1024, 1100, 2048, 3000)
OPERATIONS: Final = {
    "ask": 10,
    "observe": 5,
    "tell": 9,
    "leave": 2,
    "forget an observer": 1,
    "commit": 16,
    "refuse": 2,
    "join": 1,
    "be slow": 1,
    "grant": 2,
    "restart": 2,
    "end the session": 0.5,
    "back up": 1,
    "put back": 1,
}
LOST_NUMBERS: Final = 5_000
"""By how many numbers a restored backup goes on higher: more than a storm can use."""


class Program:
    """What a party does in a storm, and what became of it."""

    def __init__(self, party: Party, identity: bytes, peer: Peer) -> None:
        self.party, self.identity, self.peer = party, identity, peer
        assert party.host is not None
        party.host.on_event = self.on_event
        self.asked: dict[RequestId, bytes] = {}
        self.observing: dict[RequestId, bytes] = {}
        self.ended: set[RequestId] = set()
        self.said: set[bytes] = set()
        self.told_count = 0
        self.heard: dict[RequestId, int] = {}
        self.pending: list[SecureRequest] = []
        self.committed: list[bytes] = []
        self.delivered: list[bytes] = []
        self.backup = Disk()
        self.backed_up_count = 0
        self.lost: set[bytes] = set()
        self.doubtful: set[bytes] = set()
        self.lost_count = 0

    def on_event(self, event: Event) -> None:
        match event:
            case SecureRequest():
                if event.message.code == Code.POST:
                    self.delivered.append(event.message.payload)
                self.pending.append(event)
            case SecureResponse(is_final=False):
                self.hear(event)
            case SecureResponse():
                if event.request in self.asked:
                    expected = (b"re " + self.asked[event.request], b"refused")
                    assert event.message.payload in expected or not is_success(event.message)
                self.end(event.request)
            case RequestFailed():
                self.end(event.request)
            case ObservationEnded():
                if event.exchange in self.party.observers:
                    self.party.observers.remove(event.exchange)
            case _:
                self.party.on_event(event)

    def hear(self, event: SecureResponse) -> None:
        assert event.request in self.observing, "a state for who never asked"
        assert event.request not in self.ended
        payload = event.message.payload
        if payload.startswith(b"state "):
            number = int(payload.split()[1])
            assert number > self.heard.get(event.request, 0), "an older state after a newer one"
            self.heard[event.request] = number

    def end(self, request: RequestId) -> None:
        assert request in self.asked.keys() | self.observing.keys(), "the end of what never began"
        assert request not in self.ended, "ended twice"
        self.ended.add(request)

    # What it may do

    def ask(self, dice: random.Random) -> None:
        name = b"%s %d " % (self.party.name.encode(), len(self.said))
        payload = name + bytes((65 + len(self.said) % 26,)) * dice.choice(SIZES)
        self.said.add(payload)
        message = Message.request(Code.POST, "rep", payload=payload, content_format=CONTENT)
        request = self.party.stack.request(self.identity, message, self.peer, now=self.party.now)
        self.asked[request] = payload

    def observe(self, dice: random.Random) -> None:
        payload = b"q" * dice.choice(SIZES)
        message = Message.request(Code.FETCH, "state", payload=payload, content_format=CONTENT)
        request = self.party.stack.request(
            self.identity, with_observe(message, REGISTER), self.peer, now=self.party.now
        )
        self.observing[request] = payload

    def tell(self, dice: random.Random) -> None:
        if not self.party.observers:
            return
        exchange = dice.choice(self.party.observers)
        self.told_count += 1
        payload = b"state %d " % self.told_count + b"s" * dice.choice(SIZES)
        is_last = dice.random() < 0.1
        state = Message.response(Code.CONTENT, payload=payload, content_format=CONTENT)
        if is_last:
            self.party.observers.remove(exchange)
        self.party.stack.notify(
            exchange,
            state,
            is_confirmable=dice.choice([None, True, False]),
            is_last=is_last,
            now=self.party.now,
        )

    def leave(self, dice: random.Random) -> None:
        open_ones = [one for one in (*self.asked, *self.observing) if one not in self.ended]
        if not open_ones:
            return
        request = dice.choice(open_ones)
        if request in self.observing and dice.random() < 0.5:
            self.party.stack.deregister(request, now=self.party.now)
        else:
            self.ended.add(request)
            self.party.stack.cancel(request, now=self.party.now)

    def forget_observer(self, dice: random.Random) -> None:
        if self.party.observers:
            exchange = self.party.observers.pop(dice.randrange(len(self.party.observers)))
            self.party.stack.end_observation(exchange, now=self.party.now)

    def commit(self, count: int, *, is_durable: bool = True) -> None:
        """Store what came, in its order, and answer it."""
        done, self.pending = self.pending[:count], self.pending[count:]
        for event in done:
            if is_durable:
                self.party.disk.keep_window(event.recipient_id, event.window)
                self.doubtful.discard(event.recipient_id)
                if event.message.code == Code.POST:
                    # Its sender may repeat what was never answered, and then it says that it does.
                    is_proven = event.message.option(OptionNumber.ECHO) is not None
                    assert is_proven or event.message.payload not in self.lost, "said before"
                    self.committed.append(event.message.payload)
            self.answer(event, is_durable=is_durable)

    def answer(self, event: SecureRequest, *, is_durable: bool) -> None:
        payload = b"re " + event.message.payload if is_durable else b"refused"
        code = Code.CONTENT if event.message.code == Code.FETCH else Code.CHANGED
        try:
            opened = self.party.stack.respond(
                event.exchange,
                Message.response(code, payload=payload, content_format=CONTENT),
                is_durable=is_durable,
                opens_observation=True,
                now=self.party.now,
            )
        except (LocalProtocolError, TableFull):
            return
        if opened:
            self.party.observers.append(event.exchange)

    def join(self, dice: random.Random) -> None:
        self.party.connect(
            self.peer, c_i=bytes((dice.randrange(24),)), is_combining=dice.random() < 0.5
        )

    def die(self) -> None:
        self.pending.clear()
        self.asked.clear()
        self.observing.clear()
        self.ended.clear()
        self.heard.clear()
        self.party.observers.clear()

    def restart(self) -> None:
        self.die()
        party = self.party
        party.stack = party._born()
        for identity, saved in party.disk.sessions.items():
            is_doubtful = saved.parameters.recipient_id in self.doubtful
            party.stack.add_session(identity, saved.restored(), is_window_doubtful=is_doubtful)
        assert party.host is not None
        party.host.machine = party.stack
        party.host.settle()

    def back_up(self) -> None:
        self.backup = copy.deepcopy(self.party.disk)
        self.backed_up_count = len(self.committed)

    def put_back(self) -> None:
        """Come back with an old disk, and know that: the numbers go on far above."""
        party = self.party
        self.lost_count += 1
        self.lost.update(self.committed[self.backed_up_count :])
        del self.committed[self.backed_up_count :]
        party.disk = copy.deepcopy(self.backup)
        for saved in party.disk.sessions.values():
            saved.reserved_until += LOST_NUMBERS * self.lost_count
            self.doubtful.add(saved.parameters.recipient_id)
        self.restart()


def is_success(message: Message) -> bool:
    return message.code >> 5 == 2


class Foe:
    """Somebody on the way: sees all, holds back, drops, changes, invents."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(f"foe {seed}")
        self.held: list[tuple[Peer, Peer, bytes]] = []
        self.seen: list[tuple[Peer, Peer, bytes]] = []
        self.greed = self.dice.choice([0.0, 0.05, 0.2])
        world.passes = self.passes

    def passes(self, sender: Peer, receiver: Peer, datagram: bytes) -> bool:
        if len(datagram) >= 4 and len(self.seen) < 4_000:
            self.seen.append((sender, receiver, datagram))
        if self.dice.random() < self.greed:
            self.held.append((sender, receiver, datagram))
            return False
        return True

    def act(self) -> None:
        dice = self.dice
        if self.held and dice.random() < 0.5:
            sender, receiver, datagram = self.held.pop(dice.randrange(len(self.held)))
            if dice.random() < 0.5:
                datagram = datagram[:2] + dice.randbytes(2) + datagram[4:]
            self.put_in(sender, receiver, datagram)
            return
        if not self.seen:
            return
        # What is young is the more dangerous.
        recent = self.seen[-12:] if dice.random() < 0.7 else self.seen
        sender, receiver, datagram = dice.choice(recent)
        if dice.random() < 0.2:
            sender, receiver = receiver, sender
        self.put_in(sender, receiver, self.changed(datagram, dice.choice(self.seen)[2]))

    def remind(self, receiver: Peer) -> None:
        """Say again what was said to one that has just come back, and may have forgotten it."""
        said = [one for one in self.seen if one[1] == receiver and 0 < one[2][1] < 0x20][-8:]
        for sender, _, datagram in self.dice.sample(said, len(said) // 2):
            self.put_in(sender, receiver, datagram[:2] + self.dice.randbytes(2) + datagram[4:])

    def put_in(self, sender: Peer, receiver: Peer, datagram: bytes) -> None:
        greed, self.greed = self.greed, 0.0
        self.world.send(sender, receiver, datagram)
        self.greed = greed

    def changed(self, datagram: bytes, other: bytes) -> bytes:
        dice = self.dice
        octets = bytearray(datagram)
        match dice.randrange(10):
            case 0 | 1 | 2:
                octets[2:4] = dice.randbytes(2)
            case 3:
                position = dice.randrange(8 * len(octets))
                octets[position // 8] ^= 1 << position % 8
            case 4:
                del octets[dice.randrange(len(octets)) :]
            case 5:
                octets[4:] = other[4:]
            case 6:
                octets[0] = octets[0] & 0xCF | dice.randrange(4) << 4
            case 7:
                return bytes((0x40 | dice.randrange(2, 4) << 4, 0)) + datagram[2:4]
            case 8:
                return self.with_option(datagram)
        return bytes(octets)

    def with_option(self, datagram: bytes) -> bytes:
        """The same with an option outside that proves nothing, and an id of its own."""
        dice = self.dice
        try:
            message = Message.decode(datagram)
        except CoapError:
            return datagram
        if message.is_empty:
            return datagram
        number = dice.choice(
            [OptionNumber.OBSERVE, OptionNumber.BLOCK1, OptionNumber.BLOCK2, OptionNumber.ECHO,
             OptionNumber.EDHOC, OptionNumber.MAX_AGE, OptionNumber.URI_HOST]
        )  # fmt: skip
        options = [one for one in message.options if one.number != number]
        if dice.random() < 0.8:
            options.append(Option(number, uint_value(dice.choice([0, 1, 8, 300, 70_000]))))
        return Message(
            message.code, message.type, dice.randrange(1 << 16), message.token,
            in_order(options), message.payload,
        ).encode()  # fmt: skip


class Storm:
    """One history, by its seed."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(f"storm {seed}")
        quality = dice.choice(
            [PERFECT, LinkQuality(0.1, 0.1, 0.01, 1.0), LinkQuality(0.25, 0.2, 0.01, 6.0)]
        )
        limits = Limits(
            nstart=dice.choice([1, 2, 4]),
            backlog_max=dice.choice([1, 8]),
            observers_per_peer_max=dice.choice([1, 3]),
            incoming_max=dice.choice([3, 4_096]),
        )
        self.world = World(seed, quality)
        self.street = Street(self.world, seed=seed, limits=limits, block=dice.choice([0, 1, 5, 64]))
        self.up = Program(self.street.meter, HEAD_END_NAME, HEAD_END_AT)
        self.down = Program(self.street.head_end, METER, METER_AT)
        self.foe = Foe(self.world, seed) if seed % 5 else None

    def run(self, count: int) -> None:
        self.up.join(self.dice)
        self.world.elapse(20)
        for _ in range(count):
            self.act()
            for program in (self.up, self.down):
                program.party.settle()
            for _ in range(self.dice.randrange(3)):
                if self.foe is not None:
                    self.foe.act()
            self.world.elapse(self.dice.choice([0.0, 0.0, 0.02, 0.02, 0.3, 0.3, 3.0, 3.0, 20.0]))
            if self.dice.random() < 0.4 and not self.is_joined:
                self.attempt(self.up.join)

    @property
    def is_joined(self) -> bool:
        """Whether both sides have the same session."""
        ours = self.up.party.stack.session_of(HEAD_END_NAME)
        theirs = self.down.party.stack.session_of(METER)
        return ours is not None and theirs is not None and ours.sender_id == theirs.recipient_id

    def act(self) -> None:
        """One of many things, by the weights of OPERATIONS."""
        program = self.dice.choice([self.up, self.down])
        name = self.dice.choices(tuple(OPERATIONS), tuple(OPERATIONS.values()))[0]
        match name:
            case "ask" | "observe" | "tell" | "leave" | "forget an observer":
                self.attempt(getattr(program, name.replace(" an ", "_")))
            case "commit":
                program.commit(self.dice.randrange(1, 4))
            case "refuse":
                program.commit(1, is_durable=False)
            case "join":
                self.attempt(self.up.join)
            case "be slow":
                program.party.grants_numbers = not program.party.grants_numbers
                self.grant(program)
            case "grant":
                self.grant(program)
            case "restart":
                program.restart()
                self.remind(program)
            case "end the session":
                program.party.stack.remove_session(program.identity)
                program.party.disk.sessions.pop(program.identity, None)
            case "back up":
                program.back_up()
            case "put back":
                if program.backup.sessions:
                    program.put_back()
                    self.remind(program)

    def remind(self, program: Program) -> None:
        if self.foe is not None and program.party.host is not None:
            self.foe.remind(program.party.host.address)

    def attempt(self, operation: Callable[[random.Random], None]) -> None:
        """Do it if it is possible now."""
        with contextlib.suppress(LocalProtocolError, TableFull):
            operation(self.dice)

    def grant(self, program: Program) -> None:
        for wanted in program.party.wanted[-2:]:
            program.party.grant(wanted)

    def calm_down(self) -> None:
        """Nobody asks any more; all that was asked ends, and so do the observations."""
        self.world.passes = None
        self.world.quality = PERFECT
        for program in (self.up, self.down):
            program.party.grants_numbers = True
            self.grant(program)
            program.party.settle()
        for _ in range(4):
            for program in (self.up, self.down):
                program.commit(len(program.pending))
                program.party.settle()
            self.world.elapse(200)
        for program in (self.up, self.down):
            unended = [one for one in program.asked if one not in program.ended]
            assert not unended, "a request that never ends"
            for request in [one for one in program.observing if one not in program.ended]:
                program.party.stack.cancel(request, now=self.world.now)
                program.ended.add(request)
            for exchange in tuple(program.party.observers):
                self.end(program, exchange)
            program.party.settle()
        for _ in range(2):
            for program in (self.up, self.down):
                program.commit(len(program.pending))
                program.party.settle()
            self.world.elapse(300)
        self.street.calm_down()

    def end(self, program: Program, exchange: ExchangeId) -> None:
        program.party.observers.remove(exchange)
        program.party.stack.end_observation(exchange, now=self.world.now)

    def judge(self) -> None:
        for program, other in ((self.up, self.down), (self.down, self.up)):
            assert set(program.delivered) <= other.said, "delivered and never said"
            assert set(program.committed) <= set(program.delivered)
            twice = [one for one, count in Counter(program.committed).items() if count > 1]
            assert not twice, "committed twice"
            left = leaks(program.party.stack)
            left.pop("_unsaid", None)  # It waits for a first request, which never came.
            assert left == {}, program.party.name


def weather(seed: int, count: int = OPERATION_COUNT) -> Storm:
    record = RecordingCipher()
    with pytest.MonkeyPatch.context() as patch:
        record.watch(patch)
        storm = Storm(seed)
        storm.run(count)
        storm.calm_down()
    storm.judge()
    seen = {(key, nonce) for key, nonce, _, _ in record.used}
    assert len(seen) == len(record.used), "one nonce for two encryptions"
    return storm


@pytest.mark.parametrize("block", range(0, len(SEEDS), 15))
def test_no_storm_breaks_a_promise(block: int) -> None:
    for seed in SEEDS[block : block + 15]:
        weather(seed)
