"""What the commands about the mesh print: states, ways, probes, verdicts as text."""

from __future__ import annotations

from collections.abc import Mapping

from headend.api.mesh_documents import (
    DeviceDocument,
    MeshDocument,
    OrderDocument,
    PingDocument,
    TraceDocument,
    TraceRowDocument,
    TraceStepDocument,
    VerdictDocument,
)


def path(found: DeviceDocument) -> str:
    """A node's state, where it is asked, and the ways to it."""
    if found.area is None or found.short is None:
        return f"meter {found.node}, on plain IP at {found.located_at}"
    heard = "never" if found.heard_age_s is None else f"{age(found.heard_age_s)} ago"
    lines = [
        f"{found.role} {found.node}, {found.short:#06x} of area {found.area}",
        f"state       {found.state} for {age(found.state_age_s)}",
        f"heard       {heard}",
    ]
    if found.registered_for is not None:
        lines.append(f"registered  {age(found.registered_age_s)} ago: {found.registered_for}")
    if found.located_at is not None:
        lines.append(
            f"asked by    {found.located_at}, confirmed {age(found.confirmed_age_s)} ago"
            + ("" if found.path_sequence is None else f", path sequence {found.path_sequence}")
        )
    if found.is_kept_out:
        lines.append(f"kept out    of area {found.area}: `headend mesh allow` lets it in again")
    elif not found.ways:
        lines.append("no way is known")
    for number, way in enumerate(found.ways):
        kind = "best way" if way.kind is None else f"alternate {number}, {way.kind}"
        word = "assumed" if way.age_s is None else f"measured {age(way.age_s)} ago"
        lines.append(f"{kind}: ETX {way.etx:.2f}, {len(way.hops)} hops, {word}")
        lines.append(f"  {way.collector}")
        lines += [
            f"  > {hop.node} {hop.short:#06x}  ETX {hop.etx:.2f}, "
            + ("assumed" if hop.age_s is None else age(hop.age_s))
            for hop in way.hops
        ]
    return "\n".join(lines)


def ping(done: PingDocument) -> str:
    """What became of a ping, as a line."""
    way = " > ".join(done.way)
    if done.outcome == "answered":
        return f"{way}: answered in {done.round_trip_ms / 1000:.2f} s, {done.hops} hops"
    if done.outcome == "lost after":
        return f"{way}: lost after {done.hops} hops"
    return f"{way}: {done.outcome}"


def trace(done: TraceDocument) -> str:
    """Every node of a way as a line."""
    if not done.rows:
        return "nobody was asked: the collector knows no such way"
    lines = [f"  0 {done.way[0]}"]
    for hops, (node, row) in enumerate(zip(done.way[1:], done.rows, strict=False), start=1):
        lines.append(_hop(hops, node, row))
    return "\n".join(lines)


def trace_step(step: TraceStepDocument) -> str:
    """One node of a way, as `trace` has it."""
    return _hop(step.hops, step.node, step)


def _hop(hops: int, node: str, row: TraceRowDocument | TraceStepDocument) -> str:
    trip = f" in {row.round_trip_ms / 1000:.2f} s" if row.outcome == "answered" else ""
    return f"{hops:>3} {node} {row.short:#06x} {row.outcome}{trip}"


def verdict(verdict: VerdictDocument) -> str:
    """What an isolation came to."""
    lines = [verdict.finding]
    lines += [f"  {cause.part} {' - '.join(cause.nodes)}" for cause in verdict.causes]
    if verdict.causes:
        lines.append("certain" if verdict.is_certain else "certain only if one component failed")
    for kind, known in verdict.known.items():
        if known:
            lines.append(f"{verdict.left.get(kind, 0)} of {known} alternates left: {kind}")
    for kind, count in verdict.untried.items():
        if count:
            lines.append(f"{count} alternate{'s' if count > 1 else ''} not tried: {kind}")
    if not any(verdict.known.values()) and not any(verdict.untried.values()):
        lines.append("no alternates are known")
    lines.append(f"{verdict.probes} probe{'s' if verdict.probes != 1 else ''}")
    return "\n".join(lines)


def status(found: MeshDocument) -> str:
    """Areas and their collectors."""
    lines = [f"collectors find this head-end at tcp {found.listen}"]
    if not found.areas:
        lines.append("there are no areas: `headend mesh area AREA`")
    for area in found.areas:
        states = _counts(area.states)
        lines.append(
            f"area {area.area}: profile {area.profile}, DODAGID {area.dodag_id}, "
            f"{area.nodes} nodes" + (f": {states}" if states else "")
        )
        if area.registered:
            lines.append(f"  registered last for: {_counts(area.registered)}")
        for one in area.collectors:
            if one.joined_s is None:
                lines.append(f"  collector {one.node} {one.short:#06x}: not connected")
            else:
                table = f"{one.routes} routes" + ("" if one.is_table_whole else " so far")
                lines.append(
                    f"  collector {one.node} {one.short:#06x}: connected for {age(one.joined_s)}, "
                    f"version {one.dodag_version}, {table}"
                )
        if area.denied:
            lines.append(f"  kept out: {', '.join(area.denied)}")
    return "\n".join(lines)


def order(done: OrderDocument, meaning: str) -> str:
    """What each collector did about an order."""
    if not done.collectors:
        return "that area has no collectors"
    lines = []
    for one in done.collectors:
        if one.detail:
            word = one.detail.removeprefix(f"collector {one.collector} ")
        elif not one.is_done:
            word = "could not do it"
        else:
            word = f"done, {meaning} {one.value}" if meaning else "done"
        lines.append(f"collector {one.collector}: {word}")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def age(seconds: float | None) -> str:
    """As 40s, 3m, 5h, 2d."""
    if seconds is None:
        return "never"
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
