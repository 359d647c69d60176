"""Another key for the head-end, meter by meter, over real sockets with real meters.

The contract under test: meters are told when they speak and confirm what they keep; the old key
goes when all have, or when an operator insists; a meter that was away through two changes follows
by the root's word; whoever has no such word gains nothing. The key files alone say what is what,
also after a crash between any two of their changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec

from amistack.errors import ConfigError
from amistack.keystore import make_key, make_secret, save_key
from amistack.links.host import Host
from amistack.model import HeadEndKeyNotice
from amistack.session.fleet import encode_public_key, head_end_kid
from amistack.session.trust import KeyStatement, issue
from headend.domain.meters import Meter as EnrolledMeter
from headend.domain.meters import MeterState
from headend.domain.refusals import RotationRefused
from headend.domain.standing import Step
from headend.identity import IdentityFiles
from headend.lifecycle.rotation import Rotation, RotationState
from headend.lifecycle.standing import Registry
from headend.southbound.service import Southbound
from headend.store.interface import ConfirmTrust, EnrolMeters
from headend.store.sqlite import SqliteStore
from meterd import agent
from meterd.agent import keys
from meterd.daemon import Meter, load_settings
from meterd.provision import Identity, Template, provision
from tests.support.street import AT_ONCE

ROOT, OTHER_ROOT = make_key(), make_key()
ROOT_KEY = encode_public_key(ROOT.public_key())


class Utility:
    """A head-end with key files, and meters that come and go."""

    def __init__(self, folder: Path, *, root: bytes | None = ROOT_KEY) -> None:
        self.folder = folder
        self.key_file = folder / "headend-key.pem"
        self.root = root
        self.port = 0
        self.identities: list[Identity] = []
        self.running: dict[int, Meter] = {}
        save_key(self.key_file, make_key())

    async def start(self) -> None:
        self.files = IdentityFiles(self.key_file, root=self.root, secret=None)
        self.store = SqliteStore.open(self.folder / "headend.sqlite")
        self.southbound = Southbound(
            key=self.files.keys.current,
            own_keys=self.files.keys,
            store=self.store,
            entropy=os.urandom,
            dice=random.Random(1),
            wall=time.time,
        )
        self.rotation = Rotation(
            files=self.files, store=self.store, asker=self.southbound, wall=time.time
        )
        await self.rotation.start()
        self.southbound.on_heard = self.rotation.heard
        _, self.port = await self.southbound.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        self.rotation.stop()
        await self.southbound.stop()
        await self.store.close()

    async def add_meter(self, *, root: bytes | None = ROOT_KEY, public_key: bytes = b"") -> int:
        number = len(self.identities)
        template = Template(
            address=f"127.0.0.1:{self.port}",
            public_key=(public_key or self.files.current.public_key).hex(),
            root_key="" if root is None else root.hex(),
            metrology=('source = "constant"', "watts = 100.0"),
            schedule=AT_ONCE,
        )
        one = provision(self.folder / f"meter-{number}", template)
        self.identities.append(one)
        row = EnrolledMeter(one.meter, one.public_key, MeterState.ENROLLED, int(time.time()))
        await self.store.commit(EnrolMeters((row,)))
        return number

    async def run_meter(self, number: int) -> Meter:
        settings = load_settings(self.folder / f"meter-{number}" / "meterd.toml")
        meter = await Meter.open(settings, host=Host())
        self.running[number] = meter
        await meter.start()
        return meter

    def stop_meter(self, number: int) -> None:
        self.running.pop(number).stop()

    async def registered(self, number: int) -> Meter:
        """Run a meter until it has registered, and owes nothing any more."""
        meter = await self.run_meter(number)
        one = meter.agent
        await until(
            lambda: one.stage is agent.Stage.REPORTING and not one.owed_count, "registration"
        )
        return meter

    async def change_key(self, *, root: ec.EllipticCurvePrivateKey = ROOT) -> RotationState:
        """Make the next key and have the root vouch for it."""
        state = await self.rotation.begin()
        following = next(key for key in state.keys if key.stage == "to be signed")
        statement = KeyStatement(state.next_epoch, following.public_key)
        return await self.rotation.begin(issue(root, statement))

    def hear(self, number: int) -> None:
        """As if the meter had just delivered something."""
        self.rotation.heard(self.identities[number].meter)

    def kid_trusted_by(self, number: int) -> bytes:
        return self.running[number].agent.trusted_kid


async def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 20.0) -> None:
    end = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"{what} did not come about"
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def utility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Utility]:
    monkeypatch.setattr(keys, "RENEW_MIN_S", 0.01)
    monkeypatch.setattr(keys, "RENEW_MAX_S", 0.02)
    monkeypatch.setattr(keys, "RENEW_RETRY_S", 0.02)
    made = Utility(tmp_path)
    await made.start()
    yield made
    for meter in made.running.values():
        meter.stop()
    await made.stop()


# With meters


async def test_every_meter_confirms_and_then_the_old_key_goes(utility: Utility) -> None:
    for _ in range(2):
        await utility.registered(await utility.add_meter())
    old = utility.files.current.kid
    state = await utility.change_key()
    new = next(key.kid for key in state.keys if key.stage == "on offer")
    assert (state.unconfirmed_count, utility.kid_trusted_by(0)) == (2, old)
    with pytest.raises(RotationRefused, match="2 meters have not confirmed"):
        await utility.rotation.finish()
    utility.hear(0)
    await until(lambda: utility.rotation.counters["key confirmed"] == 1, "a confirmation")
    with pytest.raises(RotationRefused, match="1 meters have not confirmed"):
        await utility.rotation.finish()
    utility.hear(1)
    await until(lambda: utility.rotation.counters["key confirmed"] == 2, "both confirmations")
    assert {key.kid: key.meter_count for key in (await utility.rotation.status()).keys} == {
        old: 0, new: 2,
    }  # fmt: skip
    # Each goes through a handshake under the new key by itself, and then knows no other.
    kept = [utility.running[n].agent._trusted for n in (0, 1)]
    await until(lambda: all(one.trust.before is None for one in kept), "the proof of the new key")
    finished = await utility.rotation.finish()
    assert [(key.kid, key.stage) for key in finished.keys] == [(new, "current")]
    assert utility.files.keys.kids == (new,)


async def test_meters_stay_served_from_the_first_to_the_last_moment(utility: Utility) -> None:
    number = await utility.add_meter()
    await utility.registered(number)
    sessions = utility.southbound.counters["sessions"]
    await utility.change_key()
    utility.hear(number)
    await until(lambda: utility.southbound.counters["sessions"] > sessions, "a new session")
    await utility.rotation.finish()
    utility.stop_meter(number)
    meter = await utility.registered(number)
    assert meter.agent.counters["hindered"] == 0


async def test_meter_away_through_two_changes_follows_by_the_roots_word(utility: Utility) -> None:
    number = await utility.add_meter()
    await utility.registered(number)
    utility.stop_meter(number)
    for _ in range(2):
        await utility.change_key()
        await utility.rotation.finish(is_forced=True)
    await utility.stop()
    await utility.start()
    # Its session goes on, whatever the key; what matters is a handshake.
    one = utility.identities[number].meter
    registry = Registry(store=utility.store, sessions=utility.southbound, wall=time.time)
    await registry.rekey([one])
    meter = await utility.registered(number)
    assert meter.agent.trusted_kid == utility.files.current.kid
    assert utility.files.current.statement is not None
    assert meter.agent._trusted.trust.keys[0].epoch == 2
    assert len(meter.agent._trusted.trust.keys) == 1
    utility.stop_meter(number)
    assert (await utility.registered(number)).agent.counters["hindered"] == 0


async def test_meter_without_a_root_takes_it_with_its_first_notice(utility: Utility) -> None:
    number = await utility.add_meter(root=None)
    meter = await utility.registered(number)
    await utility.change_key()
    utility.hear(number)
    await until(lambda: utility.rotation.counters["key confirmed"] == 1, "a confirmation")
    assert meter.agent._trusted.trust.root == ROOT_KEY


async def test_meter_without_a_root_that_was_away_does_not_follow_anybody(utility: Utility) -> None:
    number = await utility.add_meter(root=None)
    old = utility.files.current.kid
    await utility.change_key()
    await utility.rotation.finish(is_forced=True)
    meter = await utility.run_meter(number)
    await until(lambda: meter.agent.counters["hindered"] > 0, "a hindrance")
    assert meter.agent.stage is agent.Stage.SECURING
    assert meter.agent.trusted_kid == old


async def test_false_head_end_with_a_false_root_gains_nothing(
    utility: Utility, tmp_path: Path
) -> None:
    """It has a key of its own, vouched for by a root of its own, at the true one's address."""
    number = await utility.add_meter()
    old = utility.files.current.kid
    await utility.stop()
    (tmp_path / "false").mkdir()
    false = Utility(tmp_path / "false", root=encode_public_key(OTHER_ROOT.public_key()))
    false.port = utility.port
    await false.start()
    try:
        signed = KeyStatement(7, false.files.current.public_key)
        await false.rotation.begin(issue(OTHER_ROOT, signed))
        meter = await utility.run_meter(number)
        await until(lambda: meter.agent.counters["hindered"] > 0, "a hindrance")
        assert meter.agent.trusted_kid == old
        assert meter.agent._trusted.trust.root == ROOT_KEY
        assert false.southbound.session_count == 0
    finally:
        await false.stop()
        await utility.start()


async def test_statement_by_the_root_on_another_heads_key_helps_nobody_else(
    utility: Utility, tmp_path: Path
) -> None:
    """A thief of the statement, without the key, cannot end the handshake that begins with it."""
    number = await utility.add_meter()
    await utility.change_key()
    offered = utility.files.next
    assert offered is not None
    assert offered.signed is not None
    old = utility.files.current.kid
    await utility.stop()
    (tmp_path / "thief").mkdir()
    thief = Utility(tmp_path / "thief")
    thief.port = utility.port
    await thief.start()
    try:
        thief.files.keys.set_statement(thief.files.current.kid, offered.signed)
        meter = await utility.run_meter(number)
        await until(lambda: meter.agent.counters["hindered"] > 0, "a hindrance")
        assert meter.agent.trusted_kid == old
    finally:
        await thief.stop()
        await utility.start()


async def test_meter_refuses_a_false_statement_and_says_why(utility: Utility) -> None:
    number = await utility.add_meter()
    meter = await utility.registered(number)
    old = meter.agent.trusted_kid
    following = utility.files.make_next()
    false = issue(OTHER_ROOT, KeyStatement(1, following.public_key))
    for notice in (
        HeadEndKeyNotice(false),
        HeadEndKeyNotice(false, encode_public_key(OTHER_ROOT.public_key())),
        HeadEndKeyNotice(b"rubbish"),
    ):
        with pytest.raises(Exception, match=r"not by the root|another root|not CBOR|not signed"):
            meter.agent._trusted.take(notice)
    assert meter.agent.trusted_kid == old


async def test_refusal_of_a_meter_is_counted_and_it_is_asked_again(utility: Utility) -> None:
    number = await utility.add_meter(root=encode_public_key(OTHER_ROOT.public_key()))
    await utility.registered(number)
    await utility.change_key()
    counters = utility.rotation.counters
    utility.hear(number)
    await until(lambda: counters["key refused: another root"] == 1, "a refusal")
    await until(lambda: utility.rotation.depth[0] == 0, "an end to it")
    utility.hear(number)
    await until(lambda: counters["key refused: another root"] == 2, "another refusal")
    assert (await utility.rotation.status()).unconfirmed_count == 1


async def test_suspended_meter_is_waited_for_and_a_retired_one_is_not(utility: Utility) -> None:
    for _ in range(2):
        await utility.add_meter()
    registry = Registry(store=utility.store, sessions=utility.southbound, wall=time.time)
    await utility.change_key()
    await registry.change([utility.identities[0].meter], Step.SUSPEND, reason="test")
    assert (await utility.rotation.status()).unconfirmed_count == 2
    await registry.change([utility.identities[0].meter], Step.RETIRE, reason="test")
    assert (await utility.rotation.status()).unconfirmed_count == 1


async def test_who_is_still_to_be_told_outlives_a_restart(utility: Utility) -> None:
    number = await utility.add_meter()
    await utility.change_key()
    await utility.stop()
    await utility.start()
    meter = await utility.registered(number)
    await until(lambda: utility.rotation.counters["key confirmed"] == 1, "a confirmation")
    assert utility.files.next is not None
    assert meter.agent.trusted_kid == utility.files.next.kid


async def test_meter_trusts_the_new_key_after_a_restart_of_its_own(utility: Utility) -> None:
    number = await utility.add_meter()
    await utility.registered(number)
    await utility.change_key()
    utility.hear(number)
    await until(lambda: utility.rotation.counters["key confirmed"] == 1, "a confirmation")
    new = utility.kid_trusted_by(number)
    utility.stop_meter(number)
    meter = await utility.run_meter(number)
    assert meter.agent.trusted_kid == new


async def test_other_settings_than_before_begin_the_trust_anew(utility: Utility) -> None:
    number = await utility.add_meter()
    old = utility.files.current
    await utility.registered(number)
    await utility.change_key()
    utility.hear(number)
    await until(lambda: utility.rotation.counters["key confirmed"] == 1, "a confirmation")
    utility.stop_meter(number)
    file = utility.folder / f"meter-{number}" / "meterd.toml"
    another = encode_public_key(make_key().public_key())
    file.write_text(file.read_text().replace(old.public_key.hex(), another.hex()))
    meter = await utility.run_meter(number)
    assert meter.agent.trusted_kid == head_end_kid(another)


# What an operator can do wrong


async def test_rotation_without_a_root_says_how_to_make_one(tmp_path: Path) -> None:
    utility = Utility(tmp_path, root=None)
    await utility.start()
    try:
        with pytest.raises(RotationRefused, match="pki root init"):
            await utility.rotation.begin()
        with pytest.raises(RotationRefused, match=r"identity\.root_key"):
            await utility.rotation.begin(b"rubbish")
        with pytest.raises(RotationRefused, match="there is no next key"):
            await utility.rotation.finish()
    finally:
        await utility.stop()


async def test_statement_that_is_none_of_ours_changes_nothing(utility: Utility) -> None:
    state = await utility.rotation.begin()
    assert await utility.rotation.begin() == state  # Once made, it stays the next one.
    following = utility.files.next
    assert following is not None
    for octets, said in (
        (b"rubbish", "no statement of our root"),
        (issue(OTHER_ROOT, KeyStatement(1, following.public_key)), "no statement of our root"),
        (issue(ROOT, KeyStatement(1, ROOT_KEY)), "which is none of ours"),
    ):
        with pytest.raises(RotationRefused, match=said):
            await utility.rotation.begin(octets)
    with pytest.raises(RotationRefused, match="has not vouched"):
        await utility.rotation.finish(is_forced=True)
    await utility.rotation.begin(issue(ROOT, KeyStatement(5, following.public_key)))
    with pytest.raises(RotationRefused, match="of epoch 4, expected 6 or more"):
        await utility.rotation.begin(issue(ROOT, KeyStatement(4, following.public_key)))
    await utility.rotation.finish(is_forced=True)
    assert (await utility.rotation.status()).next_epoch == 6


async def test_confirmation_of_an_earlier_key_is_none_of_the_new_one(utility: Utility) -> None:
    number = await utility.add_meter()
    meter = utility.identities[number].meter
    await utility.change_key()
    first = utility.files.next
    assert first is not None
    await utility.store.commit(ConfirmTrust(meter, first.kid, 1))
    await utility.rotation.finish()
    assert (await utility.change_key()).unconfirmed_count == 1


# The files


def files_in(folder: Path, secret: bytes | None = None) -> IdentityFiles:
    return IdentityFiles(folder / "headend-key.pem", root=ROOT_KEY, secret=secret)


def with_next(folder: Path, secret: bytes | None = None) -> IdentityFiles:
    save_key(folder / "headend-key.pem", make_key(), secret)
    files = files_in(folder, secret)
    following = files.make_next()
    files.certify(issue(ROOT, KeyStatement(1, following.public_key)))
    return files


def test_the_files_alone_say_what_is_what(tmp_path: Path) -> None:
    files = with_next(tmp_path)
    again = files_in(tmp_path)
    assert (again.current, again.next) == (files.current, files.next)
    old, new = again.current, again.next
    assert new is not None
    again.take_up_next()
    third = files_in(tmp_path)
    assert third.current.public_key == new.public_key
    assert third.next is None
    assert third.next_epoch == 2
    assert third.keys.kids == (new.kid,)
    retired = tmp_path / f"headend-key-{old.kid.hex()}.retired.pem"
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("*.pem")} == {0o600}
    assert retired.exists()


@pytest.mark.parametrize("call", ["link", "replace", "flush"])
def test_crash_in_the_middle_leaves_the_old_key_or_the_new_and_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    files = with_next(tmp_path)
    old, new = files.current, files.next
    assert new is not None

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if call == "link":
            patch.setattr("headend.identity.os.link", dies)
        elif call == "replace":
            patch.setattr("headend.identity.Path.replace", dies)
        else:
            patch.setattr("headend.identity.flush_folder", dies)
        with contextlib.suppress(KeyboardInterrupt):
            files.take_up_next()
    again = files_in(tmp_path)
    if call != "flush":
        assert (again.current.kid, again.next and again.next.kid) == (old.kid, new.kid)
        again.take_up_next()
        again = files_in(tmp_path)
    assert (again.current.kid, again.next) == (new.kid, None)


def test_files_that_contradict_their_names_are_one_line(tmp_path: Path) -> None:
    files = with_next(tmp_path)
    assert files.next is not None
    file = tmp_path / f"headend-key-{files.next.kid.hex()}.pem"
    statement = tmp_path / f"headend-key-{files.next.kid.hex()}.cbor"
    shutil.copy(statement, tmp_path / f"headend-key-{files.current.kid.hex()}.cbor")
    with pytest.raises(ConfigError, match="on another key than its name says"):
        files_in(tmp_path)
    (tmp_path / f"headend-key-{files.current.kid.hex()}.cbor").unlink()
    statement.write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match="is no statement of our root"):
        files_in(tmp_path)
    statement.unlink()
    file.rename(tmp_path / "headend-key-00000000.pem")
    with pytest.raises(ConfigError, match="holds another key than its name says"):
        files_in(tmp_path)


def test_copies_and_retired_keys_are_passed_over(tmp_path: Path) -> None:
    files = with_next(tmp_path)
    for name in ("headend-key-old.pem", "headend-key-00000000.retired.pem", "headend-key.bak"):
        (tmp_path / name).write_text("anything")
    assert files_in(tmp_path).keys.kids == files.keys.kids


def test_too_many_key_files_are_one_line_and_of_several_the_newest_word_counts(
    tmp_path: Path,
) -> None:
    files = with_next(tmp_path)
    offered = files.next
    assert offered is not None
    for _ in range(6):
        key = make_key()
        kid = head_end_kid(encode_public_key(key.public_key()))
        save_key(tmp_path / f"headend-key-{kid.hex()}.pem", key)
    assert files_in(tmp_path).next == offered
    key = make_key()
    kid = head_end_kid(encode_public_key(key.public_key()))
    save_key(tmp_path / f"headend-key-{kid.hex()}.pem", key)
    with pytest.raises(ConfigError, match="8 keys are in use already; move old key files away"):
        files_in(tmp_path)


def test_next_key_is_sealed_as_the_first_is(tmp_path: Path) -> None:
    secret = make_secret()
    files = with_next(tmp_path, secret)
    assert files.next is not None
    file = tmp_path / f"headend-key-{files.next.kid.hex()}.pem"
    assert b"ENCRYPTED" in file.read_bytes()
    assert files_in(tmp_path, secret).next == files.next
    with pytest.raises(ConfigError, match="there is no secret"):
        files_in(tmp_path)
