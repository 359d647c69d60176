"""The published CDDL against the codec, by an outside implementation (pycddl, cddl-rs).

The contract under test: what `encode` writes the schema takes, and structural damage that
`decode` refuses the schema refuses too. The tool checks neither upper bounds of occurrence
nor every control; only damage that it can see is in the list.
"""

from __future__ import annotations

import copy
from pathlib import Path

import cbor2
import pycddl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model import (
    ClockReading,
    ClockState,
    DailyReport,
    EndDeviceEventType,
    IntervalBlock,
    LogEntry,
)
from tests.model.messages import MESSAGES

TEXT = (Path(__file__).parents[2] / "docs/protocol/model-v1.cddl").read_text(encoding="utf-8")


def schema_of(rule: str) -> pycddl.Schema:
    return pycddl.Schema(f"root = {rule}\n{TEXT}")


SCHEMAS = {rule: schema_of(rule) for rule in MESSAGES}


@pytest.mark.parametrize("rule", MESSAGES)
@given(data=st.data())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_encoded_is_of_the_schema(rule: str, data: st.DataObject) -> None:
    SCHEMAS[rule].validate_cbor(data.draw(MESSAGES[rule][1]).encode())


EVENT = EndDeviceEventType.parse("3.26.0.216")
REPORT = DailyReport(
    1,
    20_000,
    ClockReading(1_728_086_700, ClockState.SET),
    (
        IntervalBlock.of([5, None] * 48, channel=1, interval_s=900, opening=7, advance=400),
        IntervalBlock.of([5] * 2700, channel=2, interval_s=32, opening=7),
    ),
    (
        LogEntry(1, 5, EVENT),
        LogEntry(2, 5, EVENT, "x"),
        LogEntry(3, 5, EVENT, "x", is_time_doubtful=True),
    ),
)

DAMAGE: dict[str, tuple[tuple[int, ...], object]] = {
    "channel set negative": ((0,), -1),
    "channel set a boolean": ((0,), True),
    "day beyond 2106": ((1,), 49_711),
    "clock beyond 32 bits": ((2,), 2**32),
    "unknown clock state": ((3,), 3),
    "blocks no array": ((4,), "x"),
    "channel of two octets": ((4, 0, 0), 256),
    "no length": ((4, 0, 1), 0),
    "seven minutes": ((4, 0, 1), 7),
    "a minute in seconds": ((4, 0, 1), -60),
    "opening as text": ((4, 0, 2), "7"),
    "opening as a float": ((4, 0, 2), 7.5),
    "advance missing": ((4, 0, 3), None),
    "advance beyond exact": ((4, 0, 3), -(2**53)),
    "packed as text": ((4, 0, 4), "x"),
    "qualities empty": ((4, 0, 5), []),
    "run without flags": ((4, 0, 5), [[1, 1, 0]]),
    "unknown flag": ((4, 0, 5), [[1, 1, 128]]),
    "run of no intervals": ((4, 0, 5), [[1, 0, 1]]),
    "block too short": ((4, 0), [1, 15, 0, 0]),
    "block too long": ((4, 0), [1, 15, 0, 0, b"", [[1, 1, 1]], 0]),
    "event field beyond 16 bits": ((5, 0, 2), 65_536),
    "detail empty": ((5, 1, 6), ""),
    "detail long": ((5, 1, 6), "x" * 65),
    "detail false": ((5, 1, 6), False),
    "doubtful but false": ((5, 2, 7), False),
    "entry too short": ((5, 0), [1, 0, 3, 26, 0]),
    "entry a map": ((5, 0), {}),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_structural_damage_is_refused_by_schema_and_decoder_alike(case: str) -> None:
    path, item = DAMAGE[case]
    tree = cbor2.loads(REPORT.encode())
    damaged = copy.deepcopy(tree)
    place = damaged
    for index in path[:-1]:
        place = place[index]
    place[path[-1]] = item
    if len(path) > 1:
        # Alone in its array: the tool forgets an error when a neighbour is right.
        damaged[path[0]] = [damaged[path[0]][path[1]]]
    octets = cbor2.dumps(damaged)

    SCHEMAS["daily-report"].validate_cbor(REPORT.encode())
    with pytest.raises(pycddl.ValidationError):
        SCHEMAS["daily-report"].validate_cbor(octets)
    with pytest.raises(ModelError):
        DailyReport.decode(octets)


@pytest.mark.parametrize("rule", MESSAGES)
@given(data=st.data())
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
def test_item_too_few_or_too_many_is_refused_by_schema_and_decoder_alike(
    rule: str, data: st.DataObject
) -> None:
    kind, strategy = MESSAGES[rule]
    tree = cbor2.loads(data.draw(strategy).encode())
    for octets in (cbor2.dumps(tree[:-1]), cbor2.dumps([*tree, 0])):
        with pytest.raises(pycddl.ValidationError):
            SCHEMAS[rule].validate_cbor(octets)
        with pytest.raises(ModelError):
            kind.decode(octets)
