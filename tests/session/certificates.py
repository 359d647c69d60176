"""Certificates for the tests: authorities and what they issue. Keys are derived, not drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from amistack.session.cose import PrivateKey
from tests.session.edhoc_pairs import private_key

NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)

SigningKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey


def name_of(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def usage_of(*uses: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{use: use in uses for use in every})


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and the key that it is about."""

    name: str
    key: PrivateKey | RSAPrivateKey
    certificate: bytes


def issue(
    name: str,
    key: PrivateKey | RSAPrivateKey,
    issuer: Issued | None = None,
    *,
    is_authority: bool | None = None,
    path_length: int | None = None,
    uses: Sequence[str] = (),
    valid_from: datetime = NOON - timedelta(days=1),
    valid_to: datetime = NOON + timedelta(days=1),
    extension: tuple[x509.ExtensionType, bool] | None = None,
    algorithm: hashes.SHA256 | hashes.SHA224 | None = None,
    issuer_name: str | None = None,
) -> Issued:
    """A certificate for `key`, signed by `issuer` or by itself."""
    signer = key if issuer is None else issuer.key
    assert isinstance(signer, SigningKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(name))
        .issuer_name(name_of(issuer_name or (name if issuer is None else issuer.name)))
        .public_key(key.public_key())
        .serial_number(1 + sum(name.encode()))
        .not_valid_before(valid_from)
        .not_valid_after(valid_to)
    )
    if is_authority is not None:
        constraints = x509.BasicConstraints(ca=is_authority, path_length=path_length)
        builder = builder.add_extension(constraints, critical=True)
    if uses:
        builder = builder.add_extension(usage_of(*uses), critical=True)
    if extension is not None:
        builder = builder.add_extension(extension[0], critical=extension[1])
    if not isinstance(signer, Ed25519PrivateKey):
        algorithm = algorithm or hashes.SHA256()
    signed = builder.sign(signer, algorithm)
    return Issued(name, key, signed.public_bytes(Encoding.DER))


def authority(
    name: str,
    issuer: Issued | None = None,
    *,
    suite: int = 2,
    path_length: int | None = None,
    valid_to: datetime = NOON + timedelta(days=1),
    uses: Sequence[str] = ("key_cert_sign",),
) -> Issued:
    return issue(
        name,
        private_key(name, suite, 0),
        issuer,
        is_authority=True,
        path_length=path_length,
        valid_to=valid_to,
        uses=uses,
    )
