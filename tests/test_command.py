"""The frame around every command.

The contract under test: a command's own code comes out; a refusal is one printable line with the
program's name and code 1, and so is an output that takes no more; an interrupt is code 130; a
reader that had enough is code 1 and silent.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from amistack.command import EXIT_FAILED, EXIT_INTERRUPTED, one_line, run
from amistack.errors import ConfigError


def test_code_of_a_command_comes_out() -> None:
    assert run("x", lambda: 3) == 3


def test_refusal_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise ConfigError("two\nlines \x1b[31mand a colour")

    assert run("headend", refuse) == EXIT_FAILED
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "headend: two lines  [31mand a colour\n"


def test_interrupt_is_a_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert run("x", interrupt) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == ""


def test_what_is_no_refusal_of_ours_is_not_hidden() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("x", fail)


def test_reader_that_had_enough_is_no_traceback() -> None:
    program = (
        "import sys; from amistack.command import run\n"
        "def talk():\n    for n in range(100000): print(n)\n    return 0\n"
        "sys.exit(run('x', talk))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "$0" | head -1', program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


FULL = "x: the output cannot be written: No space left on device\n"
SAYS = "def say(): print('said'); return {}\n"


def through_a_shell(program: str, redirection: str) -> tuple[int, str, str]:
    """Code, standard output and standard error of a program that calls `run`."""
    head = "import errno, sys; from amistack.command import run; from amistack.errors import *\n"
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "$0" {redirection}', head + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # What is printed waits in a buffer, as for a user.
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (SAYS.format(0) + "sys.exit(run('x', say))", EXIT_FAILED, FULL),
        (SAYS.format(3) + "sys.exit(run('x', say))", 3, FULL),
        ("sys.exit(run('x', lambda: print('long' * 100_000)))", EXIT_FAILED, FULL),
        ("sys.exit(run('x', lambda: print('now', flush=True)))", EXIT_FAILED, FULL),
        (
            "def refuse(): print('said'); raise ConfigError('no')\nsys.exit(run('x', refuse))",
            EXIT_FAILED,
            "x: no\n",
        ),
    ],
    ids=["buffered", "with a code", "long", "at once", "refused"],
)
def test_output_that_takes_no_more_is_one_line(program: str, code: int, said: str) -> None:
    assert through_a_shell(program, "> /dev/full") == (code, "", said)
    # Where there is no room for the line either, the code says it.
    assert through_a_shell(program, "> /dev/full 2>&1") == (code, "", "")


def test_file_that_takes_no_more_leaves_the_output_alone() -> None:
    program = (
        "def store():\n    print('said')\n    raise OSError(errno.ENOSPC, 'No space left', 'f')\n"
        "sys.exit(run('x', store))"
    )
    assert through_a_shell(program, "") == (
        EXIT_FAILED,
        "said\n",
        "x: f: No space left\n",
    )


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-"])
def test_output_that_is_closed_from_the_beginning_is_no_mistake(redirection: str) -> None:
    program = SAYS.format(0) + "sys.exit(run('x', say))"
    assert through_a_shell(program, redirection) == (0, "", "")


def test_other_failures_of_the_system_are_not_hidden() -> None:
    def fail() -> int:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        run("x", fail)


def test_printable_text_stays_as_it_is() -> None:
    assert one_line("ångström 1 µs") == "ångström 1 µs"
