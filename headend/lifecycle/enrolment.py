"""Which meters may join: the utility's list of devices and their public keys.

    meter,public_key
    02004c00000000a1,03ad...66 hex digits...

Gives   every device of a list, or every line that is wrong with it
Raises  BadEnrolment, which names each wrong place
Limit   DEVICE_COUNT_MAX devices
Never   takes part of a list
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError
from amistack.identifiers import Eui64, format_eui64, parse_eui64
from amistack.session.fleet import parse_public_key
from headend.domain.refusals import BadEnrolment

DEVICE_COUNT_MAX: Final = 100_000
LIST_SIZE_MAX: Final = 16 * 1024 * 1024
"""Octets of a list, as a file or as a request."""
PROBLEM_COUNT_MAX: Final = 1_000
HEADER: Final = ("meter", "public_key")


@dataclass(frozen=True, slots=True)
class Device:
    """One meter and its public key, a compressed P-256 point of 33 octets."""

    meter: Eui64
    public_key: bytes


def parse_enrolment(text: str) -> tuple[Device, ...]:
    """The devices of an enrolment file: `EUI64,PUBLICKEY` lines, blanks and `#` comments.

    Raises BadEnrolment with the number of every bad line.
    """
    rows: list[tuple[str, str, str]] = []
    problems: list[str] = []
    is_first = True
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        fields = [part.strip() for part in line.partition("#")[0].split(",")]
        if fields == [""]:
            continue
        is_header = is_first and tuple(part.lower() for part in fields) == HEADER
        is_first = False
        if is_header:
            continue
        if len(fields) != 2:
            problems.append(
                f"line {number}: {len(fields)} field{'s' * (len(fields) > 1)}, "
                "expected a meter and its public key"
            )
        else:
            rows.append((f"line {number}", fields[0], fields[1]))
    return check_devices(rows, problems)


def check_devices(
    rows: Iterable[tuple[str, str, str]], problems: Iterable[str] = ()
) -> tuple[Device, ...]:
    """The devices of `rows`: a place to name, a meter and a public key, as text.

    A row that repeats another is taken once. Raises BadEnrolment with `problems` and its own.
    """
    found = list(problems)
    keys: dict[Eui64, bytes] = {}
    places: dict[Eui64, str] = {}
    for place, meter_text, key_text in rows:
        try:
            meter, key = parse_eui64(meter_text[:80]), parse_public_key(key_text)
        except ConfigError as error:
            found.append(f"{place}: {error}")
            if len(found) >= PROBLEM_COUNT_MAX:
                break
            continue
        if keys.setdefault(meter, key) != key:
            found.append(f"{place}: meter {format_eui64(meter)} has another key in {places[meter]}")
        places.setdefault(meter, place)
        if len(keys) > DEVICE_COUNT_MAX:
            found.append(f"{place}: more than {DEVICE_COUNT_MAX} meters; split the list")
            break
    if not found and not keys:
        found.append("the list is empty, expected lines of a meter and its public key")
    if found:
        raise BadEnrolment(tuple(found))
    return tuple(Device(meter, key) for meter, key in keys.items())
