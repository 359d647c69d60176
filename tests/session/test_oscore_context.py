"""Security contexts and their table: sequence numbers, lookups.

The contract under test: no sequence number is given twice or before it is reserved; a request
finds its own context or none; a repr shows no key. That the keys are those of RFC 8613 Appendix C
is shown by the suite `oscore-rfc8613`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import LocalProtocolError, SequenceExhausted, TableFull
from amistack.session.oscore import (
    AES_CCM_16_128_128,
    SEQUENCE_NUMBER_MAX,
    ContextTable,
    ReplayWindow,
    SecurityContext,
    protect_request,
    unprotect_request,
)
from interop.conformance.oscore import derived
from tests.session.oscore_support import pair


def test_keys_depend_on_the_algorithm() -> None:
    assert pair()[0].sender_key != pair(algorithm=AES_CCM_16_128_128)[0].sender_key


def test_longest_id_context_fits_the_option() -> None:
    client, server = pair(client_id=b"c" * 7, id_context=b"i" * 128)
    client.next_sequence_number = SEQUENCE_NUMBER_MAX
    request, _ = protect_request(client, Message(Code.GET))
    assert unprotect_request(server, request)[0] == Message(Code.GET)


def test_empty_id_context_is_not_the_same_as_none() -> None:
    assert pair()[0].sender_key != pair(id_context=b"")[0].sender_key


@pytest.mark.parametrize(
    "changed",
    [
        {"recipient_id": b"\1"},
        {"sender_id": b"12345678"},
        {"recipient_id": b"12345678"},
        {"algorithm": 1},
        {"id_context": b"c" * 129},
        {"master_secret": b""},
    ],
    ids=str,
)
def test_parameters_that_are_none_are_refused(changed: dict[str, Any]) -> None:
    good: dict[str, Any] = {"master_secret": b"secret", "sender_id": b"\1", "recipient_id": b"\2"}
    SecurityContext.derive(**good)
    with pytest.raises(LocalProtocolError):
        SecurityContext.derive(**{**good, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"sender_key": b"short"},
        {"common_iv": b"short"},
        {"next_sequence_number": -1},
        {"next_sequence_number": SEQUENCE_NUMBER_MAX + 2},
        {"reserved_until": SEQUENCE_NUMBER_MAX + 2},
    ],
    ids=str,
)
def test_stored_fields_that_are_none_are_refused(changed: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "sender_id": b"\1",
        "recipient_id": b"\2",
        "id_context": None,
        "algorithm": 10,
        "sender_key": b"k" * 16,
        "recipient_key": b"l" * 16,
        "common_iv": b"i" * 13,
        "replay_window": ReplayWindow(),
    }
    SecurityContext(**good)
    with pytest.raises(LocalProtocolError):
        SecurityContext(**{**good, **changed})


def test_repr_shows_no_key() -> None:
    context = derived("C.3 client")
    shown = repr(context)
    assert "37cbf3210017a2d3" in shown
    for secret in (context.sender_key, context.recipient_key, context.common_iv):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


# Sequence numbers


def test_no_number_is_given_before_it_is_reserved() -> None:
    client, _ = pair(reserved=0)
    with pytest.raises(SequenceExhausted):
        client.take_sequence_number()
    client.reserve(2)
    assert [client.take_sequence_number() for _ in range(2)] == [0, 1]
    with pytest.raises(SequenceExhausted):
        client.take_sequence_number()


def test_reserving_never_takes_any_back() -> None:
    client, _ = pair(reserved=10)
    client.reserve(3)
    assert client.reserved_until == 10


@given(st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=80))
def test_numbers_rise_and_stay_below_what_was_reserved(steps: list[int | None]) -> None:
    client, _ = pair(reserved=0)
    taken: list[int] = []
    bound = 0
    for step in steps:
        if step is not None:
            client.reserve(step)
            bound = max(bound, step)
        elif len(taken) < bound:
            taken.append(client.take_sequence_number())
        else:
            with pytest.raises(SequenceExhausted):
                client.take_sequence_number()
    assert taken == list(range(len(taken)))


def test_end_of_all_numbers_is_told_from_the_end_of_a_block() -> None:
    client, _ = pair(reserved=SEQUENCE_NUMBER_MAX + 100)
    client.next_sequence_number = SEQUENCE_NUMBER_MAX
    assert client.take_sequence_number() == SEQUENCE_NUMBER_MAX
    with pytest.raises(LocalProtocolError, match="new keys"):
        client.take_sequence_number()


# The table


def test_request_finds_its_own_context_or_none() -> None:
    plain, named, other = pair()[1], pair(id_context=b"c")[1], pair(client_id=b"\2")[1]
    table = ContextTable()
    for context in (plain, named, other):
        table.add(context)
    assert len(table) == 3
    assert table.find(b"\1") is plain
    assert table.find(b"\1", b"c") is named
    assert table.find(b"\2") is other
    assert table.find(b"\2", b"c") is None
    assert table.find(b"\1", b"") is None
    assert table.find(b"") is None
    table.remove(plain)
    assert table.find(b"\1") is None
    assert table.find(b"\1", b"c") is named


def test_second_context_for_the_same_request_is_refused() -> None:
    table = ContextTable()
    first = pair()[1]
    table.add(first)
    with pytest.raises(LocalProtocolError):
        table.add(pair()[1])
    assert table.find(b"\1") is first


def test_context_that_is_not_in_the_table_cannot_be_removed() -> None:
    table = ContextTable()
    first = pair()[1]
    table.add(first)
    with pytest.raises(LocalProtocolError):
        table.remove(pair()[1])
    assert table.find(b"\1") is first


def test_table_has_a_bound() -> None:
    table = ContextTable(context_count_max=1)
    table.add(pair()[1])
    with pytest.raises(TableFull):
        table.add(pair(client_id=b"\2")[1])
    assert len(table) == 1
