"""Profiles: those in the box hold what their sources say; a wrong one is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from amistack.errors import ConfigError
from amistack.identifiers import Eui64
from mesh.routing.neighbours import Neighbour
from mesh.routing.place import Place
from mesh.routing.profile import NAMES, Profile, load_profile


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_tries_its_parents_within_half_an_hour(name: str) -> None:
    profile = load_profile(name)
    assert profile.parents.probe_interval <= 1800.0 - 60.0
    assert profile.parents.count_max >= 3
    # RFC 6719 section 5: MaxRankIncrease must not be below the switching threshold.
    unit = profile.dodag.hop_rank_increase_min
    assert profile.dodag.rank_increase_max >= profile.parents.switch_etx * unit
    assert profile.configuration.interval_min == profile.dodag.interval_min


def test_rfc_8036_is_what_its_section_7_says() -> None:
    profile = load_profile("rfc8036")
    dodag = profile.dodag
    assert 2**dodag.interval_min / 1000 >= 50 * 120 * 8 / 100_000
    assert 2 ** (dodag.interval_min + dodag.interval_doublings) / 1000 >= 2 * 3600
    assert dodag.redundancy >= 10
    assert dodag.hop_rank_increase_min == 256
    # Four hops, as its example has them, over the worst links that are used.
    assert 0 < dodag.rank_increase_max <= 4 * profile.parents.link_etx_max * 256


def test_wisun_is_what_the_facts_say() -> None:
    large, small = load_profile("wisun-large").dodag, load_profile("wisun-small").dodag
    assert (large.interval_min, large.interval_doublings, large.redundancy) == (19, 1, 0)
    assert (small.interval_min, small.interval_doublings, small.redundancy) == (15, 2, 0)
    assert large.lifetime * large.lifetime_unit == 7200
    assert large.hop_rank_increase_min == small.hop_rank_increase_min == 128


@pytest.mark.parametrize(
    "text",
    [
        "[dodag]\ninterval = 3\n",
        "[dodag]\nhop_rank_increase_min = 0\n",
        "[dodag]\ninterval_min = 99\n",
        "[dodag]\ninterval_min = 2\n",
        "[dodag]\ninterval_doublings = 4\n",
        "[dodag]\nlifetime = 1\nlifetime_unit = 59\n",
        "[parents]\nprobe_interval = -1.0\n",
        "[parents]\ncount_max = 0\n",
        "[links]\nattempts_max = 0\n",
        "[dodag]\nlifetime = 256\n",
        "[dodag]\nlifetime = 0\n",
        "[dodag]\nlifetime_unit = 0\n",
        "[dodag]\nrank_increase_max = 70000\n",
        "dodag = 1\n",
    ],
)
def test_a_wrong_profile_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert "\n" not in str(caught.value)


def test_an_own_profile_is_the_default_but_for_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[parents]\ncount_max = 5\n")
    assert load_profile(path).parents.count_max == 5
    assert load_profile(path).dodag == Profile().dodag
    with pytest.raises(ConfigError, match="no profile"):
        load_profile("nobody")


@pytest.mark.parametrize("name", NAMES)
def test_in_every_profile_etx_one_adds_exactly_min_hop_rank_increase(name: str) -> None:
    profile = load_profile(name)
    place = Place(profile, dodag_id=None, root_version=None, dtsn=0)
    row = Neighbour(Eui64(bytes(8)), 1, now=0.0)
    row.rank = unit = profile.dodag.hop_rank_increase_min
    for etx, hops in ((1.0, 2), (2.0, 3), (4.0, 5)):
        row.metric.etx = etx
        assert place.path_rank(row) == hops * unit
    # A path of the longest ETX that is allowed must be a rank, and fewer than no rank at all.
    assert profile.parents.path_etx_max * unit < 0xFFFF


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_may_rise_by_a_few_hops_and_no_more(name: str) -> None:
    dodag = load_profile(name).dodag
    # RFC 8036 section 7.4 has four hops in its example; a hop over a middling link is ETX 2.
    assert 4 <= dodag.rank_increase_max / dodag.hop_rank_increase_min <= 16
