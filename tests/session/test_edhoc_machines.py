"""Handshakes between our own two roles, and everything that must not come to one.

The contract under test: two parties that know each other agree on keys for every suite
and method; a message changed in a single bit never lets them agree; nothing but
EdhocError comes of what a peer sends; a handshake that failed stays failed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import is_signature
from amistack.session.credentials import Kid, ccs_credential
from amistack.session.edhoc import (
    SUITES,
    EadItem,
    ErrorCode,
    ErrorMessage,
    Fault,
    Initiator,
    Method,
    Responder,
    State,
    encode_error,
    ephemeral_from_bytes,
    ephemeral_from_entropy,
    schedule,
    suites_after_refusal,
)
from amistack.session.edhoc.messages import MESSAGE_SIZE_MAX, Message1
from amistack.session.edhoc.proofs import Claim
from amistack.session.edhoc.states import (
    INITIATOR,
    RESPONDER,
    Transitions,
    Trigger,
    next_state,
)
from amistack.session.edhoc.suites import exchange
from tests.session.edhoc_pairs import (
    C_I,
    C_R,
    EVERY_PAIR,
    Pair,
    Tamper,
    Unknown,
    authentication_key,
    scalar,
    unchanged,
)

X = ephemeral_from_bytes(2, scalar("x"))
Y = ephemeral_from_bytes(2, scalar("y"))


def flip(bit: int) -> Tamper:
    def tamper(octets: bytes) -> bytes:
        flipped = bytearray(octets)
        flipped[bit // 8 % len(octets)] ^= 1 << bit % 8
        return bytes(flipped)

    return tamper


def only(index: int, tamper: Tamper) -> list[Tamper]:
    return [tamper if place == index else unchanged for place in range(3)]


# Agreement.


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
def test_both_roles_agree_for_every_suite_and_method(suite: int, method: int) -> None:
    pair = Pair(suite, method)
    pair.run()
    assert {pair.initiator.state, pair.responder.state} == {State.COMPLETED}
    for machine in (pair.initiator, pair.responder):
        machine.key_update(b"once more")
    assert pair.initiator.export(3, b"a", 40) == pair.responder.export(3, b"a", 40)
    ours, theirs = pair.initiator.oscore_parameters(), pair.responder.oscore_parameters()
    assert (ours.sender_id, ours.recipient_id) == (C_R, C_I)
    assert (theirs.sender_id, theirs.recipient_id) == (C_I, C_R)
    assert (ours.master_secret, ours.master_salt) == (theirs.master_secret, theirs.master_salt)
    assert pair.initiator.receive_message_4(pair.responder.message_4()) == ()
    assert {pair.initiator.state, pair.responder.state} == {State.CONFIRMED}


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
def test_proofs_and_tags_are_as_long_as_the_suite_says(suite: int, method: int) -> None:
    _, message_2, message_3 = Pair(suite, method).run()
    proof_size = 64 if method == 0 else {0: 8, 2: 8, 3: 16}[suite]
    tag_size = {0: 8, 2: 8, 3: 16}[suite]
    # A kid of 3 octets takes 4, C_R of 2 takes 3; heads of 1 or 2 octets for the rest.
    plaintext_3 = 4 + (1 if proof_size < 24 else 2) + proof_size
    ciphertext_3 = plaintext_3 + tag_size
    assert len(message_3) == (1 if ciphertext_3 < 24 else 2) + ciphertext_3
    assert len(message_2) == 2 + 32 + 3 + plaintext_3


def test_each_handshake_has_its_own_keys() -> None:
    secrets = set()
    for suite, method in EVERY_PAIR:
        pair = Pair(suite, method)
        pair.run()
        secrets.add(pair.initiator.export(0, b"", 16))
    assert len(secrets) == len(EVERY_PAIR)


def test_exports_differ_by_label_context_and_key_update() -> None:
    pair = Pair()
    pair.run()
    exports = [pair.initiator.export(*case, 16) for case in ((0, b""), (1, b""), (0, b"x"))]
    pair.initiator.key_update(b"k")
    exports.append(pair.initiator.export(0, b"", 16))
    assert len(set(exports)) == 4


def test_ead_items_reach_the_other_side_without_padding() -> None:
    pair = Pair()
    items = [EadItem(0, b"padding"), EadItem(9), EadItem(70, b"value"), EadItem(0)]
    seen = (EadItem(9), EadItem(70, b"value"))
    facts = pair.responder.receive_message_1(pair.initiator.message_1(X, ead=items))
    assert facts.ead == seen
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R, ead=items))
    assert pair.initiator.ead_2 == seen
    pair.initiator.authenticate_responder(pair.head_end.credential)
    pair.responder.receive_message_3(pair.initiator.message_3(ead=items))
    assert pair.responder.ead_3 == seen
    pair.responder.authenticate_initiator(pair.meter.credential)
    assert pair.initiator.receive_message_4(pair.responder.message_4(ead=items)) == seen


@pytest.mark.parametrize("message", [1, 2, 3, 4])
def test_critical_ead_item_ends_the_handshake(message: int) -> None:
    pair = Pair()
    ead = {number: [EadItem(-9)] if number == message else [] for number in (1, 2, 3, 4)}

    def run() -> None:
        pair.responder.receive_message_1(pair.initiator.message_1(X, ead=ead[1]))
        pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R, ead=ead[2]))
        pair.initiator.authenticate_responder(pair.head_end.credential)
        pair.responder.receive_message_3(pair.initiator.message_3(ead=ead[3]))
        pair.responder.authenticate_initiator(pair.meter.credential)
        pair.initiator.receive_message_4(pair.responder.message_4(ead=ead[4]))

    with pytest.raises(EdhocError) as refused:
        run()
    assert refused.value.reason == Fault.CRITICAL_EAD
    failed = pair.responder if message in (1, 3) else pair.initiator
    assert failed.state is State.FAILED


# Tampering.


def assert_no_agreement(pair: Pair, tampers: list[Tamper]) -> str:
    with pytest.raises((EdhocError, Unknown)) as refused:
        pair.run(*tampers)
    assert not (pair.initiator.state is State.COMPLETED and pair.responder.state is State.COMPLETED)
    return getattr(refused.value, "reason", Fault.UNKNOWN_CREDENTIAL)


def test_one_flipped_bit_in_any_message_never_lets_both_agree() -> None:
    sizes = [len(message) for message in Pair().run()]
    reasons = set()
    for index, size in enumerate(sizes):
        for bit in range(size * 8):
            reasons.add(assert_no_agreement(Pair(), only(index, flip(bit))))
    # Guards the test itself: the flips reach the parser, the registry and the proofs.
    assert {Fault.NOT_AUTHENTIC, Fault.UNKNOWN_CREDENTIAL, Fault.TRUNCATED} <= reasons


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
@settings(deadline=None, max_examples=40)
@given(index=st.integers(0, 2), bit=st.integers(0, 2**12))
def test_one_flipped_bit_is_noticed_for_every_suite_and_method(
    suite: int, method: int, index: int, bit: int
) -> None:
    assert_no_agreement(Pair(suite, method), only(index, flip(bit)))


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
def test_changed_proof_in_message_2_is_noticed_by_the_proof_alone(suite: int, method: int) -> None:
    """message_2 is malleable: the flip passes the cipher and must fail at MAC or signature."""
    pair = Pair(suite, method)
    reason = assert_no_agreement(pair, only(1, lambda octets: flip(8 * len(octets) - 1)(octets)))
    assert reason == Fault.NOT_AUTHENTIC
    assert pair.initiator.state is State.FAILED


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
def test_changed_ead_2_is_noticed_by_the_proof_alone(suite: int, method: int) -> None:
    pair = Pair(suite, method)
    message_1 = pair.initiator.message_1(ephemeral_from_bytes(suite, scalar("x")))
    pair.responder.receive_message_1(message_1)
    message_2 = pair.responder.message_2(
        ephemeral_from_bytes(suite, scalar("y")), c_r=C_R, ead=[EadItem(7, b"value")]
    )
    pair.initiator.receive_message_2(flip(8 * len(message_2) - 1)(message_2))
    assert pair.initiator.ead_2 != (EadItem(7, b"value"),)
    with pytest.raises(EdhocError) as refused:
        pair.initiator.authenticate_responder(pair.head_end.credential)
    assert refused.value.reason == Fault.NOT_AUTHENTIC


@pytest.mark.parametrize("method", [0, 3])
def test_claim_covers_exactly_what_the_rfc_lists(
    method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5.3.2: context_2 and the Sig_structure, written here by a general CBOR encoder."""
    key = authentication_key("head-end")
    th, ead = scalar("th"), EadItem(7, b"value").encode()
    claim = Claim(schedule.Label.MAC_2, scalar("prk"), b"\x27", th, key.credential, ead)
    id_cred = key.credential.id_cred
    assert isinstance(id_cred, Kid)
    id_map = cbor2.dumps({4: id_cred.value})
    context_2 = b"\x27" + id_map + cbor2.dumps(th) + key.credential.octets + ead
    mac_size = 32 if method == 0 else 8
    mac = schedule.kdf(scalar("prk"), 2, context_2, mac_size)
    proof = claim.prove(SUITES[2], Method(method), key)
    if method == 3:
        assert proof == mac
        return
    external_aad = cbor2.dumps(th) + key.credential.octets + ead
    signed = cbor2.dumps(["Signature1", id_map, external_aad, mac])
    public_key = key.credential.public_key
    assert isinstance(public_key, EllipticCurvePublicKey)
    assert is_signature(public_key, proof, signed)


def test_changed_c_r_in_message_2_is_noticed() -> None:
    # CIPHERTEXT_2 begins after the 2-octet head and G_Y; its second octet is in C_R.
    assert assert_no_agreement(Pair(), only(1, flip((2 + 32 + 1) * 8))) == Fault.NOT_AUTHENTIC


def test_one_flipped_bit_in_message_4_is_noticed() -> None:
    for bit in range(9 * 8):
        pair = Pair()
        pair.run()
        message_4 = pair.responder.message_4()
        assert len(message_4) == 9
        with pytest.raises(EdhocError):
            pair.initiator.receive_message_4(flip(bit)(message_4))
        assert pair.initiator.state is State.FAILED


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=120))
def test_arbitrary_octets_never_raise_anything_but_edhoc_error(octets: bytes) -> None:
    responder = Responder(authentication_key("head-end"))
    initiator = Initiator(authentication_key("meter"), c_i=C_I)
    message_1 = initiator.message_1(X)
    waiting = Responder(authentication_key("head-end"))
    waiting.receive_message_1(message_1)
    waiting.message_2(Y, c_r=C_R)
    takers: list[Callable[[bytes], object]] = [
        responder.receive_message_1,
        initiator.receive_message_2,
        waiting.receive_message_3,
    ]
    for take in takers:
        with pytest.raises(EdhocError):
            take(octets)
    for machine in (responder, initiator, waiting):
        assert machine.state is State.FAILED


@settings(deadline=None, max_examples=150)
@given(st.binary(min_size=1, max_size=60))
def test_arbitrary_plaintext_2_never_raises_anything_but_edhoc_error(plaintext: bytes) -> None:
    """The responder is honest about the cipher and wild about what is inside."""
    pair = Pair()
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.responder.message_2(Y, c_r=C_R)
    g_y = SUITES[2].public_octets(Y)
    prk_2e = schedule.extract(pair.responder._th_2, exchange(Y, X.public_key()))
    both = g_y + schedule.xor_keystream_2(prk_2e, pair.responder._th_2, plaintext)
    try:
        id_cred = pair.initiator.receive_message_2(b"\x58" + len(both).to_bytes() + both)
        pair.initiator.authenticate_responder(
            ccs_credential(id_cred.value, "?", pair.head_end.credential.public_key)
            if isinstance(id_cred, Kid)
            else pair.head_end.credential
        )
    except (EdhocError, LocalProtocolError):
        pass
    assert pair.initiator.state is not State.VERIFIED


def test_message_over_the_bound_is_refused_unread() -> None:
    with pytest.raises(EdhocError) as refused:
        Responder(authentication_key("head-end")).receive_message_1(
            b"\x03" * (MESSAGE_SIZE_MAX + 1)
        )
    assert refused.value.reason == Fault.TOO_LARGE


# Who is who.


def test_unknown_credential_is_answered_with_error_code_3() -> None:
    pair = Pair()
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R))
    pair.initiator.authenticate_responder(pair.head_end.credential)
    pair.responder.receive_message_3(pair.initiator.message_3())
    octets = pair.responder.refuse_initiator()
    assert octets == bytes.fromhex("03f5")
    assert pair.responder.state is State.FAILED
    assert ErrorMessage.decode(octets) == ErrorMessage(ErrorCode.UNKNOWN_CREDENTIAL, info=True)


def test_unknown_responder_is_answered_with_error_code_3() -> None:
    pair = Pair()
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R))
    assert pair.initiator.refuse_responder() == bytes.fromhex("03f5")
    assert pair.initiator.state is State.FAILED


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
def test_responder_without_the_private_key_is_noticed(suite: int, method: int) -> None:
    pair = Pair(suite, method)
    other = authentication_key("thief", suite, method)
    kid = pair.head_end.credential.id_cred
    assert isinstance(kid, Kid)
    pair.responder._key = type(other)(
        other.private_key,
        ccs_credential(kid.value, "head-end", other.credential.public_key),
    )
    assert assert_no_agreement(pair, []) == Fault.NOT_AUTHENTIC
    assert pair.initiator.state is State.FAILED


@pytest.mark.parametrize(("suite", "method"), EVERY_PAIR)
def test_initiator_without_the_private_key_is_noticed(suite: int, method: int) -> None:
    pair = Pair(suite, method)
    other = authentication_key("thief", suite, method)
    kid = pair.meter.credential.id_cred
    assert isinstance(kid, Kid)
    pair.initiator._key = type(other)(
        other.private_key, ccs_credential(kid.value, "meter", other.credential.public_key)
    )
    assert assert_no_agreement(pair, []) == Fault.NOT_AUTHENTIC
    assert pair.responder.state is State.FAILED


def test_party_that_talks_to_itself_is_noticed() -> None:
    key = authentication_key("meter")
    initiator, responder = Initiator(key, c_i=C_I), Responder(key)
    responder.receive_message_1(initiator.message_1(X))
    initiator.receive_message_2(responder.message_2(Y, c_r=C_R))
    with pytest.raises(EdhocError) as refused:
        initiator.authenticate_responder(key.credential)
    assert refused.value.reason == Fault.OWN_CREDENTIAL


def test_credential_that_was_not_asked_for_is_our_callers_mistake_and_changes_nothing() -> None:
    pair = Pair()
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R))
    with pytest.raises(LocalProtocolError, match="expected kid"):
        pair.initiator.authenticate_responder(authentication_key("stranger").credential)
    pair.initiator.authenticate_responder(pair.head_end.credential)
    assert pair.initiator.state is State.VERIFIED


def test_credential_of_another_curve_is_refused() -> None:
    pair = Pair()
    kid = pair.meter.credential.id_cred
    assert isinstance(kid, Kid)
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R))
    pair.initiator.authenticate_responder(pair.head_end.credential)
    pair.responder.receive_message_3(pair.initiator.message_3())
    of_suite_0 = authentication_key("meter", 0).credential.public_key
    with pytest.raises(EdhocError) as refused:
        pair.responder.authenticate_initiator(ccs_credential(kid.value, "meter", of_suite_0))
    assert refused.value.reason == Fault.UNFIT_CREDENTIAL


def test_credential_of_the_responder_of_another_curve_is_refused() -> None:
    pair = Pair()
    kid = pair.head_end.credential.id_cred
    assert isinstance(kid, Kid)
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R))
    of_suite_0 = authentication_key("head-end", 0).credential.public_key
    with pytest.raises(EdhocError) as refused:
        pair.initiator.authenticate_responder(ccs_credential(kid.value, "head-end", of_suite_0))
    assert refused.value.reason == Fault.UNFIT_CREDENTIAL


def test_connection_identifiers_must_differ() -> None:
    pair = Pair()
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    with pytest.raises(LocalProtocolError, match="C_I too"):
        pair.responder.message_2(Y, c_r=C_I)
    assert pair.responder.state is State.MESSAGE_1_READ
    # A careless responder sends it all the same.
    pair.responder._c_i = b"\x01"
    with pytest.raises(EdhocError) as refused:
        pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_I))
    assert refused.value.reason == Fault.SAME_CONNECTION_IDS


# Suites and methods.


@pytest.mark.parametrize(
    ("suites_i", "suites_r", "is_taken"),
    [
        ((2,), (2, 3), True),
        ((6, 2), (2, 3), True),
        ((3, 2), (2,), True),
        ((3, 2), (2, 3), False),
        ((2, 3), (2, 3), False),
        ((6,), (2, 3), False),
        ((3, 6), (2, 3), False),
    ],
)
def test_selected_suite_is_taken_only_if_it_is_the_first_that_both_have(
    suites_i: tuple[int, ...], suites_r: tuple[int, ...], is_taken: bool
) -> None:
    octets = Message1(3, suites_i, SUITES[2].public_octets(X), C_I).encode()
    responder = Responder(authentication_key("head-end"), suites=suites_r)
    if is_taken:
        assert responder.receive_message_1(octets).suite == suites_i[-1]
        return
    with pytest.raises(EdhocError) as refused:
        responder.receive_message_1(octets)
    assert (refused.value.reason, refused.value.err_code) == (Fault.WRONG_SUITE, 2)
    assert ErrorMessage.decode(encode_error(refused.value)).info == suites_r


@settings(deadline=None, max_examples=40)
@given(
    st.permutations([2, 3, 6, 24]).flatmap(lambda all_: st.integers(1, 4).map(lambda n: all_[:n])),
    st.sampled_from([(2,), (3,), (2, 3), (3, 2)]),
)
def test_negotiation_ends_after_one_refusal_with_a_suite_both_have(
    preferred: list[int], suites_r: tuple[int, ...]
) -> None:
    common = [number for number in preferred if number in suites_r]
    if not common:
        with pytest.raises(EdhocError) as none:
            suites_after_refusal(preferred, suites_r)
        assert none.value.reason == Fault.NO_COMMON_SUITE
        return
    suites_i = suites_after_refusal(preferred, suites_r)
    assert suites_i[-1] == common[0]
    initiator = Initiator(authentication_key("meter"), suites=suites_i, c_i=C_I)
    responder = Responder(authentication_key("head-end"), suites=suites_r)
    assert responder.receive_message_1(initiator.message_1(X)).suite == common[0]


def test_responder_offers_only_suites_that_its_key_fits() -> None:
    pair = Pair(2)
    responder = Responder(authentication_key("head-end", 0))
    with pytest.raises(EdhocError) as refused:
        responder.receive_message_1(pair.initiator.message_1(X))
    assert refused.value.err_info == (0,)


@pytest.mark.parametrize("method", [1, 2, 4, -1])
def test_other_methods_are_refused(method: int) -> None:
    g_x = SUITES[2].public_octets(X)
    responder = Responder(authentication_key("head-end"))
    with pytest.raises(EdhocError) as refused:
        responder.receive_message_1(Message1(method, (2,), g_x, C_I).encode())
    assert refused.value.reason == Fault.UNKNOWN_METHOD


def test_responder_without_method_0_refuses_it() -> None:
    responder = Responder(authentication_key("head-end"), methods=(3,))
    initiator = Initiator(authentication_key("meter"), method=0, c_i=C_I)
    with pytest.raises(EdhocError) as refused:
        responder.receive_message_1(initiator.message_1(X))
    assert refused.value.reason == Fault.UNKNOWN_METHOD


def test_misfits_are_refused_at_birth() -> None:
    p256, x25519 = authentication_key("a", 2), authentication_key("a", 0, 3)
    for build in (
        lambda: Initiator(x25519, c_i=C_I),
        lambda: Initiator(x25519, suites=(0,), method=0, c_i=C_I),
        lambda: Initiator(p256, suites=(2, 6), c_i=C_I),
        lambda: Initiator(p256, suites=(), c_i=C_I),
        lambda: Initiator(p256, method=1, c_i=C_I),
        lambda: Initiator(p256, c_i=bytes(8)),
        lambda: Responder(x25519, suites=(2, 3)),
        lambda: Responder(x25519, methods=(0,)),
        lambda: Responder(p256, suites=(6,)),
        lambda: Responder(p256, methods=(1,)),
    ):
        with pytest.raises(LocalProtocolError):
            build()


def test_ephemeral_key_of_another_curve_is_our_callers_mistake_and_changes_nothing() -> None:
    initiator = Initiator(authentication_key("meter"), c_i=C_I)
    with pytest.raises(LocalProtocolError, match="not on P-256"):
        initiator.message_1(ephemeral_from_bytes(0, scalar("x")))
    assert initiator.state is State.START
    initiator.message_1(X)


def test_ephemeral_octets_that_are_no_key_are_refused_or_hashed() -> None:
    for octets in (bytes(32), b"\xff" * 32, bytes(31), bytes(33)):
        with pytest.raises(LocalProtocolError):
            ephemeral_from_bytes(2, octets)
    with pytest.raises(LocalProtocolError):
        ephemeral_from_bytes(6, scalar("x"))
    with pytest.raises(LocalProtocolError):
        ephemeral_from_entropy(2, bytes(31))
    with pytest.raises(LocalProtocolError):
        ephemeral_from_entropy(6, bytes(32))
    for suite in (0, 2, 3):
        ephemeral_from_entropy(suite, b"\xff" * 32)
    same = ephemeral_from_entropy(2, scalar("x"))
    assert SUITES[2].public_octets(same) == SUITES[2].public_octets(X)


# Order.

EVERY_MOVE = [
    pytest.param(table, state, trigger, id=f"{name}-{state.name}-{trigger.name}")
    for (name, table), state, trigger in itertools.product(
        (("initiator", INITIATOR), ("responder", RESPONDER)), State, Trigger
    )
]


@pytest.mark.parametrize(("table", "state", "trigger"), EVERY_MOVE)
def test_every_pair_moves_or_blames_the_right_side(
    table: Transitions, state: State, trigger: Trigger
) -> None:
    if trigger in table.get(state, {}):
        assert next_state(table, state, trigger) is table[state][trigger]
    else:
        culprit = EdhocError if trigger.is_remote else LocalProtocolError
        with pytest.raises(culprit, match=f"{trigger.value} while {state.value}"):
            next_state(table, state, trigger)


def test_nothing_leads_out_of_failed() -> None:
    pair = Pair()
    pair.initiator.message_1(X)
    with pytest.raises(EdhocError):
        pair.initiator.receive_message_2(b"")
    for command in (
        lambda: pair.initiator.message_1(X),
        pair.initiator.message_3,
        pair.initiator.oscore_parameters,
        lambda: pair.initiator.authenticate_responder(pair.head_end.credential),
        lambda: pair.initiator.export(0, b"", 16),
        lambda: pair.initiator.key_update(b""),
        pair.initiator.refuse_responder,
    ):
        with pytest.raises(LocalProtocolError, match="while failed"):
            command()
    with pytest.raises(EdhocError, match="unexpected message"):
        pair.initiator.receive_message_2(b"")


def test_nothing_is_exported_before_the_peer_is_authenticated() -> None:
    pair = Pair()
    pair.responder.receive_message_1(pair.initiator.message_1(X))
    pair.initiator.receive_message_2(pair.responder.message_2(Y, c_r=C_R))
    pair.initiator.authenticate_responder(pair.head_end.credential)
    with pytest.raises(LocalProtocolError):
        pair.initiator.oscore_parameters()
    pair.responder.receive_message_3(pair.initiator.message_3())
    with pytest.raises(LocalProtocolError):
        pair.responder.oscore_parameters()


def test_late_copies_of_messages_do_not_undo_a_handshake() -> None:
    pair = Pair()
    message_1, message_2, message_3 = pair.run()
    for take, copy in (
        (pair.responder.receive_message_1, message_1),
        (pair.initiator.receive_message_2, message_2),
        (pair.responder.receive_message_3, message_3),
    ):
        with pytest.raises(EdhocError, match="unexpected message"):
            take(copy)
    assert pair.initiator.export(0, b"", 16) == pair.responder.export(0, b"", 16)


def test_c_r_is_not_known_before_message_2() -> None:
    with pytest.raises(LocalProtocolError):
        _ = Pair().initiator.c_r


def test_exports_have_bounds() -> None:
    pair = Pair()
    pair.run()
    assert len(pair.initiator.export(0xFFFF, b"", 8160)) == 8160
    for label, size in ((0, 0), (0, 8161), (-1, 16), (0x1_0000, 16)):
        with pytest.raises(LocalProtocolError):
            pair.initiator.export(label, b"", size)


def test_secrets_are_not_shown() -> None:
    pair = Pair()
    pair.run()
    parameters = pair.initiator.oscore_parameters()
    assert "master" not in repr(parameters)
    assert str(parameters.master_secret) not in repr(parameters)
