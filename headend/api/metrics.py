"""The metrics door: what the head-end counts, as Prometheus reads it.

Spec    Prometheus text format 0.0.4, OpenMetrics 1.0 for who asks for it
Gives   `make_metrics`: an ASGI application with /metrics and nothing else
Limit   LABELS_MAX values of one label; what comes later is summed under "other". A scrape reads
        what is in memory already: it asks no store and costs nothing between scrapes
Never   names a meter: what the door shows does not grow with the fleet
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from headend.domain.mesh import Endpoints
from headend.domain.spread import Spread
from headend.operations import Operations
from headend.status import Measures

PATH: Final = "/metrics"
LABELS_MAX: Final = 64
OTHER: Final = "other"
PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


def make_metrics(operations: Operations) -> Asgi:
    """An application that shows the measures of one head-end to whoever may reach it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_HeadEndCollector(operations))
    ProcessCollector(registry=registry)

    async def metrics(scope: Message, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != PATH:
            await _answer(send, HTTPStatus.NOT_FOUND, f"only {PATH} is here\n".encode(), PLAIN)
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(
                send, HTTPStatus.METHOD_NOT_ALLOWED, b"GET only\n", PLAIN, (b"allow", b"GET, HEAD")
            )
            return
        encode, content_type = choose_encoder(_accepted(scope["headers"]))
        await _answer(
            send, HTTPStatus.OK, encode(registry), (b"content-type", content_type.encode())
        )

    return metrics


class _HeadEndCollector(Collector):
    """Reads the measures anew for each scrape; on the event loop's thread, like all that counts."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def collect(self) -> Iterator[Metric]:
        measures = self._operations.measures()
        return itertools.chain(
            _about(measures), _uplinks(measures), _oddities(measures), _queues(measures),
            _sessions(measures), _store(measures), _clock(measures), _datagrams(measures),
            _endpoints(measures.endpoints),
        )  # fmt: skip


def _about(measures: Measures) -> Iterator[Metric]:
    info = GaugeMetricFamily("headend_info", "Always 1; which head-end it is.", labels=["version"])
    info.add_metric([measures.about.version], 1)
    yield info


def _uplinks(measures: Measures) -> Iterator[Metric]:
    tallies = measures.uplinks.items()
    for name, text, counts in (
        ("received", "Authentic, fresh requests of meters.", {k: t.received for k, t in tallies}),
        ("stored", "Uplinks whose records are committed.", {k: t.stored for k, t in tallies}),
        ("answered", "Uplinks that bring nothing to store.", {k: t.answered for k, t in tallies}),
    ):
        yield _counter(f"headend_uplinks_{name}", text, "kind", counts)
    yield _counter_of_two(
        "headend_uplinks_refused",
        "Uplinks of which nothing came.",
        ("kind", "reason"),
        measures.refused_uplinks,
    )
    yield _gauge(
        "headend_uplinks_pending",
        "Uplinks that wait for their commit.",
        "kind",
        {kind: tally.pending for kind, tally in tallies},
    )
    yield _gauge(
        "headend_uplinks_difference",
        "Received - stored - answered - refused - pending: 0, or uplinks are lost.",
        "kind",
        {kind: tally.difference for kind, tally in tallies},
    )
    yield GaugeMetricFamily(
        "headend_reconciles",
        "1 if every uplink is accounted for, else 0.",
        value=int(measures.reconciles),
    )
    yield GaugeMetricFamily(
        "headend_uplink_oldest_pending_seconds",
        "How long the oldest uplink has waited for its commit.",
        value=measures.oldest_pending_s,
    )


def _oddities(measures: Measures) -> Iterator[Metric]:
    yield _counter_of_two(
        "headend_refused",
        "What was refused, by the layer that refused it.",
        ("layer", "reason"),
        {_layer_and_reason(name): count for name, count in measures.refused.items()},
    )
    yield _counter("headend_flagged", "Taken though it is odd.", "reason", measures.flagged)
    yield _counter("headend_quarantined", "Set aside.", "reason", measures.quarantined)


def _queues(measures: Measures) -> Iterator[Metric]:
    queues = measures.queues.items()
    yield _gauge(
        "headend_queue_depth",
        "What a bounded queue or table holds now.",
        "queue",
        {name: depth for name, (depth, _) in queues},
    )
    yield _gauge(
        "headend_queue_bound",
        "What it may hold at most.",
        "queue",
        {name: bound for name, (_, bound) in queues},
    )


def _sessions(measures: Measures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "headend_sessions", "Meters with whom there is a session.", value=measures.session_count
    )
    yield CounterMetricFamily(
        "headend_sessions_opened",
        "Handshakes that ended in a session.",
        value=measures.counters.get("sessions", 0),
    )
    yield _counter(
        "headend_reads", "On-demand reads that ended, by result.", "result", measures.reads
    )
    yield _counter(
        "headend_recalls",
        "Meters asked for days again, after a backup was put back.",
        "result",
        measures.recalls,
    )
    yield GaugeMetricFamily(
        "headend_recalls_waiting", "Meters still to be asked.", value=measures.recalls_waiting
    )


def _store(measures: Measures) -> Iterator[Metric]:
    yield _counter_of_two(
        "headend_records", "Records committed.", ("kind", "outcome"), measures.records
    )
    commits = measures.commits
    yield _histogram("headend_store_group_writes", "Writes in one transaction.", commits.sizes)
    yield _histogram(
        "headend_store_commit_seconds", "What a transaction takes, flushed.", commits.seconds
    )
    yield CounterMetricFamily(
        "headend_store_groups_failed", "Transactions rolled back.", value=commits.failed_count
    )


def _clock(measures: Measures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "headend_clock_believed",
        "1 if time is served to meters, 0 while the host's clock is in doubt.",
        value=int(measures.clock_doubt is None),
    )


def _endpoints(endpoints: Endpoints | None) -> Iterator[Metric]:
    if endpoints is None:
        return
    yield _gauge(
        "headend_mesh_nodes", "Nodes of the mesh, by how they are.", "state", endpoints.states
    )
    yield _counter(
        "headend_mesh_moves",
        "Nodes that came into a state out of another one.",
        "state",
        endpoints.moves,
    )
    yield _counter(
        "headend_mesh_registrations",
        "Registrations of nodes, by reason.",
        "reason",
        endpoints.registrations,
    )


def _datagrams(measures: Measures) -> Iterator[Metric]:
    yield _counter("headend_link", "What the UDP socket and the mesh did.", "event", measures.link)
    yield _counter("headend_capture", "What the capture did.", "event", measures.capture)


# Families


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in _bounded(counts.items()).items():
        family.add_metric([value], count)
    return family


def _counter_of_two(
    name: str, text: str, labels: tuple[str, str], counts: Mapping[tuple[str, str], int]
) -> Metric:
    """A counter with two labels; the second one's values are bounded for each of the first."""
    family = CounterMetricFamily(name, text, labels=labels)
    by_first: dict[str, list[tuple[str, int]]] = {}
    for (first, second), count in counts.items():
        by_first.setdefault(first, []).append((second, count))
    for first, seconds in by_first.items():
        for second, count in _bounded(seconds).items():
            family.add_metric([first, second], count)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, spread: Spread) -> Metric:
    counts = itertools.accumulate(spread.counts)
    bounds = [*(f"{float(bound)}" for bound in spread.bounds), "+Inf"]
    return HistogramMetricFamily(
        name, text, buckets=list(zip(bounds, counts, strict=True)), sum_value=spread.total
    )


def _bounded(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The first LABELS_MAX as they are, the rest in one: who came first stays, so none falls."""
    bounded: dict[str, int] = {}
    for name, count in counts:
        key = name if len(bounded) < LABELS_MAX else OTHER
        bounded[key] = bounded.get(key, 0) + count
    return bounded


def _layer_and_reason(name: str) -> tuple[str, str]:
    layer, _, reason = name.partition(": ")
    return layer, reason


# HTTP


def _accepted(headers: object) -> str:
    assert isinstance(headers, Iterable)
    return ",".join(value.decode("latin-1") for name, value in headers if name == b"accept")


async def _answer(
    send: Send, status: HTTPStatus, body: bytes, *headers: tuple[bytes, bytes]
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": int(status), "headers": [*headers, length]}
    )
    await send({"type": "http.response.body", "body": body})
