"""Secrets at rest: session keys in the store, key files, and a change of what seals them.

The contract under test: with a secret nothing that opens a session or is the head-end's key stands
readable on the disk, in freed pages and the log beside the store neither; another secret, or none,
is one line; changing the secret may be cut short anywhere and is taken up by the next run.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from amistack import keystore
from amistack.errors import ConfigError, StoreUnusable
from amistack.identifiers import Eui64
from amistack.keystore import load_key, make_key, make_secret, save_key
from headend.domain.meters import Meter, MeterState, StoredSession
from headend.lifecycle.rekeying import Rekeyed, key_files, rekey_files
from headend.store.interface import EnrolMeters, KeepSession
from headend.store.sqlite import SqliteStore, seal_store
from tests.support.headend import NOW, meter_id, public_key

A, B = meter_id(1), meter_id(2)
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
Sealer = functools.partial(keystore.Sealer, entropy=os.urandom)
PATH = "udp:192.0.2.7:5683"


def secret_of(meter: Eui64, number: int = 0) -> bytes:
    return f"{meter.hex()[-4:]}:{number:03}-secret".encode()[:16].ljust(16, b"!")


def session_of(meter: Eui64, number: int = 0) -> StoredSession:
    recipient = meter[-3:] + bytes((number,))
    return StoredSession(
        meter, recipient, b"\x05", secret_of(meter, number), b"t" * 8, 10, 64, (3, 1), NOW
    )


async def filled(file: Path, sealer: keystore.Sealer | None, *, number: int = 0) -> None:
    """A store with two sessions, one of which took the place of another."""
    store = SqliteStore.open(file, sealer=sealer)
    rows = [Meter(m, public_key(m.hex()), MeterState.ENROLLED, NOW) for m in (A, B)]
    await store.commit(EnrolMeters(tuple(rows)))
    for session in (session_of(A, number), session_of(A, number + 1), session_of(B, number)):
        await store.commit(KeepSession(session, PATH))
    await store.close()


async def secrets_in(file: Path, sealer: keystore.Sealer | None) -> list[bytes]:
    store = SqliteStore.open(file, sealer=sealer)
    try:
        found = [one.master_secret for one in await store.sessions()]
        former = await store.find_former(session_of(A, 0).recipient_id)
        alone = await store.find_session(A)
        assert alone is not None
        assert alone.master_secret in found
        return [*found, *([former.master_secret] if former else [])]
    finally:
        await store.close()


def on_disk(file: Path) -> bytes:
    return b"".join(one.read_bytes() for one in file.parent.glob(file.name + "*"))


EVERY = [secret_of(A, 1), secret_of(B, 0), secret_of(A, 0)]


async def test_session_keys_are_read_as_they_were_kept_and_stand_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "s.sqlite"
    await filled(file, Sealer(OLD))
    assert await secrets_in(file, Sealer(OLD)) == EVERY
    assert not [one for one in EVERY if one in on_disk(file)]
    plain = tmp_path / "p.sqlite"
    await filled(plain, None)
    assert all(one in on_disk(plain) for one in EVERY)  # Guards the test itself.


async def test_store_that_was_readable_is_sealed_by_its_next_start(tmp_path: Path) -> None:
    file = tmp_path / "s.sqlite"
    await filled(file, None)
    assert await secrets_in(file, Sealer(OLD)) == EVERY
    assert not [one for one in EVERY if one in on_disk(file)]


async def test_what_was_readable_is_gone_at_once_and_not_only_after_the_stop(
    tmp_path: Path,
) -> None:
    file = tmp_path / "s.sqlite"
    await filled(file, None)
    store = SqliteStore.open(file, sealer=Sealer(OLD))
    try:
        assert not [one for one in EVERY if one in on_disk(file)]
    finally:
        await store.close()


@pytest.mark.parametrize("sealer", [None, Sealer(NEW)], ids=["none", "another"])
async def test_store_is_not_opened_by_another_secret_or_none(
    tmp_path: Path, sealer: keystore.Sealer | None
) -> None:
    file = tmp_path / "s.sqlite"
    await filled(file, Sealer(OLD))
    before = on_disk(file)
    with pytest.raises(StoreUnusable) as refusal:
        SqliteStore.open(file, sealer=sealer)
    assert str(refusal.value).isprintable()
    assert on_disk(file) == before
    assert await secrets_in(file, Sealer(OLD)) == EVERY


async def test_keys_that_were_moved_to_another_meter_open_nothing(tmp_path: Path) -> None:
    """Whoever may write to the store cannot give one meter's keys to another."""
    file = tmp_path / "s.sqlite"
    await filled(file, Sealer(OLD))
    with sqlite3.connect(file) as other:
        other.execute(
            "UPDATE session SET master_secret = "
            "(SELECT master_secret FROM session WHERE meter = ?) WHERE meter = ?",
            (A, B),
        )
    other.close()
    found = await secrets_in(file, Sealer(OLD))
    assert found[0] == EVERY[0]
    assert found[1] not in EVERY
    assert len(found[1]) == 16


async def test_sealing_anew_is_for_all_and_can_be_repeated(tmp_path: Path) -> None:
    file = tmp_path / "s.sqlite"
    await filled(file, Sealer(OLD))
    for _ in range(2):
        seal_store(file, Sealer(OLD), Sealer(NEW))
    assert await secrets_in(file, Sealer(NEW)) == EVERY
    with pytest.raises(StoreUnusable):
        seal_store(file, Sealer(OLD), Sealer(make_secret()))


async def test_backup_from_before_a_change_is_sealed_like_the_key_files_by_the_same_command(
    tmp_path: Path, keys: list[Path]
) -> None:
    file, backup = tmp_path / "s.sqlite", tmp_path / "backup.sqlite"
    await filled(file, Sealer(OLD))
    shutil.copy(file, backup)
    rekey_files(keys, old=None, new=OLD)
    rekey_files(keys, old=OLD, new=NEW)
    seal_store(file, Sealer(OLD), Sealer(NEW))
    shutil.copy(backup, file)
    assert rekey_files(keys, old=OLD, new=NEW) == Rekeyed(0, 3)
    seal_store(file, Sealer(OLD), Sealer(NEW))
    assert await secrets_in(file, Sealer(NEW)) == EVERY


async def test_sealing_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "s.sqlite"
    await filled(file, Sealer(OLD))
    with sqlite3.connect(file) as other:
        other.execute("UPDATE session SET master_secret = x'00' WHERE meter = ?", (B,))
    other.close()
    with pytest.raises(StoreUnusable, match=f"the keys of meter {B.hex()}"):
        seal_store(file, Sealer(OLD), Sealer(NEW))
    assert (await secrets_in(file, Sealer(OLD)))[0] == EVERY[0]


def test_sealer_opens_only_what_it_sealed_where_it_belongs() -> None:
    sealed = Sealer(OLD).seal(b"words", b"here")
    assert Sealer(OLD).open(sealed, b"here") == b"words"
    assert Sealer(OLD).seal(b"words", b"here") != sealed
    for sealer, octets, place in (
        (Sealer(NEW), sealed, b"here"),
        (Sealer(OLD), sealed, b"there"),
        (Sealer(OLD), sealed[:-1], b"here"),
        (Sealer(OLD), b"\x02" + sealed[1:], b"here"),
        (Sealer(OLD), b"", b"here"),
        *((Sealer(OLD), flipped, b"here") for flipped in flips(sealed)),
    ):
        with pytest.raises(ConfigError):
            sealer.open(octets, place)


def flips(octets: bytes) -> Iterator[bytes]:
    for at in range(len(octets)):
        yield bytes(o ^ 1 if i == at else o for i, o in enumerate(octets))


# Key files


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    files = [tmp_path / name for name in ("k.pem", "k-00000001.pem", "k-00000002.retired.pem")]
    for file in files:
        save_key(file, make_key())
    return files


def numbers(files: list[Path], secret: bytes | None) -> list[int]:
    return [load_key(file, secret).private_numbers().private_value for file in files]


def test_every_key_file_is_sealed_once_and_stays_the_same_key(keys: list[Path]) -> None:
    before = numbers(keys, None)
    assert key_files(keys[0]) == keys
    assert rekey_files(keys, old=None, new=OLD) == Rekeyed(3, 0)
    assert rekey_files(keys, old=None, new=OLD) == Rekeyed(0, 3)
    assert numbers(keys, OLD) == before
    assert rekey_files(keys, old=OLD, new=NEW) == Rekeyed(3, 0)
    assert numbers(keys, NEW) == before
    for file in keys:
        assert file.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigError, match="not opened by this secret"):
            load_key(file, OLD)


@pytest.mark.parametrize("crash_at", range(3))
def test_change_that_was_cut_short_is_taken_up(
    keys: list[Path], monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    rekey_files(keys, old=None, new=OLD)
    before = numbers(keys, OLD)
    count = 0

    def dies(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count > crash_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("amistack.keystore.flush_folder", dies)
        with pytest.raises(KeyboardInterrupt):
            rekey_files(keys, old=OLD, new=NEW)
    rekey_files(keys, old=OLD, new=NEW)
    assert numbers(keys, NEW) == before


def test_key_under_a_third_secret_is_named_and_nothing_lost(keys: list[Path]) -> None:
    third = make_secret()
    rekey_files(keys[1:2], old=None, new=third)
    with pytest.raises(ConfigError, match=r"k-00000001\.pem is not opened by this secret"):
        rekey_files(keys, old=OLD, new=NEW)
    with pytest.raises(ConfigError, match="name the one it has now"):
        rekey_files(keys, old=None, new=NEW)
    numbers(keys[1:2], third)


async def test_whole_store_with_a_hundred_sessions_is_the_same_after_a_change(
    tmp_path: Path,
) -> None:
    file = tmp_path / "s.sqlite"
    store = SqliteStore.open(file, sealer=Sealer(OLD))
    made = []
    for number in range(100):
        meter = meter_id(number)
        session = dataclasses.replace(session_of(meter), recipient_id=number.to_bytes(4))
        made.append(session)
        row = Meter(meter, public_key("x"), MeterState.ENROLLED, NOW)
        await store.commit(EnrolMeters((row,)))
        await store.commit(KeepSession(session, PATH))
    await store.close()
    shutil.copy(file, tmp_path / "copy.sqlite")
    seal_store(file, Sealer(OLD), Sealer(NEW))
    store = SqliteStore.open(file, sealer=Sealer(NEW))
    assert list(await store.sessions()) == made
    await store.close()
