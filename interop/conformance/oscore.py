"""OSCORE against the values that the IETF published.

Spec    RFC 8613 Appendix C: key derivation (C.1 to C.3), requests (C.4 to C.6), responses (C.7,
        C.8); section 6.3: the option's examples
Gives   one case for each published value, as it passes through our code: the inputs of HKDF and
        AES-CCM are taken where they enter the primitives
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypedDict, cast
from unittest import mock

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.session.oscore import (
    OscoreOption,
    RequestBinding,
    SecurityContext,
    find_kid,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from amistack.session.oscore import context as context_module
from amistack.session.oscore import protect as protect_module
from interop.conformance.suite import Case, VectorSuite
from interop.vectors import load


class Derivation(TypedDict):
    """One party's security context (C.1 to C.3)."""

    name: str
    master_secret: str
    master_salt: str | None
    sender_id: str
    recipient_id: str
    id_context: str | None
    info_for_sender_key: str
    info_for_recipient_key: str
    info_for_common_iv: str
    sender_key: str
    recipient_key: str
    common_iv: str
    sender_nonce: str
    recipient_nonce: str


class Protection(TypedDict):
    """One protected message (C.4 to C.8); `answers` names the request of a response."""

    name: str
    answers: str
    sender: str
    recipient: str
    unprotected: str
    aead_algorithm: int
    common_iv: str
    sender_id: str
    sender_key: str
    sender_sequence_number: int
    partial_iv: str | None
    kid: str
    kid_context: str
    external_aad: str
    aad: str
    plaintext: str
    encryption_key: str
    nonce: str
    oscore_option_value: str
    ciphertext: str
    protected: str


class OptionExample(TypedDict):
    """One value of the OSCORE option (section 6.3)."""

    name: str
    value: str
    partial_iv: str | None
    kid: str | None
    kid_context: str | None


class Published(TypedDict):
    """The file of vectors."""

    derivations: Sequence[Derivation]
    requests: Sequence[Protection]
    responses: Sequence[Protection]
    options: Sequence[OptionExample]


@functools.cache
def published() -> Published:
    """The values of RFC 8613."""
    return cast("Published", load("rfc8613"))


def octets(text: str | None) -> bytes | None:
    """Octets from hex; what is absent stays absent."""
    return None if text is None else bytes.fromhex(text)


def derived(name: str) -> SecurityContext:
    """The context of a published derivation, with nothing reserved yet."""
    (one,) = (d for d in published()["derivations"] if d["name"] == name)
    return SecurityContext.derive(
        master_secret=bytes.fromhex(one["master_secret"]),
        master_salt=octets(one["master_salt"]) or b"",
        sender_id=bytes.fromhex(one["sender_id"]),
        recipient_id=bytes.fromhex(one["recipient_id"]),
        id_context=octets(one["id_context"]),
    )


@dataclass(slots=True)
class Watched:
    """What went into the primitives while we looked: infos, and (key, nonce, aad, plaintext)."""

    infos: list[bytes] = field(default_factory=list)
    encryptions: list[tuple[bytes, bytes, bytes, bytes]] = field(default_factory=list)


@contextmanager
def watching() -> Iterator[Watched]:
    """Note the inputs of the primitives that OSCORE uses, and change nothing."""
    watched = Watched()

    def expand(algorithm: hashes.HashAlgorithm, length: int, info: bytes) -> HKDFExpand:
        watched.infos.append(bytes(info))
        return HKDFExpand(algorithm, length, info)

    class Cipher:
        def __init__(self, key: bytes, tag_size: int) -> None:
            self._key, self._inner = bytes(key), AESCCM(key, tag_size)

        def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
            watched.encryptions.append((self._key, bytes(nonce), bytes(aad), bytes(plaintext)))
            return self._inner.encrypt(nonce, plaintext, aad)

        def decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
            return self._inner.decrypt(nonce, ciphertext, aad)

    with (
        mock.patch.object(context_module, "HKDFExpand", expand),
        mock.patch.object(protect_module, "AESCCM", Cipher),
    ):
        yield watched


@dataclass(frozen=True, slots=True)
class Protected:
    """A message that we protected, and all that can be compared of it."""

    sender: SecurityContext
    sequence_number: int
    message: Message
    binding: RequestBinding
    key: bytes
    nonce: bytes
    aad: bytes
    plaintext: bytes


def protected_request(vector: Protection) -> Protected:
    """Protect the published request as its sender."""
    client = derived(vector["sender"])
    client.next_sequence_number = vector["sender_sequence_number"]
    client.reserve(client.next_sequence_number + 1)
    with watching() as watched:
        message, binding = protect_request(
            client, Message.decode(bytes.fromhex(vector["unprotected"]))
        )
    number = client.next_sequence_number - 1
    return Protected(client, number, message, binding, *watched.encryptions[0])


def protected_response(vector: Protection) -> Protected:
    """Protect the published response as its sender, after it took the published request."""
    request = _request_of(vector)
    server = derived(vector["sender"])
    server.reserve(1)
    _, received = unprotect_request(server, Message.decode(bytes.fromhex(request["protected"])))
    number = server.next_sequence_number
    with watching() as watched:
        message = protect_response(
            server,
            Message.decode(bytes.fromhex(vector["unprotected"])),
            received,
            own_partial_iv=vector["partial_iv"] is not None,
        )
    return Protected(server, number, message, received, *watched.encryptions[0])


def read_request(vector: Protection) -> bytes:
    """The published protected request, unprotected by its recipient, as octets."""
    server = derived(vector["recipient"])
    message = Message.decode(bytes.fromhex(vector["protected"]))
    return unprotect_request(server, message)[0].encode()


def read_response(vector: Protection) -> bytes:
    """The published protected response, unprotected by its recipient, as octets."""
    sent = protected_request(_request_of(vector))
    message = Message.decode(bytes.fromhex(vector["protected"]))
    return unprotect_response(sent.sender, message, sent.binding).encode()


def _request_of(vector: Protection) -> Protection:
    (request,) = (r for r in published()["requests"] if r["name"] == vector["answers"])
    return request


def cases() -> list[Case]:
    """Derivations, option examples, requests, responses."""
    found: list[Case] = []
    for derivation in published()["derivations"]:
        found += _derivation_cases(derivation)
    for example in published()["options"]:
        found += _option_cases(example)
    for vector in published()["requests"]:
        found += _protection_cases(vector, functools.partial(protected_request, vector))
        found += _request_cases(vector)
    for vector in published()["responses"]:
        found += _protection_cases(vector, functools.partial(protected_response, vector))
        found.append(
            Case(
                f"{vector['name']} unprotected",
                bytes.fromhex(vector["unprotected"]),
                functools.partial(read_response, vector),
            )
        )
    return found


def _derivation_cases(vector: Derivation) -> list[Case]:
    name = vector["name"]

    def info(index: int) -> bytes:
        with watching() as watched:
            derived(name)
        return watched.infos[index]

    def nonce(identifier: str) -> bytes:
        # What a message under number 0 of that party is encrypted with: as sender or recipient.
        own = derived(name)
        (other,) = (
            d["name"]
            for d in published()["derivations"]
            if d["name"] != name and d["name"].split()[0] == name.split()[0]
        )
        sender = own if own.sender_id.hex() == identifier else derived(other)
        sender.reserve(1)
        with watching() as watched:
            protect_request(sender, Message(1))
        return watched.encryptions[0][1]

    values: Mapping[str, tuple[str, Callable[[], bytes]]] = {
        "info for sender key": (vector["info_for_sender_key"], lambda: info(0)),
        "info for recipient key": (vector["info_for_recipient_key"], lambda: info(1)),
        "info for common IV": (vector["info_for_common_iv"], lambda: info(2)),
        "sender key": (vector["sender_key"], lambda: derived(name).sender_key),
        "recipient key": (vector["recipient_key"], lambda: derived(name).recipient_key),
        "common IV": (vector["common_iv"], lambda: derived(name).common_iv),
        "sender nonce": (vector["sender_nonce"], lambda: nonce(vector["sender_id"])),
        "recipient nonce": (vector["recipient_nonce"], lambda: nonce(vector["recipient_id"])),
    }
    return [
        Case(f"{name} {what}", bytes.fromhex(expected), got)
        for what, (expected, got) in values.items()
    ]


def _option_cases(example: OptionExample) -> list[Case]:
    value = bytes.fromhex(example["value"])
    option = OscoreOption(
        octets(example["partial_iv"]), octets(example["kid"]), octets(example["kid_context"])
    )
    name = f"6.3 option {example['name']}"
    return [
        Case(f"{name} written", value, option.encode),
        Case(f"{name} read", option, lambda: OscoreOption.decode(value)),
    ]


def _protection_cases(vector: Protection, protected: Callable[[], Protected]) -> list[Case]:
    values: Mapping[str, tuple[object, Callable[[Protected], object]]] = {
        "AEAD algorithm": (vector["aead_algorithm"], lambda p: p.sender.algorithm),
        "common IV": (vector["common_iv"], lambda p: p.sender.common_iv.hex()),
        "sender ID": (vector["sender_id"], lambda p: p.sender.sender_id.hex()),
        "sender key": (vector["sender_key"], lambda p: p.sender.sender_key.hex()),
        "sender sequence number": (
            vector["sender_sequence_number"],
            lambda p: p.sequence_number,
        ),
        # It stands at the end of the Enc_structure, in a byte string.
        "external AAD": (
            vector["external_aad"],
            lambda p: p.aad[-len(vector["external_aad"]) // 2 :].hex(),
        ),
        "AAD": (vector["aad"], lambda p: p.aad.hex()),
        "plaintext": (vector["plaintext"], lambda p: p.plaintext.hex()),
        "encryption key": (vector["encryption_key"], lambda p: p.key.hex()),
        "nonce": (vector["nonce"], lambda p: p.nonce.hex()),
        "OSCORE option value": (
            vector["oscore_option_value"],
            lambda p: (p.message.option(OptionNumber.OSCORE) or b"").hex(),
        ),
        "ciphertext": (vector["ciphertext"], lambda p: p.message.payload.hex()),
        "protected message": (vector["protected"], lambda p: p.message.encode().hex()),
    }
    return [
        Case(f"{vector['name']} {what}", expected, functools.partial(_of, protected, got))
        for what, (expected, got) in values.items()
    ]


def _of(protected: Callable[[], Protected], got: Callable[[Protected], object]) -> object:
    return got(protected())


def _request_cases(vector: Protection) -> list[Case]:
    message = Message.decode(bytes.fromhex(vector["protected"]))
    kid = (bytes.fromhex(vector["kid"]), octets(vector.get("kid_context")))
    name = vector["name"]
    return [
        Case(
            f"{name} partial IV",
            octets(vector["partial_iv"]),
            lambda: protected_request(vector).binding.request_piv,
        ),
        Case(f"{name} kid and kid context", kid, lambda: find_kid(message)),
        Case(
            f"{name} unprotected",
            bytes.fromhex(vector["unprotected"]),
            functools.partial(read_request, vector),
        ),
    ]


SUITE: Final = VectorSuite(
    "oscore-rfc8613",
    "OSCORE: every published value of key derivation and protection, and the option's examples",
    "RFC 8613",
    cases,
)
