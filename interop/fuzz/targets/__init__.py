"""Every fuzz target by its name: modules that each have a tuple `TARGETS`."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Mapping
from typing import Final

from interop.fuzz.crashes import FuzzError
from interop.fuzz.target import Target

MODULES: Final = (
    "coap",
    "endpoint",
    "blockwise",
    "framing",
    "oscore",
    "edhoc",
    "chains",
    "desk",
    "stack",
    "pair",
    "model",
    "meter",
    "headend",
    "files",
    "discovery",
    "mesh",
)
"""In the order in which they are listed: from the wire up."""


@functools.cache
def every() -> Mapping[str, Target]:
    """All targets, in order. Raises ValueError if a name comes twice."""
    found: dict[str, Target] = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for target in module.TARGETS:
            if target.name in found:
                raise ValueError(f"two targets are called {target.name}")
            found[target.name] = target
    return found


def find(name: str) -> Target:
    """The target of that name. Raises FuzzError."""
    target = every().get(name)
    if target is None:
        close = difflib.get_close_matches(name, every(), n=1)
        hint = f"did you mean {close[0]}?" if close else "`interop fuzz --list` names them"
        raise FuzzError(f"{name} is not a fuzz target; {hint}")
    return target
