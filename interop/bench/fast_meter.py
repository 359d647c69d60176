"""A meter's day in seconds: the daemon's own code on a loop that does not wait for timers.

While datagrams come, time passes as it does; when none has come for PATIENCE_S, the loop's clock
jumps to the next timer. The socket and the head-end on its other end are real.

Run as  python -m interop.bench.fast_meter SETTINGS SECONDS
Gives   one line when so many seconds of the meter's life are over: intervals recorded, reports
        acknowledged; ends at SIGTERM
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from amistack.telemetry import configure
from meterd.daemon import Meter, load_settings

PATIENCE_S: Final = 0.02


class _Impatient(selectors.DefaultSelector):
    """A selector that waits PATIENCE_S for anything, and then lets the rest of the wait pass."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= PATIENCE_S:
            return list(super().select(timeout))
        begun = time.monotonic()
        found = list(super().select(PATIENCE_S))
        if not found:
            self._skip(timeout - (time.monotonic() - begun))
        return found


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose time begins with the monotonic clock and runs ahead of it."""

    def __init__(self) -> None:
        self._skipped = 0.0
        super().__init__(_Impatient(self._skip))

    def time(self) -> float:
        """Monotonic seconds, with all that was skipped."""
        return super().time() + self._skipped

    def _skip(self, seconds: float) -> None:
        self._skipped += seconds


async def live(settings: Path, seconds: float) -> None:
    """One meter for so many seconds of its own time, then until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    meter = await Meter.open(load_settings(settings))
    try:
        await meter.start()
        await asyncio.sleep(seconds)
        counters = meter.agent.counters
        sys.stdout.write(f"{counters['intervals recorded']} {counters['reports acknowledged']}\n")
        sys.stdout.flush()
        # What waits for us now must see the memory of a meter that waits, and no time passes.
        while not stopping.is_set():
            time.sleep(PATIENCE_S)  # noqa: ASYNC251  the loop would skip this
            await asyncio.sleep(0)
    finally:
        meter.stop()


def main(settings: Path, seconds: float) -> None:
    """Run it, with the other loop in memory that a meter really runs on."""
    configure("info")
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(live(settings, seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
