"""The frame around every command.

The contract under test: a command's own code comes out; a refusal is one printable line with the
program's name and code 1; an interrupt is code 130; a reader that had enough is code 1 and silent.
"""

from __future__ import annotations

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


def test_printable_text_stays_as_it_is() -> None:
    assert one_line("ångström 1 µs") == "ångström 1 µs"
