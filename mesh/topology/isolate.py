"""Which component keeps a meter silent: probes over chosen ways, and what follows from each.

Spec    I2-S2 steps 1 and 2, I2-X-01
In      `take_outcome` of each probe, `take_evidence` seen elsewhere, `handle_timer`
Out     `probe_to_send`, one at a time; `next_timer`; `verdict`, once there is one
Raises  LocalProtocolError for an outcome that no probe can have
Limit   PROBES_MAX different ways, each asked ATTEMPTS_MAX times before it counts as lost, and
        RETRIES_MAX times more
Never   calls an answer certain that two failures at once could make wrong

Every node, link and backhaul on a way that failed is a hypothesis. A way that answers clears all
that is on it; a way that is lost keeps only what is on it; where a node of the way said that it
could not go on, only the next link and node are kept, and all before is cleared. Where a node does
not know the next one, the way was not tried beyond, which says nothing of what lies there. First
all ways to the meter are tried, the best one and then its alternates in order, which also counts
those left. Then comes whichever probe splits what remains most evenly: the beginnings of ways that
failed, and ways made to hold one hypothesis and avoid another. When no way splits them, they are
the class of causes that cannot be told apart. Last, a few probes clear what two failures together
could be.

A weak link can lose a whole series of probes, for a node that saw a few frames lost holds the next
ones back. So where no single failure explains what was lost, the ways that were lost are asked
again, RETRIES_MAX times in all and with RETRY_WAIT_S between, before several are said to have
failed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from amistack.errors import LocalProtocolError
from amistack.identifiers import Eui64
from mesh.topology.explanations import FINAL, pairs, summary
from mesh.topology.paths import (
    BACKHAUL,
    LINK,
    Component,
    Part,
    Path,
    PathKind,
    kind_of,
    node_component,
)
from mesh.topology.verdicts import (
    Answered,
    Cause,
    Finding,
    LostAfter,
    NoAnswer,
    NoConnection,
    NotPassed,
    Outcome,
    Probe,
    Verdict,
    WayTried,
)

ATTEMPTS_MAX: Final = 3
"""Asked so often, a way that works is lost by chance once in thousands of times."""
RETRIES_MAX: Final = 4
RETRY_WAIT_S: Final = 15.0
"""Longer than a probe is on its way and a node then leaves out who did not acknowledge (8 s)."""
PROBES_MAX: Final = 48
CONFIRMATIONS_MAX: Final = 8
TIMEOUT_BASE_S: Final = 5.0
TIMEOUT_HOP_S: Final = 1.0
"""Some five times what an answer takes, hop by hop, in a network under load."""
PAIR_SUSPECTS_MAX: Final = 200
"""With more left that could have failed, no answer is called certain."""


class Ways(Protocol):
    """Who knows the ways through the mesh; `Routes` does."""

    def route_of(self, node: Eui64) -> Path | None:
        """The best way to a node."""

    def alternates_of(self, node: Eui64) -> tuple[Path, ...]:
        """Further ways, best first."""

    def way_around(
        self, node: Eui64, *, nodes: Iterable[Eui64] = (), links: Iterable[tuple[Eui64, Eui64]] = ()
    ) -> Path | None:
        """A way to a node that touches none of these."""

    def way_to_collector(
        self,
        collector: Eui64,
        *,
        nodes: Iterable[Eui64] = (),
        links: Iterable[tuple[Eui64, Eui64]] = (),
    ) -> Path | None:
        """A way through the mesh to a collector from another one, that touches none of these."""

    def way_over(
        self,
        upper: Eui64,
        lower: Eui64,
        *,
        nodes: Iterable[Eui64] = (),
        links: Iterable[tuple[Eui64, Eui64]] = (),
    ) -> Path | None:
        """A way whose last hop goes from `upper` to `lower`, and that touches none of these."""


class Isolation:
    """One meter's."""

    def __init__(
        self,
        meter: Eui64,
        ways: Ways,
        *,
        first: Path | None = None,
        can_probe_collectors: bool = False,
    ) -> None:
        """`first` is the way that was last used, if it is not the best one that `ways` has.

        `can_probe_collectors` says that a collector answers what comes to it through the mesh from
        another one, without its backhaul: the only probe that tells the two apart.
        """
        self.meter = meter
        self._can_probe_collectors = can_probe_collectors
        self._ways = ways
        found = (first, ways.route_of(meter), *ways.alternates_of(meter))
        self._to_meter = tuple(dict.fromkeys(path for path in found if path is not None))
        self._outcomes: dict[Path, Outcome] = {}
        self._evidence: set[Component] = set()
        self._barred: list[tuple[Eui64, Eui64]] = []
        self._sent: list[Path] = []
        self._confirmation_count = 0
        self._path: Path | None = None
        self._attempts: dict[Path, list[Outcome]] = {}
        self._asked_at: dict[Path, float] = {}
        self._not_before: float | None = None
        self._asked: Probe | None = None
        self._deadline: float | None = None
        self._verdict: Verdict | None = None
        self._go_on()

    # Inputs from below

    def take_outcome(self, number: int, outcome: Outcome) -> None:
        """What became of a probe. An answer counts however late; of the rest, the current one's."""
        if not 0 <= number < len(self._sent):
            raise LocalProtocolError(f"probe {number} was never sent")
        path = self._sent[number]
        if isinstance(outcome, LostAfter | NotPassed) and not 0 <= outcome.hops < path.hops:
            raise LocalProtocolError(f"lost after {outcome.hops} hops on a way of {path.hops}")
        if self._verdict is not None:
            return
        if isinstance(outcome, NotPassed):
            self._barred.append((path.nodes[outcome.hops], path.nodes[outcome.hops + 1]))
        if isinstance(outcome, Answered):
            self._outcomes[path] = outcome
            if path == self._path:
                self._close_probe()
            self._go_on()
        elif self._asked is not None and number == self._asked.number:
            attempts = self._attempts.setdefault(path, [])
            attempts.append(outcome)
            self._asked = self._deadline = None
            if len(attempts) >= ATTEMPTS_MAX or isinstance(outcome, FINAL):
                self._outcomes[path] = summary(attempts)
                self._take_reached(path)
                self._close_probe()
                self._go_on()

    def take_evidence(self, working: Iterable[Component]) -> None:
        """These were seen to work, by other means, since the meter fell silent."""
        self._evidence.update(working)
        if self._verdict is None and self._path is None:
            self._go_on()

    def handle_timer(self, *, now: float) -> None:
        """A probe whose time is over was not answered."""
        if self._deadline is not None and now >= self._deadline and self._asked is not None:
            self.take_outcome(self._asked.number, NoAnswer())

    # Outputs

    def probe_to_send(self, *, now: float) -> Probe | None:
        """The next probe; None while one is under way or not yet due, and after the verdict."""
        if self._asked is not None or self._path is None:
            return None
        if self._not_before is not None and now < self._not_before:
            return None
        self._not_before = None
        self._asked_at[self._path] = now
        self._asked = Probe(len(self._sent), self._path)
        self._sent.append(self._path)
        self._deadline = now + timeout_of(self._path)
        return self._asked

    def sent_late(self, number: int, *, now: float) -> None:
        """The probe that is under way could only be sent now: its time begins anew."""
        if self._asked is not None and number == self._asked.number:
            self._deadline = now + timeout_of(self._asked.path)
            self._asked_at[self._asked.path] = now

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, and then `probe_to_send`; or None."""
        return self._deadline if self._asked is not None else self._not_before

    @property
    def asked(self) -> Probe | None:
        """The probe that is under way."""
        return self._asked

    def verdict(self) -> Verdict | None:
        """What was found; None before the end."""
        return self._verdict

    @property
    def suspects(self) -> frozenset[Component]:
        """What alone explains all that was seen so far; empty before anything was lost."""
        lost = self._lost()
        if not lost:
            return frozenset()
        return frozenset.intersection(*lost) - self._cleared()

    # What follows

    def _take_reached(self, path: Path) -> None:
        """A node that said it could not go on works, whatever a later attempt came to."""
        said = (o for o in self._attempts[path] if isinstance(o, LostAfter | NotPassed))
        reached = max((o.hops for o in said), default=None)
        if reached is not None:
            self._evidence.update(path.up_to(reached).components)

    def _cleared(self) -> frozenset[Component]:
        cleared = set(self._evidence)
        for path, outcome in self._outcomes.items():
            if isinstance(outcome, Answered):
                cleared.update(path.components)
        return frozenset(cleared)

    def _lost(self) -> list[frozenset[Component]]:
        """For each way that was lost, what can have lost it."""
        lost = []
        for path, outcome in self._outcomes.items():
            match outcome:
                case NoAnswer():
                    lost.append(frozenset(path.components))
                case LostAfter(hops):
                    lost.append(frozenset(path.components[2 + 2 * hops : 4 + 2 * hops]))
                case NoConnection():
                    lost.append(frozenset(path.components[:2]))
                case Answered() | NotPassed():
                    pass
        return lost

    def _go_on(self) -> None:
        """Choose the next way to probe, or come to a verdict."""
        if self._path is not None or self._verdict is not None:
            return
        if not self._to_meter:
            self._conclude(Finding.NO_WAY, (), is_certain=False)
            return
        if isinstance(self._outcomes.get(self._to_meter[0]), Answered):
            self._conclude(Finding.ANSWERS, (), is_certain=True)
            return
        untried = [path for path in self._to_meter if path not in self._outcomes]
        suspects = self.suspects
        if untried:
            self._path = untried[0]
        elif not self._lost():
            answers = any(isinstance(each, Answered) for each in self._outcomes.values())
            finding = Finding.ANSWERS if answers else Finding.NO_WAY
            self._conclude(finding, (), is_certain=False)
        elif not suspects:
            self._path = self._lost_again()
            if self._path is None:
                self._conclude_several()
            else:
                self._not_before = self._asked_at[self._path] + RETRY_WAIT_S
        elif len(self._outcomes) >= PROBES_MAX:
            self._conclude(Finding.UNFINISHED, suspects, is_certain=False)
        else:
            self._path = self._splitting(suspects) or self._confirming(suspects)
            if self._path is None:
                finding = Finding.COMPONENT if len(suspects) == 1 else Finding.CLASS
                self._conclude(finding, suspects, is_certain=not self._doubts(suspects))

    def _lost_again(self) -> Path | None:
        """The way to ask once more, of those that were lost the one that was asked least."""
        count, path = min(
            (
                (len(self._attempts[path]), path)
                for path, outcome in self._outcomes.items()
                if isinstance(outcome, NoAnswer | LostAfter)
            ),
            key=lambda each: each[0],
            default=(0, None),
        )
        return path if count < ATTEMPTS_MAX + RETRIES_MAX else None

    def _splitting(self, suspects: frozenset[Component]) -> Path | None:
        """The way whose outcome says most about the suspects; None if none says anything."""
        if len(suspects) < 2:
            return None
        # Beginnings cost nothing to make, and leave few suspects for the others.
        return self._most_telling(suspects, self._beginnings()) or self._most_telling(
            suspects, self._made_to_split(suspects)
        )

    def _most_telling(self, suspects: frozenset[Component], paths: Iterable[Path]) -> Path | None:
        cleared = self._cleared()
        best: tuple[int, int, int] | None = None
        chosen = None
        for path in paths:
            if path in self._outcomes:
                continue
            components = path.components
            inside = sum(component in suspects for component in components)
            even = min(inside, len(suspects) - inside)
            if not even:
                continue
            unsure = sum(component not in cleared for component in components) - inside
            rank = (-even, unsure, path.hops)
            if best is None or rank < best:
                best, chosen = rank, path
        return chosen

    def _beginnings(self) -> Iterator[Path]:
        """How the ways that were lost begin: up to each of their relays."""
        for path, outcome in self._outcomes.items():
            if not isinstance(outcome, Answered):
                for hops in range(path.hops):
                    yield path.up_to(hops)

    def _made_to_split(self, suspects: frozenset[Component]) -> Iterator[Path]:
        """Ways over one suspect and around another; the first for each suspect."""
        for held in sorted(suspects):
            for avoided in sorted(suspects - {held}):
                path = self._way_through(held, {avoided})
                if path is not None and path not in self._outcomes:
                    yield path
                    break

    def _confirming(self, suspects: frozenset[Component]) -> Path | None:
        """A way that ends before the suspects, or tells them from pairs that could explain it all.

        The first kind shows that what a suspect is blamed for does not begin before it, however
        many components failed. The second goes over a suspect and around such a pair, or over one
        of a pair and around the suspects.
        """
        if self._confirmation_count >= CONFIRMATIONS_MAX:
            return None
        cleared = self._cleared()
        for lost in self._outcomes:
            components = lost.components
            first = next((at for at, each in enumerate(components) if each in suspects), 0)
            if first < 2:
                continue
            before = lost.up_to((first - 2) // 2)
            if before not in self._outcomes and not cleared.issuperset(before.components):
                self._confirmation_count += 1
                return before
        doubts = self._doubts(suspects)
        # Lost over a third link, a node is not to be excused by two links.
        third = (
            self._way_through(suspect, doubt)
            for doubt in doubts[:CONFIRMATIONS_MAX]
            for suspect in sorted(suspects)
        )
        part_of = Counter(itertools.chain.from_iterable(doubts))
        ranked = sorted(part_of, key=lambda component: (-part_of[component], component))
        around = (self._way_through(each, suspects) for each in ranked[:CONFIRMATIONS_MAX])
        for path in itertools.chain(third, around):
            if path is not None and path not in self._outcomes:
                self._confirmation_count += 1
                return path
        return None

    def _doubts(self, suspects: frozenset[Component]) -> list[frozenset[Component]]:
        """Pairs of failures that explain all that was seen without any of the suspects.

        Where there is too much left to look through, one that stands for them all.
        """
        lost, cleared = self._lost(), self._cleared()
        others = frozenset().union(*lost) - cleared - suspects
        if len(others) > PAIR_SUSPECTS_MAX:
            return [others]
        return list(pairs(others, lost))

    def _way_through(self, component: Component, around: Iterable[Component]) -> Path | None:
        """A way that has `component` on it and nothing of `around`, or None."""
        nodes: set[Eui64] = set()
        # Where a node does not know the next one, no further way needs to be tried.
        links = list(self._barred)
        node = component.ends[0]
        is_backhaul_avoided = False
        for avoided in around:
            if avoided.kind == BACKHAUL and component == node_component(avoided.ends[0]):
                is_backhaul_avoided = True
            elif avoided.kind == LINK:
                links.append((avoided.ends[0], avoided.ends[1]))
            else:
                # A way has a collector's backhaul on it if and only if it begins there.
                nodes.add(avoided.ends[0])
        if component.kind == LINK:
            pair = (component.ends[0], component.ends[1])
            for upper, lower in (pair, pair[::-1]):
                if not nodes & {upper, lower} and (upper, lower) not in self._barred:
                    path = self._ways.way_over(upper, lower, nodes=nodes, links=links)
                    if path is not None:
                        return path
            return None
        if node in nodes:
            return None
        if is_backhaul_avoided:
            if not self._can_probe_collectors:
                return None
            return self._ways.way_to_collector(node, nodes=nodes, links=links)
        for path in self._outcomes:
            if path.collector == node:
                return path.up_to(0)
        return self._ways.way_around(node, nodes=nodes, links=links)

    # The end

    def _conclude_several(self) -> None:
        lost, cleared = self._lost(), self._cleared()
        others = frozenset().union(*lost) - cleared
        both = pairs(others, lost) if len(others) <= PAIR_SUSPECTS_MAX else iter(())
        causes = frozenset().union(*both)
        finding = Finding.SEVERAL if all(each - cleared for each in lost) else Finding.UNSTABLE
        self._conclude(finding, causes, is_certain=False)

    def _conclude(self, finding: Finding, causes: Iterable[Component], *, is_certain: bool) -> None:
        best = self._to_meter[0] if self._to_meter else None
        ways = tuple(
            WayTried(path, None if path == best else kind_of(path, best), self._outcomes[path])
            for path in self._to_meter
            if path in self._outcomes and best is not None
        )
        self._verdict = Verdict(
            finding,
            tuple(Cause(self._part_of(component), component) for component in sorted(causes)),
            is_certain,
            ways,
            _by_kind(way.kind for way in ways if isinstance(way.outcome, Answered)),
            _by_kind(way.kind for way in ways),
            _by_kind(
                kind_of(path, best)
                for path in self._to_meter
                if path not in self._outcomes and best is not None
            ),
            len(self._sent),
        )

    def _close_probe(self) -> None:
        self._path = self._asked = self._deadline = self._not_before = None

    def _part_of(self, component: Component) -> Part:
        match component.kind:
            case kind if kind == BACKHAUL:
                return Part.BACKHAUL
            case kind if kind == LINK:
                return Part.LINK
        if component == node_component(self.meter):
            return Part.METER
        is_collector = any(path.collector == component.ends[0] for path in self._outcomes)
        return Part.COLLECTOR if is_collector else Part.RELAY


def timeout_of(path: Path) -> float:
    """Seconds that a probe has to be answered over this way."""
    return TIMEOUT_BASE_S + TIMEOUT_HOP_S * path.hops


def _by_kind(kinds: Iterable[PathKind | None]) -> Mapping[PathKind, int]:
    found = Counter(kinds)
    return {kind: found[kind] for kind in PathKind}
