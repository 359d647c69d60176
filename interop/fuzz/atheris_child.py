"""The process that atheris has for itself: `python -m interop.fuzz.atheris_child TARGET ARGS...`.

Whatever a target imports is imported here for the first time, so that it can be instrumented.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

INSTRUMENTED: Final = ["amistack", "headend", "meterd"]


def main(arguments: list[str]) -> None:
    """Fuzz the target `arguments[1]` with libFuzzer's arguments behind it. Does not return."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = importlib.import_module("interop.fuzz.targets")
        target = targets.find(arguments[1])
        target.seeds()  # What it makes once is made before the first run.

    def run_one(data: bytes) -> None:
        target.run(data)

    atheris.Setup([arguments[0], *arguments[2:]], run_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
