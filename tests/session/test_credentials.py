"""Credentials: exact octets, keys of the right kind, and garbage.

The contract under test: a credential made here decodes to itself; decoding raises nothing
but EdhocError; a private key is never paired with somebody else's credential.
"""

from __future__ import annotations

import datetime as dt

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, EdhocError
from amistack.session.cose import PrivateKey, encode_bytes, is_signature, sign
from amistack.session.credentials import (
    AuthenticationKey,
    Kid,
    X5t,
    ccs_credential,
    decode_ccs,
    x5t_credential,
)
from tests.session.edhoc_pairs import scalar

P256 = ec.derive_private_key(int.from_bytes(scalar("a")), ec.SECP256R1())
P384 = ec.derive_private_key(int.from_bytes(scalar("a")), ec.SECP384R1())
X25519 = X25519PrivateKey.from_private_bytes(scalar("a"))
ED25519 = Ed25519PrivateKey.from_private_bytes(scalar("a"))
OURS: list[PrivateKey] = [P256, X25519, ED25519]
VALID = ccs_credential(b"kid", "meter", P256.public_key()).octets
CURVE_NAMES = ["P-256", "X25519", "Ed25519"]


def certificate_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "meter")])
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + dt.timedelta(days=1))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("key", OURS, ids=CURVE_NAMES)
@settings(deadline=None, max_examples=30)
@given(kid=st.binary(max_size=64), subject=st.text(max_size=40))
def test_decoding_inverts_making(key: PrivateKey, kid: bytes, subject: str) -> None:
    credential = ccs_credential(kid, subject, key.public_key())
    assert decode_ccs(credential.octets) == credential
    assert credential.id_cred == Kid(kid)
    assert credential.octets == cbor2.dumps(cbor2.loads(credential.octets), canonical=True)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120))
def test_arbitrary_octets_never_raise_anything_but_edhoc_error(octets: bytes) -> None:
    with pytest.raises(EdhocError):
        decode_ccs(octets)
    with pytest.raises(EdhocError):
        x5t_credential(octets)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_damaged_credential_never_raises_anything_but_edhoc_error(place: int, octet: int) -> None:
    damaged = bytearray(VALID)
    damaged[place] = octet
    try:
        assert decode_ccs(bytes(damaged)).octets == damaged
    except EdhocError:
        pass


@pytest.mark.parametrize(
    "claims",
    [
        [],
        {2: "a"},
        {2: "a", 8: 1},
        {2: "a", 8: {3: b"kid"}},
        {8: {1: {1: 2, 2: b"k", -1: 1, -2: bytes(32), -3: bytes(32)}}},
        {8: {1: {1: 2, 2: b"k", -1: 1, -2: b"\xff" * 32, -3: bytes(32)}}},
        {8: {1: {1: 2, 2: b"k", -1: 1, -2: bytes(32)}}},
        {8: {1: {1: 2, 2: b"k", -1: 2, -2: bytes(32), -3: bytes(32)}}},
        {8: {1: {1: 1, 2: b"k", -1: 4, -2: bytes(31)}}},
        {8: {1: {1: 1, 2: "k", -1: 4, -2: bytes(32)}}},
        {8: {1: {1: 1, -1: 4, -2: bytes(32)}}},
        {8: {1: {1: 1, 2: bytes(65), -1: 4, -2: bytes(32)}}},
        {1: bytes(2048)},
    ],
)
def test_claims_that_are_no_credential_are_refused(claims: object) -> None:
    with pytest.raises(EdhocError) as refused:
        decode_ccs(cbor2.dumps(claims))
    assert refused.value.reason == "bad credential"


def test_octets_that_are_not_exactly_one_item_are_refused() -> None:
    for octets in (VALID + b"\x00", VALID[:-1], b"\xbf" + VALID[1:] + b"\xff", b"\x81" * 1000):
        with pytest.raises(EdhocError):
            decode_ccs(octets)


def test_certificate_is_named_by_its_digest_and_bound_whole() -> None:
    der = certificate_of(P256)
    credential = x5t_credential(der)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    full = digest.finalize()
    assert credential.id_cred == X5t(-15, full[:8])
    assert x5t_credential(der, -16).id_cred == X5t(-16, full)
    assert credential.octets == encode_bytes(der) == cbor2.dumps(der)
    assert credential.public_key == P256.public_key()
    with pytest.raises(EdhocError):
        x5t_credential(der, -44)


def test_keys_of_other_curves_are_refused() -> None:
    with pytest.raises(EdhocError):
        x5t_credential(certificate_of(P384))
    with pytest.raises(ConfigError):
        ccs_credential(b"k", "meter", P384.public_key())


def test_oversize_names_are_refused() -> None:
    with pytest.raises(ConfigError):
        ccs_credential(bytes(65), "meter", P256.public_key())
    with pytest.raises(ConfigError):
        ccs_credential(b"k", "ä" * 129, P256.public_key())


@pytest.mark.parametrize("key", OURS, ids=CURVE_NAMES)
def test_key_and_credential_must_belong_together(key: PrivateKey) -> None:
    mine = ccs_credential(b"k", "meter", key.public_key())
    AuthenticationKey(key, mine)
    for other in OURS:
        if other is not key:
            with pytest.raises(ConfigError):
                AuthenticationKey(other, mine)


@pytest.mark.parametrize("key", [P256, ED25519], ids=["ES256", "EdDSA"])
def test_one_flipped_bit_undoes_a_signature(
    key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey,
) -> None:
    signature = sign(key, b"message")
    assert len(signature) == 64
    assert is_signature(key.public_key(), signature, b"message")
    assert not is_signature(key.public_key(), signature, b"massage")
    for bit in range(0, 512, 7):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not is_signature(key.public_key(), bytes(flipped), b"message")
    for wrong in (b"", bytes(63), bytes(64), b"\xff" * 64, signature + b"\x00"):
        assert not is_signature(key.public_key(), wrong, b"message")


@given(st.binary(max_size=300))
def test_byte_strings_are_as_a_general_encoder_writes_them(octets: bytes) -> None:
    assert encode_bytes(octets) == cbor2.dumps(octets)
