"""The radio's parameters and links: the closed forms that they claim, and worlds hard enough.

The contract under test: what `mesh.sim.radio` draws follows the log-distance model of its
parameters, and the settlements in the box are no easier than the project says they are.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from pathlib import Path

import pytest

from amistack.errors import ConfigError
from mesh.sim.chance import Chance
from mesh.sim.ground import hardness, shortest_paths
from mesh.sim.placement import Shape, place
from mesh.sim.radio import (
    DICE_SIDES,
    NEVER,
    Links,
    RadioParameters,
    fading,
    links_between,
    radios,
    read_radio,
)
from tests.mesh.sim.worlds import RADIO


def settlement(meters: int, collectors: int, seed: int = 1, shape: Shape = Shape.GRID) -> Links:
    chance = Chance(seed)
    placement = place(
        shape, meter_count=meters, collector_count=collectors, chance=chance.of("placement")
    )
    return links_between(placement.places, RADIO, chance=chance.of("links"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_district_is_hard_enough(seed: int) -> None:
    found = hardness(settlement(1000, 2, seed), range(2))
    assert 15 <= found.neighbours_median <= 40
    assert found.doubtful_share >= 0.3
    assert found.hops_median >= 3
    assert found.hops_max >= 6
    assert found.unreachable <= 2


def test_city_is_hard_enough() -> None:
    found = hardness(settlement(5000, 1), range(1))
    assert 15 <= found.neighbours_median <= 40
    assert found.doubtful_share >= 0.3
    assert found.hops_median >= 7
    assert found.hops_max >= 12
    assert found.unreachable <= 10


def test_nobody_in_the_street_is_out_of_reach() -> None:
    found = hardness(settlement(25, 2, shape=Shape.STREET), range(2))
    assert found.unreachable == 0
    assert found.hops_max >= 2


def test_reference_radio_is_what_was_agreed() -> None:
    assert radios() == ["ref-915"]
    assert RADIO.rate_bps == 100_000
    assert RADIO.rates_bps == (50_000, 100_000, 150_000)
    assert (RADIO.phy_octets, RADIO.mac_octets) == (12, 30)
    assert RADIO.path_loss_exponent == 3.5
    assert (RADIO.shadowing_link_db, RADIO.shadowing_frame_db) == (8, 4)
    assert (RADIO.asymmetry_db, RADIO.capture_db) == (2, 6)


@pytest.mark.parametrize(("rate", "ms"), [(50_000, 22.72), (100_000, 11.36), (150_000, 7.5733)])
def test_airtime_is_octets_over_rate(rate: int, ms: float) -> None:
    assert RADIO.at_rate(rate).airtime(100) * 1000 == pytest.approx(ms, abs=1e-3)


def test_rate_that_the_radio_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="300000 bit/s is not a rate of ref-915"):
        RADIO.at_rate(300_000)


def test_ten_times_the_distance_costs_ten_exponents() -> None:
    assert RADIO.mean_dbm(10) - RADIO.mean_dbm(100) == pytest.approx(35)
    assert RADIO.mean_dbm(RADIO.reach(-97)) == pytest.approx(-97)


def test_reception_ratio_is_the_normal_distribution_of_the_margin() -> None:
    for sigmas, ratio in ((0, 0.5), (1, 0.8413), (-1, 0.1587), (1.645, 0.95), (2.326, 0.99)):
        mean = RADIO.sensitivity_dbm + sigmas * RADIO.shadowing_frame_db
        assert RADIO.reception_ratio(mean) == pytest.approx(ratio, abs=1e-3)
        links = Links(RADIO, [{1: mean}, {}])
        assert links.reception_ratio(0, 1) == pytest.approx(ratio, abs=1e-3)


def test_fading_has_the_deviation_that_it_says() -> None:
    falls = fading(4.0)
    assert len(falls) == DICE_SIDES
    assert list(falls) == sorted(falls)
    assert statistics.fmean(falls) == pytest.approx(0, abs=1e-6)
    assert statistics.pstdev(falls) == pytest.approx(4, rel=1e-3)


def test_shadowing_and_asymmetry_are_normal_with_their_deviations() -> None:
    """Pairs 40 m apart, far from one another: nearly all are above the floor."""
    radio = dataclasses.replace(RADIO, transmit_dbm=RADIO.transmit_dbm + 12, fixed_loss_db=0.0)
    places = [(n * 1e6 + 40.0 * half, 0.0) for n in range(4000) for half in (0, 1)]
    # One reach would not do for a million metres between pairs: each pair is drawn by itself.
    links = links_between(places[:8000], radio, chance=random.Random(5))
    sums, differences = [], []
    for n in range(0, 8000, 2):
        there, back = links.mean_dbm(n, n + 1), links.mean_dbm(n + 1, n)
        assert there is not None
        assert back is not None
        sums.append((there + back) / 2 - radio.mean_dbm(40))
        differences.append(there - back)
    assert statistics.fmean(sums) == pytest.approx(0, abs=0.5)
    assert statistics.pstdev(sums) == pytest.approx(8, rel=0.05)
    assert statistics.fmean(differences) == pytest.approx(0, abs=0.15)
    assert statistics.pstdev(differences) == pytest.approx(2, rel=0.05)


def test_share_of_pairs_at_a_distance_is_that_of_the_model() -> None:
    """A pair is one if shadowing lifts it over the noise: the tail of a normal distribution."""
    distance = RADIO.reach(RADIO.noise_dbm - 8.0)  # one sigma short of the floor
    places = [(n * 1e5 + distance * half, 0.0) for n in range(6000) for half in (0, 1)]
    links = links_between(places, RADIO, chance=random.Random(7))
    pairs = sum(
        bool(links.receivers[n]) or bool(links.receivers[n + 1]) for n in range(0, 12000, 2)
    )
    directions = sum(map(len, links.receivers))
    expected = 1 - statistics.NormalDist().cdf(8.0 / math.hypot(8, 1))
    assert directions / 12000 == pytest.approx(expected, abs=0.01)
    assert pairs / 6000 >= directions / 12000


def test_links_of_one_seed_are_the_same_and_of_another_are_not() -> None:
    assert settlement(60, 1).means == settlement(60, 1).means
    assert settlement(60, 1).means != settlement(60, 1, seed=2).means


def test_loss_that_is_taken_away_again_leaves_nothing() -> None:
    links = settlement(40, 1)
    before = ([list(row) for row in links.means], [list(row) for row in links.needs])
    sender = next(n for n, row in enumerate(links.receivers) if row)
    receiver = links.receivers[sender][0]
    for loss in (0.1, 0.2, 200.0):
        links.change_loss(sender, receiver, loss)
    assert links.needs[sender][0] == NEVER
    assert links.reception_ratio(sender, receiver) == 0
    for loss in (200.0, 0.2, 0.1):
        links.change_loss(sender, receiver, -loss)
    assert ([list(row) for row in links.means], [list(row) for row in links.needs]) == before


def test_loss_of_a_pair_that_is_none_is_nothing() -> None:
    links = Links(RADIO, [{}, {}])
    links.change_loss(0, 1, 10)
    assert links.mean_dbm(0, 1) is None


def test_shortest_paths_are_those_found_by_trying_all() -> None:
    """Bellman-Ford's rounds, until nothing changes: another algorithm, the same costs."""
    links = settlement(60, 1)
    found = shortest_paths(links, [0])
    costs = [0.0] + [math.inf] * (links.count - 1)
    for _ in range(links.count):
        for sender in range(links.count):
            for receiver in links.receivers[sender]:
                etx = links.etx(sender, receiver)
                if etx <= 4:
                    costs[sender] = min(costs[sender], costs[receiver] + etx)
    assert list(found.costs) == pytest.approx(costs)
    for node, parent in enumerate(found.parents):
        if parent >= 0:
            assert found.hops[node] == found.hops[parent] + 1


def test_dead_nodes_carry_no_shortest_path() -> None:
    links = Links(RADIO, [{1: -60.0}, {0: -60.0, 2: -60.0}, {1: -60.0}])
    assert shortest_paths(links, [0]).hops == (0, 1, 2)
    assert shortest_paths(links, [0], without=[1]).hops == (0, -1, -1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capture_db": 20.0}, "sensitivity_dbm is -97, expected at least"),
        ({"path_loss_exponent": 9.0}, "path_loss_exponent is 9, expected 1.5 to 6"),
        ({"rate_bps": 9600}, "rate_bps is 9600, expected one of rates_bps"),
    ],
)
def test_radio_that_cannot_be_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(RADIO, **change)  # type: ignore[arg-type]  # floats for whole numbers


def test_radio_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no radio 'x': expected one of ref-915"):
        read_radio("x")
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n')
    with pytest.raises(ConfigError, match="rate_bps is missing"):
        read_radio(str(file))


def test_parameters_are_a_value() -> None:
    assert isinstance(read_radio("ref-915"), RadioParameters)
    assert read_radio("ref-915") == RADIO
