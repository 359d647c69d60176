"""From what a handshake gives to a session: its context, and by which name its owner is known."""

from __future__ import annotations

import hashlib

from amistack.session.credentials import IdCred, Kid, X5t
from amistack.session.edhoc import OscoreParameters
from amistack.session.oscore import SecurityContext


def context_of(parameters: OscoreParameters) -> SecurityContext:
    """The security context that follows from a handshake (RFC 9528 appendix A.1)."""
    return SecurityContext.derive(
        master_secret=parameters.master_secret,
        master_salt=parameters.master_salt,
        sender_id=parameters.sender_id,
        recipient_id=parameters.recipient_id,
    )


def name_of(id_cred: IdCred) -> bytes:
    """The name by which a credential is looked up: the `kid`, or the certificate's digest.

    One that comes by value is named by SHA-256 over its identifier.
    """
    match id_cred:
        case Kid():
            return id_cred.value
        case X5t():
            return id_cred.digest
        case _:
            return hashlib.sha256(id_cred.encode_map()).digest()
