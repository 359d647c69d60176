"""A meter's side of the conversation: secure, register, speak, answer.

                 SessionProposed          registered
    SECURING ----------------> REGISTERING ----------> REPORTING
      ^  ^                        |                        |
      |  +------------------------+------------------------+
      |        the head-end does not know the session any more
      +-- a failed handshake is tried again, later each time

What there is to say and to answer is the parts' affair (`meterd.parts`); the daily reports, reads
on demand and the head-end's keys are among them.

In      `receive_datagram`, `handle_timer` (a datagram machine), `start`; where the head-end is:
        `set_head_end_peer`, `forget_head_end_peer`, `miss_head_end`
Out     `data_to_send`, `events`, `next_timer`
Raises  StoreError from `start` alone; a storage that fails later is an event, and what could not
        be made durable is not said
Limit   one request under way at a time, the most urgent first; retries up to RETRY_MAX s apart, or
        what the head-end asks for, up to WAIT_MAX s
Never   reads a clock, or answers anything that is not authentic
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import LocalProtocolError, ModelError, StoreError, TableFull
from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.model import RegistrationReason
from amistack.session.credentials import AuthenticationKey, Credential
from amistack.session.fleet import encode_public_key
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.session.trust import Trust
from amistack.stack import (
    Event,
    HandshakeFailed,
    NumbersWanted,
    NumberTaken,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    SecureRequest,
    SecureResponse,
    SessionWorn,
    Stack,
    StrangeSession,
)
from meterd.agent.answering import Answering
from meterd.agent.composition import Foundation, Parts
from meterd.agent.keys import KeyResource
from meterd.agent.patience import Patience
from meterd.agent.recording import Recording
from meterd.agent.registering import Registering
from meterd.agent.session import SessionKeeper
from meterd.agent.standing import Standing
from meterd.agent.turns import Turns
from meterd.agent.uplink import Ended, Ending, Uplink
from meterd.agent.whereabouts import Whereabouts
from meterd.clock import MeterClock
from meterd.happenings import (
    AgentEvent,
    HeadEndWanted,
    Hindered,
    Recovered,
    Registered,
    Secured,
    Stage,
    StorageDamaged,
    StorageFailed,
)
from meterd.on_demand import SelfTest
from meterd.parts import Log, Part, Urgency, Voice
from meterd.recorder import Recorder
from meterd.schedules.daily import Schedule
from meterd.storage import Storage
from meterd.trust import TrustKeeper

STORAGE_RETRY_S: Final = 60.0


class Agent(Standing):
    """One meter in conversation with one head-end."""

    def __init__(
        self,
        *,
        meter: Eui64,
        key: AuthenticationKey,
        head_end: Credential | Trust,
        head_end_peer: Peer | None,
        storage: Storage,
        recorder: Recorder,
        clock: MeterClock,
        schedule: Schedule,
        offset_min: int,
        entropy: Callable[[int], bytes],
        dice: random.Random,
        parts: Sequence[Part] = (),
        voices: Sequence[Voice] = (),
        log: Log | None = None,
        self_test: SelfTest | None = None,
    ) -> None:
        """`head_end` is what was written down of it: its credential, or its key and the root's.

        `voices` are those of the parts that speak by themselves; `log` is the door of the log, if
        there is one before the recorder's; `self_test` looks at the meter for an on-demand read.
        """
        self._meter = meter
        provisioned = head_end if isinstance(head_end, Trust) else _trust_in(head_end)
        self._trusted = TrustKeeper(storage, provisioned)
        # One name for its sessions, whichever of its keys it proves to own.
        self._head_end_name = provisioned.newest.credential.id_cred.encode_map()
        self._where = Whereabouts(head_end_peer)
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._start_spread_s = schedule.start_spread_s
        self._dice = dice
        self._events: list[AgentEvent] = []
        self.counters: Counter[str] = Counter()
        base = Foundation(storage, recorder, clock, self.counters, dice, self._tell)
        self._recording = Recording(recorder, clock, storage, self.counters)
        self._registering = Registering(meter, offset_min, recorder, clock, log)
        self._patience = Patience(dice)
        self._parts = Parts(
            base,
            self._recording,
            schedule,
            self._patience.backoff,
            others=parts,
            voices=voices,
            log=log,
            self_test=self_test,
        )
        self._keys = KeyResource(self._trusted, self.counters, dice, self._tell)
        self._answering = Answering((*self._parts.resources, self._keys), self.counters)
        self._stack = Stack(
            key=key,
            entropy=entropy,
            dice=dice,
            links=self._answering.links,
            is_responder=False,
            hop_count_of=lambda _: self.hop_count,
        )
        self._session = SessionKeeper(
            self._stack, storage, self._trusted, self._head_end_name, dice
        )
        self.stage = Stage.SECURING
        self._turns = Turns(self._parts.voices)
        self._uplink = Uplink(self._stack, self._head_end_name)
        self.hop_count: int | None = None
        """How many hops of a mesh the head-end is away, as whoever carries the datagrams says."""
        self._is_started = False
        self._is_securing = False
        self._is_hindered = False
        """Whether something came to nothing since the last success."""

    # Commands from above.

    def start(self, *, now: float) -> None:
        """Take up where the storage left off: record what is missing, then speak.

        Before this nothing is due: a driver may well have opened its socket already.
        """
        self._is_started = True
        is_first, lost_octets = self._recording.start(now=now)
        if lost_octets:
            self._tell(StorageDamaged(lost_octets))
        self._parts.daily.start(is_first=is_first, now=now)
        self._registering.reason = (
            RegistrationReason.COLD_BOOT if is_first else RegistrationReason.POWER_RESTORED
        )
        if self._session.restore():
            self.stage = Stage.REGISTERING
        self._patience.act_at = now + self._dice.uniform(0.0, self._start_spread_s)

    def set_head_end_peer(self, peer: Peer, *, now: float) -> None:
        """Talk to the head-end at `peer` from now on. What is under way stays where it was sent."""
        if self._where.find(peer):
            self._patience.act_at = now

    def forget_head_end_peer(self) -> None:
        """Want an address before the next attempt: HeadEndWanted, when that is due."""
        self._where.peer = None

    def miss_head_end(self, reason: str, *, now: float) -> None:
        """Nobody knows an address: ask again later, each time later."""
        if self._where.miss():
            self._hinder(reason, now=now)

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        self._stack.receive_datagram(data, peer, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Record, send, and try again whatever is due."""
        if not self._is_started:
            return
        try:
            self._stack.handle_timer(now=now)
            # Recording first: nothing else that cannot be kept may stand in its way.
            if self._recording.at is not None and self._recording.at <= now:
                self._recording.record(now)
            if self._session.reserve_at is not None and self._session.reserve_at <= now:
                self._keys.renew_if(self._session.reserve_again(now=now), now=now)
            self._renew(now)
            self._parts.handle_timer(now=now)
            if self._patience.take(now=now):
                self._act(now)
        except StoreError as error:
            self._fail_storage(error, now)
        self._turn(now)

    # Outputs, for the driver to collect.

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams and where they go, in order. Each is handed over once."""
        return self._stack.data_to_send()

    def events(self) -> list[AgentEvent]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        if not self._is_started:
            return None
        times = (
            self._stack.next_timer(),
            self._recording.at,
            self._patience.act_at,
            self._session.reserve_at,
            self._keys.renew_at,
            self._parts.next_timer(),
        )
        return min((time for time in times if time is not None), default=None)

    # Speaking

    @property
    def _is_idle(self) -> bool:
        return not self._uplink.is_busy and not self._is_securing

    def _act(self, now: float) -> None:
        """Do what the stage asks for, if nothing is under way."""
        if not self._is_idle:
            return
        if self._where.peer is None:
            if self._where.want():
                self._tell(HeadEndWanted())
            return
        match self.stage:
            case Stage.SECURING:
                self._is_securing = True
                self._session.secure(self._where.peer, now=now)
            case Stage.REGISTERING:
                self._send(self._registering.word(), None, now)
            case Stage.REPORTING:
                if (turn := self._turns.word(now=now)) is not None:
                    self._send(*turn, now)
            case _:
                assert_never(self.stage)

    @property
    def urgency(self) -> Urgency:
        """How urgent what it asks of the head-end is, for whatever carries it there."""
        is_reporting = self.stage is Stage.REPORTING and self._uplink.is_busy
        return self._turns.urgency if is_reporting else Urgency.DEFAULT

    def _renew(self, now: float) -> None:
        """Have the head-end prove its new key, in a session under it; what is under way ends first.

        A hindrance is older than that, and has its own time to be tried again.
        """
        can_wait = not self._is_idle or self._patience.backoff.is_raised
        if self._keys.is_time(can_wait=can_wait, now=now):
            self.stage = Stage.SECURING
            self._patience.act_at = now

    def _plan(self, now: float) -> None:
        """When the next voice is due; in other stages what did not work says when.

        Patience with a head-end that is not there ends sooner for an alarm. One that says "later"
        is obeyed in any case.
        """
        if not self._is_idle or self._where.is_asked_for:
            return
        if self.stage is Stage.REPORTING:
            self._patience.act_at = self._turns.next_word(now=now)
        elif (alarm_at := self._turns.next_alarm(now=now)) is not None:
            self._patience.hurry(alarm_at, now=now)

    def _send(self, message: Message, voice: Voice | None, now: float) -> None:
        try:
            self._uplink.send(message, voice, self._where.peer, now=now)
        except (LocalProtocolError, TableFull) as error:
            if voice is not None:
                voice.take_back(now=now)
            self._hinder(str(error), now=now)

    # What the stack reports

    def _turn(self, now: float) -> None:
        while True:
            while events := self._stack.events():
                for event in events:
                    try:
                        self._receive(event, now)
                    except StoreError as error:
                        self._refuse(event, now)
                        self._fail_storage(error, now)
            self._plan(now)
            if self.stage is not Stage.REPORTING or not self._patience.take(now=now):
                return
            try:
                self._act(now)
            except StoreError as error:
                self._fail_storage(error, now)

    def _refuse(self, event: Event, now: float) -> None:
        """What `event` brought could not be made durable: leave nobody waiting for it."""
        match event:
            case SecureRequest():
                # Under a number of our own: the request's replay window may not be durable.
                later = Message.response(Code.SERVICE_UNAVAILABLE, max_age=int(STORAGE_RETRY_S))
                with contextlib.suppress(LocalProtocolError, TableFull):
                    self._stack.respond(event.exchange, later, is_durable=False, now=now)
            case SessionProposed():
                self._stack.reject_session(event, retry_after=int(STORAGE_RETRY_S), now=now)
            case NumbersWanted():
                self._session.postpone(event, now=now)
            case _:
                pass

    def _receive(self, event: Event, now: float) -> None:
        match event:
            case SecureRequest():
                self._answer(event, now)
            case SecureResponse() | RequestFailed():
                if (ended := self._uplink.end(event)) is not None:
                    self._take_end(ended, now)
            case SessionProposed():
                self._keep_session(event, now)
            case HandshakeFailed():
                self._is_securing = False
                reason = f"handshake: {event.reason} {event.detail}".rstrip()
                self._hinder(reason, now=now, may_be_elsewhere=True)
            case NumbersWanted():
                self._keys.renew_if(self._session.reserve(event, now=now), now=now)
            case CredentialWanted():
                self._stack.provide_credential(event, None, now=now)
            case SessionWorn():
                self.stage = Stage.SECURING
                self._hinder("session worn out", now=now, may_be_elsewhere=False)
            case NumberTaken() | StrangeSession():
                pass  # Refused, and counted by the stack.
            case ObservationStale() | ObservationEnded():
                pass  # Nothing is observed yet.
            case _:
                assert_never(event)

    def _answer(self, request: SecureRequest, now: float) -> None:
        # Durable before the answer: only then it may go under the request's nonce.
        self._storage.keep_window(request.recipient_id, request.window)
        answer = self._answering.answer(request.message, now=now)
        try:
            self._stack.respond(request.exchange, answer, is_durable=True, now=now)
        except LocalProtocolError as error:
            self.counters[f"answer not sent: {error}"] += 1

    def _keep_session(self, proposed: SessionProposed, now: float) -> None:
        has_followed = self._session.keep(proposed, now=now)
        self._is_securing = False
        self._keys.renew_at = None
        if has_followed:
            self._keys.tell_key()
        self._tell(Secured())
        self._advance_to(Stage.REGISTERING, now)

    def _take_end(self, ended: Ended, now: float) -> None:
        voice = ended.voice
        match ended.ending:
            case Ending.ACKNOWLEDGED:
                self._take_acknowledgement(ended, now)
            case Ending.LATER:
                if voice is not None:
                    voice.take_back(now=now)
                self._hinder(ended.reason, now=now, at_least=ended.wait_s)
            case Ending.REFUSED:
                self._fail(voice, ended.reason, now)
            case Ending.FAILED:
                self._fail(voice, ended.reason, now, may_be_elsewhere=True)
            case Ending.SESSION_LOST:
                # Anybody can say so, but only the head-end can go through a handshake: the old
                # session stays in use until then, and handshakes are as far apart as any retry
                # (RFC 8613 8.2).
                self.stage = Stage.SECURING
                if voice is not None:
                    voice.take_back(now=now)
                self._hinder(ended.reason, now=now, may_be_elsewhere=True)
            case _:
                assert_never(ended.ending)

    def _take_acknowledgement(self, ended: Ended, now: float) -> None:
        try:
            if ended.voice is not None:
                ended.voice.take_answer(ended.message, sent=ended.sent, now=now)
                if self._is_hindered:
                    self._is_hindered = False
                    self._tell(Recovered())
                return
            self._registering.take_answer(ended.message, sent=ended.sent, now=now)
        except ModelError as error:
            self._fail(ended.voice, f"acknowledgement: {error}", now)
        except StoreError:
            if ended.voice is not None:
                ended.voice.take_back(now=now)
            raise
        else:
            self._is_hindered = False
            self._tell(Registered())
            self._advance_to(Stage.REPORTING, now)

    # Going on

    def _tell(self, event: AgentEvent) -> None:
        self._events.append(event)

    def _advance_to(self, stage: Stage, now: float) -> None:
        self.stage = stage
        if stage is not Stage.REGISTERING:
            # A handshake alone is no success: message_3 may yet be refused with the first request,
            # and a meter that is put out must ask ever less often.
            self._patience.backoff.reset()
        self._turns.not_before = 0.0
        self._patience.end()
        self._act(now)

    def _fail_storage(self, error: StoreError, now: float) -> None:
        """Nothing was said that is not durable; begin again where the storage stands."""
        self._is_securing = False
        self._uplink.drop(now=now)
        again = now + STORAGE_RETRY_S
        self._recording.at = self._patience.act_at = again
        self._turns.not_before = self._parts.not_before = again
        self.counters["storage failed"] += 1
        self._tell(StorageFailed(str(error), STORAGE_RETRY_S))

    def _fail(
        self, voice: Voice | None, reason: str, now: float, *, may_be_elsewhere: bool = False
    ) -> None:
        """A request came to nothing: its voice, or else the stage, says when it goes again."""
        if voice is None:
            self._hinder(reason, now=now, may_be_elsewhere=may_be_elsewhere)
            return
        wait = voice.take_failure(reason, now=now)
        self._is_hindered = True
        self.counters["hindered"] += 1
        self._tell(Hindered(self.stage, reason, wait, may_be_elsewhere))

    def _hinder(
        self, reason: str, *, now: float, at_least: float = 0.0, may_be_elsewhere: bool = False
    ) -> None:
        """Say nothing for a while: each time twice as long."""
        wait = self._patience.lose(now=now, at_least=at_least)
        self._turns.not_before = now + wait
        self._is_hindered = True
        self.counters["hindered"] += 1
        self._tell(Hindered(self.stage, reason, wait, may_be_elsewhere))


def _trust_in(head_end: Credential) -> Trust:
    assert isinstance(head_end.public_key, EllipticCurvePublicKey), "a head-end's key is on P-256"
    return Trust.provisioned(encode_public_key(head_end.public_key), None)
