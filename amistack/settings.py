"""Read a program's settings from TOML into frozen dataclasses, strictly.

A dataclass is a table; its fields are the keys, their types what is accepted, their defaults what
holds where a key is absent. A nested dataclass is a table in the table.

Gives   the value, with relative paths (defaults too) made relative to the file's own folder
Raises  ConfigError, one line: the file, the key, what was seen and what was expected
Never   reads the environment, or guesses: a key that is not known is refused
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from amistack.errors import ConfigError

T = TypeVar("T")

FILE_SIZE_MAX: Final = 1 << 20
SEEN_SIZE_MAX: Final = 80
"""Characters of a wrong value that a message shows."""
_KINDS: Final[dict[type, str]] = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path in quotes",
}


def load(path: Path, settings: type[T]) -> T:
    """The settings that the TOML file at `path` holds, as a `settings` dataclass.

    Raises ConfigError where the file cannot be read, is not TOML, or has a key, a type or a value
    that does not belong there.
    """
    try:
        if path.stat().st_size > FILE_SIZE_MAX:
            raise ConfigError(f"{path} is larger than {FILE_SIZE_MAX} octets, not a settings file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file in UTF-8") from None
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: numbers too long for Python and nesting too deep are others.
        raise ConfigError(f"{path} is not valid TOML: {_line(str(error))}") from None
    return build(table, settings, file=path)


def build(table: Mapping[str, object], settings: type[T], *, file: Path) -> T:
    """The same from a table that is read already; `file` is for messages and relative paths."""
    return typing.cast("T", _table(table, settings, file, ""))


def _table(table: Mapping[str, object], settings: type[Any], file: Path, where: str) -> object:
    hints = typing.get_type_hints(settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for key in table:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(fields)}"
            raise ConfigError(f"{file}: {where}{_line(key)} is not a setting; {hint}")
    values: dict[str, object] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _value(table[name], hints[name], file, f"{where}{name}")
        elif isinstance(field.default, Path):
            values[name] = file.parent / field.default
        elif dataclasses.is_dataclass(hints[name]) and field.default is dataclasses.MISSING:
            # An absent table may still be complete; if not, its own key is named.
            values[name] = _table(
                {}, typing.cast("type[Any]", hints[name]), file, f"{where}{name}."
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{file}: {where}{name} is missing; expected {_kind(hints[name])}")
    try:
        return settings(**values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {where}{error}") from None


def _value(value: object, hint: Any, file: Path, where: str) -> object:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{file}: {where} is {_seen(value)}, expected a table [{where}]")
        return _table(value, typing.cast("type[Any]", hint), file, f"{where}.")
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return _value(value, inner, file, where)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list):
            raise ConfigError(f"{file}: {where} is {_seen(value)}, expected a list")
        return tuple(_value(one, item, file, f"{where}[{i}]") for i, one in enumerate(value))
    if hint is Path and isinstance(value, str) and value and value.isprintable():
        try:
            return file.parent / Path(value).expanduser()
        except RuntimeError:
            raise ConfigError(
                f"{file}: {where} is {_seen(value)}, expected a path; nobody here has that home"
            ) from None
    if hint is float and type(value) in (int, float):
        number = _finite(typing.cast("int | float", value))
        if number is not None:
            return number
    # bool is an int to Python, but `true` is no whole number to a person.
    elif type(value) is hint and hint is not Path:
        return value
    raise ConfigError(f"{file}: {where} is {_seen(value)}, expected {_kind(hint)}")


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _line(text: str) -> str:
    """`text` as a part of one line that a person can read."""
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= SEEN_SIZE_MAX else f"{shown[:SEEN_SIZE_MAX]}..."


def _seen(value: object) -> str:
    """What stands in the file, shortened."""
    try:
        return _line(repr(value))
    except (ValueError, RecursionError):
        return "a value too large to show"


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _kind(typing.get_args(hint)[0])
    return _KINDS.get(hint, str(hint))
