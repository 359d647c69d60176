"""Whole conversations in bad networks, with an attacker on the way.

The contract under test, for every seed: what a program is given was said by its peer, and at most
once; in the end there is a session and every request is answered, however often its sender had to
ask; at rest nothing is under way; one seed is one history.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest

from amistack.coap.codes import Type
from amistack.coap.message import Message
from amistack.errors import LocalProtocolError, TableFull
from amistack.machine import Peer
from amistack.session.handshakes import SessionProposed
from amistack.stack import HandshakeFailed, RequestFailed, SecureResponse
from tests.stack.parties import HEAD_END_NAME, METER, Party, Street, question
from tests.support.worlds import BAD, PERFECT, LinkQuality, World

HEAD_END_AT, METER_AT = Street.HEAD_END_AT, Street.METER_AT
REQUEST_COUNT = 4
DAY = 86_400.0
SEEDS = range(200)


class Asker:
    """What a program does: ask, ask again when nothing authentic came, join when it must.

    A payload is never used for two attempts, so a payload that comes twice was delivered twice.
    """

    def __init__(self, street: Street, party: Party, identity: bytes, peer: Peer) -> None:
        self.street, self.party, self.identity, self.peer = street, party, identity, peer
        self.asked: dict[object, bytes] = {}
        self.said: set[bytes] = set()
        self.answers: list[tuple[bytes, bytes]] = []
        self.owed = list(range(REQUEST_COUNT))
        self.attempt_count = 0
        self.join_count = 0
        self.is_joining = False

    def act(self) -> None:
        if not self.owed or self.asked or self.is_joining:
            return
        if self.party.stack.session_of(self.identity) is None:
            if not self.party.is_responder:
                self.join()
            return
        self.attempt_count += 1
        payload = b"%s %d %d" % (self.party.name.encode(), self.owed[0], self.attempt_count)
        try:
            request = self.party.stack.request(
                self.identity, question(payload), self.peer, now=self.street.world.now
            )
        except (LocalProtocolError, TableFull):
            return
        self.asked[request] = payload
        self.said.add(payload)

    def join(self) -> None:
        if self.is_joining:
            return
        self.is_joining = True
        self.join_count += 1
        self.party.stack.connect(
            self.peer,
            tuple(self.party.known.values()),
            c_i=bytes((self.join_count % 24,)),
            now=self.street.world.now,
        )

    def on_event(self, event: object) -> None:
        self.party.on_event(event)  # type: ignore[arg-type]  # The stack's own event.
        if isinstance(event, SecureResponse):
            payload = self.asked.pop(event.request)
            self.answers.append((payload, event.message.payload))
            self.owed.pop(0)
        elif isinstance(event, SessionProposed | HandshakeFailed):
            self.is_joining = False
        elif isinstance(event, RequestFailed):
            del self.asked[event.request]
            if event.code == 0x81 and not self.party.is_responder:
                self.join()


class Attacker:
    """Records all that passes; sends it again, changed or not, from and to whoever it likes."""

    def __init__(self, world: World, seed: int, *, period: float = 40.0) -> None:
        self.world, self.period = world, period
        self.dice = random.Random(f"attacker {seed}")
        self.sent_count = 0

    def act(self) -> None:
        seen = [passage for passage in self.world.datagrams() if passage.datagram]
        if not seen:
            return
        passage = self.dice.choice(seen)
        octets = bytearray(passage.datagram)
        match self.dice.randrange(5):
            case 0:
                pass
            case 1:
                position = self.dice.randrange(8 * len(octets))
                octets[position // 8] ^= 1 << position % 8
            case 2:
                del octets[self.dice.randrange(len(octets)) :]
            case 3:
                # Fresh for the message layer, so that deduplication does not help.
                octets[2:4] = self.dice.randbytes(2)
            case _:
                other = self.dice.choice(seen).datagram
                octets[4:] = other[4:]
        sender = self.dice.choice([passage.sender, passage.receiver, "attacker"])
        receiver = self.dice.choice([METER_AT, HEAD_END_AT])
        self.sent_count += 1
        self.world.send(sender, receiver, bytes(octets))


def live(seed: int, quality: LinkQuality, *, attacked: bool) -> tuple[Street, Asker, Asker]:
    """A street in which both sides have requests, until all are answered or a day is over."""
    world = World(seed, quality)
    street = Street(world, seed=seed)
    up = Asker(street, street.meter, HEAD_END_NAME, HEAD_END_AT)
    down = Asker(street, street.head_end, METER, METER_AT)
    for asker in (up, down):
        assert asker.party.host is not None
        asker.party.host.on_event = asker.on_event
    attacker = Attacker(world, seed) if attacked else None
    dice = random.Random(f"restarts {seed}")

    while (up.owed or down.owed) and world.now < DAY:
        for asker in (up, down):
            asker.act()
            asker.party.settle()
        if attacker is not None:
            attacker.act()
        if dice.random() < 0.03:
            restarted = dice.choice([up, down])
            restarted.asked.clear()
            restarted.is_joining = False
            restarted.party.restart()
        world.elapse(dice.uniform(0.0, 10.0))
    street.calm_down()
    return street, up, down


def expect_safe(street: Street, up: Asker, down: Asker) -> None:
    for asker, other in ((up, street.head_end), (down, street.meter)):
        payloads = [message.payload for _, message in other.delivered]
        twice = {payload for payload, count in Counter(payloads).items() if count > 1}
        assert not twice, "delivered twice"
        assert set(payloads) <= asker.said, "delivered and never said"
        for asked, answer in asker.answers:
            assert answer == b"re " + asked, "the answer to another request"
    assert {who for who, _ in street.head_end.delivered} <= {METER}
    assert {who for who, _ in street.meter.delivered} <= {HEAD_END_NAME}


@pytest.mark.parametrize("block", range(0, len(SEEDS), 20))
def test_in_every_world_what_arrives_is_authentic_and_all_is_answered_in_the_end(
    block: int,
) -> None:
    for seed in SEEDS[block : block + 20]:
        street, up, down = live(seed, BAD, attacked=seed % 4 != 0)
        expect_safe(street, up, down)
        assert not up.owed, f"seed {seed}"
        assert not down.owed, f"seed {seed}"


def test_on_a_perfect_link_every_request_is_two_datagrams() -> None:
    street = Street(World(0))
    street.join()
    assert len(street.world.datagrams()) == 4
    for number in range(10):
        street.report(b"%d" % number)
        street.read(b"%d" % number)
        street.world.elapse(1)
    datagrams = street.world.datagrams()[4:]
    assert len(datagrams) == 40
    types = Counter(Message.decode(passage.datagram).type for passage in datagrams)
    assert types == {Type.CON: 20, Type.ACK: 20}
    assert street.meter.stack.refused == street.head_end.stack.refused == {}
    street.world.elapse(300)
    street.expect_rest()


def test_the_same_seed_is_the_same_history() -> None:
    histories = [live(7, BAD, attacked=True)[0].world.history for _ in range(2)]
    assert histories[0] == histories[1]
    other = live(8, BAD, attacked=True)[0].world.history
    assert other != histories[0]


def test_after_the_storm_nothing_is_under_way() -> None:
    for seed in range(1000, 1012):
        street, _, _ = live(seed, BAD, attacked=False)
        street.expect_rest()


def test_no_stack_draws_chance_but_from_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> int:
        raise AssertionError("chance from elsewhere")

    for name in ("random", "randrange", "randbytes", "getrandbits", "uniform"):
        monkeypatch.setattr(random, name, forbidden)
    monkeypatch.setattr("os.urandom", forbidden)
    monkeypatch.setattr("time.time", forbidden)
    monkeypatch.setattr("time.monotonic", forbidden)
    street = Street(World(3))
    street.join()
    request = street.report(b"x")
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re x"


def test_a_judge_that_is_lied_to_notices() -> None:
    """A request delivered twice, one never said, and a wrong answer are all found."""
    street, up, down = live(5, PERFECT, attacked=False)
    expect_safe(street, up, down)
    delivered = list(street.head_end.delivered)
    street.head_end.delivered.append(delivered[0])
    with pytest.raises(AssertionError, match="twice"):
        expect_safe(street, up, down)
    forged = dataclasses.replace(delivered[0][1], payload=b"forged")
    street.head_end.delivered[:] = [(METER, forged)]
    with pytest.raises(AssertionError, match="never said"):
        expect_safe(street, up, down)
    street.head_end.delivered[:] = delivered
    up.answers.append((b"a", b"re b"))
    with pytest.raises(AssertionError, match="another request"):
        expect_safe(street, up, down)
