"""What a meter measures, step by step of a plan, in the quantities that a programme names.

Gives   the value of a quantity in each step and in the part of a step that has passed; which
        quantities there are; a real meter's dials
Raises  SourceError as the source does
Never   fills in: a step of which any part is not known has no value
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from amistack.model.quantity import Quantity
from meterd.metrology import Flow, LiveSource, Source
from meterd.metrology.source import Energy
from meterd.metrology.supply import Supply
from meterd.recording.plan import FLOW_QUANTITIES

Value = int | None


class Metering:
    """A source of energy and, if somebody knows it, what its supply is like.

    Reactive energy is the source's where that has a dial of it, else the supply's.
    """

    def __init__(self, source: Source, supply: Supply | None = None) -> None:
        self.source: Final = source
        self._supply: Final = supply

    @property
    def resolution_s(self) -> int:
        """How often it measures."""
        return self.source.interval_s

    @property
    def quantities(self) -> frozenset[Quantity]:
        """What can be recorded."""
        flows = self.source.flows
        found = {FLOW_QUANTITIES[flow] for flow in flows if flow in FLOW_QUANTITIES}
        if Quantity.DELIVERED in found:
            found.add(Quantity.DEMAND)
        if {Quantity.DELIVERED, Quantity.RECEIVED} <= found:
            found.add(Quantity.NET)
        if Flow.REACTIVE in flows:
            found.add(Quantity.REACTIVE)
        return frozenset(found | self._of_supply)

    @property
    def _of_supply(self) -> frozenset[Quantity]:
        """What is not on a dial of the source."""
        on_dial = {Quantity.REACTIVE} if Flow.REACTIVE in self.source.flows else set()
        return frozenset() if self._supply is None else self._supply.quantities - on_dial

    def steps(
        self, quantities: Iterable[Quantity], begin: int, count: int, *, step_s: int
    ) -> dict[Quantity, list[Value]]:
        """Each quantity in each of `count` steps from `begin` on: of demand, the Wh it is of."""
        wanted = set(quantities)
        of_supply = self._of_supply
        energies = self._energies(begin, count, step_s)
        found = {
            one: [self.of_flows(one, energy) for energy in energies] for one in wanted - of_supply
        }
        if wanted & of_supply:
            qualities = self._qualities(begin, count, step_s)
            found |= {one: qualities[one] for one in of_supply}
        return {one: found[one] for one in wanted}

    def part(self, quantity: Quantity, begin: int, now: float, *, step_s: int) -> Value:
        """What has been counted from the start of the running step at `begin` until `now`.

        Reactive energy counts by whole parts of a step.
        """
        if quantity in self._of_supply:
            length_s = self.resolution_s
            whole = min(max(int(now - begin), 0), step_s - 1) // length_s
            (known,) = self.steps([quantity], begin, whole, step_s=length_s).values()
            return sum(value or 0 for value in known)
        return self.of_flows(quantity, self._part(begin, now, step_s))

    def dial(self, quantity: Quantity, utc: float) -> Value:
        """What a real meter's register showed at `utc` (Wh); None if not known, or none."""
        if not isinstance(self.source, LiveSource) or not quantity.is_counted:
            return None
        shown = self.source.register(utc)
        return None if shown is None else self.of_flows(quantity, shown)

    def of_flows(self, quantity: Quantity, energy: Energy) -> Value:
        """A quantity of what stands for each flow of the source, in its order."""
        by_flow = dict(zip(self.source.flows, energy, strict=True))
        match quantity:
            case Quantity.DELIVERED | Quantity.DEMAND:
                return by_flow[Flow.DELIVERED]
            case Quantity.RECEIVED:
                return by_flow[Flow.RECEIVED]
            case Quantity.NET:
                delivered, received = by_flow[Flow.DELIVERED], by_flow[Flow.RECEIVED]
                return None if delivered is None or received is None else delivered - received
            case Quantity.REACTIVE:
                return by_flow.get(Flow.REACTIVE)
            case _:
                return None

    def _energies(self, begin: int, count: int, step_s: int) -> list[Energy]:
        if step_s == self.resolution_s:
            return self.source.energy(begin, count)
        if isinstance(self.source, LiveSource):
            return self.source.energy(begin, count, length_s=step_s)
        share = step_s // self.resolution_s
        parts = self.source.energy(begin, count * share)
        return [_sums(parts[first : first + share]) for first in range(0, len(parts), share)]

    def _part(self, begin: int, now: float, step_s: int) -> Energy:
        if isinstance(self.source, LiveSource):
            return self.source.partial(begin, now, length_s=step_s)
        whole = min(max(int(now - begin), 0), step_s - 1) // self.resolution_s
        partial = self.source.partial(begin + whole * self.resolution_s, now)
        return _sums([*self.source.energy(begin, whole), partial]) if whole else partial

    def _qualities(self, begin: int, count: int, step_s: int) -> dict[Quantity, list[Value]]:
        assert self._supply is not None, "a programme that wants more than there is was refused"
        found = self._supply.quality(begin, count, length_s=step_s)
        return {
            Quantity.VOLTAGE: [one.decivolts for one in found],
            Quantity.REACTIVE: [one.varh for one in found],
        }


def _sums(parts: Sequence[Energy]) -> Energy:
    """The sum of each flow; None where a part of it is not known."""
    return tuple(map(_sum, zip(*parts, strict=True)))


def _sum(values: Sequence[Value]) -> Value:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
