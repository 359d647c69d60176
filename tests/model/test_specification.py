"""The examples of docs/protocol/model.md, run from its text."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from amistack.model import DailyReport
from amistack.model.events import CLOCK_SET

TEXT = (Path(__file__).parents[2] / "docs/protocol/model.md").read_text(encoding="utf-8")
HEX_COLUMNS = 32


def test_every_example_says_what_the_code_does() -> None:
    source = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    examples = doctest.DocTestParser().get_doctest(source, {}, "model.md", "model.md", 0)
    result = doctest.DocTestRunner(verbose=False).run(examples)
    assert result.failed == 0
    assert result.attempted >= 12


def test_report_written_out_octet_by_octet_is_that_report() -> None:
    (drawing,) = re.findall(r"^Its octets:\n\n```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    octets = bytes.fromhex("".join(line[:HEX_COLUMNS] for line in drawing.splitlines()))
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
