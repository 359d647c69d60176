"""EDHOC message_3 and the first OSCORE request in one message.

Spec    RFC 9668 3.1 (EDHOC option), 3.2 (client), 3.3 (server), 6 (target attributes)
Gives   `combine` for the client, `split` for the server, `edhoc_attributes` for its link
Raises  LocalProtocolError on what must not be combined; EdhocError on what cannot be split, to be
        answered with 4.00
Limit   COMBINED_PAYLOAD_MAX octets: beyond, message_3 goes alone and the request after it
Never   opens anything: C_R is taken from the kid, which nothing protects yet

    options   OSCORE { Partial IV, kid = C_R }, EDHOC (21, empty)
    payload   message_3, one CBOR byte string | the OSCORE ciphertext
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from amistack.coap.codes import Code, is_request
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, read_uint
from amistack.errors import EdhocError, LocalProtocolError, OscoreError
from amistack.session.edhoc.messages import decode_ciphertext, split_ciphertext
from amistack.session.oscore import find_kid

COMBINED_PAYLOAD_MAX: Final = 1024
"""MAX_UNFRAGMENTED_SIZE of RFC 8613 4.1.3.4.2, as far as this payload: what a path takes whole."""

BAD_COMBINATION: Final = "bad combined request"

_EDHOC: Final = int(OptionNumber.EDHOC)
_OSCORE: Final = int(OptionNumber.OSCORE)
_BLOCK1: Final = int(OptionNumber.BLOCK1)


@dataclass(frozen=True, slots=True)
class Combination:
    """The two parts of a combined request; `request` is protected still, without the option."""

    c_r: bytes
    message_3: bytes
    request: Message


def is_combined(message: Message) -> bool:
    """Whether a request says that it brings message_3 along."""
    return message.option(_EDHOC) is not None


def combine(message_3: bytes, protected: Message, *, original: Message) -> Message | None:
    """The combined request (3.2.1); None if it would be too long: then message_3 goes alone first.

    `protected` is `original` under the session that message_3 establishes. Raises
    LocalProtocolError on a request that is not protected or combined already, or is not the
    first block of a body (3.2.2).
    """
    if not is_request(protected.code) or protected.option(_OSCORE) is None:
        raise LocalProtocolError("only an OSCORE request can be combined with message_3")
    if is_combined(protected):
        raise LocalProtocolError("message_3 is in this request already")
    for message in (original, protected):
        block = message.option(_BLOCK1)
        if block is not None and read_uint(block) >> 4:
            raise LocalProtocolError("message_3 can go with the first block of a body only")
    if protected.option(_BLOCK1) is not None:
        raise LocalProtocolError("an outer block cannot bring message_3 along")
    decode_ciphertext(message_3)
    payload = message_3 + protected.payload
    if len(payload) > COMBINED_PAYLOAD_MAX:
        return None
    options = in_order((*protected.options, Option(_EDHOC, b"")))
    return replace(protected, options=options, payload=payload)


def split(message: Message) -> Combination:
    """What a combined request brings (3.3.1, steps 1 to 3, 6 and 7).

    A value in the EDHOC option is ignored (3.1). Raises EdhocError if the OSCORE option or
    its kid, message_3 or the ciphertext is missing.
    """
    try:
        c_r, _ = find_kid(message)
    except OscoreError as error:
        raise EdhocError(BAD_COMBINATION, str(error)) from error
    if message.option(_BLOCK1) is not None:
        raise EdhocError(BAD_COMBINATION, "an outer block, expected the whole request")
    message_3, ciphertext = split_ciphertext(message.payload)
    if not ciphertext:
        raise EdhocError(BAD_COMBINATION, "nothing after message_3, expected a ciphertext")
    options = tuple(option for option in message.options if option.number != _EDHOC)
    return Combination(c_r, message_3, replace(message, options=options, payload=ciphertext))


def bad_combination() -> Message:
    """The answer to a combined request that cannot be split (3.3.1 step 1)."""
    return Message.response(Code.BAD_REQUEST, payload=BAD_COMBINATION.encode())


def edhoc_attributes(
    *,
    methods: Sequence[int],
    suites: Sequence[int],
    credential_types: Sequence[int],
    id_credential_types: Sequence[int],
    is_initiator: bool = False,
    is_responder: bool = True,
    takes_combined: bool = True,
) -> tuple[tuple[str, int | None], ...]:
    """What a link to an EDHOC resource says beside `rt=core.edhoc` (section 6), in its order.

    `credential_types` are EDHOC's (0 a CWT, 1 a CCS, 2 X.509), `id_credential_types` COSE header
    labels (4 kid, 14 kccs, 33 x5chain, 34 x5t). A name with None stands without a value;
    names that repeat stand once for each value.
    """
    attributes: list[tuple[str, int | None]] = []
    for name, values in (
        ("ed-csuite", suites),
        ("ed-method", methods),
        ("ed-cred-t", credential_types),
        ("ed-idcred-t", id_credential_types),
    ):
        attributes += ((name, value) for value in values)
    flags = (("ed-i", is_initiator), ("ed-r", is_responder), ("ed-comb-req", takes_combined))
    attributes += ((name, None) for name, is_set in flags if is_set)
    return tuple(attributes)
