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
from amistack.session.oscore.direct import SEALED_CODE, open_request, seal_answer
from amistack.session.oscore.doubles import Doubles, Likeness, open_again
from amistack.session.oscore.option import OscoreOption
from amistack.session.oscore.protect import (
    DECRYPTION_FAILED,
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
    "DECRYPTION_FAILED",
    "IDENTIFIER_SIZE_MAX",
    "REPLAY",
    "SEALED_CODE",
    "SEQUENCE_NUMBER_MAX",
    "ContextTable",
    "Doubles",
    "Likeness",
    "OscoreOption",
    "ReplayWindow",
    "RequestBinding",
    "SecurityContext",
    "find_kid",
    "open_again",
    "open_request",
    "protect_request",
    "protect_response",
    "seal_answer",
    "unprotect_request",
    "unprotect_response",
]
