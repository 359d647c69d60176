"""Which links a node tries of those that it does not use, and for how long it hopes.

The contract under test: those of which next to nothing is known come first; a link that began badly
is tried until it is known what it is worth; then, if it is worth nothing, now and then at most. A
parent of which little is known is tried when nothing else is to be done, until its figure is sure.
"""

from __future__ import annotations

import itertools
import random

from amistack.identifiers import Eui64
from mesh.routing.dodag import Act
from mesh.routing.metric import FRAMES_CERTAIN, PRIOR_FRAMES
from mesh.routing.upkeep import (
    EXPLORE_INTERVAL_AGAIN,
    EXPLORE_INTERVAL_MAX,
    EXPLORE_INTERVAL_MIN,
    Explorer,
)
from tests.mesh.routing.one_node import NEAR, PROFILE, UNIT, P, Place, X, Y, joined

HOUR = 3600.0
DAY = 24 * HOUR


def unlucky() -> Place:
    """A node whose parent is P; over X, nearer to the root, all first frames needed five tries."""
    place = joined()
    for _ in range(FRAMES_CERTAIN):
        place.answer(P, Act.PROBE)
    place.hear(P, NEAR + 2 * UNIT)
    place.hear(X, NEAR)
    for _ in range(PRIOR_FRAMES):
        place.dodag.note_attempts(X, 5, Act.PROBE, is_acknowledged=True, now=place.now)
    assert place.parent() == P
    place.asked()
    return place


def live(place: Place, attempts: int, seconds: float) -> int:
    """Let it try X for so long, of which each frame needs so many; how often it did."""
    end, count = place.now + seconds, 0
    while place.now < end and place.parent() == P:
        place.wait(10.0)
        place.hear(P, NEAR + 2 * UNIT)
        place.hear(X, NEAR)
        for act, who in place.asked():
            if who == X:
                count += act is Act.PROBE
                place.dodag.note_attempts(X, attempts, act, is_acknowledged=True, now=place.now)
            elif who == P:
                place.answer(P, act)
    return count


def test_a_link_that_began_badly_is_found_to_be_good() -> None:
    place = unlucky()
    assert live(place, 1, 4 * HOUR) <= FRAMES_CERTAIN
    assert place.parent() == X


def test_a_link_that_is_bad_is_tried_until_that_is_certain_and_then_rarely() -> None:
    place = unlucky()
    # It would be the better one up to an ETX of 2.7: of one at 4 no more is hoped after a while.
    assert live(place, 4, 4 * HOUR) <= FRAMES_CERTAIN
    assert place.parent() == P
    often = live(place, 4, 8 * HOUR)
    # As what it is, a further parent: that is tried within half an hour.
    assert 8 * HOUR / 1800.0 <= often <= 8 * HOUR / PROFILE.parents.probe_interval + 1


def test_who_is_not_known_comes_before_who_began_badly() -> None:
    place = unlucky()
    place.hear(Y, NEAR + UNIT // 2)
    place.dodag.place.pending = None
    tried = [who for act, who in waited(place, HOUR) if act is Act.PROBE and who in (X, Y)]
    assert tried[0] == Y
    assert X in tried


def test_where_nobody_may_be_better_it_is_looked_every_half_hour_and_no_more_seldom() -> None:
    place = joined()
    for _ in range(FRAMES_CERTAIN):
        place.answer(P, Act.PROBE)
    explorer = Explorer(place.dodag.place, random.Random(1))
    explorer.begin(0.0)
    looks = [0.0]
    while looks[-1] < DAY:
        looks.append(explorer.deadline)
        explorer.handle_timer(now=explorer.deadline)
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert gaps[0] <= 1.5 * EXPLORE_INTERVAL_MIN
    assert max(gaps) <= 1.25 * EXPLORE_INTERVAL_MAX
    assert sum(gaps[-20:]) / 20 >= 0.8 * EXPLORE_INTERVAL_MAX


def test_a_parent_of_which_little_is_known_is_tried_until_its_figure_is_sure() -> None:
    place = joined()
    row = place.dodag.neighbours.get(P)
    assert row is not None
    assert row.metric.frames < FRAMES_CERTAIN
    asked = []
    while row.metric.frames < FRAMES_CERTAIN:
        assert place.now < 2 * HOUR
        place.wait(10.0)
        for act, who in place.asked():
            if (act, who) == (Act.PROBE, P):
                asked.append(place.now)
                # A link of ETX 1.7: the first frames were lucky.
                attempts = (1, 2, 2)[len(asked) % 3]
                place.dodag.note_attempts(P, attempts, act, is_acknowledged=True, now=place.now)
    assert len(asked) >= FRAMES_CERTAIN - 4
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    assert max(gaps) <= 1.25 * EXPLORE_INTERVAL_AGAIN + 10.0
    assert 1.4 <= row.metric.etx <= 1.8
    later = [who for act, who in waited(place, 4 * HOUR) if act is Act.PROBE]
    assert P not in later


def test_others_that_may_be_better_come_before_the_parent() -> None:
    place = joined()
    place.hear(X, NEAR - UNIT)
    tried = [who for act, who in waited(place, HOUR) if act is Act.PROBE]
    assert tried[0] == X


def waited(place: Place, seconds: float) -> list[tuple[Act, Eui64 | None]]:
    """What it asks for meanwhile; every frame needs five tries, but for those to its parent."""
    asked: list[tuple[Act, Eui64 | None]] = []
    end = place.now + seconds
    while place.now < end:
        place.wait(10.0)
        for act, who in place.asked():
            asked.append((act, who))
            if who is not None:
                attempts = 1 if who == P else 5
                place.dodag.note_attempts(who, attempts, act, is_acknowledged=True, now=place.now)
    return asked
