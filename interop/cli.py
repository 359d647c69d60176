"""The command `interop`.

Every failure is one line on standard error and exit code 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from amistack.command import run
from interop.fuzz.options import add_parser as add_fuzz_parser
from interop.simulate.options import add_parser as add_simulate_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    return run("interop", lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="interop",
        description=(
            "The programs together: a demo street, a simulated town, benchmarks, conformance, "
            "fuzzing."
        ),
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
    demo.add_argument(
        "--capture", type=Path, metavar="FILE", help="keep what the head-end hears and says: pcapng"
    )
    demo.add_argument(
        "--no-mesh", action="store_true", help="each meter on UDP by itself, without collectors"
    )
    demo.set_defaults(run=_demo)
    bench = commands.add_parser(
        "bench", help="what the parts cost, beside the least that such work can cost"
    )
    bench.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    bench.add_argument(
        "--json",
        type=Path,
        default=Path("build/bench.json"),
        metavar="FILE",
        help="where the figures go (default: build/bench.json)",
    )
    bench.add_argument("--quick", action="store_true", help="less work, less certain figures")
    bench.set_defaults(run=_bench)
    _add_conformance(commands)
    add_fuzz_parser(commands)
    add_simulate_parser(commands)
    return parser


def _add_conformance(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    conformance = commands.add_parser(
        "conformance", help="published vectors and foreign implementations judge this stack"
    )
    conformance.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one; may be repeated",
    )
    form = conformance.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--markdown", action="store_true", help="print the table for a document")
    form.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    conformance.set_defaults(run=_conformance)


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
                capture=options.capture,
                has_mesh=not options.no_mesh,
            )
        )
    )


def _bench(options: argparse.Namespace) -> int:
    from interop.bench.figure import Size
    from interop.bench.run import Options, bench

    # An exit like any other, so that no program to be measured is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size = Size.QUICK if options.quick else Size.FULL
    return bench(Options(tuple(options.names), options.json, size))


def _conformance(options: argparse.Namespace) -> int:
    from interop.conformance.run import Options, conformance

    return conformance(
        Options(
            names=tuple(options.suite),
            is_json=options.json,
            is_markdown=options.markdown,
            is_list=options.list,
        )
    )
