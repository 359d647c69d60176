"""Which head-end keys a meter trusts, and how a head-end chooses among its own.

The contract under test: a meter follows its root to a newer key, and nothing else moves it: no
false statement, none of another utility, no older epoch, no octets that are none; it keeps the key
before until the new one is proven; a head-end answers with the key that is asked for, or else with
the current one and what the root says of it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, LocalProtocolError, TrustError
from amistack.session.credentials import AuthenticationKey, Kid
from amistack.session.edhoc import EadItem
from amistack.session.fleet import encode_public_key, head_end_credential, head_end_kid
from amistack.session.signing import sign1
from amistack.session.trust import (
    EAD_LABEL,
    EPOCH_MAX,
    KEYS_MAX,
    STATEMENT_PURPOSE,
    KeyStatement,
    OwnKeys,
    Trust,
    TrustedKey,
    issue,
    kid_of,
    pack,
    read_statement,
    unpack,
)


def private(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


def public(number: int) -> bytes:
    return encode_public_key(private(number).public_key())


@functools.cache  # A private key equals itself alone.
def own(number: int) -> AuthenticationKey:
    return AuthenticationKey(private(number), head_end_credential(public(number)))


ROOT, OTHER_ROOT = private(1_000), private(2_000)
ROOT_KEY, OTHER_ROOT_KEY = public(1_000), public(2_000)
KEYS = [public(number) for number in range(1, 6)]


def says(epoch: int, key: int, root: ec.EllipticCurvePrivateKey = ROOT) -> bytes:
    return issue(root, KeyStatement(epoch, KEYS[key]))


def provisioned(root: bytes | None = ROOT_KEY) -> Trust:
    return Trust.provisioned(KEYS[0], root)


# Statements


@settings(deadline=None, max_examples=30)
@given(epoch=st.integers(1, EPOCH_MAX), key=st.sampled_from(KEYS))
def test_statement_is_read_as_it_was_issued_and_by_its_root_alone(epoch: int, key: bytes) -> None:
    statement = KeyStatement(epoch, key)
    octets = issue(ROOT, statement)
    assert len(octets) <= 256
    assert read_statement(octets, ROOT_KEY) == statement
    with pytest.raises(TrustError, match="not by the root"):
        read_statement(octets, OTHER_ROOT_KEY)


def test_one_flipped_bit_is_always_noticed() -> None:
    octets = says(1, 1)
    for at in range(len(octets)):
        for bit in range(8):
            changed = bytes(o ^ (1 << bit) if i == at else o for i, o in enumerate(octets))
            with pytest.raises(TrustError):
                read_statement(changed, ROOT_KEY)


@pytest.mark.parametrize(
    "payload",
    [
        cbor2.dumps([2, 1, KEYS[1]]),
        cbor2.dumps([True, 1, KEYS[1]]),
        cbor2.dumps([1, 0, KEYS[1]]),
        cbor2.dumps([1, -1, KEYS[1]]),
        cbor2.dumps([1, True, KEYS[1]]),
        cbor2.dumps([1, EPOCH_MAX + 1, KEYS[1]]),
        cbor2.dumps([1, 1, KEYS[1][:-1]]),
        cbor2.dumps([1, 1, bytes(33)]),
        cbor2.dumps([1, 1, KEYS[1], 0]),
        cbor2.dumps({0: 1}),
        b"",
        b"\xff",
    ],
)
def test_what_the_root_signed_but_is_no_statement_is_refused(payload: bytes) -> None:
    octets = sign1(ROOT, payload, external_aad=STATEMENT_PURPOSE)
    with pytest.raises(TrustError):
        read_statement(octets, ROOT_KEY)


def test_what_the_root_signed_for_something_else_is_no_statement() -> None:
    payload = cbor2.dumps([1, 1, KEYS[1]])
    for purpose in (b"", b"a shipment"):
        with pytest.raises(TrustError, match="not by the root"):
            read_statement(sign1(ROOT, payload, external_aad=purpose), ROOT_KEY)


@settings(deadline=None, max_examples=200)
@given(octets=st.binary(max_size=300) | st.binary(max_size=80).map(lambda o: b"\xd2\x84" + o))
def test_arbitrary_octets_never_raise_anything_but_trust_error(octets: bytes) -> None:
    with pytest.raises(TrustError) as refusal:
        read_statement(octets, ROOT_KEY)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(("epoch", "key"), [(0, KEYS[1]), (EPOCH_MAX + 1, KEYS[1]), (1, b"x")])
def test_impossible_statement_is_not_made(epoch: int, key: bytes) -> None:
    with pytest.raises(ConfigError):
        KeyStatement(epoch, key)


def test_the_example_in_the_specification_is_what_is_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol" / "identity.md").read_text()
    begin = text.index("a statement of epoch 3")
    lines = [line.strip() for line in text[begin:].splitlines()[2:6]]
    statement = read_statement(bytes.fromhex("".join(lines)), public(11))
    assert (statement.epoch, statement.public_key) == (3, public(7))
    assert statement.kid.hex() == "22eea24e"
    assert public(11).hex() in text


# What a meter trusts


def test_meter_follows_its_root_and_keeps_the_key_before_until_the_new_one_is_proven() -> None:
    told = provisioned().accept(says(1, 1))
    assert told.keys == (TrustedKey(1, KEYS[1]), TrustedKey(0, KEYS[0]))
    old, new = head_end_credential(KEYS[0]).id_cred, head_end_credential(KEYS[1]).id_cred
    assert told.settle(old) == told
    assert told.settle(new).keys == (TrustedKey(1, KEYS[1]),)
    assert told.settle(new).settle(new) == told.settle(new)


def test_the_same_statement_again_changes_nothing() -> None:
    told = provisioned().accept(says(1, 1))
    assert told.accept(says(1, 1)) == told
    settled = told.settle(head_end_credential(KEYS[1]).id_cred)
    assert settled.accept(says(1, 1)) == settled


def test_statement_on_the_key_that_is_trusted_only_raises_its_epoch() -> None:
    told = provisioned().accept(says(5, 0))
    assert told.keys == (TrustedKey(5, KEYS[0]),)
    with pytest.raises(TrustError, match="an older epoch"):
        told.accept(says(4, 0))


@pytest.mark.parametrize("epoch", [1, 2])
def test_older_or_equal_epoch_never_leads_back(epoch: int) -> None:
    told = provisioned().accept(says(2, 2))
    with pytest.raises(TrustError, match="an older epoch"):
        told.accept(says(epoch, 1))


def test_another_utilitys_statement_gains_nothing() -> None:
    for octets, root in (
        (says(9, 3, OTHER_ROOT), None),
        (says(9, 3, OTHER_ROOT), OTHER_ROOT_KEY),
        (says(9, 3), OTHER_ROOT_KEY),
    ):
        with pytest.raises(TrustError):
            provisioned().accept(octets, root)


def test_meter_without_a_root_takes_one_once_and_never_another() -> None:
    with pytest.raises(TrustError, match="no root"):
        provisioned(None).accept(says(1, 1))
    with pytest.raises(TrustError, match="not by the root"):
        provisioned(None).accept(says(1, 1), OTHER_ROOT_KEY)
    with pytest.raises(TrustError, match="no root"):
        provisioned(None).accept(says(1, 1), bytes(33))
    told = provisioned(None).accept(says(1, 1), ROOT_KEY)
    assert told.root == ROOT_KEY
    with pytest.raises(TrustError, match="another root"):
        told.accept(says(2, 2, OTHER_ROOT), OTHER_ROOT_KEY)


@settings(deadline=None, max_examples=60)
@given(
    heard=st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 4), st.booleans(), st.booleans()), max_size=10
    )
)
def test_whatever_is_heard_the_epoch_never_falls_and_only_the_root_moves_it(
    heard: list[tuple[int, int, bool, bool]],
) -> None:
    trust = provisioned()
    for epoch, key, is_true, is_settled in heard:
        before = trust
        try:
            trust = trust.accept(says(epoch, key, ROOT if is_true else OTHER_ROOT))
        except TrustError:
            assert trust == before
        else:
            assert is_true
            assert trust.newest == TrustedKey(epoch, KEYS[key])
        if is_settled:
            trust = trust.settle(trust.newest.credential.id_cred)
        assert trust.newest.epoch >= before.newest.epoch
        if trust.newest.epoch == before.newest.epoch:
            assert trust.newest == before.newest
        assert trust.root == ROOT_KEY


# What comes along in EAD_2


def ead(octets: bytes | None, label: int = EAD_LABEL) -> tuple[EadItem, ...]:
    return (EadItem(7, b"of somebody else"), EadItem(label, octets))


def test_responder_that_nobody_wrote_down_is_found_by_its_statement() -> None:
    found = provisioned().find(head_end_credential(KEYS[2]).id_cred, ead(says(2, 2)))
    assert found is not None
    credential, after = found
    assert credential == head_end_credential(KEYS[2])
    assert after.newest == TrustedKey(2, KEYS[2])


@pytest.mark.parametrize(
    "items",
    [
        (),
        ead(None),
        ead(b""),
        ead(says(2, 2), label=EAD_LABEL - 1),
        ead(says(2, 3)),
        ead(says(2, 2, OTHER_ROOT)),
        ead(says(2, 2)[:-1]),
    ],
    ids=["none", "empty", "no octets", "label", "other key", "other root", "cut off"],
)
def test_no_false_statement_finds_anybody(items: tuple[EadItem, ...]) -> None:
    assert provisioned().find(head_end_credential(KEYS[2]).id_cred, items) is None


def test_statement_of_an_older_epoch_or_without_a_root_finds_nobody() -> None:
    later = provisioned().accept(says(3, 3))
    id_cred = head_end_credential(KEYS[2]).id_cred
    assert later.find(id_cred, ead(says(2, 2))) is None
    assert provisioned(None).find(id_cred, ead(says(2, 2))) is None


# What is stored


trusts = st.builds(
    Trust,
    st.builds(TrustedKey, st.integers(0, EPOCH_MAX), st.sampled_from(KEYS)),
    st.none() | st.builds(TrustedKey, st.integers(0, EPOCH_MAX), st.sampled_from(KEYS)),
    st.none() | st.just(ROOT_KEY),
)


@settings(deadline=None, max_examples=60)
@given(trust=trusts, written=trusts, now=trusts)
def test_stored_trust_comes_back_unless_something_else_is_written_down_now(
    trust: Trust, written: Trust, now: Trust
) -> None:
    octets = pack(trust, written)
    assert unpack(octets, written) == trust
    assert unpack(octets, now) == (trust if now == written else now)


@settings(deadline=None, max_examples=200)
@given(octets=st.binary(max_size=60) | st.recursive(
    st.none() | st.integers() | st.binary(max_size=4) | st.sampled_from(KEYS),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
).map(cbor2.dumps))  # fmt: skip
def test_stored_octets_are_a_trust_or_trust_error(octets: bytes) -> None:
    try:
        found: Trust | None = unpack(octets, provisioned())
    except TrustError:
        found = None
    assert found is None or found == provisioned()


# A head-end's own keys


def test_head_end_answers_with_the_key_that_is_asked_for() -> None:
    keys = OwnKeys(own(1))
    keys.add(own(2), says(1, 1))
    hint = provisioned().hint()
    assert keys.choose(hint) == (keys.current, ())
    told = provisioned().accept(says(1, 1))
    assert keys.choose(told.hint()) == (own(2), ())
    assert keys.choose(()) == (own(1), ())
    keys.use(head_end_kid(KEYS[1]))
    assert keys.choose(()) == (own(2), ())
    assert keys.choose(hint) == (own(1), ())


def test_who_asks_for_a_key_that_is_gone_gets_the_current_one_and_the_roots_word_for_it() -> None:
    keys = OwnKeys(own(1))
    keys.add(own(2), says(1, 1))
    keys.use(head_end_kid(KEYS[1]))
    keys.remove(head_end_kid(KEYS[0]))
    key, items = keys.choose(provisioned().hint())
    assert key == own(2)
    assert [item.label for item in items] == [EAD_LABEL]
    found = provisioned().find(key.credential.id_cred, items)
    assert found is not None
    assert found[1].newest == TrustedKey(1, KEYS[1])


def test_head_end_without_a_statement_sends_none() -> None:
    assert OwnKeys(own(1)).choose((EadItem(EAD_LABEL, b"gone"),)) == (own(1), ())
    assert OwnKeys(own(1)).choose((EadItem(EAD_LABEL, None),)) == (own(1), ())


def test_current_key_cannot_be_removed_nor_a_strange_one_used() -> None:
    keys = OwnKeys(own(1))
    with pytest.raises(LocalProtocolError):
        keys.remove(kid_of(own(1)))
    with pytest.raises(LocalProtocolError):
        keys.use(kid_of(own(2)))


def test_keys_are_bounded_and_a_key_again_is_none_more() -> None:
    keys = OwnKeys(own(1))
    for number in range(2, KEYS_MAX + 1):
        keys.add(own(number))
    keys.add(own(2))
    with pytest.raises(LocalProtocolError):
        keys.add(own(99))
    assert len(keys.kids) == KEYS_MAX


def test_hint_is_the_kid_and_not_critical() -> None:
    (item,) = provisioned().hint()
    assert not item.is_critical
    assert head_end_credential(KEYS[0]).id_cred == Kid(item.value or b"")
