"""What the attempts over one way come to, and which failures between them explain what was lost.

Gives   `summary`, `pairs`; FINAL, the outcomes that are not asked again
Never   sends a probe or chooses one: that is `mesh.topology.isolate`'s
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mesh.topology.paths import Component
from mesh.topology.verdicts import LostAfter, NoAnswer, NoConnection, NotPassed, Outcome

FINAL: Final = (NoConnection, NotPassed)
"""What is not asked again: it would be no other a moment later."""


def summary(attempts: list[Outcome]) -> Outcome:
    """What attempts over one way come to: the closest thing that all of them said."""
    last = attempts[-1]
    if isinstance(last, NotPassed):
        # Who was not answered is forgotten sooner or later: that he is unknown now is no news.
        # But what was lost before it came so far was lost by chance.
        before = [o for o in attempts[:-1] if not _is_refuted(o, last.hops)]
        return summary(before) if before else last
    if isinstance(last, FINAL) or all(each == last for each in attempts):
        return last
    return NoAnswer()


def _is_refuted(outcome: Outcome, reached: int) -> bool:
    """Whether a later attempt, which reached that hop, went over the very link that was blamed."""
    return isinstance(outcome, LostAfter) and outcome.hops < reached


def pairs(
    components: frozenset[Component], lost: list[frozenset[Component]]
) -> Iterator[frozenset[Component]]:
    """One or two of `components` that between them are in every one of `lost`, smallest first."""
    single = frozenset(each for each in components if all(each in ways for ways in lost))
    for each in sorted(single):
        yield frozenset({each})
    for one in sorted(components - single):
        rest = [ways for ways in lost if one not in ways]
        for other in sorted(frozenset.intersection(*rest) & components if rest else ()):
            if other > one and other not in single:
                yield frozenset({one, other})
