"""The utility's list of devices.

The contract under test: a right list gives its devices, whatever its blanks, comments and
spelling; a wrong one gives BadEnrolment that names every wrong line, in one line for a person;
nothing else is ever raised, and no list is taken in part.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.identifiers import Eui64
from headend.domain.refusals import NAMED_MAX, BadEnrolment
from headend.lifecycle.enrolment import Device, parse_enrolment
from tests.support.headend import meter_id, public_key

KEYS = [public_key(f"device {number}") for number in range(4)]
A, B = meter_id(1), meter_id(2)


def line(meter: Eui64, key: bytes) -> str:
    return f"{meter.hex()},{key.hex()}"


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(BadEnrolment) as refusal:
        parse_enrolment(text)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("nothing was enrolled: ")
    return refusal.value.problems


def test_plain_list_gives_its_devices_in_order() -> None:
    assert parse_enrolment(f"{line(B, KEYS[0])}\n{line(A, KEYS[1])}\n") == (
        Device(B, KEYS[0]),
        Device(A, KEYS[1]),
    )


def test_header_comments_blanks_and_other_spellings_are_understood() -> None:
    text = (
        "\ufeff# the street, south side\r\n\r\n"
        " Meter , Public_Key \r\n"
        f"02-00-4C-00-00-00-00-01 , {KEYS[0].hex().upper()} # number 12\r\n"
        f"{line(A, KEYS[0])}\r\n"
        "   \r\n"
    )
    assert parse_enrolment(text) == (Device(A, KEYS[0]),)


def test_every_bad_line_is_named_with_its_number() -> None:
    text = "\n".join(
        [
            line(A, KEYS[0]),
            "02004c,abc",
            "",
            f"{B.hex()},{'00' * 33}",
            f"{B.hex()},{KEYS[1].hex()},7",
            f"{B.hex()},{KEYS[1].hex()[:-2]}",
            f"{B.hex()},{'zz' * 33}",
            "just words",
        ]
    )
    problems = problems_of(text)
    named = sorted(int(problem.split()[1].rstrip(":")) for problem in problems)
    assert named == [2, 4, 5, 6, 7, 8]


def test_meter_that_comes_twice_with_another_key_is_refused_with_both_places() -> None:
    (problem,) = problems_of(f"{line(A, KEYS[0])}\n{line(B, KEYS[1])}\n{line(A, KEYS[2])}")
    assert problem == f"line 3: meter {A.hex()} has another key in line 1"


def test_header_counts_as_one_only_in_front() -> None:
    (problem,) = problems_of(f"{line(A, KEYS[0])}\nmeter,public_key\n")
    assert problem.startswith("line 2: 'meter' is not a meter")


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n", "meter,public_key\n"])
def test_empty_list_is_refused(text: str) -> None:
    assert problems_of(text) == ("the list is empty, expected lines of a meter and its public key",)


def test_message_names_a_few_lines_and_counts_the_rest() -> None:
    with pytest.raises(BadEnrolment, match=r"line 1: .* and 7 more$"):
        parse_enrolment("x,y\n" * (NAMED_MAX + 7))


def test_list_of_rubbish_is_given_up_before_it_costs_much() -> None:
    assert len(problems_of("x,y\n" * 50_000)) == 1_000


def test_too_long_a_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headend.lifecycle.enrolment.DEVICE_COUNT_MAX", 3)
    text = "\n".join(line(meter_id(number), KEYS[0]) for number in range(4))
    (problem,) = problems_of(text)
    assert problem == "line 4: more than 3 meters; split the list"


@settings(max_examples=200)
@given(text=st.text(max_size=200))
def test_arbitrary_text_never_raises_anything_but_bad_enrolment(text: str) -> None:
    with pytest.raises(BadEnrolment):
        parse_enrolment(text)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 3)), min_size=1, max_size=20),
    st.data(),
)
def test_list_written_line_by_line_is_read_back_or_contradicts_itself(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    lines = []
    for number, key in rows:
        pad = data.draw(st.sampled_from(["", " ", "\t"]))
        lines.append(f"{pad}{meter_id(number).hex()}{pad},{pad}{KEYS[key].hex()}{pad}")
        lines.extend(data.draw(st.lists(st.sampled_from(["", "# c", "  "]), max_size=2)))
    first: dict[int, int] = {}
    for number, key in rows:
        first.setdefault(number, key)
    text = "\n".join(lines)
    if all(first[number] == key for number, key in rows):
        expected = tuple(Device(meter_id(number), KEYS[key]) for number, key in first.items())
        assert parse_enrolment(text) == expected
    else:
        assert all("has another key" in problem for problem in problems_of(text))
