"""What the settings of nodes and collectors may say.

The contract under test: every value that cannot be is one line that names it; what is right comes
out as the programs need it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from amistack.errors import ConfigError
from amistack.keystore import load_network_key, make_network_key
from mesh.backhaul import AREA_MAX
from mesh.reports import Reason
from meterd.cli import main
from meterd.daemon import load_settings
from meterd.meshing.collector import load_settings as load_collector
from meterd.meshing.keeper import NodeKeeper
from meterd.meshing.making import find_neighbours, make_station
from meterd.meshing.settings import MeshSettings
from meterd.storage import Storage
from tests.meterd.bench import METER
from tests.meterd.test_config import PUBLIC_KEY

COLLECTOR = """\
[collector]
id = "02000000000000c1"
area = 7
dodag_id = "fd9a9c5f26ec4067000000fffe000000"
[mesh]
short = 4
[backhaul]
address = "head-end.example"
plain = true
"""


def test_a_collectors_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(COLLECTOR, encoding="utf-8")
    settings = load_collector(file)
    assert settings.collector.dodag_octets.hex().startswith("fd9a")
    assert settings.backhaul.host_and_port == ("head-end.example", 7683)
    assert settings.backhaul.make_tls() is None
    assert settings.mesh.host_and_port == ("0.0.0.0", 7684)
    assert settings.mesh.network_key == tmp_path / "network-key"


def test_every_area_of_the_head_end_can_have_collectors(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(COLLECTOR.replace("area = 7", f"area = {AREA_MAX}"), encoding="utf-8")
    assert load_collector(file).collector.area == AREA_MAX == 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("short = 4", "short = 0", "mesh.short is 0, expected 1 to 60000"),
        ("short = 4", "short = 60001", "mesh.short is 60001, expected 1 to 60000"),
        ("short = 4", "short = 4\nkey_index = 128", "mesh.key_index is 128, expected 0 to 127"),
        ("area = 7", "area = 4294967296", "collector.area is 4294967296, expected 0 to 4294967295"),
        ("area = 7", "area = -1", "collector.area is -1, expected 0 to 4294967295"),
        ("fd9a", "FD9A", "expected 32 hex digits in lower case"),
        ("fd9a", "", "expected 32 hex digits in lower case"),
        ("02000000000000c1", "02", "collector.id: "),
        ("plain = true", "", "pin, certificate and key are missing"),
        ("plain = true", 'plain = true\npin = "00"', "plain goes with neither pin"),
        (
            "plain = true",
            'pin = "00"\ncertificate = "c.pem"\nkey = "k.pem"',
            "pin is '00', expected 64 hex digits in lower case",
        ),
        ("head-end.example", "a:b:c", "backhaul.address is 'a:b:c'"),
    ],
)
def test_a_collectors_wrong_value_is_one_line(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    file = tmp_path / "collector.toml"
    assert COLLECTOR.count(old) == 1
    file.write_text(COLLECTOR.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_collector(file)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    tls = f'pin = "{"00" * 32}"\ncertificate = "c.pem"\nkey = "k.pem"'
    file.write_text(COLLECTOR.replace("plain = true", tls), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c\.pem with key .*k\.pem cannot be used: No such file"):
        load_collector(file).backhaul.make_tls()


def test_a_meter_in_a_mesh_names_no_address_of_the_head_end(tmp_path: Path) -> None:
    file = tmp_path / "meterd.toml"
    text = f'[meter]\nid = "02000000000000a1"\n[headend]\npublic_key = "{PUBLIC_KEY}"\n'
    mesh = "[mesh]\nshort = 1\n"
    file.write_text(text + mesh, encoding="utf-8")
    settings = load_settings(file)
    assert settings.mesh is not None
    assert settings.mesh.short == 1
    file.write_text(text + 'address = "192.0.2.1"\n' + mesh, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"headend\.address: in a mesh there is none"):
        load_settings(file)


def test_too_many_neighbours_and_wrong_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="65 neighbours, at most 64"):
        MeshSettings(1, neighbours=tuple(f"192.0.2.{number}" for number in range(65)))
    with pytest.raises(ConfigError, match="neighbours is 'a b'"):
        MeshSettings(1, neighbours=("a b",))


async def test_a_neighbour_that_nobody_knows_is_one_line() -> None:
    settings = MeshSettings(1, neighbours=("no-such-host.invalid",))
    with pytest.raises(ConfigError, match=r"neighbours: 'no-such-host\.invalid' has no IPv4"):
        await find_neighbours(settings)
    assert await find_neighbours(MeshSettings(1, neighbours=("127.0.0.1",))) == [
        ("127.0.0.1", 7684)
    ]


def test_a_network_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "network-key"
    assert main(["network-key", str(file)]) == 0
    key = load_network_key(file)
    assert len(key) == 16
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError):
        make_network_key(file)
    assert load_network_key(file) == key
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="open to other users"):
        load_network_key(file)
    file.chmod(0o600)
    file.write_text("00\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no network key, expected 32 hex digits"):
        load_network_key(file)
    file.unlink()
    with pytest.raises(ConfigError, match="is missing: `meterd network-key` makes one"):
        load_network_key(file)


def test_a_node_says_why_it_registers(tmp_path: Path) -> None:
    """Cold boot, power restored, another address: each told until the head-end knows it."""
    make_network_key(tmp_path / "network-key")
    storage = Storage.open(tmp_path / "data")
    keeper = NodeKeeper(storage)

    def reason(short: int) -> Reason | None:
        settings = MeshSettings(short, network_key=tmp_path / "network-key")
        station = make_station(METER, settings, keeper, dice=random.Random(1))
        return station._boot

    assert reason(3) is Reason.COLD_BOOT
    keeper.reserve_counters(1_000)
    assert reason(3) is Reason.POWER_RESTORED  # It never got so far that anybody knew it.
    keeper.keep_short(3)
    assert reason(3) is Reason.POWER_RESTORED
    assert reason(4) is Reason.ADDRESS_CHANGED
    assert reason(4) is Reason.ADDRESS_CHANGED
    keeper.keep_short(4)
    assert reason(4) is Reason.POWER_RESTORED
    storage.close()


def test_a_node_goes_on_with_what_its_storage_has(tmp_path: Path) -> None:
    make_network_key(tmp_path / "network-key")
    settings = MeshSettings(3, network_key=tmp_path / "network-key")
    storage = Storage.open(tmp_path / "data")
    keeper = NodeKeeper(storage)
    keeper.reserve_counters(70_000)
    keeper.keep_path_sequence(250)
    keeper.keep_addresses([(METER, ("192.0.2.1", 7684))])
    first = make_station(METER, settings, keeper, dice=random.Random(1))
    again = make_station(METER, settings, keeper, dice=random.Random(1))
    assert first.node.seal.counters.next == 70_000
    assert first.node.dao.path_sequence == 250
    assert again.report_sequence > first.report_sequence
    assert keeper.addresses() == [(METER, ("192.0.2.1", 7684))]
    storage.close()
