"""Why a handshake message is refused: the fixed phrases of `EdhocError.reason`, and error codes.

Spec    RFC 9528 6 (error codes)
"""

from __future__ import annotations

import enum


class Fault(enum.StrEnum):
    """A counter's label for each way to be refused. All go out as error code 1 unless said."""

    TOO_LARGE = "too large"
    TRUNCATED = "truncated"
    SURPLUS_OCTETS = "surplus octets"
    NOT_DETERMINISTIC = "not deterministic CBOR"
    WRONG_TYPE = "wrong type of item"
    WRONG_SIZE = "wrong size of item"
    TOO_MANY_ITEMS = "too many items"
    BAD_TEXT = "bad text"
    UNKNOWN_METHOD = "unknown method"
    WRONG_SUITE = "wrong cipher suite"
    """Error code 2; what the peer may choose from is in `err_info`."""
    NO_COMMON_SUITE = "no common cipher suite"
    BAD_EPHEMERAL_KEY = "bad ephemeral key"
    SAME_CONNECTION_IDS = "same connection identifiers"
    CRITICAL_EAD = "unknown critical EAD item"
    UNSUPPORTED_CREDENTIAL = "unsupported kind of credential"
    UNKNOWN_CREDENTIAL = "unknown credential"
    """Error code 3."""
    UNFIT_CREDENTIAL = "credential does not fit the suite"
    OWN_CREDENTIAL = "our own credential"
    NOT_AUTHENTIC = "not authentic"
    UNEXPECTED = "unexpected message"


class ErrorCode(enum.IntEnum):
    """ERR_CODE of an error message (RFC 9528 6)."""

    UNSPECIFIED = 1
    WRONG_SUITE = 2
    UNKNOWN_CREDENTIAL = 3
