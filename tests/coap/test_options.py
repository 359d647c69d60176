"""CoAP options: the registered table, their values, and which must be refused.

The contract under test: `check_options` refuses with `bad option` exactly the critical options that
are unknown, repeated though they may not be, or of a length out of bounds; nothing else is raised.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.options import (
    DEFINITIONS,
    UNDERSTOOD,
    Format,
    Option,
    OptionNumber,
    check_options,
    is_critical,
    is_elective,
    read_text,
    read_uint,
    uint_value,
)
from amistack.errors import CoapError, LocalProtocolError

# RFC 7252 table 4: number, critical, repeatable, format, shortest and longest value.
TABLE_4 = [
    (1, True, True, Format.OPAQUE, 0, 8),
    (3, True, False, Format.STRING, 1, 255),
    (4, False, True, Format.OPAQUE, 1, 8),
    (5, True, False, Format.EMPTY, 0, 0),
    (7, True, False, Format.UINT, 0, 2),
    (8, False, True, Format.STRING, 0, 255),
    (11, True, True, Format.STRING, 0, 255),
    (12, False, False, Format.UINT, 0, 2),
    (14, False, False, Format.UINT, 0, 4),
    (15, True, True, Format.STRING, 0, 255),
    (17, True, False, Format.UINT, 0, 2),
    (20, False, True, Format.STRING, 0, 255),
    (35, True, False, Format.STRING, 1, 1034),
    (39, True, False, Format.STRING, 1, 255),
    (60, False, False, Format.UINT, 0, 4),
]


@pytest.mark.parametrize("row", TABLE_4, ids=lambda row: OptionNumber(row[0]).name)
def test_the_table_is_the_one_of_the_rfc(row: tuple[int, bool, bool, Format, int, int]) -> None:
    number, critical, repeatable, format_, least, most = row
    definition = DEFINITIONS[number]
    assert is_critical(number) is critical
    assert is_elective(number) is not critical
    assert definition.is_repeatable is repeatable
    assert definition.format is format_
    assert (definition.length_min, definition.length_max) == (least, most)


def test_every_option_with_a_name_has_a_definition() -> None:
    assert set(OptionNumber) == set(DEFINITIONS)
    assert set(DEFINITIONS) >= UNDERSTOOD
    assert all(is_critical(number) for number in UNDERSTOOD)


@pytest.mark.parametrize(
    ("value", "octets"), [(0, ""), (1, "01"), (255, "ff"), (256, "0100"), (0xFFFFFF, "ffffff")]
)
def test_a_number_takes_the_fewest_octets(value: int, octets: str) -> None:
    assert uint_value(value) == bytes.fromhex(octets)


def test_a_negative_number_has_no_octets() -> None:
    with pytest.raises(LocalProtocolError):
        uint_value(-1)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_reading_inverts_writing_and_leading_zeros_count_nothing(value: int, zeros: int) -> None:
    assert read_uint(bytes(zeros) + uint_value(value)) == value


def test_text_is_utf8_or_refused() -> None:
    assert read_text(Option(11, "Zähler".encode())) == "Zähler"
    with pytest.raises(CoapError, match="not utf-8: option 15"):
        read_text(Option(15, b"\xc3"))


ACCEPTABLE = {
    "none": [],
    "all understood": [Option(3, b"h"), Option(7, b""), Option(11, b""), Option(15, b"q")],
    "repeatable twice": [Option(11, b"a"), Option(11, b"a")],
    "unknown elective": [Option(2048, bytes(300))],
    "elective of bad length": [Option(12, bytes(9))],
    "elective twice": [Option(12, b""), Option(12, b"")],
    "longest": [Option(11, bytes(255))],
}


@pytest.mark.parametrize("options", ACCEPTABLE.values(), ids=ACCEPTABLE.keys())
def test_what_may_be_acted_on_or_ignored_passes(options: list[Option]) -> None:
    check_options(options)


REFUSED = {
    "unknown critical": [Option(2049, b"")],
    "critical of the registry, not understood": [Option(5, b"")],
    "critical twice": [Option(3, b"a"), Option(3, b"b")],
    "too short": [Option(3, b"")],
    "too long": [Option(11, bytes(256))],
    "number too long": [Option(17, bytes(3))],
    "after good ones": [Option(3, b"h"), Option(11, b"a"), Option(12, b""), Option(2049, b"")],
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED.keys())
def test_what_must_be_refused_is(options: list[Option]) -> None:
    with pytest.raises(CoapError) as caught:
        check_options(options)
    assert caught.value.reason == "bad option"


def test_a_critical_option_without_definition_passes_where_it_is_understood() -> None:
    check_options([Option(2049, bytes(500)), Option(2049, b"")], understood={2049})


@given(st.lists(st.builds(Option, st.integers(0, 70000), st.binary(max_size=300)), max_size=6))
def test_any_options_pass_or_are_a_coap_error(options: list[Option]) -> None:
    for understood in (UNDERSTOOD, range(70000)):
        try:
            check_options(options, understood)
        except CoapError:
            assert any(is_critical(number) for number, _ in options)
