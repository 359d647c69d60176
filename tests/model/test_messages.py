"""Every message of the model, as octets.

The contract under test: `decode` inverts `encode`; a message has one encoding, and any other
octets are another message or ModelError, never another exception.
"""

from __future__ import annotations

from typing import Protocol

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model import CONTENT_FORMAT_V1, DailyReport, ReadAnswer, ReportRequest
from amistack.model.wire import PAYLOAD_SIZE_MAX, load
from tests.model.messages import MESSAGES

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
REASONS = {
    "bad answer",
    "bad block",
    "bad calendar",
    "bad channel",
    "bad diagnosis",
    "bad event rules",
    "bad home list",
    "bad load limit",
    "bad message list",
    "bad name",
    "bad quality",
    "bad reading type",
    "bad registration",
    "bad request",
    "bad schedule",
    "not CBOR",
    "not deterministic",
    "out of range",
    "too long",
    "trailing octets",
    "wrong size",
    "wrong type",
}


class Message(Protocol):
    def encode(self) -> bytes: ...

    @classmethod
    def decode(cls, data: bytes) -> Message: ...


every_message = pytest.mark.parametrize("rule", MESSAGES)


def refuse_or_return(kind: type[Message], data: bytes) -> Message | None:
    try:
        return kind.decode(data)
    except ModelError as refusal:
        error = refusal
    assert error.reason in REASONS
    assert len(str(error)) < 300
    return None


@every_message
@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=SLOW)
def test_decode_inverts_encode(rule: str, data: st.DataObject) -> None:
    kind, strategy = MESSAGES[rule]
    message = data.draw(strategy)
    assert kind.decode(message.encode()) == message


@every_message
@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=SLOW)
def test_one_flipped_bit_is_another_message_or_an_error(rule: str, data: st.DataObject) -> None:
    kind, strategy = MESSAGES[rule]
    message = data.draw(strategy)
    octets = bytearray(message.encode())
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    octets[bit // 8] ^= 1 << bit % 8
    other = refuse_or_return(kind, bytes(octets))
    assert other != message
    if other is not None:
        assert other.encode() == bytes(octets)
        for block in getattr(other, "blocks", ()):
            try:
                block.values()
            except ModelError:
                pass


@every_message
@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=SLOW)
def test_truncated_or_followed_by_an_octet_is_an_error(rule: str, data: st.DataObject) -> None:
    kind, strategy = MESSAGES[rule]
    octets = data.draw(strategy).encode()
    cut = data.draw(st.integers(0, len(octets) - 1))
    assert refuse_or_return(kind, octets[:cut]) is None
    assert refuse_or_return(kind, octets + data.draw(st.binary(min_size=1, max_size=3))) is None


items = st.recursive(
    st.one_of(
        st.integers(-(2**70), 2**70),
        st.booleans(),
        st.none(),
        st.floats(),
        st.binary(max_size=20),
        st.text(max_size=20),
    ),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.integers(0, 3), inner),
    max_leaves=20,
)


@every_message
@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=SLOW)
def test_one_item_put_in_the_place_of_another_is_a_message_or_an_error(
    rule: str, data: st.DataObject
) -> None:
    kind, strategy = MESSAGES[rule]
    tree = cbor2.loads(data.draw(strategy).encode())
    place = tree
    while True:
        index = data.draw(st.integers(0, len(place) - 1))
        if not isinstance(place[index], list) or not place[index] or data.draw(st.booleans()):
            break
        place = place[index]
    place[index] = data.draw(items)
    octets = cbor2.dumps(tree)
    other = refuse_or_return(kind, octets)
    if other is not None:
        assert other.encode() == octets
    if kind is DailyReport:
        try:
            report, _ = DailyReport.decode_leniently(octets)
        except ModelError:
            return
        assert DailyReport.decode(report.encode()) == report


@every_message
@given(octets=st.binary(max_size=60))
@settings(deadline=None, max_examples=100)
def test_arbitrary_octets_never_raise_anything_but_model_error(rule: str, octets: bytes) -> None:
    refuse_or_return(MESSAGES[rule][0], octets)
    if rule == "daily-report":
        try:
            DailyReport.decode_leniently(octets)
        except ModelError:
            pass


# Octets that a CBOR library with tags turns into other exceptions, endless depth or cycles.
HOSTILE = {
    "bigfloat beyond any exponent": "c5821b7fffffffffffffff01",
    "decimal beyond any exponent": "c4821b7fffffffffffffff01",
    "decimal in a decimal": "c482c482010203",
    "array that holds itself": "d81c81d81d00",
    "regular expression": "d8236328612b",
    "octets without end": "5b7fffffffffffffff",
    "array without end": "9b7fffffffffffffff",
    "depth": "81" * 60_000 + "00",
    "infinite instant": "c1fb7ff0000000000000",
    "bignum of a kilobyte": "c25903e8" + "ff" * 1000,
    "lone break": "ff",
    "text that is no text": "61ff",
    "nothing": "",
}


@every_message
@pytest.mark.parametrize("octets", HOSTILE.values(), ids=HOSTILE)
def test_hostile_octets_are_refused_alone_and_as_an_item(rule: str, octets: str) -> None:
    kind, _ = MESSAGES[rule]
    for data in (bytes.fromhex(octets), bytes.fromhex("82" + octets + "00")):
        with pytest.raises(ModelError):
            kind.decode(data)
    if kind is DailyReport:
        whole = "86 01 194e20 1a670082ac 01 81" + octets + "80"
        try:
            report, verdicts = DailyReport.decode_leniently(bytes.fromhex(whole))
        except ModelError:
            return
        assert report.blocks == ()
        assert len(verdicts) == 1


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        ("82 1800 00", "an integer in two octets that fits one"),
        ("9f 00 00 ff", "an array of no declared length"),
        ("82 c24105 00", "a small bignum"),
        ("82 f4 00", "a boolean for an integer"),
        ("82 f90000 00", "a float for an integer"),
        ("82 20 00", "a negative time"),
        ("83 00 00 00", "an item too many"),
        ("81 00", "an item too few"),
        ("a1 00 00", "a map"),
        ("42 0000", "octets"),
        ("62 3030", "text"),
        ("c0 82 00 00", "a tag"),
    ],
)
def test_second_forms_and_other_types_are_refused(octets: str, why: str) -> None:
    kind, _ = MESSAGES["time-answer"]
    kind.decode(bytes.fromhex("82 00 00"))
    with pytest.raises(ModelError):
        kind.decode(bytes.fromhex(octets))


@pytest.mark.parametrize(
    ("first_day", "last_day"), [(1, 0), (20_001, 20_000), (-1, 0), (0, 49_711), (49_711, 49_711)]
)
def test_request_of_days_that_are_none_or_run_backwards_cannot_be(
    first_day: int, last_day: int
) -> None:
    with pytest.raises(ModelError):
        ReportRequest(first_day, last_day)
    with pytest.raises(ModelError):
        ReportRequest.decode(cbor2.dumps([first_day, last_day]))


def test_message_beyond_the_size_limit_is_refused_unread() -> None:
    with pytest.raises(ModelError, match="too long"):
        load(bytes(PAYLOAD_SIZE_MAX + 1))


def test_content_format_is_of_the_experimental_range() -> None:
    assert CONTENT_FORMAT_V1 == 65001


def test_answer_with_a_channel_twice_is_refused() -> None:
    clock = ReadAnswer.decode(
        bytes.fromhex("88 48" + "00" * 8 + "01 194e20 00 00 81820105 80 80")
    ).clock
    with pytest.raises(ModelError, match="twice"):
        ReadAnswer(bytes(8), 1, 20_000, clock, ((1, 5), (1, 6)))
