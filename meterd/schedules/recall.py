"""The resource at which the head-end asks for the reports of past days once more.

Spec    docs/protocol/model.md, "Reports once more"
"""

from __future__ import annotations

from collections import Counter

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import ReportRequest
from amistack.model.resources import REPORT
from meterd.parts import granted, unfit
from meterd.recorder import Recorder


class RecallResource:
    """Owes past days again: the head-end has lost them, or never had them."""

    path = REPORT
    kind = "amistack.recall"

    def __init__(self, recorder: Recorder, counters: Counter[str]) -> None:
        self._recorder = recorder
        self._counters = counters

    def answer(self, message: Message, *, now: float) -> Message:  # noqa: ARG002  As all.
        """2.04 once the days that are kept are owed, durably."""
        if (other := unfit(message, Code.POST)) is not None:
            return other
        wanted = ReportRequest.decode(message.payload)
        self._counters["reports asked for again"] += self._recorder.owe_again(
            wanted.first_day, wanted.last_day
        )
        return granted(Code.CHANGED)
