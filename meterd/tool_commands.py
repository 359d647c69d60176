"""`meterd tool`: a field tool at a meter's local port, over a serial line or TCP.

Gives   exit code 0 when the meter did what was asked, 1 with one line when not
Raises  ConfigError and LinkError, one line
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError, LinkError

if TYPE_CHECKING:
    from amistack.coap.message import Message
    from amistack.model.dump import DumpPart
    from meterd.local.client import ToolClient, Where

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # Nothing public names it.

KEY_FILE: Final = "tool-key.pem"
LOCAL_PORT: Final = 5690
PROGRAMME_SIZE_MAX: Final = 65_535


def add_tool_command(commands: Commands) -> None:
    """`meterd tool key`, `read`, `test`, `dump`, `program`, `show`."""
    tool = commands.add_parser("tool", help="a field tool at a meter's local port")
    tools = tool.add_subparsers(required=True, metavar="COMMAND")
    key = tools.add_parser("key", help="print this tool's public key; makes one if there is none")
    _add_key(key)
    key.set_defaults(run=_key)
    read = tools.add_parser("read", help="read registers, demand, voltage, power factor")
    _add_meter(read)
    read.set_defaults(run=lambda options: asyncio.run(_read(options)))
    test = tools.add_parser("test", help="have the meter look at itself; 1 if anything failed")
    _add_meter(test)
    test.set_defaults(run=lambda options: asyncio.run(_test(options)))
    dump = tools.add_parser("dump", help="take all that the meter holds into a file")
    dump.add_argument("file", type=Path)
    _add_meter(dump)
    dump.set_defaults(run=lambda options: asyncio.run(_dump(options)))
    program = tools.add_parser("program", help="give the meter a programme: its octets, in a file")
    program.add_argument("file", type=Path)
    _add_meter(program)
    program.set_defaults(run=lambda options: asyncio.run(_program(options)))
    show = tools.add_parser("show", help="say what a dump's file holds")
    show.add_argument("file", type=Path)
    show.set_defaults(run=_show)


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, default=Path(KEY_FILE), help="the tool's key file")


def _add_meter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--meter", required=True, help="the meter's EUI-64, 16 hex digits")
    parser.add_argument("--meter-key", required=True, help="its public key, 66 hex digits")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--device", help="serial line to the meter")
    where.add_argument("--address", metavar="HOST:PORT", help="or its local port over TCP")
    parser.add_argument("--baud-rate", type=int, default=115_200, help="of the serial line")
    _add_key(parser)


def _key(options: argparse.Namespace) -> int:
    from amistack.keystore import load_key, make_key, save_key
    from amistack.session.fleet import encode_public_key

    if not options.key.exists():
        save_key(options.key, make_key())
    sys.stdout.write(f"{encode_public_key(load_key(options.key).public_key()).hex()}\n")
    return 0


async def _read(options: argparse.Namespace) -> int:
    from amistack.coap.codes import Code
    from amistack.coap.message import Message
    from amistack.model import ReadAnswer, ReadParts, ReadRequest
    from amistack.model.programme_state import ProgrammeState
    from amistack.model.registers import RegistersAnswer
    from amistack.model.resources import PROGRAMME, READ, REGISTERS
    from meterd.local.reading import read_lines

    async def read(client: ToolClient) -> None:
        parts = ReadParts.REGISTERS | ReadParts.INTERVALS
        request = ReadRequest(b"meterd tool", parts)
        told = ReadAnswer.decode((await client.ask(_fetch(READ, request.encode()))).payload)
        answer = await client.ask(Message.request(Code.GET, REGISTERS))
        state = await client.ask(Message.request(Code.GET, PROGRAMME))
        offset_min = ProgrammeState.decode(state.payload).programme.standard_offset_min
        registers = RegistersAnswer.decode(answer.payload)
        for line in read_lines(told, registers, offset_min=offset_min):
            sys.stdout.write(f"{line}\n")

    return await _at_meter(options, read)


async def _test(options: argparse.Namespace) -> int:
    from amistack.model.history import HistoryAnswer, HistoryParts, HistoryRequest
    from amistack.model.resources import HISTORY
    from meterd.local.reading import test_lines

    failed: list[str] = []

    async def look(client: ToolClient) -> None:
        request = HistoryRequest(b"meterd tool", HistoryParts.SELF_TEST)
        told = HistoryAnswer.decode((await client.ask(_fetch(HISTORY, request.encode()))).payload)
        if told.diagnosis is None:
            raise LinkError("the meter made no self-test")
        failed.extend(one.check.name for one in told.diagnosis.failed)
        for line in test_lines(told.diagnosis):
            sys.stdout.write(f"{line}\n")

    code = await _at_meter(options, look)
    return 1 if failed else code


async def _dump(options: argparse.Namespace) -> int:
    from meterd.local.dump_file import write_dump

    async def dump(client: ToolClient) -> None:
        pages = [page async for page in client.dump()]
        write_dump(options.file, pages)
        sys.stdout.write(f"{_summary([part for page in pages for part in page.parts()])}\n")

    return await _at_meter(options, dump)


async def _program(options: argparse.Namespace) -> int:
    from amistack.coap.codes import Code
    from amistack.coap.message import Message
    from amistack.model import CONTENT_FORMAT_V1
    from amistack.model.programme_state import ProgrammeRefusal, ProgrammeStamp
    from amistack.model.resources import PROGRAMME
    from meterd.local.client import said_by
    from meterd.local.reading import time

    try:
        octets = options.file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{options.file} cannot be read: {error.strerror or error}") from error
    if not 0 < len(octets) <= PROGRAMME_SIZE_MAX:
        raise ConfigError(f"{options.file} has {len(octets)} octets, which is no programme")

    async def program(client: ToolClient) -> None:
        answer = await client.ask_anyway(
            Message.request(Code.PUT, PROGRAMME, payload=octets, content_format=CONTENT_FORMAT_V1)
        )
        if answer.code == Code.UNPROCESSABLE_ENTITY:
            refusal = ProgrammeRefusal.decode(answer.payload)
            faults = "; ".join(f"{fault.place}: {fault.reason}" for fault in refusal.faults)
            raise LinkError(f"version {refusal.version} is refused: {faults}")
        if answer.code != Code.CHANGED:
            raise LinkError(f"the meter says {said_by(answer)}")
        stamp = ProgrammeStamp.decode(answer.payload)
        sys.stdout.write(f"version {stamp.version}, in force from {time(stamp.since)} on\n")

    return await _at_meter(options, program)


def _show(options: argparse.Namespace) -> int:
    from meterd.local.dump_file import read_dump

    sys.stdout.write(f"{_summary(read_dump(options.file))}\n")
    return 0


def _summary(parts: Sequence[DumpPart]) -> str:
    """How many parts of each path."""
    counts = Counter(part.path for part in parts)
    return ", ".join(f"{count} {path}" for path, count in sorted(counts.items()))


async def _at_meter(
    options: argparse.Namespace, act: Callable[[ToolClient], Awaitable[None]]
) -> int:
    """Do something at the meter that the options name."""
    import os
    import random

    from amistack.identifiers import parse_eui64
    from amistack.keystore import load_key
    from amistack.session.credentials import AuthenticationKey
    from amistack.session.fleet import encode_public_key, meter_credential, parse_public_key
    from meterd.local.client import connected
    from meterd.local.tools import tool_credential

    key = load_key(options.key)
    own = tool_credential(encode_public_key(key.public_key()))
    meter = meter_credential(parse_eui64(options.meter), parse_public_key(options.meter_key))
    async with connected(
        _where(options),
        key=AuthenticationKey(key, own),
        meter=meter,
        entropy=os.urandom,
        dice=random.Random(),
    ) as client:
        await act(client)
    return 0


def _where(options: argparse.Namespace) -> Where:
    from amistack.addresses import parse_address
    from meterd.local.client import Where

    if options.device is not None:
        return Where(device=options.device, baud_rate=options.baud_rate)
    address = parse_address(options.address, default_port=LOCAL_PORT, what="--address")
    return Where(host_and_port=address)


def _fetch(path: str, payload: bytes) -> Message:
    from amistack.coap.codes import Code
    from amistack.coap.message import Message
    from amistack.model import CONTENT_FORMAT_V1

    return Message.request(Code.FETCH, path, payload=payload, content_format=CONTENT_FORMAT_V1)
