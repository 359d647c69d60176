"""Arrays of CBOR, told from all else that Python may take for a sequence.

The contract under test: `is_array` is true of what was written as an array, and of nothing else.
"""

from __future__ import annotations

import cbor2
import pytest

from amistack.arrays import is_array


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
