"""Settings from TOML: strict, and readable when they are refused.

The contract under test: any file gives a value or one ConfigError of one line, which names the
file, the key, what was seen and what was expected; nothing is guessed, and every path is rooted at
the file's folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.settings import FILE_SIZE_MAX, build, load
from tests.support.rights import without_privilege


@dataclass(frozen=True, slots=True)
class Network:
    host: str = "::"
    port: int = 5683

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port is {self.port}, expected 0 to 65535")


@dataclass(frozen=True, slots=True)
class Head:
    public_key: str
    retry_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Store:
    path: Path = Path("store.sqlite")


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    head: Head
    network: Network
    data: Path = Path("data")
    is_quiet: bool = False
    level: int | None = None
    days: tuple[int, ...] = (1, 2)
    extras: tuple[Path, ...] = ()
    late: Network = field(default_factory=Network)
    store: Store = field(default_factory=Store)


GOOD = """
name = "m"
[head]
public_key = "02ab"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "program.toml"


def loaded(file: Path, text: str) -> Program:
    file.write_text(text, encoding="utf-8")
    return load(file, Program)


def refused(file: Path, text: str) -> str:
    """The message without the file that it begins with."""
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert message.isprintable(), "one line"
    return message.removeprefix(str(file))


def test_what_is_absent_has_its_default_and_paths_begin_at_the_file(file: Path) -> None:
    assert loaded(file, GOOD) == Program(
        "m",
        Head("02ab", 2.0),
        Network("::", 5683),
        data=file.parent / "data",
        store=Store(file.parent / "store.sqlite"),
    )


def test_every_type_is_read(file: Path) -> None:
    program = loaded(
        file,
        """
        name = "m"
        data = "/var/lib/m"
        is_quiet = true
        level = 3
        days = [7]
        extras = ["a", "/b"]
        [head]
        public_key = "02ab"
        retry_s = 5
        [network]
        port = 7
        [late]
        host = "x"
        """,
    )
    assert program.data == Path("/var/lib/m")
    assert (program.is_quiet, program.level, program.days) == (True, 3, (7,))
    assert program.extras == (file.parent / "a", Path("/b"))
    assert (program.head.retry_s, type(program.head.retry_s)) == (5.0, float)
    assert (program.network.port, program.late.host) == (7, "x")


def test_home_is_understood_in_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/somebody")
    assert loaded(file, 'data = "~/m"\n' + GOOD).data == Path("/srv/somebody/m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": name is missing; expected a text in quotes"),
        ('name = "m"', ": head.public_key is missing; expected a text in quotes"),
        ("nam = 1\n" + GOOD, ": nam is not a setting; did you mean 'name'?"),
        (GOOD + "retry = 1", ": head.retry is not a setting; did you mean 'retry_s'?"),
        (
            "network.zzzzz = 1\n" + GOOD,
            ": network.zzzzz is not a setting; expected host, port",
        ),
        (
            '"a\\nb" = 1\n' + GOOD,
            ": 'a\\nb' is not a setting; expected name, head, network, data, ",
        ),
        ("is_quiet = 1\n" + GOOD, ": is_quiet is 1, expected true or false"),
        ("level = true\n" + GOOD, ": level is True, expected a whole number"),
        ("level = 1.0\n" + GOOD, ": level is 1.0, expected a whole number"),
        ('days = "x"\n' + GOOD, ": days is 'x', expected a list"),
        ('days = [1, "x"]\n' + GOOD, ": days[1] is 'x', expected a whole number"),
        ("data = 3\n" + GOOD, ": data is 3, expected a path in quotes"),
        ('data = ""\n' + GOOD, ": data is '', expected a path in quotes"),
        ('data = "a\\u0000b"\n' + GOOD, ": data is 'a\\x00b', expected a path in quotes"),
        ("network = 5\n" + GOOD, ": network is 5, expected a table [network]"),
        ("network = [1]\n" + GOOD, ": network is [1], expected a table [network]"),
        (GOOD + "retry_s = nan", ": head.retry_s is nan, expected a number"),
        (GOOD + "retry_s = inf", ": head.retry_s is inf, expected a number"),
        (GOOD + "retry_s = true", ": head.retry_s is True, expected a number"),
        (GOOD + "retry_s = 1979-05-27", ": head.retry_s is datetime.date(1979, 5, 27), expected"),
        ("network.port = 70000\n" + GOOD, ": network.port is 70000, expected 0 to 65535"),
        ("name = 'x", " is not valid TOML: "),
        ("name = 1\nname = 2", " is not valid TOML: "),
    ],
)
def test_a_refusal_names_the_key_what_was_seen_and_what_was_expected(
    file: Path, text: str, message: str
) -> None:
    assert refused(file, text).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 5000 + "]" * 5000,
        "level = " + "9" * 5000,
        "level = 0x" + "f" * 5000 + "\nname = 1",
        "name = 0x" + "f" * 5000,
        GOOD + "retry_s = 0x" + "f" * 5000,
        'name = ["' + "x" * 100_000 + '"]',
        "x" * 100_000 + " = 1",
        "\x00",
        "a\rb",
    ],
    ids=range(9),
)
def test_huge_and_hostile_files_are_one_short_line_too(file: Path, text: str) -> None:
    assert len(refused(file, text)) < 400


def test_an_unknown_home_is_refused(file: Path) -> None:
    message = refused(file, 'data = "~nobody-of-that-name/x"\n' + GOOD)
    assert message.startswith(": data is '~nobody-of-that-name/x', expected a path")


def test_a_file_that_is_not_there_not_text_or_too_large_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    with pytest.raises(ConfigError, match=r"x\.toml cannot be read: No such file"):
        load(file, Program)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, Program)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        load(file, Program)
    file.write_bytes(b"#" * (FILE_SIZE_MAX + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(file, Program)


def test_a_file_that_may_not_be_read_is_named() -> None:
    with without_privilege() as own:
        file = own / "program.toml"
        file.write_text(GOOD)
        file.chmod(0)
        with pytest.raises(ConfigError, match=r"program\.toml cannot be read: Permission denied"):
            load(file, Program)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.sampled_from(["~", "~x/y", "..", "/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["host", "port", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["name", "head", "network", "data", "is_quiet", "level", "days", "extras", "late", "\n"]
)


@settings(max_examples=300, deadline=None)
@given(table=st.dictionaries(KEYS, VALUES))
def test_any_table_is_a_value_or_one_line(table: dict[str, object]) -> None:
    message = ""
    try:
        program = build(table, Program, file=Path("/etc/p.toml"))
    except ConfigError as error:
        message = str(error)
    else:
        assert program.data.is_absolute()
        assert all(path.is_absolute() for path in program.extras)
        assert type(program.is_quiet) is bool
        assert program.level is None or type(program.level) is int
    assert message.isprintable()


@settings(max_examples=200, deadline=None)
@given(octets=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_a_value_or_one_line(
    octets: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(octets)
    with pytest.raises(ConfigError) as caught:
        load(file, Program)
    assert str(caught.value).isprintable()
