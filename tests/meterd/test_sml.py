"""Telegrams of optical heads, built as BSI TR-03109-1 has them; `pysml` judges that they are some.

The contract under test: every telegram gives its register exactly, as another program reads it,
however it is cut into pieces; one wrong octet is always noticed; whatever else comes is counted,
bounded, and never raises.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterd.metrology.checks import crc16_kermit, crc16_x25
from meterd.metrology.registers import Register
from meterd.metrology.sml import ESCAPE, START, TELEGRAM_SIZE_MAX, SmlTelegrams
from meterd.metrology.source import Flow


def wrapped(body: bytes) -> bytes:
    """A telegram of our own around messages."""
    fill = -len(body) % 4
    octets = START + body.replace(ESCAPE, ESCAPE * 2) + bytes(fill) + ESCAPE + bytes((0x1A, fill))
    return octets + crc16_x25(octets).to_bytes(2, "little")


def entry(
    name: str = "0100010800FF", unit: str = "621E", scaler: str = "52FF", value: str = "650137C0C7"
) -> str:
    return f"7707{name}0101{unit}{scaler}{value}01"


def a_list(*entries: str, server: str = "0B0A0149534B00047A5544") -> bytes:
    """A message with a list of values."""
    values = f"7{len(entries):X}" + "".join(entries)
    body = f"7605000000016200620072630701770 1{server}0101{values}0101".replace(" ", "")
    return bytes.fromhex(f"{body}63000000")


def message(number: int, body: str) -> bytes:
    """One SML message with its own check sum."""
    octets = bytes.fromhex(f"7605{number:08X}62006200{body}")
    return octets + b"\x63" + crc16_x25(octets).to_bytes(2, "little") + b"\0"


def telegram_of(server: str, *entries: str, number: int = 1) -> bytes:
    """A whole telegram: who opens it, a list of values, the end."""
    values = f"7{len(entries):X}" + "".join(entries)
    return wrapped(
        message(number, f"726301017601010500000001{server}0101")
        + message(number + 1, f"726307017701{server}070100620AFFFF01{values}0101")
        + message(number + 2, "72630201" + "7101")
    )


ONE_SERVER: Final = "0B0A015445535400000001"
TWO_SERVER: Final = "0B0A015445535400000002"
RECEIVED: Final = "0100020800FF"
# A meter with one-way figures in 0.1 Wh, a later telegram of it, and one with both in 64 bits.
ONE: Final = telegram_of(ONE_SERVER, entry(value="650137C0C7"), entry(RECEIVED, value="6200"))
ONE_LATER: Final = telegram_of(
    ONE_SERVER, entry(value="650137C0C8"), entry(RECEIVED, value="6200"), number=7
)
TWO: Final = telegram_of(
    TWO_SERVER,
    entry(scaler="52FF", value="690000000000020097"),
    entry(RECEIVED, scaler="52FF", value="690000000000E4D65D"),
)


def test_telegrams_give_their_figures_and_who_they_are_of() -> None:
    (one,) = SmlTelegrams().receive_data(ONE)
    assert one.meter == "0a015445535400000001"
    assert one.registers == (
        Register("1.8.0", Flow.DELIVERED, 2_043_104_700),  # 2043.1047 kWh: 0x0137C0C7 in 0.1 Wh
        Register("2.8.0", Flow.RECEIVED, 0),
    )
    (two,) = SmlTelegrams().receive_data(TWO)
    assert two.meter == "0a015445535400000002"
    assert [each.mwh for each in two.registers] == [13_122_300, 1_499_708_500]


@pytest.mark.parametrize("piece", [1, 3, 64, 10_000])
def test_telegrams_are_found_in_any_pieces_and_between_noise(piece: int) -> None:
    stream = ONE[60:] + ONE + b"\x1b\x1b\xff noise" + ONE_LATER + TWO
    telegrams = SmlTelegrams()
    found = [
        reading.registers[0].mwh
        for at in range(0, len(stream), piece)
        for reading in telegrams.receive_data(stream[at : at + piece])
    ]
    assert found == [2_043_104_700, 2_043_104_800, 13_122_300]
    assert not telegrams.refused


@pytest.mark.parametrize("telegram", [ONE, TWO], ids=["one", "two"])
def test_another_program_reads_the_same(telegram: bytes) -> None:
    sml = pytest.importorskip("sml", reason="pip install pysml, which judges this")
    frame = sml.SmlBase().find_frame(telegram)[1]
    theirs = {
        value["objName"]: value["value"]
        for message in frame
        for value in message.get("messageBody", {}).get("valList", ())
        if "value" in value
    }
    (ours,) = SmlTelegrams().receive_data(telegram)
    for register in ours.registers:
        assert register.mwh == round(theirs[f"1-0:{register.name}*255"] * 1000)


@pytest.mark.parametrize("telegram", [ONE, TWO], ids=["one", "two"])
def test_one_wrong_octet_is_always_noticed(telegram: bytes) -> None:
    for at in range(len(telegram)):
        wrong = bytearray(telegram)
        wrong[at] ^= 1 << at % 8
        telegrams = SmlTelegrams()
        assert list(telegrams.receive_data(bytes(wrong))) == [], at
        # Whatever it seemed to be: of the telegrams after it, the second counts at the latest.
        telegrams.receive_data(telegram)
        assert len(telegrams.receive_data(telegram)) >= 1, at


def test_wrong_check_sum_is_counted_and_the_next_telegram_counts() -> None:
    telegrams = SmlTelegrams()
    assert len(telegrams.receive_data(ONE[:-1] + b"\0" + ONE)) == 1
    assert telegrams.refused == {"check sum wrong": 1}


def test_the_other_check_sum_that_some_meters_use_is_taken() -> None:
    octets = ONE[:-2] + crc16_kermit(ONE[:-2]).to_bytes(2, "little")
    assert octets != ONE
    assert len(SmlTelegrams().receive_data(octets)) == 1


def test_escape_within_a_value_is_a_value() -> None:
    body = a_list(entry(value="651B1B1B1B"))
    telegram = wrapped(body)
    assert telegram.count(ESCAPE) == 4
    (reading,) = SmlTelegrams().receive_data(telegram)
    assert reading.registers[0].mwh == 0x1B1B1B1B * 100


def test_escape_before_what_looks_like_the_end_is_a_value() -> None:
    (reading,) = SmlTelegrams().receive_data(wrapped(a_list(entry(value="691B1B1B1B1A000000"))))
    assert reading.registers[0].mwh == 0x1B1B1B1B1A000000 * 100


def test_tariffs_stand_in_where_a_meter_has_no_total() -> None:
    low, high = entry("0100010801FF", value="6205"), entry("0100010802FF", value="6207")
    (reading,) = SmlTelegrams().receive_data(wrapped(a_list(low, high)))
    assert [(one.name, one.mwh) for one in reading.registers] == [("1.8.1", 500), ("1.8.2", 700)]
    (reading,) = SmlTelegrams().receive_data(wrapped(a_list(low, entry())))
    assert [one.name for one in reading.registers] == ["1.8.0"]


@pytest.mark.parametrize(
    ("scaler", "value", "mwh"),
    [
        ("01", "6205", 5_000),
        ("5203", "6205", 5_000_000),
        ("52FC", "6263", 9),
        ("52FF", "5505", None),
        ("52FF", "550000000A", 1_000),
        ("52FF", "59000000000000000A", 1_000),
    ],
)
def test_scalers_and_widths_of_integers(scaler: str, value: str, mwh: int | None) -> None:
    telegrams = SmlTelegrams()
    readings = telegrams.receive_data(wrapped(a_list(entry(scaler=scaler, value=value))))
    assert [one.registers[0].mwh for one in readings] == ([] if mwh is None else [mwh])
    assert bool(telegrams.refused) is (mwh is None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (a_list(entry(value="52FF")), "unreadable"),  # negative
        (a_list(entry(unit="621B")), "unreadable"),  # watts
        (a_list(entry(scaler="5210")), "unreadable"),  # 10^16
        (a_list(entry(value="0441424 3".replace(" ", ""))), "unreadable"),  # a text
        (a_list(entry(value="01")), "no register"),  # hidden without the PIN
        (a_list(entry("0100100700FF")), "no register"),
        (bytes.fromhex("7605000000016200620072630201710163000000"), "no list of values"),
        (b"", "no list of values"),
        (bytes.fromhex("6205"), "unreadable"),
        (b"\x71" * 3_000, "unreadable"),  # deeper than any program could follow
        (b"\xff" * 400, "unreadable"),
        (b"\x7f" + b"\xf0" * 12, "unreadable"),
        (bytes.fromhex("76050000"), "unreadable"),
    ],
)
def test_telegram_without_a_readable_register_is_counted(body: bytes, reason: str) -> None:
    telegrams = SmlTelegrams()
    assert list(telegrams.receive_data(wrapped(body))) == []
    assert telegrams.refused == {reason: 1}
    assert len(telegrams.receive_data(ONE)) == 1


def test_telegram_that_was_cut_off_costs_itself_alone() -> None:
    telegrams = SmlTelegrams()
    assert len(telegrams.receive_data(ONE[:100] + ONE)) == 1
    assert telegrams.refused == {"cut off": 1}


def test_endless_telegram_is_dropped_at_the_limit_and_the_next_one_counts() -> None:
    telegrams = SmlTelegrams()
    for _ in range(30):
        assert list(telegrams.receive_data(START + b"\1" * 1_000)) == []
        assert len(telegrams._buffer) <= TELEGRAM_SIZE_MAX + 1_008
    for _ in range(30):
        telegrams.receive_data(b"\2" * 1_000)
    assert telegrams.refused["too long"] == 1
    assert len(telegrams.receive_data(b"\x1b" * 3 + ONE + ONE)) >= 1


@settings(deadline=None, max_examples=200)
@given(
    pieces=st.lists(
        st.binary(max_size=60)
        | st.sampled_from([ONE, ONE[:90], ONE[90:], ESCAPE, START, ESCAPE + b"\x1a"]),
        max_size=12,
    )
)
def test_nothing_that_comes_raises_or_collects(pieces: list[bytes]) -> None:
    telegrams = SmlTelegrams()
    for piece in pieces:
        telegrams.receive_data(piece)
        assert len(telegrams._buffer) <= TELEGRAM_SIZE_MAX
    telegrams.reset()
    assert len(telegrams.receive_data(ONE)) == 1


@settings(deadline=None, max_examples=300)
@given(body=st.binary(max_size=80) | st.binary(max_size=40).map(lambda b: a_list(entry())[:30] + b))
def test_no_body_under_a_good_check_sum_raises(body: bytes) -> None:
    telegrams = SmlTelegrams()
    readings = telegrams.receive_data(wrapped(body))
    assert len(readings) + sum(telegrams.refused.values()) >= 1
