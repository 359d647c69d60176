"""Values that only the type checker keeps frozen.

The contract under test: such a class compares, hashes, shows and is copied as a frozen dataclass.
"""

from __future__ import annotations

import dataclasses

import pytest

from amistack.values import frozen_value


@frozen_value(frozen=True, slots=True)
class Lean:
    """Made by `frozen_value`."""

    number: int
    name: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """Made by `dataclass`."""

    number: int
    name: bytes = b""


@pytest.mark.parametrize("kind", [Lean, Plain])
def test_both_kinds_are_values(kind: type[Lean | Plain]) -> None:
    one, other = kind(1, b"a"), kind(1, b"a")
    assert one == other
    assert hash(one) == hash(other)
    assert one != kind(1)
    assert dataclasses.replace(one, name=b"") == kind(1)
    assert repr(one) == f"{kind.__name__}(number=1, name=b'a')"
    assert not hasattr(one, "__dict__")


def test_hashes_are_those_of_the_frozen_kind() -> None:
    assert hash(Lean(1, b"x")) == hash(Plain(1, b"x"))
