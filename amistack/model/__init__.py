"""The application model: what meters and head-end say to each other, as values and octets."""

from __future__ import annotations

from amistack.model.clock import ClockReading, ClockState
from amistack.model.events import EndDeviceEventType, LogEntry
from amistack.model.head_end_key import HeadEndKeyNotice
from amistack.model.on_demand import ReadAnswer, ReadParts, ReadRequest, ReportRequest
from amistack.model.packing import pack, unpack
from amistack.model.quality import Quality, QualityRun, expand, runs_of
from amistack.model.reading_type import (
    FlowDirection,
    ReadingType,
    interval_energy,
    register_energy,
)
from amistack.model.readings import IntervalBlock
from amistack.model.registration import (
    Channel,
    Registration,
    RegistrationAcknowledgement,
    RegistrationReason,
)
from amistack.model.report import (
    DailyReport,
    Disposition,
    RecordKind,
    RecordRef,
    ReportAcknowledgement,
    Verdict,
    kept_indices,
)
from amistack.model.time import TimeAnswer
from amistack.model.wire import CONTENT_FORMAT_V1

__all__ = [
    "CONTENT_FORMAT_V1",
    "Channel",
    "ClockReading",
    "ClockState",
    "DailyReport",
    "Disposition",
    "EndDeviceEventType",
    "FlowDirection",
    "HeadEndKeyNotice",
    "IntervalBlock",
    "LogEntry",
    "Quality",
    "QualityRun",
    "ReadAnswer",
    "ReadParts",
    "ReadRequest",
    "ReadingType",
    "RecordKind",
    "RecordRef",
    "Registration",
    "RegistrationAcknowledgement",
    "RegistrationReason",
    "ReportAcknowledgement",
    "ReportRequest",
    "TimeAnswer",
    "Verdict",
    "expand",
    "interval_energy",
    "kept_indices",
    "pack",
    "register_energy",
    "runs_of",
    "unpack",
]
