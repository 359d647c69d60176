"""The least that one OSCORE request and its answer take in Python: the limit for ours.

Straight-line code over octets, without checks that a server on the open internet cannot do without:
a measure, never to be used for anything else. What is done, and so counted in the limit:

    request   header and token; options up to OSCORE; kid and Partial IV; context by kid in a
              dictionary; nonce and AAD; decryption with a fresh AES-CCM object; replay window;
              options inside, up to the payload
    answer    plaintext; encryption with a fresh AES-CCM object; header, token, option, marker
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from amistack.session.oscore import SecurityContext

HEADER: Final = struct.Struct("!BBH")
TAG_SIZE: Final = 8
ACKNOWLEDGEMENT: Final = 0x60
CHANGED: Final = 0x44
ANSWER_PLAINTEXT: Final = b"\x44\xc2\xfd\xe9\xff"
"""2.04, the model's Content-Format (65001), and the marker before the payload."""

Table = dict[bytes, tuple[bytes, bytes, int, list[int]]]
"""By kid: keys to receive and to send with, the common IV as a number, window base and bitmap."""


def table_of(contexts: Iterable[SecurityContext]) -> Table:
    """The contexts as the bare code keeps them."""
    return {
        one.recipient_id: (
            one.recipient_key,
            one.sender_key,
            int.from_bytes(one.common_iv, "big"),
            [0, 0],
        )
        for one in contexts
    }


Opened = tuple[bytes, bytes, bytes, bytes, bytes, bytes, int]
"""Kid, Partial IV, payload, key to send with, nonce, AAD, and where the token ends."""


def open_request(datagram: bytes, table: Table) -> Opened:
    """Take a protected request apart. Raises whatever it stumbles over."""
    first, _, _ = HEADER.unpack_from(datagram)
    token_end = 4 + (first & 0x0F)
    at = token_end
    number = 0
    while True:
        octet = datagram[at]
        number += octet >> 4
        size = octet & 0x0F
        at += 1
        if number == 9:
            break
        at += size
    piv_end = at + 1 + (datagram[at] & 7)
    piv = datagram[at + 1 : piv_end]
    kid = datagram[piv_end : at + size]
    at += size + 1
    receive_key, send_key, iv, window = table[kid]
    count = int.from_bytes(piv, "big")
    mixed = len(kid) << 96 | int.from_bytes(kid, "big") << 40 | count
    nonce = (iv ^ mixed).to_bytes(13, "big")
    array = b"\x85\x01\x81\x0a%c%b%c%b\x40" % (0x40 + len(kid), kid, 0x40 + len(piv), piv)
    aad = b"\x83\x68Encrypt0\x40%c%b" % (0x40 + len(array), array)
    base, bitmap = window
    if count < base or bitmap >> (count - base) & 1:
        raise ValueError("replay")
    plaintext = AESCCM(receive_key, TAG_SIZE).decrypt(nonce, datagram[at:], aad)
    if count == base:
        window[0] = base + 1
    else:
        window[1] = bitmap | 1 << (count - base)
    at = 1
    while plaintext[at] != 0xFF:
        size = plaintext[at] & 0x0F
        at += 1 + size
    return kid, piv, plaintext[at + 1 :], send_key, nonce, aad, token_end


def seal_answer(datagram: bytes, opened: Opened, payload: bytes) -> bytes:
    """The acknowledgement of that request, protected under its nonce."""
    _, _, _, key, nonce, aad, token_end = opened
    ciphertext = AESCCM(key, TAG_SIZE).encrypt(nonce, ANSWER_PLAINTEXT + payload, aad)
    return b"%c%c%b\x90\xff%b" % (
        ACKNOWLEDGEMENT | token_end - 4,
        CHANGED,
        datagram[2:token_end],
        ciphertext,
    )
