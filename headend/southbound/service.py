"""The head-end's side of every meter's conversation: drives the stack, waits for the store.

Gives   what meters send to the intake and its records to the store; the answer after the commit
Raises  Unreachable and NotAnswered from `ask` (headend/domain/asking.py)
Limit   the stack's tables and the store's queue; what does not fit is answered "later" (5.03)
Never   says success before the commit
"""

from __future__ import annotations

import asyncio
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
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.resources import REGISTRATION, REPORT, TIME
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import meter_credential, meter_named
from amistack.session.handshakes import WELL_KNOWN_EDHOC, CredentialWanted, SessionProposed
from amistack.session.oscore import AES_CCM_16_64_128, ReplayWindow, SecurityContext
from amistack.stack import (
    SEQUENCE_BLOCK,
    Event,
    HandshakeFailed,
    NumbersWanted,
    RequestFailed,
    RequestId,
    SecureRequest,
    SecureResponse,
    Stack,
)
from headend.domain.asking import NotAnswered, Unreachable
from headend.domain.meters import ChannelRecord, MeterState, StoredSession
from headend.southbound.intake import ChannelSets, Intake, Refused, Uplink
from headend.southbound.paths import path_of, peer_of
from headend.store.interface import KeepDelivery, KeepSession, Outcome, ReserveNumbers, Store

LATER_S: Final = 30
"""Seconds after which a meter may come again when the store is busy or failing."""
RETRY_S: Final = 1.0

LINKS: Final = (
    Link(f"/{REGISTRATION}", ("amistack.registration",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{REPORT}", ("amistack.report",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{TIME}", ("amistack.time",), content_formats=(CONTENT_FORMAT_V1,)),
    Link(f"/{WELL_KNOWN_EDHOC}", ("core.edhoc",)),
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
    ) -> None:
        """`wall` is UTC in seconds; `dice` draws what need not be secret."""
        self._open_link = open_link
        self._store = store
        self._wall = wall
        self._channel_sets = ChannelSets()
        self._paths: dict[Eui64, str] = {}
        self._stack = Stack(key=key, entropy=entropy, dice=dice, links=LINKS)
        self._link: UdpLink[Event] | None = None
        self._answers: dict[RequestId, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_count = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_draining = False
        self._is_store_failing = False
        self._log = telemetry.logger()
        self.intake = Intake(self._channel_sets)
        self.counters: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    # Start and stop

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Take up where the store left off, then listen. Gives the address bound to.

        Raises LinkError when the socket cannot be had, StoreError when the store cannot be read.
        """
        for session in await self._store.sessions():
            self._stack.add_session(session.meter, restored(session))
        for location in await self._store.locations():
            self._paths[location.meter] = location.path
        sets: dict[tuple[Eui64, int], list[ChannelRecord]] = {}
        for meter, channel_set, channel in await self._store.channel_sets():
            sets.setdefault((meter, channel_set), []).append(channel)
        for (meter, channel_set), channels in sets.items():
            self._channel_sets.add(meter, channel_set, channels)
        for meter, offset_min in await self._store.offsets():
            self._channel_sets.set_offset(meter, offset_min)
        self._link = await self._open_link(self._stack, self._on_event, host=host, port=port)
        return self._link.address

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
        if self._link is not None:
            self._link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(NotAnswered("the head-end is stopping", is_timeout=True))

    # For the flows above

    async def ask(
        self, meter: Eui64, message: Message, *, deadline_s: float
    ) -> tuple[Message, str]:
        """Send a request to a meter; its answer, and the path that it took.

        Raises Unreachable when nothing could be sent, NotAnswered when nothing authentic came.
        """
        link = self._require_link()
        path = self._paths.get(meter)
        peer = None if path is None else peer_of(path)
        if path is None or peer is None:
            raise Unreachable("the meter has not been heard yet")
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
            return await asyncio.wait_for(future, deadline_s), path
        except TimeoutError:
            raise NotAnswered(f"silent for {deadline_s:g} s", is_timeout=True) from None
        finally:
            self._answers.pop(request, None)
            self._stack.cancel(request, now=link.now())

    def path_of(self, meter: Eui64) -> str | None:
        """The path on which a meter was last heard."""
        return self._paths.get(meter)

    @property
    def refused(self) -> dict[str, int]:
        """What was refused since the start, by `layer: reason`."""
        model = {f"model: {reason}": count for reason, count in self._refused.items()}
        return {**self._stack.refused, **model}

    @property
    def flagged(self) -> Counter[str]:
        """What was stored though something is odd about it, by reason."""
        return self.intake.flagged

    @property
    def quarantined(self) -> Counter[str]:
        """What was set aside, by reason."""
        return self.intake.quarantined

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded queue's name, its depth and its bound."""
        return {**self._stack.depths, "store queue": self._store.depth}

    # What the stack reports

    def _on_event(self, event: Event) -> None:
        match event:
            case SecureRequest():
                self._receive(event)
            case SecureResponse():
                self._resolve(event.request, event.message)
            case RequestFailed():
                self._fail(event)
            case CredentialWanted():
                self._spawn(self._provide_credential(event))
            case SessionProposed():
                self._keep_session(event)
            case NumbersWanted():
                self._reserve(event)
            case HandshakeFailed():
                pass  # This side never begins one.
            case _:
                assert_never(event)

    def _receive(self, request: SecureRequest) -> None:
        """From an authentic request to its answer after the commit."""
        self.counters["received"] += 1
        meter = Eui64(request.identity)
        received_ms = int(self._wall() * 1000)
        path = path_of(request.peer)
        self._paths[meter] = path
        if self._is_draining:
            self._refused["stopping"] += 1
            self._respond(request, _later(), is_durable=False)
            return
        try:
            taken = self.intake.take(Uplink(meter, request.message, received_ms))
        except Refused as refused:
            self._refused[refused.reason] += 1
            self._respond(request, refused.answer, is_durable=False)
            return
        if not taken.records:
            self.counters["answered"] += 1
            self._respond(request, taken.answer((), 0), is_durable=False)
            return

        def committed(outcome: Outcome) -> None:
            self._finish_one()
            if isinstance(outcome, tuple):
                self.counters["stored"] += 1
                held_ms = max(0, int(self._wall() * 1000) - received_ms)
                self._respond(request, taken.answer(outcome, held_ms), is_durable=True)
                self._is_store_failing = False
            else:
                self._note_failure(outcome)
                self._respond(request, _later(), is_durable=False)

        write = KeepDelivery(
            meter, request.recipient_id, request.window, path, received_ms, taken.records
        )
        try:
            self._store.submit(write, committed)
        except StoreBusy:
            self._refused["store busy"] += 1
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
        link.settle()

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
                self._note_failure(outcome)
                self._stack.reject_session(proposed, retry_after=LATER_S, now=link.now())
            else:
                self.counters["sessions"] += 1
                self._log.info("session opened", meter=format_eui64(meter), path=path)
                self._paths[meter] = path
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

    def _reserve(self, wanted: NumbersWanted) -> None:
        link = self._require_link()

        def committed(outcome: Outcome) -> None:
            if isinstance(outcome, StoreError):
                again()
            else:
                self._stack.numbers_reserved(wanted.recipient_id, wanted.until, now=link.now())
                link.settle()

        def again() -> None:
            # Nothing may go out under a number that is not reserved, so it waits as long as needed.
            asyncio.get_running_loop().call_later(RETRY_S, self._reserve, wanted)

        try:
            self._store.submit(ReserveNumbers(wanted.recipient_id, wanted.until), committed)
        except StoreBusy:
            again()

    # Small things

    def _note_failure(self, outcome: Outcome) -> None:
        """Count a commit that failed, and log the first of a row: thousands may follow it."""
        self._refused["store failed"] += 1
        if not self._is_store_failing:
            self._log.error("store failed", error=str(outcome))
        self._is_store_failing = True

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


def restored(session: StoredSession) -> SecurityContext:
    """A stored session's context: numbers go on at the reserved bound (RFC 8613 appendix B.1.1)."""
    context = SecurityContext.derive(
        master_secret=session.master_secret,
        master_salt=session.master_salt,
        sender_id=session.sender_id,
        recipient_id=session.recipient_id,
        algorithm=session.algorithm,
    )
    context.replay_window = ReplayWindow.restore(*session.window)
    context.next_sequence_number = context.reserved_until = session.reserved_until
    return context


def _later() -> Message:
    return Message.response(Code.SERVICE_UNAVAILABLE, max_age=LATER_S)
