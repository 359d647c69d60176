"""EDHOC messages in CoAP messages: paths, formats, and the few shapes that there are.

Spec    RFC 9528 appendix A.2 (resource /.well-known/edhoc, content formats 64 and 65)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option
from amistack.session.edhoc import prepend_connection_id

WELL_KNOWN_EDHOC: Final = ".well-known/edhoc"
CONTENT_FORMAT_EDHOC: Final = 64
CONTENT_FORMAT_CID_EDHOC: Final = 65

ENTROPY_SIZE: Final = 32
"""Octets for one ephemeral key."""

Entropy = Callable[[int], bytes]
"""A source of secret random octets, so many at a call. Real in programs, seeded in simulations."""


def edhoc_request(c_r: bytes | None, octets: bytes, *options: Option) -> Message:
    """The POST with message_1 (None), or with what follows under C_R (A.2.1)."""
    return Message.request(
        Code.POST,
        WELL_KNOWN_EDHOC,
        payload=prepend_connection_id(c_r, octets),
        content_format=CONTENT_FORMAT_CID_EDHOC,
        options=options,
    )


def edhoc_response(octets: bytes) -> Message:
    """The response with message_2."""
    return Message.response(Code.CHANGED, payload=octets, content_format=CONTENT_FORMAT_EDHOC)


def error_response(octets: bytes) -> Message:
    """The response with an EDHOC error message."""
    return Message.response(Code.BAD_REQUEST, payload=octets, content_format=CONTENT_FORMAT_EDHOC)
