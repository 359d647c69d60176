"""The command `meterd`, as a person or a unit file runs it.

The contract under test: exit code 0, 1 with one line on standard error that says what is wrong, or
2 for wrong usage; never a traceback; SIGTERM ends it at once, and the next start goes on where the
last one was.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from meterd.cli import main
from meterd.provision import CONFIG_FILE, KEY_FILE
from meterd.storage import Storage
from tests.meterd.test_provision import PUBLIC_KEY

METERD = [sys.executable, "-c", "from meterd.cli import main; raise SystemExit(main())"]
STOP_S = 2.0


def meterd(*arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*METERD, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def made(folder: Path, *lines: str, headend: str = "127.0.0.1:9") -> Path:
    """A meter's folder with settings that run, and lines put into (or in place of) them."""
    assert (
        main(
            ["init", "--directory", str(folder), "--headend", headend, "--headend-key", PUBLIC_KEY]
        )
        == 0
    )
    config = folder / CONFIG_FILE
    config.write_text(config.read_text() + "\n" + "\n".join(lines) + "\n")
    return config


class Running:
    """A daemon as a process, and the log lines that it wrote so far."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen([*METERD, *arguments], stderr=subprocess.PIPE)
        self.raw = b""

    def wait_for(self, event: str, *, count: int = 1, timeout: float = 20) -> None:
        end = time.monotonic() + timeout
        assert self.process.stderr is not None
        while True:
            whole = [line for line in self.raw.splitlines() if line.endswith(b"}")]
            if sum(json.loads(line)["event"] == event for line in whole) >= count:
                return
            ready, _, _ = select.select(
                [self.process.stderr], [], [], max(0.0, end - time.monotonic())
            )
            assert ready, f"no {event!r} in {self.raw!r}"
            octets = os.read(self.process.stderr.fileno(), 65536)
            assert octets, f"ended without {event!r}: {self.raw!r}"
            self.raw += octets

    def stop(self, number: int = signal.SIGTERM) -> int:
        begin = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=10)
        assert time.monotonic() - begin < STOP_S
        assert self.process.stderr is not None
        self.raw += self.process.stderr.read()
        return code


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()


# Making identities


def test_init_prints_the_enrolment_line_and_identity_prints_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = made(tmp_path / "meter")
    first = capsys.readouterr()
    assert re.fullmatch(r"[0-9a-f]{16},[0-9a-f]{66}\n", first.out)
    assert "headend enrol" in first.err
    assert main(["identity", "--config", str(config)]) == 0
    assert capsys.readouterr().out == first.out


def test_init_takes_an_offset_west_of_utc(tmp_path: Path) -> None:
    """Its sign looks like an option's, and half the world is west."""
    assert main(["init", "--directory", str(tmp_path), "--standard-offset", "-06:00"]) == 0
    assert 'standard_offset = "-06:00"' in (tmp_path / CONFIG_FILE).read_text()


def test_init_takes_an_identifier_and_refuses_another_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["init", "--directory", str(tmp_path), "--id", "00-11-22-33-44-55-66-77"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("0011223344556677,")
    key = (tmp_path / KEY_FILE).read_bytes()
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "nothing is overwritten" in output.err
    assert (tmp_path / KEY_FILE).read_bytes() == key


def test_street_has_as_many_meters_as_asked_all_different_and_the_same_from_one_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def settings(name: str, seed: int) -> list[str]:
        arguments = ["street", "init", str(tmp_path / name), "--meters", "5", "--eager"]
        assert main([*arguments, "--seed", str(seed)]) == 0
        files = sorted((tmp_path / name).glob(f"*/{CONFIG_FILE}"))
        return [re.sub(r'id = "\w+"', "", file.read_text()) for file in files]

    first = settings("one", 7)
    assert len(capsys.readouterr().out.splitlines()) == len(set(first)) == 5
    assert settings("two", 7) == first
    assert settings("three", 8) != first


# Failures


def _bad_key(config: Path) -> None:
    (config.parent / KEY_FILE).write_text("nothing")


def _open_key(config: Path) -> None:
    (config.parent / KEY_FILE).chmod(0o644)


def _no_key(config: Path) -> None:
    (config.parent / KEY_FILE).unlink()


def _bad_storage(config: Path) -> None:
    (config.parent / "meter-data").write_text("this is no folder\n" * 100)


def _damaged_storage(config: Path) -> None:
    Storage.open(config.parent / "meter-data").close()
    (segment,) = (config.parent / "meter-data").glob("journal-*")
    segment.write_bytes(bytes(100))


def _binary(config: Path) -> None:
    config.write_bytes(b"\xff\xfe\x00")


def _changed_channels(config: Path) -> None:
    storage = Storage.open(config.parent / "meter-data")
    storage.keep_note("channels", "others")
    storage.close()


def _replace(old: str, new: str) -> Callable[[Path], None]:
    def change(config: Path) -> None:
        content = config.read_text()
        assert old in content
        config.write_text(content.replace(old, new))

    return change


PROFILE = 'source = "profile"'
ADDRESS = "127.0.0.1:9"
FAILURES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no settings": (lambda config: config.unlink(), "is missing: `meterd init`"),
    "settings are a folder": (lambda config: (config.unlink(), config.mkdir())[0], "read"),
    "settings are binary": (_binary, "UTF-8"),
    "no key": (_no_key, "is missing"),
    "bad key": (_bad_key, "not a private key"),
    "open key": (_open_key, "chmod 600"),
    "bad storage": (_bad_storage, "meter-data cannot be used: "),
    "damaged storage": (_damaged_storage, "is damaged at its beginning; move it away"),
    "changed channels": (_changed_channels, "other channels"),
    "unknown host": (_replace(ADDRESS, "no-such-host.invalid"), "'no-such-host.invalid'"),
    "unspeakable host": (_replace(ADDRESS, "a..b"), "HOST:PORT"),
    "other family": (_replace(ADDRESS, "[::1]:9"), "link.listen = '[::]:0'"),
    "interval too short": (_replace(PROFILE, f"{PROFILE}\ninterval_s = 10"), "interval_s is 10"),
    "report too long": (
        _replace(PROFILE, 'source = "constant"\nwatts = 1\nreceived_watts = 1\ninterval_s = 30'),
        "a report too long",
    ),
    "bad power": (_replace(PROFILE, 'source = "constant"\nwatts = -1'), "watts is -1"),
    "no replay": (
        _replace(PROFILE, 'source = "replay"\npath = "gone.csv"\nunit = "Wh"'),
        "gone.csv",
    ),
    "no zone": (
        _replace(PROFILE, 'source = "replay"\npath = "x"\nunit = "Wh"\nzone = "Mars/Here"'),
        "Mars/Here",
    ),
    "huge register": (
        _replace("[meter]", f"[meter]\nregister_start = [{10**20}]"),
        "register_start",
    ),
}


@pytest.mark.parametrize(("spoil", "says"), FAILURES.values(), ids=list(FAILURES))
def test_run_that_cannot_be_is_one_line_and_exit_code_one(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    config = made(tmp_path / "meter")
    spoil(config)
    # In a process of its own: logging is set up once for a whole process.
    done = meterd("run", "--config", str(config))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.stdout == ""
    (line,) = lines
    assert line.startswith("meterd: ")
    assert str(tmp_path) in line
    assert says in line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["fly"], 2),
        (["run", "--log-level", "shout"], 2),
        (["street"], 2),
        (["street", "init", "x", "--meters", "many"], 2),
        (["street", "init", "x", "--meters", "0"], 1),
        (["street", "init", "x", "--meters", "10001"], 1),
        (["street", "run", "empty"], 1),
        (["run", "--config", "c" * 300], 1),
        (["identity", "--config", "gone.toml"], 1),
        (["init", "--id", "12"], 1),
        (["init", "--headend", "a:b:c"], 1),
        (["init", "--headend-key", "00"], 1),
        (["init", "--standard-offset", "one"], 1),
        (["init", "--directory", "/dev/null/below"], 1),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_wrong_command_is_explained_and_makes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        got = main(arguments)
    except SystemExit as usage:
        got = usage.code  # type: ignore[assignment]
    output = capsys.readouterr()
    assert got == code
    assert output.out == ""
    assert "Traceback" not in output.err
    if code == 1:
        assert output.err.startswith("meterd: ")
        assert output.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# The daemon as a process


def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        config = made(tmp_path / "meter", "[link]", f'listen = "127.0.0.1:{port}"')
        done = meterd("run", "--config", str(config))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert f"UDP 127.0.0.1 port {port} is in use" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_at_once_and_the_next_start_goes_on(
    tmp_path: Path, running: Callable[..., Running], number: int
) -> None:
    config = made(tmp_path / "meter")
    for stage in ("first", "second"):
        one = running("run", "--config", str(config))
        one.wait_for("meter started")
        assert one.stop(number) == 0
        assert b"Traceback" not in one.raw
        one.wait_for("meter stopped")
        storage = Storage.open(config.parent / "meter-data")
        assert len(storage.owed_days()) == 45, stage
        log = [str(entry.event) for entry in storage.entries(0, 1 << 32, limit=9)]
        assert log == ["3.21.0.31", "3.26.0.216"][: 1 if stage == "first" else 2]
        storage.close()


def test_second_daemon_on_one_storage_is_refused(
    tmp_path: Path, running: Callable[..., Running]
) -> None:
    config = made(tmp_path / "meter")
    one = running("run", "--config", str(config))
    one.wait_for("meter started")
    done = meterd("run", "--config", str(config))
    assert done.returncode == 1
    assert "in use by another meterd" in done.stderr
    assert "Traceback" not in done.stderr
    assert one.stop() == 0


def test_kill_costs_nothing_that_was_recorded(
    tmp_path: Path, running: Callable[..., Running]
) -> None:
    config = made(tmp_path / "meter")
    one = running("run", "--config", str(config))
    one.wait_for("meter started")
    one.process.kill()
    assert one.process.wait() == -signal.SIGKILL
    again = running("run", "--config", str(config))
    again.wait_for("meter started")
    assert again.stop() == 0


def test_street_with_one_broken_meter_names_it_and_stops_the_others(tmp_path: Path) -> None:
    street = tmp_path / "street"
    common = ["--headend", ADDRESS, "--headend-key", PUBLIC_KEY, "--meters", "3"]
    assert main(["street", "init", str(street), *common]) == 0
    broken = street / "meter-0003"
    (broken / KEY_FILE).unlink()
    done = meterd("street", "run", str(street))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert str(broken / CONFIG_FILE) in lines[0]
    assert done.stderr.count('"meter stopped"') == 2


def test_street_runs_every_meter_and_stops_at_once(
    tmp_path: Path, running: Callable[..., Running]
) -> None:
    street = tmp_path / "street"
    common = ["--headend", ADDRESS, "--headend-key", PUBLIC_KEY, "--meters", "4"]
    assert main(["street", "init", str(street), *common, "--eager"]) == 0
    one = running("street", "run", str(street))
    one.wait_for("meter started", count=4)
    assert one.stop() == 0
    assert one.raw.count(b'"meter stopped"') == 4
