"""A manufacturer's shipment: which devices were delivered, each with its public key.

As CSV, with a header row that names the columns in any order:

    meter,public_key,serial,model,manufacturer,hardware,firmware
    02004c00000000a1,03ad...66 hex digits...,A-1007,M3,Example Meters,1.2,4.0.1

or as CBOR (docs/protocol/shipment-v1.cddl), alone or signed by the manufacturer (COSE_Sign1).

Gives   every device of a file, or every place that is wrong with it
Raises  BadShipment, which names each wrong place; also for a signature that is wanted and missing,
        false, or there and not asked for
Limit   SHIPMENT_SIZE_MAX octets, DEVICE_COUNT_MAX devices, TEXT_SIZE_MAX characters of a detail
Never   takes part of a file, or anything of a signed file whose signature was not checked
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from amistack.cbor import is_array
from amistack.errors import ConfigError, TrustError
from amistack.identifiers import EUI64_SIZE, Eui64, format_eui64, parse_eui64
from amistack.session.fleet import PUBLIC_KEY_SIZE, decode_public_key, parse_public_key
from amistack.session.signing import TAG_OCTET, Signed, VerifyingKey, load_item
from headend.domain.refusals import BadEnrolment, BadShipment
from headend.domain.standing import DeviceDetails
from headend.lifecycle.enrolment import (
    DEVICE_COUNT_MAX,
    LIST_SIZE_MAX,
    PROBLEM_COUNT_MAX,
    Device,
    check_devices,
)

SHIPMENT_SIZE_MAX: Final = LIST_SIZE_MAX
VERSION: Final = 1
TEXT_SIZE_MAX: Final = 64

COLUMNS: Final[Mapping[str, str]] = {
    "meter": "meter",
    "eui64": "meter",
    "eui-64": "meter",
    "public_key": "public_key",
    "manufacturer": "manufacturer",
    "model": "model",
    "serial": "serial",
    "hardware": "hardware",
    "hardware_version": "hardware",
    "firmware": "firmware",
    "firmware_version": "firmware",
}
"""The names that a column may have, in lower case, and what it is."""
NEEDED: Final = ("meter", "public_key")
DETAILS: Final = ("manufacturer", "model", "serial", "hardware", "firmware")

# Keys of the CBOR form.
KEY_VERSION: Final = 0
KEY_MANUFACTURER: Final = 1
KEY_NAME: Final = 2
KEY_DEVICES: Final = 3
DETAIL_KEYS: Final[Mapping[int, str]] = dict(enumerate(DETAILS))

BYTE_ORDER_MARK: Final = 0xEF
"""The first octet of a text file that begins with one; above 0x7F all others are CBOR's."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What a file says, checked. `name` is the manufacturer's, or the start of the file's digest.

    `is_signed`: by the key that was asked for.
    """

    name: str
    devices: tuple[Device, ...]
    details: Mapping[Eui64, DeviceDetails]
    is_signed: bool


def parse_shipment(octets: bytes, *, manufacturer_key: VerifyingKey | None = None) -> Shipment:
    """The devices of a shipment file. Raises BadShipment.

    With a key the file must be signed by its owner; a signed one is refused without a key.
    """
    if len(octets) > SHIPMENT_SIZE_MAX:
        raise _bad(f"the file has {len(octets)} octets, at most {SHIPMENT_SIZE_MAX}; split it")
    name = f"sha256:{hashlib.sha256(octets).hexdigest()[:16]}"
    is_signed = octets[:1] == bytes((TAG_OCTET,))
    if is_signed:
        if manufacturer_key is None:
            raise _bad("the file is signed: name its manufacturer's key, so that it is checked")
        octets = _checked(octets, manufacturer_key)
    elif manufacturer_key is not None:
        raise _bad("the file is not signed, expected the manufacturer's signature")
    first = octets[0] if octets else 0
    if first < 0x80 or first == BYTE_ORDER_MARK:
        if is_signed:
            raise _bad("what is signed is no shipment in CBOR")
        return Shipment(name, *_from_csv(octets), is_signed=False)
    own_name, devices, details = _from_cbor(octets)
    return Shipment(own_name or name, devices, details, is_signed)


def parse_manufacturer_key(text: str) -> VerifyingKey:
    """A public key as 66 hex digits (P-256) or as PEM (P-256 or Ed25519). Raises ConfigError."""
    if "-----BEGIN" not in text:
        return decode_public_key(parse_public_key(text))
    try:
        key = load_pem_public_key(text.encode())
    except Exception as error:
        # Not only ValueError: what is in a PEM may be of a kind that this build does not know.
        raise ConfigError("the manufacturer's key is no public key in PEM") from error
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        is_p256 and isinstance(key, ec.EllipticCurvePublicKey)
    ):
        return key
    raise ConfigError("the manufacturer's key is of another kind, expected P-256 or Ed25519")


# CSV


def _from_csv(octets: bytes) -> tuple[tuple[Device, ...], dict[Eui64, DeviceDetails]]:
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _bad("the file is neither CBOR nor text in UTF-8") from None
    problems: list[str] = []
    rows: list[tuple[str, str, str]] = []
    told: dict[str, dict[str, str]] = {}
    columns: list[str] | None = None
    for number, cells in _lines(text, problems):
        place = f"line {number}"
        if columns is None:
            columns = _columns(place, cells)
        elif len(cells) != len(columns):
            problems.append(f"{place}: {len(cells)} fields, the header has {len(columns)}")
        else:
            fields = dict(zip(columns, cells, strict=True))
            rows.append((place, fields["meter"], fields["public_key"]))
            told[place] = {name: fields[name] for name in DETAILS if fields.get(name)}
        if len(problems) >= PROBLEM_COUNT_MAX or len(rows) > DEVICE_COUNT_MAX:
            break  # `check_devices` says so.
    if columns is None and not problems:
        raise _bad("the file is empty, expected a header row and a row for each device")
    return _check(rows, told, problems)


def _lines(text: str, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are no blanks or comments, with the number of their line; a row is one line."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            (cells,) = csv.reader([line], strict=True)
        except (csv.Error, ValueError) as error:
            problems.append(f"line {number}: {error}")
            continue
        yield number, [cell.strip() for cell in cells]


def _columns(place: str, cells: Sequence[str]) -> list[str]:
    names = [COLUMNS.get(cell.lower(), "") for cell in cells]
    for cell, name in zip(cells, names, strict=True):
        if not name:
            raise _bad(
                f"{place}: {cell[:TEXT_SIZE_MAX]!r} is no column; expected {', '.join(COLUMNS)}"
            )
        if names.count(name) > 1:
            raise _bad(f"{place}: two columns are the {name}")
    for name in NEEDED:
        if name not in names:
            raise _bad(f"{place}: there is no column {name}")
    return names


# CBOR


def _checked(octets: bytes, key: VerifyingKey) -> bytes:
    """What the manufacturer signed."""
    try:
        signed = Signed.decode(octets)
    except TrustError as error:
        raise _bad(f"the file is no signed shipment: {error}") from None
    if not signed.is_by(key):
        raise _bad("the signature is not by that manufacturer's key")
    return signed.payload


def _from_cbor(octets: bytes) -> tuple[str, tuple[Device, ...], dict[Eui64, DeviceDetails]]:
    try:
        tree = load_item(octets, SHIPMENT_SIZE_MAX)
    except TrustError as error:
        raise _bad(f"the file is no shipment: {error}") from None
    if not isinstance(tree, Mapping) or tree.get(KEY_VERSION) != VERSION:
        raise _bad(f"the file is no shipment of version {VERSION}")
    listed = tree.get(KEY_DEVICES)
    if not is_array(listed) or not listed:
        raise _bad("the file is empty, expected an array of devices")
    if len(listed) > DEVICE_COUNT_MAX:
        raise _bad(f"{len(listed)} devices, at most {DEVICE_COUNT_MAX}; split the file")
    shared = {}
    for key, what in ((KEY_MANUFACTURER, "manufacturer"), (KEY_NAME, "name")):
        said = tree.get(key, "")
        if not isinstance(said, str) or _fault_of(said):
            raise _bad(f"the shipment's {what} is no text of at most {TEXT_SIZE_MAX} characters")
        shared[what] = said
    problems: list[str] = []
    rows: list[tuple[str, str, str]] = []
    told: dict[str, dict[str, str]] = {}
    for index, item in enumerate(listed):
        place = f"device {index}"
        try:
            meter, public_key, told[place] = _device_item(item)
        except TrustError as error:
            problems.append(f"{place}: {error}")
            if len(problems) >= PROBLEM_COUNT_MAX:
                break
            continue
        if shared["manufacturer"]:
            told[place].setdefault("manufacturer", shared["manufacturer"])
        rows.append((place, meter.hex(), public_key.hex()))
    return (shared["name"], *_check(rows, told, problems))


def _device_item(item: object) -> tuple[bytes, bytes, dict[str, str]]:
    """EUI-64, public key and details of one item. Raises TrustError."""
    if not is_array(item) or len(item) not in (2, 3):
        raise TrustError("no device", "expected an array of EUI-64, public key and details")
    meter, public_key = item[:2]
    if not isinstance(meter, bytes) or len(meter) != EUI64_SIZE:
        raise TrustError("no EUI-64", f"expected {EUI64_SIZE} octets")
    if not isinstance(public_key, bytes) or len(public_key) != PUBLIC_KEY_SIZE:
        raise TrustError("no public key", f"expected {PUBLIC_KEY_SIZE} octets")
    details: dict[str, str] = {}
    said = item[2] if len(item) == 3 else {}
    if not isinstance(said, Mapping):
        raise TrustError("no details", "expected a map")
    for key, value in said.items():
        name = DETAIL_KEYS.get(key) if type(key) is int else None
        # Keys that a later version adds are passed over.
        if name is not None:
            if not isinstance(value, str):
                raise TrustError("no text", f"the {name} is {type(value).__name__}")
            details[name] = value
    return meter, public_key, details


# Both


def _check(
    rows: Sequence[tuple[str, str, str]],
    told: Mapping[str, Mapping[str, str]],
    problems: list[str],
) -> tuple[tuple[Device, ...], dict[Eui64, DeviceDetails]]:
    """The devices, and what is said of each. Raises BadShipment with every problem there is."""
    for place, fields in told.items():
        for name, value in fields.items():
            if fault := _fault_of(value):
                problems.append(f"{place}: the {name} {fault}")
        if len(problems) >= PROBLEM_COUNT_MAX:
            break
    try:
        devices = check_devices(rows, problems)
    except BadEnrolment as error:
        raise BadShipment(error.problems) from None
    details: dict[Eui64, DeviceDetails] = {}
    for place, meter_text, _ in rows:
        meter = parse_eui64(meter_text)
        said = DeviceDetails(**told[place])
        if details.setdefault(meter, said) != said:
            raise _bad(f"{place}: meter {format_eui64(meter)} stands there twice, and differs")
    return devices, {meter: said for meter, said in details.items() if said != DeviceDetails()}


def _fault_of(text: str) -> str:
    """What is wrong with a detail; nothing if it is empty text."""
    if len(text) > TEXT_SIZE_MAX:
        return f"has {len(text)} characters, at most {TEXT_SIZE_MAX}"
    return "" if text.isprintable() else "has characters that cannot be printed"


def _bad(problem: str) -> BadShipment:
    return BadShipment((problem,))
