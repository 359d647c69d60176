"""How long keys may be used.

The contract under test: the limits are those recommended for each algorithm, and both sides'
numbers together stay within that of encryptions, however responses are divided between the nonces.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.message import MESSAGE_SIZE_MAX
from amistack.session.key_limits import ENCRYPTIONS_MAX, FAILURES_MAX, NUMBERS_MAX
from amistack.session.oscore import AES_CCM_16_64_128, AES_CCM_16_128_128

BLOCK = 16


def test_limits_are_the_recommended_ones() -> None:
    """draft-ietf-core-oscore-key-limits section 2.1.1, for these two algorithms."""
    assert ENCRYPTIONS_MAX == 2**20
    assert dict(FAILURES_MAX) == {AES_CCM_16_64_128: 2**14, AES_CCM_16_128_128: 2**20}


def test_no_message_is_longer_than_a_key_stands() -> None:
    """l is 2^8 blocks of the shorter-tagged algorithm: what a message can hold at most."""
    assert MESSAGE_SIZE_MAX <= 2**8 * BLOCK


@given(
    ours=st.integers(0, NUMBERS_MAX),
    theirs=st.integers(0, NUMBERS_MAX),
    share=st.floats(0, 1),
)
def test_a_key_never_encrypts_more_often_than_it_stands(
    ours: int, theirs: int, share: float
) -> None:
    """`share` of the peer's requests is answered under their own numbers, the rest under ours."""
    assert ours + int(theirs * share) <= ENCRYPTIONS_MAX
