"""The figures of a run, as the table of results and its JSON have them.

Gives   `figures`, with the parts that the scenario has; times in seconds, shares from 0 to 1
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from mesh.sim.ground import shortest_paths
from mesh.sim.isolations import IsolationCases
from mesh.sim.oracles import path_cost
from mesh.sim.repairs import RepairWatch
from mesh.sim.returns import ReturnWatch
from mesh.sim.stations import Airtime
from mesh.sim.traffic import LIMITS_S, Exchange, Kind
from mesh.sim.world import World

Figures = dict[str, object]
DIGITS: Final = 4
DAY_S: Final = 86_400


def percentile(values: Collection[float], share: float) -> float | None:
    """The value that `share` of them do not exceed (nearest rank); None without values."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def figures(
    world: World,
    *,
    repairs: RepairWatch,
    isolations: IsolationCases | None,
    returns: ReturnWatch,
    measured_s: float,
    airtime: Airtime,
    wall_s: float,
    cpu_s: float,
) -> Figures:
    """All of them. `airtime` is what was held before the `measured_s` began."""
    exchanges = [exchange for exchange in world.traffic.exchanges if not exchange.is_void]
    found: Figures = {"offered": _offered(exchanges, world)}
    if exchanges:
        found["classes"] = _classes(exchanges)
        found["daily_reports"] = _reports(exchanges)
    if any(exchange.kind is Kind.REQUEST for exchange in exchanges):
        found["on_demand"] = _on_demand(exchanges)
    if repairs.orphans:
        found["repair"] = repair_figures(repairs)
    if returns.returns:
        found["restart"] = _restart(returns)
    stretch = percentile(stretches(world), 0.9)
    if stretch is not None:
        found["stretch_p90"] = _rounded(stretch)
    if measured_s > 0:
        shares = control_shares(world, airtime, measured_s)
        found["control_share_busiest"] = _rounded(max(shares))
        found["control_share_mean"] = _rounded(sum(shares) / len(shares))
    if isolations is not None:
        cases, right, wrong = map(sum, zip(*isolations.counts().values(), strict=True))
        found["isolation"] = {"cases": cases, "right": right, "wrong_certain": wrong}
    found["simulated_s"] = world.clock.now
    found["wall_s"] = round(wall_s, 2)
    found["cpu_s"] = round(cpu_s, 2)
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _offered(exchanges: Sequence[Exchange], world: World) -> Figures:
    counts = Counter(exchange.kind for exchange in exchanges)
    load = world.scenario.load
    sizes = {
        Kind.C1: load.c1_octets,
        Kind.C2: load.c2_octets,
        Kind.C3: load.c3_octets,
        Kind.C4: load.c4_octets,
        Kind.REQUEST: load.request_octets + load.answer_octets,
    }
    found: Figures = {kind.name: counts[kind] for kind in LIMITS_S}
    found["on_demand"] = counts[Kind.REQUEST]
    found["octets"] = sum(sizes[kind] * count for kind, count in counts.items())
    return found


def _classes(exchanges: Sequence[Exchange]) -> Figures:
    found: Figures = {}
    for kind, limit in LIMITS_S.items():
        of_kind = [exchange for exchange in exchanges if exchange.kind is kind]
        if of_kind:
            latencies = _latencies(of_kind)
            found[kind.name] = {
                "sent": len(of_kind),
                "within_limit": sum(latency <= limit for latency in latencies),
                "limit_s": limit,
            }
    return found


def _latencies(exchanges: Sequence[Exchange]) -> list[float]:
    found = (exchange.latency_s for exchange in exchanges)
    return [latency for latency in found if latency is not None]


def _reports(exchanges: Sequence[Exchange]) -> Figures:
    reports = [exchange for exchange in exchanges if exchange.kind is Kind.C4]
    latencies = _latencies(reports)
    limit = LIMITS_S[Kind.C4]
    return {
        "expected": len(reports),
        "in_window": sum(latency <= limit for latency in latencies),
        "eventually": len(latencies),
    }


def _on_demand(exchanges: Sequence[Exchange]) -> Figures:
    reads = [exchange for exchange in exchanges if exchange.kind is Kind.REQUEST]
    latencies = _latencies(reads)
    by_hops: Figures = {}
    for hops in sorted({read.hops for read in reads}):
        of_hops = [read for read in reads if read.hops == hops]
        times = _latencies(of_hops)
        by_hops[str(hops)] = {
            "asked": len(of_hops),
            "p50_s": _rounded(percentile(times, 0.5)),
            "p99_s": _rounded(percentile(times, 0.99)),
        }
    return {
        "asked": len(reads),
        "within_30s": sum(latency <= 30 for latency in latencies),
        "within_60s": sum(latency <= 60 for latency in latencies),
        "p50_s": _rounded(percentile(latencies, 0.5)),
        "p95_s": _rounded(percentile(latencies, 0.95)),
        "p99_s": _rounded(percentile(latencies, 0.99)),
        "by_hops": by_hops,
    }


def repair_figures(repairs: RepairWatch) -> Figures:
    """How long orphans took, in the three clocks of `mesh.sim.repairs`."""
    orphans = [orphan for orphan in repairs.orphans if not orphan.is_gone]
    noticed = [
        orphan.noticed_at - orphan.died_at for orphan in orphans if orphan.noticed_at is not None
    ]
    adopted = [
        orphan.adopted_at - orphan.noticed_at
        for orphan in orphans
        if orphan.adopted_at is not None and orphan.noticed_at is not None
    ]
    routed = [
        orphan.routed_at - orphan.noticed_at
        for orphan in orphans
        if orphan.routed_at is not None and orphan.noticed_at is not None
    ]
    return {
        "orphans": len(orphans),
        "within_1s": sum(time <= 1 for time in adopted),
        "routed_within_60s": sum(time <= 60 for time in routed),
        "noticed_p85_s": _rounded(percentile(noticed, 0.85)),
    }


def _restart(watch: ReturnWatch) -> Figures:
    return {
        "meters": sum(len(one.reads) for one in watch.returns),
        "reached_within_120s": sum(one.reached for one in watch.returns),
        "without_parent": sum(len(one.detached) for one in watch.returns),
    }


def repair_clocks(repairs: RepairWatch) -> Mapping[str, tuple[float | None, ...]]:
    """The three clocks of a repair, each with p50, p85 and p99."""
    orphans = [orphan for orphan in repairs.orphans if not orphan.is_gone]
    clocks: dict[str, list[float]] = {"noticed": [], "new parent": [], "new route": []}
    for orphan in orphans:
        if orphan.noticed_at is None:
            continue
        clocks["noticed"].append(orphan.noticed_at - orphan.died_at)
        if orphan.adopted_at is not None:
            clocks["new parent"].append(orphan.adopted_at - orphan.noticed_at)
        if orphan.routed_at is not None:
            clocks["new route"].append(orphan.routed_at - orphan.noticed_at)
    return {
        name: tuple(percentile(times, share) for share in (0.5, 0.85, 0.99))
        for name, times in clocks.items()
    }


def stretches(world: World) -> list[float]:
    """For each meter that has a way: its true cost over that of the best true way."""
    parents = world.parents()
    roots = frozenset(number for number in world.collectors if world.is_up(number))
    down = [number for number in range(world.count) if not world.is_up(number)]
    best = shortest_paths(world.links, roots, without=down)
    found = []
    for meter in world.meters:
        cost = path_cost(parents, meter, roots, world.links.etx)
        if cost is not None and 0 < best.costs[meter] < math.inf:
            found.append(cost / best.costs[meter])
    return found


def unreachable(world: World) -> list[int]:
    """Meters with power to which the air has no usable way: nobody's fault."""
    roots = [number for number in world.collectors if world.is_up(number)]
    down = [number for number in range(world.count) if not world.is_up(number)]
    best = shortest_paths(world.links, roots, without=down)
    return [meter for meter in world.meters if world.is_up(meter) and best.costs[meter] == math.inf]


def control_shares(world: World, before: Airtime, measured_s: float) -> list[float]:
    """Around each node: the share of time that control holds the medium.

    All frames count that the node hears at its sensitivity or better on the average, and its own;
    two at a time count as two.
    """
    held = [
        now - then for now, then in zip(world.stations.airtime.control, before.control, strict=True)
    ]
    around = list(held)
    sensitivity = world.links.radio.sensitivity_dbm
    for sender, receivers in enumerate(world.links.receivers):
        for receiver, mean in zip(receivers, world.links.means[sender], strict=True):
            if mean >= sensitivity:
                around[receiver] += held[sender]
    return [seconds / measured_s for seconds in around]
