"""Names of meters and head-ends, and the credentials rebuilt from them.

The contract under test: from an identifier and a public key both sides make the same credential to
the octet, and what is no public key is one readable line.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.identifiers import Eui64
from amistack.session.credentials import Kid, X5t, decode_ccs
from amistack.session.fleet import (
    decode_public_key,
    encode_public_key,
    head_end_credential,
    meter_credential,
    meter_named,
    parse_public_key,
)

METER = Eui64(bytes.fromhex("70b3d5fffe000017"))
KEY = ec.derive_private_key(7, ec.SECP256R1()).public_key()
POINT = encode_public_key(KEY)


def test_a_meters_credential_is_its_eui_64_its_hex_and_its_key() -> None:
    credential = meter_credential(METER, POINT)
    numbers = KEY.public_numbers()
    assert credential.id_cred == Kid(METER)
    claims = cbor2.loads(credential.octets)
    assert claims[2] == "70b3d5fffe000017"
    assert claims[8] == {
        1: {1: 2, 2: METER, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
    }
    assert decode_ccs(credential.octets) == credential


def test_a_head_ends_name_is_the_beginning_of_its_keys_hash() -> None:
    credential = head_end_credential(POINT)
    kid = hashlib.sha256(POINT).digest()[:4]
    assert credential.id_cred == Kid(kid)
    assert cbor2.loads(credential.octets)[2] == f"head-end {kid.hex()}"


@settings(deadline=None)
@given(st.integers(1, 2**255))
def test_a_public_key_is_read_as_it_was_written(secret: int) -> None:
    key = ec.derive_private_key(secret, ec.SECP256R1()).public_key()
    octets = encode_public_key(key)
    assert len(octets) == 33
    assert decode_public_key(octets) == key
    assert parse_public_key(f"  {octets.hex().upper()}\n") == octets


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.binary(max_size=40).map(bytes.hex))
def test_any_text_is_a_public_key_or_one_line_that_says_why_not(text: str) -> None:
    message = ""
    try:
        decode_public_key(parse_public_key(text))
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("octets", [b"", POINT[:-1], POINT + b"\0", b"\x04" + POINT[1:], bytes(33)])
def test_what_is_no_compressed_point_is_refused(octets: bytes) -> None:
    with pytest.raises(ConfigError):
        decode_public_key(octets)


def test_only_a_kid_of_eight_octets_names_a_meter() -> None:
    assert meter_named(Kid(METER)) == METER
    for id_cred in (Kid(METER[:7]), Kid(METER + b"\0"), Kid(b""), X5t(-15, METER)):
        assert meter_named(id_cred) is None
    assert meter_named(head_end_credential(POINT).id_cred) is None


def test_the_example_in_the_specification_is_what_is_made() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol" / "identity.md").read_text()
    shown = "".join(text.split())
    for octets in (
        POINT,
        meter_credential(METER, POINT).octets,
        head_end_credential(POINT).octets,
    ):
        assert octets.hex() in shown
