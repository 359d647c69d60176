"""The cipher is AES-CCM as published.

Vectors: RFC 3610 section 8, packet vectors 1 and 2 (13 octets of nonce, 8 of tag).
"""

from __future__ import annotations

import pytest

from amistack.errors import ConfigError
from mesh.security import AesCcm

KEY = bytes.fromhex("c0c1c2c3c4c5c6c7c8c9cacbcccdcecf")


@pytest.mark.parametrize(
    ("nonce", "plaintext_end", "sealed"),
    [
        (
            "00000003020100a0a1a2a3a4a5",
            0x1E,
            "588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0",
        ),
        (
            "00000004030201a0a1a2a3a4a5",
            0x1F,
            "72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916",
        ),
    ],
)
def test_published_vectors_are_sealed_and_opened(
    nonce: str, plaintext_end: int, sealed: str
) -> None:
    cipher = AesCcm(KEY)
    header, plaintext = bytes(range(8)), bytes(range(8, plaintext_end + 1))
    assert cipher.seal(bytes.fromhex(nonce), plaintext, header).hex() == sealed
    assert cipher.open(bytes.fromhex(nonce), bytes.fromhex(sealed), header) == plaintext
    assert cipher.open(bytes.fromhex(nonce), bytes.fromhex(sealed), header + b"\0") is None


def test_tag_alone_fits_its_header_alone() -> None:
    cipher = AesCcm(KEY)
    tag = cipher.tag(bytes(13), b"header")
    assert len(tag) == 4
    assert cipher.fits(bytes(13), tag, b"header")
    assert not cipher.fits(bytes(13), tag, b"heades")
    assert not cipher.fits(bytes(12) + b"\1", tag, b"header")


def test_key_of_another_size_is_the_operators_to_mend() -> None:
    with pytest.raises(ConfigError, match="15 octets, expected 16"):
        AesCcm(bytes(15))
