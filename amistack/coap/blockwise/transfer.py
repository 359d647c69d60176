"""One request of ours and its response, in as many blocks as it takes, as a machine without I/O.

Spec    RFC 7959 sections 2.3 to 2.9; RFC 8132 section 2 (FETCH); RFC 9175 section 3 (Request-Tag)
In      `first`, `receive`, `abandon`
Out     what `first` and `receive` return: the next request to send, or the complete response
Raises  CoapError on a response that does not fit, with one of the reasons below; the transfer is
        over then. LocalProtocolError and TableFull on commands
Limit   `body_size_max` octets in each direction, `round_count_max` responses; beyond it fails. It
        starts again at most once for each of: 4.08, a representation that changed. Of transfers
        that ask one peer for one resource at the same time, only one gets its blocks for certain
        (RFC 7959 section 2.4); none gets those of another
Never   knows the peer, the time, retransmission or protection: each request goes through whatever
        is below as one of its own, and gets a token of its own there
"""

from __future__ import annotations

import enum
from typing import Final

from amistack.coap.blockwise.block import (
    BLOCK_NUMBER_MAX,
    BLOCK_SIZE_MAX,
    BLOCK_SIZES,
    BODY_SIZE_MAX,
    SAFE_METHODS,
    BlockOption,
    check_block_size,
    find_block,
    has_block_options,
    without,
)
from amistack.coap.blockwise.request_tags import Lease, RequestTags
from amistack.coap.codes import Code, format_code, is_request, is_response, is_success
from amistack.coap.message import Message, in_order
from amistack.coap.observe import with_observe
from amistack.coap.options import Option, OptionNumber, uint_value
from amistack.errors import CoapError, LocalProtocolError, TableFull
from amistack.machine import Peer
from amistack.values import frozen_value

ROUNDS_OF_A_BODY: Final = 4
"""Both directions, and each once again."""
ROUND_SLACK: Final = 16

OUT_OF_TURN: Final = "block out of turn"
NOT_FULL: Final = "block of another size"
CHANGED: Final = "representation changed"
REST_REFUSED: Final = "rest of the response refused"
TOO_LARGE: Final = "body too large"
TOO_MANY: Final = "too many blocks"
UNEXPECTED_CONTINUE: Final = "continue after the last block"

_NO_LONGER_THERE: Final = frozenset({Code.BAD_REQUEST, Code.REQUEST_ENTITY_INCOMPLETE})
"""What a further block gets of a response that became shorter, or is no longer kept."""
_MACHINE_S_OWN: Final = frozenset(
    {OptionNumber.BLOCK1, OptionNumber.BLOCK2, OptionNumber.SIZE1, OptionNumber.REQUEST_TAG}
)


@frozen_value(frozen=True, slots=True)
class Complete:
    """The response, whole and without block options, header of its last block. It may be an error.

    Max-Age is that of the last block, all other options those of the first.
    """

    response: Message


def is_whole(response: Message) -> bool:
    """Whether a response to a request that went as it was leaves nothing to do for a Transfer."""
    return not has_block_options(response) and response.code != Code.REQUEST_ENTITY_TOO_LARGE


class _Phase(enum.Enum):
    NEW = "new"
    SENDING = "sending the request's blocks"
    COLLECTING = "collecting the response's blocks"
    OVER = "over"


class Transfer:
    """One operation of a client.

    Send what `first` returns, then what `receive` returns for the response to it, until that is
    `Complete` or raises. When a request fails below, or interest is lost, `abandon`.

    `receive` may also be the first call: with the response to a request that was sent as it is,
    when that is not `is_whole` (where it is, the Transfer is spared), or with a notification (RFC
    7641) whose first block came by itself: its other blocks are asked for, without Observe.
    """

    __slots__ = (
        "_asked",
        "_block_size",
        "_body",
        "_body_size_max",
        "_etag",
        "_first",
        "_is_early",
        "_is_refetched",
        "_is_restarted",
        "_is_sliced",
        "_lease",
        "_peer",
        "_phase",
        "_request",
        "_response_size",
        "_round_count",
        "_round_count_max",
        "_sent",
        "_tags",
    )

    def __init__(
        self,
        request: Message,
        *,
        peer: Peer = None,
        tags: RequestTags | None = None,
        block_size: int = BLOCK_SIZE_MAX,
        response_size: int | None = None,
        is_early: bool = False,
        body_size_max: int = BODY_SIZE_MAX,
        round_count_max: int | None = None,
    ) -> None:
        """`tags`: what all transfers of a client share, and `peer` its name for the server.

        `block_size` (octets): of the request's blocks, a larger body is sliced. `response_size`: of
        the blocks asked for, if the server's are larger; `block_size` where it is None. `is_early`:
        say so in the first request already. `round_count_max`: where it is None, what bodies of
        `body_size_max` take in the smallest blocks, and once again. Raises LocalProtocolError on a
        request that has options of this machine's own, or a body over `body_size_max`.
        """
        if not is_request(request.code):
            raise LocalProtocolError(f"code {request.code:#04x} is not a request's")
        if has_block_options(request):
            for option in request.options:
                if option.number in _MACHINE_S_OWN:
                    raise LocalProtocolError(f"option {option.number} is this machine's to set")
        if len(request.payload) > body_size_max:
            raise LocalProtocolError(
                f"body of {len(request.payload)} octets, at most {body_size_max}"
            )
        check_block_size(block_size)
        if response_size is None:
            response_size = block_size
        else:
            check_block_size(response_size)
        if body_size_max > (BLOCK_NUMBER_MAX + 1) * BLOCK_SIZES[0]:
            raise LocalProtocolError(f"bodies of {body_size_max} octets have too many blocks")
        self._request = request
        self._peer = peer
        self._tags = tags
        self._block_size = block_size
        self._response_size = response_size
        self._is_early = is_early
        self._body_size_max = body_size_max
        if round_count_max is None:
            round_count_max = ROUNDS_OF_A_BODY * body_size_max // BLOCK_SIZES[0] + ROUND_SLACK
        self._round_count_max = round_count_max

        self._phase = _Phase.NEW
        self._round_count = 0
        self._is_restarted = False
        self._is_refetched = False
        # The request's blocks
        self._is_sliced = len(request.payload) > block_size
        self._lease: Lease | None = None
        self._sent: BlockOption | None = None
        # The response's blocks
        self._asked: BlockOption | None = None
        self._first: Message | None = None
        self._etag: bytes | None = None
        self._body = bytearray()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be sent or received."""
        return self._phase is _Phase.OVER

    # Commands from above.

    def first(self) -> Message:
        """The first request to send. Raises LocalProtocolError when it was taken already.

        Raises TableFull when no Request-Tag can be had; the transfer is as new then.
        """
        if self._phase is not _Phase.NEW:
            raise LocalProtocolError(f"first request while {self._phase.value}")
        return self._begin()

    def abandon(self, *, is_unsent: bool = False) -> None:
        """No response will come, or none is wanted. Calling it late or twice is harmless.

        `is_unsent`: not even the first request went out.
        """
        if is_unsent and self._lease is not None:
            assert self._tags is not None, "a tag without a table"
            self._tags.give_back(self._lease)
            self._lease = None
        self._close(is_concluded=self._phase is _Phase.NEW)

    # Inputs from below.

    def receive(self, response: Message) -> Message | Complete:
        """The next request to send, or the complete response.

        Raises CoapError on a response that does not fit; LocalProtocolError when the transfer is
        over, or `response` is none.
        """
        if self._phase is _Phase.OVER:
            raise LocalProtocolError("response to a transfer that is over")
        if not is_response(response.code):
            raise LocalProtocolError(f"code {response.code:#04x} is not a response's")
        try:
            self._round_count += 1
            if self._round_count > self._round_count_max:
                raise CoapError(TOO_MANY, f"at most {self._round_count_max} responses are taken")
            if self._phase is _Phase.SENDING:
                step = self._receive_verdict(response)
            else:
                self._phase = _Phase.COLLECTING
                step = self._receive_block(response)
        except CoapError:
            self._close(is_concluded=True)
            raise
        if isinstance(step, Complete):
            self._close(is_concluded=True)
        return step

    # The request's blocks

    def _begin(self) -> Message:
        self._first = None
        self._etag = None
        self._body.clear()
        if self._is_sliced:
            self._take_tag()
            self._phase = _Phase.SENDING
            self._asked = None
            return self._part(0, self._block_size)
        self._phase = _Phase.COLLECTING
        self._sent = None
        if not self._is_early:
            self._asked = None
            return self._request
        self._asked = BlockOption(0, has_more=False, size=self._response_size)
        return self._message(
            list(self._request.options),
            [Option(OptionNumber.BLOCK2, self._asked.encode())],
            self._request.payload,
        )

    def _part(self, offset: int, size: int) -> Message:
        """The block of the request's body at `offset`, of `size` octets if there are as many."""
        request = self._request
        end = offset + size
        sent = BlockOption(offset // size, end < len(request.payload), size)
        self._sent = sent
        own = [Option(OptionNumber.BLOCK1, sent.encode())]
        options = list(request.options)
        if offset == 0:
            own.append(Option(OptionNumber.SIZE1, uint_value(len(request.payload))))
        else:
            options = without(options, OptionNumber.IF_NONE_MATCH)  # Section 2.10.
        if self._is_early and not sent.has_more:
            self._asked = BlockOption(0, has_more=False, size=self._response_size)
            own.append(Option(OptionNumber.BLOCK2, self._asked.encode()))
        return self._message(options, own, request.payload[offset:end])

    def _receive_verdict(self, response: Message) -> Message | Complete:
        """What the server says to a block of the request."""
        sent = self._sent
        assert sent is not None, "sending, and nothing sent"
        echo = find_block(response.options, OptionNumber.BLOCK1)
        if response.code == Code.REQUEST_ENTITY_TOO_LARGE:
            return self._send_smaller(response, echo)
        if response.code == Code.REQUEST_ENTITY_INCOMPLETE and not self._is_restarted:
            self._is_restarted = True
            self._renew_tag()
            return self._begin()
        if is_success(response.code):
            if echo is not None and echo.number != sent.number:
                raise CoapError(OUT_OF_TURN, f"{echo} acknowledged, expected {sent}")
            # Anything but 2.31 with Block1 is a server that acts on each block for itself.
            if sent.has_more and (echo is not None or response.code == Code.CONTINUE):
                size = sent.size if echo is None else min(sent.size, echo.size)
                return self._part(sent.offset + sent.size, size)
        self._phase = _Phase.COLLECTING
        return self._receive_block(response)

    def _send_smaller(self, response: Message, echo: BlockOption | None) -> Message | Complete:
        """4.13: start again with smaller blocks if that is what the server means (2.9.3)."""
        payload_size = len(self._request.payload)
        size_max = response.uint_option(OptionNumber.SIZE1)
        if size_max is not None and size_max < payload_size:
            return self._complete(response)
        if echo is not None:
            size = echo.size
        elif self._sent is None:
            size = max((size for size in BLOCK_SIZES if size < payload_size), default=payload_size)
        else:
            return self._complete(response)
        bound = payload_size if self._sent is None else min(self._sent.size, payload_size)
        if size >= bound:
            return self._complete(response)
        try:
            self._take_tag()
        except TableFull:
            return self._complete(response)
        self._block_size = min(size, self._block_size)
        self._is_sliced = True
        return self._begin()

    def _take_tag(self) -> None:
        if self._lease is None:
            if self._tags is None:
                self._tags = RequestTags()
            self._lease = self._tags.take(self._peer, self._request)

    def _renew_tag(self) -> None:
        if self._lease is not None:
            assert self._tags is not None, "a tag without a table"
            self._lease = self._tags.renew(self._lease)

    # The response's blocks

    def _receive_block(self, response: Message) -> Message | Complete:
        first = self._first
        if first is None and not has_block_options(response):
            if response.code == Code.REQUEST_ENTITY_TOO_LARGE and self._can_try_blocks:
                return self._send_smaller(response, None)
            if len(response.payload) <= self._body_size_max and response.code != Code.CONTINUE:
                return Complete(response)
        block = find_block(response.options, OptionNumber.BLOCK2)
        if first is None:
            if response.code == Code.CONTINUE:
                raise CoapError(UNEXPECTED_CONTINUE, "expected the final response")
            if response.code == Code.REQUEST_ENTITY_TOO_LARGE and self._can_try_blocks:
                return self._send_smaller(
                    response, find_block(response.options, OptionNumber.BLOCK1)
                )
        elif response.code != first.code and not is_success(response.code):
            return self._receive_refusal(response)
        elif response.code != first.code or block is None:
            return self._fetch_again(f"{format_code(response.code)}, expected a further block")
        elif response.option(OptionNumber.ETAG) != self._etag:
            return self._fetch_again("another ETag")
        size_told = response.uint_option(OptionNumber.SIZE2)
        size_seen = len(self._body) + len(response.payload)
        if size_seen > self._body_size_max or (size_told or 0) > self._body_size_max:
            raise CoapError(
                TOO_LARGE, f"{size_told or size_seen} octets, at most {self._body_size_max}"
            )
        if block is None:
            return self._complete(response)
        if block.offset != len(self._body):
            raise CoapError(OUT_OF_TURN, f"{block} at octet {len(self._body)} of the body")
        if self._asked is not None and block.size > self._asked.size:
            raise CoapError(NOT_FULL, f"{block}, asked for at most {self._asked.size} octets")
        is_full = len(response.payload) == block.size
        if len(response.payload) > block.size or (block.has_more and not is_full):
            raise CoapError(NOT_FULL, f"{len(response.payload)} octets in {block}")
        if first is None:
            self._first = response
            self._etag = response.option(OptionNumber.ETAG)
        self._body += response.payload
        if not block.has_more:
            return self._complete(response)
        return self._question(min(block.size, self._response_size))

    @property
    def _can_try_blocks(self) -> bool:
        return not self._is_sliced and len(self._request.payload) > BLOCK_SIZES[0]

    def _question(self, size: int) -> Message:
        """The request for the next block, of at most `size` octets.

        The body goes again with FETCH only, where it is part of the question; not where it went in
        blocks itself, since then this goes on from there (section 2.7).
        """
        request = self._request
        self._asked = BlockOption(len(self._body) // size, has_more=False, size=size)
        is_repeated = request.code == Code.FETCH and not self._is_sliced
        return self._message(
            without(
                request.options,
                OptionNumber.OBSERVE,
                OptionNumber.IF_NONE_MATCH,
                OptionNumber.SIZE2,
            ),
            [Option(OptionNumber.BLOCK2, self._asked.encode())],
            request.payload if is_repeated else b"",
        )

    def _receive_refusal(self, response: Message) -> Message | Complete:
        """An error in place of a further block."""
        if self._request.code not in SAFE_METHODS:
            # It was acted on, so that an error would be the wrong thing to tell.
            raise CoapError(REST_REFUSED, format_code(response.code))
        if response.code in _NO_LONGER_THERE and not self._is_refetched:
            return self._fetch_again(format_code(response.code))
        return Complete(_stripped(response, response.options, response.payload))

    def _fetch_again(self, seen: str) -> Message:
        if self._request.code not in SAFE_METHODS or self._is_refetched:
            raise CoapError(CHANGED, seen)
        self._is_refetched = True
        self._is_early = True
        # Whether it observes was said with what is left behind: to ask that again would register
        # a second time.
        self._request = with_observe(self._request, None)
        self._renew_tag()
        return self._begin()

    def _complete(self, response: Message) -> Complete:
        first = self._first
        if first is None:
            return Complete(_stripped(response, response.options, response.payload))
        # The last block says how fresh the whole is (section 2.10).
        max_age = [option for option in response.options if option.number == OptionNumber.MAX_AGE]
        options = [*without(first.options, OptionNumber.MAX_AGE), *max_age]
        return Complete(_stripped(response, in_order(options), bytes(self._body)))

    # Small things

    def _message(self, options: list[Option], own: list[Option], payload: bytes) -> Message:
        if self._lease is not None and (tag := self._lease.tag) is not None:
            own.append(Option(OptionNumber.REQUEST_TAG, tag))
        return Message(self._request.code, options=in_order([*options, *own]), payload=payload)

    def _close(self, *, is_concluded: bool) -> None:
        self._phase = _Phase.OVER
        if self._lease is not None:
            assert self._tags is not None, "a tag without a table"
            self._tags.release(self._lease, is_concluded=is_concluded)
            self._lease = None


def _stripped(header: Message, options: tuple[Option, ...], payload: bytes) -> Message:
    kept = without(options, OptionNumber.BLOCK1, OptionNumber.BLOCK2, OptionNumber.SIZE2)
    return Message(header.code, header.type, header.message_id, header.token, tuple(kept), payload)
