"""`meterd identity ...`.

The contract under test: it shows who the meter is and whom it trusts now, gives the row that
`headend shipment import` takes, and encrypts the key in place; no private key is ever shown, and
what cannot be is one line and exit code 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from amistack.keystore import is_encrypted, load_key, make_secret, save_secret
from amistack.model import HeadEndKeyNotice
from amistack.session.fleet import encode_public_key
from amistack.session.trust import KeyStatement, issue
from meterd.cli import main
from meterd.daemon import load_settings
from meterd.provision import Identity, Template, provision
from meterd.storage import Storage
from meterd.trust import TrustKeeper


def public(number: int) -> bytes:
    return encode_public_key(ec.derive_private_key(number, ec.SECP256R1()).public_key())


ROOT = ec.derive_private_key(99, ec.SECP256R1())
ROOT_KEY = encode_public_key(ROOT.public_key())

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["identity", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def meter(tmp_path: Path) -> Identity:
    template = Template("127.0.0.1:5683", public(1).hex(), ROOT_KEY.hex())
    return provision(tmp_path, template)


@pytest.fixture
def config(tmp_path: Path, meter: Identity) -> str:
    return str(tmp_path / "meterd.toml")


def test_line_is_printed_as_ever_and_settings_go_before_or_after(
    meter: Identity, config: str, run: Run
) -> None:
    assert run("--config", config) == (0, meter.line + "\n", "")
    before, after = run("--config", config, "show"), run("show", "--config", config)
    assert before == after
    assert before[0] == 0


def test_meter_shows_who_it_is_and_whom_it_trusts(
    tmp_path: Path, meter: Identity, config: str, run: Run
) -> None:
    told = json.loads(run("show", "--json", "--config", config)[1])
    assert told["meter"] == meter.meter.hex()
    assert told["public_key"] == meter.public_key.hex()
    assert told["root_key"] == ROOT_KEY.hex()
    assert [(key["epoch"], key["public_key"]) for key in told["head_end_keys"]] == [
        (0, public(1).hex())
    ]
    settings = load_settings(Path(config))
    storage = Storage.open(settings.meter.storage)
    keeper = TrustKeeper(storage, settings.headend.trust)
    assert keeper.take(HeadEndKeyNotice(issue(ROOT, KeyStatement(4, public(2)))))
    storage.close()
    told = json.loads(run("show", "--json", "--config", config)[1])
    assert [(key["epoch"], key["public_key"]) for key in told["head_end_keys"]] == [
        (4, public(2).hex()),
        (0, public(1).hex()),
    ]
    lines = run("show", "--config", config)[1].splitlines()
    assert lines[-2].endswith("epoch 4")
    assert lines[-1].endswith("as written down")
    assert "not encrypted" in lines[2]


def test_row_is_one_of_a_shipment_file(meter: Identity, config: str, run: Run) -> None:
    code, out, _ = run("export", "--config", config, "--serial", "A,7", "--model", "M3")
    header, row = out.splitlines()
    assert header == "meter,public_key,manufacturer,model,serial,hardware,firmware"
    assert row == f'{meter.line},,M3,"A,7",,'
    assert run("export", "--config", config, "--no-header")[1] == f"{meter.line},,,,,\n"
    code, _, said = run("export", "--config", config, "--serial", "x" * 65)
    assert (code, said.count("\n")) == (1, 1)


def test_key_is_encrypted_in_place_and_read_with_its_secret_alone(
    tmp_path: Path, meter: Identity, config: str, run: Run
) -> None:
    key = tmp_path / "meter-key.pem"
    code, _, said = run("seal", "--config", config)
    assert (code, "there is no secret" in said, said.count("\n")) == (1, True, 1)
    secret = make_secret()
    save_secret(tmp_path / "secret", secret)
    before = load_key(key).private_numbers()
    file = Path(config)
    file.write_text(file.read_text().replace("[meter]\n", '[meter]\nsecret = "secret"\n'))
    code, _, said = run("--config", config)
    assert (code, "is not encrypted, though there is a secret" in said) == (1, True)
    for words in ("is encrypted now", "is encrypted already"):
        code, _, said = run("seal", "--config", config)
        assert (code, words in said) == (0, True)
    assert is_encrypted(key)
    assert load_key(key, secret).private_numbers() == before
    assert run("--config", config) == (0, meter.line + "\n", "")
    (tmp_path / "secret").unlink()
    save_secret(tmp_path / "secret", make_secret())
    code, _, said = run("--config", config)
    assert (code, "is not opened by this secret" in said, said.count("\n")) == (1, True, 1)


def test_no_command_shows_a_private_key(
    tmp_path: Path, meter: Identity, config: str, run: Run
) -> None:
    number = load_key(tmp_path / "meter-key.pem").private_numbers().private_value
    for words in (("show",), ("show", "--json"), ("export",), ()):
        code, out, said = run(*words, "--config", config)
        assert code == 0
        assert f"{number:064x}" not in (out + said).lower()
        assert "PRIVATE" not in out + said


def test_storage_with_a_trust_that_nobody_wrote_is_one_line(
    meter: Identity, config: str, run: Run
) -> None:
    settings = load_settings(Path(config))
    for note in ("zz", "00", "8201"):
        storage = Storage.open(settings.meter.storage)
        storage.keep_note("trust", note)
        storage.close()
        code, _, said = run("show", "--config", config)
        assert (code, said.count("\n")) == (1, 1)
        assert "a trust that no meterd writes" in said
