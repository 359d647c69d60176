"""A meter on the bench: its storage in files that tear, its agent in a world, power to be cut."""

from __future__ import annotations

import errno
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pytest

from amistack.identifiers import Eui64
from amistack.session.credentials import AuthenticationKey, Credential
from amistack.session.fleet import encode_public_key, meter_credential
from amistack.session.oscore import direct, protect
from meterd.agent import Agent, AgentEvent, Schedule
from meterd.clock import MeterClock
from meterd.metrology import ConstantSource, Source
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.support.head_end import HeadEnd, head_end_key, key_of
from tests.support.power import TornFiles
from tests.support.worlds import PERFECT, Host, LinkQuality, World

EPOCH: Final = 1_790_000_000.0
"""UTC at the world's time 0: 2026-09-21T14:13:20Z, well within a day."""
DAY: Final = 86_400
METER: Final = Eui64(bytes.fromhex("02aabbccddeeff01"))
HOURLY: Final = 3600


def meter_key() -> AuthenticationKey:
    key = key_of(5)
    return AuthenticationKey(key, meter_credential(METER, encode_public_key(key.public_key())))


def constant() -> Source:
    return ConstantSource(watts=100, interval_s=HOURLY)


class Sealed:
    """Every sealing operation of OSCORE, and whether a nonce was ever taken twice."""

    def __init__(self) -> None:
        self.plaintexts: dict[tuple[bytes, bytes], set[tuple[bytes, bytes]]] = defaultdict(set)

    def check(self) -> None:
        assert self.plaintexts
        assert all(len(covered) == 1 for covered in self.plaintexts.values())


def watched_nonces(monkeypatch: pytest.MonkeyPatch) -> Sealed:
    """What is sealed from now on, by whomever."""
    record = Sealed()
    real = protect.AESCCM

    class Watched:
        def __init__(self, key: bytes, tag_length: int) -> None:
            self._key = key
            self._real = real(key, tag_length)

        def encrypt(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
            record.plaintexts[self._key, nonce].add((plaintext, aad))
            return self._real.encrypt(nonce, plaintext, aad)

        def decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
            return self._real.decrypt(nonce, ciphertext, aad)

    for module in (direct, protect):
        monkeypatch.setattr(module, "AESCCM", Watched)
    return record


@dataclass
class Bench:
    """One world with a meter and a head-end."""

    seed: int = 0
    quality: LinkQuality = PERFECT
    make_source: Callable[[], Source] = constant
    offset_min: int = 0
    schedule: Schedule = field(default_factory=lambda: Schedule(300.0, 0.0, 1.0))
    trusted: Credential | None = None
    clock_error: float = 0.0
    epoch: float = EPOCH
    files: TornFiles = field(init=False)
    world: World = field(init=False)
    head_end: HeadEnd = field(init=False)
    agent: Agent = field(init=False)
    storage: Storage = field(init=False)
    host: Host[AgentEvent] = field(init=False)
    log: list[tuple[float, AgentEvent]] = field(default_factory=list)
    start_count: int = 0

    def __post_init__(self) -> None:
        self.files = TornFiles(random.Random(f"files {self.seed}"))
        self.world = World(self.seed, self.quality)
        self.head_end = HeadEnd(
            head_end_key(1), {METER: meter_key().credential}, self.utc, seed=self.seed
        )
        self.world.add("head-end", self.head_end)

    def utc(self, now: float) -> float:
        return self.epoch + now

    @property
    def recorder(self) -> Recorder:
        return self.agent._recorder

    def today(self) -> int:
        return int(self.utc(self.world.now) + self.offset_min * 60) // DAY

    def midnight(self, day: int) -> float:
        """The world's time at which a day begins."""
        return day * DAY - self.offset_min * 60 - self.epoch

    def unstarted(self) -> Agent:
        """The agent of a next life, made and not started."""
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = Storage.on(self.files)
        self.agent = Agent(
            meter=METER,
            key=meter_key(),
            head_end=self.trusted or self.head_end.key.credential,
            head_end_peer="head-end",
            storage=self.storage,
            recorder=Recorder(self.storage, self.make_source(), offset_min=self.offset_min),
            clock=MeterClock(utc=self.utc(now) + self.clock_error, now=now),
            schedule=self.schedule,
            offset_min=self.offset_min,
            entropy=dice.randbytes,
            dice=dice,
        )
        return self.agent

    def power_on(self) -> Host[AgentEvent]:
        self.unstarted().start(now=self.world.now)
        self.host = self.world.add("meter", self.agent)
        # One log through all restarts.
        self.log += self.host.log
        self.host.log = self.log
        return self.host

    def power_off(self) -> None:
        """As the plug does it: whatever is not durable is as the dice say."""
        self.world.remove("meter")
        self.files.crash()

    def fill_disk(self) -> None:
        """From now on nothing can be kept."""
        self.files.fails_with = errno.ENOSPC

    def mend_disk(self) -> None:
        """From now on it can."""
        self.files.fails_with = None

    def restart(self) -> None:
        self.power_off()
        self.power_on()

    def silence_head_end(self) -> None:
        self.world.passes = lambda sender, receiver, _: receiver != "head-end"

    def open_head_end(self) -> None:
        self.world.passes = None

    def events(self, kind: type[AgentEvent]) -> list[AgentEvent]:
        return [event for _, event in self.log if isinstance(event, kind)]

    def settle_head_end(self) -> None:
        """Carry out what a command to the head-end brought about."""
        self.head_end.settle_numbers(now=self.world.now)
        self.world._hosts["head-end"].settle()
