"""Settings of a meter: what `meterd.toml` may say, and what is said of the rest.

The contract under test: a file is either taken whole or refused with one line that names the file,
the key, what was seen and what was expected.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack import settings as toml
from amistack.errors import ConfigError
from amistack.session.fleet import encode_public_key
from meterd.config import Settings, parse_address, parse_offset
from meterd.metrology import ConstantSource, HouseholdProfile
from tests.support.head_end import key_of

PUBLIC_KEY = encode_public_key(key_of(1).public_key()).hex()

PLAIN = {
    "meter": ['id = "02aabbccddeeff01"'],
    "headend": ['address = "192.0.2.7"', f'public_key = "{PUBLIC_KEY}"'],
}


def text(**changes: list[str]) -> str:
    """A whole file: the plain one with lines added (or replaced, by key) in a table."""
    tables = {name: list(lines) for name, lines in PLAIN.items()}
    for table, lines in changes.items():
        kept = tables.setdefault(table, [])
        for line in lines:
            key = line.split("=")[0]
            kept[:] = [old for old in kept if old.split("=")[0] != key]
            kept.append(line)
    return "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in tables.items())


def load(folder: Path, content: str) -> Settings:
    file = folder / "meterd.toml"
    file.write_text(content)
    return toml.load(file, Settings)


def test_shortest_file_has_every_default(tmp_path: Path) -> None:
    settings = load(tmp_path, text())
    assert settings.meter.eui64.hex() == "02aabbccddeeff01"
    assert settings.meter.key == tmp_path / "meter-key.pem"
    assert settings.meter.storage == tmp_path / "meter-data"
    assert settings.meter.standard_offset_min == 0
    assert settings.headend.host_and_port == ("192.0.2.7", 5683)
    assert settings.link.host_and_port == ("0.0.0.0", 0)
    assert settings.metrology.source == "profile"
    assert settings.schedule.report_delay_s == 300
    assert settings.schedule.report_spread_s == 3600
    assert settings.schedule.start_spread_s == 5


def test_head_end_without_an_address_is_for_a_search_to_find(tmp_path: Path) -> None:
    settings = load(tmp_path, text().replace("address =", "# address ="))
    assert settings.headend.host_and_port is None


def test_every_setting_is_taken(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        text(
            meter=[
                'key = "keys/my.pem"',
                'storage = "/var/lib/meter"',
                'standard_offset = "-03:30"',
                "register_start = [5, 1000000000000]",
            ],
            link=['listen = "[::]:5683"'],
            schedule=["report_delay_s = 0", "report_spread_s = 86400", "start_spread_s = 0.5"],
            metrology=['source = "constant"', "watts = 100", "interval_s = 3600"],
        ),
    )
    assert settings.meter.key == tmp_path / "keys/my.pem"
    assert settings.meter.storage == Path("/var/lib/meter")
    assert settings.meter.standard_offset_min == -210
    assert settings.meter.register_start == (5, 10**12)
    assert settings.link.host_and_port == ("::", 5683)
    assert settings.schedule.start_spread_s == 0.5
    source = settings.metrology.open(offset_min=-210, today=0, default_seed=1)
    assert isinstance(source, ConstantSource)
    assert source.interval_s == 3600


def test_household_is_seeded_by_the_meter_unless_the_file_says(tmp_path: Path) -> None:
    start = 1_790_000_000 // 86_400 * 86_400

    def day(seed_line: list[str], default: int) -> object:
        settings = load(tmp_path, text(metrology=['source = "profile"', *seed_line]))
        source = settings.metrology.open(offset_min=0, today=0, default_seed=default)
        assert isinstance(source, HouseholdProfile)
        return source.energy(start, 96)

    assert day([], 1) == day([], 1) != day([], 2)
    assert day(["seed = 9"], 1) == day(["seed = 9"], 2)


def test_replay_needs_its_path_relative_to_the_settings(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("time,value\n1790000100,5\n1790001000,6\n1790001900,7\n")
    settings = load(
        tmp_path, text(metrology=['source = "replay"', 'path = "load.csv"', 'unit = "Wh"'])
    )
    source = settings.metrology.open(offset_min=0, today=0, default_seed=1)
    assert source.available() == (1_790_000_100, 1_790_002_800)


WRONG = {
    "no table": ("", "meter.id is missing", "a text in quotes"),
    "no id": (text().replace("id =", "# id ="), "meter.id is missing", "text"),
    "id": (text(meter=['id = "02aa"']), "meter.id", "16 hex digits"),
    "id type": (text(meter=["id = 7"]), "meter.id is 7", "text"),
    "offset": (text(meter=['standard_offset = "1h"']), "standard_offset is '1h'", "'+01:00'"),
    "offset far": (
        text(meter=['standard_offset = "+14:01"']),
        "standard_offset is '+14:01'",
        "-12:00 to +14:00",
    ),
    "offset minutes": (text(meter=['standard_offset = "+01:60"']), "'+01:60'", "'+01:00'"),
    "start": (text(meter=["register_start = [-1]"]), "register_start is [-1]", "0 to"),
    "start huge": (text(meter=[f"register_start = [{10**30}]"]), "register_start", "0 to"),
    "start type": (text(meter=["register_start = 5"]), "register_start is 5", "a list"),
    "start item": (text(meter=["register_start = [true]"]), "register_start[0]", "whole number"),
    "key path": (text(meter=['key = ""']), "meter.key is ''", "a path"),
    "unknown key": (text(meter=['standart_offset = "x"']), "standart_offset", "standard_offset"),
    "unknown table": (text(head_end=["a = 1"]), "head_end is not a setting", "headend"),
    "no public key": (
        text().replace("public_key =", "# a ="),
        "headend.public_key is missing",
        "text",
    ),
    "address": (text(headend=['address = "a:b:c"']), "headend.address is 'a:b:c'", "[ADDRESS]"),
    "address port": (text(headend=['address = "a:99999"']), "address is 'a:99999'", "HOST:PORT"),
    "address port 0": (text(headend=['address = "a:0"']), "address is 'a:0'", "port above 0"),
    "address digits": (text(headend=['address = "a:²"']), "address is 'a:²'", "HOST:PORT"),
    "address empty": (text(headend=['address = ""']), "address is ''", "HOST:PORT"),
    "address label": (text(headend=['address = "a..b"']), "address is 'a..b'", "HOST:PORT"),
    "address nul": (text(headend=['address = "a\\u0000b"']), "address is", "HOST:PORT"),
    "public key": (text(headend=['public_key = "12"']), "headend.public_key", "33"),
    "public key hex": (text(headend=['public_key = "xyz"']), "headend.public_key", "66 hex"),
    "public key point": (
        text(headend=[f'public_key = "02{"ff" * 32}"']),
        "headend.public_key",
        "not a point",
    ),
    "listen": (text(link=['listen = "here:there"']), "link.listen is 'here:there'", "HOST:PORT"),
    "delay": (text(schedule=["report_delay_s = -1"]), "report_delay_s is -1", "0 to 86400"),
    "spread": (text(schedule=["report_spread_s = 1e9"]), "report_spread_s", "0 to 86400"),
    "spread nan": (text(schedule=["report_spread_s = nan"]), "report_spread_s is nan", "expected"),
    "start spread": (text(schedule=['start_spread_s = "5"']), "start_spread_s is '5'", "a number"),
    "source": (text(metrology=['source = "dlms"']), "source is 'dlms'", "profile, constant, repl"),
    "foreign key": (
        text(metrology=['source = "profile"', "watts = 5"]),
        "metrology.watts",
        "does not go with source 'profile'",
    ),
    "constant bare": (text(metrology=['source = "constant"']), "watts is missing", "'constant'"),
    "replay bare": (text(metrology=['source = "replay"']), "path is missing", "'replay'"),
    "interval": (text(metrology=["interval_s = 7"]), "metrology.interval_s is 7", "such as 900"),
    "interval odd": (text(metrology=["interval_s = 1000"]), "interval_s is 1000", "divide a day"),
    "interval zero": (text(metrology=["interval_s = 0"]), "interval_s is 0", "divide a day"),
    "table": ("meter = 5", "meter is 5", "a table [meter]"),
    "toml": ("[meter", "is not valid TOML", "table"),
}


@pytest.mark.parametrize(("content", "says", "expects"), WRONG.values(), ids=list(WRONG))
def test_everything_wrong_is_one_line_with_file_key_seen_and_expected(
    tmp_path: Path, content: str, says: str, expects: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, content)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'meterd.toml'}")
    assert says in message
    assert expects in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 5683),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:db8::1]:61616", "2001:db8::1", 61_616),
        ("[::1]", "::1", 5683),
        ("[fe80::1%eth0]:5683", "fe80::1%eth0", 5683),
        ("headend.example", "headend.example", 5683),
        ("headend.example:65535", "headend.example", 65_535),
        ("localhost:0", "localhost", 0),
    ],
)
def test_addresses_are_taken_in_every_form(written: str, host: str, port: int) -> None:
    assert parse_address(written, default_port=5683, what="address") == (host, port)


@pytest.mark.parametrize(
    "written",
    [
        "",
        ":",
        ":5683",
        "host:",
        "host:-1",
        "host:65536",
        "host:٣",
        "::1",
        "2001:db8::1:5683",
        "[::1",
        "::1]",
        "[]:1",
        "[host]:1",
        "[::1]5683",
        "ho st",
        "host\n",
        'ho"st',
        "ho\\st",
        "a..b",
        "x" * 70 + ".example",
        "host:" + "9" * 5000,
    ],
)
def test_other_addresses_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="address is"):
        parse_address(written, default_port=5683, what="address")


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_config_error(written: str) -> None:
    try:
        host, port = parse_address(written, default_port=5683, what="address")
    except ConfigError:
        return
    assert host
    assert '"' not in host
    assert 0 <= port <= 65_535


@given(st.one_of(st.text(max_size=8), st.from_regex(r"[+-][0-9]{2}:[0-9]{2}", fullmatch=True)))
def test_any_text_is_an_offset_or_a_config_error(written: str) -> None:
    try:
        minutes = parse_offset(written)
    except ConfigError:
        return
    sign = "-" if written[0] == "-" else "+"
    assert f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" == written
    assert -720 <= minutes <= 840
