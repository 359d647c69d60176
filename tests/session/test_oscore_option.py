"""The OSCORE option's value: round trips, and garbage.

The contract under test: `decode` inverts `encode`, every value that it accepts is the only way
to write what it says, and whatever else it is given raises OscoreError with code 4.02.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.errors import LocalProtocolError, OscoreError
from amistack.session.oscore import OscoreOption

partial_ivs = st.one_of(
    st.just(b"\0"),
    st.integers(1, (1 << 40) - 1).map(lambda n: n.to_bytes((n.bit_length() + 7) // 8, "big")),
)
oscore_options = st.builds(
    OscoreOption,
    st.none() | partial_ivs,
    st.none() | st.binary(max_size=9),
    st.none() | st.binary(max_size=40),
)


@given(oscore_options)
def test_decode_inverts_encode(option: OscoreOption) -> None:
    assert OscoreOption.decode(option.encode()) == option


@given(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda flags, rest: bytes((flags,)) + rest, st.integers(0, 31), st.binary()),
    )
)
def test_arbitrary_octets_are_canonical_or_raise_oscore_error(value: bytes) -> None:
    with contextlib.suppress(OscoreError):
        assert OscoreOption.decode(value).encode() == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("00", id="flags of zero instead of an empty option"),
        pytest.param("0000", id="octets after flags of zero"),
        pytest.param("2105", id="reserved bit 5"),
        pytest.param("4105", id="reserved bit 6"),
        pytest.param("8105", id="reserved bit 7"),
        pytest.param("06010203040506", id="reserved length 6"),
        pytest.param("0701020304050607", id="reserved length 7"),
        pytest.param("020005", id="leading zero"),
        pytest.param("020000", id="zero of two octets"),
        pytest.param("0301", id="partial iv cut off"),
        pytest.param("1105", id="length of kid context cut off"),
        pytest.param("11050301", id="kid context cut off"),
        pytest.param("010501", id="octets after the last field"),
        pytest.param("09" + "05" + "00" * 254, id="256 octets"),
    ],
)
def test_malformed_value_is_refused(value: str) -> None:
    with pytest.raises(OscoreError) as caught:
        OscoreOption.decode(bytes.fromhex(value))
    assert caught.value.reason == "failed to decode cose"
    assert caught.value.code == Code.BAD_OPTION


@pytest.mark.parametrize(
    "option",
    [
        OscoreOption(b""),
        OscoreOption(b"\0\1"),
        OscoreOption(b"\1" * 6),
        OscoreOption(None, b"k" * 255),
        OscoreOption(None, None, b"c" * 254),
        OscoreOption(None, None, b"c" * 256),
    ],
)
def test_field_that_does_not_fit_is_not_written(option: OscoreOption) -> None:
    with pytest.raises(LocalProtocolError):
        option.encode()


def test_longest_option_is_255_octets() -> None:
    option = OscoreOption(b"\1", b"k" * 253)
    assert len(option.encode()) == 255
    assert OscoreOption.decode(option.encode()) == option
