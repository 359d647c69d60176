"""The head-end's side of every meter's conversation: drives the stack, waits for the store.

Gives   what meters send to the intake and its records to the store; the answer after the commit
Raises  Unreachable and NotAnswered from `ask` (headend/domain/asking.py)
Limit   the stack's tables and the store's queue; what does not fit is answered "later" (5.03)
Never   says success before the commit
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Final, assert_never

from amistack import telemetry
from amistack.coap.codes import Code
from amistack.coap.link_format import Link
from amistack.coap.message import Message
from amistack.errors import LocalProtocolError, StoreBusy, StoreError, TableFull
from amistack.identifiers import Eui64, format_eui64
from amistack.links import UdpLink, open_udp
from amistack.links.host import OpenLink
from amistack.machine import DatagramMachine, Peer
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.resources import EVENTS, REGISTRATION, REPORT, TIME
from amistack.session.combined import edhoc_attributes
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import meter_credential, meter_named
from amistack.session.handshakes import (
    WELL_KNOWN_EDHOC,
    Answering,
    CredentialWanted,
    SessionProposed,
)
from amistack.session.key_limits import NUMBERS_MAX
from amistack.session.oscore import (
    AES_CCM_16_64_128,
    SEQUENCE_NUMBER_MAX,
    ReplayWindow,
    SecurityContext,
)
from amistack.session.trust import OwnKeys
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
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.mesh import MeshPeer
from headend.domain.meters import MeterState, RegistrationRecord, StoredSession
from headend.domain.readings import DayBlock, LogRecord, QuarantinedRecord, ReportRecord
from headend.southbound.clones import Clones
from headend.southbound.elsewhere import Elsewhere, Forked, priority_of
from headend.southbound.intake import Intake, Refused, Uplink
from headend.southbound.known import KnownMeters
from headend.southbound.ledger import Ledger, Tally, kind_of
from headend.southbound.own_clock import OwnClock
from headend.southbound.paths import path_of, peer_of
from headend.store.interface import (
    FIRST,
    EndSessions,
    KeepDelivery,
    KeepSession,
    Kept,
    NotEnrolled,
    Outcome,
    Record,
    Reserved,
    ReserveNumbers,
    Store,
)

LATER_S: Final = 30
"""Seconds after which a meter may come again when the store is busy or failing."""
RESERVE_RETRY_S: Final = 0.1
PAGE_SIZE: Final = 1_000
"""Meters that are taken from the store at a time at a start."""
CHECK_S: Final = 5.0
"""Seconds between two looks at whether every uplink is accounted for."""

NUMBER_EPOCH: Final = 1_767_225_600
"""UTC seconds at 2026-01-01, where the line of sender sequence numbers begins to rise."""
NUMBER_RATE: Final = 1_024
"""Numbers a second by which it rises: the 2^40 of a session last for 34 years."""
NUMBERS_FREE: Final = 1 << 20
"""Where the line is at least: so many numbers a new session has whatever the clock says."""
LINE_WAIT_MAX_S: Final = 600.0
"""Seconds that a session may wait for the line; one that had to wait longer is given up."""

RECORD_NAMES: Final[dict[type[Record], str]] = {
    RegistrationRecord: "registration",
    ReportRecord: "report",
    DayBlock: "block",
    LogRecord: "log entry",
    QuarantinedRecord: "quarantined",
}

LINKS: Final = (
    Link(f"/{REGISTRATION}", ("amistack.registration",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{REPORT}", ("amistack.report",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{EVENTS}", ("amistack.events",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{TIME}", ("amistack.time",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(
        f"/{WELL_KNOWN_EDHOC}",
        ("core.edhoc",),
        attributes=edhoc_attributes(
            methods=(3,), suites=(2, 3), credential_types=(1,), id_credential_types=(4,)
        ),
    ),
)


class Southbound:
    """Everything between the socket and the store."""

    def __init__(
        self,
        *,
        key: AuthenticationKey,
        store: Store,
        entropy: Callable[[int], bytes],
        dice: random.Random,
        wall: Callable[[], float],
        open_link: OpenLink = open_udp,
        on_heard: Callable[[Eui64], None] | None = None,
        is_synchronised: Callable[[], bool] = lambda: False,
        is_clock_vouched_for: bool = False,
        own_keys: OwnKeys | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`wall` is UTC in seconds; `dice` draws what need not be secret.

        `on_heard` is told of a meter after each delivery of it that was committed.
        `own_keys` are all that the head-end answers with, `key` among them; without them it alone.
        `is_synchronised` asks the kernel for its clock; `is_clock_vouched_for`: see `OwnClock`.
        `elsewhere` carries what goes to meters of the mesh; see `receive_datagram`.
        """
        self.on_heard = on_heard
        self._open_link = open_link
        self._store = store
        self._wall = wall
        self._wall_at_start = wall()
        self._start = asyncio.get_running_loop().time()
        self._known = KnownMeters()
        keys = OwnKeys(key) if own_keys is None else own_keys
        self._stack = Stack(
            key=key,
            entropy=entropy,
            dice=dice,
            links=LINKS,
            choose=lambda facts: Answering(*keys.choose(facts.ead)),
            hop_count_of=self._hop_count,
        )
        self._elsewhere = elsewhere
        self._machine: DatagramMachine[Event] = self._stack
        if elsewhere is not None:
            self._machine = Forked(self._stack, elsewhere)
        self._link: UdpLink[Event] | None = None
        self._answers: dict[RequestId, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_count = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_draining = False
        self._is_settle_due = False
        self._is_store_failing = False
        self._log = telemetry.logger()
        self._own_clock = OwnClock(
            wall=wall, is_synchronised=is_synchronised, is_vouched_for=is_clock_vouched_for
        )
        self._clock_doubt: str | None = None
        self.intake = Intake(self._known)
        self.intake.on_clock = self._own_clock.hear
        self.ledger = Ledger()
        self.clones = Clones(
            store=store, wall=wall, known_path=self.path_of, end_session=self._end_session
        )
        self._opened_count = 0
        self._records: Counter[tuple[type[Record], Kept]] = Counter()
        self._refused: Counter[str] = Counter()
        self._differences: dict[str, int] = {}
        self._check_timer: asyncio.TimerHandle | None = None

    # Start and stop

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Take up where the store left off, then listen. Gives the address bound to.

        Raises LinkError when the socket cannot be had, StoreError when the store cannot be read.
        """
        self._own_clock.newest_stored = await self._store.newest_at()
        await self._load()
        self._link = await self._open_link(self._machine, self._on_event, host=host, port=port)
        self._keep_checking()
        return self._link.address

    async def _load(self) -> None:
        """Take every session and every meter from the store, some at a time.

        All of them at once would double the memory, and leave it in pieces. Each meter's name is
        kept once: the one of its session serves the other table as well.
        """
        store, known = self._store, self._known

        def name_of(meter: Eui64) -> Eui64:
            context = self._stack.session_of(meter)
            return meter if context is None else Eui64(context.owner)

        fence = self._line()  # One number for all, as it is kept with each.
        after = FIRST
        while sessions := await store.sessions(after=after, limit=PAGE_SIZE):
            for session in sessions:
                context = restored(session, fence=fence)
                if context.next_sequence_number > SEQUENCE_NUMBER_MAX:
                    continue  # Used up: the meter is told that nobody knows it, and joins anew.
                self._stack.add_session(
                    session.meter, context, is_window_doubtful=session.is_window_doubtful
                )
            after = sessions[-1].meter
        after = FIRST
        while locations := await store.locations(after=after, limit=PAGE_SIZE):
            for location in locations:
                known.hear(name_of(location.meter), location.path)
            after = locations[-1].meter
        after = FIRST
        while declared := await store.channel_sets(after=after, limit=PAGE_SIZE):
            for (meter, channel_set), rows in itertools.groupby(declared, key=lambda row: row[:2]):
                known.add(name_of(meter), channel_set, [channel for _, _, channel in rows])
            after = declared[-1][0]
        after = FIRST
        while offsets := await store.offsets(after=after, limit=PAGE_SIZE):
            for meter, offset_min in offsets:
                known.set_offset(name_of(meter), offset_min)
            after = offsets[-1][0]

    async def drain(self, deadline_s: float) -> bool:
        """Take in nothing new; wait until what was taken in is committed and answered.

        Meters that come meanwhile are told to come later. False if time ran out (s).
        """
        self._is_draining = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._is_idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Give the socket back and end every task."""
        if self._check_timer is not None:
            self._check_timer.cancel()
        if self._link is not None:
            self._link.settle()  # Answers to the last commits, if they are still to be sent.
            self._link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.clones.stop()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(NotAnswered("the head-end is stopping", is_timeout=True))

    def abandon(self) -> None:
        """Close the socket as a kill would: what is not sent yet is never sent."""
        if self._link is not None:
            self._link.close()

    def receive_datagram(self, data: bytes, peer: MeshPeer) -> None:
        """Take one datagram that came by the mesh. Never raises on bad data."""
        self._stack.receive_datagram(data, peer, now=self._require_link().now())
        self._settle_soon()

    # For the flows above

    async def ask(
        self, meter: Eui64, message: Message, *, deadline_s: float
    ) -> tuple[Message, str]:
        """Send a request to a meter; its answer, and the path that it took.

        Raises Unreachable when nothing could be sent, NotAnswered when nothing authentic came.
        """
        link = self._require_link()
        path = self._known.path_of(meter)
        peer = None if path is None else peer_of(path)
        if path is None or peer is None:
            raise Unreachable("the meter has not been heard yet")
        if isinstance(peer, MeshPeer):
            peer = dataclasses.replace(peer, priority=priority_of(message))
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        try:
            request = self._stack.request(
                meter, message, peer, now=link.now(), response_wait=deadline_s
            )
        except (LocalProtocolError, TableFull) as error:
            raise Unreachable(str(error)) from error
        self._answers[request] = future
        link.settle()
        try:
            answer = await asyncio.wait_for(future, deadline_s)
            # By the mesh it may have come by another collector than it was asked by.
            return answer, path if self._elsewhere is None else self._known.path_of(meter) or path
        except NotAnswered as error:
            if error.is_timeout:
                self._note_silence(meter, peer)
            raise
        except TimeoutError:
            self._note_silence(meter, peer)
            raise NotAnswered(f"silent for {deadline_s:g} s", is_timeout=True) from None
        finally:
            self._answers.pop(request, None)
            self._stack.cancel(request, now=link.now())

    def _hop_count(self, peer: Peer) -> int | None:
        if self._elsewhere is None or not isinstance(peer, MeshPeer):
            return None
        return self._elsewhere.hop_count(peer)

    def path_of(self, meter: Eui64) -> str | None:
        """The path on which a meter was last heard."""
        return self._known.path_of(meter)

    def end_session(self, meter: Eui64) -> None:
        """Refuse a meter's messages from now on, until it opens a new session.

        What it sent before is still answered if that needs no number; what is asked of it fails.
        """
        self._end_session(meter)

    def resume_session(self, session: StoredSession) -> None:
        """Take a stored session up again, unless the meter has opened another meanwhile."""
        if self._stack.session_of(session.meter) is not None:
            return
        context = restored(session, fence=self._line())
        if context.next_sequence_number <= SEQUENCE_NUMBER_MAX:
            self._stack.add_session(
                session.meter, context, is_window_doubtful=session.is_window_doubtful
            )

    @property
    def counters(self) -> dict[str, int]:
        """Uplinks of every kind together, and sessions opened; what never happened is absent."""
        tallies = self.ledger.tallies.values()
        counters = {
            "sessions": self._opened_count,
            "received": sum(tally.received for tally in tallies),
            "stored": sum(tally.stored for tally in tallies),
            "answered": sum(tally.answered for tally in tallies),
        }
        return {name: count for name, count in counters.items() if count}

    @property
    def clock_doubt(self) -> str | None:
        """Why our own clock is not believed, or None if it is. No time is served meanwhile."""
        return self._clock_doubt

    @property
    def tallies(self) -> dict[str, Tally]:
        """What became of the uplinks of each kind."""
        return {kind.value: tally for kind, tally in self.ledger.tallies.items()}

    @property
    def refused_uplinks(self) -> dict[tuple[str, str], int]:
        """The uplinks that were refused, by kind and reason."""
        refused = self.ledger.refused
        return {(kind.value, reason): count for (kind, reason), count in refused.items()}

    @property
    def oldest_pending_s(self) -> float:
        """How long the oldest uplink has waited for its commit; 0 when none waits."""
        return self.ledger.oldest_age(now=self._require_link().now())

    @property
    def stored_records(self) -> dict[tuple[str, str], int]:
        """Records that were committed, by their kind and what became of them."""
        return {
            (RECORD_NAMES[kind], kept.name.lower()): count
            for (kind, kept), count in self._records.items()
        }

    @property
    def session_count(self) -> int:
        """Meters with whom there is a session."""
        return self._stack.session_count

    @property
    def link_counters(self) -> dict[str, int]:
        """What the socket took in and sent, and what it dropped."""
        return dict(self._require_link().counters)

    @property
    def refused(self) -> dict[str, int]:
        """What was refused since the start, by `layer: reason`."""
        model = self._refused.copy()
        for (_, reason), count in self.ledger.refused.items():
            model[reason] += count
        return {
            **self._stack.refused,
            **{f"model: {reason}": count for reason, count in model.items()},
        }

    @property
    def flagged(self) -> Counter[str]:
        """What was stored though something is odd about it, by reason."""
        return self.intake.flagged + self.clones.flagged

    @property
    def quarantined(self) -> Counter[str]:
        """What was set aside, by reason."""
        return self.intake.quarantined

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded queue's name, its depth and its bound."""
        return {
            **self._stack.depths,
            "store queue": self._store.depth,
            "signs of clones": self.clones.depth,
        }

    # What the stack reports

    def _on_event(self, event: Event) -> None:
        match event:
            case SecureRequest():
                self._receive(event)
            case SecureResponse():
                self._note_answer(event)
                self._resolve(event.request, event.message)
            case RequestFailed():
                self._fail(event)
            case CredentialWanted():
                self._spawn(self._provide_credential(event))
            case SessionProposed():
                self._keep_session(event)
            case NumbersWanted():
                self._reserve(event)
            case NumberTaken():
                self.clones.number_taken(event)
            case StrangeSession():
                self.clones.session_strange(event)
            case SessionWorn():
                self._spawn(self._forget_session(event.identity))
            case HandshakeFailed() | ObservationStale() | ObservationEnded():
                pass  # This side begins no handshake, and nothing is observed yet.
            case _:
                assert_never(event)

    def _receive(self, request: SecureRequest) -> None:
        """From an authentic request to its answer after the commit."""
        kind = kind_of(request.message)
        self.ledger.receive(kind)
        meter = Eui64(request.identity)
        received_ms = max(0, int(self._wall() * 1000))
        received_at = self._require_link().now()
        path = path_of(self._note_heard(request.peer, meter))
        path_before = self._known.hear(meter, path) or ""
        if self._is_draining:
            self.ledger.refuse(kind, "stopping")
            self._respond(request, _later(), is_durable=False)
            return
        try:
            taken = self.intake.take(
                Uplink(meter, request.message, received_ms, self._clock_doubt is None)
            )
        except Refused as refused:
            self.ledger.refuse(kind, refused.reason)
            self._respond(request, refused.answer, is_durable=False)
            return
        if not taken.records:
            self.ledger.answer(kind)
            self._respond(request, taken.answer((), 0), is_durable=False)
            return

        def committed(outcome: Outcome) -> None:
            self._finish_one()
            if isinstance(outcome, tuple):
                self.ledger.store(kind, ticket)
                for record, kept in zip(taken.records, outcome, strict=True):
                    self._records[type(record), kept] += 1
                held_ms = int((self._require_link().now() - received_at) * 1000)
                self._respond(request, taken.answer(outcome, held_ms), is_durable=True)
                self._note_success()
                if request.is_behind:
                    self.clones.number_behind(meter, request.message, path, path_before)
                if self.on_heard is not None:
                    self.on_heard(meter)
            else:
                self.ledger.fail(kind, ticket, "store failed")
                self._note_failure(outcome)
                self._respond(request, _later(), is_durable=False)

        write = KeepDelivery(
            meter,
            request.recipient_id,
            request.window,
            path,
            received_ms,
            taken.records,
            request.is_behind,
        )
        ticket = self.ledger.wait(kind, now=self._require_link().now())
        try:
            self._store.submit(write, committed)
        except StoreBusy:
            self.ledger.fail(kind, ticket, "store busy")
            self._respond(request, _later(), is_durable=False)
        else:
            self._begin_one()

    def _respond(self, request: SecureRequest, answer: Message, *, is_durable: bool) -> None:
        link = self._require_link()
        try:
            self._stack.respond(request.exchange, answer, is_durable=is_durable, now=link.now())
        except LocalProtocolError:
            # The peer asks again; what was committed is found repeated then.
            self._refused["answer not sent: exchange over"] += 1
        except TableFull:
            self._refused["answer not sent: table full"] += 1
        self._settle_soon()

    def _settle_soon(self) -> None:
        """Send once for all that a group of commits answers, not for each."""
        if not self._is_settle_due:
            self._is_settle_due = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._is_settle_due = False
        self._require_link().settle()

    def _resolve(self, request: RequestId, message: Message) -> None:
        future = self._answers.get(request)
        if future is not None and not future.done():
            future.set_result(message)

    def _fail(self, event: RequestFailed) -> None:
        future = self._answers.get(event.request)
        if future is not None and not future.done():
            is_timeout = event.reason.startswith("no ")
            future.set_exception(NotAnswered(event.reason, is_timeout=is_timeout))

    # Handshakes and sessions

    async def _provide_credential(self, wanted: CredentialWanted) -> None:
        name = meter_named(wanted.id_cred)
        try:
            meter = None if name is None else await self._store.find_meter(name)
        except StoreError:
            meter = None
        credential = None
        if meter is not None and meter.state is MeterState.ENROLLED:
            credential = meter_credential(meter.id, meter.public_key)
        elif meter is not None:
            self._refused[f"handshake of a {meter.state.word} meter"] += 1
        link = self._require_link()
        try:
            self._stack.provide_credential(wanted, credential, now=link.now())
        except LocalProtocolError:
            self._refused["handshake over before its credential was found"] += 1
        link.settle()

    def _keep_session(self, proposed: SessionProposed) -> None:
        meter = meter_named(proposed.id_cred)
        assert meter is not None, "only a meter's credential is ever provided"
        link = self._require_link()
        parameters = proposed.parameters
        session = StoredSession(
            meter,
            parameters.recipient_id,
            parameters.sender_id,
            parameters.master_secret,
            parameters.master_salt,
            AES_CCM_16_64_128,
            SEQUENCE_BLOCK,
            ReplayWindow().state,
            int(self._wall()),
        )
        path = path_of(proposed.peer)
        if self._is_draining:
            self._refused["stopping"] += 1
            self._stack.reject_session(proposed, retry_after=LATER_S, now=link.now())
            return

        def committed(outcome: Outcome) -> None:
            self._finish_one()
            if isinstance(outcome, StoreError):
                self._refused["store failed"] += 1
                self._note_failure(outcome)
                self._stack.reject_session(proposed, retry_after=LATER_S, now=link.now())
            elif isinstance(outcome, NotEnrolled):
                # It was suspended or revoked while its handshake was under way.
                self._refused["session of a meter that is not enrolled any more"] += 1
                self._stack.reject_session(proposed, retry_after=LATER_S, now=link.now())
            else:
                self._opened_count += 1
                self._log.info("session opened", meter=format_eui64(meter), path=path)
                self._known.hear(meter, path)
                self._stack.accept_session(
                    proposed, meter, reserved_until=SEQUENCE_BLOCK, now=link.now()
                )
            link.settle()

        try:
            self._store.submit(KeepSession(session, path), committed)
        except StoreBusy:
            self._refused["store busy"] += 1
            self._stack.reject_session(proposed, retry_after=LATER_S, now=link.now())
        else:
            self._begin_one()

    async def _forget_session(self, identity: bytes) -> None:
        """A session that must not be used any more does not come back after a restart, either."""
        meter = Eui64(identity)
        self._log.warning("session worn out", meter=format_eui64(meter))
        try:
            await self._store.commit(EndSessions((meter,)))
        except StoreError:
            self._refused["store failed"] += 1

    def _reserve(self, wanted: NumbersWanted) -> None:
        link = self._require_link()
        context = self._stack.session_of(wanted.identity)
        if context is None or context.recipient_id != wanted.recipient_id:
            return  # The session ended while its numbers waited.

        def committed(outcome: Outcome) -> None:
            if isinstance(outcome, StoreError):
                again()
                return
            if isinstance(outcome, Reserved) and outcome.total >= NUMBERS_MAX:
                # The meter is told that nobody knows its session, and opens a new one.
                self._refused["session given up: its keys are worn"] += 1
                self._stack.remove_session(wanted.identity)
                self._spawn(self._forget_session(wanted.identity))
            else:
                self._stack.numbers_reserved(wanted.recipient_id, wanted.until, now=link.now())
            link.settle()

        def again(after_s: float = 0.0) -> None:
            # Nothing may go out under a number that is not reserved, so it waits as long as needed.
            wait_s = max(RESERVE_RETRY_S, after_s)
            asyncio.get_running_loop().call_later(wait_s, self._reserve, wanted)

        above = wanted.until - self._line()
        if above > LINE_WAIT_MAX_S * NUMBER_RATE:
            # The clock was far ahead once, or is far behind: the meter joins anew.
            self._refused["session given up: its numbers are above the line"] += 1
            self._stack.remove_session(wanted.identity)
            link.settle()
            return
        if above > 0:  # There a start from an older backup would use them once more.
            again(above / NUMBER_RATE)
            return
        try:
            write = ReserveNumbers(wanted.recipient_id, wanted.until, SEQUENCE_BLOCK)
            self._store.submit(write, committed)
        except StoreBusy:
            again()

    # Small things

    def _note_heard(self, peer: Peer, meter: Eui64) -> Peer:
        """The peer as it is found from now on."""
        if self._elsewhere is not None and isinstance(peer, MeshPeer):
            return self._elsewhere.heard(peer, meter)
        return peer

    def _note_answer(self, event: SecureResponse) -> None:
        if isinstance(event.peer, MeshPeer):
            meter = Eui64(event.identity)
            self._known.hear(meter, path_of(self._note_heard(event.peer, meter)))

    def _note_silence(self, meter: Eui64, peer: Peer) -> None:
        if self._elsewhere is not None and isinstance(peer, MeshPeer):
            self._elsewhere.unanswered(meter)

    def _end_session(self, meter: Eui64) -> None:
        """Refuse a meter's messages from now on, until it opens a new session."""
        self._stack.remove_session(meter)
        self._settle_soon()

    def _line(self) -> int:
        """The line that sender sequence numbers stay below.

        It rises with the loop's clock from where UTC was at the start, too: if UTC is set back
        meanwhile, meters are asked all the same.
        """
        elapsed = asyncio.get_running_loop().time() - self._start
        return number_fence(max(self._wall(), self._wall_at_start + elapsed))

    def _note_failure(self, outcome: Outcome) -> None:
        """Log the first commit of a row that failed: thousands may follow it."""
        if not self._is_store_failing:
            self._log.error("store failed", error=str(outcome))
        self._is_store_failing = True

    def _note_success(self) -> None:
        if self._is_store_failing:
            self._log.info("store takes writes again")
        self._is_store_failing = False

    def check(self) -> None:
        """Log a difference between what came and what became of it, once per change."""
        tallies = self.ledger.tallies
        differences = {kind.value: t.difference for kind, t in tallies.items() if t.difference}
        if differences == self._differences:
            return
        self._differences = differences
        if differences:
            self._log.error("uplinks do not add up", difference=differences)
        else:
            self._log.info("uplinks add up again")

    def _check_clock(self) -> None:
        """Log when a doubt of our own clock comes or goes."""
        doubt = self._own_clock.doubt
        if (doubt is None) != (self._clock_doubt is None):
            if doubt is None:
                self._log.info("own clock is believed again")
            else:
                self._log.error("own clock is in doubt, no time is served", reason=doubt)
        self._clock_doubt = doubt

    def _keep_checking(self) -> None:
        self.check()
        self._check_clock()
        loop = asyncio.get_running_loop()
        self._check_timer = loop.call_later(CHECK_S, self._keep_checking)

    def _begin_one(self) -> None:
        self._pending_count += 1
        self._is_idle.clear()

    def _finish_one(self) -> None:
        self._pending_count -= 1
        if not self._pending_count:
            self._is_idle.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _require_link(self) -> UdpLink[Event]:
        assert self._link is not None, "start() comes first"
        return self._link


def number_fence(utc: float) -> int:
    """A sender sequence number that none used before `utc` reaches.

    A restored backup does not know which numbers were used since. So reservations stay below a
    line that rises with time, and a start begins at the line: whatever was forgotten lies below.
    See decision 7.
    """
    return max(NUMBERS_FREE, int((utc - NUMBER_EPOCH) * NUMBER_RATE))


def restored(session: StoredSession, *, fence: int = 0) -> SecurityContext:
    """A stored session's context: numbers go on at the reserved bound (RFC 8613 appendix B.1.1).

    They go on at `fence` if that is higher; at the end of their space none is left.
    """
    context = SecurityContext.derive(
        master_secret=session.master_secret,
        master_salt=session.master_salt,
        sender_id=session.sender_id,
        recipient_id=session.recipient_id,
        algorithm=session.algorithm,
    )
    context.resume(reserved_until=max(session.reserved_until, fence), window=session.window)
    return context


def _later() -> Message:
    return Message.response(Code.SERVICE_UNAVAILABLE, max_age=LATER_S)
