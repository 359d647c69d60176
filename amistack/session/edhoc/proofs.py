"""Signature_or_MAC_2 and Signature_or_MAC_3: made by one party, checked by the other.

Spec    RFC 9528 5.3.2 and 5.4.2
Raises  EdhocError on a proof that does not hold
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import encode_bytes, is_signature, sig_structure, sign
from amistack.session.credentials import AuthenticationKey, Credential
from amistack.session.edhoc.faults import Fault
from amistack.session.edhoc.schedule import Label, kdf
from amistack.session.edhoc.suites import HASH_SIZE, Method, Suite


@dataclass(frozen=True, slots=True)
class Claim:
    """All that a Signature_or_MAC_x covers.

    `prefix` is C_R as sent for message 2, nothing for message 3; `ead` is EAD_x as sent.
    """

    label: Label
    prk: bytes
    prefix: bytes
    th: bytes
    credential: Credential
    ead: bytes

    def prove(self, suite: Suite, method: Method, key: AuthenticationKey) -> bytes:
        """The proof of the party whose claim it is."""
        if method is Method.STATIC_STATIC:
            return self._mac(suite.mac_size)
        private_key = key.private_key
        if not isinstance(private_key, EllipticCurvePrivateKey | Ed25519PrivateKey):
            raise LocalProtocolError("a key that cannot sign; Suite.fits was not asked")
        return sign(private_key, self._to_be_signed())

    def check(self, suite: Suite, method: Method, proof: bytes) -> None:
        """Raises EdhocError unless `proof` is that of the credential's owner.

        With static DH the owner shows itself by knowing `prk`.
        """
        if method is Method.STATIC_STATIC:
            if not hmac.compare_digest(self._mac(suite.mac_size), proof):
                raise EdhocError(Fault.NOT_AUTHENTIC, "MAC")
            return
        public_key = self.credential.public_key
        if not isinstance(public_key, EllipticCurvePublicKey | Ed25519PublicKey):
            raise LocalProtocolError("a key that cannot sign; Suite.fits was not asked")
        if not is_signature(public_key, proof, self._to_be_signed()):
            raise EdhocError(Fault.NOT_AUTHENTIC, "signature")

    def _mac(self, size: int) -> bytes:
        context = (
            self.prefix
            + self.credential.id_cred.encode_map()
            + encode_bytes(self.th)
            + self.credential.octets
            + self.ead
        )
        return kdf(self.prk, self.label, context, size)

    def _to_be_signed(self) -> bytes:
        external_aad = encode_bytes(self.th) + self.credential.octets + self.ead
        return sig_structure(
            self.credential.id_cred.encode_map(), external_aad, self._mac(HASH_SIZE)
        )
