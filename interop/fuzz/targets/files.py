"""What programs read from their disk: settings, keys, the meter's journal, recordings, captures."""

from __future__ import annotations

import base64
import functools
import mmap
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cbor2

from amistack import settings
from amistack.errors import ConfigError, SourceError, StoreError, StoreUnusable
from amistack.keystore import load_key
from amistack.links.capture import Form, Lines, Pcapng
from amistack.links.udp import Direction
from headend.config import Settings as HeadEndSettings
from interop.fuzz.target import Outcome, Reader, Target, promise, refusal, size_class
from meterd.config import Settings as MeterSettings
from meterd.files import Appendable
from meterd.journal import HEADER, MAGIC, Journal, Key, Value
from meterd.metrology.replay import ReplaySource
from meterd.storage import ChannelDay, Storage

MEMORY: Final = Path("/dev/shm")


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process, removed at its end; in memory where the system has a place."""
    in_memory = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="interop-fuzz-", dir=in_memory)


def _written(name: str, octets: bytes, mode: int = 0o600) -> Path:
    """A file with these octets and nothing else in it."""
    path = Path(_folder().name) / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(descriptor, octets)
    finally:
        os.close(descriptor)
    return path


# Settings and keys


def run_settings(data: bytes) -> Outcome:
    """A TOML file, as the head-end's settings and as the meter's."""
    path = _written("settings.toml", data)
    outcome: list[Outcome] = []
    for kind in (HeadEndSettings, MeterSettings):
        try:
            settings.load(path, kind)
        except ConfigError as error:
            said = str(error)
            promise("\n" not in said and len(said) < 1000, "a refusal is one line")
            promise(str(path) in said, "a refusal names the file")
            # Of what was said: the last word tells what was expected.
            outcome.append((refusal(error), said.rpartition(" ")[2][:12]))
        else:
            outcome.append("read")
    return tuple(outcome)


def run_key(data: bytes) -> Outcome:
    """A key file."""
    path = _written("key.pem", data)
    try:
        load_key(path)
    except ConfigError as error:
        return refusal(error)
    return "read"


# The meter's journal


class _MemoryFile:
    """A file of `MemoryFiles`, open for appending."""

    def __init__(self, octets: bytearray) -> None:
        self._octets = octets

    def append(self, octets: bytes) -> None:
        self._octets += octets

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryFiles:
    """A folder that is nowhere: a `meterd.files.Files`."""

    def __init__(self, files: dict[str, bytearray]) -> None:
        self.files = files

    def names(self) -> list[str]:
        """The files in it."""
        return list(self.files)

    def read(self, name: str, size_max: int) -> bytes:
        """All of a file, or its first `size_max` octets."""
        return bytes(self.files[name][:size_max])

    def create(self, name: str) -> Appendable:
        """A new file, in place of one of that name."""
        self.files[name] = bytearray()
        return _MemoryFile(self.files[name])

    def open_at(self, name: str, size: int) -> Appendable:
        """An existing file, cut."""
        del self.files[name][size:]
        return _MemoryFile(self.files[name])

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        self.files[new] = self.files.pop(old)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.files.pop(name, None)

    def close(self) -> None:
        """Give the folder back."""


NAME: Final = "journal-00000002"
OLDER_NAME: Final = "journal-00000001"


def run_journal(data: bytes) -> Outcome:
    """One octet of manner, then a segment; or the bodies of its frames, two octets of size before.

    Manner, by its bits: 1 the frames are made here, and are whole but for the body; 2 a second
    segment is there, an older one; 4 octets are missing at the end.
    """
    reader = Reader(data)
    manner = reader.octet()
    cut = reader.octet() if manner & 4 else 0
    octets = _segment(reader) if manner & 1 else reader.rest()
    files = {NAME: bytearray(octets[: len(octets) - cut] if cut else octets)}
    if manner & 2:
        files[OLDER_NAME] = bytearray(_older_segment())
    try:
        storage = Storage.on(MemoryFiles(files))
    except StoreUnusable as error:
        promise("\n" not in str(error), "a refusal is one line")
        return refusal(error), str(error)[24:44]
    journal = storage.journal
    dropped = journal.dropped_octets
    tables = _tables_of(journal)
    outcome = size_class(dropped), tuple(sorted(tables)), size_class(len(storage.owed_days()))
    _use(storage)
    # What was taken up is durable: the next start finds the same, and nothing to drop.
    after = _tables_of(journal)
    storage.close()
    again = Storage.on(MemoryFiles(files))
    promise(again.journal.dropped_octets == 0, "a journal of our own has octets to drop")
    promise(_tables_of(again.journal) == after, "the next start finds other tables")
    return outcome


def _use(storage: Storage) -> None:
    """What a meter does with its storage at a start. Raises nothing that is not a StoreError."""
    storage.session()
    storage.owed_days()
    storage.channel_days(20_777)
    storage.entries(0, 2**32, limit=10)
    try:
        storage.keep_note("a note", "of ours")
        storage.keep_channel_days([ChannelDay(20_777, 1, 5, 6, 7, b"packed", 0)])
    except StoreError:
        pass


def _tables_of(journal: Journal) -> dict[str, dict[Key, Value]]:
    names = (*("note", "day", "owed", "log", "session"), "other")
    return {name: dict(journal.table(name)) for name in names if journal.table(name)}


def _segment(reader: Reader) -> bytes:
    """A segment of whole frames, whose bodies are the input's."""
    octets = bytearray(MAGIC)
    crc = zlib.crc32(NAME.encode())
    while not reader.is_spent:
        body = reader.take(reader.number(2) % 512)
        size = len(body).to_bytes(4, "big")
        crc = zlib.crc32(body, zlib.crc32(size, crc))
        octets += HEADER.pack(len(body), crc) + body
    return bytes(octets)


@functools.lru_cache(maxsize=1)
def _older_segment() -> bytes:
    files: dict[str, bytearray] = {}
    journal = Journal(MemoryFiles(files))
    journal.transact([("note", "older", "yes")])
    journal.close()
    return bytes(files[OLDER_NAME])


def _changes(*changes: tuple[object, ...]) -> bytes:
    body = cbor2.dumps([list(change) for change in changes])
    return len(body).to_bytes(2, "big") + body


# Recordings and captures


def run_replay(data: bytes) -> Outcome:
    """One octet of settings, then a recording of a meter in CSV."""
    manner = data[0] if data else 0
    path = _written("recording.csv", data[1:])
    try:
        source = ReplaySource.open(
            path,
            unit=("Wh", "kWh", "kW", "W")[manner & 3],
            zone=(None, "+01:00", "Europe/Berlin", "UTC")[manner >> 2 & 3],
            stamp="end" if manner & 0x10 else "start",
            shift="last-day-is-yesterday" if manner & 0x20 else "none",
            today=1_795_170_000 if manner & 0x20 else None,
            time_column="time" if manner & 0x40 else None,
            value_column="value" if manner & 0x40 else None,
            offset_min=60 if manner & 0x80 else 0,
        )
    except SourceError as error:
        promise("\n" not in str(error), "a refusal is one line")
        return refusal(error)
    first, end = source.available()
    promise(
        first is not None and end is not None and first < end, "a recording has something in it"
    )
    assert first is not None
    if first < 0:
        return "begins before 1970, where no meter asks"
    values = source.energy(first, 1)
    promise(values[0][0] is not None, "the first interval of a recording is known")
    str(source.report)
    return size_class(source.report.rows), source.report.missing > 0, source.report.gaps > 0


_FORMS: Final[tuple[Form, ...]] = (Pcapng(), Lines())


def run_capture(data: bytes) -> Outcome:
    """What is there already where a capture is to go on: one octet for the form, then the file."""
    which = data[0] & 1 if data else 0
    octets = data[1:]
    form = _FORMS[which]
    if not octets or not form.is_begun_by(octets[:256]):
        return which, "no capture"
    whole = _whole_size(form, octets)
    promise(0 <= whole <= len(octets), "more is whole than there is")
    if whole:
        promise(_whole_size(form, octets[:whole]) == whole, "what was whole is cut the next time")
    on = octets[:whole] + form.start() + _entry(form)
    promise(_whole_size(form, on) == len(on), "what is written behind it is not found again")
    return which, size_class(whole), whole == len(octets)


def _whole_size(form: Form, octets: bytes) -> int:
    with mmap.mmap(-1, len(octets)) as mapped:
        mapped[:] = octets
        return form.whole_size(mapped)


def _entry(form: Form) -> bytes:
    return form.entry(
        Direction.RECEIVED,
        ("192.0.2.7", 5683),
        ("192.0.2.1", 5683),
        b"\x40\x01\x00\x01",
        utc=5.0,
        comment="seen",
    )


# Seeds


def settings_seeds() -> Sequence[bytes]:
    """Both programs' files, whole and in part."""
    head_end = b"""
[server]
listen = "[::]:5683"
[store]
path = "headend.sqlite"
[identity]
key = "key.pem"
[metrics]
listen = "127.0.0.1:9100"
[log]
level = "info"
"""
    meter = b"""
[meter]
id = "02004c00000000a1"
key = "key.pem"
standard_offset = "+01:00"
register_start = [0, 17]
[headend]
address = "127.0.0.1:5683"
public_key = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
[schedule]
report_delay_s = 60
catch_up_s = 2.5
[metrology]
source = "profile"
interval_s = 900
"""
    return [head_end, meter, b"", b"a = 1\n", b"[meter]\nid = 7\n", b"x = [[[[]]]]\n", b"\xff"]


def key_seeds() -> Sequence[bytes]:
    """A key as the programs write it, and what resembles one."""
    # The private key is 1: nobody can take it for a secret.
    key = bytes.fromhex(
        "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420" + "00" * 31 + "01"
    )
    text = base64.encodebytes(key)
    return [
        b"-----BEGIN PRIVATE KEY-----\n" + text + b"-----END PRIVATE KEY-----\n",
        b"-----BEGIN EC PRIVATE KEY-----\n" + text + b"-----END EC PRIVATE KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n" + text + b"-----END PUBLIC KEY-----\n",
        b"",
    ]


def journal_seeds() -> Sequence[bytes]:
    """What a meter's storage writes, as octets and as bodies."""
    files = {OLDER_NAME: bytearray(_older_segment())}
    storage = Storage.on(MemoryFiles(files))
    _use(storage)
    storage.owe(20_777)
    storage.close()
    octets = files[NAME]
    bodies = (
        _changes(("note", "a", "b"), ("owed", 20_777, True)),
        _changes(("day", (20_777, 1), (5, 6, 7, b"packed", b"\x00"))),
        _changes(("log", 3, (5, "3.26.0.216", None, False, False))),
        _changes(("session", 1, (b"h", b"r", b"s", b"k", b"l", 64, 3, 0))),
        _changes(("other", "x", 1), ("note", "a", None)),
    )
    return [
        b"\x00" + bytes(octets),
        b"\x04\x05" + bytes(octets),
        b"\x02" + MAGIC,
        b"\x00AMIMTR2\n",
        *(b"\x01" + body for body in bodies),
        b"\x01" + b"".join(bodies),
        b"\x07\x03" + b"".join(bodies[:2]),
        b"\x01" + _changes(("day", (1, 1), 7)) + _changes(("log", "x", ())),
    ]


def replay_seeds() -> Sequence[bytes]:
    """Recordings as meters and utilities hand them out."""
    stamps = [f"2026-03-0{1 + hour // 24}T{hour % 24:02}:00:00" for hour in range(5)]
    plain = "".join(f"{stamp}Z,{7 * row}\n" for row, stamp in enumerate(stamps)).encode()
    named = (
        b"time;value\n" + "".join(f"{stamp};{row},5\n" for row, stamp in enumerate(stamps)).encode()
    )
    epoch = "".join(f"{1_772_323_200 + 900 * row}\t{row}.25\n" for row in range(6)).encode()
    return [
        b"\x00" + plain,
        b"\x05" + plain.replace(b"Z", b""),
        b"\x44" + named,
        b"\x12" + epoch,
        b"\x21" + plain + plain,
        b"\x89" + b"\xef\xbb\xbf" + plain.replace(b"14", b"").replace(b",7", b",n/a"),
        b"\x00",
    ]


def capture_seeds() -> Sequence[bytes]:
    """Captures of either form, with datagrams in them."""
    seeds = []
    for which, form in enumerate(_FORMS):
        head, entry = bytes((which,)) + form.start(), _entry(form)
        seeds += [head, head + entry, head + entry * 2 + form.start(), head + entry + entry[:-3]]
    return seeds


TARGETS: Final = (
    Target(
        "settings",
        "a TOML file as a program's settings: ConfigError, one line that names the file, or read",
        run_settings,
        settings_seeds,
        tokens=(
            b"[",
            b"]",
            b'"',
            b" = ",
            b"\n",
            b"1e400",
            b"true",
            b"'''",
            b"{}",
            b"~root",
            b"\\u0000",
        ),
        size_max=512,
    ),
    Target(
        "key_file",
        "a private key's file: ConfigError, or a P-256 key",
        run_key,
        key_seeds,
        tokens=(b"-----BEGIN ", b"PRIVATE KEY-----", b"ENCRYPTED ", b"\n", b"=", b"AAAA", b"MEE"),
    ),
    Target(
        "meter_journal",
        "any octets as a meter's journal: StoreUnusable, or tables that the next start finds again",
        run_journal,
        journal_seeds,
        tokens=(
            MAGIC,
            b"AMIMTR2\n",
            b"\x00\x00\x00\x01",
            b"\x81\x83",
            b"\x64note",
            b"\xf6",
            b"\x63day",
        ),
        size_max=512,
    ),
    Target(
        "replay_csv",
        "a recording in CSV: SourceError of one line, or a source that knows its first interval",
        run_replay,
        replay_seeds,
        tokens=(
            b",",
            b";",
            b"\t",
            b"\n",
            b"Z",
            b"+01:00",
            b"1e99",
            b"nan",
            b'"',
            b"-1",
            b"2026-03-29T02:30",
        ),
    ),
    Target(
        "capture_file",
        "a file where a capture is to go on: what is whole in it is found, and stays found",
        run_capture,
        capture_seeds,
        tokens=(b"\n\r\r\n", b"\x4d\x3c\x2b\x1a", b"\x00\x00\x00\x0c", b"\x0c\x00\x00\x00", b"\n"),
    ),
)
