"""EDHOC against the traces that the IETF published (RFC 9529).

The contract under test: both roles, fed the published keys, send the published octets,
pass through every published intermediate value, and export the published keys; and each
of the published invalid messages is refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from amistack.errors import EdhocError
from amistack.session.cose import PrivateKey, sign
from amistack.session.credentials import (
    AuthenticationKey,
    Credential,
    X5t,
    ccs_credential,
    decode_ccs,
    x5t_credential,
)
from amistack.session.edhoc import (
    ErrorCode,
    ErrorMessage,
    Fault,
    Initiator,
    Responder,
    State,
    encode_error,
    encode_identifier,
    ephemeral_from_bytes,
    proofs,
    schedule,
    suites,
    suites_after_refusal,
)
from amistack.session.edhoc.messages import Message1, Message2, Plaintext2
from tests.session.edhoc_pairs import authentication_key, scalar

PUBLISHED: Final = json.loads(
    (Path(__file__).parent / "vectors" / "rfc9529.json").read_text(encoding="utf-8")
)
TRACES: Final = ("signatures_x5t", "static_dh_kid")

# Where an octet string in the trace is what HKDF-Expand gave for an info.
DERIVED: Final = {
    "KEYSTREAM_2": "info_KEYSTREAM_2",
    "SALT_3e2m": "info_SALT_3e2m",
    "SALT_4e3m": "info_SALT_4e3m",
    "MAC_2": "info_MAC_2",
    "MAC_3": "info_MAC_3",
    "K_3": "info_K_3",
    "IV_3": "info_IV_3",
    "K_4": "info_K_4",
    "IV_4": "info_IV_4",
    "PRK_out": "info_PRK_out",
}
HASHED: Final = {
    "H_message_1": "message_1",
    "TH_2": "input_TH_2",
    "TH_3": "input_TH_3",
    "TH_4": "input_TH_4",
}


class Trace(dict[str, bytes]):
    """One published handshake, by name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            {key: bytes.fromhex(text) for key, text in PUBLISHED["traces"][name].items()}
        )
        self.name = name
        signed = name == "signatures_x5t"
        self.suite, self.method = (0, 0) if signed else (2, 3)
        self.suites_i = (0,) if signed else (6, 2)

    def credential(self, role: str) -> Credential:
        octets = self[f"CRED_{role}"]
        return x5t_credential(octets) if self.method == 0 else decode_ccs(octets)

    def key(self, role: str) -> AuthenticationKey:
        octets = self[f"SK_{role}"]
        key: PrivateKey = (
            Ed25519PrivateKey.from_private_bytes(octets)
            if self.method == 0
            else ec.derive_private_key(int.from_bytes(octets), ec.SECP256R1())
        )
        return AuthenticationKey(key, self.credential(role))

    def initiator(self) -> Initiator:
        return Initiator(self.key("I"), method=self.method, suites=self.suites_i, c_i=self["C_I"])


class Recorder:
    """Notes what goes into the primitives and what comes out, and changes nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.expanded: dict[bytes, set[bytes]] = {}
        self.extracted: set[tuple[bytes, bytes, bytes]] = set()
        self.hashed: dict[bytes, bytes] = {}
        self.aads: set[bytes] = set()
        self.signed: set[bytes] = set()
        recorder = self

        class Expand:
            def __init__(self, algorithm: object, length: int, info: bytes) -> None:
                self.inner, self.info = HKDFExpand(schedule._SHA256, length, info), info

            def derive(self, prk: bytes) -> bytes:
                output = self.inner.derive(prk)
                recorder.expanded.setdefault(self.info, set()).add(output)
                return output

        class Extract:
            @staticmethod
            def extract(algorithm: object, salt: bytes, ikm: bytes) -> bytes:
                prk = HKDF.extract(schedule._SHA256, salt, ikm)
                recorder.extracted.add((salt, ikm, prk))
                return prk

        class Ccm:
            def __init__(self, key: bytes, tag_length: int) -> None:
                self.inner = AESCCM(key, tag_length)

            def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
                recorder.aads.add(aad)
                return self.inner.encrypt(nonce, data, aad)

            def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
                return self.inner.decrypt(nonce, data, aad)

        class Hashlib:
            @staticmethod
            def sha256(octets: bytes) -> object:
                recorder.hashed[octets] = hashlib.sha256(octets).digest()
                return hashlib.sha256(octets)

        def noted_sign(
            key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey, message: bytes
        ) -> bytes:
            recorder.signed.add(message)
            return sign(key, message)

        monkeypatch.setattr(schedule, "HKDFExpand", Expand)
        monkeypatch.setattr(schedule, "HKDF", Extract)
        monkeypatch.setattr(schedule, "hashlib", Hashlib)
        monkeypatch.setattr(proofs, "sign", noted_sign)
        monkeypatch.setattr(suites, "AESCCM", Ccm)


@pytest.fixture(params=TRACES)
def trace(request: pytest.FixtureRequest) -> Trace:
    return Trace(request.param)


def run(trace: Trace) -> tuple[Initiator, Responder]:
    """The whole published handshake, every message compared."""
    initiator, responder = trace.initiator(), Responder(trace.key("R"))

    message_1 = initiator.message_1(ephemeral_from_bytes(trace.suite, trace["X"]))
    assert message_1 == trace["message_1"]
    facts = responder.receive_message_1(message_1)
    assert (facts.method, facts.suite, facts.c_i) == (trace.method, trace.suite, trace["C_I"])

    message_2 = responder.message_2(ephemeral_from_bytes(trace.suite, trace["Y"]), c_r=trace["C_R"])
    assert message_2 == trace["message_2"]
    assert initiator.receive_message_2(message_2) == trace.credential("R").id_cred
    assert initiator.c_r == trace["C_R"]
    initiator.authenticate_responder(trace.credential("R"))

    message_3 = initiator.message_3()
    assert message_3 == trace["message_3"]
    assert responder.receive_message_3(message_3) == trace.credential("I").id_cred
    responder.authenticate_initiator(trace.credential("I"))

    message_4 = responder.message_4()
    assert message_4 == trace["message_4"]
    assert initiator.receive_message_4(message_4) == ()
    return initiator, responder


def test_both_roles_send_the_published_messages(trace: Trace) -> None:
    initiator, responder = run(trace)
    assert initiator.state is responder.state is State.CONFIRMED


def test_both_roles_hold_the_published_keys_between_messages(trace: Trace) -> None:
    for machine in run(trace):
        assert machine._h_message_1 == trace["H_message_1"]
        assert (machine._th_2, machine._th_3) == (trace["TH_2"], trace["TH_3"])
        assert machine._th_4 == trace["TH_4"]
        assert machine._prk_3e2m == trace["PRK_3e2m"]
        assert machine._prk_4e3m == trace["PRK_4e3m"]
        assert machine._exporter._prk_out == trace["PRK_out"]
        assert machine._exporter._prk_exporter == trace["PRK_exporter"]


def test_every_published_step_of_the_key_schedule_is_taken(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    initiator, _ = run(trace)
    initiator.oscore_parameters()

    for output, info in DERIVED.items():
        if info in trace:
            assert recorder.expanded[trace[info]] == {trace[output]}, output
    assert trace["PRK_exporter"] in recorder.expanded[trace["info_PRK_exporter"]]
    for name in ("OSCORE_Master_Secret", "OSCORE_Master_Salt"):
        assert recorder.expanded[trace[f"info_{name}"]] == {trace[name]}
    for output, source in HASHED.items():
        assert recorder.hashed[trace[source]] == trace[output], output
    assert {trace["A_3"], trace["A_4"]} <= recorder.aads
    extracted = {(trace["salt"], trace["G_XY"], trace["PRK_2e"])}
    if trace.method == 3:
        extracted.add((trace["SALT_3e2m"], trace["G_RX"], trace["PRK_3e2m"]))
        extracted.add((trace["SALT_4e3m"], trace["G_IY"], trace["PRK_4e3m"]))
    else:
        assert recorder.signed == {trace["to_be_signed_2"], trace["to_be_signed_3"]}
    assert recorder.extracted == extracted


def test_codecs_give_the_published_items(trace: Trace) -> None:
    assert encode_identifier(trace["C_I"]) == trace["C_I_item"]
    assert encode_identifier(trace["C_R"]) == trace["C_R_item"]
    for role in "IR":
        credential = trace.credential(role)
        assert credential.id_cred.encode_map() == trace[f"ID_CRED_{role}"]
        assert credential.octets == trace.get(f"CRED_{role}_item", trace[f"CRED_{role}"])
    message_1 = Message1.decode(trace["message_1"])
    assert message_1 == Message1(trace.method, trace.suites_i, trace["G_X"], trace["C_I"])
    message_2 = Message2.decode(trace["message_2"])
    assert message_2 == Message2(trace["G_Y"], trace["CIPHERTEXT_2"])
    plaintext_2 = Plaintext2.decode(trace["PLAINTEXT_2"], len(trace["Signature_or_MAC_2"]))
    assert plaintext_2.proof == trace["Signature_or_MAC_2"]
    assert plaintext_2.encode() == trace["PLAINTEXT_2"]


def test_oscore_gets_the_published_keys_and_identifiers_from_either_view(trace: Trace) -> None:
    initiator, responder = run(trace)
    client, server = initiator.oscore_parameters(), responder.oscore_parameters()
    for view in (client, server):
        assert view.master_secret == trace["OSCORE_Master_Secret"]
        assert view.master_salt == trace["OSCORE_Master_Salt"]
    assert client.sender_id == server.recipient_id == trace["client_sender_id"]
    assert client.recipient_id == server.sender_id == trace["server_sender_id"]


def test_key_update_gives_the_published_keys(trace: Trace) -> None:
    for machine in run(trace):
        machine.key_update(trace["key_update_context"])
        assert machine._exporter._prk_out == trace["PRK_out_after_KeyUpdate"]
        assert machine._exporter._prk_exporter == trace["PRK_exporter_after_KeyUpdate"]
        updated = machine.oscore_parameters()
        assert updated.master_secret == trace["OSCORE_Master_Secret_after_KeyUpdate"]
        assert updated.master_salt == trace["OSCORE_Master_Salt_after_KeyUpdate"]


def test_published_suite_negotiation_is_walked() -> None:
    trace = Trace("static_dh_kid")
    # Suite 6 is not ours, so that its message_1 comes from the trace.
    responder = Responder(trace.key("R"), suites=(2,))
    with pytest.raises(EdhocError) as refused:
        responder.receive_message_1(trace["first_message_1"])
    assert refused.value.reason == Fault.WRONG_SUITE
    assert encode_error(refused.value) == trace["error"]

    error = ErrorMessage.decode(trace["error"])
    assert error == ErrorMessage(ErrorCode.WRONG_SUITE, (2,))
    assert isinstance(error.info, tuple)
    assert suites_after_refusal((6, 2), error.info) == trace.suites_i


def test_ccs_helper_gives_the_published_credentials() -> None:
    trace = Trace("static_dh_kid")
    for role, kid, subject in (("R", "2", "example.edu"), ("I", "+", "42-50-31-FF-EF-37-32-39")):
        public_key = trace.key(role).private_key.public_key()
        assert ccs_credential(kid.encode(), subject, public_key) == trace.credential(role)
        assert ccs_credential(kid.encode(), subject, public_key).octets == trace[f"CRED_{role}"]


def test_x5t_helper_gives_the_published_identifiers() -> None:
    trace = Trace("signatures_x5t")
    assert trace.credential("R").id_cred == X5t(-15, bytes.fromhex("79f2a41b510c1f9b"))
    assert trace.credential("I").id_cred == X5t(-15, bytes.fromhex("c24ab2fd7643c79f"))


EXPECTED_FAULTS: Final = {
    "Surplus array encoding of message": Fault.WRONG_TYPE,
    "Surplus bstr encoding of connection identifier": Fault.NOT_DETERMINISTIC,
    "Surplus array encoding of ciphersuite": Fault.NOT_DETERMINISTIC,
    "Text string encoding of ephemeral key": Fault.WRONG_TYPE,
    "Wrong number of CBOR sequence elements": Fault.SURPLUS_OCTETS,
    "Surplus map encoding of ID_CRED field": Fault.NOT_DETERMINISTIC,
    "Surplus bstr encoding of ID_CRED field": Fault.NOT_DETERMINISTIC,
    # P-384 is not ours: its suite is refused before its key is measured.
    "Error in length of ephemeral key": Fault.WRONG_SUITE,
    "Error in elliptic curve representation": Fault.BAD_EPHEMERAL_KEY,
    "Error in elliptic curve point": Fault.BAD_EPHEMERAL_KEY,
    "Curve point of low order": Fault.BAD_EPHEMERAL_KEY,
    "Error in length of MAC": Fault.WRONG_SIZE,
    "Error in elliptic curve encoding": Fault.WRONG_SIZE,
    "Unnecessary long encoding": Fault.NOT_DETERMINISTIC,
    "Indefinite-length array encoding": Fault.NOT_DETERMINISTIC,
}


def feed(part: str, octets: bytes, suite: int) -> State:
    """Give `octets` to whoever takes that part; how it stands, if it does not raise."""
    match part:
        case "message_1":
            responder = Responder(authentication_key("head-end", suite))
            responder.receive_message_1(octets)
            responder.message_2(ephemeral_from_bytes(suite, scalar("y")), c_r=b"\x01")
            return responder.state
        case "message_2":
            initiator = Initiator(authentication_key("meter"), c_i=b"\x01")
            initiator.message_1(ephemeral_from_bytes(2, scalar("x")))
            initiator.receive_message_2(octets)
            return initiator.state
        case "PLAINTEXT_2":
            Plaintext2.decode(octets, 8)
            return State.MESSAGE_2_READ
        case _:
            raise AssertionError(part)


@pytest.mark.parametrize(
    "invalid", PUBLISHED["invalid"], ids=lambda invalid: invalid["name"].replace(" ", "_")
)
def test_each_published_invalid_message_is_refused_for_its_cause(invalid: dict[str, str]) -> None:
    name = invalid["name"].partition(": ")[2]
    # The low-order point alone is of suite 0; it shows when it is used.
    suite = 0 if name == "Curve point of low order" else 2
    with pytest.raises(EdhocError) as refused:
        feed(invalid["part"], bytes.fromhex(invalid["hex"]), suite)
    assert refused.value.reason == EXPECTED_FAULTS[name]


def test_all_invalid_messages_were_tried() -> None:
    assert len(PUBLISHED["invalid"]) == len(EXPECTED_FAULTS) == 15
