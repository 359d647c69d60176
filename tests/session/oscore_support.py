"""What the OSCORE tests share: pairs of contexts, random messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message, in_order
from amistack.coap.options import DEFINITIONS, Format, Option, OptionNumber, uint_value
from amistack.session.oscore import (
    AES_CCM_16_64_128,
    SEQUENCE_NUMBER_MAX,
    SecurityContext,
    direct,
    protect,
)

UNKNOWN_NUMBERS: Final = (2048, 2053, 65001)
OUTER_NUMBERS: Final = frozenset(
    {OptionNumber.URI_HOST, OptionNumber.URI_PORT, OptionNumber.PROXY_SCHEME, OptionNumber.EDHOC}
)
NEVER_PROTECTED: Final = frozenset({OptionNumber.OSCORE, OptionNumber.PROXY_URI})


def pair(
    *,
    client_id: bytes = b"\x01",
    server_id: bytes = b"",
    id_context: bytes | None = None,
    algorithm: int = AES_CCM_16_64_128,
    reserved: int = SEQUENCE_NUMBER_MAX + 1,
) -> tuple[SecurityContext, SecurityContext]:
    """Client and server with everything reserved."""
    client, server = (
        SecurityContext.derive(
            master_secret=b"a secret of some",
            master_salt=b"salt",
            sender_id=sender_id,
            recipient_id=recipient_id,
            id_context=id_context,
            algorithm=algorithm,
        )
        for sender_id, recipient_id in ((client_id, server_id), (server_id, client_id))
    )
    client.reserve(reserved)
    server.reserve(reserved)
    return client, server


def state_of(context: SecurityContext) -> tuple[object, ...]:
    return (
        context.replay_window.state,
        context.next_sequence_number,
        context.reserved_until,
    )


class RecordingCipher:
    """AES-CCM that remembers every encryption; `used` is (key, nonce, aad, plaintext)."""

    used: list[tuple[bytes, bytes, bytes, bytes]]

    def __init__(self) -> None:
        self.used = []

    def __call__(self, key: bytes, tag_size: int) -> _Recorder:
        return _Recorder(self, key, tag_size)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """See whatever is encrypted from now on, whichever way it takes."""
        for module in (direct, protect):
            patch.setattr(module, "AESCCM", self)


class _Recorder:
    def __init__(self, record: RecordingCipher, key: bytes, tag_size: int) -> None:
        self.record, self.key, self.real = record, key, AESCCM(key, tag_size)

    def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        self.record.used.append((self.key, nonce, aad, plaintext))
        return self.real.encrypt(nonce, plaintext, aad)

    def decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        return self.real.decrypt(nonce, ciphertext, aad)


# Random messages


@st.composite
def options(draw: st.DrawFn, *, without: frozenset[int] = frozenset()) -> tuple[Option, ...]:
    """Options of every class, known and unknown, in order; no Observe."""
    numbers = (set(DEFINITIONS) | set(UNKNOWN_NUMBERS)) - NEVER_PROTECTED - without
    numbers -= {OptionNumber.OBSERVE}
    chosen = draw(st.lists(st.sampled_from(sorted(numbers)), max_size=6))
    result = []
    for number in chosen:
        definition = DEFINITIONS.get(number)
        if definition is None:
            value = draw(st.binary(max_size=20))
        elif not definition.is_repeatable and chosen.count(number) > 1:
            continue
        elif definition.format is Format.EMPTY:
            value = b""
        elif definition.format is Format.UINT:
            value = uint_value(draw(st.integers(0, 256**definition.length_max - 1)))
        elif definition.format is Format.STRING:
            value = draw(st.text("abcdefgh", min_size=1, max_size=20)).encode()
        else:
            size = definition.length_min, definition.length_max
            value = draw(st.binary(min_size=size[0], max_size=size[1]))
        result.append(Option(int(number), value))
    return in_order(result)


@st.composite
def headed(draw: st.DrawFn, code: int, every: tuple[Option, ...]) -> Message:
    return Message(
        code,
        draw(st.sampled_from(list(Type)[:3])),
        draw(st.integers(0, 0xFFFF)),
        draw(st.binary(max_size=8)),
        every,
        draw(st.binary(max_size=60)),
    )


@st.composite
def requests(
    draw: st.DrawFn, *, without: frozenset[int] = frozenset(), observe: bool | None = None
) -> Message:
    every = draw(options(without=without))
    code = draw(st.sampled_from([Code.GET, Code.POST, Code.PUT, Code.DELETE, Code.FETCH]))
    if observe or (observe is None and draw(st.booleans())):
        value = draw(st.sampled_from([b"", b"\x01"])) if observe is None else b""
        every = in_order((*every, Option(int(OptionNumber.OBSERVE), value)))
    return draw(headed(int(code), every))


@st.composite
def responses(draw: st.DrawFn, *, without: frozenset[int] = frozenset()) -> Message:
    every = draw(options(without=without))
    codes = [Code.CREATED, Code.CHANGED, Code.CONTENT, Code.NOT_FOUND, Code.GATEWAY_TIMEOUT]
    return draw(headed(int(draw(st.sampled_from(codes))), every))


def with_observe(message: Message, value: bytes) -> Message:
    observe = Option(int(OptionNumber.OBSERVE), value)
    return replace(message, options=in_order((*message.options, observe)))
