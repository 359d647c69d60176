"""A desk among many initiators, in any order of events.

The contract under test: whatever is begun, repeated, lost, spoiled, combined or late, a desk
answers and never raises; it holds no more than its bounds and forgets all of it in time; who comes
to keys comes to the same ones as the desk, and no two of them have one identifier.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amistack.coap.codes import Code, Type, is_request
from amistack.coap.message import Message
from amistack.errors import EdhocError
from amistack.session.approach import Approach
from amistack.session.credentials import (
    AuthenticationKey,
    kccs_credential,
    known_credential,
)
from amistack.session.edhoc import OscoreParameters
from amistack.session.half_open import HALF_OPEN_LIFETIME
from amistack.session.handshakes import (
    CredentialWanted,
    Desk,
    RequestRemains,
    SessionProposed,
)
from amistack.session.oscore import protect_request, unprotect_request
from amistack.stack import context_of
from tests.session.edhoc_pairs import authentication_key

HEAD_END: Final = authentication_key("head-end")
NAMED: Final = [authentication_key(f"meter {number}") for number in range(3)]
SENT: Final = [
    AuthenticationKey(key.private_key, kccs_credential(key.credential.octets)) for key in NAMED
]
STRANGER: Final = authentication_key("stranger")
KEYS: Final = (*NAMED, *SENT, STRANGER)
ASK: Final = Message.request(Code.POST, "rep", payload=b"a day")


@dataclasses.dataclass(slots=True)
class Meter:
    """One initiator, what it would send next, and the keys that it came to."""

    approach: Approach
    peer: tuple[str, int]
    is_combining: bool
    next: Message
    keys: OscoreParameters | None = None
    is_over: bool = False


class DeskWorld(RuleBasedStateMachine):
    """Events in the order that hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = random.Random(7)
        self.sessions: dict[bytes, OscoreParameters] = {}
        self.desk = Desk(HEAD_END, entropy=self.dice.randbytes, is_taken=self.sessions.__contains__)
        self.now = 0.0
        self.meters: list[Meter] = []
        self.wanted: list[CredentialWanted] = []
        self.proposed: list[SessionProposed] = []

    # The meters

    @rule(key=st.sampled_from(KEYS), host=st.integers(1, 3), is_combining=st.booleans())
    def begin(self, key: AuthenticationKey, host: int, is_combining: bool) -> None:
        approach = Approach(
            key,
            [HEAD_END.credential],
            c_i=bytes((len(self.meters) % 24,)),
            entropy=self.dice.randbytes,
            is_combining=is_combining,
        )
        peer = f"192.0.2.{host}", len(self.meters)
        self.meters.append(Meter(approach, peer, is_combining, approach.first_message()))

    @precondition(lambda self: self.meters)
    @rule(data=st.data(), is_lost=st.booleans())
    def send(self, data: st.DataObject, is_lost: bool) -> None:
        """A message goes to the desk; its answer may be lost, so that it is sent again later."""
        self._send(data.draw(st.sampled_from(self.meters)), is_lost=is_lost)

    @rule(key=st.sampled_from(KEYS), is_combining=st.booleans())
    def join(self, key: AuthenticationKey, is_combining: bool) -> None:
        """One from beginning to end, with nothing between; the others stand where they stood."""
        self.begin(key, 4, is_combining)
        meter = self.meters[-1]
        for _ in range(2):
            self._send(meter, is_lost=False)
        self._answer_who(self.wanted.pop())
        if key is STRANGER:
            return
        self._decide(self.proposed.pop(), is_durable=True)
        # The answer to a combined request is the session's to give; message_3 alone has one.
        if not is_combining:
            self._send(meter, is_lost=False)
            assert meter.keys is not None

    def _send(self, meter: Meter, *, is_lost: bool) -> None:
        answer = self._deliver(meter.next, meter.peer)
        if answer is None or is_lost or meter.is_over:
            return
        try:
            outcome = meter.approach.receive(answer)
        except EdhocError:
            meter.is_over = True
            return
        if isinstance(outcome, Message):
            meter.next = outcome
        elif meter.is_combining and meter.keys is None:
            meter.keys = outcome
            context = context_of(outcome)
            context.reserve(1)
            protected, _ = protect_request(context, ASK)
            combined = meter.approach.combine(protected, original=ASK)
            assert combined is not None
            meter.next = combined
        else:
            meter.keys = outcome

    @precondition(lambda self: self.meters)
    @rule(data=st.data(), place=st.integers(0, 200), flip=st.integers(1, 255))
    def spoil(self, data: st.DataObject, place: int, flip: int) -> None:
        """A message arrives with one octet changed, and nobody hears the answer."""
        message = data.draw(st.sampled_from(self.meters)).next
        payload = bytearray(message.payload)
        payload[place % len(payload)] ^= flip
        self._deliver(dataclasses.replace(message, payload=bytes(payload)), ("192.0.2.9", 9))

    @rule(seconds=st.floats(0, HALF_OPEN_LIFETIME))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _deliver(self, message: Message, peer: tuple[str, int]) -> Message | None:
        octets = message.addressed(type=Type.CON, message_id=1, token=b"").encode()
        answer = self.desk.challenge(octets, peer, now=self.now)
        if answer is not None:
            return Message.decode(answer)
        if message.option(9) is None:
            outcome: Message | CredentialWanted | RequestRemains = self.desk.receive(
                message, peer, now=self.now
            )
        else:
            outcome = self.desk.receive_combined(message, peer, now=self.now)
        if isinstance(outcome, CredentialWanted):
            self.wanted.append(outcome)
            return None
        if isinstance(outcome, RequestRemains):
            assert is_request(outcome.message.code)
            return None
        return outcome

    # The program behind the desk

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def answer_who(self, data: st.DataObject) -> None:
        self._answer_who(self.wanted.pop(data.draw(st.integers(0, len(self.wanted) - 1))))

    def _answer_who(self, wanted: CredentialWanted) -> None:
        known = known_credential(wanted.id_cred, [key.credential for key in NAMED])
        outcome = self.desk.provide_credential(wanted.handshake, known, wanted.peer)
        assert isinstance(outcome, SessionProposed) or outcome.code == Code.BAD_REQUEST
        if isinstance(outcome, SessionProposed):
            self.proposed.append(outcome)

    @precondition(lambda self: self.proposed)
    @rule(data=st.data(), is_durable=st.booleans())
    def decide(self, data: st.DataObject, is_durable: bool) -> None:
        at = data.draw(st.integers(0, len(self.proposed) - 1))
        self._decide(self.proposed.pop(at), is_durable=is_durable)

    def _decide(self, proposed: SessionProposed, *, is_durable: bool) -> None:
        if not is_durable:
            self.desk.give_up(proposed.handshake, retry_after=1)
            return
        keys = proposed.parameters
        assert keys.recipient_id not in self.sessions, "an identifier was given out twice"
        self.sessions[keys.recipient_id] = keys
        assert self.desk.conclude(proposed.handshake).code == Code.CHANGED
        if proposed.request is not None:
            request, _ = unprotect_request(context_of(keys), proposed.request)
            assert request.payload == ASK.payload

    # What is always true

    @invariant()
    def it_is_bounded_and_they_agree(self) -> None:
        depth, depth_max = self.desk.depth
        assert depth <= depth_max
        assert depth >= len(self.wanted) + len(self.proposed)
        by_secret = {keys.master_secret: keys for keys in self.sessions.values()}
        assert len(by_secret) == len(self.sessions)
        for meter in self.meters:
            if meter.keys is not None and not meter.is_combining:
                theirs = by_secret[meter.keys.master_secret]
                assert theirs.recipient_id == meter.keys.sender_id
                assert theirs.sender_id == meter.keys.recipient_id

    def teardown(self) -> None:
        """When all who wait have their answer and a minute has passed, nothing is left."""
        for handshake in [one.handshake for one in self.wanted] + [
            one.handshake for one in self.proposed
        ]:
            self.desk.give_up(handshake, retry_after=1)
        self.desk.receive(Message.request(Code.GET), "nobody", now=self.now + HALF_OPEN_LIFETIME)
        assert self.desk.depth[0] == 0


DeskWorld.TestCase.settings = settings(deadline=None, max_examples=50, stateful_step_count=35)
TestDeskWorld = DeskWorld.TestCase
