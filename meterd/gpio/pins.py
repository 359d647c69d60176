"""Pins of a small computer, by libgpiod; and as a port, for a test and for other boards.

Gives   `Pins`: inputs whose edges wake the loop, an output that keeps its level
Raises  ConfigError at birth where gpiod is not installed; OSError where a pin fails
Never   touches an output before it is told its level: a relay must not move by being opened
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Final, Protocol

from amistack.errors import ConfigError

CONSUMER: Final = "meterd"
EDGES_MAX: Final = 64
"""Edges taken at once; the kernel keeps the others."""


class Inputs(Protocol):
    """Opened inputs."""

    def fileno(self) -> int:
        """Readable when something has changed."""

    def read(self) -> None:
        """Take note of what changed; does not wait where `fileno` was readable."""

    def levels(self) -> Mapping[int, bool]:
        """Every line, and whether it is active now."""

    def close(self) -> None:
        """Give the inputs back."""


class Output(Protocol):
    """An opened output."""

    def set(self, *, is_active: bool) -> None:
        """Set its level."""

    def close(self) -> None:
        """Give it back; the level stays, as far as the board keeps it."""


class Pins(Protocol):
    """A chip of pins."""

    def open_inputs(self, lines: Sequence[int], *, active_low: bool) -> Inputs:
        """Inputs with edges; with `active_low` pulled up, and active while pulled to ground."""

    def open_output(self, line: int, *, is_active: bool) -> Output:
        """An output that has this level from the first moment on."""


class GpiodPins:
    """The pins of a chip such as /dev/gpiochip0."""

    def __init__(self, chip: str) -> None:
        """Raises ConfigError."""
        try:
            self._gpiod: ModuleType = importlib.import_module("gpiod")
        except ImportError:
            raise ConfigError(
                "gpiod is not installed: pip install 'amistack[gpio]', or take out [pins]"
            ) from None
        self._chip = chip

    def open_inputs(self, lines: Sequence[int], *, active_low: bool) -> Inputs:
        """Inputs with edges."""
        line = self._gpiod.line
        settings = self._gpiod.LineSettings(
            direction=line.Direction.INPUT,
            edge_detection=line.Edge.BOTH,
            bias=line.Bias.PULL_UP if active_low else line.Bias.PULL_DOWN,
            active_low=active_low,
        )
        request = self._gpiod.request_lines(
            self._chip, consumer=CONSUMER, config={tuple(lines): settings}
        )
        return _GpiodInputs(request, lines)

    def open_output(self, line: int, *, is_active: bool) -> Output:
        """An output."""
        kinds = self._gpiod.line
        value = kinds.Value.ACTIVE if is_active else kinds.Value.INACTIVE
        settings = self._gpiod.LineSettings(direction=kinds.Direction.OUTPUT, output_value=value)
        request = self._gpiod.request_lines(self._chip, consumer=CONSUMER, config={line: settings})
        return _GpiodOutput(request, line, kinds.Value)


class _GpiodInputs:
    def __init__(self, request: Any, lines: Sequence[int]) -> None:
        self._request = request
        self._lines = tuple(lines)

    def fileno(self) -> int:
        return int(self._request.fd)

    def read(self) -> None:
        self._request.read_edge_events(EDGES_MAX)

    def levels(self) -> Mapping[int, bool]:
        values = self._request.get_values(self._lines)
        return {line: bool(value) for line, value in zip(self._lines, values, strict=True)}

    def close(self) -> None:
        self._request.release()


class _GpiodOutput:
    def __init__(self, request: Any, line: int, values: Any) -> None:
        self._request = request
        self._line = line
        self._values = values

    def set(self, *, is_active: bool) -> None:
        value = self._values.ACTIVE if is_active else self._values.INACTIVE
        self._request.set_value(self._line, value)

    def close(self) -> None:
        self._request.release()
