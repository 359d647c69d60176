"""The head-end composed and run: the one place that picks implementations.

start, serve, drain, stop, in that order: `HeadEnd` has them as four functions, `run` calls them.

Gives   exit code 0 after a signal; what was acknowledged is in the store by then
Raises  ConfigError, StoreUnusable, LinkError from `start`: one line that says what to do
Limit   DRAIN_S for what is under way when a signal comes; a second signal cuts it short
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import random
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from amistack import telemetry
from amistack.errors import ConfigError, LinkError, StoreUnusable
from amistack.identifiers import Eui64
from amistack.keystore import Sealer
from amistack.links.capture import open_capture
from amistack.links.discovery import Announcement
from amistack.links.host import observed
from amistack.links.supervision import Supervisor
from headend.api.app import make_api
from headend.api.metrics import PATH as METRICS_PATH
from headend.api.metrics import Asgi, make_metrics
from headend.collection.download import Downloads
from headend.collection.on_demand import OnDemandReads
from headend.collection.recovery import Recovery
from headend.config import Settings, join_address, split_address
from headend.dcc.opening import own_eui64, tls_context
from headend.dcc.operations import MeshOperations
from headend.dcc.service import DccService
from headend.identity import IdentityFiles
from headend.kernel_clock import is_synchronised
from headend.lifecycle.rotation import Rotation
from headend.operations import Operations
from headend.southbound.service import Southbound
from headend.status import About
from headend.store.sqlite import SqliteStore, seal_store

DRAIN_S: Final = 10.0
GC_THRESHOLD: Final = 20_000
"""Objects made and not freed again until the collector looks for cycles."""
STALL_S: Final = 60.0
"""Seconds that an uplink may wait for its commit before the work counts as standing still: longer
than any disk takes that still works."""
API_BACKLOG: Final = 128
METRICS_BACKLOG: Final = 16
METRICS_CONNECTIONS_MAX: Final = 16
"""Connections to the metrics at a time; one more is answered 503."""


class HeadEnd:
    """One head-end from its settings. After `start` the other three may be called, once each."""

    def __init__(self, settings: Settings, *, capture: Path | None = None) -> None:
        """What meters send and are sent goes to the file `capture`, if there is one."""
        self._settings = settings
        self._capture = capture
        self._resources = contextlib.ExitStack()
        self._store: SqliteStore | None = None
        self._southbound: Southbound | None = None
        self._dcc: DccService | None = None
        self._reads: OnDemandReads | None = None
        self._recovery: Recovery | None = None
        self._rotation: Rotation | None = None
        self._files: IdentityFiles | None = None
        self._announcements: dict[bytes, Announcement] = {}
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._metrics_server: _Server | None = None
        self._metrics_serving: asyncio.Task[None] | None = None
        self._metrics_url: str | None = None
        self._mesh_address: str | None = None
        self._address = ""
        self._log = telemetry.logger()

    @property
    def address(self) -> str:
        """Where meters find it, with the port that was really bound."""
        return self._address

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics are, with the port that was really bound; None if nowhere."""
        return self._metrics_url

    @property
    def mesh_address(self) -> str | None:
        """Where collectors find it, with the port that was really bound; None if nowhere."""
        return self._mesh_address

    def find_stall(self) -> str | None:
        """Why its work stands still, or None while it does not: uplinks wait for their commit."""
        waited = 0.0 if self._southbound is None else self._southbound.oldest_pending_s
        return None if waited <= STALL_S else f"an uplink has waited {waited:.0f} s for its commit"

    @property
    def summary(self) -> str:
        """The line that a service manager shows."""
        count = 0 if self._southbound is None else self._southbound.session_count
        return f"udp {self._address}; sessions with {count} meters"

    # The four, in order

    async def start(self) -> None:
        """Take everything that is needed, or nothing: on an error all is given back."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        secret = settings.identity.find_secret()
        files = IdentityFiles(settings.identity.key, root=settings.identity.root, secret=secret)
        self._resources.enter_context(_locked(settings.store.path))
        listening = self._resources.enter_context(_listening(settings.api.socket))
        metrics_socket = None
        if settings.metrics.address is not None:
            metrics_socket = await _tcp_socket(*settings.metrics.address)
            self._resources.enter_context(metrics_socket)
        kept = None
        if self._capture is not None:
            kept = self._resources.enter_context(contextlib.closing(open_capture(self._capture)))
        self._store = store = SqliteStore.open(settings.store.path, sealer=_sealer(secret))
        if settings.mesh.address is not None:
            self._dcc = DccService(
                own=own_eui64(files.keys.kids),
                store=store,
                wall=time.time,
                dice=random.SystemRandom(),
                observer=None if kept is None else kept.observe,
            )
        self._southbound = southbound = Southbound(
            key=files.keys.current,
            own_keys=files.keys,
            store=store,
            entropy=os.urandom,
            dice=random.SystemRandom(),
            wall=time.time,
            open_link=observed(None if kept is None else kept.observe),
            is_synchronised=is_synchronised,
            is_clock_vouched_for=settings.server.trust_clock,
            elsewhere=self._dcc,
        )
        self._reads = reads = OnDemandReads(
            store=store, asker=southbound, entropy=os.urandom, wall=time.time
        )
        await reads.start()
        downloads = Downloads(store=store, asker=southbound)
        self._recovery = recovery = Recovery(store=store, asker=southbound, wall=time.time)
        await recovery.start()
        self._rotation = rotation = Rotation(
            files=files,
            store=store,
            asker=southbound,
            wall=time.time,
            on_keys_changed=self._announce,
        )
        await rotation.start()

        def heard(meter: Eui64) -> None:
            recovery.heard(meter)
            rotation.heard(meter)

        southbound.on_heard = heard
        self._address = join_address(*await southbound.start(*settings.server.address))
        mesh = None if self._dcc is None else await self._start_mesh(self._dcc, southbound, store)
        about = About(program_version(), int(time.time()), self._address)
        operations = Operations(
            about=about,
            store=store,
            counting=southbound,
            reads=reads,
            wall=time.time,
            recovery=recovery,
            sessions=southbound,
            rotation=rotation,
            capture=None if kept is None else kept.counters,
            mesh=mesh,
            downloads=downloads,
        )
        api = make_api(operations, version=about.version)
        self._server = _Server(_server_config(api))
        self._serving = await self._server.begin(listening)
        if metrics_socket is not None:
            self._metrics_server = _Server(
                _server_config(make_metrics(operations), connections_max=METRICS_CONNECTIONS_MAX)
            )
            self._metrics_serving = await self._metrics_server.begin(metrics_socket)
            bound = join_address(*metrics_socket.getsockname()[:2])
            self._metrics_url = f"http://{bound}{METRICS_PATH}"
        self._files = files
        self._announce()
        self._log.info(
            "started",
            udp=self._address,
            api=str(settings.api.socket),
            metrics=self._metrics_url,
            mesh=None if mesh is None else mesh.listen,
            is_sealed=secret is not None,
        )

    async def _start_mesh(
        self, dcc: DccService, southbound: Southbound, store: SqliteStore
    ) -> MeshOperations:
        settings = self._settings.mesh
        assert settings.address is not None, "there is a DCC where there is an address"
        dcc.deliver = southbound.receive_datagram
        context = tls_context(settings.certificate, settings.key)
        await dcc.load()
        self._mesh_address = listen = join_address(
            *await dcc.start(*settings.address, context=context)
        )
        return MeshOperations(
            store=store, dcc=dcc, entropy=os.urandom, wall=time.time, listen=listen
        )

    def _announce(self) -> None:
        """Announce every key in use, if that is wanted: some meters know one, some another.

        One that has gone is announced until the stop: nobody who asks for it gets another answer.
        """
        if not self._settings.server.announce or self._files is None:
            return
        for kid in self._files.keys.kids:
            if kid not in self._announcements:
                announcement = Announcement(kid.hex(), *split_address(self._address, "listen"))
                announcement.start()
                self._announcements[kid] = announcement

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises LinkError if the API ends by itself."""
        assert self._serving is not None, "start() comes first"
        wait = asyncio.create_task(stop.wait())
        await asyncio.wait((wait, self._serving), return_when=asyncio.FIRST_COMPLETED)
        wait.cancel()
        if self._serving.done():
            cause = None if self._serving.cancelled() else self._serving.exception()
            raise LinkError("the API ended by itself; the log says why") from cause

    async def drain(self, deadline_s: float) -> bool:
        """Begin nothing new; wait until all that was begun is stored and answered.

        False if that took longer than `deadline_s`.
        """
        self._log.info("stopping")
        if self._recovery is not None:
            self._recovery.stop()
        if self._rotation is not None:
            self._rotation.stop()
        if self._reads is not None:
            self._reads.stop()
        if self._server is not None:
            self._server.should_exit = True
        assert self._southbound is not None, "start() comes first"
        assert self._serving is not None, "start() comes first"
        is_answered, (_, unfinished) = await asyncio.gather(
            self._southbound.drain(deadline_s), asyncio.wait((self._serving,), timeout=deadline_s)
        )
        is_done = is_answered and not unfinished
        if not is_done:
            self._log.warning("not all was answered in time", deadline_s=deadline_s)
        return is_done

    async def stop(self) -> None:
        """Give everything back, last taken first; what the store was given is committed."""
        for announcement in self._announcements.values():
            await announcement.withdraw()
        for serving in (self._metrics_serving, self._serving):
            if serving is not None:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
        for server in (self._metrics_server, self._server):
            if server is not None:
                server.abandon()
        if self._southbound is not None:
            await self._southbound.stop()
        if self._dcc is not None:
            await self._dcc.stop()
        if self._store is not None:
            await self._store.close()
        self._resources.close()
        if self._serving is not None:
            self._log.info("stopped")


async def run(settings: Settings, *, capture: Path | None = None) -> int:
    """All of a head-end's life; its exit code."""
    loop = asyncio.get_running_loop()
    stop, cut = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (cut if stop.is_set() else stop).set()

    head_end = HeadEnd(settings, capture=capture)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    supervisor = Supervisor.from_environment()
    await head_end.start()
    # What a start leaves stays until the end: millions of sessions are not to be looked through
    # again and again for what could be freed.
    gc.freeze()
    # What is under way dies by itself when its answer is sent; looking for cycles among it every
    # 700 objects took a tenth of a report's time.
    gc.set_threshold(GC_THRESHOLD)
    try:
        metrics = f", metrics {head_end.metrics_url}" if head_end.metrics_url else ""
        mesh = f", collectors on tcp {head_end.mesh_address}" if head_end.mesh_address else ""
        _say(
            f"headend is ready on udp {head_end.address}, api {settings.api.socket}{metrics}{mesh}"
        )
        supervisor.tell_ready(head_end.summary)
        supervisor.watch(head_end.find_stall, lambda: head_end.summary)
        await head_end.serve(stop)
        supervisor.tell_stopping()
        drain = asyncio.create_task(head_end.drain(DRAIN_S))
        cutting = asyncio.create_task(cut.wait())
        await asyncio.wait((drain, cutting), return_when=asyncio.FIRST_COMPLETED)
        for task in (drain, cutting):
            task.cancel()
        await asyncio.gather(drain, cutting, return_exceptions=True)
    finally:
        supervisor.close()
        await head_end.stop()
    return 0


def serve(settings: Settings, *, capture: Path | None = None) -> int:
    """Run a head-end on the fastest loop there is; its exit code. Raises AmiError."""
    telemetry.configure(settings.log.level)
    try:
        import uvloop
    except ImportError:  # 32-bit ARM has none.
        return asyncio.run(run(settings, capture=capture))
    return uvloop.run(run(settings, capture=capture))


@contextlib.contextmanager
def reseal_store(path: Path, *, old: bytes | None, new: bytes) -> Iterator[None]:
    """Hold the store at `path`, let the caller do its part, then seal it under the secret `new`.

    Raises StoreUnusable while a head-end runs on it, or if neither secret opens it.
    """
    with _locked(path):
        yield
        if path.exists():
            seal_store(path, _sealer(old), Sealer(new, entropy=os.urandom))


def _sealer(secret: bytes | None) -> Sealer | None:
    return None if secret is None else Sealer(secret, entropy=os.urandom)


def program_version() -> str:
    """The installed version."""
    try:
        return version_of("amistack")
    except PackageNotFoundError:
        return "unknown"


class _Server(uvicorn.Server):
    """A server that leaves the signals to us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def begin(self, listening: socket.socket) -> asyncio.Task[None]:
        """Serve on a socket until the task is cancelled; returns when it is served."""
        serving = asyncio.create_task(self.serve(sockets=[listening]))
        ready = asyncio.create_task(self.ready.wait())
        await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        return serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def abandon(self) -> None:
        """Close whatever is still open: uvloop waits for ever for a listener left behind."""
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server_config(app: Asgi | FastAPI, *, connections_max: int | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=connections_max,
        timeout_graceful_shutdown=int(DRAIN_S),
    )


async def _tcp_socket(host: str, port: int) -> socket.socket:
    """A listening TCP socket for the metrics. Raises LinkError: one line that says what to do."""
    where = join_address(host, port)
    try:
        (family, kind, protocol, _, address), *_ = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(METRICS_BACKLOG)
            listening.settimeout(0)
        except BaseException:
            listening.close()
            raise
    except UnicodeError as error:
        raise LinkError(f"metrics: {where} cannot be opened: not a host's name") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            cure = "in use: stop the program that holds it, or choose another port"
        elif error.errno == errno.EADDRNOTAVAIL:
            cure = "not an address of this machine; choose one of its own"
        else:
            cure = f"not to be had: {error.strerror or error}; choose another with metrics.listen"
        raise LinkError(f"metrics: TCP {where} is {cure}") from error
    return listening


def _say(line: str) -> None:
    # Whoever started us may have closed its end of the pipe; the log has the same.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the store for this process alone: two writers would use a nonce twice."""
    path = store.with_name(store.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be opened: {error.strerror or error}; "
            "check that its folder exists and that this user may write there"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise StoreUnusable(
                f"{store} is in use by another head-end (process {holder}); stop that one first"
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise StoreUnusable(
                f"{path} cannot be written: {error.strerror or error}; "
                "make room on that disk, then start again"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at `path` that only its owner may use; one left behind is replaced."""
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(API_BACKLOG)
        listening.settimeout(0)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{path} cannot be made: {error.strerror or error}; check the folder of api.socket"
        ) from error
    finally:
        os.umask(old_mask)
    try:
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove a socket on which nobody answers. Raises ConfigError for anything else."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # Nothing there; what else may be wrong shows when it is made.
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is there and is no socket; name another file as api.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigError(f"{path} cannot be used: {error.strerror or error}") from error
    raise ConfigError(f"{path} is in use by another head-end; stop that one first")
