"""The frame around every command: what goes wrong is one line on standard error and an exit code.

Gives   `run`, `one_line`, the exit codes
Never   a traceback for an output that takes no more; a code of success for one that was lost
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Final, TextIO

from amistack.errors import AmiError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
"""What a disk says that takes no more: somebody has to act, and no program is wrong."""


def run(name: str, command: Callable[[], int]) -> int:
    """Carry out a program's command; its exit code.

    A refusal of ours is one line, `name` in front, and so is an output that takes no more. An
    interrupt and a reader that had enough are none.
    """
    try:
        return _carried_out(name, command)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def one_line(text: str) -> str:
    """`text` without what would break a terminal's line."""
    return "".join(c if c.isprintable() else " " for c in text)


def _carried_out(name: str, command: Callable[[], int]) -> int:
    said = ""
    code = EXIT_FAILED
    try:
        code = command()
    except AmiError as error:
        said = str(error)
    except BrokenPipeError:
        pass
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        said = _in_words(error)
    # What is buffered is written now: at the interpreter's end nobody could say why it is not.
    obstacle = _write(sys.stdout, "")
    if obstacle is not None:
        code = code or EXIT_FAILED
        if not isinstance(obstacle, BrokenPipeError):
            said = said or _in_words(obstacle)
    if said:
        # There may be no room for this either, and then the code must do.
        _write(sys.stderr, f"{name}: {one_line(said)}\n")
    return code


def _in_words(error: OSError) -> str:
    what = error.filename or "the output cannot be written"
    return f"{what}: {error.strerror or error}"


def _write(stream: TextIO | None, text: str) -> OSError | None:
    """Write this and all that waits before it; else why not, and then nothing waits any more.

    A stream is None where a shell closed it.
    """
    if stream is None:
        return None
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None
