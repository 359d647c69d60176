"""A store that is put back from a backup again and again, under a street that goes on reporting.

The contract under test: a head-end that was killed and started with an older copy of its store gets
by itself what the copy lacks. In the end every day that the meters keep is stored once and as it
was measured, every meter answers, and all that a hand did was to put the copy in place.

The programs are processes of their own, as in `test_kills`. AMISTACK_SEED sets the dice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios import readback
from tests.scenarios.processes import script
from tests.scenarios.test_kills import PLACES, Street

ROUNDS = 5
CATCH_UP_S = 1.0
"""Between two reports of a meter in the mean: 45 days last longer than the rounds."""
CATCH_UP_QUICK_S = 0.01
"""Once the rounds are over."""
AHEAD_REPORTS = 5
"""How many reports must be acknowledged after a copy was taken: it is to lack them."""
WAIT_S = 20.0
FRESHNESS_ASKED = "session: freshness asked"


class BackedUpStreet(Street):
    """A street whose head-end is set back to what it was some moments ago."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        super().__init__(folder, dice, kill_count=0)
        self.lacking: list[int] = []
        """Days that were stored and that each copy lacked as it was put in place."""
        self.asked = 0
        """Meters that were asked, after the last restore, to prove that what they sent is new."""

    async def be_restored(self) -> None:
        """All rounds; then everybody is heard once more."""
        begun = time.monotonic()
        async for _ in self._patience("nobody reports"):
            if self._acknowledged_count() >= PLACES:
                break
        for number in range(ROUNDS):
            await self.go_back(number)
        await self.be_heard()
        await self.be_asked()
        self.kill_s = time.monotonic() - begun

    def set_pace(self, catch_up_s: float) -> None:
        """How fast meters report when they start the next time."""
        for home in self.everybody:
            config = home.folder / "meterd.toml"
            text = config.read_text(encoding="utf-8")
            paced, count = re.subn(r"(?m)^catch_up_s = .*$", f"catch_up_s = {catch_up_s}", text)
            assert count == 1
            config.write_text(paced, encoding="utf-8")

    def move_in(self) -> None:
        """All meters run."""
        self.set_pace(CATCH_UP_S)
        self._move_in()
        assert len(self.homes) == PLACES

    async def go_back(self, number: int) -> None:
        """Take a copy, go on until it lacks something, kill the head-end, put the copy in place."""
        copy = self.folder / f"copy-{number}.sqlite"
        with (
            readback.opened(self.store) as running,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            running.backup(target)
        begun = self._acknowledged_count()
        async for _ in self._patience("nothing is reported after the copy"):
            if self._acknowledged_count() >= begun + AHEAD_REPORTS:
                break
        self.head_end.kill()
        before = readback.reported_days(self.store)
        for end in ("-wal", "-shm"):
            self.store.with_name(self.store.name + end).unlink(missing_ok=True)
        assert self.store.with_name(self.store.name + "-beat").exists()
        shutil.copyfile(copy, self.store)
        after = readback.reported_days(copy)
        self.lacking.append(
            sum(len(days - after.get(meter, set())) for meter, days in before.items())
        )
        self.head_end.start()

    def _acknowledged_count(self) -> int:
        return sum(len(home.acknowledged_days()) for home in self.homes)

    async def be_heard(self) -> None:
        """Start every meter anew: it is heard then, and asked for what the store lacks."""
        self.set_pace(CATCH_UP_QUICK_S)
        for home in self.homes:
            home.program.stop()
            home.program.start()

    async def be_asked(self) -> None:
        """Wait until the head-end has asked everybody whom it wanted to ask."""
        async for _ in self._patience("meters are still to be asked for days"):
            status = await self.status()
            if status["recalls_waiting"] == 0:
                self.asked = status["refused"].get(FRESHNESS_ASKED, 0)
                return

    async def status(self) -> dict[str, Any]:
        """What `headend status --json` prints, once the head-end answers."""
        async for _ in self._patience("the head-end does not answer"):
            done = await asyncio.create_subprocess_exec(
                *(script("headend"), "status", "--json"),
                cwd=self.folder,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            printed, _ = await done.communicate()
            if done.returncode == 0:
                break
        status: dict[str, Any] = json.loads(printed)
        return status

    async def _patience(self, complaint: str) -> AsyncIterator[None]:
        """Some turns to look whether it is so; fails when there were enough of them."""
        end = time.monotonic() + WAIT_S
        while True:
            self.head_end.check()
            for home in self.homes:
                home.program.check()
            yield
            assert time.monotonic() < end, complaint
            await asyncio.sleep(0.05)

    def judge_days(self) -> None:
        """Every day once and as it was measured. What was told of reads may be set back."""
        expected = {
            (home.meter, channel, day): home.household.expected(channel, day, self.days[0])
            for home in self.done
            for channel in range(1, 1 + len(home.household.values))
            for day in self.days
        }
        assert readback.stored_days(self.store) == expected
        assert readback.reported_days(self.store) == {
            home.meter: set(self.days) for home in self.done
        }
        assert readback.quarantined(self.store) == []
        assert readback.ASKED not in readback.reads(self.store).values(), "a read without an end"


def complaints(street: Street) -> list[str]:
    """Logs of all lives in which a program did not expect what it met."""
    return [str(log) for log in street.folder.rglob("*.log") if "Traceback" in log.read_text()]


@pytest.mark.timeout(120)
async def test_five_restored_backups_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("AMISTACK_SEED", "1"))
    # Shown by pytest if it fails.
    print(f"AMISTACK_SEED={seed}; logs and stores are in {tmp_path}")
    street = BackedUpStreet(tmp_path, random.Random(seed))
    reader: asyncio.Task[None] | None = None
    try:
        await street.begin()
        street.move_in()
        restoring = asyncio.create_task(street.be_restored())
        reader = asyncio.create_task(street.be_read())
        await asyncio.wait((restoring, reader), return_when=asyncio.FIRST_COMPLETED)
        if reader.done():
            restoring.cancel()
            reader.result()
        await restoring
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await street.come_to_rest()
    finally:
        if reader is not None:
            reader.cancel()
        street.end()
    print(
        f"days that the copies lacked: {street.lacking}; asked for freshness: {street.asked}; "
        f"on-demand reads: {Counter(street.told.values())}; the head-end starts in "
        f"{street.start_s:.2f} s, rounds took {street.kill_s:.1f} s, rest {street.rest_s:.1f} s"
    )
    street.judge_days()
    assert complaints(street) == []
    assert not any(
        program.is_running for program in (street.head_end, *(home.program for home in street.done))
    )
    # The test did what it says: copies were behind, and their sessions doubtful.
    assert len(street.lacking) == ROUNDS
    assert all(street.lacking)
    assert street.asked
