"""EDHOC (RFC 9528): two parties agree on keys and learn who the other is, without I/O."""

from __future__ import annotations

from amistack.session.edhoc.faults import ErrorCode, Fault
from amistack.session.edhoc.initiator import Initiator
from amistack.session.edhoc.items import encode_identifier
from amistack.session.edhoc.messages import (
    CONNECTION_ID_SIZE_MAX,
    MESSAGE_SIZE_MAX,
    EadItem,
    ErrorMessage,
    encode_error,
    is_error_message,
    prepend_connection_id,
    split_connection_id,
)
from amistack.session.edhoc.responder import Message1Facts, Responder
from amistack.session.edhoc.schedule import OscoreParameters
from amistack.session.edhoc.states import State
from amistack.session.edhoc.suites import (
    SUITES,
    EphemeralKey,
    Method,
    ephemeral_from_bytes,
    ephemeral_from_entropy,
    suites_after_refusal,
)

__all__ = [
    "CONNECTION_ID_SIZE_MAX",
    "MESSAGE_SIZE_MAX",
    "SUITES",
    "EadItem",
    "EphemeralKey",
    "ErrorCode",
    "ErrorMessage",
    "Fault",
    "Initiator",
    "Message1Facts",
    "Method",
    "OscoreParameters",
    "Responder",
    "State",
    "encode_error",
    "encode_identifier",
    "ephemeral_from_bytes",
    "ephemeral_from_entropy",
    "is_error_message",
    "prepend_connection_id",
    "split_connection_id",
    "suites_after_refusal",
]
