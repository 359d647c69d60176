"""A private key in a file: for its owner alone, never overwritten, never half.

The contract under test: what `save_key` wrote `load_key` reads, whatever the umask; every other
file is one line of ConfigError, and no message ever shows a key.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.keystore import (
    find_secret,
    is_encrypted,
    load_key,
    load_secret,
    make_key,
    make_secret,
    replace_key,
    save_key,
    save_secret,
)

KEY = ec.derive_private_key(11, ec.SECP256R1())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key.pem"


def pem(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def write(file: Path, octets: bytes, mode: int = 0o600) -> None:
    file.write_bytes(octets)
    file.chmod(mode)


def test_a_new_key_is_on_p_256_and_another_each_time() -> None:
    one, other = make_key(), make_key()
    assert isinstance(one.curve, ec.SECP256R1)
    assert one.private_numbers() != other.private_numbers()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_key_is_read_as_it_was_saved_and_open_to_its_owner_alone(file: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_key(file, KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(file).private_numbers() == KEY.private_numbers()


def test_a_key_is_never_overwritten_nor_written_through_a_link(file: Path) -> None:
    write(file, b"what is here")
    with pytest.raises(ConfigError, match="never overwritten"):
        save_key(file, KEY)
    assert file.read_bytes() == b"what is here"
    link = file.with_name("link.pem")
    link.symlink_to(file.with_name("elsewhere.pem"))
    with pytest.raises(ConfigError, match="never overwritten"):
        save_key(link, KEY)
    assert not file.with_name("elsewhere.pem").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/key\.pem cannot be written: No such file"):
        save_key(tmp_path / "nowhere" / "key.pem", KEY)


def test_a_full_disk_leaves_no_half_key_in_the_way(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("amistack.keystore.os.fsync", full)
        with pytest.raises(ConfigError, match="cannot be written: No space left"):
            save_key(file, KEY)
    assert not file.exists()
    save_key(file, KEY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o620, 0o602, 0o601, 0o666])
def test_a_key_that_others_could_touch_is_refused(file: Path, mode: int) -> None:
    write(file, pem(KEY), mode)
    with pytest.raises(ConfigError, match=r"open to other users: chmod 600 .*key\.pem"):
        load_key(file)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_that_only_its_owner_can_touch_is_read(file: Path, mode: int) -> None:
    write(file, pem(KEY), mode)
    assert load_key(file).private_numbers() == KEY.private_numbers()


def test_a_missing_key_says_how_to_make_one(file: Path) -> None:
    with pytest.raises(ConfigError, match="is missing: `init` makes a key"):
        load_key(file)


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_key(tmp_path)


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (pem(ec.derive_private_key(3, ec.SECP384R1())), "of another kind, expected P-256"),
        (pem(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))), "of another kind"),
        (pem(KEY, BestAvailableEncryption(b"x")), "is encrypted, and there is no secret"),
        (
            KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "not a private key",
        ),
        (pem(KEY)[:60], "not a private key"),
        (b"", "not a private key"),
    ],
    ids=["P-384", "Ed25519", "encrypted", "public", "cut off", "empty"],
)
def test_what_is_no_key_of_ours_is_refused(file: Path, octets: bytes, message: str) -> None:
    write(file, octets)
    with pytest.raises(ConfigError, match=message) as caught:
        load_key(file)
    assert str(caught.value).isprintable()
    assert "BEGIN" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    octets=st.binary(max_size=80)
    | st.tuples(st.integers(0, len(pem(KEY)) - 1), st.integers(1, 255)).map(
        lambda spot: bytes(
            octet ^ spot[1] if at == spot[0] else octet for at, octet in enumerate(pem(KEY))
        )
    )
)
def test_any_octets_are_a_key_or_one_line(
    octets: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.pem"
    write(file, octets)
    message = ""
    try:
        assert isinstance(load_key(file).curve, ec.SECP256R1)
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()


# Under a secret

SECRET, OTHER = bytes(range(32)), bytes(32)


def test_a_key_under_a_secret_is_read_with_it_alone(file: Path) -> None:
    save_key(file, KEY, SECRET)
    assert is_encrypted(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(file, SECRET).private_numbers() == KEY.private_numbers()
    for secret, said in ((OTHER, "is not opened by this secret"), (None, "there is no secret")):
        with pytest.raises(ConfigError, match=said) as caught:
            load_key(file, secret)
        assert SECRET.hex() not in str(caught.value)


def test_a_plain_key_is_refused_where_a_secret_is_relied_on(file: Path) -> None:
    save_key(file, KEY)
    assert not is_encrypted(file)
    with pytest.raises(ConfigError, match="is not encrypted, though there is a secret"):
        load_key(file, SECRET)


def test_a_key_is_replaced_in_one_step(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_key(file, KEY)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("amistack.keystore.os.fsync", full)
        with pytest.raises(ConfigError, match="cannot be written: No space left"):
            replace_key(file, KEY, SECRET)
    assert load_key(file).private_numbers() == KEY.private_numbers()
    file.with_name("key.pem.new").write_bytes(b"half of one")
    replace_key(file, KEY, SECRET)
    assert load_key(file, SECRET).private_numbers() == KEY.private_numbers()
    assert [one.name for one in file.parent.iterdir()] == ["key.pem"]


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), octet=st.integers(0, 255))
def test_a_changed_encrypted_key_is_the_same_key_or_one_line(
    at: int, octet: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "sealed.pem"
    file.unlink(missing_ok=True)
    save_key(file, KEY, SECRET)
    octets = bytearray(file.read_bytes())
    octets[at % len(octets)] = octet
    write(file, bytes(octets))
    message = ""
    try:
        assert load_key(file, SECRET).private_numbers() == KEY.private_numbers()
    except ConfigError as error:
        message = str(error)
    assert message.isprintable()


# Where a secret comes from


def test_a_secret_is_found_in_its_file_then_its_credential_then_the_environment(
    tmp_path: Path,
) -> None:
    named, folder = tmp_path / "secret", tmp_path / "credentials"
    folder.mkdir()
    save_secret(named, b"f" * 32)
    (folder / "headend-secret").write_bytes(b"c" * 32)
    (folder / "headend-secret").chmod(0o440)
    everything = {"CREDENTIALS_DIRECTORY": str(folder), "HEADEND_SECRET": (b"e" * 32).hex()}
    assert find_secret("headend", named, environment=everything) == b"f" * 32
    assert find_secret("headend", None, environment=everything) == b"c" * 32
    assert find_secret("meterd", None, environment=everything) is None
    del everything["CREDENTIALS_DIRECTORY"]
    assert find_secret("headend", None, environment=everything) == b"e" * 32
    assert find_secret("headend", None, environment={}) is None


def test_a_new_secret_is_another_each_time_and_open_to_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = make_secret()
    save_secret(file, secret)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_secret(file) == secret != make_secret()
    with pytest.raises(ConfigError, match="a secret is never overwritten"):
        save_secret(file, secret)


@pytest.mark.parametrize(
    ("octets", "mode", "said"),
    [
        (b"", 0o600, "holds no secret"),
        (b"ab" * 31, 0o600, "holds no secret"),
        (b"ab" * 33, 0o600, "holds no secret"),
        (b"zz" * 32, 0o600, "holds no secret"),
        (b"\xff" * 64, 0o600, "holds no secret"),
        (b"ab" * 2_000, 0o600, "is larger than"),
        (b"ab" * 32, 0o640, "is open to other users"),
        (b"ab" * 32, 0o604, "is open to other users"),
    ],
)
def test_what_is_no_secret_is_one_line_that_does_not_show_it(
    file: Path, octets: bytes, mode: int, said: str
) -> None:
    write(file, octets, mode)
    with pytest.raises(ConfigError, match=said) as caught:
        load_secret(file)
    assert "abab" not in str(caught.value)
    with pytest.raises(ConfigError, match="X_SECRET holds no secret"):
        find_secret("x", None, environment={"X_SECRET": "not one"})
    with pytest.raises(ConfigError, match="is missing"):
        load_secret(file.with_name("nowhere"))
