"""A meter's side of the conversation: secure, register, report, answer.

                 SessionProposed          registered
    SECURING ----------------> REGISTERING ----------> REPORTING
      ^  ^                        |                        |
      |  +------------------------+------------------------+
      |        the head-end does not know the session any more
      +-- a failed handshake is tried again, later each time

In      `receive_datagram`, `handle_timer` (a datagram machine), `start`; where the head-end is:
        `set_head_end_peer`, `forget_head_end_peer`, `miss_head_end`
Out     `data_to_send`, `events`, `next_timer`
Raises  StoreError from `start` alone; a storage that fails later is an event, and what could not
        be made durable is not said
Limit   one request under way at a time; one report a day; retries up to RETRY_MAX s apart, or
        what the head-end asks for, up to WAIT_MAX s; PAYLOAD_SIZE_MOST octets of one message
Never   reads a clock, or answers anything that is not authentic
"""

from __future__ import annotations

import contextlib
import enum
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from amistack.coap.codes import Code, format_code
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.errors import (
    CoapError,
    LocalProtocolError,
    ModelError,
    StoreError,
    TableFull,
    TrustError,
)
from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.model import (
    CONTENT_FORMAT_V1,
    DailyReport,
    HeadEndKeyNotice,
    LogEntry,
    ReadAnswer,
    ReadParts,
    ReadRequest,
    Registration,
    RegistrationAcknowledgement,
    RegistrationReason,
    ReportAcknowledgement,
    ReportRequest,
)
from amistack.model.events import (
    COLD_STARTED,
    PRIMARY_POWER_RESTORED,
    REGISTERED,
    STORAGE_DAMAGED,
)
from amistack.model.resources import HEAD_END_KEY, READ, REGISTRATION, REPORT
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.fleet import encode_public_key, head_end_kid
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.session.key_limits import NUMBERS_MAX
from amistack.session.oscore import REPLAY, ReplayWindow, SecurityContext
from amistack.session.trust import Trust
from amistack.stack import (
    SEQUENCE_BLOCK,
    Event,
    HandshakeFailed,
    NumbersWanted,
    NumberTaken,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    SessionWorn,
    Stack,
    StrangeSession,
)
from meterd.clock import MeterClock
from meterd.recorder import CHANNEL_SET, Recorder
from meterd.storage import SavedSession, Storage
from meterd.trust import TrustKeeper

SOFTWARE: Final = "amistack meterd 0.1"
MODEL_VERSIONS: Final = (1,)

RETRY_MIN: Final = 2.0
RETRY_MAX: Final = 900.0
WAIT_MAX: Final = 86_400.0
"""Seconds that a head-end may ask to be left alone; a slip there must not silence a fleet."""
REPLAYS_MAX: Final = 3
"""Messages in a row that are taken for replays, after which a new session is opened."""
STORAGE_RETRY_S: Final = 60.0
RENEW_MIN_S: Final = 1.0
RENEW_MAX_S: Final = 60.0
"""Seconds, by chance between these, from a new key of the head-end's to the handshake under it."""
RENEW_RETRY_S: Final = 5.0
PAYLOAD_SIZE_MAX: Final = 3_500
"""Octets of one report or answer; what does not fit of the log waits for the next."""
PAYLOAD_SIZE_MOST: Final = 4_000
"""Octets of intervals that cannot be left out: with the layers around them still one message."""
SHORT_IDENTIFIER_COUNT: Final = 24
"""C_I is one of the identifiers that cost one octet (RFC 9528 section 3.3.2)."""

LINKS: Final = (
    Link(f"/{READ}", ("amistack.read",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{REPORT}", ("amistack.recall",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{HEAD_END_KEY}", ("amistack.head-end-key",), content_formats=(CONTENT_FORMAT_V1,)),
)


class Stage(enum.Enum):
    """Where the conversation stands."""

    SECURING = "securing"
    REGISTERING = "registering"
    REPORTING = "reporting"


@dataclass(frozen=True, slots=True)
class Secured:
    """There is a new session with the head-end."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The head-end has taken the registration."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The report of `day` is acknowledged; `verdicts` says what was not plainly accepted."""

    day: int
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadAnswered:
    """An on-demand read was answered."""

    identifier: bytes


@dataclass(frozen=True, slots=True)
class Hindered:
    """Something did not work and is tried again in `retry_s` seconds."""

    stage: Stage
    reason: str
    retry_s: float
    may_be_elsewhere: bool = False
    """Whether another address may help: whoever is at this one did not prove to be the head-end."""


@dataclass(frozen=True, slots=True)
class HeadEndWanted:
    """It has something to say and no address: `set_head_end_peer` or `miss_head_end` answers."""


@dataclass(frozen=True, slots=True)
class StorageFailed:
    """Something could not be made durable, so it was not said; tried again in `retry_s` seconds."""

    reason: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class StorageDamaged:
    """The storage had `lost_octets` that no start can read; what was behind them is lost."""

    lost_octets: int


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """Another key of the head-end's is trusted from now on: `id_cred`, of that epoch."""

    id_cred: IdCred
    epoch: int


AgentEvent = (
    Secured
    | Registered
    | Reported
    | ReadAnswered
    | Hindered
    | HeadEndWanted
    | StorageFailed
    | StorageDamaged
    | KeyChanged
)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """The request that waits for its answer."""

    request: RequestId
    sent: float
    day: int | None = None
    entries: tuple[LogEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a day's report goes out: `delay_s` after its midnight, spread over `spread_s`.

    Older days that are owed follow `catch_up_s` apart in the mean, so that a street that comes back
    does not flood the head-end.
    """

    delay_s: float = 300.0
    spread_s: float = 3600.0
    start_spread_s: float = 5.0
    catch_up_s: float = 0.0


class Agent:
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
    ) -> None:
        """`head_end` is what was written down of it: its credential, or its key and the root's."""
        self._meter = meter
        provisioned = head_end if isinstance(head_end, Trust) else _trust_in(head_end)
        self._trusted = TrustKeeper(storage, provisioned)
        # One name for its sessions, whichever of its keys it proves to own.
        self._head_end_name = provisioned.newest.credential.id_cred.encode_map()
        self._peer = head_end_peer
        self._is_asking = False
        self._storage = storage
        self._recorder = recorder
        self._clock = clock
        self._schedule = schedule
        self._offset_min = offset_min
        self._dice = dice
        self._stack = Stack(key=key, entropy=entropy, dice=dice, links=LINKS, is_responder=False)
        self.stage = Stage.SECURING
        self.counters: Counter[str] = Counter()
        self._under_way: _UnderWay | None = None
        self._is_securing = False
        self._retry_s = RETRY_MIN
        self._replay_count = 0
        self._act_at: float | None = None
        self._wanted: NumbersWanted | None = None
        self._reserve_at: float | None = None
        # Days up to this one were complete at the first start ever: their reports wait for nothing.
        self._prompt_until: int | None = None
        self._too_long: set[int] = set()
        self._record_at: float | None = None
        self._renew_at: float | None = None
        self._reason = RegistrationReason.COLD_BOOT
        # Where in the spread this meter's report falls: the same moment every day.
        self._spread_s = dice.uniform(0.0, schedule.spread_s)
        self._events: list[AgentEvent] = []

    # Commands from above.

    def start(self, *, now: float) -> None:
        """Take up where the storage left off: record what is missing, then speak."""
        utc = self._clock.utc(now)
        is_first = self._recorder.recorded_until is None
        self._recorder.advance(utc)
        self._log_damage(utc)
        event = COLD_STARTED if is_first else PRIMARY_POWER_RESTORED
        self._recorder.log(utc, event, is_time_doubtful=True)
        if is_first:
            self._prompt_until = self._recorder.day_of(utc) - 1
        self._plan_recording(now)
        self._reason = (
            RegistrationReason.COLD_BOOT if is_first else RegistrationReason.POWER_RESTORED
        )
        saved = self._storage.session()
        if saved is not None and self._trusted.names(saved.head_end):
            self._stack.add_session(self._head_end_name, _restored(saved))
            self.stage = Stage.REGISTERING
        self._act_at = now + self._dice.uniform(0.0, self._schedule.start_spread_s)

    def _log_damage(self, utc: float) -> None:
        lost = self._storage.lost_octets
        if not lost:
            return
        with self._storage.together():
            # What was lost may have been log entries, fewer than octets: their numbers are used.
            self._recorder.log(
                utc, STORAGE_DAMAGED, f"{lost} octets lost", is_time_doubtful=True, skipped=lost
            )
            self._storage.settle_loss()
        self.counters["storage damaged"] += 1
        self._events.append(StorageDamaged(lost))

    def set_head_end_peer(self, peer: Peer, *, now: float) -> None:
        """Talk to the head-end at `peer` from now on. What is under way stays where it was sent."""
        self._peer = peer
        if self._is_asking:
            self._is_asking = False
            self._act_at = now

    def forget_head_end_peer(self) -> None:
        """Want an address before the next attempt: HeadEndWanted, when that is due."""
        self._peer = None

    def miss_head_end(self, reason: str, *, now: float) -> None:
        """Nobody knows an address: ask again later, each time later."""
        if self._is_asking:
            self._is_asking = False
            self._hinder(reason, now=now)

    # Inputs from below.

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram. Never raises on bad data."""
        self._stack.receive_datagram(data, peer, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Record, send, and try again whatever is due."""
        try:
            self._stack.handle_timer(now=now)
            # Recording first: nothing else that cannot be kept may stand in its way.
            if self._record_at is not None and self._record_at <= now:
                self._record(now)
            if self._reserve_at is not None and self._reserve_at <= now:
                self._reserve(now)
            if self._renew_at is not None and self._renew_at <= now:
                self._renew(now)
            if self._act_at is not None and self._act_at <= now:
                self._act_at = None
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
        times = (
            self._stack.next_timer(),
            self._record_at,
            self._act_at,
            self._reserve_at,
            self._renew_at,
        )
        return min((time for time in times if time is not None), default=None)

    @property
    def trusted_kid(self) -> bytes:
        """The kid of the newest head-end key that is trusted."""
        return head_end_kid(self._trusted.trust.newest.public_key)

    @property
    def owed_count(self) -> int:
        """Days that are recorded whole and not acknowledged."""
        return len(self._recorder.owed_days())

    # How it is, for whoever asks.

    @property
    def meter(self) -> Eui64:
        """Whose agent this is."""
        return self._meter

    @property
    def clock(self) -> MeterClock:
        """The time as it believes it."""
        return self._clock

    @property
    def head_end_peer(self) -> Peer | None:
        """Where it talks to the head-end, or None while nobody knows."""
        return self._peer

    @property
    def owed_days(self) -> list[int]:
        """Days that are recorded whole and not acknowledged, newest first."""
        return self._recorder.owed_days()

    @property
    def recorded_until(self) -> int | None:
        """The UTC second up to which every interval is recorded; None before the first record."""
        return self._recorder.recorded_until

    @property
    def refused(self) -> dict[str, int]:
        """What was refused since the start, by `layer: reason`."""
        return dict(self._stack.refused)

    # Recording

    def _record(self, now: float) -> None:
        recorded = self._recorder.advance(self._clock.utc(now))
        self.counters["intervals recorded"] += recorded
        self._plan_recording(now)
        if self.stage is Stage.REPORTING and self._act_at is None:
            self._plan_report(now)

    def _plan_recording(self, now: float) -> None:
        due = self._clock.when(self._recorder.next_due(self._clock.utc(now)))
        # A moment later, so that rounding in a timer never meets the interval still running.
        self._record_at = max(due + 0.05, now)

    # Speaking

    def _act(self, now: float) -> None:
        """Do what the stage asks for, if nothing is under way."""
        if self._under_way is not None or self._is_securing:
            return
        if self._peer is None:
            if not self._is_asking:
                self._is_asking = True
                self._events.append(HeadEndWanted())
            return
        match self.stage:
            case Stage.SECURING:
                self._secure(now)
            case Stage.REGISTERING:
                self._register(now)
            case Stage.REPORTING:
                self._report(now)
            case _:
                assert_never(self.stage)

    def _secure(self, now: float) -> None:
        saved = self._storage.session()
        last = saved.recipient_id if saved is not None else b""
        # Another one than last time: a late message of the old session must not fit the new one.
        number = last[0] + 1 if len(last) == 1 else self._dice.randrange(SHORT_IDENTIFIER_COUNT)
        self._is_securing = True
        self._stack.connect(
            self._peer,
            self._trusted.trust.credentials,
            c_i=bytes((number % SHORT_IDENTIFIER_COUNT,)),
            now=now,
            ead_1=self._trusted.trust.hint(),
            believe=self._trusted.believe,
            is_combining=True,
        )

    def _renew(self, now: float) -> None:
        """Have the head-end prove its new key, in a session under it; what is under way ends first.

        A hindrance is older than that, and has its own time to be tried again.
        """
        if self._under_way is not None or self._is_securing or self._retry_s > RETRY_MIN:
            self._renew_at = now + RENEW_RETRY_S
            return
        self._renew_at = None
        self.stage = Stage.SECURING
        self._act_at = now

    def _register(self, now: float) -> None:
        registration = Registration(
            self._meter,
            MODEL_VERSIONS,
            SOFTWARE,
            CHANNEL_SET,
            self._offset_min,
            self._recorder.channels,
            self._reason,
        )
        self._send(_post(REGISTRATION, registration.encode()), now=now)

    def _report(self, now: float) -> None:
        day = self._next_day(now)
        if day is None:
            self._plan_report(now)
            return
        payload, entries = self._report_of(day, now)
        if len(payload) > PAYLOAD_SIZE_MOST:
            self._leave_out(day, len(payload), now)
            return
        self._send(_post(REPORT, payload), day=day, entries=entries, now=now)

    def _leave_out(self, day: int, size: int, now: float) -> None:
        """Pass over a day whose intervals fit no message, so that it does not block the others."""
        self._too_long = {day, *self._too_long.intersection(self._recorder.owed_days())}
        self._hinder(
            f"the report of day {day} has {size} octets, at most {PAYLOAD_SIZE_MOST} fit", now=now
        )

    def _report_of(self, day: int, now: float) -> tuple[bytes, tuple[LogEntry, ...]]:
        blocks = tuple(self._recorder.block(day))
        entries = tuple(self._recorder.entries_due(day))
        clock = self._clock.reading(now)
        while True:
            report = DailyReport(CHANNEL_SET, day, clock, blocks, entries)
            payload = report.encode()
            if len(payload) <= PAYLOAD_SIZE_MAX or not entries:
                return payload, entries
            entries = entries[: len(entries) // 2]

    def _next_day(self, now: float) -> int | None:
        """The newest day that is owed and may go out now; older ones follow it."""
        utc = self._clock.utc(now)
        yesterday = self._recorder.day_of(utc) - 1
        for day in self._sendable_days():
            if day < yesterday or self._is_prompt(day) or utc >= self._due(day):
                return day
        return None

    def _sendable_days(self) -> list[int]:
        return [day for day in self._recorder.owed_days() if day not in self._too_long]

    def _is_prompt(self, day: int) -> bool:
        return self._prompt_until is not None and day <= self._prompt_until

    def _due(self, day: int) -> float:
        """UTC at which the report of `day` is to go out."""
        return self._recorder.start_of(day + 1) + self._schedule.delay_s + self._spread_s

    def _plan_report(self, now: float) -> None:
        """Wake when yesterday's report is due, or at once if anything older is owed."""
        owed = self._sendable_days()
        if not owed:
            self._act_at = None  # The recording of midnight's interval comes back here.
            return
        # A moment later: rounding must not wake this before its own time.
        due = self._clock.when(self._due(owed[0])) + 0.05
        self._act_at = now if self._next_day(now) is not None else max(due, now)

    def _send(
        self,
        message: Message,
        *,
        now: float,
        day: int | None = None,
        entries: tuple[LogEntry, ...] = (),
    ) -> None:
        try:
            request = self._stack.request(self._head_end_name, message, self._peer, now=now)
        except (LocalProtocolError, TableFull) as error:
            self._hinder(str(error), now=now)
            return
        self._under_way = _UnderWay(request, now, day, entries)

    # What the stack reports

    def _turn(self, now: float) -> None:
        while events := self._stack.events():
            for event in events:
                try:
                    self._receive(event, now)
                except StoreError as error:
                    self._refuse(event, now)
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
                self._wanted, self._reserve_at = event, now + STORAGE_RETRY_S
            case _:
                pass

    def _reserve(self, now: float) -> None:
        """Try again to reserve the numbers that the stack still waits for."""
        wanted, self._wanted, self._reserve_at = self._wanted, None, None
        if wanted is None:
            return
        try:
            self._reserve_numbers(wanted, now)
        except StoreError:
            self._wanted, self._reserve_at = wanted, now + STORAGE_RETRY_S
            raise

    def _reserve_numbers(self, wanted: NumbersWanted, now: float) -> None:
        self._storage.reserve_numbers(wanted.recipient_id, wanted.until)
        self._stack.numbers_reserved(wanted.recipient_id, wanted.until, now=now)
        if wanted.until > NUMBERS_MAX and self._renew_at is None:
            self._renew_at = now  # The keys are half worn: new ones in good time.

    def _receive(self, event: Event, now: float) -> None:
        match event:
            case SecureRequest():
                self._answer(event, now)
            case SecureResponse():
                self._receive_response(event, now)
            case RequestFailed():
                self._receive_failure(event, now)
            case SessionProposed():
                self._keep_session(event, now)
            case HandshakeFailed():
                self._is_securing = False
                reason = f"handshake: {event.reason} {event.detail}".rstrip()
                self._hinder(reason, now=now, may_be_elsewhere=True)
            case NumbersWanted():
                self._reserve_numbers(event, now)
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

    def _keep_session(self, proposed: SessionProposed, now: float) -> None:
        parameters = proposed.parameters
        with self._storage.together():
            has_followed = self._trusted.settle(proposed.id_cred)
            self._storage.keep_session(
                SavedSession(
                    proposed.id_cred.encode_map(),
                    parameters.recipient_id,
                    parameters.sender_id,
                    parameters.master_secret,
                    parameters.master_salt,
                    SEQUENCE_BLOCK,
                    ReplayWindow().state,
                )
            )
        self._stack.accept_session(
            proposed, self._head_end_name, reserved_until=SEQUENCE_BLOCK, now=now
        )
        self._is_securing = False
        self._renew_at = None
        if has_followed:
            self._tell_key()
        self._events.append(Secured())
        self._advance_to(Stage.REGISTERING, now)

    def _receive_response(self, event: SecureResponse, now: float) -> None:
        under_way = self._under_way
        if under_way is None or under_way.request != event.request:
            return
        self._under_way = None
        self._replay_count = 0
        message = event.message
        if message.code == Code.SERVICE_UNAVAILABLE:
            wait = min(message.uint_option(OptionNumber.MAX_AGE) or 60, WAIT_MAX)
            self._hinder("the head-end says later", now=now, at_least=wait)
            return
        if message.code != Code.CHANGED:
            detail = message.payload.decode(errors="replace")[:80]
            self._hinder(f"{format_code(message.code)} {detail}".rstrip(), now=now)
            return
        try:
            if under_way.day is None:
                self._take_registered(message, under_way, now)
            else:
                self._take_reported(message, under_way, under_way.day, now)
        except ModelError as error:
            self._hinder(f"acknowledgement: {error}", now=now)

    def _take_registered(self, message: Message, under_way: _UnderWay, now: float) -> None:
        acknowledgement = RegistrationAcknowledgement.decode(message.payload)
        self._take_time(under_way, acknowledgement.received_ms, acknowledgement.held_ms, now)
        self._recorder.log(self._clock.utc(now), REGISTERED)
        self._events.append(Registered())
        self._advance_to(Stage.REPORTING, now)

    def _take_reported(self, message: Message, under_way: _UnderWay, day: int, now: float) -> None:
        acknowledgement = ReportAcknowledgement.decode(message.payload)
        self._take_time(under_way, acknowledgement.received_ms, acknowledgement.held_ms, now)
        self._recorder.settle(day, under_way.entries)
        self.counters["reports acknowledged"] += 1
        verdicts = tuple(
            f"{one.record}: {one.disposition.name.lower()}, {one.reason}"
            for one in acknowledgement.verdicts
        )
        self._events.append(Reported(day, verdicts))
        self._retry_s = RETRY_MIN
        self._plan_report(now)
        if self._act_at is not None and self._act_at <= now:
            self._act_at = now + self._dice.uniform(0.0, 2 * self._schedule.catch_up_s)
            if self._act_at <= now:
                self._act_at = None
                self._act(now)

    def _take_time(self, under_way: _UnderWay, received_ms: int, held_ms: int, now: float) -> None:
        if not received_ms:
            return  # The head-end does not know the time itself.
        self._clock.take_sample(
            sent=under_way.sent, got=now, received_ms=received_ms, held_ms=held_ms
        )

    def _receive_failure(self, event: RequestFailed, now: float) -> None:
        if self._under_way is None or self._under_way.request != event.request:
            return
        self._under_way = None
        is_repeated = event.code == Code.UNAUTHORIZED and event.hint == REPLAY
        self._replay_count = self._replay_count + 1 if is_repeated else 0
        if self._replay_count >= REPLAYS_MAX:
            # No number of ours is new to it: our storage is older than what it has heard from us.
            is_repeated = False
            self._replay_count = 0
        if event.code in (Code.UNAUTHORIZED, Code.BAD_REQUEST) and not is_repeated:
            # The head-end does not know the session, or has other keys for it (RFC 8613 8.2).
            # Anybody can say so, but only the head-end can go through a handshake: the old
            # session stays in use until then, and handshakes are as far apart as any retry.
            self.stage = Stage.SECURING
        # A replay is what the head-end sees when it was killed between commit and answer and our
        # message came again: the session is whole, and a new number is all that is needed.
        self._hinder(event.reason, now=now, may_be_elsewhere=True)

    # Requests of the head-end

    def _answer(self, request: SecureRequest, now: float) -> None:
        # Durable before the answer: only then it may go under the request's nonce.
        self._storage.keep_window(request.recipient_id, request.window)
        answer = self._answer_to(request.message, now)
        try:
            self._stack.respond(request.exchange, answer, is_durable=True, now=now)
        except LocalProtocolError as error:
            self.counters[f"answer not sent: {error}"] += 1

    def _answer_to(self, message: Message, now: float) -> Message:
        try:
            if message.path == REPORT:
                return self._recall(message, now)
            if message.path == HEAD_END_KEY:
                return self._take_key(message, now)
            if message.path != READ:
                return Message.response(Code.NOT_FOUND)
            if message.code != Code.FETCH:
                return Message.response(Code.METHOD_NOT_ALLOWED)
            if message.content_format != CONTENT_FORMAT_V1:
                return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
            wanted = ReadRequest.decode(message.payload)
        except (CoapError, ModelError) as error:
            self.counters[f"read refused: {error.reason}"] += 1
            return Message.response(Code.BAD_REQUEST, payload=error.reason.encode())
        self._record(now)
        answer = self._read(wanted, now)
        if len(answer) > PAYLOAD_SIZE_MOST:
            self.counters["read refused: too long"] += 1
            return Message.response(Code.INTERNAL_SERVER_ERROR, payload=b"too long")
        self.counters["reads answered"] += 1
        self._events.append(ReadAnswered(wanted.identifier))
        return Message.response(
            Code.CONTENT, payload=answer, content_format=CONTENT_FORMAT_V1, max_age=0
        )

    def _recall(self, message: Message, now: float) -> Message:
        """Owe past days again: the head-end has lost them, or never had them."""
        if message.code != Code.POST:
            return Message.response(Code.METHOD_NOT_ALLOWED)
        if message.content_format != CONTENT_FORMAT_V1:
            return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
        wanted = ReportRequest.decode(message.payload)
        self.counters["reports asked for again"] += self._recorder.owe_again(
            wanted.first_day, wanted.last_day
        )
        is_hindered = self._retry_s > RETRY_MIN  # "Later" is obeyed, whatever is owed by then.
        if self.stage is Stage.REPORTING and self._under_way is None and not is_hindered:
            self._plan_report(now)
        return Message.response(Code.CHANGED)

    def _take_key(self, message: Message, now: float) -> Message:
        """Trust another key of the head-end's, if the root says so; durable before the answer."""
        if message.code != Code.PUT:
            return Message.response(Code.METHOD_NOT_ALLOWED)
        if message.content_format != CONTENT_FORMAT_V1:
            return Message.response(Code.UNSUPPORTED_CONTENT_FORMAT)
        notice = HeadEndKeyNotice.decode(message.payload)
        try:
            is_other = self._trusted.take(notice)
        except TrustError as error:
            self.counters[f"key refused: {error.reason}"] += 1
            return Message.response(Code.FORBIDDEN, payload=error.reason.encode())
        if is_other:
            self._tell_key()
            self._renew_at = now + self._dice.uniform(RENEW_MIN_S, RENEW_MAX_S)
        return Message.response(Code.CHANGED)

    def _tell_key(self) -> None:
        newest = self._trusted.trust.newest
        self.counters["head-end key changed"] += 1
        self._events.append(KeyChanged(newest.credential.id_cred, newest.epoch))

    def _read(self, wanted: ReadRequest, now: float) -> bytes:
        """What the meter knows now, as far as it was asked; the log as far as it fits."""
        utc = self._clock.utc(now)
        day = self._recorder.day_of(utc)
        registers = self._recorder.registers(utc) if ReadParts.REGISTERS in wanted.parts else ()
        blocks = tuple(self._recorder.block(day)) if ReadParts.INTERVALS in wanted.parts else ()
        entries = tuple(self._recorder.entries_of(day)) if ReadParts.LOG in wanted.parts else ()
        while True:
            payload = ReadAnswer(
                wanted.identifier,
                CHANNEL_SET,
                day,
                self._clock.reading(now),
                registers,
                blocks,
                entries,
            ).encode()
            if len(payload) <= PAYLOAD_SIZE_MAX or not entries:
                return payload
            entries = entries[len(entries) // 2 + 1 :]

    # Going on

    def _advance_to(self, stage: Stage, now: float) -> None:
        self.stage = stage
        if stage is not Stage.REGISTERING:
            # A handshake alone is no success: message_3 may yet be refused with the first request,
            # and a meter that is put out must ask ever less often.
            self._retry_s = RETRY_MIN
        self._act_at = None
        self._act(now)

    def _fail_storage(self, error: StoreError, now: float) -> None:
        """Nothing was said that is not durable; begin again where the storage stands."""
        self._is_securing = False
        self._under_way = None
        self._record_at = self._act_at = now + STORAGE_RETRY_S
        self.counters["storage failed"] += 1
        self._events.append(StorageFailed(str(error), STORAGE_RETRY_S))

    def _hinder(
        self, reason: str, *, now: float, at_least: float = 0.0, may_be_elsewhere: bool = False
    ) -> None:
        """Try again later: each time twice as long, spread so that a street does not march."""
        wait = max(self._retry_s, at_least) * self._dice.uniform(1.0, 1.5)
        self._retry_s = min(self._retry_s * 2, RETRY_MAX)
        self._act_at = now + wait
        self.counters["hindered"] += 1
        self._events.append(Hindered(self.stage, reason, wait, may_be_elsewhere))


def _post(path: str, payload: bytes) -> Message:
    return Message.request(Code.POST, path, payload=payload, content_format=CONTENT_FORMAT_V1)


def _trust_in(head_end: Credential) -> Trust:
    assert isinstance(head_end.public_key, EllipticCurvePublicKey), "a head-end's key is on P-256"
    return Trust.provisioned(encode_public_key(head_end.public_key), None)


def _restored(saved: SavedSession) -> SecurityContext:
    """The saved session's context: numbers go on at the reserved bound."""
    context = SecurityContext.derive(
        master_secret=saved.master_secret,
        master_salt=saved.master_salt,
        sender_id=saved.sender_id,
        recipient_id=saved.recipient_id,
    )
    context.resume(reserved_until=saved.reserved_until, window=saved.window)
    return context
