"""The unit files for systemd.

The contract under test: systemd finds nothing wrong with them and little exposed; they run the
commands that exist, are told when those are ready, watch them, and may restart them; what the
programs need of the system is not forbidden to them.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from amistack.links.supervision import BEATS_PER_PERIOD
from headend.app import DRAIN_S
from headend.app import STALL_S as HEADEND_STALL_S
from headend.cli.main import _parser as headend_parser
from meterd.cli import _parser as meterd_parser
from meterd.status import STALL_S as METERD_STALL_S

UNITS: Final = Path(__file__).parents[2] / "packaging" / "systemd"
NAMES: Final = ("meterd", "headend")
EXPOSURE_MAX: Final = 2.0
"""Of 10, as systemd counts; below 5 it says OK."""


class _Several(dict[str, object]):
    """Keys that stand in a section several times keep all their values."""

    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, list) and key in self and isinstance(self[key], list):
            self[key].extend(value)  # type: ignore[attr-defined]  # just seen
        else:
            super().__setitem__(key, value)


def _unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, dict_type=_Several)  # type: ignore[arg-type]  # a dict
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # keys as they stand
    parser.read(UNITS / f"{name}.service")
    return parser


def _service(name: str) -> configparser.SectionProxy:
    return _unit(name)["Service"]


def _systemd() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        message = "systemd-analyze is not installed: apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    # With a program that exists here: everything else is as it is delivered.
    text = (UNITS / f"{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run(
        [_systemd(), "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if f"{name}.service" in line]
    assert said == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_little_is_exposed(name: str) -> None:
    threshold = str(int(EXPOSURE_MAX * 10))
    done = subprocess.run(
        [
            _systemd(),
            "security",
            "--offline=true",
            f"--threshold={threshold}",
            UNITS / f"{name}.service",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "parser"), [("meterd", meterd_parser), ("headend", headend_parser)]
)
def test_unit_runs_a_command_that_exists(name: str, parser: object) -> None:
    program, *arguments = _service(name)["ExecStart"].split()
    assert Path(program).name == name
    options = parser().parse_args(arguments)  # type: ignore[operator]  # as parametrised
    state = Path("/var/lib") / _service(name)["StateDirectory"]
    assert options.config.parent == state
    assert _unit(name)["Unit"]["ConditionPathExists"] == str(options.config)


@pytest.mark.parametrize("name", NAMES)
def test_unit_is_watched_and_restarted(name: str) -> None:
    service = _service(name)
    assert service["Type"] == "notify"
    assert service["Restart"] in ("on-failure", "always")
    assert int(service["WatchdogSec"]) > 0
    stall = {"meterd": METERD_STALL_S, "headend": HEADEND_STALL_S}[name]
    beat = int(service["WatchdogSec"]) / BEATS_PER_PERIOD
    assert stall >= 0.5 * beat, "a hitch of one beat is no standstill"
    assert stall < int(service["WatchdogSec"]), "it is noticed within two periods"
    assert service["User"] not in ("", "root")
    assert service["StateDirectoryMode"] == "0700"


def test_head_end_has_time_to_finish() -> None:
    assert int(_service("headend")["TimeoutStopSec"]) > 2 * DRAIN_S


def test_head_end_may_ask_whether_its_clock_is_right() -> None:
    """ProtectClock= would make every clock look wrong to it (headend/kernel_clock.py)."""
    service = _service("headend")
    assert "ProtectClock" not in service
    last = service["SystemCallFilter"].split("\n")[-1]
    assert {"adjtimex", "clock_adjtime"} <= set(last.split())


def test_meter_may_use_serial_lines_and_pins() -> None:
    service = _service("meterd")
    assert "PrivateDevices" not in service
    assert "dialout" in service["SupplementaryGroups"].split()


NEEDED: Final = {
    # What strace saw of a start and some idle seconds on uvloop, and what is expected beside it of
    # asyncio's own loop, a full journal and more work. As root SQLite also calls fchown.
    "meterd": (
        "bind", "clone", "epoll_pwait", "epoll_wait", "eventfd2", "fcntl", "flock", "fsync",
        "ftruncate", "getdents64", "getpeername", "getrandom", "getsockname", "io_uring_enter",
        "io_uring_setup", "ioctl", "kill", "listen", "mkdir", "pipe2", "prlimit64", "recvfrom",
        "rename", "rt_sigsuspend", "sched_getaffinity", "sendmsg", "sendto", "setsockopt", "socket",
        "socketpair", "statx", "sysinfo", "timer_create", "timer_settime", "umask", "unlink",
    ),
    "headend": (
        "accept4", "adjtimex", "bind", "clock_adjtime", "clone3", "fdatasync", "flock", "fsync",
        "ftruncate", "io_uring_enter", "io_uring_setup", "listen", "pread64", "prlimit64",
        "pwrite64", "recvmsg", "sched_getaffinity", "sendmsg", "shutdown", "unlink",
    ),
}  # fmt: skip


def _allowed(name: str) -> set[str]:
    """The system calls that a unit's filter lets through."""
    allowed: set[str] = set()
    for line in _service(name)["SystemCallFilter"].split("\n"):
        calls = set()
        for word in line.lstrip("~").split():
            calls |= _group(word)
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


def _group(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(
        [_systemd(), "syscall-filter", name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    calls: set[str] = set()
    for word in words:
        if word and not word.startswith("#"):
            calls |= _group(word)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_no_system_call_that_is_needed_is_forbidden(name: str) -> None:
    allowed = _allowed(name)
    assert {"read", "write", "openat"} <= allowed
    assert "mount" not in allowed
    assert set(NEEDED[name]) - allowed == set()
