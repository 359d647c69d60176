"""What the DCC shows of itself: its EUI-64 on streams, its certificate under TLS.

Raises  ConfigError, one line that says what to do
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from amistack.identifiers import EUI64_SIZE, Eui64

LOCALLY_MADE: Final = 0x02
"""First octet of an EUI-64 that no maker gave out, of a single device."""


def own_eui64(kids: Iterable[bytes]) -> Eui64:
    """What the head-end is called on streams: made of its keys' names. It proves nothing."""
    digest = hashlib.sha256(b"".join(sorted(kids))).digest()
    return Eui64(bytes((LOCALLY_MADE,)) + digest[: EUI64_SIZE - 1])


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS 1.3 with that certificate, for peers that show one; whom it trusts is told later."""
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(
            f"mesh: {certificate} with {key} cannot be used: {error.strerror or error}; "
            "check that both are in PEM and belong together"
        ) from error
    return context
