"""headend.toml.

The contract under test: without a file the defaults of this folder hold; with one, its paths and
the defaults are relative to its own folder; whatever is wrong with it is a ConfigError of one line
that names file, key and what was expected.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from amistack.errors import ConfigError
from headend.config import Settings, join_address, read_settings, split_address


def written(folder: Path, text: str) -> Path:
    file = folder / "headend.toml"
    file.write_text(text)
    return file


def test_without_a_file_the_defaults_of_this_folder_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings(None) == Settings()
    assert Settings().server.address == ("0.0.0.0", 5683)


def test_file_in_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, '[server]\nlisten = "[::]:7000"\n')
    monkeypatch.chdir(tmp_path)
    assert read_settings(None).server.address == ("::", 7000)


def test_paths_are_relative_to_the_file_wherever_one_stands(tmp_path: Path) -> None:
    file = written(tmp_path, '[api]\nsocket = "run/api"\n[store]\npath = "/var/lib/he.sqlite"\n')
    settings = read_settings(file)
    assert settings.api.socket == tmp_path / "run" / "api"
    assert settings.store.path == Path("/var/lib/he.sqlite")
    assert settings.identity.key == tmp_path / "headend-key.pem", "the default too"


def test_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        read_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sever]\n", "sever is not a setting; did you mean 'server'?"),
        ("[server]\nlissen = 'x'\n", "server.lissen is not a setting; did you mean 'listen'?"),
        ("[server]\nlisten = 5683\n", "server.listen is 5683, expected a text in quotes"),
        ("[server]\nlisten = '0.0.0.0'\n", "server.listen is '0.0.0.0', expected an address"),
        ("[server]\nlisten = '::1:5683'\n", "server.listen is '::1:5683', expected an address"),
        ("[server]\nlisten = 'h:65536'\n", "server.listen is 'h:65536'"),
        ("[server]\nlisten = 'h:٣'\n", "server.listen is"),
        ("[log]\nlevel = 'loud'\n", "log.level is 'loud', expected one of debug, info"),
        ("[mesh]\nlisten = 'x'\n", "mesh.listen is 'x', expected an address"),
        ("[mesh]\nlisten = '0.0.0.0:1'\n", "'0.0.0.0:1' without TLS: set certificate and key"),
        ("[mesh]\nkey = 'k'\n", "certificate and key go together"),
        ("[server\n", "is not valid TOML"),
        ("server = 3\n", "server is 3, expected a table"),
        (f"[api]\nsocket = '{'s' * 120}'\n", "at most 107 fit; choose a shorter one"),
    ],
)
def test_mistake_is_one_line_with_file_key_and_cure(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as refusal:
        read_settings(file)
    assert str(file) in str(refusal.value)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "more",
    ["listen = '127.0.0.1:0'", "listen = '0.0.0.0:0'\nplain = true",
     "listen = '0.0.0.0:0'\ncertificate = 'c.pem'\nkey = 'k.pem'"],
)  # fmt: skip
def test_mesh_listens_beyond_this_machine_under_tls_or_by_an_express_word(
    tmp_path: Path, more: str
) -> None:
    settings = read_settings(written(tmp_path, f"[mesh]\n{more}\n"))
    assert settings.mesh.address is not None
    assert settings.mesh.address[1] == 0
    assert settings.mesh.certificate in (None, tmp_path / "c.pem")


@pytest.mark.parametrize("text", ["192.0.2.7:5683", "[2001:db8::7]:1", "meters.example:0"])
def test_address_written_is_the_address_read(text: str) -> None:
    assert join_address(*split_address(text, "x")) == text
