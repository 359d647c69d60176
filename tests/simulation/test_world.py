"""Days of a street on a virtual clock, with kills and a foul network, judged by the promises.

The contract under test: whatever is lost, delayed, doubled, damaged or killed, (1) a day that a
meter has settled is in the head-end's file, at every moment; (2) in the end every interval is in
the store exactly once and equal to the source; (3) no pair of key and nonce ever covers two
plaintexts; (4) every on-demand read ends with a result; (5) a seed has one history.

The judges share no code with what they judge: the store is read as a file, values are unpacked
here from the published layout, and expected values come from a source of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from amistack.session.oscore import direct, protect
from amistack.telemetry import configure
from headend.domain.readings import OnDemandRead, ReadResult
from interop.world.loop import run_virtually
from interop.world.network import BAD, CRUEL, PERFECT, Quality
from interop.world.world import World
from meterd.metrology import HouseholdProfile

DAY_S = 86_400
BEGIN = 1_781_560_000.0  # 2026-06-15T21:46:40Z: two hours before a midnight
METER_COUNT = 3
SEED_COUNT = int(os.environ.get("AMISTACK_WORLD_SEEDS", "100"))


# What is seen of a run


class Ciphers:
    """Every encryption of a run: no (key, nonce) may cover two plaintexts."""

    def __init__(self) -> None:
        self.seen: dict[tuple[bytes, bytes], bytes] = {}
        self.reused = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        ciphers = self

        class Watched:
            def __init__(self, key: bytes, tag_length: int = 16) -> None:
                self._key = key
                self._real = AESCCM(key, tag_length)

            def encrypt(self, nonce: bytes, data: bytes, aad: bytes | None) -> bytes:
                covered = hashlib.sha256(data + b"|" + (aad or b"")).digest()
                known = ciphers.seen.setdefault((bytes(self._key), bytes(nonce)), covered)
                ciphers.reused += known != covered
                return self._real.encrypt(nonce, data, aad)

            def decrypt(self, nonce: bytes, data: bytes, aad: bytes | None) -> bytes:
                return self._real.decrypt(nonce, data, aad)

        with pytest.MonkeyPatch.context() as patch:
            for module in (direct, protect):
                patch.setattr(module, "AESCCM", Watched)
            yield


@dataclass
class Run:
    """What a run left behind."""

    is_settled: bool = False
    backup_count: int = 0
    history: str = ""
    reads: list[OnDemandRead] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    network: Counter[str] = field(default_factory=Counter)
    refused: dict[str, int] = field(default_factory=dict)
    ciphers: Ciphers = field(default_factory=Ciphers)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: a world flushes often."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="world-", dir=memory if memory.is_dir() else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


# The judges


def stored_blocks(folder: Path) -> dict[tuple[bytes, int], tuple[int, int, int, bytes, bytes]]:
    """Meter and day to interval, opening, advance, packed and qualities, from the bare file."""
    with sqlite3.connect(folder / "headend.sqlite") as connection:
        rows = connection.execute(
            "SELECT meter, day, channel, interval_s, opening, advance, packed, qualities "
            "FROM day_block"
        ).fetchall()
    connection.close()
    blocks = {}
    for meter, day, channel, *rest in rows:
        if channel == 1:
            assert (meter, day) not in blocks, "a day is stored twice"
            blocks[(meter, day)] = tuple(rest)
    return blocks


def unpacked(data: bytes, count: int) -> list[int]:
    """Packed values read bit by bit, as docs/protocol/model.md lays them out."""
    if not data:
        return [0] * count
    at = shift = zigzag = 0
    while True:
        zigzag |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            break
    floor = zigzag >> 1 if not zigzag & 1 else -(zigzag >> 1) - 1
    blocks = (count + 7) // 8
    widths = [
        data[at + i // 2] >> 4 if i % 2 == 0 else data[at + i // 2] & 0x0F for i in range(blocks)
    ]
    at += (blocks + 1) // 2
    for i, width in enumerate(widths):
        if width == 15:
            widths[i] = data[at]
            at += 1
    bits = "".join(f"{octet:08b}" for octet in data[at:])
    values, place = [], 0
    for i, width in enumerate(widths):
        size = min(8, count - 8 * i)
        for _ in range(size):
            values.append(floor + (int(bits[place : place + width], 2) if width else 0))
            place += width
        place += -place % 8
    return values


def check_durable(world: World) -> None:
    """(1): what a meter has settled is in the file."""
    blocks = stored_blocks(world.folder)
    for node in world.meters:
        if node.meter is None:
            continue
        recorder = node.meter.agent._recorder
        until = recorder.recorded_until
        assert until is not None
        today = until // DAY_S
        settled = set(range(today - 45, today)) - set(recorder.owed_days())
        missing = [day for day in settled if (bytes(node.identity.meter), day) not in blocks]
        assert not missing, f"settled and not stored: {missing}"


def check_equal(
    world: World, seed: int, begun_day: int, last_day: int, *, lost_before: int = 0
) -> None:
    """(2): every interval exactly once and equal to the source.

    Days before `lost_before` may be lost: a backup that was put back lacks them, and when their
    meter was heard again it kept them no more.
    """
    blocks = stored_blocks(world.folder)
    for number, node in enumerate(world.meters):
        source = HouseholdProfile(10 * seed + number)
        for day in range(begun_day - 45, last_day + 1):
            if day < lost_before and (bytes(node.identity.meter), day) not in blocks:
                continue
            interval_s, _, advance, packed, qualities = blocks[(bytes(node.identity.meter), day)]
            assert (interval_s, qualities) == (900, b"")
            expected = [values[0] for values in source.energy(day * DAY_S, 96)]
            assert unpacked(packed, 96) == expected, f"meter {number}, day {day}"
            assert advance == sum(value or 0 for value in expected)


# A run


async def live(world: World, run: Run, *, hours: float, foul: Quality, is_restoring: bool) -> None:
    begun_day = int(world.utc()) // DAY_S
    history = hashlib.sha256()
    world.network.watchers.append(
        lambda source, destination, octets: history.update(
            repr((round(world.utc(), 6), source, destination)).encode() + octets
        )
    )
    await world.start_head_end()
    for number in range(METER_COUNT):
        await world.add_meter(('source = "profile"', f"seed = {10 * world.seed + number}"))
    world.network.quality = foul
    for node in world.meters:
        await world.start_meter(node)
    backup = world.folder / "backup.sqlite"
    end = world.utc() + hours * 3600
    while world.utc() < end:
        await asyncio.sleep(world.dice.expovariate(1 / 900) + world.dice.random() * 3)
        # What a restored backup lacks is asked for, and there again in the end.
        if not is_restoring:
            check_durable(world)
        deed = world.dice.randrange(5 if is_restoring else 4)
        if deed == 0:
            run.kills["head-end"] += 1
            await world.kill_head_end()
            if not is_restoring:
                check_durable(world)
            await asyncio.sleep(world.dice.uniform(0, 60))
            await world.start_head_end()
        elif deed == 1:
            node = world.dice.choice(world.meters)
            run.kills["meter"] += 1
            world.kill_meter(node)
            await asyncio.sleep(world.dice.uniform(0, 60))
            await world.start_meter(node)
        elif deed == 2:
            await world.read(world.dice.choice(world.meters), deadline_s=30)
        elif deed == 4:
            await put_back(world, run, backup)
    world.network.quality = PERFECT
    if is_restoring:
        # Meters are asked when they are heard: at the latest with the next day's report.
        await asyncio.sleep(DAY_S)
    run.is_settled = await world.until_settled(at_most_s=2 * 3600)
    node = world.dice.choice(world.meters)
    run.reads.append(await world.read(node))
    check_durable(world)
    last_day = int(world.utc()) // DAY_S - 1
    assert world.head_end is not None
    run.refused = dict(world.head_end.southbound.refused)
    stored = list(await world.head_end.store.reads())
    run.reads += stored
    await world.stop()
    run.history = history.hexdigest()
    run.network = world.network.counters
    lost_before = last_day - 44 if is_restoring else 0
    check_equal(world, world.seed, begun_day, last_day, lost_before=lost_before)


async def put_back(world: World, run: Run, backup: Path) -> None:
    """Take a backup, or put the last one back in place of the store."""
    if run.backup_count == run.kills["restored"]:
        run.backup_count += 1
        with sqlite3.connect(world.folder / "headend.sqlite") as source:
            source.execute("VACUUM INTO ?", (str(backup),))
        source.close()
        return
    run.kills["restored"] += 1
    await world.kill_head_end()
    swap(world.folder, backup)
    await world.start_head_end()


def swap(folder: Path, backup: Path) -> None:
    """What an operator does: the backup takes the place of the file; the note stays."""
    for name in ("headend.sqlite", "headend.sqlite-wal", "headend.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    backup.rename(folder / "headend.sqlite")


def lived(seed: int, *, hours: float, foul: Quality, is_restoring: bool = False) -> Run:
    configure("error")
    run = Run()
    with scratch() as folder, run.ciphers.watching():
        world = World(seed, folder, BEGIN)
        run_virtually(live(world, run, hours=hours, foul=foul, is_restoring=is_restoring))
    return run


@pytest.mark.parametrize("seed", range(SEED_COUNT), ids=lambda seed: f"seed_{seed}")
def test_promises_hold_through_kills_and_a_foul_network(seed: int) -> None:
    run = lived(seed, hours=5, foul=CRUEL if seed % 4 == 0 else BAD)
    assert run.is_settled, "everything is settled in the end"
    assert run.ciphers.reused == 0
    assert run.reads[0].result is ReadResult.ANSWERED, run.reads[0]
    assert all(read.result is not ReadResult.ASKED for read in run.reads)


@pytest.mark.parametrize("seed", range(1000, 1012), ids=lambda seed: f"seed_{seed}")
def test_restored_backups_reuse_no_nonce_and_meters_come_back(seed: int) -> None:
    run = lived(seed, hours=8, foul=BAD, is_restoring=True)
    assert run.ciphers.reused == 0
    assert run.is_settled
    assert run.reads[0].result is ReadResult.ANSWERED, run.reads[0]


def test_a_seed_has_one_history() -> None:
    first, second = (lived(7, hours=3, foul=BAD) for _ in range(2))
    assert first.history == second.history
    assert first.kills == second.kills


def test_perfect_world_is_plain() -> None:
    """No fault but the kills: nothing is refused that a fault would have to explain."""
    run = lived(3, hours=3, foul=PERFECT)
    assert run.network["lost"] == run.network["damaged"] == 0
    assert run.is_settled


def test_seeds_reach_what_they_are_for() -> None:
    """Guards the test itself: dice so kind that they prove nothing."""
    runs = [lived(seed, hours=5, foul=CRUEL) for seed in (100, 104, 108)]
    restored = [lived(seed, hours=8, foul=BAD, is_restoring=True) for seed in range(1000, 1003)]
    assert sum(run.kills["head-end"] for run in runs) >= 5
    assert sum(run.kills["meter"] for run in runs) >= 5
    assert all(run.network["lost"] and run.network["damaged"] for run in runs)
    assert sum(run.kills["restored"] for run in restored) >= 2
    assert len({run.history for run in runs}) == len(runs)
