"""How much the keys of a session may be used before there must be new ones.

Spec    draft-ietf-core-oscore-key-limits 2.1.1 (q, v, l); draft-irtf-cfrg-aead-limits
Limit   no state: sequence numbers that a context has anyway, and one counter of failures
Never   ends a session: whoever drives it does, by a handshake

    algorithm            encryptions q   failures v   plaintext with its tag
    AES-CCM-16-64-128    2^20            2^14         2^8 blocks, 4,096 octets
    AES-CCM-16-128-128   2^20            2^20         2^10 blocks, 16,384 octets

Worn keys are renewed by a new handshake, not by EDHOC_KeyUpdate (RFC 9528 appendix H). An update
would need PRK_out kept beside the session for its whole life on both sides, gives no fresh
ephemeral secret, and has no message of its own to agree on its context: two that disagree about
having made it have lost each other. A handshake costs three messages in perhaps a year.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from amistack.session.oscore import AES_CCM_16_64_128, AES_CCM_16_128_128

ENCRYPTIONS_MAX: Final = 1 << 20
"""Encryptions with one key, of either algorithm."""

NUMBERS_MAX: Final = ENCRYPTIONS_MAX // 2
"""Sender sequence numbers that either side uses with one session, before it wants a new one.

A key of ours encrypts once for each number of ours, and at most once for each of the peer's, in a
response that goes under it: both together stay within ENCRYPTIONS_MAX.
"""

FAILURES_MAX: Final[Mapping[int, int]] = MappingProxyType(
    {AES_CCM_16_64_128: 1 << 14, AES_CCM_16_128_128: 1 << 20}
)
"""Decryptions that may fail with one key, by COSE algorithm."""
