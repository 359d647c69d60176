"""`headend topology`, `path`, `ping`, `trace`, `isolate` and `headend mesh ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64

if TYPE_CHECKING:
    from headend.api.mesh_documents import IsolationDocument, TracingDocument
    from headend.mesh_client import MeshClient

EXIT_NOT_DONE: Final = 1
EXIT_NOT_ANSWERED: Final = 3
FORMATS: Final = ("table", "json", "graphml", "dot")
LIST_SIZE_MAX: Final = 4 * 1024 * 1024
PINGS_MAX: Final = 1_000
ORDERS: Final = {
    "refresh": ("have every node of an area tell its parents, and report", "rows in its table"),
    "bump-version": ("have an area form anew, under the next version", "version"),
    "allow": ("let a node into an area's mesh again", ""),
    "deny": ("keep a node out of an area's mesh", ""),
}
"""Each order, what it is for, and what the number means that collectors answer with."""
ABOUT_ONE: Final = ("allow", "deny")

Connect = Callable[[argparse.Namespace], "MeshClient"]
AddOptions = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace, Connect], int]


def add_topology_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    *,
    connect: Connect,
    add_socket: AddOptions,
    add_options: AddOptions,
) -> None:
    """The commands about the mesh. `add_options` adds `--json` besides what `add_socket` does."""

    def add(
        above: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Run, text: str
    ) -> argparse.ArgumentParser:
        command = above.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=lambda options: run(options, connect))
        return command

    topology = add(commands, "topology", _topology, "show the mesh as the head-end knows it")
    topology.add_argument("--area", type=int, metavar="A", help="only that area")
    topology.add_argument("--format", choices=FORMATS, default="table", help="(table)")
    add_socket(topology)

    for name, run, text in (
        ("path", _path, "show the best way to a meter and its alternates"),
        ("ping", _ping, "ask a meter of the mesh whether it is there"),
        ("trace", _trace, "ask every node on the way to a meter"),
        ("isolate", _isolate, "find out which component keeps a meter silent"),
    ):
        command = add(commands, name, run, text)
        command.add_argument("meter", metavar="METER", help="EUI-64, 16 hex digits")
        if name in ("ping", "trace"):
            command.add_argument(
                "--way", type=int, default=0, metavar="N", help="0 the best, 1 to 3 alternates (0)"
            )
        if name == "ping":
            command.add_argument(
                "--count", type=_count, default=1, metavar="N", help="how often (1)"
            )
        add_options(command)

    mesh = commands.add_parser("mesh", help="areas, collectors and addresses of the mesh")
    # What makes parsers of one kind is no maker of parsers to the checker, hence the type.
    kind: type[argparse.ArgumentParser] = _Mixed
    below = mesh.add_subparsers(required=True, metavar="COMMAND", parser_class=kind)
    _add_mesh(below, add, add_options)


class _Mixed(argparse.ArgumentParser):
    """Options stand anywhere, also between an area and the nodes that follow it."""

    _is_parsing = False

    def parse_known_args(  # type: ignore[override]  # as the class above has it, in one form
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self._is_parsing:
            return super().parse_known_args(args, namespace)
        self._is_parsing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_parsing = False


def _add_mesh(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    add: Callable[
        [argparse._SubParsersAction[argparse.ArgumentParser], str, Run, str],
        argparse.ArgumentParser,
    ],
    add_options: AddOptions,
) -> None:
    status = add(commands, "status", _status, "list areas, collectors, and states of nodes")
    add_options(status)

    area = add(commands, "area", _area, "make an area, or give one another profile")
    area.add_argument("area", type=int, metavar="AREA")
    area.add_argument("--profile", help="(a new area: rfc8036; one that there is: what it has)")
    area.add_argument("--dodag-id", metavar="HEX", help="16 octets, if it must be a known one")
    add_options(area)

    assign = add(commands, "assign", _assign, "give nodes short addresses in an area")
    assign.add_argument("area", type=int, metavar="AREA")
    assign.add_argument("nodes", nargs="*", metavar="NODE", help="EUI-64, 16 hex digits")
    assign.add_argument("--file", type=Path, help="a line each; what follows a comma is ignored")
    assign.add_argument("--collector", action="store_true", help="they are collectors")
    assign.add_argument("--certificate", type=Path, help="what the collector shows, in PEM")
    assign.add_argument("--move", action="store_true", help="also from another area or role")
    add_options(assign)

    release = add(commands, "release", _release, "take nodes out of the mesh")
    release.add_argument("nodes", nargs="+", metavar="NODE", help="EUI-64, 16 hex digits")
    add_options(release)

    addresses = add(commands, "addresses", _addresses, "list who has which short address")
    add_options(addresses)

    for name, (text, _) in ORDERS.items():
        order = add(commands, name, _ordering(name), text)
        order.add_argument("area", type=int, metavar="AREA")
        if name in ABOUT_ONE:
            order.add_argument("node", metavar="NODE", help="EUI-64, 16 hex digits")
        add_options(order)


# The commands


def _topology(options: argparse.Namespace, connect: Connect) -> int:
    with connect(options) as client:
        for line in client.topology(options.format, options.area):
            print(line)
    return 0


def _path(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import mesh_show

    with connect(options) as client:
        found = client.device(parse_eui64(options.meter))
    print(_json(found) if options.json else mesh_show.path(found))
    return 0


def _ping(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import mesh_show

    meter = parse_eui64(options.meter)
    answered = 0
    with connect(options) as client:
        for _ in range(options.count):
            done = client.ping(meter, way=options.way)
            answered += done.outcome == "answered"
            print(_json(done) if options.json else mesh_show.ping(done), flush=True)
    if options.count > 1 and not options.json:
        print(f"{answered} of {options.count} answered")
    return 0 if answered else EXIT_NOT_ANSWERED


def _trace(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import mesh_show

    last: TracingDocument | None = None
    with connect(options) as client:
        for line in client.trace(parse_eui64(options.meter), way=options.way):
            last = line
            if line.step is not None:
                print(mesh_show.trace_step(line.step), file=sys.stderr)
    if last is None or last.trace is None:
        print(f"headend: no trace: {_reason(last)}", file=sys.stderr)
        return EXIT_NOT_DONE
    done = last.trace
    print(_json(done) if options.json else mesh_show.trace(done))
    is_whole = bool(done.rows) and all(row.outcome == "answered" for row in done.rows)
    return 0 if is_whole else EXIT_NOT_ANSWERED


def _isolate(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import mesh_show

    last: IsolationDocument | None = None
    with connect(options) as client:
        for step in client.isolate(parse_eui64(options.meter)):
            last = step
            if step.tried is not None:
                # Progress is not the result: it goes where it does not disturb.
                tried = step.tried
                way = " > ".join(tried.way)
                print(f"probe {tried.number + 1}: {way}: {tried.outcome}", file=sys.stderr)
    if last is None or last.verdict is None:
        print(f"headend: no verdict: {_reason(last)}", file=sys.stderr)
        return EXIT_NOT_DONE
    print(_json(last.verdict) if options.json else mesh_show.verdict(last.verdict))
    return 0


def _status(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import mesh_show

    with connect(options) as client:
        found = client.mesh()
    print(_json(found) if options.json else mesh_show.status(found))
    return 0


def _area(options: argparse.Namespace, connect: Connect) -> int:
    from mesh.routing.profile import anywhere

    # The head-end runs in another folder, and reads the file at each of its starts.
    profile = None if options.profile is None else anywhere(options.profile)
    with connect(options) as client:
        made = client.set_area(options.area, profile=profile, dodag_id=options.dodag_id)
    text = f"area {made.area}: profile {made.profile}, DODAGID {made.dodag_id}"
    print(_json(made) if options.json else text)
    return 0


def _assign(options: argparse.Namespace, connect: Connect) -> int:
    nodes = list(map(parse_eui64, options.nodes))
    if options.file is not None:
        nodes += _listed(options.file)
    if not nodes:
        raise ConfigError("no nodes are named: give them as arguments, or with --file")
    certificate = None if options.certificate is None else _read(options.certificate)
    with connect(options) as client:
        done = client.assign(
            options.area,
            nodes,
            role="collector" if options.collector else "meter",
            certificate=certificate,
            is_moving=options.move,
        )
    if options.json:
        print(_json(done))
    else:
        for one in done.assignments:
            print(f"{one.node},{one.area},{one.short:#06x}")
        held = len(done.assignments) - done.new
        print(f"headend: {done.new} assigned, {held} had theirs", file=sys.stderr)
    return 0


def _release(options: argparse.Namespace, connect: Connect) -> int:
    with connect(options) as client:
        done = client.release(list(map(parse_eui64, options.nodes)))
    print(_json(done) if options.json else f"{done.released} released")
    return 0


def _addresses(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import show

    with connect(options) as client:
        found = list(client.addresses())
    if options.json:
        print(show.as_json(found))
    else:
        for one in found:
            print(f"{one.node},{one.area},{one.short:#06x},{one.role}")
    return 0


def _ordering(name: str) -> Run:
    def run(options: argparse.Namespace, connect: Connect) -> int:
        from headend.cli import mesh_show

        node = parse_eui64(options.node) if name in ABOUT_ONE else None
        with connect(options) as client:
            done = client.order(options.area, name, node)
        print(_json(done) if options.json else mesh_show.order(done, ORDERS[name][1]))
        if name in ABOUT_ONE:
            return 0  # Who is away is told when it comes.
        return 0 if all(one.is_done for one in done.collectors) else EXIT_NOT_DONE

    return run


# Small things


def _reason(last: TracingDocument | IsolationDocument | None) -> str:
    """Why there is no result, by the last line that came."""
    return "it broke off" if last is None or last.failed is None else last.failed


def _json(document: object) -> str:
    from headend.cli import show

    return show.as_json(document)  # type: ignore[arg-type]  # a document, whatever its class


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= PINGS_MAX:
        raise argparse.ArgumentTypeError(f"{text}, expected 1 to {PINGS_MAX}")
    return count


def _listed(file: Path) -> Iterable[Eui64]:
    """The first column of every line that is not empty and no comment."""
    for line in _read(file).splitlines():
        text = line.partition(",")[0].strip()
        if text and not text.startswith("#"):
            try:
                yield parse_eui64(text)
            except ConfigError as error:
                raise ConfigError(f"{file}: {error}") from None


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > LIST_SIZE_MAX:
            raise ConfigError(f"{file} is larger than {LIST_SIZE_MAX} octets")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not a text file in UTF-8") from None
