"""EDHOC against the traces that the IETF published.

Spec    RFC 9529 sections 2 and 3: every value of both handshakes; section 4: the invalid messages
Gives   one case for each published name: what our own function or machine makes of the values
        that were published before it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from amistack.session.cose import PrivateKey, enc_structure, encode_bytes, sig_structure
from amistack.session.edhoc import (
    encode_identifier,
    ephemeral_from_bytes,
)
from amistack.session.edhoc.messages import (
    Message1,
    Plaintext2,
    Plaintext3,
    decode_ciphertext,
    encode_ead,
)
from amistack.session.edhoc.schedule import (
    Label,
    extract,
    hash_of,
    kdf,
    key_and_nonce_3,
    key_and_nonce_4,
    prk_3e2m,
    prk_4e3m,
    transcript_2,
    transcript_next,
    xor_keystream_2,
)
from amistack.session.edhoc.suites import exchange
from interop.conformance.edhoc_refused import invalid_case, negotiation
from interop.conformance.edhoc_trace import Trace, published, updated, walk
from interop.conformance.suite import Case, VectorSuite

HASH_SIZE: Final = 32

TRACES: Final = ("signatures_x5t", "static_dh_kid")

Step = Callable[[Trace], object]


def _ephemeral(name: str) -> Step:
    private = name.replace("G_", "")
    return lambda t: t.suite.public_octets(ephemeral_from_bytes(t.suite.number, t[private]))


def _y_coordinate(private: str) -> Step:
    def compute(trace: Trace) -> bytes:
        key = ephemeral_from_bytes(trace.suite.number, trace[private])
        return _coordinates(key)[1]

    return compute


def _coordinates(key: PrivateKey) -> tuple[bytes, bytes]:
    public = key.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        return b"", b""
    numbers = public.public_numbers()
    return numbers.x.to_bytes(HASH_SIZE), numbers.y.to_bytes(HASH_SIZE)


def _public_key(trace: Trace, role: str) -> bytes:
    key = trace.key(role).private_key
    if isinstance(key, Ed25519PrivateKey | X25519PrivateKey):
        return key.public_key().public_bytes_raw()
    return _coordinates(key)[0]


def _expanded(label: int, prk: str, context: str, output: str) -> Step:
    """Our EDHOC_KDF, with the published key, context and length."""
    return lambda t: kdf(t[prk], label, t[context] if context else b"", len(t[output]))


def _info(prk: str, output: str) -> Step:
    """What the published info expands to, by HKDF-Expand alone."""

    def compute(trace: Trace) -> bytes:
        info = trace[f"info_{output}"]
        return HKDFExpand(hashes.SHA256(), len(trace[output]), info).derive(trace[prk])

    return compute


def _signed_or_mac(role: str) -> Step:
    return lambda t: t.claim(role).prove(t.suite, t.method, t.key(role))


def _to_be_signed(role: str, number: int) -> Step:
    def compute(trace: Trace) -> bytes:
        credential = trace.credential(role)
        external_aad = encode_bytes(trace[f"TH_{number}"]) + credential.octets
        return sig_structure(credential.id_cred.encode_map(), external_aad, trace[f"MAC_{number}"])

    return compute


def _sealed(number: int) -> Step:
    def compute(trace: Trace) -> bytes:
        plaintext = trace.get(f"PLAINTEXT_{number}", b"")
        return trace.suite.seal(
            trace[f"K_{number}"], trace[f"IV_{number}"], plaintext, trace[f"A_{number}"]
        )

    return compute


def _exported(label: int, name: str, *, is_updated: bool = False) -> Step:
    """By both machines at the end of the handshake; unless they agree, it is neither's."""

    def compute(trace: Trace) -> object:
        walked = updated(trace) if is_updated else walk(trace)
        size = len(trace[name])
        initiators = walked.initiator.export(label, b"", size)
        respondents = walked.responder.export(label, b"", size)
        return initiators if initiators == respondents else (initiators, respondents)

    return compute


def _item(name: str) -> Step:
    return lambda t: encode_bytes(t[name])


def _exporter_key(prk_out: str) -> Step:
    return lambda t: kdf(t[prk_out], Label.PRK_EXPORTER, b"", HASH_SIZE)


# For each published name: what we make of the names before it. An info is right if it expands to
# what our own derivation gives; so it is compared with that output.
STEPS: Final[Mapping[str, Step]] = {
    "METHOD": lambda t: cbor2.dumps(Message1.decode(t["message_1"]).method),
    "SUITES_I": lambda t: cbor2.dumps(
        suites[0] if len(suites := Message1.decode(t["message_1"]).suites_i) == 1 else list(suites)
    ),
    "G_X": _ephemeral("G_X"),
    "G_X_y_coordinate": _y_coordinate("X"),
    "C_I": lambda t: Message1.decode(t["message_1"]).c_i,
    "C_I_item": lambda t: encode_identifier(t["C_I"]),
    "EAD_1": lambda t: encode_ead(Message1.decode(t["message_1"]).ead),
    "message_1": lambda t: walk(t).messages[0],
    "G_Y": _ephemeral("G_Y"),
    "G_Y_y_coordinate": _y_coordinate("Y"),
    "C_R": lambda t: Plaintext2.decode(t["PLAINTEXT_2"], len(t["Signature_or_MAC_2"])).c_r,
    "C_R_item": lambda t: encode_identifier(t["C_R"]),
    "H_message_1": lambda t: hash_of(t["message_1"]),
    "TH_2": lambda t: transcript_2(t["G_Y"], t["H_message_1"]),
    "G_XY": lambda t: exchange(
        ephemeral_from_bytes(t.suite.number, t["X"]), t.suite.load_ephemeral(t["G_Y"])
    ),
    "salt": lambda t: transcript_2(t["G_Y"], t["H_message_1"]),
    "PRK_2e": lambda t: extract(t["salt"], t["G_XY"]),
    "PK_R": lambda t: _public_key(t, "R"),
    "PK_R_x": lambda t: _public_key(t, "R"),
    "PK_R_y": lambda t: _coordinates(t.key("R").private_key)[1],
    "SALT_3e2m": _expanded(Label.SALT_3E2M, "PRK_2e", "TH_2", "SALT_3e2m"),
    "G_RX": lambda t: exchange(
        ephemeral_from_bytes(t.suite.number, t["X"]), t.credential("R").public_key
    ),
    "PRK_3e2m": lambda t: (
        t["PRK_2e"] if t.is_signed else prk_3e2m(t["PRK_2e"], t["TH_2"], t["G_RX"])
    ),
    "ID_CRED_R": lambda t: t.credential("R").id_cred.encode_map(),
    "CRED_R_item": lambda t: t.credential("R").octets,
    "EAD_2": lambda t: encode_ead(
        Plaintext2.decode(t["PLAINTEXT_2"], len(t["Signature_or_MAC_2"])).ead
    ),
    "context_2": lambda t: kdf(t["PRK_3e2m"], Label.MAC_2, t["context_2"], len(t["MAC_2"])),
    "MAC_2": _expanded(Label.MAC_2, "PRK_3e2m", "context_2", "MAC_2"),
    "to_be_signed_2": _to_be_signed("R", 2),
    "Signature_or_MAC_2": _signed_or_mac("R"),
    "PLAINTEXT_2": lambda t: Plaintext2(
        t["C_R"], t.credential("R").id_cred, t["Signature_or_MAC_2"], ()
    ).encode(),
    "KEYSTREAM_2": _expanded(Label.KEYSTREAM_2, "PRK_2e", "TH_2", "KEYSTREAM_2"),
    "CIPHERTEXT_2": lambda t: xor_keystream_2(t["PRK_2e"], t["TH_2"], t["PLAINTEXT_2"]),
    "message_2": lambda t: walk(t).messages[1],
    "PK_I": lambda t: _public_key(t, "I"),
    "PK_I_x": lambda t: _public_key(t, "I"),
    "PK_I_y": lambda t: _coordinates(t.key("I").private_key)[1],
    "SALT_4e3m": _expanded(Label.SALT_4E3M, "PRK_3e2m", "TH_3", "SALT_4e3m"),
    "G_IY": lambda t: exchange(t.key("I").private_key, t.suite.load_ephemeral(t["G_Y"])),
    "PRK_4e3m": lambda t: (
        t["PRK_3e2m"] if t.is_signed else prk_4e3m(t["PRK_3e2m"], t["TH_3"], t["G_IY"])
    ),
    "TH_3": lambda t: transcript_next(t["TH_2"], t["PLAINTEXT_2"], t.credential("R").octets),
    "ID_CRED_I": lambda t: t.credential("I").id_cred.encode_map(),
    "CRED_I_item": lambda t: t.credential("I").octets,
    "EAD_3": lambda t: encode_ead(
        Plaintext3.decode(t["PLAINTEXT_3"], len(t["Signature_or_MAC_3"])).ead
    ),
    "context_3": lambda t: kdf(t["PRK_4e3m"], Label.MAC_3, t["context_3"], len(t["MAC_3"])),
    "MAC_3": _expanded(Label.MAC_3, "PRK_4e3m", "context_3", "MAC_3"),
    "to_be_signed_3": _to_be_signed("I", 3),
    "Signature_or_MAC_3": _signed_or_mac("I"),
    "PLAINTEXT_3": lambda t: Plaintext3(
        t.credential("I").id_cred, t["Signature_or_MAC_3"], ()
    ).encode(),
    "A_3": lambda t: enc_structure(t["TH_3"]),
    "K_3": lambda t: key_and_nonce_3(t["PRK_3e2m"], t["TH_3"])[0],
    "IV_3": lambda t: key_and_nonce_3(t["PRK_3e2m"], t["TH_3"])[1],
    "CIPHERTEXT_3": _sealed(3),
    "message_3": lambda t: walk(t).messages[2],
    "TH_4": lambda t: transcript_next(t["TH_3"], t["PLAINTEXT_3"], t.credential("I").octets),
    "EAD_4": lambda _: encode_ead(()),
    "PLAINTEXT_4": lambda t: t.suite.unseal(
        t["K_4"], t["IV_4"], decode_ciphertext(t["message_4"]), t["A_4"]
    ),
    "A_4": lambda t: enc_structure(t["TH_4"]),
    "K_4": lambda t: key_and_nonce_4(t["PRK_4e3m"], t["TH_4"])[0],
    "IV_4": lambda t: key_and_nonce_4(t["PRK_4e3m"], t["TH_4"])[1],
    "CIPHERTEXT_4": _sealed(4),
    "message_4": lambda t: walk(t).messages[3],
    "PRK_out": _expanded(Label.PRK_OUT, "PRK_4e3m", "TH_4", "PRK_out"),
    "PRK_exporter": _exporter_key("PRK_out"),
    "client_sender_id": lambda t: walk(t).initiator.oscore_parameters().sender_id,
    "server_sender_id": lambda t: walk(t).responder.oscore_parameters().sender_id,
    "OSCORE_Master_Secret": _exported(0, "OSCORE_Master_Secret"),
    "OSCORE_Master_Salt": _exported(1, "OSCORE_Master_Salt"),
    "PRK_out_after_KeyUpdate": _expanded(
        Label.KEY_UPDATE, "PRK_out", "key_update_context", "PRK_out_after_KeyUpdate"
    ),
    "PRK_exporter_after_KeyUpdate": _exporter_key("PRK_out_after_KeyUpdate"),
    "OSCORE_Master_Secret_after_KeyUpdate": _exported(
        0, "OSCORE_Master_Secret_after_KeyUpdate", is_updated=True
    ),
    "OSCORE_Master_Salt_after_KeyUpdate": _exported(
        1, "OSCORE_Master_Salt_after_KeyUpdate", is_updated=True
    ),
}

# Names that no step makes: what the parties bring along.
GIVEN: Final = frozenset({"X", "Y", "SK_R", "SK_I", "CRED_R", "CRED_I", "key_update_context"})

# The key that each info is expanded with.
INFO_KEYS: Final[Mapping[str, str]] = {
    "KEYSTREAM_2": "PRK_2e",
    "SALT_3e2m": "PRK_2e",
    "MAC_2": "PRK_3e2m",
    "SALT_4e3m": "PRK_3e2m",
    "MAC_3": "PRK_4e3m",
    "K_3": "PRK_3e2m",
    "IV_3": "PRK_3e2m",
    "K_4": "PRK_4e3m",
    "IV_4": "PRK_4e3m",
    "PRK_out": "PRK_4e3m",
    "PRK_exporter": "PRK_out",
    "OSCORE_Master_Secret": "PRK_exporter",
    "OSCORE_Master_Salt": "PRK_exporter",
}


def cases() -> list[Case]:
    """Every published value, then suite negotiation, then the invalid messages."""
    found: list[Case] = []
    for name in TRACES:
        trace = Trace(name)
        found += [_case(trace, key) for key in trace if _is_step(key)]
    return found + negotiation() + [invalid_case(one) for one in published()["invalid"]]


def _is_step(key: str) -> bool:
    return key not in GIVEN and not key.startswith("first_") and key != "error"


def _case(trace: Trace, key: str) -> Case:
    name = f"{trace.name} {key}"
    if key in STEPS:
        step, expected = STEPS[key], trace[key]
        if key.startswith("context_"):
            # The MAC over the published context is the one in the claim that our machine makes.
            expected = trace[key.replace("context", "MAC")]
        return Case(name, expected, lambda: step(trace))
    if key.startswith("info_"):
        output = key.removeprefix("info_")
        made = STEPS[output]
        return Case(name, _info(INFO_KEYS[output], output)(trace), lambda: made(trace))
    if key.startswith("input_"):
        made = STEPS[key.removeprefix("input_")]
        return Case(name, hash_of(trace[key]), lambda: made(trace))
    whole = key.removesuffix("_item")
    return Case(name, trace[key], lambda: _item(whole)(trace))


SUITE: Final = VectorSuite(
    "edhoc-rfc9529",
    "EDHOC: every value of both published handshakes, and the invalid messages",
    "RFC 9529",
    cases,
)
