"""Chains of certificates, judged.

The contract under test: a chain is accepted only if every certificate in it is valid at the time
handed in, is issued by the next, ends at an anchor and may be used so; each way to be wrong has a
fault of its own; no octets make anything but EdhocError escape.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, EdhocError, LocalProtocolError
from amistack.session.chains import ANCHOR_COUNT_MAX, ChainFault, TrustAnchors, judge
from amistack.session.credentials import CHAIN_COUNT_MAX, X5chain, x5t_credential
from amistack.session.edhoc import Method
from tests.session.certificates import NOON, Issued, authority, issue, name_of
from tests.session.edhoc_pairs import private_key

DAY = timedelta(days=1)
ROOT = authority("root")
MIDDLE = authority("middle", ROOT)
METER_KEY = private_key("meter", 2, 3)
METER = issue("meter", METER_KEY, MIDDLE, uses=("key_agreement",))
DIRECT = issue("meter", METER_KEY, ROOT, uses=("key_agreement", "digital_signature"))
ANCHORS = TrustAnchors([ROOT.certificate])
ANOTHER_ROOT_KEY = issue(
    "root", private_key("another", 2, 0), is_authority=True, uses=("key_cert_sign",)
)


def chain(*issued: Issued) -> X5chain:
    return X5chain(tuple(one.certificate for one in issued))


def fault_of(
    *issued: Issued,
    anchors: TrustAnchors = ANCHORS,
    at: datetime = NOON,
    method: Method = Method.STATIC_STATIC,
) -> str:
    with pytest.raises(EdhocError) as refused:
        judge(chain(*issued), anchors, at=at, method=method)
    return str(refused.value.reason)


@pytest.mark.parametrize(
    "issued",
    [(METER, MIDDLE), (METER, MIDDLE, ROOT), (DIRECT,), (DIRECT, ROOT)],
    ids=["without the anchor", "with the anchor", "issued by the anchor", "and with it"],
)
def test_a_chain_that_leads_to_an_anchor_is_its_first_certificates(
    issued: tuple[Issued, ...],
) -> None:
    credential = judge(chain(*issued), ANCHORS, at=NOON, method=Method.STATIC_STATIC)
    assert credential.id_cred == chain(*issued)
    assert credential.public_key == METER_KEY.public_key()
    assert credential.octets == x5t_credential(issued[0].certificate).octets


@pytest.mark.parametrize("suite", [0, 2])
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("authority_suite", [0, 2])
def test_every_kind_of_key_can_be_certified_for_what_it_can_do(
    suite: int, method: Method, authority_suite: int
) -> None:
    root = authority("a root", suite=authority_suite)
    use = "digital_signature" if method is Method.SIGN_SIGN else "key_agreement"
    key = private_key("m", suite, method)
    for uses in ((use,), ()):
        own = issue("m", key, root, uses=uses)
        credential = judge(chain(own), TrustAnchors([root.certificate]), at=NOON, method=method)
        assert credential.public_key == key.public_key()


def test_the_edges_of_validity_belong_to_it() -> None:
    for at in (NOON - DAY, NOON + DAY):
        judge(chain(METER, MIDDLE), ANCHORS, at=at, method=Method.STATIC_STATIC)
    assert fault_of(METER, MIDDLE, at=NOON + DAY + timedelta(seconds=1)) == ChainFault.EXPIRED
    assert fault_of(METER, MIDDLE, at=NOON - DAY - timedelta(seconds=1)) == ChainFault.NOT_YET_VALID


def test_everyone_in_the_chain_must_be_valid_the_anchor_too() -> None:
    old_root = authority("root", valid_to=NOON - timedelta(hours=1))
    anchors = TrustAnchors([old_root.certificate])
    assert fault_of(DIRECT, anchors=anchors) == ChainFault.EXPIRED
    old_middle = authority("middle", ROOT, valid_to=NOON - timedelta(hours=1))
    meter = issue("meter", METER_KEY, old_middle)
    assert fault_of(meter, old_middle) == ChainFault.EXPIRED
    judge(
        chain(meter, old_middle), ANCHORS, at=NOON - timedelta(hours=2), method=Method.STATIC_STATIC
    )


def test_a_time_is_a_moment_wherever_it_is_told() -> None:
    elsewhere = (NOON + DAY).astimezone(timezone(timedelta(hours=14)))
    judge(chain(METER, MIDDLE), ANCHORS, at=elsewhere, method=Method.STATIC_STATIC)
    with pytest.raises(LocalProtocolError, match="zone"):
        judge(
            chain(METER, MIDDLE),
            ANCHORS,
            at=NOON.replace(tzinfo=None),
            method=Method.STATIC_STATIC,
        )


def test_who_is_known_to_nobody_is_not_trusted() -> None:
    assert fault_of(METER, MIDDLE, anchors=TrustAnchors([])) == ChainFault.NO_ANCHOR
    assert fault_of(METER) == ChainFault.NO_ANCHOR, "the middle is missing"
    self_signed = issue("meter", METER_KEY)
    assert fault_of(self_signed) == ChainFault.NO_ANCHOR
    # One that looks like the root to people, sent along by who made it.
    false_meter = issue("meter", METER_KEY, ANOTHER_ROOT_KEY)
    assert fault_of(false_meter, ANOTHER_ROOT_KEY) == ChainFault.BAD_SIGNATURE
    assert fault_of(false_meter) == ChainFault.BAD_SIGNATURE


def test_two_anchors_of_one_name_are_tried_in_turn() -> None:
    for anchors in (
        [ROOT.certificate, ANOTHER_ROOT_KEY.certificate],
        [ANOTHER_ROOT_KEY.certificate, ROOT.certificate],
    ):
        known = TrustAnchors(anchors)
        assert len(known) == 2
        judge(chain(METER, MIDDLE), known, at=NOON, method=Method.STATIC_STATIC)
        false_meter = issue("meter", METER_KEY, ANOTHER_ROOT_KEY)
        judge(chain(false_meter), known, at=NOON, method=Method.STATIC_STATIC)


def test_the_order_is_that_of_issuing() -> None:
    assert fault_of(MIDDLE, METER) == ChainFault.WRONG_KEY_USAGE
    unmarked = issue("unmarked", METER_KEY, MIDDLE)
    assert fault_of(unmarked, ROOT, MIDDLE) == ChainFault.NOT_ISSUED_BY_NEXT
    assert fault_of(METER, MIDDLE, MIDDLE) == ChainFault.NOT_ISSUED_BY_NEXT


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    for position in range(0, len(METER.certificate), 7):
        octets = bytearray(METER.certificate)
        octets[position] ^= 1
        spoiled = Issued("meter", METER_KEY, bytes(octets))
        with pytest.raises(EdhocError):
            judge(chain(spoiled, MIDDLE), ANCHORS, at=NOON, method=Method.STATIC_STATIC)


def test_who_is_no_authority_issues_nothing() -> None:
    for middle in (
        issue("middle", MIDDLE.key, ROOT),
        issue("middle", MIDDLE.key, ROOT, is_authority=False),
        issue("middle", MIDDLE.key, ROOT, is_authority=True, uses=("digital_signature",)),
    ):
        assert fault_of(METER, middle) == ChainFault.NOT_AN_ISSUER
    key = private_key("agrees", 0, 3)
    agreeing = issue("middle", key, ROOT, is_authority=True)
    assert fault_of(METER, agreeing) == ChainFault.NOT_AN_ISSUER


def test_a_chain_is_no_longer_than_its_issuers_allow() -> None:
    root = authority("root", path_length=1)
    anchors = TrustAnchors([root.certificate])
    first = authority("first", root, path_length=0)
    own = issue("meter", METER_KEY, first)
    judge(chain(own, first), anchors, at=NOON, method=Method.STATIC_STATIC)
    second = authority("second", first)
    below = issue("meter", METER_KEY, second)
    assert fault_of(below, second, first, anchors=anchors) == ChainFault.TOO_LONG
    wide = authority("first", root)
    deep = authority("second", wide)
    own = issue("meter", METER_KEY, deep)
    assert fault_of(own, deep, wide, anchors=anchors) == ChainFault.TOO_LONG, "the anchor's bound"


@pytest.mark.parametrize(
    ("uses", "method"),
    [
        (("key_agreement",), Method.SIGN_SIGN),
        (("digital_signature",), Method.STATIC_STATIC),
        (("key_cert_sign",), Method.STATIC_STATIC),
    ],
)
def test_a_key_is_used_for_what_its_certificate_says(uses: tuple[str, ...], method: Method) -> None:
    own = issue("meter", METER_KEY, ROOT, uses=uses)
    assert fault_of(own, method=method) == ChainFault.WRONG_KEY_USAGE


@pytest.mark.parametrize("is_critical", [True, False])
def test_what_cannot_be_obeyed_refuses_only_if_it_is_critical(is_critical: bool) -> None:
    for extension in (
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.SubjectAlternativeName([x509.DNSName("meter.example")]),
    ):
        own = issue("meter", METER_KEY, ROOT, extension=(extension, is_critical))
        if is_critical:
            assert fault_of(own) == ChainFault.CRITICAL_EXTENSION
        else:
            judge(chain(own), ANCHORS, at=NOON, method=Method.STATIC_STATIC)
    limits = x509.NameConstraints([x509.DirectoryName(name_of("elsewhere"))], None)
    middle = issue("middle", MIDDLE.key, ROOT, is_authority=True, extension=(limits, is_critical))
    if is_critical:
        assert fault_of(METER, middle) == ChainFault.CRITICAL_EXTENSION


def test_weak_signatures_count_for_nothing() -> None:
    short = issue("meter", METER_KEY, ROOT, algorithm=hashes.SHA224())
    assert fault_of(short) == ChainFault.WEAK_SIGNATURE


def test_an_rsa_authority_is_none_here() -> None:
    key = rsa.generate_private_key(65537, 2048)
    root = issue("rsa", key, is_authority=True)
    with pytest.raises(ConfigError, match="trust anchor 1"):
        TrustAnchors([root.certificate])
    middle = issue("rsa", key, ROOT, is_authority=True)
    own = issue("meter", METER_KEY, middle)
    assert fault_of(own, middle) == ChainFault.NOT_AN_ISSUER


def test_what_a_parser_only_warns_of_is_refused_and_warns_nobody() -> None:
    """A serial number below zero, which RFC 5280 section 4.1.2.2 forbids."""
    serial = METER.certificate.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    octets = bytearray(METER.certificate)
    octets[serial] |= 0x80
    assert fault_of(Issued("meter", METER_KEY, bytes(octets)), MIDDLE) == "bad credential"


def test_a_key_of_another_curve_is_no_credential() -> None:
    own = issue("meter", ec.derive_private_key(5, ec.SECP384R1()), ROOT)
    assert fault_of(own) == "bad credential"


@pytest.mark.parametrize(
    "octets", [b"", b"\x30\x00", bytes(100), METER.certificate, MIDDLE.certificate[:-1]]
)
def test_an_anchor_is_an_authority_and_nothing_else(octets: bytes) -> None:
    with pytest.raises(ConfigError, match="trust anchor 2"):
        TrustAnchors([ROOT.certificate, octets])


def test_anchors_and_chains_are_bounded() -> None:
    with pytest.raises(ConfigError, match="at most"):
        TrustAnchors([ROOT.certificate] * (ANCHOR_COUNT_MAX + 1))
    with pytest.raises(LocalProtocolError):
        X5chain((METER.certificate,) * (CHAIN_COUNT_MAX + 1))
    with pytest.raises(LocalProtocolError):
        X5chain(())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.binary(max_size=80)
        | st.sampled_from([METER.certificate, MIDDLE.certificate, ROOT.certificate])
        | st.tuples(st.integers(0, len(METER.certificate) - 1), st.integers(0, 255)).map(
            lambda change: (
                METER.certificate[: change[0]]
                + bytes((change[1],))
                + METER.certificate[change[0] + 1 :]
            )
        ),
        min_size=1,
        max_size=4,
    )
)
def test_no_octets_make_anything_else_escape(certificates: list[bytes]) -> None:
    try:
        credential = judge(
            X5chain(tuple(certificates)), ANCHORS, at=NOON, method=Method.STATIC_STATIC
        )
    except EdhocError as error:
        assert error.reason  # noqa: PT017  # That it has one is all that is asked.
        return
    assert tuple(certificates[:2]) == (METER.certificate, MIDDLE.certificate)
    assert credential.public_key == METER_KEY.public_key()
