"""Making a device's identity.

The contract under test: what is made can be run and enrolled as it is, the key is its owner's
alone, and nothing that exists is ever overwritten.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from amistack.keystore import load_key
from amistack.session.fleet import encode_public_key, parse_public_key
from meterd.daemon import load_settings
from meterd.provision import CONFIG_FILE, KEY_FILE, Template, provision, random_eui64
from tests.support.head_end import key_of

PUBLIC_KEY = encode_public_key(key_of(1).public_key()).hex()
FULL = Template(
    address="[2001:db8::1]:5684",
    public_key=PUBLIC_KEY,
    standard_offset="-05:00",
    register_start=(100, 0),
    metrology=('source = "constant"', "watts = 12.5"),
    schedule=("report_delay_s = 0",),
)


def test_what_is_made_is_what_runs_and_what_is_enrolled(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    identity = provision(folder, FULL, meter=Eui64(bytes(range(8))))
    settings = load_settings(folder / CONFIG_FILE)
    assert settings.meter.eui64 == identity.meter == bytes(range(8))
    assert settings.meter.register_start == (100, 0)
    assert settings.meter.standard_offset_min == -300
    assert settings.headend.host_and_port == ("2001:db8::1", 5684)
    assert settings.headend.public_key == PUBLIC_KEY
    assert settings.metrology.watts == 12.5
    assert settings.schedule.report_delay_s == 0
    key = load_key(settings.meter.key)
    assert encode_public_key(key.public_key()) == identity.public_key


def test_enrolment_line_parses(tmp_path: Path) -> None:
    identity = provision(tmp_path, Template())
    meter, key = identity.line.split(",")
    assert re.fullmatch(r"[0-9a-f]{16},[0-9a-f]{66}", identity.line)
    assert parse_eui64(meter) == identity.meter
    assert parse_public_key(key) == identity.public_key


def test_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    provision(tmp_path, Template())
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_settings_are_never_overwritten(tmp_path: Path) -> None:
    provision(tmp_path, FULL)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        provision(tmp_path, Template())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_key_that_is_there_is_kept(tmp_path: Path) -> None:
    first = provision(tmp_path, FULL)
    (tmp_path / CONFIG_FILE).unlink()
    second = provision(tmp_path, FULL, meter=first.meter)
    assert second == first


def test_identity_waits_for_its_head_end_with_the_lines_to_fill_in(tmp_path: Path) -> None:
    provision(tmp_path, Template())
    content = (tmp_path / CONFIG_FILE).read_text()
    assert "`headend init` prints" in content
    with pytest.raises(ConfigError, match=r"headend\.public_key is missing"):
        load_settings(tmp_path / CONFIG_FILE)
    content = content.replace("# address", "address").replace("# public_key", "public_key")
    content = content.replace("66 hex digits", PUBLIC_KEY).replace("HOST", "192.0.2.1")
    (tmp_path / CONFIG_FILE).write_text(content)
    assert load_settings(tmp_path / CONFIG_FILE).headend.host_and_port == ("192.0.2.1", 5683)


def test_address_without_a_key_is_not_dropped(tmp_path: Path) -> None:
    provision(tmp_path, Template(address="192.0.2.9:77"))
    assert '\naddress = "192.0.2.9:77"\n' in (tmp_path / CONFIG_FILE).read_text()
    with pytest.raises(ConfigError, match=r"headend\.public_key is missing"):
        load_settings(tmp_path / CONFIG_FILE)


def test_key_without_an_address_makes_a_meter_that_searches(tmp_path: Path) -> None:
    provision(tmp_path, Template(public_key=PUBLIC_KEY))
    assert "found by DNS-SD" in (tmp_path / CONFIG_FILE).read_text()
    settings = load_settings(tmp_path / CONFIG_FILE)
    assert settings.headend.public_key == PUBLIC_KEY
    assert settings.headend.host_and_port is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "a:b:c"},
        {"address": 'x"\n[meter]'},
        {"public_key": "00"},
        {"standard_offset": "1"},
        {"standard_offset": '+01:00"\nkey = "x'},
    ],
    ids=str,
)
def test_template_that_would_make_a_broken_file_is_refused_before_anything_is_made(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(ConfigError):
        provision(tmp_path / "new", Template(**wrong))  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        provision(tmp_path / "file" / "below", Template())


@given(st.binary(min_size=8, max_size=8))
def test_random_identifier_says_that_it_is_local_and_individual(entropy: bytes) -> None:
    meter = random_eui64(entropy)
    assert len(meter) == 8
    assert meter[0] & 0x03 == 0x02
    assert meter[1:] == entropy[1:]
    assert meter[0] & 0xFC == entropy[0] & 0xFC
