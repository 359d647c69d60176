"""A dump's pages: what goes in comes out, in order, and nothing inflates without a bound.

The contract under test: `pages_of` and `parts` invert each other over all pages; octets that are no
page are ModelError, however cleverly they are packed.
"""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.dump import (
    PACKED_SIZE_MAX,
    PAGE_COUNT_MAX,
    PAGE_SIZE_MAX,
    PART_SIZE_MAX,
    DumpPage,
    DumpPart,
    pages_of,
)

parts = st.lists(
    st.builds(
        DumpPart,
        st.sampled_from(["read", "rep", "log"]),
        st.builds(bytes, st.integers(1, PART_SIZE_MAX)) | st.binary(min_size=1, max_size=2_000),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(parts=parts)
def test_parts_come_out_as_they_went_in(parts: list[DumpPart]) -> None:
    pages = pages_of(parts)
    assert [page.number for page in pages] == list(range(len(pages)))
    assert {page.count for page in pages} == {len(pages)}
    again = [DumpPage.decode(page.encode()) for page in pages]
    assert [part for page in again for part in page.parts()] == parts


def test_page_of_what_cannot_be_deflated_still_fits() -> None:
    dice = random.Random(1)
    pages = pages_of(DumpPart("log", dice.randbytes(PART_SIZE_MAX)) for _ in range(6))
    assert max(len(page.packed) for page in pages) <= PACKED_SIZE_MAX
    assert len(pages) == 6


def test_more_pages_than_there_may_be_are_refused() -> None:
    part = DumpPart("log", bytes(PART_SIZE_MAX))
    assert len(pages_of([part] * PAGE_COUNT_MAX)) == PAGE_COUNT_MAX
    with pytest.raises(ModelError, match="too long"):
        pages_of([part] * (PAGE_COUNT_MAX + 1))


def test_empty_dump_is_one_empty_page() -> None:
    (page,) = pages_of([])
    assert page.parts() == ()


def packed(octets: bytes) -> DumpPage:
    return DumpPage(0, 1, zlib.compress(octets, 9))


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (packed(bytes(PAGE_SIZE_MAX * 100)), "too long"),
        (DumpPage(0, 1, b"\x00"), "not deflated"),
        (DumpPage(0, 1, zlib.compress(b"\x80")[:-1]), "not deflated"),
        (DumpPage(0, 1, zlib.compress(b"\x80") + b"\x00"), "not deflated"),
        (packed(b"\x01"), "wrong type"),
        (packed(wire.dump([["", b"x"]])), "wrong size"),
        (packed(wire.dump([["log", b""]])), "wrong size"),
        (packed(wire.dump([["log"]])), "wrong size"),
    ],
)
def test_page_that_is_none_is_refused(page: DumpPage, reason: str) -> None:
    with pytest.raises(ModelError) as refusal:
        page.parts()
    assert refusal.value.reason == reason


@given(octets=st.binary(min_size=1, max_size=200))
def test_whatever_is_packed_is_parts_or_refused(octets: bytes) -> None:
    for page in (DumpPage(0, 1, octets), packed(octets)):
        try:
            page.parts()
        except ModelError:
            pass
