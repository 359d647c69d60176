"""The files of published vectors, and that no value in them is left untried.

The contract under test: each file says where it is from and under which terms; every value of the
EDHOC traces is a case, or is what the parties bring along; every figure is played.
"""

from __future__ import annotations

from typing import Any, cast

import pytest

from interop.conformance import block_wise, edhoc, exchanges, observe
from interop.conformance.suite import VectorSuite
from interop.vectors import LICENCE_FIELDS, load, names


def content(name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", load(name))


def case_names(suite: VectorSuite) -> set[str]:
    return {case.name for case in suite.cases()}


@pytest.mark.parametrize("name", names())
def test_file_of_vectors_says_first_where_it_is_from(name: str) -> None:
    fields = list(content(name))
    assert tuple(fields[:2]) == LICENCE_FIELDS
    assert "RFC" in content(name)["source"]
    assert "IETF" in content(name)["licence"]


def test_a_file_that_is_not_there_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        load("no-such-vectors")


def test_every_value_of_the_edhoc_traces_is_a_case_or_given() -> None:
    cases = case_names(edhoc.SUITE)
    for name, trace in content("rfc9529")["traces"].items():
        for key in trace:
            if key in edhoc.GIVEN or key == "error" or key.startswith("first_"):
                continue  # Given, or a case of the negotiation, below.
            assert f"{name} {key}" in cases
    assert sum(name.startswith("negotiation") for name in cases) == 7
    assert sum(name.startswith("invalid") for name in cases) == 15


@pytest.mark.parametrize("suite", [exchanges.SUITE, observe.SUITE], ids=lambda suite: suite.name)
def test_every_figure_is_played_in_both_roles(suite: VectorSuite) -> None:
    cases = case_names(suite)
    for figure in content(suite.name)["figures"]:
        for role in ("client", "server"):
            assert f"{figure['where']}, {figure['title']}: our {role}" in cases


def test_every_transfer_is_played_in_both_roles_but_the_stateless_one() -> None:
    cases = case_names(block_wise.SUITE)
    for figure in content("block-wise")["figures"]:
        name = f"{figure['where']}, {figure['title']}"
        assert f"{name}: our client" in cases
        assert (f"{name}: our server" in cases) is not figure.get("is_stateless", False)
