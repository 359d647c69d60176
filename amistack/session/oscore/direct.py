"""From octets to octets: the common form of a protected request, and of the answer to it.

The common form is what nearly every message of a fleet is: a POST from outside whose one option is
OSCORE with a kid of ours and no kid context, and an answer without options for outside. It is
opened and sealed in one pass each, without the messages and options in between.

Spec    RFC 8613 sections 4 to 6, 8.2 and 8.3
Gives   exactly what `unprotect_request` and `protect_response` give for such messages; None for any
        other, and for every one that is refused: then nothing has changed, and the general way says
        what is wrong with it
Raises  nothing
Limit   HEADS_MAX different beginnings of plaintexts are remembered with their options; the one that
        was not seen for longest is forgotten, and is read again when it comes
Never   uses a nonce twice: an answer takes the request's, once; it has none of its own here
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from amistack.coap.codes import Code, Type, is_request, is_response
from amistack.coap.message import MESSAGE_SIZE_MAX, Message, decode_body, encode_body
from amistack.coap.options import Option, OptionNumber
from amistack.errors import CoapError, LocalProtocolError
from amistack.session.oscore.context import AES_CCM_16_64_128, TAG_SIZES, SecurityContext
from amistack.session.oscore.contexts import ContextTable
from amistack.session.oscore.protect import (
    NOT_ONLY_INSIDE,
    RequestBinding,
    aad_of,
)
from amistack.session.oscore.replay import WINDOW_SIZE_MAX

HEADS_MAX: Final = 256
HEAD_SIZE_MAX: Final = 64
"""Octets of a plaintext before its payload that are remembered."""

_TYPES: Final = (Type.CON, Type.NON)
_POST: Final = int(Code.POST)
SEALED_CODE: Final = int(Code.CHANGED)
_OSCORE: Final = int(OptionNumber.OSCORE)
_OBSERVE: Final = int(OptionNumber.OBSERVE)
_TAG_SIZE: Final = TAG_SIZES[AES_CCM_16_64_128]
_CON_OR_NON: Final = 0x40
"""The first three bits of a message of version 1 that is one of the two."""
_OPTION: Final = 0x90
_OPTION_OF_12: Final = 0x9C
"""The first octet of an OSCORE option that is empty, and of one of 12 octets: then lengths grow."""
_KID_BIT: Final = 0x08
_MARKER: Final = 0xFF
_MARKER_OCTET: Final = b"\xff"
_SEALED_HEAD: Final = b"\x90\xff"
"""An empty OSCORE option and the payload marker."""

Opened = tuple[SecurityContext, Message, RequestBinding]


def open_request(datagram: bytes, table: ContextTable) -> Opened | None:
    """The context of a request, the request inside, verified, and the binding for its answer.

    The replay window has taken its number then; the caller stores the window.
    """
    size = len(datagram)
    try:
        first = datagram[0]
        at = (first & 0x0F) + 4
        head = datagram[at]
        piv_size = datagram[at + 1] ^ _KID_BIT
        kid_at = at + 2 + piv_size
        kid_end = at + 1 + head - _OPTION
        if (
            first & 0xE0 != _CON_OR_NON
            or at > 16  # A token of more than twelve octets has its length elsewhere.
            or datagram[1] != _POST
            or not _OPTION <= head <= _OPTION_OF_12
            or not 1 <= piv_size <= 5
            or kid_at > kid_end
            or datagram[kid_end] != _MARKER
            or (piv_size > 1 and not datagram[at + 2])
            or size > MESSAGE_SIZE_MAX
        ):
            return None
    except IndexError:
        return None
    kid = datagram[kid_at:kid_end]
    context = table.find_plain(kid)
    if context is None:
        return None
    fixed = context.fixed
    if fixed[45] != AES_CCM_16_64_128 or size - kid_end - 1 <= _TAG_SIZE:
        return None
    piv = datagram[at + 2 : kid_at]
    number = int.from_bytes(piv, "big")
    base, bitmap = context.base, context.bitmap
    ahead = number - base
    if ahead < 0 or (0 < ahead < WINDOW_SIZE_MAX and bitmap >> ahead - 1 & 1):
        return None
    nonce = (int.from_bytes(fixed[32:45], "big") ^ number).to_bytes(13, "big")
    aad = aad_of(AES_CCM_16_64_128, kid, piv)
    try:
        plaintext = AESCCM(fixed[16:32], _TAG_SIZE).decrypt(nonce, datagram[kid_end + 1 :], aad)
    except InvalidTag:
        return None

    # Where the first octet 0xff is the marker, all before it is a code and whole options.
    marker = plaintext.find(_MARKER)
    known = _read_head(plaintext[:marker]) if 0 < marker <= HEAD_SIZE_MAX else None
    payload = plaintext[marker + 1 :]
    if known is not None and payload:
        code, options = known
    else:
        body = _read_body(plaintext)
        if body is None:
            return None
        code, options, payload = body

    if ahead or bitmap:
        window = context.replay_window
        window.accept(number)
        context.replay_window = window
    else:
        context.base = number + 1
    message = Message(
        code,
        _TYPES[first >> 4 & 1],
        datagram[2] << 8 | datagram[3],
        datagram[4:at],
        options,
        payload,
    )
    return context, message, RequestBinding(fixed, nonce, aad, piv, False, True)  # noqa: FBT003


def seal_answer(message: Message, binding: RequestBinding) -> bytes | None:
    """What stands behind the token of the answer to a request that was received, under its nonce.

    The code outside is SEALED_CODE. The nonce is used up then.
    """
    fixed, payload = binding.fixed, message.payload
    if (
        not binding.nonce_is_free
        or binding.is_ours
        or fixed[45] != AES_CCM_16_64_128
        or len(payload) > MESSAGE_SIZE_MAX
    ):
        return None
    head = _write_head(message.code, message.options)
    if head is None:
        return None
    plaintext = head + _MARKER_OCTET + payload if payload else head
    binding.nonce_is_free = False
    return _SEALED_HEAD + AESCCM(fixed[:16], _TAG_SIZE).encrypt(
        binding.nonce, plaintext, binding.aad
    )


# The beginning of a plaintext: the same few again and again


@lru_cache(maxsize=HEADS_MAX)
def _read_head(head: bytes) -> tuple[int, tuple[Option, ...]] | None:
    """Code and options of a plaintext whose payload, if any, begins right after them, or None."""
    body = _read_body(head)
    return None if body is None else body[:2]


def _read_body(plaintext: bytes) -> tuple[int, tuple[Option, ...], bytes] | None:
    """Code, options and payload of a plain request, or None."""
    if not plaintext or not is_request(plaintext[0]):
        return None
    try:
        options, payload = decode_body(plaintext, 1)
    except CoapError:
        return None
    if any(number in (_OSCORE, _OBSERVE) for number, _ in options):
        return None
    return plaintext[0], options, payload


@lru_cache(maxsize=HEADS_MAX)
def _write_head(code: int, options: tuple[Option, ...]) -> bytes | None:
    """Code and options of a response as octets, or None if some do not belong inside."""
    if not is_response(code) or any(number in NOT_ONLY_INSIDE for number, _ in options):
        return None
    try:
        return bytes((code,)) + encode_body(options, b"")
    except LocalProtocolError:
        return None
