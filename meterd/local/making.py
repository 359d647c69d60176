"""A meter's local port, put together from the meter's own parts."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from amistack.links.host import Host
from amistack.session.credentials import AuthenticationKey
from meterd.agent import Agent
from meterd.fittings import Fittings
from meterd.local.gate import Gate
from meterd.local.port import LocalPort
from meterd.local.settings import LocalSettings
from meterd.local.snapshot import snapshot_of
from meterd.storage import Storage


def make_local_port(
    settings: LocalSettings,
    gate: Gate,
    *,
    key: AuthenticationKey,
    agent: Agent,
    fittings: Fittings,
    storage: Storage,
    offset_min: int,
    host: Host,
    settle: Callable[[], None],
    log: structlog.typing.FilteringBoundLogger,
) -> LocalPort:
    """Not open yet. Raises ConfigError for a tool's key that is none."""
    snapshot = snapshot_of(agent, fittings, storage, offset_min=offset_min)
    return LocalPort(
        settings,
        meter=agent.meter,
        key=key,
        resources=agent.resources,
        take_dump=snapshot.parts,
        gate=gate,
        on_access=fittings.sources.access,
        record=fittings.record,
        settle=settle,
        entropy=host.entropy,
        dice=host.dice,
        log=log,
    )
