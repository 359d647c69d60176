"""A manufacturer's shipment file.

The contract under test: a right file gives its devices with what it says of them, as CSV, as CBOR
and as signed CBOR alike; a wrong one is BadShipment that names every wrong place, in one line for a
person; a signature counts only by the key that was named, and no signed file is taken unchecked.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import cbor2
import pycddl
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.identifiers import Eui64
from amistack.session.signing import sign1
from headend.domain.refusals import BadShipment
from headend.domain.standing import DeviceDetails
from headend.lifecycle import shipment as module
from headend.lifecycle.enrolment import Device
from headend.lifecycle.shipment import (
    DETAIL_KEYS,
    DETAILS,
    parse_manufacturer_key,
    parse_shipment,
)
from tests.support.headend import meter_id, private_key, public_key

TEXT = (Path(__file__).parents[2] / "docs/protocol/shipment-v1.cddl").read_text(encoding="utf-8")
SCHEMA = pycddl.Schema(f"root = shipment\n{TEXT}")
A, B = meter_id(1), meter_id(2)
KEYS = [public_key(f"device {number}") for number in range(3)]
MAKER = private_key("maker")
OTHER = private_key("another maker")
FULL = DeviceDetails("Example Meters", "M3", "A-1007", "1.2", "4.0.1")


def as_cbor(
    rows: Mapping[Eui64, tuple[bytes, DeviceDetails]], *, manufacturer: str = "", name: str = ""
) -> bytes:
    tree: dict[int, object] = {0: 1}
    if manufacturer:
        tree[1] = manufacturer
    if name:
        tree[2] = name
    devices = []
    for meter, (key, details) in rows.items():
        said = {n: v for n, d in DETAIL_KEYS.items() if (v := getattr(details, d))}
        devices.append([meter, key, said] if said else [meter, key])
    tree[3] = devices
    return cbor2.dumps(tree)


def as_csv(rows: Mapping[Eui64, tuple[bytes, DeviceDetails]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["serial", "meter", "model", "public_key", "manufacturer", "hardware", "firmware"]
    )
    for meter, (key, d) in rows.items():
        writer.writerow(
            [d.serial, meter.hex(), d.model, key.hex(), d.manufacturer, d.hardware, d.firmware]
        )
    return text.getvalue().encode()


def problems_of(octets: bytes, **options: ec.EllipticCurvePublicKey) -> tuple[str, ...]:
    with pytest.raises(BadShipment) as refusal:
        parse_shipment(octets, **options)
    assert str(refusal.value).isprintable()
    assert str(refusal.value).startswith("nothing was imported: ")
    return refusal.value.problems


details = st.builds(
    DeviceDetails,
    *(
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12).filter(
            lambda text: not text.startswith("#")
        )
        for _ in DETAILS
    ),
)
fleets = st.dictionaries(
    st.integers(0, 2**32 - 1).map(meter_id),
    st.tuples(st.sampled_from(KEYS), details),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(rows=fleets)
def test_every_form_gives_the_same_devices(
    rows: dict[Eui64, tuple[bytes, DeviceDetails]],
) -> None:
    expected = tuple(Device(meter, key) for meter, (key, _) in rows.items())
    said = {meter: d for meter, (_, d) in rows.items() if d != DeviceDetails()}
    cbor = as_cbor(rows)
    for octets, key in (
        (as_csv(rows), None),
        (b"\xef\xbb\xbf" + as_csv(rows), None),
        (cbor, None),
        (sign1(MAKER, cbor), MAKER.public_key()),
    ):
        found = parse_shipment(octets, manufacturer_key=key)
        assert (found.devices, dict(found.details)) == (expected, said)
        assert found.is_signed == (key is not None)


@settings(deadline=None, max_examples=30)
@given(rows=fleets, maker=st.sampled_from(["", "Maker"]))
def test_cbor_form_is_of_the_published_schema(
    rows: dict[Eui64, tuple[bytes, DeviceDetails]], maker: str
) -> None:
    """By an outside implementation of CDDL (pycddl, cddl-rs)."""
    octets = as_cbor(rows, manufacturer=maker, name="pallet 7")
    SCHEMA.validate_cbor(octets)
    for damaged in (octets[:-1], cbor2.dumps({0: 1}), cbor2.dumps({0: 2, 3: [[A, KEYS[0]]]})):
        with pytest.raises(pycddl.ValidationError):
            SCHEMA.validate_cbor(damaged)


def test_columns_go_by_their_names_and_comments_and_blanks_are_passed_over() -> None:
    text = (
        "\ufeff# pallet 7\r\n\r\n"
        "Public_Key, EUI64 ,Serial,Hardware_Version,Firmware_Version\r\n"
        f'{KEYS[0].hex().upper()}, 02-00-4c-00-00-00-00-01 ,"A,7",1.2,4.0\r\n'
        "  # the end\r\n"
    )
    found = parse_shipment(text.encode())
    assert found.devices == (Device(A, KEYS[0]),)
    assert found.details == {A: DeviceDetails(serial="A,7", hardware="1.2", firmware="4.0")}
    assert found.name.startswith("sha256:")


def test_what_holds_for_all_devices_is_said_once() -> None:
    octets = as_cbor(
        {A: (KEYS[0], DeviceDetails()), B: (KEYS[1], FULL)}, manufacturer="Maker", name="pallet 7"
    )
    found = parse_shipment(octets)
    assert found.name == "pallet 7"
    assert found.details == {A: DeviceDetails(manufacturer="Maker"), B: FULL}


def test_keys_that_a_later_version_adds_are_passed_over() -> None:
    tree = {0: 1, 3: [[A, KEYS[0], {2: "A-7", 99: [1], "note": 2}]], 9: "later"}
    assert parse_shipment(cbor2.dumps(tree)).details == {A: DeviceDetails(serial="A-7")}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "the file is empty, expected a header row and a row for each device"),
        (["meter,public_key"], "the list is empty, expected lines of a meter and its public key"),
        ([f"{A.hex()},{KEYS[0].hex()}"], "line 1: '02004c0000000001' is no column"),
        (["meter,serial"], "line 1: there is no column public_key"),
        (["meter,public_key,eui64"], "line 1: two columns are the meter"),
        (["meter,public_key", f"{A.hex()}"], "line 2: 1 fields, the header has 2"),
        (["meter,public_key", f'{A.hex()},"{KEYS[0].hex()}'], "line 2: unexpected end of data"),
        (["meter,public_key", f"{A.hex()},{'00' * 33}"], "line 2: 0000"),
        (
            ["meter,public_key,serial", f"{A.hex()},{KEYS[0].hex()},{'x' * 65}"],
            "line 2: the serial has 65 characters, at most 64",
        ),
        (
            ["meter,public_key,serial", f"{A.hex()},{KEYS[0].hex()},a\x07b"],
            "line 2: the serial has characters that cannot be printed",
        ),
        (
            ["meter,public_key", f"{A.hex()},{KEYS[0].hex()}", f"{A.hex()},{KEYS[1].hex()}"],
            f"line 3: meter {A.hex()} has another key in line 2",
        ),
        (
            [
                "meter,public_key,serial",
                f"{A.hex()},{KEYS[0].hex()},1",
                f"{A.hex()},{KEYS[0].hex()},2",
            ],
            f"line 3: meter {A.hex()} stands there twice, and differs",
        ),
    ],
)
def test_wrong_csv_is_refused_with_its_place(lines: list[str], problem: str) -> None:
    (found,) = problems_of("\n".join(lines).encode())
    assert found.startswith(problem)


def test_every_bad_line_is_named() -> None:
    lines = ["meter,public_key,model", f"{A.hex()},{KEYS[0].hex()},M3", "x,y,z", "1,2",
             f"{B.hex()},{KEYS[1].hex()},{'m' * 65}"]  # fmt: skip
    problems = problems_of("\n".join(lines).encode())
    assert sorted(problem.split(":")[0] for problem in problems) == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ([], "the file is no shipment of version 1"),
        ({0: 2, 3: [[A, KEYS[0]]]}, "the file is no shipment of version 1"),
        ({0: 1}, "the file is empty"),
        ({0: 1, 3: []}, "the file is empty"),
        ({0: 1, 3: "devices"}, "the file is empty"),
        ({0: 1, 1: "x" * 65, 3: [[A, KEYS[0]]]}, "the shipment's manufacturer is no text"),
        ({0: 1, 2: 7, 3: [[A, KEYS[0]]]}, "the shipment's name is no text"),
        ({0: 1, 3: [[A]]}, "device 0: no device"),
        ({0: 1, 3: [A]}, "device 0: no device"),
        ({0: 1, 3: [[A[:7], KEYS[0]]]}, "device 0: no EUI-64"),
        ({0: 1, 3: [[A, KEYS[0][:32]]]}, "device 0: no public key"),
        ({0: 1, 3: [[A, bytes(33)]]}, "device 0: 0000"),
        ({0: 1, 3: [[A, KEYS[0], []]]}, "device 0: no details"),
        ({0: 1, 3: [[A, KEYS[0], {2: 7}]]}, "device 0: no text: the serial is int"),
        ({0: 1, 3: [[A, KEYS[0], {2: "a\nb"}]]}, "device 0: the serial has characters"),
        ({0: 1, 3: [[A, KEYS[0]], [A, KEYS[1]]]}, "device 1: meter 02004c0000000001 has another"),
    ],
)
def test_wrong_cbor_is_refused_with_its_place(tree: object, problem: str) -> None:
    (found,) = problems_of(cbor2.dumps(tree))
    assert found.startswith(problem)


def test_file_of_rubbish_is_given_up_before_it_costs_much() -> None:
    assert len(problems_of(b"meter,public_key\n" + b"x,y\n" * 50_000)) == 1_000
    assert len(problems_of(cbor2.dumps({0: 1, 3: [0] * 50_000}))) == 1_000


def test_too_long_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {meter_id(n): (KEYS[0], DeviceDetails()) for n in range(4)}
    monkeypatch.setattr("headend.lifecycle.enrolment.DEVICE_COUNT_MAX", 3)
    monkeypatch.setattr(module, "DEVICE_COUNT_MAX", 3)
    assert problems_of(as_csv(rows)) == ("line 5: more than 3 meters; split the list",)
    assert problems_of(as_cbor(rows)) == ("4 devices, at most 3; split the file",)
    monkeypatch.setattr(module, "SHIPMENT_SIZE_MAX", 10)
    assert problems_of(as_csv(rows))[0].endswith("at most 10; split it")


# Signatures

SIGNED = sign1(MAKER, as_cbor({A: (KEYS[0], FULL)}))
PLAIN = as_cbor({A: (KEYS[0], FULL)})


def test_signed_file_is_never_taken_unchecked() -> None:
    (problem,) = problems_of(SIGNED)
    assert problem == "the file is signed: name its manufacturer's key, so that it is checked"


@pytest.mark.parametrize("octets", [PLAIN, as_csv({A: (KEYS[0], FULL)})])
def test_unsigned_file_is_not_taken_where_a_signature_is_wanted(octets: bytes) -> None:
    (problem,) = problems_of(octets, manufacturer_key=MAKER.public_key())
    assert problem == "the file is not signed, expected the manufacturer's signature"


@pytest.mark.parametrize(
    "octets",
    [
        sign1(OTHER, PLAIN),
        sign1(MAKER, PLAIN, external_aad=b"for something else"),
        SIGNED[:-1] + bytes((SIGNED[-1] ^ 1,)),
        SIGNED.replace(b"A-1007", b"A-1008"),
    ],
    ids=["another key", "another purpose", "broken", "changed"],
)
def test_signature_by_anybody_else_counts_for_nothing(octets: bytes) -> None:
    (problem,) = problems_of(octets, manufacturer_key=MAKER.public_key())
    assert problem == "the signature is not by that manufacturer's key"


def test_signed_file_may_hold_a_shipment_in_cbor_alone() -> None:
    octets = sign1(MAKER, as_csv({A: (KEYS[0], FULL)}))
    (problem,) = problems_of(octets, manufacturer_key=MAKER.public_key())
    assert problem == "what is signed is no shipment in CBOR"


def test_manufacturers_key_is_taken_as_hex_and_as_pem() -> None:
    edwards = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    for key in (MAKER.public_key(), edwards):
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        assert parse_manufacturer_key(pem) == key
    assert parse_manufacturer_key(public_key("maker").hex()) == MAKER.public_key()
    strange = ec.derive_private_key(5, ec.SECP384R1()).public_key()
    pem = strange.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (pem, "-----BEGIN nothing", "abc", ""):
        with pytest.raises(ConfigError) as refusal:
            parse_manufacturer_key(text)
        assert str(refusal.value).isprintable()


@settings(deadline=None, max_examples=300)
@given(
    octets=st.binary(max_size=80)
    | st.text(max_size=80).map(str.encode)
    | st.binary(max_size=60).map(lambda o: b"\xa2\x00\x01\x03" + o)
    | st.binary(max_size=60).map(lambda o: b"\xd2\x84" + o),
    has_key=st.booleans(),
)
def test_arbitrary_octets_never_raise_anything_but_bad_shipment(
    octets: bytes, has_key: bool
) -> None:
    with pytest.raises(BadShipment) as refusal:
        parse_shipment(octets, manufacturer_key=MAKER.public_key() if has_key else None)
    assert str(refusal.value).isprintable()
