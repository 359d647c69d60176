"""The log of programs and drivers: events with fixed fields, on standard error.

One line of JSON an event where a program reads it, aligned text on a terminal. Field names are the
same everywhere: `meter`, `path`, `reason`, `count`, `error`, `day`. Machines never log; they report
events and count.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

from amistack.errors import ConfigError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor


LEVELS: Final = ("debug", "info", "warning", "error")


def configure(level: str) -> None:
    """Send what is of `level` and above to standard error; other libraries' logs go along.

    Raises ConfigError on a level that is none of LEVELS.
    """
    if level not in LEVELS:
        raise ConfigError(f"log level is {level!r}, expected one of {', '.join(LEVELS)}")
    number = logging.getLevelNamesMapping()[level.upper()]
    is_terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer()
        if is_terminal
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    last: list[Processor] = [renderer]
    if not is_terminal:
        last.insert(0, structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Made for each line: whoever takes standard error's place later is written to.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # Libraries are heard when something is wrong, not on how they are doing.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


def logger() -> FilteringBoundLogger:
    """Where events go."""
    log: FilteringBoundLogger = structlog.get_logger()
    return log
