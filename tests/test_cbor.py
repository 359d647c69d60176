"""CBOR that nobody vouches for.

The contract under test: `is_array` is true of what was written as an array, and of nothing else;
`read_item` gives an item or raises CborError, whatever the octets.
"""

from __future__ import annotations

import io

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.cbor import is_array, read_item
from amistack.errors import CborError


@pytest.mark.parametrize("octets", ["80", "8101", "8261616162", "9f01ff"])
def test_an_array_is_one(octets: str) -> None:
    assert is_array(cbor2.loads(bytes.fromhex(octets)))


def test_a_key_that_is_an_array_is_one() -> None:
    ((key, _),) = cbor2.loads(bytes.fromhex("a1820102f6")).items()
    assert is_array(key)


@pytest.mark.parametrize(
    "octets", ["f818", "e1", "40", "4161", "60", "6161", "a0", "00", "f6", "f4"]
)
def test_what_is_none_is_none(octets: str) -> None:
    assert not is_array(cbor2.loads(bytes.fromhex(octets)))


# Tags whose making goes wrong in ways of its own: a decimal fraction of nothing, a rational by
# zero, a pattern that is none, a time out of all bounds, a network of no such size.
LEAKS = (
    "c48200620000",
    "d81e820100",
    "d823612a",
    "c11bffffffffffffffff",
    "d9010543000000",
    "d90104a0",
    "",
    "9f",
    "5b7fffffffffffffff",
)


@pytest.mark.parametrize("octets", LEAKS)
def test_what_a_tag_chokes_on_is_one_error(octets: str) -> None:
    with pytest.raises(CborError) as refused:
        read_item(io.BytesIO(bytes.fromhex(octets)))
    assert refused.value.reason == "not CBOR"
    assert refused.value.detail.isprintable() or not refused.value.detail


@given(st.binary(max_size=64))
def test_nothing_but_the_one_error_escapes(octets: bytes) -> None:
    try:
        read_item(io.BytesIO(octets))
    except CborError:
        pass
