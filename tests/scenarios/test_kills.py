"""Programs that are killed again and again, at any moment, and a store that shows nothing of it.

The contract under test: whatever is killed with SIGKILL and started again, what a meter was told
is stored is in the store, every interval comes to the store once and as it was measured, what was
told of an on-demand read is so, and nobody needs a hand afterwards.

The head-end and every meter are processes of their own, by their console scripts, over loopback.
A meter replays a file that the test wrote, and begins with 45 days to report. Once it has told all,
another takes its place, so that kills hit meters at work. AMISTACK_SEED sets the dice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amistack.identifiers import Eui64
from headend.client import ApiError, AsyncHeadEndClient
from meterd.daemon import load_settings
from meterd.provision import Template, provision
from meterd.storage import Storage
from tests.scenarios import readback
from tests.scenarios.processes import Program, free_port, script
from tests.scenarios.readback import StoredDay, Values

DAY_S = 86_400
INTERVAL_S = 900
COUNT = DAY_S // INTERVAL_S
HISTORY_DAYS = 45
PLACES = 6
KILLS_PER_METER = 4
"""About how many kills a meter lives through until it has told its 45 days."""
HEAD_END_SHARE = 0.25
MOMENTS = (
    "",
    "meter started",
    "session opened",
    "registered",
    *("report acknowledged",) * 4,
)
"""Of a meter's life, until which its killer waits: by the clock most kills would hit starts."""
PATIENCE_STARTS = 1.5
"""For how long, as a multiple of what the head-end takes to start, here and now."""
QUIET_S = 90.0
READ_DEADLINE_S = 1.5
READERS = 4


@dataclass
class Household:
    """What one meter measures: chosen by the test, told to the meter in a file."""

    register_start: tuple[int, ...]
    first_day: int
    offset_s: int
    values: tuple[dict[int, Values], ...]
    """For each channel, each day's values."""

    @classmethod
    def drawn(cls, dice: random.Random, *, days: range, offset_s: int, channels: int) -> Household:
        known = [[dice.random() >= 0.01 for _ in range(COUNT)] for _ in days]

        def drawn(place: int) -> Values:
            return tuple(
                dice.choice((0, dice.randrange(60), dice.randrange(4_000))) if is_known else None
                for is_known in known[place]
            )

        values = tuple(
            {day: drawn(place) for place, day in enumerate(days)} for _ in range(channels)
        )
        start = tuple(dice.randrange(10**9) for _ in range(channels))
        return cls(start, days[0], offset_s, values)

    def write(self, path: Path) -> None:
        names = ("start", "taken", "given")[: 1 + len(self.values)]
        lines = [",".join(names)]
        for day in self.values[0]:
            for place in range(COUNT):
                at = day * DAY_S - self.offset_s + place * INTERVAL_S
                row = [channel[day][place] for channel in self.values]
                lines.append(",".join([str(at), *("" if one is None else str(one) for one in row)]))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def expected(self, channel: int, day: int, recorded_from: int) -> StoredDay:
        """What must be in the store of a day, for a register that began on `recorded_from`."""
        days = self.values[channel - 1]
        before = sum(total(days[one]) for one in range(recorded_from, day))
        return StoredDay(self.register_start[channel - 1] + before, total(days[day]), days[day])

    def register_bounds(self, channel: int, utc: float, recorded_from: int) -> tuple[int, int]:
        """Between what a register must be at `utc`: an interval that runs may be in it partly."""
        day, second = divmod(int(utc + self.offset_s), DAY_S)
        whole = self.expected(channel, day, recorded_from)
        place = second // INTERVAL_S
        least = whole.opening + total(whole.values[:place])
        return least, least + (whole.values[place] or 0)


def total(values: Sequence[int | None]) -> int:
    return sum(value or 0 for value in values)


@dataclass
class Home:
    """A meter of the street with all that the test knows about it."""

    meter: str
    key: str
    folder: Path
    household: Household
    program: Program

    def acknowledged_days(self) -> list[int]:
        """The days of which it said that they are settled, in all its lives."""
        return [int(str(event["day"])) for event in self.program.events("report acknowledged")]

    def lives_at_work(self) -> int:
        """In how many lives it had something to tell, and was heard."""
        lives = range(1, 1 + self.program.life)
        return sum(any(self.program.events("report acknowledged", life=one)) for one in lives)

    def owed_days(self) -> list[int]:
        """What its storage says; only while it does not run."""
        storage = Storage.open(load_settings(self.folder / "meterd.toml").meter.storage)
        try:
            return list(storage.owed_days())
        finally:
            storage.close()


@dataclass
class Street:
    folder: Path
    dice: random.Random
    kill_count: int
    today: int = 0
    homes: list[Home] = field(default_factory=list)
    waiting: list[Home] = field(default_factory=list)
    done: list[Home] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    """The result of every on-demand read that the head-end told, by identifier."""
    kills: dict[str, int] = field(default_factory=dict)
    read_in_turmoil: int = 0
    start_s: float = 0.0
    kill_s: float = 0.0
    rest_s: float = 0.0

    def __post_init__(self) -> None:
        # Its own, which readers do not draw from.
        self.kill_dice = random.Random(self.dice.random())
        now = datetime.now(UTC)
        # Their standard time is so that it is about noon: no midnight comes into the test.
        hours = 12 - now.hour
        self.offset_s = hours * 3600
        self.offset = f"{'-' if hours < 0 else '+'}{abs(hours):02}:00"
        self.today = int(now.timestamp() + self.offset_s) // DAY_S
        self.days = range(self.today - HISTORY_DAYS, self.today)
        self.store = self.folder / "headend.sqlite"
        self.head_end = Program("headend", ("serve",), self.folder)

    @property
    def everybody(self) -> list[Home]:
        return [*self.homes, *self.waiting, *self.done]

    # Set-up

    async def begin(self) -> None:
        """The head-end runs, and knows the meters; those do not run yet."""
        port = free_port()
        made = await asyncio.create_subprocess_exec(
            script("headend"),
            *("init", "--listen", f"127.0.0.1:{port}"),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        printed, _ = await made.communicate()
        (public_key,) = (
            line.split('"')[1]
            for line in printed.decode().splitlines()
            if line.startswith("public_key")
        )
        begun = time.monotonic()
        self.head_end.start()
        async with AsyncHeadEndClient(self.folder / "headend.sock") as client:
            while True:
                with contextlib.suppress(ApiError):
                    await client.status()
                    break
                self.head_end.check()
                await asyncio.sleep(0.02)
            self.start_s = time.monotonic() - begun
            for number in range(PLACES + self.kill_count // KILLS_PER_METER):
                self.waiting.append(self._home(number, f"127.0.0.1:{port}", public_key))
            await client.enrol([(home.meter, home.key) for home in self.waiting])

    def _home(self, number: int, address: str, public_key: str) -> Home:
        folder = self.folder / f"home-{number:03}"
        household = Household.drawn(
            self.dice,
            # Some more on either side than a meter keeps.
            days=range(self.today - HISTORY_DAYS - 2, self.today + 2),
            offset_s=self.offset_s,
            channels=1 + number % 2,
        )
        received = ('received_column = "given"',) if number % 2 else ()
        template = Template(
            address=address,
            public_key=public_key,
            standard_offset=self.offset,
            register_start=household.register_start,
            metrology=('source = "replay"', 'path = "load.csv"', 'unit = "Wh"', *received),
            schedule=(
                "report_delay_s = 0",
                "report_spread_s = 0",
                "start_spread_s = 0",
                # Slow enough to be killed at it.
                "catch_up_s = 0.02",
            ),
        )
        identity = provision(folder, template)
        household.write(folder / "load.csv")
        config = folder / "meterd.toml"
        with config.open("a", encoding="utf-8") as file:
            file.write('\n[link]\nlisten = "127.0.0.1:0"\n')
        program = Program("meterd", ("run", "--config", str(config)), folder)
        return Home(identity.meter.hex(), identity.public_key.hex(), folder, household, program)

    # What happens

    async def be_killed(self) -> None:
        """Kill one after the other and start it again at once."""
        begun = time.monotonic()
        self._move_in()
        for _ in range(self.kill_count):
            if self.kill_dice.random() < HEAD_END_SHARE:
                await self._until(self.homes, "report acknowledged")
                self._kill_head_end()
            else:
                home = self.kill_dice.choice(self.homes)
                await self._until([home], self.kill_dice.choice(MOMENTS))
                home.program.kill()
                home.program.start()
                self.kills["meter"] = self.kills.get("meter", 0) + 1
            self._move_out()
            self._move_in()
        self.kill_s = time.monotonic() - begun

    async def _until(self, homes: Sequence[Home], moment: str) -> None:
        """Wait until those have said so some times more; not for ever, as they may be through."""

        def count() -> int:
            return sum(home.program.log().count(f'"event": "{moment}"') for home in homes)

        wanted = self.kill_dice.randrange(1, HISTORY_DAYS) if "report" in moment else 1
        if len(homes) > 1:
            wanted += count()
        end = time.monotonic() + self.kill_dice.random() * PATIENCE_STARTS * self.start_s
        while moment and count() < wanted and time.monotonic() < end:  # noqa: ASYNC110  a process
            await asyncio.sleep(0.005)
        await asyncio.sleep(self.kill_dice.random() * 0.005)

    def _kill_head_end(self) -> None:
        acknowledged = {home.meter: home.acknowledged_days() for home in self.homes}
        self.head_end.kill()
        stored = readback.reported_days(self.store)
        for meter, days in acknowledged.items():
            lost = set(days) - stored.get(meter, set())
            assert not lost, f"{meter} was told that {sorted(lost)} are stored"
        self.head_end.start()
        self.kills["headend"] = self.kills.get("headend", 0) + 1

    def _move_out(self) -> None:
        """Homes that have told everything make room for others."""
        stored = readback.reported_days(self.store)
        for home in [one for one in self.homes if self.waiting]:
            has_spoken = any(home.program.events("registered", life=home.program.life))
            if has_spoken and len(stored.get(home.meter, ())) == HISTORY_DAYS:
                self._retire(home)

    def _move_in(self) -> None:
        while self.waiting and len(self.homes) < PLACES:
            home = self.waiting.pop(0)
            home.program.start()
            self.homes.append(home)

    def _retire(self, home: Home) -> bool:
        """Stop a meter for good, if it owes nothing; else it goes on."""
        home.program.stop()
        if home.owed_days():
            home.program.start()
            return False
        self.homes.remove(home)
        self.done.append(home)
        return True

    async def be_read(self) -> None:
        """Read meters without end; remember what was told."""
        async with AsyncHeadEndClient(self.folder / "headend.sock") as client:
            while True:
                await asyncio.sleep(0.05)
                with contextlib.suppress(ApiError):  # Nobody answers: it was killed.
                    await self.read(client, self.dice.choice(self.homes))

    async def read(self, client: AsyncHeadEndClient, home: Home) -> str:
        """Read a meter; what it says must be so. The result in words."""
        read = await client.read(Eui64(bytes.fromhex(home.meter)), deadline_s=READ_DEADLINE_S)
        self.told[read.identifier] = read.result
        if read.answer is not None:
            at = datetime.fromisoformat(read.answer.at).timestamp()
            for register in read.answer.registers:
                least, most = home.household.register_bounds(register.channel, at, self.days[0])
                assert register.value is None or least <= register.value <= most
        return read.result

    async def come_to_rest(self) -> None:
        """Nobody is killed any more: all is told, without help, and everybody answers."""
        self.read_in_turmoil = len(self.told)
        end = time.monotonic() + QUIET_S
        async with AsyncHeadEndClient(self.folder / "headend.sock") as client:
            while True:
                self.head_end.check()
                for home in self.homes:
                    home.program.check()
                stored = readback.reported_days(self.store)
                if all(stored.get(home.meter) == set(self.days) for home in self.homes):
                    break
                assert time.monotonic() < end, self._whats_missing(stored)
                await asyncio.sleep(0.1)
            for home in self.homes:
                result = ""
                while result != "answered":
                    assert time.monotonic() < end, f"{home.meter} does not answer: {result}"
                    with contextlib.suppress(ApiError):
                        result = await self.read(client, home)
        while self.homes:
            for home in list(self.homes):
                if not self._retire(home):
                    assert time.monotonic() < end, f"{home.meter} owes {home.owed_days()}"
                    await asyncio.sleep(0.5)
        self.head_end.stop()
        self.rest_s = time.monotonic() - end + QUIET_S

    def _whats_missing(self, stored: dict[str, set[int]]) -> str:
        lines = [
            f"{home.meter} in {home.folder}: {len(stored.get(home.meter, ()))} days\n"
            + home.program.log()[-600:]
            for home in self.homes
            if stored.get(home.meter) != set(self.days)
        ]
        return f"not all is told within {QUIET_S:g} s\n" + "\n".join(lines)

    def end(self) -> None:
        """Nobody is left behind."""
        for program in (self.head_end, *(home.program for home in self.everybody)):
            program.end()

    # What must be so

    def judge(self) -> None:
        moved_in = self.done
        expected = {
            (home.meter, channel, day): home.household.expected(channel, day, self.days[0])
            for home in moved_in
            for channel in range(1, 1 + len(home.household.values))
            for day in self.days
        }
        stored = readback.stored_days(self.store)
        assert stored.keys() == expected.keys()
        wrong = [key for key, day in expected.items() if stored[key] != day]
        assert not wrong, f"{wrong[0]}: {stored[wrong[0]]}, expected {expected[wrong[0]]}"
        assert readback.reported_days(self.store) == {
            home.meter: set(self.days) for home in moved_in
        }
        assert readback.quarantined(self.store) == []
        for home in moved_in:
            days = home.acknowledged_days()
            assert len(days) == len(set(days)), f"{home.meter}: settled and reported again"

        kept = readback.reads(self.store)
        assert readback.ASKED not in kept.values(), "a read without an end"
        for identifier, result in self.told.items():
            is_answered = kept.get(identifier) == readback.ANSWERED
            assert is_answered == (result == "answered"), f"read {identifier} was told {result}"


async def kill_a_street(folder: Path, *, seed: int, kill_count: int) -> Street:
    """A whole run, judged; what happened in it is told."""
    # Shown by pytest if it fails.
    print(f"AMISTACK_SEED={seed}; logs and stores are in {folder}")
    street = Street(folder, random.Random(seed), kill_count)
    readers: list[asyncio.Task[None]] = []
    try:
        await street.begin()
        readers = [asyncio.create_task(street.be_read()) for _ in range(READERS)]
        killing = asyncio.create_task(street.be_killed())
        await asyncio.wait((killing, *readers), return_when=asyncio.FIRST_COMPLETED)
        for reader in readers:
            if reader.done():
                killing.cancel()
                reader.result()
        await killing
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await street.come_to_rest()
    finally:
        for reader in readers:
            reader.cancel()
        street.end()
    print(
        f"{street.kills}, {len(street.done)} meters, at work in "
        f"{Counter(home.lives_at_work() for home in street.done)} lives, on-demand reads "
        f"{Counter(street.told.values())}, {street.read_in_turmoil} between kills; "
        f"the head-end starts in {street.start_s:.2f} s, killing took {street.kill_s:.1f} s, "
        f"rest {street.rest_s:.1f} s"
    )
    street.judge()
    return street


@pytest.mark.timeout(240)
async def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("AMISTACK_SEED", "1"))
    street = await kill_a_street(tmp_path, seed=seed, kill_count=50)
    # The test did what it says: kills of both, in the middle of work, and reads beside it.
    assert sum(street.kills.values()) == 50
    assert len(street.kills) == 2
    assert any(home.lives_at_work() > 1 for home in street.done)
    assert street.read_in_turmoil


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_five_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("AMISTACK_SEED", random.SystemRandom().randrange(10**6)))
    await kill_a_street(tmp_path, seed=seed, kill_count=500)


def test_the_reading_by_hand_reads_the_example_of_the_specification() -> None:
    octets = bytes.fromhex("64000000000007" + "00000000000046")
    assert readback.unpacked(octets, 96) == [50] * 95 + [120]
    assert readback.unpacked(bytes.fromhex("3c30058180"), 10) == [
        *(30, 31, 33, 30, 30, 36),
        *(30, 30, 30, 30),
    ]
    assert readback.unpacked(b"", 3) == [0, 0, 0]
