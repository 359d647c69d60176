"""`headend pki ...`: the whole way of a key by commands, and every way that it is refused.

The contract under test: root, next key, statement and secret are made by commands that overwrite
nothing and print what comes next; whatever an operator can mend is one line and exit code 1; a
sealed head-end starts with its secret alone.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amistack.keystore import is_encrypted
from amistack.session.fleet import parse_public_key
from amistack.session.trust import read_statement
from headend.cli.main import main
from tests.headend.test_cli import command, make_home, only_line, served

# See tests/headend/test_cli.py.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def add_settings(home: Path, **lines: str) -> None:
    """Settings below [identity]."""
    file = home / "headend.toml"
    text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    file.write_text(file.read_text().replace("[identity]\n", f"[identity]\n{text}", 1))


def root_in(folder: Path, run: Run, *more: str) -> str:
    folder.mkdir(exist_ok=True)
    code, out, _ = run("pki", "root", "init", "--directory", str(folder), *more)
    assert code == 0
    name, _, value = out.strip().partition(" = ")
    assert name == "root_key"
    return value.strip('"')


def test_head_ends_key_is_changed_by_commands_alone(tmp_path: Path, run: Run) -> None:
    home, vault = make_home(tmp_path / "home"), tmp_path / "vault"
    root = root_in(vault, run)
    add_settings(home, root_key=root)
    with served(home) as server:
        server.wait_until_ready()
        code, out, _ = run(*command(home, "pki", "keys", "--json"))
        (first,) = json.loads(out)["keys"]
        assert (first["stage"], first["epoch"], first["meters"]) == ("current", None, 0)
        code, out, told = run(*command(home, "pki", "rotate", "begin"))
        assert code == 0
        assert "to be signed" in out
        # What is told to be run where the root is.
        (line,) = [line for line in told.splitlines() if "root sign" in line]
        words = shlex.split(line.removeprefix("# headend "))
        words[words.index("--out") + 1] = str(vault / "statement")
        assert run(*words, "--key", str(vault / "root-key.pem"))[0] == 0
        begin = ["pki", "rotate", "begin", "--statement", str(vault / "statement")]
        code, out, _ = run(*command(home, *begin))
        assert "on offer" in out
        assert "0 meters have yet to confirm" in out
        assert run(*command(home, "pki", "rotate", "status"))[1] == out
        code, out, _ = run(*command(home, "pki", "rotate", "finish", "--json"))
        (second,) = json.loads(out)["keys"]
        assert (second["stage"], second["epoch"]) == ("current", 1)
        assert second["kid"] != first["kid"]
    # What new meters are told is the new key and the root, also after a restart.
    code, out, _ = run("init", "--directory", str(home))
    assert second["public_key"] in out
    assert f'root_key = "{root}"' in out
    with served(home) as server:
        server.wait_until_ready()
        code, out, _ = run(*command(home, "pki", "keys", "--json"))
        assert json.loads(out)["keys"] == [second]
        code, _, said = run(*command(home, "pki", "rotate", "finish"))
        assert code == 1
        assert "there is no next key" in only_line(said)
        code, _, said = run(*command(home, *begin[:-1], str(home / "headend.toml")))
        assert code == 1
        only_line(said)


def test_root_under_a_secret_signs_with_it_alone(tmp_path: Path, run: Run) -> None:
    secret, wrong = tmp_path / "secret", tmp_path / "wrong"
    for file in (secret, wrong):
        assert run("pki", "secret", str(file))[0] == 0
    root = root_in(tmp_path / "vault", run, "--secret", str(secret))
    key = tmp_path / "vault" / "root-key.pem"
    assert is_encrypted(key)
    sign = ["pki", "root", "sign", "--key", str(key), "--public-key", root, "--epoch", "3"]
    for more in ([], ["--secret", str(wrong)]):
        code, _, said = run(*sign, "--out", str(tmp_path / "no"), *more)
        assert code == 1
        only_line(said)
        assert not (tmp_path / "no").exists()
    out = tmp_path / "statement"
    assert run(*sign, "--out", str(out), "--secret", str(secret))[0] == 0
    statement = read_statement(out.read_bytes(), parse_public_key(root))
    assert (statement.epoch, statement.public_key.hex()) == (3, root)


def test_nothing_is_ever_overwritten(tmp_path: Path, run: Run) -> None:
    root = root_in(tmp_path / "vault", run)
    code, _, said = run("pki", "root", "init", "--directory", str(tmp_path / "vault"))
    assert (code, "never overwritten" in only_line(said)) == (1, True)
    (tmp_path / "out").write_text("mine")
    key = ["--key", str(tmp_path / "vault" / "root-key.pem")]
    sign = ["pki", "root", "sign", *key, "--public-key", root, "--epoch", "1"]
    code, _, said = run(*sign, "--out", str(tmp_path / "out"))
    assert (code, "never overwritten" in only_line(said)) == (1, True)
    code, _, said = run("pki", "secret", str(tmp_path / "out"))
    assert (code, "never overwritten" in only_line(said)) == (1, True)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["root", "sign", "--public-key", "xy", "--epoch", "1"], "is not a public key"),
        (["root", "sign", "--public-key", "KEY", "--epoch", "0"], "epoch 0, expected 1"),
        (["root", "sign", "--public-key", "KEY", "--epoch", "1"], "root-key.pem is missing"),
        (["root", "sign", "--public-key", "KEY", "--epoch", "1", "--secret", "/no"], "is missing"),
        (["root", "init", "--directory", "/no/where"], "cannot be written"),
    ],
)
def test_wrong_wish_at_the_root_is_one_line(
    tmp_path: Path, run: Run, arguments: list[str], said: str
) -> None:
    from tests.support.headend import public_key

    words = [public_key("x").hex() if word == "KEY" else word for word in arguments]
    if "sign" in words:
        words += ["--out", str(tmp_path / "out"), "--key", str(tmp_path / "root-key.pem")]
    code, _, told = run("pki", *words)
    assert code == 1
    assert said in only_line(told)


def test_head_end_is_sealed_while_it_stands_and_starts_with_its_secret_alone(
    tmp_path: Path, run: Run
) -> None:
    home, secret = make_home(tmp_path / "home"), tmp_path / "secret"
    with served(home) as server:
        server.wait_until_ready()
        assert run("pki", "secret", str(secret))[0] == 0
        rekey = command(home, "pki", "rekey", "--to", str(secret))
        code, _, said = run(*rekey)
        assert (code, "in use by another head-end" in only_line(said)) == (1, True)
        assert not is_encrypted(home / "headend-key.pem")
    code, out, said = run(*rekey)
    assert (code, out) == (0, "1 key files and the store are sealed, 0 files were already\n")
    assert "identity.secret" in said
    assert is_encrypted(home / "headend-key.pem")
    code, _, said = run(*command(home, "serve"))
    assert (code, "there is no secret to open it" in only_line(said)) == (1, True)
    add_settings(home, secret=str(secret))
    with served(home) as server:
        server.wait_until_ready()
        assert run(*command(home, "status"))[0] == 0
    assert run(*command(home, "pki", "rekey"))[1].startswith("0 key files")
    other = tmp_path / "other"
    assert run("pki", "secret", str(other))[0] == 0
    (home / "headend.toml").write_text(
        (home / "headend.toml").read_text().replace(str(secret), str(other))
    )
    code, _, said = run(*command(home, "serve"))
    assert (code, "is not opened by this secret" in only_line(said)) == (1, True)


def test_secret_comes_as_a_credential_of_systemd_too(tmp_path: Path, run: Run) -> None:
    home, folder = make_home(tmp_path / "home"), tmp_path / "credentials"
    folder.mkdir()
    assert run("pki", "secret", str(folder / "headend-secret"))[0] == 0
    assert run(*command(home, "pki", "rekey", "--to", str(folder / "headend-secret")))[0] == 0
    for environment, code in (({}, 1), ({"CREDENTIALS_DIRECTORY": str(folder)}, 0)):
        done = subprocess.run(
            [sys.executable, "-m", "headend.cli.main", "init", "--directory", str(home)],
            capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2],
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_rekeying_without_any_secret_says_how_to_make_one(tmp_path: Path, run: Run) -> None:
    home = make_home(tmp_path / "home")
    code, _, said = run(*command(home, "pki", "rekey"))
    assert (code, "`headend pki secret FILE` makes one" in only_line(said)) == (1, True)


def test_root_key_that_is_none_is_one_line(tmp_path: Path, run: Run) -> None:
    home = make_home(tmp_path / "home")
    add_settings(home, root_key="abc")
    code, _, said = run(*command(home, "serve"))
    assert (code, "root_key: 'abc' is not a public key" in only_line(said)) == (1, True)
