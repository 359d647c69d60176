"""The combined EDHOC and OSCORE request, as the RFC prints it.

Spec    RFC 9668 section 3.4
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.session.combined import combine, is_combined, split
from interop.conformance.suite import Case, VectorSuite
from interop.vectors import load


def cases() -> list[Case]:
    """Put together, and taken apart."""
    published = cast("Mapping[str, str]", load("rfc9668"))
    protected = Message.decode(bytes.fromhex(published["protected"]))
    message_3 = bytes.fromhex(published["message_3"])
    octets = bytes.fromhex(published["combined"])

    def made() -> bytes:
        combined = combine(message_3, protected, original=Message.request(Code.GET, "x"))
        return b"" if combined is None else combined.encode()

    def taken_apart() -> tuple[str, bytes, Message]:
        parts = split(Message.decode(octets))
        return parts.c_r.hex(), parts.message_3, parts.request

    return [
        Case("section 3.4, put together", octets, made),
        Case("section 3.4, taken apart", (published["c_r"], message_3, protected), taken_apart),
        Case(
            "section 3.4, recognised",
            (True, False),
            lambda: (is_combined(Message.decode(octets)), is_combined(protected)),
        ),
    ]


SUITE: Final = VectorSuite(
    "edhoc-rfc9668", "EDHOC: message_3 with the first OSCORE request", "RFC 9668", cases
)
