"""OSCORE: one CoAP message mapped to another that is encrypted and authenticated (RFC 8613)."""

from __future__ import annotations

from amistack.session.oscore.context import (
    AES_CCM_16_64_128,
    AES_CCM_16_128_128,
    IDENTIFIER_SIZE_MAX,
    SEQUENCE_NUMBER_MAX,
    SecurityContext,
)
from amistack.session.oscore.contexts import ContextTable
from amistack.session.oscore.option import OscoreOption
from amistack.session.oscore.protect import (
    REPLAY,
    RequestBinding,
    find_kid,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from amistack.session.oscore.replay import ReplayWindow

__all__ = [
    "AES_CCM_16_64_128",
    "AES_CCM_16_128_128",
    "IDENTIFIER_SIZE_MAX",
    "REPLAY",
    "SEQUENCE_NUMBER_MAX",
    "ContextTable",
    "OscoreOption",
    "ReplayWindow",
    "RequestBinding",
    "SecurityContext",
    "find_kid",
    "protect_request",
    "protect_response",
    "unprotect_request",
    "unprotect_response",
]
