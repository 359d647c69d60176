"""What a stack says without protection: EDHOC, /.well-known/core, and refusals.

The contract under test: whatever is asked in the clear, no event of a request follows, and no
answer holds more than the EDHOC exchange, the list of links, or a reason; on a meter not even EDHOC
is answered. A stack never raises on what comes in, and keeps nothing of it.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type, is_request
from amistack.coap.message import Message, in_order
from amistack.coap.options import UNDERSTOOD, Option, OptionNumber
from amistack.errors import CoapError
from amistack.session.handshakes import CONTENT_FORMAT_CID_EDHOC, WELL_KNOWN_EDHOC
from amistack.stack import Stack
from tests.stack.parties import METER, Party, Street, head_end_key, leaks, meter_key

CORE = ".well-known/core"
REASONS = (b"not protected", b"option not utf-8")
LINKS = b'</read>;rt="amistack.read";ct=65001'

SEGMENTS = st.sampled_from(
    [".well-known", "core", "edhoc", "rep", "reg", "time", "read", "", "..", ".well-known/core"]
)
PATHS = st.lists(SEGMENTS | st.text(max_size=8), max_size=4)
OPTIONS = st.lists(
    st.builds(
        Option,
        st.sampled_from(
            [
                OptionNumber.URI_HOST,
                OptionNumber.URI_QUERY,
                OptionNumber.ACCEPT,
                OptionNumber.CONTENT_FORMAT,
                OptionNumber.OBSERVE,
                OptionNumber.URI_PATH,
                OptionNumber.BLOCK2,
                OptionNumber.PROXY_URI,
                65000,
                65001,
            ]
        ).map(int),
        st.binary(max_size=20),
    ),
    max_size=4,
)


def stack_of(*, is_responder: bool) -> Stack:
    key = head_end_key() if is_responder else meter_key(METER)
    return Party("x", key, [], is_responder=is_responder).stack


@st.composite
def clear_requests(draw: st.DrawFn) -> Message:
    path = [Option(int(OptionNumber.URI_PATH), one.encode()) for one in draw(PATHS)]
    return Message(
        draw(st.integers(1, 31)),
        draw(st.sampled_from([Type.CON, Type.NON])),
        draw(st.integers(0, 0xFFFF)),
        draw(st.binary(max_size=8)),
        in_order([*path, *draw(OPTIONS)]),
        draw(st.binary(max_size=80) | st.just(b"\xf5\x03\x02")),
    )


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(clear_requests(), max_size=4), is_responder=st.booleans())
def test_nothing_but_edhoc_and_the_links_is_answered_in_the_clear(
    messages: list[Message], is_responder: bool
) -> None:
    stack = stack_of(is_responder=is_responder)
    for number, message in enumerate(messages):
        datagram = dataclasses.replace(message, message_id=number).encode()
        stack.receive_datagram(datagram, "stranger", now=1.0)
        assert stack.events() == []
        for peer, datagram in stack.data_to_send():
            assert peer == "stranger"
            answer = Message.decode(datagram)
            try:
                path = message.path
            except CoapError:
                path = None
            expect_harmless(message, path, answer, is_responder=is_responder)
    leaked = leaks(stack)
    assert not leaked or leaked == {"handshakes under way": leaked["handshakes under way"]}
    assert is_responder or not leaked


def expect_harmless(
    message: Message, path: str | None, answer: Message, *, is_responder: bool
) -> None:
    if answer.code in (Code.BAD_OPTION, Code.PROXYING_NOT_SUPPORTED):
        assert any(n % 2 and (n not in UNDERSTOOD or n != 11) for n, _ in message.options)
        return
    if path == WELL_KNOWN_EDHOC and is_responder:
        assert answer.code in (
            Code.CHANGED,
            Code.BAD_REQUEST,
            Code.METHOD_NOT_ALLOWED,
            Code.UNSUPPORTED_CONTENT_FORMAT,
        )
        return
    if path == CORE:
        expected = {
            Code.CONTENT: (LINKS, b""),
            Code.METHOD_NOT_ALLOWED: (b"",),
            Code.NOT_ACCEPTABLE: (b"",),
        }
        if answer.code in expected:
            assert answer.payload in expected[Code(answer.code)]
            assert (answer.code == Code.METHOD_NOT_ALLOWED) == (message.code != Code.GET)
            return
    expected_code = Code.BAD_REQUEST if path is None or path == CORE else Code.UNAUTHORIZED
    assert answer.code == expected_code
    assert path == CORE or answer.payload in REASONS


@pytest.mark.parametrize("code", [code for code in range(256) if is_request(code)])
def test_every_method_on_every_resource_is_unauthorized_in_the_clear(code: int) -> None:
    for is_responder in (True, False):
        stack = stack_of(is_responder=is_responder)
        for number, path in enumerate(
            ("", "rep", "reg", "time", "read", "a/b/c", "well-known/core")
        ):
            request = Message.request(code, path, payload=b"x").addressed(
                type=Type.CON, message_id=number, token=b"t"
            )
            stack.receive_datagram(request.encode(), "stranger", now=0.0)
            ((_, datagram),) = stack.data_to_send()
            answer = Message.decode(datagram)
            assert (answer.code, answer.payload) == (Code.UNAUTHORIZED, b"not protected")
            assert answer.uint_option(OptionNumber.MAX_AGE) == 0
        assert stack.events() == []
        assert stack.refused == {"session: not protected": 7}
        assert leaks(stack) == {}


def test_a_meter_does_not_answer_a_handshake_that_a_stranger_begins() -> None:
    """Message_1 of a true head-end's own making, octet for octet."""
    street = Street()
    street.meter.connect(Street.HEAD_END_AT)
    message_1 = street.world.datagrams()[0].datagram
    stack = stack_of(is_responder=False)
    stack.receive_datagram(message_1, "stranger", now=0.0)
    ((_, datagram),) = stack.data_to_send()
    assert Message.decode(datagram).code == Code.UNAUTHORIZED
    assert leaks(stack) == {}


@pytest.mark.parametrize(
    ("code", "content_format", "expected"),
    [
        (Code.GET, None, Code.METHOD_NOT_ALLOWED),
        (Code.POST, 0, Code.UNSUPPORTED_CONTENT_FORMAT),
        (Code.POST, 64, Code.UNSUPPORTED_CONTENT_FORMAT),
        (Code.POST, CONTENT_FORMAT_CID_EDHOC, Code.BAD_REQUEST),
        (Code.POST, None, Code.BAD_REQUEST),
    ],
)
def test_edhoc_takes_a_post_of_its_own_format_only(
    code: Code, content_format: int | None, expected: Code
) -> None:
    stack = stack_of(is_responder=True)
    request = Message.request(
        code, WELL_KNOWN_EDHOC, payload=b"\xf5garbage", content_format=content_format
    )
    stack.receive_datagram(request.encode(), "stranger", now=0.0)
    ((_, datagram),) = stack.data_to_send()
    assert Message.decode(datagram).code == expected
    assert leaks(stack) == {}


@settings(max_examples=300, deadline=None)
@given(
    datagrams=st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda head, body: bytes((0x40 | head,)) + body,
            st.integers(0, 63),
            st.binary(max_size=60),
        ),
        max_size=6,
    )
)
def test_garbage_never_raises_never_is_an_event_and_is_kept_nowhere(
    datagrams: list[bytes],
) -> None:
    stack = stack_of(is_responder=True)
    for datagram in datagrams:
        stack.receive_datagram(datagram, "stranger", now=0.0)
        assert stack.events() == []
        # One answer at most, and it fits into what was asked with: nothing to amplify.
        assert len(stack.data_to_send()) <= 1
    stack.handle_timer(now=1000.0)
    assert leaks(stack) == {}


def test_the_links_are_told_and_filtered_but_only_by_get() -> None:
    stack = stack_of(is_responder=True)

    def ask(message: Message, number: int) -> Message:
        datagram = message.addressed(type=Type.CON, message_id=number, token=b"").encode()
        stack.receive_datagram(datagram, "stranger", now=0.0)
        ((_, answer),) = stack.data_to_send()
        return Message.decode(answer)

    def query(text: bytes) -> list[Option]:
        return [Option(int(OptionNumber.URI_QUERY), text)]

    whole = ask(Message.request(Code.GET, CORE), 1)
    assert (whole.code, whole.content_format, whole.payload) == (Code.CONTENT, 40, LINKS)
    assert ask(Message.request(Code.GET, CORE, options=query(b"rt=amistack.*")), 2).payload == LINKS
    assert ask(Message.request(Code.GET, CORE, options=query(b"rt=other")), 3).payload == b""
    assert ask(Message.request(Code.GET, CORE, accept=60), 4).code == Code.NOT_ACCEPTABLE
    assert ask(Message.request(Code.POST, CORE), 5).code == Code.METHOD_NOT_ALLOWED
