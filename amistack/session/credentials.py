"""Who a peer is: credentials, their identifiers, and our own authentication key.

Spec    RFC 9528 3.5 (CRED_x, ID_CRED_x); RFC 8392 and 8747 (CCS with a confirmation key);
        RFC 9360 (x5t, x5chain)
Gives   credentials by reference: a CWT Claims Set named by `kid`, a certificate named by `x5t`;
        by value: a CWT Claims Set as `kccs`, certificates as `x5chain`
Raises  EdhocError on octets that are not such a credential; ConfigError where key and
        credential of our own do not belong together
Never   decides whether a credential is trusted: a certificate is judged by `chains`, and a CCS
        that came by value is worth no more than the registry says. C509 is not known

    on the wire        what comes            what is looked up or judged     CRED_x
    kid                a few octets          the registry, by kid            the CCS
    x5t (34)           a digest              the registry, by digest         the certificate
    kccs (14)          the CCS itself        the registry, by its octets     the CCS
    x5chain (33)       certificates          `chains.judge`                  the first of them
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cbor2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from amistack.cbor import read_item
from amistack.errors import ConfigError, EdhocError, LocalProtocolError
from amistack.session.cose import (
    KID,
    PrivateKey,
    PublicKey,
    cose_key,
    encode_bytes,
    kind_of,
    public_key_from,
)

CREDENTIAL_SIZE_MAX: Final = 2048
KID_SIZE_MAX: Final = 64
SUBJECT_SIZE_MAX: Final = 256

BAD_CREDENTIAL: Final = "bad credential"

# COSE header parameters (RFC 9052 table 3, RFC 9360 table 1).
HEADER_KID: Final = 4
HEADER_KCCS: Final = 14
HEADER_X5CHAIN: Final = 33
HEADER_X5T: Final = 34

CHAIN_COUNT_MAX: Final = 4
"""Certificates that come in one message, the peer's own included; more are refused."""

# COSE hash algorithms that an x5t may name (RFC 9054), and how much of the digest they keep.
SHA_256_64: Final = -15
SHA_256: Final = -16
X5T_DIGEST_SIZES: Final[Mapping[int, int]] = {SHA_256_64: 8, SHA_256: 32}

# CWT claims (RFC 8392 table 1, RFC 8747 7.1) and the confirmation method COSE_Key.
CLAIM_SUB: Final = 2
CLAIM_CNF: Final = 8
CNF_COSE_KEY: Final = 1


@dataclass(frozen=True, slots=True)
class Kid:
    """A credential named by its key identifier. On the wire only the value goes (3.5.3.2)."""

    value: bytes

    def __str__(self) -> str:
        return f"kid {self.value.hex()}"

    def encode_map(self) -> bytes:
        """The ID_CRED_x map, as authenticated (RFC 9528 3.5.3)."""
        return b"\xa1\x04" + encode_bytes(self.value)


@dataclass(frozen=True, slots=True)
class X5t:
    """A certificate named by a digest over it (RFC 9360 2)."""

    algorithm: int
    digest: bytes

    def __str__(self) -> str:
        return f"x5t {self.algorithm} {self.digest.hex()}"

    def encode_map(self) -> bytes:
        """The ID_CRED_x map, as authenticated and as sent (RFC 9528 3.5.3)."""
        return cbor2.dumps({HEADER_X5T: [self.algorithm, self.digest]})


@dataclass(frozen=True, slots=True)
class Kccs:
    """A CWT Claims Set that stands there itself, to the octet (RFC 9528 3.5.3)."""

    claims: bytes

    def __str__(self) -> str:
        return f"kccs of {len(self.claims)} octets"

    def encode_map(self) -> bytes:
        """The ID_CRED_x map, as authenticated and as sent (RFC 9528 3.5.3)."""
        return b"\xa1\x0e" + self.claims


@dataclass(frozen=True, slots=True)
class X5chain:
    """Certificates in DER, the owner's first, each issued by the next (RFC 9360 2).

    Raises LocalProtocolError without any, or with more than CHAIN_COUNT_MAX.
    """

    certificates: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.certificates) <= CHAIN_COUNT_MAX:
            raise LocalProtocolError(
                f"{len(self.certificates)} certificates, expected 1 to {CHAIN_COUNT_MAX}"
            )

    def __str__(self) -> str:
        digest = hashlib.sha256(self.certificates[0]).digest()[: X5T_DIGEST_SIZES[SHA_256_64]]
        return f"x5chain of {len(self.certificates)}, {digest.hex()} first"

    def encode_map(self) -> bytes:
        """The ID_CRED_x map, as authenticated and as sent: one is not put into an array."""
        items = b"".join(encode_bytes(one) for one in self.certificates)
        count = len(self.certificates)
        return b"\xa1\x18\x21" + (items if count == 1 else bytes((0x80 | count,)) + items)


IdCred = Kid | X5t | Kccs | X5chain
"""ID_CRED_x: what tells the peer which credential to look up. Proves nothing by itself."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as both parties must have it, to the octet (RFC 9528 3.5.2).

    `octets` is CRED_x: one CBOR item, a map for a CCS, a byte string for a certificate.
    """

    id_cred: IdCred
    octets: bytes
    public_key: PublicKey

    def __str__(self) -> str:
        return str(self.id_cred)


@dataclass(frozen=True, slots=True)
class AuthenticationKey:
    """Our own private key, for static Diffie-Hellman or for signing, with its credential.

    Raises ConfigError unless the two belong together.
    """

    private_key: PrivateKey
    credential: Credential

    def __post_init__(self) -> None:
        if self.private_key.public_key() != self.credential.public_key:
            raise ConfigError(f"the private key is not that of the credential, {self.credential}")


def ccs_credential(kid: bytes, subject: str, public_key: PublicKey) -> Credential:
    """A CWT Claims Set with subject and confirmation key, named by `kid`.

    `{2: subject, 8: {1: COSE_Key}}` in the deterministic encoding, the layout of the
    published trace (RFC 9529 3). Raises ConfigError for a key on a curve that is not ours,
    or a kid or subject over KID_SIZE_MAX or SUBJECT_SIZE_MAX octets.
    """
    if len(kid) > KID_SIZE_MAX:
        raise ConfigError(f"a kid of {len(kid)} octets, at most {KID_SIZE_MAX}")
    if (size := len(subject.encode())) > SUBJECT_SIZE_MAX:
        raise ConfigError(f"a subject of {size} octets, at most {SUBJECT_SIZE_MAX}")
    try:
        confirmation = cose_key(public_key, kid)
    except ValueError as error:
        raise ConfigError(f"{error}, so there is no credential for this key") from error
    claims = {CLAIM_SUB: subject, CLAIM_CNF: {CNF_COSE_KEY: confirmation}}
    return Credential(Kid(kid), cbor2.dumps(claims), public_key)


def decode_ccs(octets: bytes) -> Credential:
    """The credential that a stored CWT Claims Set is; its `kid` is the one in the COSE_Key.

    The octets are kept as they are. Raises EdhocError unless they are one CBOR map with a
    confirmation key of a kind that suites here use, and no more than CREDENTIAL_SIZE_MAX.
    """
    key = _confirmation_key(octets)
    kid = key.get(KID)
    if not isinstance(kid, bytes) or len(kid) > KID_SIZE_MAX:
        raise EdhocError(BAD_CREDENTIAL, f"no kid of at most {KID_SIZE_MAX} octets")
    return Credential(Kid(kid), bytes(octets), _public_key(key))


def kccs_credential(octets: bytes) -> Credential:
    """The credential that a CWT Claims Set is, to be sent by value or as it came so.

    It needs no kid. Raises EdhocError as `decode_ccs` does. Whether its owner is to be trusted
    is not said by it: look the octets up.
    """
    return Credential(Kccs(bytes(octets)), bytes(octets), _public_key(_confirmation_key(octets)))


def x5chain_credential(certificates: Sequence[bytes]) -> Credential:
    """The credential that a chain of DER certificates carries: its first one (RFC 9528 3.5.2).

    Raises EdhocError as `x5t_credential` does, and on a wrong number. Nothing is validated.
    """
    if not 0 < len(certificates) <= CHAIN_COUNT_MAX:
        raise EdhocError(BAD_CREDENTIAL, f"{len(certificates)} certificates")
    own = x5t_credential(certificates[0])
    return Credential(X5chain(tuple(map(bytes, certificates))), own.octets, own.public_key)


def carried_credential(id_cred: IdCred) -> Credential | None:
    """The credential that stands in `id_cred` itself, or None where it only names one.

    Raises EdhocError on a value that is no credential. What comes out proves itself in the
    handshake, and nothing more: whether to trust it is the caller's to find out.
    """
    match id_cred:
        case Kccs():
            return kccs_credential(id_cred.claims)
        case X5chain():
            return x5chain_credential(id_cred.certificates)
        case _:
            return None


def known_credential(id_cred: IdCred, known: Iterable[Credential]) -> Credential | None:
    """Which of the `known` ones `id_cred` means, by its name or by its value; None for none.

    One that comes by value is known if its octets are, whatever it is called here. A chain
    is known by its first certificate, so that one can be pinned without anchors.
    """
    carried = None
    for credential in known:
        if credential.id_cred == id_cred:
            return credential
        if isinstance(id_cred, Kccs | X5chain):
            carried = carried or carried_credential(id_cred)
            if carried is not None and carried.octets == credential.octets:
                return carried
    return None


def x5t_credential(certificate: bytes, algorithm: int = SHA_256_64) -> Credential:
    """A DER certificate, named by a digest over it; CRED_x is its byte string (3.5.2).

    Raises EdhocError unless it parses and holds a key of a kind that suites here use.
    The certificate's own signature and dates are the caller's to judge.
    """
    if (digest_size := X5T_DIGEST_SIZES.get(algorithm)) is None:
        raise EdhocError(BAD_CREDENTIAL, f"x5t algorithm {algorithm}")
    public_key = read_certificate(certificate).public_key()
    if not isinstance(public_key, EllipticCurvePublicKey | X25519PublicKey | Ed25519PublicKey):
        raise EdhocError(BAD_CREDENTIAL, "a key that is not P-256, X25519 or Ed25519")
    if kind_of(public_key) is None:
        raise EdhocError(BAD_CREDENTIAL, "a curve that is not P-256")
    digest = hashlib.sha256(certificate).digest()[:digest_size]
    return Credential(X5t(algorithm, digest), encode_bytes(certificate), public_key)


def read_certificate(octets: bytes) -> x509.Certificate:
    """The certificate that those octets are, in DER, all of it read. Raises EdhocError.

    What is read late elsewhere is read here, so that whatever is malformed shows as one fault.
    """
    if len(octets) > CREDENTIAL_SIZE_MAX:
        raise EdhocError(BAD_CREDENTIAL, f"{len(octets)} octets, at most {CREDENTIAL_SIZE_MAX}")
    try:
        with warnings.catch_warnings():
            # What the parser only warns of is against RFC 5280, and its later releases refuse it.
            warnings.simplefilter("error", UserWarning)
            certificate = x509.load_der_x509_certificate(octets)
            _ = certificate.serial_number, certificate.subject, certificate.issuer
            _ = certificate.public_key(), certificate.extensions, certificate.signature
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        UserWarning,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise EdhocError(BAD_CREDENTIAL, f"not a usable certificate: {error}") from error
    return certificate


def _confirmation_key(octets: bytes) -> Mapping[object, object]:
    confirmation = _load_map(octets).get(CLAIM_CNF)
    if not isinstance(confirmation, Mapping):
        raise EdhocError(BAD_CREDENTIAL, "no cnf claim with a map")
    key = confirmation.get(CNF_COSE_KEY)
    if not isinstance(key, Mapping):
        raise EdhocError(BAD_CREDENTIAL, "no COSE_Key in the cnf claim")
    return key


def _public_key(key: Mapping[object, object]) -> PublicKey:
    try:
        return public_key_from(key)
    except ValueError as error:
        raise EdhocError(BAD_CREDENTIAL, str(error)) from error


def _load_map(octets: bytes) -> Mapping[object, object]:
    if len(octets) > CREDENTIAL_SIZE_MAX:
        raise EdhocError(BAD_CREDENTIAL, f"{len(octets)} octets, at most {CREDENTIAL_SIZE_MAX}")
    try:
        claims: object = read_item(io.BytesIO(octets))
        again = cbor2.dumps(claims)
    except Exception as error:
        # What can be read of a tag cannot always be written.
        raise EdhocError(BAD_CREDENTIAL, "not CBOR") from error
    # Octets after the item, an indefinite length or a repeated key would all be lost here.
    if again != octets:
        raise EdhocError(BAD_CREDENTIAL, "not one item in its shortest encoding")
    if not isinstance(claims, Mapping):
        raise EdhocError(BAD_CREDENTIAL, "not a map of claims")
    return claims
