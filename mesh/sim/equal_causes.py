"""Which failures look the same to whoever can only probe: a judge of `mesh.topology.isolate`.

Gives   `is_told_apart`: whether there is a way that has one of two components on it and not the
        other
Never   imports anything that isolates, routes or seeks alternates: it walks, breadth first

A way begins at a collector, goes over meters, none of them twice, and ends at a collector, a meter
or another collector. It is answered if nothing on it failed. So two failures are one to the prober
if every way has both of them or neither. The beginning of a way is a way too: to learn where one
broke off says nothing that the beginnings do not say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

Component = tuple[str, tuple[int, ...]]
"""("node", (n,)), ("link", (a, b)) with a < b, or ("backhaul", (collector,))."""

Around = Mapping[int, Collection[int]]
"""Of each node its neighbours, both ways."""


def is_told_apart(one: Component, other: Component, around: Around, roots: Collection[int]) -> bool:
    """Whether some probe would end otherwise if `one` failed than if `other` did."""
    return _is_on_a_way(one, other, around, roots) or _is_on_a_way(other, one, around, roots)


def _is_on_a_way(
    wanted: Component, avoided: Component, around: Around, roots: Collection[int]
) -> bool:
    """Whether a way has `wanted` on it and `avoided` not."""
    kind, ends = wanted
    if kind == "link":
        low, high = ends
        return _is_last_hop(low, high, avoided, around, roots) or _is_last_hop(
            high, low, avoided, around, roots
        )
    (node,) = ends
    if node not in roots:
        return node in _reached(avoided, around, roots)
    if _is_open(node, avoided):
        return True
    # Not by its own backhaul: only a probe from another collector can end there.
    return kind == "node" and any(
        _is_last_hop(other, node, avoided, around, roots) for other in around[node]
    )


def _is_last_hop(
    upper: int, lower: int, avoided: Component, around: Around, roots: Collection[int]
) -> bool:
    """Whether a way that avoids `avoided` can go to `upper`, and from there to `lower`."""
    if avoided in (("node", (lower,)), _link(upper, lower)):
        return False
    if upper in roots:
        # No collector passes on what another one sent.
        return lower not in roots and _is_open(upper, avoided)
    return upper in _reached(avoided, around, roots, without=lower)


def _reached(
    avoided: Component, around: Around, roots: Collection[int], *, without: int | None = None
) -> set[int]:
    """The meters to which a way leads that has neither `avoided` nor the node `without` on it."""
    reached: set[int] = set()
    edge = [root for root in roots if root != without and _is_open(root, avoided)]
    while edge:
        upper = edge.pop()
        for lower in around[upper]:
            if (
                lower not in reached
                and lower not in roots
                and lower != without
                and avoided not in (("node", (lower,)), _link(upper, lower))
            ):
                reached.add(lower)
                edge.append(lower)
    return reached


def _is_open(root: int, avoided: Component) -> bool:
    """Whether a way can begin at this collector."""
    return avoided not in (("node", (root,)), ("backhaul", (root,)))


def _link(one: int, other: int) -> Component:
    return "link", (min(one, other), max(one, other))
