"""Signed octets.

The contract under test: what the owner of a key signed is recognised as theirs, also in the
published example, which others made; one changed octet, another key, another purpose or another
algorithm is not; whatever else comes is TrustError and nothing else.
"""

from __future__ import annotations

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import TrustError
from amistack.session.signing import Signed, SigningKey, sign1

P256 = ec.derive_private_key(21, ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = [P256, ED25519]

# RFC 9052 appendix C.2.1 (IETF Trust, Simplified BSD): single ECDSA signature, key "11" of C.7.1.
PUBLISHED = bytes.fromhex(
    "d28443a10126a10442313154546869732069732074686520636f6e74656e742e5840"
    "8eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e"
    "2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36"
)
PUBLISHED_KEY = ec.EllipticCurvePublicNumbers(
    0xBAC5B11CAD8F99F9C72B05CF4B9E26D244DC189F745228255A219A86D6A09EFF,
    0x20138BF82DC1B6D562BE0FA54AB7804A3A64B6D72CCFED6B6FB6ED28BBFC117E,
    ec.SECP256R1(),
).public_key()


def test_the_published_example_is_recognised_as_its_owners() -> None:
    signed = Signed.decode(PUBLISHED)
    assert (signed.payload, signed.kid) == (b"This is the content.", b"11")
    assert signed.is_by(PUBLISHED_KEY)
    assert not signed.is_by(P256.public_key())


@pytest.mark.parametrize("key", KEYS, ids=["P-256", "Ed25519"])
@settings(deadline=None, max_examples=25)
@given(payload=st.binary(max_size=60), aad=st.binary(max_size=8), kid=st.none() | st.binary())
def test_what_was_signed_is_read_back_and_is_its_signers_alone(
    key: SigningKey, payload: bytes, aad: bytes, kid: bytes | None
) -> None:
    signed = Signed.decode(sign1(key, payload, kid=kid, external_aad=aad))
    assert signed.payload == payload
    assert signed.kid == (kid or b"")
    assert signed.is_by(key.public_key(), external_aad=aad)
    assert not signed.is_by(key.public_key(), external_aad=aad + b"x")
    for other in KEYS:
        if other is not key:
            assert not signed.is_by(other.public_key(), external_aad=aad)


@pytest.mark.parametrize(
    "octets", [PUBLISHED, sign1(ED25519, b"words", kid=b"k")], ids=["published", "ours"]
)
def test_one_flipped_bit_is_always_noticed(octets: bytes) -> None:
    key = PUBLISHED_KEY if octets is PUBLISHED else ED25519.public_key()
    # The unprotected header proves nothing.
    kid_at = range(7, 11) if octets is PUBLISHED else range(0)
    for at in range(len(octets)):
        for bit in range(8):
            changed = bytes(o ^ (1 << bit) if i == at else o for i, o in enumerate(octets))
            try:
                signed = Signed.decode(changed)
            except TrustError:
                continue
            assert at in kid_at or not signed.is_by(key), (at, bit)


def test_algorithm_of_another_kind_of_key_is_not_taken_for_this_ones() -> None:
    tag = cbor2.loads(sign1(P256, b"words"))
    for algorithm in (-8, -19, -35, -36, 5):
        tag.value[0] = cbor2.dumps({1: algorithm})
        assert not Signed.decode(cbor2.dumps(tag)).is_by(P256.public_key())


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([b"\xa1\x01\x26", {}, b"", b""], "not signed octets"),
        (cbor2.CBORTag(17, [b"\xa1\x01\x26", {}, b"", b""]), "not signed octets"),
        (cbor2.CBORTag(18, [b"\xa1\x01\x26", {}, b""]), "not signed octets"),
        (cbor2.CBORTag(18, [b"\xa1\x01\x26", {}, None, b""]), "not signed octets"),
        (cbor2.CBORTag(18, [b"\xa1\x01\x26", [], b"", b""]), "not signed octets"),
        (cbor2.CBORTag(18, [b"\x80", {}, b"", b""]), "not signed octets"),
        (cbor2.CBORTag(18, [b"", {1: -7}, b"", b""]), "no algorithm"),
        (cbor2.CBORTag(18, [b"\xa2\x01\x26\x02\x81\x01", {}, b"", b""]), "critical header"),
        (cbor2.CBORTag(18, "text"), "not signed octets"),
    ],
)
def test_what_is_no_such_thing_is_refused_with_its_reason(tree: object, reason: str) -> None:
    with pytest.raises(TrustError) as refusal:
        Signed.decode(cbor2.dumps(tree))
    assert refusal.value.reason == reason


def test_octets_behind_the_end_are_refused() -> None:
    with pytest.raises(TrustError, match="trailing octets"):
        Signed.decode(PUBLISHED + b"\0")


@settings(deadline=None, max_examples=300)
@given(octets=st.binary(max_size=60) | st.binary(max_size=40).map(lambda o: b"\xd2\x84" + o))
def test_arbitrary_octets_never_raise_anything_but_trust_error(octets: bytes) -> None:
    message = ""
    try:
        assert not Signed.decode(octets).is_by(P256.public_key())
    except TrustError as error:
        message = str(error)
    assert message.isprintable()
