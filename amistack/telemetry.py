"""Logs of programs and drivers: one line an event, fields with fixed names, on standard error.

Machines never log; they report events and count. Field names: `meter` (EUI-64 in hex), `peer`,
`reason`, `day`. Lines are JSON where nobody watches, and readable on a terminal.
"""

from __future__ import annotations

import logging
import sys

import structlog

from amistack.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info") -> None:
    """Set up logging for the whole process. Raises ConfigError on an unknown level."""
    if level not in LEVELS:
        raise ConfigError(f"log level is {level!r}, expected one of {', '.join(LEVELS)}")
    is_watched = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if is_watched else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
