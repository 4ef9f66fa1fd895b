"""Intervals of shares against published values and against slower ways to the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.intervals import ENOUGH, Clusters, counted_as, difference, rate, wilson
from rlhf_tui.preferences.student import t_as_rare_as


@pytest.mark.parametrize(
    ("successes", "n", "low", "high", "digits"),
    [
        (16, 20, 0.584, 0.919, 3),
        (40, 50, 0.67, 0.888, 3),
        (423, 774, 0.5113, 0.5813, 4),  # the first side, in open-instruct's human evaluation
        (460, 662, 0.6587, 0.7287, 4),  # the longer side, there
        (786, 1849, 0.4027, 0.4478, 4),  # the longer side, in the harmless test split of HH-RLHF
    ],
)
def test_wilson_against_published_values(successes: int, n: int, low: float, high: float, digits: int) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=0.51 * 10**-digits)


def test_wilson_against_the_reference_file(published: dict[str, Any]) -> None:
    tulu, hh = published["tulu1"], published["hh_harmless_test"]
    first, second = tulu["position_first"], tulu["position_second"]
    sides = rate(first, first + second)
    assert sides.share == pytest.approx(tulu["p_first_decisive"], abs=5e-5)
    assert (sides.low, sides.high) == pytest.approx(tulu["p_first_ci95_wilson"], abs=5.1e-5)
    longer = rate(round(hh["p_longer_chosen_gt30chars"] * hh["n"]), hh["n"])
    assert (longer.low, longer.high) == pytest.approx(hh["ci95_wilson"], abs=5.1e-5)


@given(n=st.integers(1, 2000), data=st.data(), z=st.floats(0.1, 4))
def test_wilson_is_the_score_test_turned_round(n: int, data: st.DataObject, z: float) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n, z)
    share = successes / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):  # an end p solves |share - p| = z * sqrt(p (1 - p) / n)
        assert (share - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, rel=1e-6, abs=1e-12)
    mirrored = wilson(n - successes, n, z)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_without_data_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    nothing = rate(0, 0)
    assert (nothing.n, nothing.share, nothing.low, nothing.high, nothing.enough) == (0, None, 0.0, 1.0, False)
    assert Clusters().rate() == nothing
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_below_thirty_is_not_enough() -> None:
    assert not rate(5, ENOUGH - 1).enough
    assert rate(5, ENOUGH).enough


cases = st.lists(st.integers(1, 6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=60)


@given(clusters=cases)
def test_the_interval_of_clusters_is_that_of_rao_and_scott_with_the_t_of_korn_and_graubard(
    clusters: list[tuple[int, int]],
) -> None:
    """A second, plain implementation, with the residuals written out."""
    counted = Clusters()
    for successes, n in clusters:
        counted.add(successes, n)
    found = counted.rate()
    total, cases = sum(x for x, _ in clusters), sum(n for _, n in clusters)
    share, m = total / cases, len(clusters)
    even = 1 / sum((n / cases) ** 2 for _, n in clusters)
    if m == cases:
        effective: float = cases
    elif even < 2 - 1e-9:
        effective = 0
    else:
        effective = m
        if 0 < total < cases:
            variance = even / (even - 1) * sum((x - share * n) ** 2 for x, n in clusters) / cases**2
            effective = cases / max(1.0, variance / (share * (1 - share) / cases))
        effective *= (t_as_rare_as(1.96, cases - 1) / t_as_rare_as(1.96, max(1.0, even - 1))) ** 2
    assert (found.successes, found.n) == (total, cases)
    assert (found.low, found.high) == pytest.approx(wilson(share * effective, effective), abs=1e-9)
    plain = wilson(total, cases)
    assert found.high - found.low >= plain[1] - plain[0] - 1e-9


def test_cases_that_always_agree_within_their_cluster_count_once() -> None:
    counted = Clusters()
    for k in range(200):
        counted.add(6 * (k % 2), 6)
    found, once = counted.rate(), rate(100, 200)
    assert found.n == 1200
    assert found.high - found.low == pytest.approx(once.high - once.low, rel=0.01)
    few = Clusters()
    for k in range(6):
        few.add(6 * (k % 2), 6)
    assert few.rate().n == 36
    assert not few.rate().enough


def test_three_prompts_by_hand() -> None:
    """10, 12 and 14 right of 20 each: they scatter less than independent pairs would, so 60 pairs are worth 60;
    t with 59 and with 2 degrees of freedom is 2.001 and 4.303: 60 · (2.001 / 4.303)² = 12.97."""
    counted = Clusters()
    for right in (10, 12, 14):
        counted.add(right, 20)
    found = counted.rate()
    assert (found.clusters, found.even, found.worth) == (3, 3.0, 60.0)
    assert counted_as(found) == pytest.approx(12.97, abs=0.01)
    assert (found.low, found.high) == pytest.approx(wilson(0.6 * 12.97, 12.97), abs=1e-3)
    assert not found.enough


@pytest.mark.parametrize("clusters", [[(20, 20)], [(7, 20)], [(0, 2)], [(150, 200), (1, 1)]])
def test_from_one_prompt_nothing_is_known(clusters: list[tuple[int, int]]) -> None:
    """Nor from one that has nearly all the pairs."""
    counted = Clusters()
    for one in clusters:
        counted.add(*one)
    found = counted.rate()
    assert (found.low, found.high, found.enough, counted_as(found)) == (0.0, 1.0, False, 0.0)
    gap = difference(found, rate(3, 4))
    assert gap is not None
    assert all(map(math.isfinite, gap))


def test_the_stricter_the_question_the_less_few_clusters_count() -> None:
    counted = Clusters()
    for right in (10, 12, 14):
        counted.add(right, 20)
    assert counted_as(counted.rate(), 3.29) < 1 < 12 < counted_as(counted.rate(), 1.96)
    assert counted_as(rate(36, 60), 3.29) == counted_as(rate(36, 60), 1.96) == 60


def drawn(rng: np.random.Generator, sizes: Sequence[int], likeness: float, share: float) -> Clusters:
    """Clusters of these sizes; `likeness` is the correlation of two cases of one (beta-binomial; 1: all alike)."""
    spread = (1 - likeness) / likeness
    each = rng.random(len(sizes)) < share if spread == 0 else rng.beta(share * spread, (1 - share) * spread, len(sizes))
    counted = Clusters()
    for right, n in zip(rng.binomial(sizes, each).tolist(), sizes, strict=True):
        counted.add(right, n)
    return counted


LOOKS = 2000


@pytest.mark.parametrize("likeness", [0.3, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.65])
@pytest.mark.parametrize("clusters", [2, 3, 5, 10, 40])
def test_the_interval_holds_the_truth_as_often_as_it_says(clusters: int, share: float, likeness: float) -> None:
    """20 cases each: in 95 % of draws or more, less what chance leaves of 2000 (one in ten thousand tests)."""
    rng = np.random.default_rng(clusters)
    held = 0
    for _ in range(LOOKS):
        found = drawn(rng, [20] * clusters, likeness, share).rate()
        held += found.low <= share <= found.high
    assert held / LOOKS >= 0.95 - 3.72 * math.sqrt(0.95 * 0.05 / LOOKS)


@pytest.mark.parametrize("likeness", [0.3, 1.0])
@pytest.mark.parametrize("clusters", [5, 10, 20])
def test_one_cluster_with_half_of_the_cases_makes_it_no_narrower_than_it_should_be(
    clusters: int, likeness: float
) -> None:
    rng = np.random.default_rng(clusters)
    sizes = [20 * (clusters - 1)] + [20] * (clusters - 1)
    rates = [drawn(rng, sizes, likeness, 0.5).rate() for _ in range(LOOKS)]
    held = sum(found.low <= 0.5 <= found.high for found in rates)
    assert held / LOOKS >= 0.95 - 3.72 * math.sqrt(0.95 * 0.05 / LOOKS)


@given(clusters=cases, extra=cases)
def test_a_cluster_taken_out_leaves_no_trace(clusters: list[tuple[int, int]], extra: list[tuple[int, int]]) -> None:
    plain, changed = Clusters(), Clusters()
    for one in clusters:
        plain.add(*one)
    for one in [*clusters, *extra]:
        changed.add(*one)
    for one in extra:
        changed.add(*one, -1)
    assert changed.rate() == plain.rate()


def test_a_difference_against_newcombes_own_example() -> None:
    gap = difference(rate(56, 70), rate(48, 80))  # Newcombe 1998, table II, method 10
    assert gap == pytest.approx((0.2, 0.0524, 0.3339), abs=5.1e-5)
    assert difference(rate(1, 2), rate(0, 0)) is None


@given(n=st.integers(1, 300), m=st.integers(1, 300), data=st.data())
def test_a_difference_is_antisymmetric_and_inside_its_interval(n: int, m: int, data: st.DataObject) -> None:
    one, other = rate(data.draw(st.integers(0, n)), n), rate(data.draw(st.integers(0, m)), m)
    here, there = difference(one, other), difference(other, one)
    assert here is not None
    assert there is not None
    assert here == pytest.approx((-there[0], -there[2], -there[1]))
    assert -1 - 1e-12 <= here[1] <= here[0] <= here[2] <= 1 + 1e-12
    assert all(map(math.isfinite, here))
