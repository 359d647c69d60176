"""Block-wise transfer inside OSCORE: each block protected by itself, the body by its Request-Tag.

The contract under test: block options travel inside; who holds messages back and lets them through
later cannot make the server join blocks of two bodies (RFC 9175 section 3.5.1), whether they are
replayed or were never seen before.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.blockwise import BlockServer, Complete, Delivered, RequestTags, Transfer
from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.errors import OscoreError
from amistack.session.oscore import (
    SecurityContext,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from tests.coap.test_blockwise import blocks_of, body_of
from tests.session.oscore_support import pair

HEAD_END = "head-end"
METER = "meter"
NOW = 1000.0
INNER = (
    OptionNumber.BLOCK1,
    OptionNumber.BLOCK2,
    OptionNumber.SIZE1,
    OptionNumber.REQUEST_TAG,
    OptionNumber.ETAG,
)


class Session:
    """A client and a server with one session, and whoever is between them."""

    def __init__(self, block_size: int = 16) -> None:
        self.tags = RequestTags()
        self.block_size = block_size
        self.server = BlockServer(block_size=block_size)
        self.contexts: tuple[SecurityContext, SecurityContext] = pair(server_id=b"\2")
        self.bodies: list[bytes] = []
        self.on_the_way: list[Message] = []

    def start(self, body: bytes) -> Transfer:
        request = Message.request(Code.POST, "act", payload=body)
        return Transfer(request, peer=HEAD_END, tags=self.tags, block_size=self.block_size)

    def deliver(self, protected: Message) -> Message:
        """What the server makes of octets from the network: the response, protected."""
        request, binding = unprotect_request(self.contexts[1], protected)
        answer = self.server.receive(METER, request, now=NOW)
        if isinstance(answer, Delivered):
            self.bodies.append(answer.request.payload)
            response = Message.response(Code.CHANGED, payload=answer.request.payload[::-1])
            answer = self.server.respond(answer, response, now=NOW)
        return protect_response(self.contexts[1], answer, binding, own_partial_iv=True)

    def exchange(self, request: Message) -> Message:
        protected, binding = protect_request(self.contexts[0], request)
        self.on_the_way.append(protected)
        response = self.deliver(protected)
        for outside in (protected, response):
            assert not {option.number for option in outside.options}.intersection(INNER)
        return unprotect_response(self.contexts[0], response, binding)

    def withhold(self, request: Message) -> Message:
        """Protected, and kept by who is between."""
        return protect_request(self.contexts[0], request)[0]


@settings(deadline=None)
@given(st.integers(0, 3000), st.sampled_from([64, 1024]))
def test_body_goes_and_comes_inside_the_protection(size: int, block_size: int) -> None:
    session = Session(block_size)
    transfer = session.start(body_of(size))
    step: Message | Complete = transfer.first()
    while isinstance(step, Message):
        step = transfer.receive(session.exchange(step))
    assert step.response.payload == body_of(size)[::-1]
    assert session.bodies == [body_of(size)]


def test_block_that_was_held_back_is_not_joined_to_a_later_body() -> None:
    session = Session()
    earlier = session.start(b"disconnect house" + b"number seventeen")
    held_back = session.withhold(earlier.first())
    earlier.abandon()  # Nothing came back in all the time there was.

    later = session.start(b"read the house  " + b"number forty-two")
    second = later.receive(session.exchange(later.first()))
    assert isinstance(second, Message)
    session.deliver(held_back)  # Fresh to the replay window, and authentic.
    later.receive(session.exchange(second))
    assert session.bodies == [b"read the house  number forty-two"]
    assert blocks_of(second) == "1:1/0/16"
    assert second.option(OptionNumber.REQUEST_TAG) == b""


def test_the_attack_works_on_who_uses_a_tag_again() -> None:
    """Guards the test above: without the rule, the two bodies are joined."""
    session = Session()
    held_back = session.withhold(session.start(b"disconnect house" + b"number seventeen").first())
    session.tags.forget(HEAD_END)
    session.tags = RequestTags()
    later = session.start(b"read the house  " + b"number forty-two")
    second = later.receive(session.exchange(later.first()))
    assert isinstance(second, Message)
    session.deliver(held_back)
    session.exchange(second)
    assert session.bodies == [b"disconnect house" + b"number forty-two"]


def test_block_of_a_body_that_concluded_cannot_come_again_so_that_its_tag_can() -> None:
    session = Session()
    for body in (b"disconnect house" + b"number seventeen", b"read the house  " * 2):
        transfer = session.start(body)
        step: Message | Complete = transfer.first()
        while isinstance(step, Message):
            assert step.option(OptionNumber.REQUEST_TAG) is None
            step = transfer.receive(session.exchange(step))
            for said in session.on_the_way:
                with pytest.raises(OscoreError):
                    session.deliver(said)
    assert session.bodies == [b"disconnect housenumber seventeen", b"read the house  " * 2]
