"""A server's side of block-wise transfer, for every peer, as a machine without I/O.

Spec    RFC 7959 sections 2.3 to 2.9, with request bodies taken whole or not at all (2.5, atomic);
        RFC 9175 section 3.3 (Request-Tag) and 3.8 (ETag)
In      `receive`, `respond`, `handle_timer`
Out     what `receive` and `respond` return; `next_timer`
Raises  LocalProtocolError from `respond` on what cannot be sent; nothing on what comes in: a peer's
        mistake is answered and counted by reason in `refused`
Limit   `Limits`; about 1.2 kB beside the octets of each body and response that is kept
Never   knows sockets, tokens or protection; hands up a body of several blocks twice; sorts out
        repeated messages of one block, which the layer below does
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Final

from amistack.coap.blockwise.assembly import Assembly, Place
from amistack.coap.blockwise.block import (
    BAD_OPTION,
    BLOCK_NUMBER_MAX,
    BLOCK_SIZE_MAX,
    BODY_SIZE_MAX,
    SAFE_METHODS,
    BlockOption,
    check_block_size,
    find_block,
    has_block_options,
    operation_key,
    without,
)
from amistack.coap.blockwise.shelf import Bounds, Key, Shelf
from amistack.coap.codes import Code, is_response, is_success
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, uint_value
from amistack.errors import CoapError, LocalProtocolError
from amistack.machine import Peer
from amistack.values import frozen_value

ETAG_SIZE: Final = 8
DIGEST_SIZE: Final = 16

NOT_FULL: Final = "block of another size"
MISSING: Final = "block missing before this one"
TOO_LARGE: Final = "body too large"
TOO_MANY: Final = "too many bodies under way"
UNANSWERED: Final = "request not answered yet"
BEYOND_THE_END: Final = "block beyond the end"
FORGOTTEN: Final = "response no longer kept"
BOTH_WAYS: Final = "block of a response asked for with a block of the request"


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a server's tables, and what happens at each. Octets are of payloads."""

    body_size_max: int = BODY_SIZE_MAX
    """Octets of one request body; 4.13 with Size1 beyond, as soon as Size1 or a block says so."""
    bodies_max: int = 1_024
    """Bodies under way; then the stalest that is idle gives way, else a new one gets 5.03."""
    bodies_of_peer_max: int = 4
    """Bodies under way of one peer; its stalest gives way, whose next block gets 4.08."""
    body_octets_max: int = 16 * 1024 * 1024
    """Octets of all bodies under way; as with `bodies_max`, also for a further block."""
    body_octets_of_peer_max: int = 4 * BODY_SIZE_MAX
    """Octets of the bodies of one peer; as with `bodies_of_peer_max`."""
    responses_max: int = 4_096
    """Responses kept for their further blocks; the stalest gives way. With 0 none is kept."""
    responses_of_peer_max: int = 4
    """Responses kept for one peer; its stalest gives way."""
    response_octets_max: int = 32 * 1024 * 1024
    """Octets of all responses kept; the stalest gives way."""
    response_octets_of_peer_max: int = 4 * BODY_SIZE_MAX
    """Octets kept for one peer; its stalest gives way, and a larger response is not kept."""
    lifetime: float = 247.0
    """Seconds that a body or response is kept after its last block: EXCHANGE_LIFETIME."""
    idle_min: float = 10.0
    """Seconds without a block until a body may give way to another peer's."""
    busy_max_age: int = 30
    """Seconds that a peer is asked to wait by 5.03."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a response has to keep to: where it starts, and what it repeats."""

    key: Key
    offset: int = 0
    size: int | None = None
    """Of the Block2 that was asked for, or None where there was no such option."""
    wants_size: bool = False
    block1: BlockOption | None = None
    last: bytes | None = None
    """The payload of a body's last block, if there were others before it."""
    asked: bytes | None = None
    """Digest of the payload that is part of the question (FETCH)."""


@frozen_value(frozen=True, slots=True)
class Delivered:
    """A whole request, without options of this layer, for the resource to answer.

    Answer with `respond`, once; or again for every notification where the request registers.
    """

    peer: Peer
    request: Message
    terms: _Terms | None = None
    """This layer's own."""


@dataclass(slots=True)
class _Kept:
    """A response, for its further blocks and for a repeated last block of its request."""

    terms: _Terms
    response: Message | None = None
    """None until there is one."""
    size: int = BLOCK_SIZE_MAX
    """Of the block that answered."""


class BlockServer:
    """Request bodies assembled, responses sliced, for all peers of a server."""

    def __init__(self, *, limits: Limits | None = None, block_size: int = BLOCK_SIZE_MAX) -> None:
        """`block_size` (octets): of a response's blocks, and preferred for a request's.

        Raises LocalProtocolError where it is no size of a block.
        """
        check_block_size(block_size)
        self.limits = limits or Limits()
        self.refused: Counter[str] = Counter()
        self._block_size = block_size
        bounds = self.limits
        self._bodies: Shelf[Assembly] = Shelf(
            Bounds(
                bounds.bodies_max,
                bounds.body_octets_max,
                bounds.bodies_of_peer_max,
                bounds.body_octets_of_peer_max,
            ),
            lifetime=bounds.lifetime,
            idle_min=bounds.idle_min,
        )
        self._responses: Shelf[_Kept] = Shelf(
            Bounds(
                bounds.responses_max,
                bounds.response_octets_max,
                bounds.responses_of_peer_max,
                bounds.response_octets_of_peer_max,
            ),
            lifetime=bounds.lifetime,
            idle_min=0.0,
        )

    # Commands from above.

    def respond(
        self, delivered: Delivered, response: Message, *, now: float, block_size: int | None = None
    ) -> Message:
        """The message that answers: `response`, or the block of it that is due.

        A larger one is kept for its further blocks, with an ETag where it has none. `block_size`:
        octets, for this peer. Raises LocalProtocolError on a response with Block options, or one
        that is too large for any block number.
        """
        size = self._block_size if block_size is None else block_size
        terms = delivered.terms
        if terms is None:
            if len(response.payload) <= size and not has_block_options(response):
                return response
            terms = self._terms(delivered)
        if not is_response(response.code):
            raise LocalProtocolError(f"code {response.code:#04x} is not a response's")
        for option in response.options:
            if option.number in (OptionNumber.BLOCK1, OptionNumber.BLOCK2):
                raise LocalProtocolError(f"option {option.number} is this machine's to set")
        check_block_size(size)
        size = size if terms.size is None else min(size, terms.size)
        if len(response.payload) > (BLOCK_NUMBER_MAX + 1) * size:
            raise LocalProtocolError(f"{len(response.payload)} octets in blocks of {size}")
        self._forget_expired(now=now)

        is_large = len(response.payload) > size
        if is_large and response.option(OptionNumber.ETAG) is None:
            etag = Option(OptionNumber.ETAG, etag_of(response))
            response = _with_options(response, [etag])
        if is_large or terms.last is not None:
            octets = len(response.payload) + len(terms.last or b"")
            self._put(_Kept(terms, response, size), octets, now=now)
        else:
            # What is there answers an earlier request.
            self._responses.drop(terms.key)
        return self._slice(response, terms, terms.offset, size)

    # Inputs from below.

    def receive(
        self, peer: Peer, request: Message, *, now: float, block_size: int | None = None
    ) -> Delivered | Message:
        """The whole request, for the resource; or the answer to a block of one.

        `peer`: any name of the peer that is good for as long as an operation. `block_size`: octets,
        preferred for this peer's blocks. Never raises on what a peer sends.
        """
        if not has_block_options(request) and len(request.payload) <= self.limits.body_size_max:
            return Delivered(peer, request)
        self._forget_expired(now=now)
        try:
            block1 = find_block(request.options, OptionNumber.BLOCK1)
            block2 = find_block(request.options, OptionNumber.BLOCK2)
        except CoapError as error:
            code = Code.BAD_OPTION if error.reason == BAD_OPTION else Code.BAD_REQUEST
            return self._refuse(error.reason, code)
        if block1 is not None:
            return self._receive_part(peer, request, block1, block2, block_size, now)
        if len(request.payload) > self.limits.body_size_max:
            return self._refuse_size()
        if block2 is None:
            return Delivered(peer, request)
        return self._receive_question(peer, request, block2, block_size, now)

    def handle_timer(self, *, now: float) -> None:
        """Forget what nobody asked for in its lifetime. Early, late or twice is harmless."""
        self._forget_expired(now=now)

    def forget(self, peer: Peer) -> None:
        """Drop whatever is kept for `peer`: its session ended, or another one began."""
        self._bodies.drop_all(peer)
        self._responses.drop_all(peer)

    # Outputs, for the driver to collect.

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None for not until something else happens."""
        times = [
            due
            for due in (self._bodies.next_timer(), self._responses.next_timer())
            if due is not None
        ]
        return min(times, default=None)

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded table's name, its present depth and its bound."""
        return {
            "bodies under way": (len(self._bodies), self.limits.bodies_max),
            "octets of bodies": (self._bodies.octets, self.limits.body_octets_max),
            "responses kept": (len(self._responses), self.limits.responses_max),
            "octets of responses": (self._responses.octets, self.limits.response_octets_max),
        }

    @property
    def dropped(self) -> dict[str, int]:
        """What was forgotten before its end, by table and cause."""
        return {
            "bodies that gave way": self._bodies.evicted_count,
            "bodies that expired": self._bodies.expired_count,
            "responses that gave way": self._responses.evicted_count,
            "responses that expired": self._responses.expired_count,
        }

    # Blocks of requests

    def _receive_part(
        self,
        peer: Peer,
        request: Message,
        block: BlockOption,
        block2: BlockOption | None,
        block_size: int | None,
        now: float,
    ) -> Delivered | Message:
        """A block of a request's body."""
        payload = request.payload
        is_full = len(payload) == block.size
        if len(payload) > block.size or (block.has_more and not is_full):
            return self._refuse(NOT_FULL, Code.BAD_REQUEST)
        if block2 is not None and block2.number and request.code not in SAFE_METHODS:
            # Section 2.7 leaves Block1 out there; doing it all again would be another act.
            return self._refuse(BOTH_WAYS, Code.BAD_REQUEST)
        key = (peer, operation_key(request))
        size_max = self.limits.body_size_max
        size_told = request.uint_option(OptionNumber.SIZE1)
        if block.offset + len(payload) > size_max or (size_told or 0) > size_max:
            return self._refuse_size()

        body = self._bodies.find(key)
        place = None if body is None else body.place_of(block, payload)
        if block.number == 0:
            options = _own_options(request)
            # Another condition is another request, even if the body begins alike.
            if body is None or place is None or body.options != options:
                body, place = Assembly(options), Place.NEXT
        if body is None or place is None:
            kept = self._responses.find(key)
            if kept is not None and (kept.terms.block1, kept.terms.last) == (block, payload):
                return self._repeat(kept, now=now)
            return self._refuse(MISSING, Code.REQUEST_ENTITY_INCOMPLETE)

        size = body.size_with(place, block, payload)
        if block.has_more and not self._bodies.put(key, body, size, now=now):
            return self._refuse_for_now(TOO_MANY)
        body.take(place, block, payload)
        if block2 is not None:
            body.asked_size = block2.size
        body.wants_size |= request.option(OptionNumber.SIZE2) is not None
        if block.has_more:
            preferred = self._block_size if block_size is None else block_size
            echo = BlockOption(block.number, has_more=True, size=min(block.size, preferred))
            return Message.response(
                Code.CONTINUE, options=[Option(OptionNumber.BLOCK1, echo.encode())]
            )

        self._bodies.drop(key)
        terms = _Terms(
            key,
            offset=0 if block2 is None else block2.offset,
            size=body.asked_size,
            wants_size=body.wants_size,
            block1=block,
            last=payload if block.number else None,
        )
        if terms.last is not None:
            self._put(_Kept(terms), len(terms.last), now=now)
        whole = Message(
            request.code,
            request.type,
            request.message_id,
            request.token,
            body.options,
            bytes(body.octets),
        )
        return Delivered(peer, whole, terms)

    def _repeat(self, kept: _Kept, *, now: float) -> Message:
        """The answer to a last block that came before."""
        if kept.response is None:
            return self._refuse_for_now(UNANSWERED)
        self._responses.touch(kept.terms.key, now=now)
        return self._slice(kept.response, kept.terms, kept.terms.offset, kept.size)

    # Blocks of responses

    def _receive_question(
        self,
        peer: Peer,
        request: Message,
        block: BlockOption,
        block_size: int | None,
        now: float,
    ) -> Delivered | Message:
        """A request that says which block of the response it wants."""
        key = (peer, operation_key(request))
        is_fetch = request.code == Code.FETCH and bool(request.payload)
        terms = _Terms(
            key,
            offset=block.offset,
            size=block.size,
            wants_size=request.option(OptionNumber.SIZE2) is not None,
            asked=_digest(request.payload) if is_fetch else None,
        )
        if block.number:
            kept = self._responses.find(key)
            if (
                kept is not None
                and kept.response is not None
                and (not is_fetch or kept.terms.asked == terms.asked)
            ):
                self._responses.touch(key, now=now)
                size = self._block_size if block_size is None else block_size
                return self._slice(kept.response, terms, terms.offset, min(size, block.size))
            if request.code != Code.GET and not is_fetch:
                # The question came with an earlier request, and asking again may be an act.
                return self._refuse(FORGOTTEN, Code.REQUEST_ENTITY_INCOMPLETE)
        whole = Message(
            request.code,
            request.type,
            request.message_id,
            request.token,
            _own_options(request),
            request.payload,
        )
        return Delivered(peer, whole, terms)

    def _terms(self, delivered: Delivered) -> _Terms:
        """The terms of a request that had no block options."""
        request = delivered.request
        is_fetch = request.code == Code.FETCH and bool(request.payload)
        return _Terms(
            (delivered.peer, operation_key(request)),
            wants_size=request.option(OptionNumber.SIZE2) is not None,
            asked=_digest(request.payload) if is_fetch else None,
        )

    def _put(self, kept: _Kept, octets: int, *, now: float) -> None:
        """Keep what may be asked for, in place of what answers an earlier request."""
        if not self._responses.put(kept.terms.key, kept, octets, now=now):
            self._responses.drop(kept.terms.key)

    def _slice(self, response: Message, terms: _Terms, offset: int, size: int) -> Message:
        """The block of `response` at `offset`, or all of it where it needs no Block2."""
        payload = response.payload
        own: list[Option] = []
        if terms.block1 is not None:
            own.append(Option(OptionNumber.BLOCK1, terms.block1.encode()))
        is_error = not is_success(response.code)
        if not payload or (len(payload) <= size and (terms.size is None or is_error)):
            return _with_options(response, own) if own else response
        if is_error and offset >= len(payload):
            offset = 0  # It says why there is no such block.
        if offset >= len(payload):
            return self._refuse(BEYOND_THE_END, Code.BAD_REQUEST)
        end = offset + size
        block = BlockOption(offset // size, end < len(payload), size)
        own.append(Option(OptionNumber.BLOCK2, block.encode()))
        options = list(response.options)
        if offset:
            # Further blocks of a notification are no notifications (RFC 7959 section 2.6).
            options = without(options, OptionNumber.OBSERVE)
        elif terms.wants_size:
            own.append(Option(OptionNumber.SIZE2, uint_value(len(payload))))
        return Message(
            response.code,
            response.type,
            response.message_id,
            response.token,
            in_order([*options, *own]),
            payload[offset:end],
        )

    # Refusals

    def _refuse(self, reason: str, code: int, *options: Option) -> Message:
        self.refused[reason] += 1
        return Message.response(code, payload=reason.encode(), options=options)

    def _refuse_size(self) -> Message:
        size_max = Option(OptionNumber.SIZE1, uint_value(self.limits.body_size_max))
        return self._refuse(TOO_LARGE, Code.REQUEST_ENTITY_TOO_LARGE, size_max)

    def _refuse_for_now(self, reason: str) -> Message:
        max_age = Option(OptionNumber.MAX_AGE, uint_value(self.limits.busy_max_age))
        return self._refuse(reason, Code.SERVICE_UNAVAILABLE, max_age)

    def _forget_expired(self, *, now: float) -> None:
        self._bodies.forget_expired(now=now)
        self._responses.forget_expired(now=now)


def etag_of(response: Message) -> bytes:
    """A tag for what `response` holds: ETAG_SIZE octets, by its payload and Content-Format.

    Two representations that differ have different tags (RFC 9175 section 3.8).
    """
    content_format = response.option(OptionNumber.CONTENT_FORMAT)
    digest = hashlib.blake2b(digest_size=ETAG_SIZE, person=b"etag")
    digest.update(b"-" if content_format is None else b"%d:" % len(content_format))
    digest.update(content_format or b"")
    digest.update(response.payload)
    return digest.digest()


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGEST_SIZE).digest()


def _own_options(request: Message) -> tuple[Option, ...]:
    """The options of `request` that are the resource's business."""
    return tuple(
        without(
            request.options,
            OptionNumber.BLOCK1,
            OptionNumber.BLOCK2,
            OptionNumber.SIZE1,
            OptionNumber.SIZE2,
            OptionNumber.REQUEST_TAG,
        )
    )


def _with_options(message: Message, more: list[Option]) -> Message:
    return Message(
        message.code,
        message.type,
        message.message_id,
        message.token,
        in_order([*message.options, *more]),
        message.payload,
    )
