"""Protect a CoAP message, or verify and unprotect one.

Spec    RFC 8613 sections 4 (which field goes where), 5 (the COSE object), 8 (the steps)
Gives   messages with the type, message id and token they came with; for each request a binding
        that its responses need
Raises  OscoreError on what the peer sent, with the code to answer (without protection, and to a
        response not at all); LocalProtocolError on what the caller asked; SequenceExhausted
Never   changes any state for a message whose tag is wrong, or uses a nonce twice with a key

A request that is authentic but malformed inside still uses up its number (section 8.2 step 6).
Outer Block options are dropped as step 1 says: who supports them reassembles before.
Proxy-Uri is not taken apart, so a request with one is refused; Proxy-Scheme and Uri-* go through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from amistack.coap.codes import Code, is_request, is_response
from amistack.coap.message import Message, decode_body, encode_body, in_order
from amistack.coap.options import Option, OptionNumber, read_uint, uint_value
from amistack.errors import CoapError, LocalProtocolError, OscoreError
from amistack.session.oscore.context import (
    AES_CCM_16_64_128,
    AES_CCM_16_128_128,
    IDENTIFIER_SIZE_MAX,
    SEQUENCE_NUMBER_MAX,
    TAG_SIZES,
    SecurityContext,
    nonce_of,
)
from amistack.session.oscore.option import FAILED_TO_DECODE, PARTIAL_IV_SIZE_MAX, OscoreOption

PLAINTEXT_SIZE_MAX: Final = 0xFFFF
"""What the 2-octet length field of these AES-CCM algorithms can count."""

NOT_PROTECTED: Final = "not protected"
CONTEXT_NOT_FOUND: Final = "security context not found"
REPLAY: Final = "replay"
DECRYPTION_FAILED: Final = "decryption failed"
MALFORMED_PLAINTEXT: Final = "malformed plaintext"
UNEXPECTED_NOTIFICATION: Final = "unexpected notification"

# Plain ints, as the members of an IntEnum cost a call each time they are looked up.
_OSCORE: Final = int(OptionNumber.OSCORE)
_OBSERVE: Final = int(OptionNumber.OBSERVE)
_PROXY_URI: Final = int(OptionNumber.PROXY_URI)
_POST: Final = int(Code.POST)
_FETCH: Final = int(Code.FETCH)
_CHANGED: Final = int(Code.CHANGED)
_CONTENT: Final = int(Code.CONTENT)

# Class U and nothing else (Figure 5; EDHOC by RFC 9668 section 3.1). Whatever is not here, known
# or not, travels inside, and is dropped where it arrives outside.
_OUTER_ONLY: Final = frozenset(
    int(number)
    for number in (
        OptionNumber.URI_HOST,
        OptionNumber.URI_PORT,
        OptionNumber.OSCORE,
        OptionNumber.EDHOC,
        OptionNumber.PROXY_URI,
        OptionNumber.PROXY_SCHEME,
    )
)

NOT_ONLY_INSIDE: Final = _OUTER_ONLY | {_OBSERVE}
"""The options of a message to be protected that show outside, too, or only there."""

_OBSERVE_REGISTER: Final = 0
_NO_PARTIAL_IV: Final = -1
_NO_MORE_RESPONSES: Final = SEQUENCE_NUMBER_MAX + 1


@dataclass(slots=True, eq=False)
class RequestBinding:
    """What ties responses to their request: kept by both sides until the last response.

    `fixed` is that of the context, and tells whose binding this is; `is_ours` says that the request
    was sent in it, not received. `nonce_is_free` says whether a response may still go out under
    the request's nonce: once, and only by the side that received the request. `is_registration`:
    the request asked to observe.
    `response_floor` is the receiver's order of responses (sections 7.4 and 7.4.1): the lowest
    Partial IV that the next one must have, where none at all counts as -1. The nonce and the AAD
    of the request are those of its responses as well.
    """

    fixed: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    aad: bytes = field(repr=False)
    request_piv: bytes
    is_ours: bool
    nonce_is_free: bool = False
    is_registration: bool = False
    response_floor: int = _NO_PARTIAL_IV


def find_kid(message: Message) -> tuple[bytes, bytes | None]:
    """The kid of a request, and its kid context if it has one: what finds the security context.

    Raises OscoreError: 4.02 if the option is malformed or has no kid.
    """
    option = _oscore_option(message)
    if option.kid is None:
        raise _undecodable("request without kid")
    return option.kid, option.kid_context


def protect_request(context: SecurityContext, message: Message) -> tuple[Message, RequestBinding]:
    """The protected form of a request, and the binding to verify its responses with (8.1).

    Takes a sender sequence number. Raises LocalProtocolError if `message` is no request, is
    protected already or has a Proxy-Uri; SequenceExhausted. Either way nothing has changed.
    """
    if not is_request(message.code):
        raise LocalProtocolError(f"code {message.code:#04x} is not a request's")
    inner, outer, observe = _split(message.options)
    plaintext = _plaintext(message.code, inner, message.payload)
    number = context.take_sequence_number()

    kid = context.sender_id
    partial_iv = _partial_iv(number)
    nonce = nonce_of(context.common_iv, kid, number)
    aad = aad_of(context.algorithm, kid, partial_iv)
    ciphertext = _encrypt(context, plaintext, nonce, aad)
    outer.append(Option(_OSCORE, OscoreOption(partial_iv, kid, context.id_context).encode()))
    if observe is not None:
        outer.append(Option(_OBSERVE, observe))
    protected = _outer_message(message, _POST if observe is None else _FETCH, outer, ciphertext)
    return protected, RequestBinding(
        context.fixed,
        nonce,
        aad,
        partial_iv,
        is_ours=True,
        is_registration=observe is not None and read_uint(observe) == _OBSERVE_REGISTER,
    )


def unprotect_request(context: SecurityContext, message: Message) -> tuple[Message, RequestBinding]:
    """The request inside `message`, verified, and the binding to protect its responses with (8.2).

    The replay window has taken its number; the caller stores the window. Raises OscoreError.
    """
    option = _oscore_option(message)
    partial_iv, kid, kid_context = option
    if partial_iv is None or kid is None:
        raise _undecodable("request without Partial IV or kid")
    if kid != context.recipient_id or (
        kid_context is not None and kid_context != context.id_context
    ):
        raise OscoreError(CONTEXT_NOT_FOUND, f"kid {kid.hex()!r}", code=Code.UNAUTHORIZED)
    number = int.from_bytes(partial_iv, "big")
    window = context.replay_window
    if not window.is_fresh(number):
        raise OscoreError(
            REPLAY, f"Partial IV {number}, expected a fresh one", code=Code.UNAUTHORIZED
        )

    nonce = nonce_of(context.common_iv, kid, number)
    aad = aad_of(context.algorithm, kid, partial_iv)
    plaintext = _decrypt(context, message.payload, nonce, aad)
    window.accept(number)
    context.replay_window = window

    code = plaintext[0]
    if not is_request(code):
        raise _malformed(f"code {code:#04x}, expected a request's")
    options, payload, observe = _inner_body(plaintext)
    binding = RequestBinding(
        context.fixed,
        nonce,
        aad,
        partial_iv,
        is_ours=False,
        nonce_is_free=True,
        is_registration=observe is not None and read_uint(observe) == _OBSERVE_REGISTER,
    )
    return _inner_message(message, code, options, payload), binding


def protect_response(
    context: SecurityContext, message: Message, binding: RequestBinding, *, own_partial_iv: bool
) -> Message:
    """The protected form of a response to the request of `binding` (8.3).

    Without a Partial IV of its own it uses the request's nonce, which only one response may; with
    one it takes a sender sequence number. A notification always has its own. Raises
    LocalProtocolError if `message` is no response or is protected already, if the nonce is used
    up, or if the binding is not of a request received in this context; SequenceExhausted. Either
    way nothing has changed.
    """
    if not is_response(message.code):
        raise LocalProtocolError(f"code {message.code:#04x} is not a response's")
    if binding.is_ours or binding.fixed != context.fixed:
        raise LocalProtocolError("binding is not of a request received in this context")
    inner, outer, observe = _split(message.options)
    if observe is not None:
        if not binding.is_registration or not own_partial_iv:
            raise LocalProtocolError(
                "notification needs a registration and a Partial IV of its own"
            )
        # Inside it only says that this is a notification; the Partial IV gives the order.
        inner = [Option(_OBSERVE, b"") if one.number == _OBSERVE else one for one in inner]
        outer.append(Option(_OBSERVE, observe))
    plaintext = _plaintext(message.code, inner, message.payload)

    if own_partial_iv:
        number = context.take_sequence_number()
        nonce = nonce_of(context.common_iv, context.sender_id, number)
        outer.append(Option(_OSCORE, OscoreOption(_partial_iv(number)).encode()))
    else:
        if not binding.nonce_is_free:
            raise LocalProtocolError("the request's nonce was used once, take an own Partial IV")
        binding.nonce_is_free = False
        nonce = binding.nonce
        outer.append(Option(_OSCORE, b""))
    ciphertext = _encrypt(context, plaintext, nonce, binding.aad)
    return _outer_message(message, _CHANGED if observe is None else _CONTENT, outer, ciphertext)


def unprotect_response(
    context: SecurityContext, message: Message, binding: RequestBinding
) -> Message:
    """The response inside `message`, verified to answer the request of `binding` (8.4).

    A plain request has one response. A registration has notifications, which are accepted in
    rising order only, one without Partial IV being the oldest, until a response that is none;
    their Observe option comes out as the last three octets of the Partial IV (section 4.1.3.5.2).

    Raises OscoreError, and the binding stays as it was; LocalProtocolError if the binding is not
    of a request sent in this context.
    """
    if not binding.is_ours or binding.fixed != context.fixed:
        raise LocalProtocolError("binding is not of a request sent in this context")
    partial_iv, kid, kid_context = _oscore_option(message)
    if kid is not None or kid_context is not None:
        # They name nothing here, and nothing protects them.
        raise _undecodable("response with kid or kid context")
    if partial_iv is None:
        number = _NO_PARTIAL_IV
        nonce = binding.nonce
    else:
        number = int.from_bytes(partial_iv, "big")
        nonce = nonce_of(context.common_iv, context.recipient_id, number)
    if number < binding.response_floor:
        raise OscoreError(REPLAY, "response is not newer than one accepted")

    plaintext = _decrypt(context, message.payload, nonce, binding.aad)
    code = plaintext[0]
    if not is_response(code):
        raise _malformed(f"code {code:#04x}, expected a response's")
    options, payload, observe = _inner_body(plaintext)
    if observe is None:
        binding.response_floor = _NO_MORE_RESPONSES
    elif not binding.is_registration:
        raise OscoreError(UNEXPECTED_NOTIFICATION, "the request asked for one response")
    else:
        binding.response_floor = number + 1
        order = Option(_OBSERVE, uint_value(max(number, 0) & 0xFFFFFF))
        options = tuple(order if one.number == _OBSERVE else one for one in options)
    return _inner_message(message, code, options, payload)


# The COSE object


# Section 5.4, put together by hand: ["Encrypt0", h'', << [1, [algorithm], kid, piv, h''] >>]. As
# kid and piv have at most 7 and 5 octets, the head of every byte string is one octet.
_AAD_ARRAYS: Final = {
    AES_CCM_16_64_128: b"\x85\x01\x81\x0a",
    AES_CCM_16_128_128: b"\x85\x01\x81\x18\x1e",
}
_BSTR_HEADS: Final = tuple(bytes((0x40 + size,)) for size in range(24))
_AAD_HEADS: Final = {
    algorithm: tuple(
        tuple(
            b"\x83\x68Encrypt0\x40"
            + _BSTR_HEADS[len(array) + kid_size + piv_size + 3]
            + array
            + _BSTR_HEADS[kid_size]
            for piv_size in range(PARTIAL_IV_SIZE_MAX + 1)
        )
        for kid_size in range(IDENTIFIER_SIZE_MAX + 1)
    )
    for algorithm, array in _AAD_ARRAYS.items()
}
"""By algorithm, size of kid and size of Partial IV: all that stands before the kid."""


def aad_of(algorithm: int, request_kid: bytes, request_piv: bytes) -> bytes:
    """The additional data of a request and of its responses (section 5.4)."""
    piv_size = len(request_piv)
    return b"".join(
        (
            _AAD_HEADS[algorithm][len(request_kid)][piv_size],
            request_kid,
            _BSTR_HEADS[piv_size],
            request_piv,
            b"\x40",
        )
    )


def _partial_iv(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")


def _encrypt(context: SecurityContext, plaintext: bytes, nonce: bytes, aad: bytes) -> bytes:
    # A cipher for each operation: it is made in 0.3 us, but kept it would weigh more than the
    # rest of the context.
    cipher = AESCCM(context.sender_key, TAG_SIZES[context.algorithm])
    return cipher.encrypt(nonce, plaintext, aad)


def _decrypt(context: SecurityContext, ciphertext: bytes, nonce: bytes, aad: bytes) -> bytes:
    tag_size = TAG_SIZES[context.algorithm]
    if not ciphertext:
        raise _undecodable("no payload, expected the ciphertext")
    # A code is the least that any plaintext holds.
    if not tag_size < len(ciphertext) <= PLAINTEXT_SIZE_MAX + tag_size:
        raise OscoreError(
            DECRYPTION_FAILED, f"ciphertext of {len(ciphertext)} octets", code=Code.BAD_REQUEST
        )
    try:
        return AESCCM(context.recipient_key, tag_size).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise OscoreError(DECRYPTION_FAILED, "wrong tag", code=Code.BAD_REQUEST) from None


# The CoAP message around and inside


def _split(options: tuple[Option, ...]) -> tuple[list[Option], list[Option], bytes | None]:
    """Options for inside, options for outside, and the value of Observe (section 4.1)."""
    inner: list[Option] = []
    outer: list[Option] = []
    observe = None
    for one in options:
        number = one[0]
        if number not in _OUTER_ONLY:
            inner.append(one)
            if number == _OBSERVE and observe is None:
                observe = one[1]
        elif number in (_OSCORE, _PROXY_URI):
            raise LocalProtocolError(f"option {number} cannot be in a message to be protected")
        else:
            outer.append(one)
    return inner, outer, observe


def _plaintext(code: int, inner: list[Option], payload: bytes) -> bytes:
    plaintext = bytes((code,)) + encode_body(inner, payload)
    if len(plaintext) > PLAINTEXT_SIZE_MAX:
        raise LocalProtocolError(
            f"plaintext of {len(plaintext)} octets, at most {PLAINTEXT_SIZE_MAX}"
        )
    return plaintext


def _outer_message(message: Message, code: int, outer: list[Option], ciphertext: bytes) -> Message:
    options = tuple(outer) if len(outer) == 1 else in_order(outer)
    return Message(code, message.type, message.message_id, message.token, options, ciphertext)


def _oscore_option(message: Message) -> OscoreOption:
    found = None
    for number, value in message.options:
        if number == _OSCORE:
            if found is not None:
                raise _undecodable("OSCORE option twice")
            found = value
    if found is None:
        raise OscoreError(NOT_PROTECTED, "no OSCORE option", code=Code.UNAUTHORIZED)
    return OscoreOption.decode(found)


def _inner_body(plaintext: bytes) -> tuple[tuple[Option, ...], bytes, bytes | None]:
    """Options and payload of a plaintext, and the value of Observe. Raises OscoreError."""
    try:
        options, payload = decode_body(plaintext, 1)
    except CoapError as error:
        raise _malformed(str(error)) from None
    observe = None
    for number, value in options:
        if number == _OBSERVE and observe is None:
            observe = value
        elif number == _OSCORE:
            raise _malformed("OSCORE option inside, expected it outside only")
    return options, payload, observe


def _inner_message(
    message: Message, code: int, options: tuple[Option, ...], payload: bytes
) -> Message:
    """The message that was protected: what stood inside, with the class U options from outside."""
    if len(message.options) > 1:
        # An option that stands inside as well is taken from there, where nobody could change it.
        inside = {number for number, _ in options}
        inside.add(_OSCORE)
        outer = [one for one in message.options if one[0] in _OUTER_ONLY and one[0] not in inside]
        if outer:
            options = in_order((*options, *outer))
    return Message(code, message.type, message.message_id, message.token, options, payload)


def _undecodable(detail: str) -> OscoreError:
    return OscoreError(FAILED_TO_DECODE, detail, code=Code.BAD_OPTION)


def _malformed(detail: str) -> OscoreError:
    return OscoreError(MALFORMED_PLAINTEXT, detail, code=Code.BAD_REQUEST)
