"""Certificates that came by value: whether a chain leads from a peer's key to an anchor of ours.

Spec    RFC 5280 section 6.1, as far as keys that agree or sign need it; RFC 9528 3.5.2 and 9.4
In      a chain as it came, the trust anchors, the time (UTC), and what the key is to do
Out     the peer's credential, with the chain as its identifier
Raises  EdhocError with a `ChainFault` as its reason, one for each way to be wrong; what is no
        certificate at all, or has a key that no suite uses, is a `bad credential`
Limit   CHAIN_COUNT_MAX certificates; every one is read and its signature checked once
Never   reads a clock, fetches anything, asks for revocation (the registry decides who may join),
        follows a path other than the order in which the certificates came

Only two extensions are acted on, basic constraints and key usage. Any other that is critical, name
constraints among them, refuses the certificate: what cannot be obeyed must not be passed over.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from amistack.errors import ConfigError, EdhocError, LocalProtocolError
from amistack.session.credentials import (
    Credential,
    X5chain,
    read_certificate,
    x5chain_credential,
)
from amistack.session.edhoc.suites import Method

ANCHOR_COUNT_MAX: Final = 64

SIGNATURE_ALGORITHMS: Final = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
    }
)
"""What an issuer may sign with: nothing of RSA, nothing below SHA-256."""

_ACTED_ON: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


class ChainFault(enum.StrEnum):
    """A counter's label for each way in which a chain is refused."""

    NO_ANCHOR = "chain: leads to no trust anchor"
    NOT_ISSUED_BY_NEXT = "chain: not issued by the next certificate"
    BAD_SIGNATURE = "chain: wrong signature"
    WEAK_SIGNATURE = "chain: signature algorithm is not accepted"
    NOT_YET_VALID = "chain: not yet valid"
    EXPIRED = "chain: expired"
    NOT_AN_ISSUER = "chain: issuer is no certificate authority"
    TOO_LONG = "chain: longer than an issuer allows"
    WRONG_KEY_USAGE = "chain: key is not for this use"
    CRITICAL_EXTENSION = "chain: unknown critical extension"


class TrustAnchors:
    """The certificates of authorities that are trusted, by their subject.

    Raises ConfigError on octets that are no certificate of an authority with a key that can sign,
    and on more than ANCHOR_COUNT_MAX. Several anchors may share a subject: an authority that
    changes its key.
    """

    def __init__(self, certificates: Sequence[bytes]) -> None:
        if len(certificates) > ANCHOR_COUNT_MAX:
            raise ConfigError(f"{len(certificates)} trust anchors, at most {ANCHOR_COUNT_MAX}")
        self._by_subject: dict[x509.Name, list[x509.Certificate]] = {}
        for number, octets in enumerate(certificates, 1):
            try:
                anchor = read_certificate(octets)
                _require_issuer(anchor, below_count=0)
            except EdhocError as error:
                raise ConfigError(f"trust anchor {number}: {error}") from error
            self._by_subject.setdefault(anchor.subject, []).append(anchor)

    def __len__(self) -> int:
        return sum(map(len, self._by_subject.values()))

    def named(self, subject: x509.Name) -> Sequence[x509.Certificate]:
        """The anchors of that subject."""
        return self._by_subject.get(subject, ())


def judge(chain: X5chain, anchors: TrustAnchors, *, at: datetime, method: Method) -> Credential:
    """The credential of a peer whose certificates lead to an anchor. Raises EdhocError.

    `at` is the time for which all must be valid, the anchor included. The chain may end with
    the anchor itself or with what it issued. `method` says what the key is for: to sign, or to
    agree (RFC 9528 3.5.2). Raises LocalProtocolError on a time without a zone.
    """
    if at.tzinfo is None:
        raise LocalProtocolError("a time without a zone, expected UTC")
    moment = at.astimezone(UTC)
    credential = x5chain_credential(chain.certificates)
    certificates = [read_certificate(octets) for octets in chain.certificates]
    for certificate in certificates:
        _require_valid(certificate, moment)
        _require_no_unknown_extension(certificate)
    _require_usage(certificates[0], method)
    for position, (issued, issuer) in enumerate(itertools.pairwise(certificates)):
        _require_issuer(issuer, below_count=position)
        _require_issued(issued, issuer)
    _require_anchor(certificates, anchors, moment)
    return credential


def _require_valid(certificate: x509.Certificate, at: datetime) -> None:
    if at < certificate.not_valid_before_utc:
        raise EdhocError(ChainFault.NOT_YET_VALID, f"before {certificate.not_valid_before_utc}")
    if at > certificate.not_valid_after_utc:
        raise EdhocError(ChainFault.EXPIRED, f"after {certificate.not_valid_after_utc}")


def _require_no_unknown_extension(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _ACTED_ON:
            raise EdhocError(ChainFault.CRITICAL_EXTENSION, extension.oid.dotted_string)


def _require_usage(certificate: x509.Certificate, method: Method) -> None:
    """A certificate that does not say what its key is for is for everything (RFC 5280 4.2.1.3)."""
    usage = _key_usage(certificate)
    if usage is None:
        return
    is_for_it = usage.digital_signature if method is Method.SIGN_SIGN else usage.key_agreement
    if not is_for_it:
        wanted = "digital signature" if method is Method.SIGN_SIGN else "key agreement"
        raise EdhocError(ChainFault.WRONG_KEY_USAGE, f"expected {wanted}")


def _require_issuer(issuer: x509.Certificate, *, below_count: int) -> None:
    """An authority, with at most `below_count` further authorities below it (RFC 5280 6.1.4)."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise EdhocError(ChainFault.NOT_AN_ISSUER, "no basic constraints") from None
    if not constraints.ca:
        raise EdhocError(ChainFault.NOT_AN_ISSUER, "basic constraints say so")
    usage = _key_usage(issuer)
    if usage is not None and not usage.key_cert_sign:
        raise EdhocError(ChainFault.NOT_AN_ISSUER, "its key may not sign certificates")
    if not isinstance(issuer.public_key(), EllipticCurvePublicKey | Ed25519PublicKey):
        raise EdhocError(ChainFault.NOT_AN_ISSUER, "its key is neither ECDSA nor Ed25519")
    length_max = constraints.path_length
    if length_max is not None and below_count > length_max:
        raise EdhocError(ChainFault.TOO_LONG, f"{below_count} below it, at most {length_max}")


def _require_issued(issued: x509.Certificate, issuer: x509.Certificate) -> None:
    if issued.issuer != issuer.subject:
        raise EdhocError(ChainFault.NOT_ISSUED_BY_NEXT, f"{issued.issuer.rfc4514_string()[:80]!r}")
    if issued.signature_algorithm_oid not in SIGNATURE_ALGORITHMS:
        oid = issued.signature_algorithm_oid.dotted_string
        raise EdhocError(ChainFault.WEAK_SIGNATURE, oid)
    try:
        issued.verify_directly_issued_by(issuer)
    except InvalidSignature as error:
        raise EdhocError(ChainFault.BAD_SIGNATURE) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The names are equal, so it is the algorithm that does not fit the issuer's key.
        raise EdhocError(ChainFault.WEAK_SIGNATURE, str(error)) from error


def _require_anchor(
    certificates: Sequence[x509.Certificate], anchors: TrustAnchors, at: datetime
) -> None:
    """The last certificate is an anchor, or one issued it. The best fault of all is raised."""
    last = certificates[-1]
    if len(certificates) > 1 and any(last == anchor for anchor in anchors.named(last.subject)):
        return  # Its dates and its right to issue were judged with the rest.
    fault = EdhocError(ChainFault.NO_ANCHOR, f"{last.issuer.rfc4514_string()[:80]!r}")
    for anchor in anchors.named(last.issuer):
        try:
            _require_issued(last, anchor)
            _require_valid(anchor, at)
            _require_issuer(anchor, below_count=len(certificates) - 1)
        except EdhocError as error:
            fault = error
        else:
            return
    raise fault


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
