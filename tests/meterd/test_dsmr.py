"""Telegrams of P1 ports, as meters sent them.

The contract under test: every recorded telegram gives its registers exactly, however it is cut into
pieces; one wrong octet is always noticed; whatever else comes is counted and bounded, never raised.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterd.metrology.checks import crc16_arc, crc16_kermit, crc16_x25
from meterd.metrology.dsmr import TELEGRAM_SIZE_MAX, DsmrTelegrams
from meterd.metrology.registers import Reading
from meterd.metrology.source import Flow
from tests.support.test_data import recorded_data

pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")

OLD = ("telegram_v2_2", "telegram_v3")
FIGURE = re.compile(rb"^1-0:([12])\.8\.[0-4]\((\d+)\.(\d{3})\*kWh\)\r$", re.MULTILINE)


def recorded(name: str) -> bytes:
    return (recorded_data() / "dsmr" / f"{name}.txt").read_bytes()


def names() -> list[str]:
    return [
        "telegram_fluvius_v171",
        "telegram_v2_2",
        "telegram_v3",
        "telegram_v4_2",
        "telegram_v5",
        "telegram_v5_two_mbus",
    ]


def a_telegram(*lines: str, check_sum: str | None = None) -> bytes:
    """A telegram of our own, for what no meter sent."""
    body = "".join(f"{line}\r\n" for line in ("/XXX5TEST", "", *lines)) + "!"
    if check_sum is None:
        check_sum = f"{crc16_arc(body.encode()):04X}"
    return f"{body}{check_sum}\r\n".encode()


GOOD = a_telegram("0-0:96.1.1(4142)", "1-0:1.8.1(000004.426*kWh)", "1-0:1.8.2(000002.399*kWh)")


def wh(readings: list[Reading] | object, flow: Flow) -> list[int]:
    assert isinstance(readings, list)
    return [sum(one.mwh for one in r.registers if one.flow is flow) // 1000 for r in readings]


def test_check_sums_are_those_of_the_catalogue() -> None:
    assert crc16_arc(b"123456789") == 0xBB3D
    assert crc16_x25(b"123456789") == 0x906E
    assert crc16_kermit(b"123456789") == 0x2189


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_recorded_telegram_gives_its_registers_in_any_pieces(name: str, piece: int) -> None:
    octets = recorded(name)
    telegrams = DsmrTelegrams(has_check_sum=name not in OLD)
    stream = b"1.8.1(0)\r\n!\r\n" * (name not in OLD) + octets * 2
    readings = [
        reading
        for at in range(0, len(stream), piece)
        for reading in telegrams.receive_data(stream[at : at + piece])
    ]
    # The oracle: the figures as a person reads them.
    expected = {Flow.DELIVERED: 0, Flow.RECEIVED: 0}
    for number, whole, part in FIGURE.findall(octets):
        expected[Flow.DELIVERED if number == b"1" else Flow.RECEIVED] += int(whole + part)
    assert len(readings) == 2
    for flow, value in expected.items():
        assert wh(readings, flow) == [value] * 2
    assert not telegrams.refused


def test_serial_number_own_time_and_width_of_the_dial_are_told() -> None:
    (reading,) = DsmrTelegrams().receive_data(recorded("telegram_v5"))
    assert reading.meter == "4B384547303034303436333935353037"
    assert reading.at == 1_483_381_202  # 2017-01-02 19:20:02 +01:00
    assert {one.width_mwh for one in reading.registers} == {10**6 * 10**6}
    (old,) = DsmrTelegrams(has_check_sum=False).receive_data(recorded("telegram_v3"))
    assert {one.width_mwh for one in old.registers} == {10**5 * 10**6}
    assert old.at is None


def test_serial_number_is_the_meters_and_not_of_what_is_connected_to_it() -> None:
    (reading,) = DsmrTelegrams().receive_data(recorded("telegram_fluvius_v171"))
    assert reading.meter == "3153414733313031303231363035"
    hungarian = a_telegram(
        "0-0:96.1.0(4142)",
        "0-1:96.1.0(9999)",
        "1-0:1.8.0(000123.456*kWh)",
        "1-0:1.8.1(000001.0*kWh)",
    )
    (other,) = DsmrTelegrams().receive_data(hungarian)
    # Where there is a total, its tariffs are in it.
    assert (other.meter, wh([other], Flow.DELIVERED)) == ("4142", [123_456])


@pytest.mark.parametrize("name", [name for name in names() if name not in OLD])
def test_one_wrong_octet_is_always_noticed(name: str) -> None:
    octets = recorded(name)
    for at in range(0, len(octets) - 2, 3):
        wrong = bytearray(octets)
        wrong[at] ^= 1 << at % 7
        assert list(DsmrTelegrams().receive_data(bytes(wrong))) == [], at


def test_wrong_and_missing_check_sums_are_counted_and_the_next_telegram_counts() -> None:
    telegrams = DsmrTelegrams()
    for bad, reason in (
        (GOOD.replace(b"4.426", b"4.427"), "check sum wrong"),
        (a_telegram("1-0:1.8.1(000004.426*kWh)", check_sum=""), "no check sum"),
    ):
        before = telegrams.refused[reason]
        assert len(telegrams.receive_data(bad + GOOD)) == 1
        assert telegrams.refused[reason] == before + 1


def test_check_sum_that_dropped_its_leading_zero_is_taken() -> None:
    for number in range(9_999):
        telegram = a_telegram(f"0-0:96.1.1({number:04})", "1-0:1.8.1(000004.426*kWh)")
        if telegram[-6:-5] == b"0":
            short = telegram[:-6] + telegram[-5:]
            assert len(DsmrTelegrams().receive_data(short)) == 1
            return
    pytest.fail("no check sum began with a zero")


def test_seven_bits_and_parity_of_an_old_port_are_read() -> None:
    octets = bytes(one | (bin(one).count("1") % 2) << 7 for one in recorded("telegram_v3"))
    assert len(DsmrTelegrams(has_check_sum=False).receive_data(octets)) == 1


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("1-0:1.8.1(000004.426*MWh)",), "unreadable"),
        (("1-0:1.8.1(-00004.426*kWh)",), "unreadable"),
        (("1-0:1.8.1(4426*kWh)",), "unreadable"),
        (("1-0:1.8.1()",), "unreadable"),
        (("1-0:1.8.1(000004.426*kWh*kWh)",), "unreadable"),
        (("1-0:1.8.1(000004.426*kWh)(1)",), "unreadable"),
        (("1-0:1.7.0(00.244*kW)",), "no register"),
        ((), "no register"),
    ],
)
def test_telegram_without_a_readable_register_is_counted(
    lines: tuple[str, ...], reason: str
) -> None:
    telegrams = DsmrTelegrams()
    assert list(telegrams.receive_data(a_telegram(*lines) + GOOD)) != []
    assert telegrams.refused == {reason: 1}


def test_telegram_that_was_cut_off_costs_itself_alone() -> None:
    telegrams = DsmrTelegrams()
    assert len(telegrams.receive_data(GOOD[:50] + b"\r\n" + GOOD + GOOD)) == 2
    assert telegrams.refused == {"cut off": 1}


def test_endless_telegram_is_dropped_at_the_limit_and_the_next_one_counts() -> None:
    telegrams = DsmrTelegrams()
    for _ in range(40):
        assert list(telegrams.receive_data(b"/" + b"x" * 1_000)) == []
        assert len(telegrams._buffer) <= TELEGRAM_SIZE_MAX + 1_001
    assert telegrams.refused["too long"] >= 3
    assert len(telegrams.receive_data(b"\r\n" + GOOD)) == 1
    assert len(telegrams.receive_data(b"y" * 100_000 + GOOD)) == 1


@settings(deadline=None, max_examples=150)
@given(
    pieces=st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [GOOD, GOOD[:40], GOOD[40:], b"/", b"!", b"!ZZZZ\r\n", b"!12\r\n", b"\r\n"]
        ),
        max_size=12,
    ),
    has_check_sum=st.booleans(),
)
def test_nothing_that_comes_raises_or_collects(pieces: list[bytes], has_check_sum: bool) -> None:
    telegrams = DsmrTelegrams(has_check_sum=has_check_sum)
    for piece in pieces:
        telegrams.receive_data(piece)
        assert len(telegrams._buffer) <= TELEGRAM_SIZE_MAX
    telegrams.reset()
    assert len(telegrams.receive_data(GOOD)) == 1


def test_without_the_library_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "dsmr_parser").mkdir()
    (tmp_path / "dsmr_parser" / "__init__.py").write_text("raise ImportError")
    script = "from meterd.metrology.dsmr import DsmrTelegrams\nDsmrTelegrams()"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{script}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert last.endswith("pip install 'amistack[dsmr]', or use another source")
