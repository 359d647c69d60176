"""The frame around every command: what goes wrong is one line on standard error and an exit code.

Gives   `run`, `one_line`, the exit codes
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

from amistack.errors import AmiError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


def run(name: str, command: Callable[[], int]) -> int:
    """Carry out a program's command; its exit code.

    A refusal of ours is one line, `name` in front. An interrupt and a reader that had enough are
    none.
    """
    try:
        code = command()
        sys.stdout.flush()
    except AmiError as error:
        sys.stderr.write(f"{name}: {one_line(str(error))}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What is still buffered must not complain at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def one_line(text: str) -> str:
    """`text` without what would break a terminal's line."""
    return "".join(c if c.isprintable() else " " for c in text)
