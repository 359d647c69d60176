"""The demo: a head-end and a street of meters in processes of their own, from nothing to read.

Every count is taken from the head-end's store, through the API that any operator's tool would use.

Raises  DemoError, ApiError, each one line
Limit   METERS_MAX meters; gives up after a time that can be set
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import shutil
import signal
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from amistack.identifiers import parse_eui64
from headend.api.documents import ReadDocument
from headend.client import ApiError, AsyncHeadEndClient
from interop.demo.figures import ANSWERED, Figures, households
from interop.demo.mesh import Mesh, with_mesh
from interop.demo.processes import DemoError, Program, run
from interop.demo.screen import Output, Screen, save_picture

METERS_MAX: Final = 500
POLL_S: Final = 0.25
READS_AT_ONCE: Final = 16
READ_DEADLINE_S: Final = 20.0
READ_EVERY_S: Final = 3.0
START_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    meters: int = 25
    is_once: bool = False
    is_json: bool = False
    timeout_s: float = 120.0
    directory: Path | None = None
    seed: int = 1
    picture: Path | None = None
    capture: Path | None = None
    has_mesh: bool = True
    """Whether the meters are behind collectors, some hops away; else each is on UDP by itself."""


async def demo(options: Options) -> int:
    """Run the demo; the exit code."""
    if not 1 <= options.meters <= METERS_MAX:
        raise DemoError(f"--meters is {options.meters}, expected 1 to {METERS_MAX}")
    if options.directory is not None and (options.directory / "headend").exists():
        raise DemoError(f"{options.directory} holds an earlier demo: name another folder")
    folder = options.directory or Path(tempfile.mkdtemp(prefix="amistack-demo-"))
    street = Street(options, folder)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    try:
        return await street.watch(stopping)
    finally:
        await street.stop()
        if options.directory is None:
            shutil.rmtree(folder, ignore_errors=True)


class Street:
    """The programs of one demo, and what is seen of them."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._begun = time.monotonic()
        self._programs: list[Program] = []
        self._mesh = Mesh(folder / "mesh", self._config) if options.has_mesh else None
        self._client: AsyncHeadEndClient | None = None
        self._offset_min = standard_offset_min()
        self._yesterday = _yesterday(self._offset_min)
        self._figures = Figures(options.meters)

    async def watch(self, stopping: asyncio.Event) -> int:
        """Start everything, show it, and end when asked or when `--once` is done."""
        options = self._options
        console = Output(stderr=options.is_json)
        way = "behind two collectors of a mesh" if options.has_mesh else "on UDP loopback"
        title = f"A street of {options.meters} meters and a head-end, {way}"
        with Screen(console, title=title) as screen:
            outcome = asyncio.ensure_future(self._go(screen))
            stop = asyncio.ensure_future(stopping.wait())
            await asyncio.wait({outcome, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not outcome.done():
                outcome.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await outcome
                if not options.is_once:
                    screen.finish(self._figures)
                    return 0 if self._figures.is_complete else 130
                return 130
            is_complete = outcome.result()
            screen.finish(self._figures)
        if options.picture is not None:
            save_picture(self._figures, title=title, path=options.picture)
        if options.is_json:
            print(self._figures.to_json(), flush=True)
        return 0 if is_complete else 1

    async def stop(self) -> None:
        """End every program, the meters first."""
        if self._client is not None:
            await self._client.close()
        for program in reversed(self._programs):
            await program.stop()

    # From nothing to a street

    async def _go(self, screen: Screen) -> bool:
        listen, public_key = await self._start_head_end()
        await self._start_meters(listen, public_key)
        screen.say(f"Files and logs: {self._folder}")
        if self._mesh is not None:
            screen.say(f"The tree: headend topology --config {self._config}")
        deadline = self._begun + self._options.timeout_s
        await self._until_reported(screen, deadline)
        await self._read_all(screen)
        await self._refresh(screen)
        if self._options.is_once:
            return self._figures.is_complete
        screen.say("Every meter was read. Reading goes on, one after the other; Ctrl-C ends it.")
        await self._keep_reading(screen)
        return True

    async def _start_head_end(self) -> tuple[str, str]:
        """Make and start the head-end; its address and public key."""
        folder = self._folder / "headend"
        printed = await run(
            "headend", "init", "--directory", str(folder), "--listen", "127.0.0.1:0"
        )
        public_key: str = tomllib.loads(_table(printed))["headend"]["public_key"]
        if self._mesh is not None:
            text = self._config.read_text(encoding="utf-8")
            self._config.write_text(with_mesh(text), encoding="utf-8")
        command = ["serve", "--config", str(self._config)]
        if self._options.capture is not None:
            command += ["--capture", str(self._options.capture)]
        program = await Program.start("headend", command, self._folder / "headend.log")
        self._programs.append(program)
        self._client = AsyncHeadEndClient(folder / "headend.sock")
        end = time.monotonic() + START_S
        while True:
            program.check()
            try:
                status = await self._client.status()
            except ApiError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)
            else:
                return status.listen, public_key

    async def _start_meters(self, listen: str, public_key: str) -> None:
        """Make, enrol and start the street."""
        folder = self._folder / "street"
        sign = "-" if self._offset_min < 0 else "+"
        hours, minutes = divmod(abs(self._offset_min), 60)
        lines = await run(
            "meterd",
            *("street", "init", str(folder), "--meters", str(self._options.meters), "--eager"),
            *("--seed", str(self._options.seed)),
            *("--headend", listen, "--headend-key", public_key),
            f"--standard-offset={sign}{hours:02}:{minutes:02}",
        )
        devices = self._folder / "devices.csv"
        devices.write_text(lines, encoding="utf-8")
        await run("headend", "enrol", str(devices), "--config", str(self._config))
        if self._mesh is not None:
            meters = [line.split(",")[0] for line in lines.splitlines()]
            folders = sorted(path.parent for path in folder.glob("*/meterd.toml"))
            await self._mesh.lay(len(meters))
            self._programs += await self._mesh.start_collectors()
            await self._mesh.join(meters, folders)
        program = await Program.start(
            "meterd",
            ["street", "run", str(folder), "--log-level", "warning"],
            self._folder / "street.log",
        )
        self._programs.append(program)

    # From a street to readings

    async def _until_reported(self, screen: Screen, deadline: float) -> None:
        while True:
            await self._refresh(screen)
            figures = self._figures
            if figures.registered == figures.reports_stored == figures.meters:
                return
            if time.monotonic() > deadline:
                screen.say(f"Not everything came within {self._options.timeout_s:g} s.")
                return
            await asyncio.sleep(POLL_S)

    async def _read_all(self, screen: Screen) -> None:
        client = self._require_client()
        slots = asyncio.Semaphore(READS_AT_ONCE)

        async def read(meter: str) -> None:
            async with slots:
                await client.read(parse_eui64(meter), deadline_s=READ_DEADLINE_S)

        reading = asyncio.gather(*(read(row.meter) for row in self._figures.households))
        while not reading.done():
            await asyncio.wait({reading}, timeout=POLL_S)
            await self._refresh(screen)
        await reading

    async def _keep_reading(self, screen: Screen) -> None:
        """One meter after the other, until somebody stops it."""
        client = self._require_client()
        while True:
            for row in self._figures.households:
                await asyncio.sleep(READ_EVERY_S)
                await client.read(parse_eui64(row.meter), deadline_s=READ_DEADLINE_S)
                await self._refresh(screen)

    async def _refresh(self, screen: Screen) -> None:
        """Ask the head-end how far the street is, and show it."""
        for program in self._programs:
            program.check()
        client = self._require_client()
        status = await client.status()
        meters = [meter.meter async for meter in client.meters()]
        readings = (await client.readings_of_day(self._yesterday)).readings
        reads = (await client.reads(limit=1000)).reads
        reads = await self._with_answers(reads)
        self._figures = replace(
            self._figures,
            secured=status.counts.secured,
            registered=status.counts.registered,
            reports_stored=len({reading.meter for reading in readings}),
            reads=reads,
            households=households(meters, readings, reads),
            wall_s=time.monotonic() - self._begun,
        )
        screen.show(self._figures)

    async def _with_answers(self, reads: Sequence[ReadDocument]) -> tuple[ReadDocument, ...]:
        """`reads`, newest first, the newest of each meter with its answer."""
        # An answer does not change any more: each is fetched once.
        known = {row.read.identifier: row.read for row in self._figures.households if row.read}
        seen: set[str] = set()
        filled = []
        for read in reads:
            is_newest = read.meter not in seen
            seen.add(read.meter)
            if is_newest and read.result == ANSWERED:
                before = known.get(read.identifier)
                if before is None or before.answer is None:
                    before = await self._require_client().find_read(read.identifier)
                filled.append(before)
            else:
                filled.append(read)
        return tuple(filled)

    @property
    def _config(self) -> Path:
        """The head-end's settings."""
        return self._folder / "headend" / "headend.toml"

    def _require_client(self) -> AsyncHeadEndClient:
        assert self._client is not None, "the head-end starts first"
        return self._client


def standard_offset_min() -> int:
    """Minutes east of UTC of this machine's standard time, without daylight saving."""
    return -time.timezone // 60


def _yesterday(offset_min: int) -> str:
    now = dt.datetime.now(dt.timezone(dt.timedelta(minutes=offset_min)))
    return (now.date() - dt.timedelta(days=1)).isoformat()


def _table(printed: str) -> str:
    """The TOML lines in what `headend init` printed."""
    start = printed.find("[headend]")
    if start < 0:
        raise DemoError("`headend init` printed no [headend] lines")
    lines = printed[start:].splitlines()
    kept = [lines[0]]
    for line in lines[1:]:
        if "=" not in line:
            break
        kept.append(line)
    return "\n".join(kept)
