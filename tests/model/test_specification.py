"""The examples of docs/protocol/model.md, run from its text."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from amistack.identifiers import Eui64
from amistack.model import (
    Channel,
    DailyReport,
    FlowDirection,
    Registration,
    RegistrationReason,
    interval_energy,
    register_energy,
)
from amistack.model.events import CLOCK_SET

TEXT = (Path(__file__).parents[2] / "docs/protocol/model.md").read_text(encoding="utf-8")
HEX_COLUMNS = 32


def test_every_example_says_what_the_code_does() -> None:
    source = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    examples = doctest.DocTestParser().get_doctest(source, {}, "model.md", "model.md", 0)
    result = doctest.DocTestRunner(verbose=False).run(examples)
    assert result.failed == 0
    assert result.attempted >= 12


def drawn(message: str) -> bytes:
    """The octets of the one drawing whose first line says that it is of such a message."""
    drawings = re.findall(r"^Its octets:\n\n```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (lines,) = (one.splitlines() for one in drawings if f"{message} of " in one.splitlines()[0])
    return bytes.fromhex("".join(line[:HEX_COLUMNS] for line in lines))


def test_registration_written_out_octet_by_octet_is_that_registration() -> None:
    octets = drawn("registration")
    said = Registration.decode(octets)
    forward = FlowDirection.FORWARD
    kinds = interval_energy(900, forward), register_energy(forward)
    assert said == Registration(
        Eui64(bytes.fromhex("70b3d5fffe000017")),
        (1,),
        "meter 1",
        1,
        0,
        (Channel(1, *kinds, 0, "Wh", 900),),
        RegistrationReason.COLD_BOOT,
    )
    assert said.encode() == octets


def test_report_written_out_octet_by_octet_is_that_report() -> None:
    octets = drawn("report")
    report = DailyReport.decode(octets)
    (block,) = report.blocks
    assert (report.channel_set, report.day, block.opening, block.closing) == (
        1,
        20_000,
        1_234_567,
        1_239_437,
    )
    assert block.values() == (50,) * 95 + (120,)
    assert block.is_consistent
    (entry,) = report.entries
    assert (entry.sequence, entry.at, entry.event) == (41, 1_728_030_000, CLOCK_SET)
    assert report.encode() == octets
