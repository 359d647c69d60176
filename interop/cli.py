"""The command `interop`.

Every failure is one line on standard error and exit code 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from amistack.errors import AmiError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except AmiError as error:
        print(f"interop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="interop", description="The programs together: a demo street."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="a head-end and a street of meters, read before your eyes"
    )
    demo.add_argument("--meters", type=int, default=25, help="how many (default 25)")
    demo.add_argument("--once", action="store_true", help="end when every meter was read")
    demo.add_argument("--json", action="store_true", help="print one JSON object last")
    demo.add_argument("--seed", type=int, default=1, help="of the households' loads (default 1)")
    demo.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="give up after (default 120)"
    )
    demo.add_argument(
        "--directory",
        type=Path,
        help="keep keys, stores and logs here (default: a folder of its own, removed at the end)",
    )
    demo.add_argument(
        "--picture", type=Path, metavar="FILE", help="with --once: save the screen as SVG"
    )
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from interop.demo.run import Options, demo

    return asyncio.run(
        demo(
            Options(
                meters=options.meters,
                is_once=options.once,
                is_json=options.json,
                timeout_s=options.timeout,
                directory=options.directory,
                seed=options.seed,
                picture=options.picture,
            )
        )
    )
