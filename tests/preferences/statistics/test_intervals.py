"""Intervals of shares against published values and against slower ways to the same numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.intervals import ENOUGH, Clusters, difference, rate, wilson


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
def test_the_interval_of_clusters_is_that_of_rao_and_scott(clusters: list[tuple[int, int]]) -> None:
    """A second, plain implementation, with the residuals written out."""
    counted = Clusters()
    for successes, n in clusters:
        counted.add(successes, n)
    found = counted.rate()
    total, cases = sum(x for x, _ in clusters), sum(n for _, n in clusters)
    share, m = total / cases, len(clusters)
    if m == cases:
        effective: float = cases
    elif m == 1 or total in (0, cases):
        effective = m
    else:
        variance = m / (m - 1) * sum((x - share * n) ** 2 for x, n in clusters) / cases**2
        effective = cases / max(1.0, variance / (share * (1 - share) / cases))
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
