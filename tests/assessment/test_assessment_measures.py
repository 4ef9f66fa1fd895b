"""Accuracy, calibration and comparisons: by hand, by brute force, and against plain second implementations."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_tui.assessment import counting, measures
from rlhf_tui.assessment.counting import ABOUT_AS_LONG, LONGER_IS_BETTER, SHORTER_IS_BETTER, right
from rlhf_tui.preferences.intervals import wilson

GAPS = st.lists(st.floats(-6, 6, allow_nan=False), min_size=1, max_size=120)


# -- accuracy -----------------------------------------------------------------------------------------


def test_accuracy_by_hand(make) -> None:
    pairs = make.pairs([1.0, 0.5, -2.0, 0.0])
    found = measures.accuracy(pairs)
    assert found is not None
    assert (found.rate.successes, found.rate.n, found.rate.share) == (2.5, 4, 0.625)
    assert (found.rate.low, found.rate.high) == pytest.approx(wilson(2.5, 4))
    assert found.log_loss == pytest.approx((0.313262 + 0.474077 + 2.126928 + 0.693147) / 4, abs=1e-6)


def test_ties_never_count_as_right(make) -> None:
    decided = make.pairs([1.0, -1.0, 2.0])
    ties = make.pairs([5.0, 5.0, 0.0], start=10, tie=True, strength=0)
    found = measures.accuracy((*decided, *ties))
    assert found is not None
    assert (found.rate, found.ties) == (measures.accuracy(decided).rate, 3)
    assert measures.accuracy(ties) is None


def test_collapsed_scores_are_right_half_of_the_time(make) -> None:
    """A published reward model with a loss of ln 2 was given an accuracy of 0.995: it scored everything alike."""
    found = measures.accuracy(make.pairs([0.0] * 200))
    assert found is not None
    assert found.rate.share == 0.5
    assert found.log_loss == pytest.approx(math.log(2))


def test_pairs_of_one_prompt_hang_together(make) -> None:
    gaps = [1.0, 1.0, 1.0, -1.0, -1.0, -1.0] * 10
    apart = measures.accuracy(make.pairs(gaps))
    together = measures.accuracy(make.pairs(gaps, prompt=[f"p{place // 3}" for place in range(60)]))
    assert apart.rate.share == together.rate.share == 0.5
    wide, narrow = together.rate.high - together.rate.low, apart.rate.high - apart.rate.low
    # 19 cases by how the prompts scatter, and t is 2.001 for 60 pairs and 2.093 for 20 prompts.
    worth = 19 * (2.001 / 2.093) ** 2
    assert wide == pytest.approx(wilson(worth / 2, worth)[1] - wilson(worth / 2, worth)[0], rel=1e-3)
    assert wide > 1.6 * narrow
    assert apart.rate.enough
    assert not together.rate.enough


@given(GAPS)
def test_the_loss_is_of_the_better_one_winning(gaps: list[float]) -> None:
    expected = -sum(math.log(1 / (1 + math.exp(-gap))) for gap in gaps) / len(gaps)
    assert measures._log_loss(np.array(gaps)) == pytest.approx(expected, rel=1e-9)


# -- slices -------------------------------------------------------------------------------------------


def test_slices(make) -> None:
    pairs = make.pairs(
        [1.0, -1.0, 1.0, 1.0, 9.0],
        strength=[1, 1, 2, 2, 0],
        tie=[False, False, False, False, True],
        rater=["ben", "anna", "anna", "anna", "carl"],
        better_length=[100, 100, 50, 95, 1],
        worse_length=[100, 50, 100, 100, 9],
    )
    by_name = {one.name: (one.rate.successes, one.rate.n) for one in counting.by_strength(pairs)}
    assert by_name == {"better": (1, 2), "much better": (2, 2)}
    assert [(one.name, one.rate.n) for one in counting.by_rater(pairs)] == [("anna", 3), ("ben", 1)]
    by_length = {one.name: (one.rate.successes, one.rate.n) for one in counting.by_length(pairs)}
    assert by_length == {ABOUT_AS_LONG: (2, 2), LONGER_IS_BETTER: (0, 1), SHORTER_IS_BETTER: (1, 1)}


def test_slices_without_pairs_are_left_out(make) -> None:
    assert [one.name for one in counting.by_strength(make.pairs([1.0, 1.0]))] == ["better"]
    assert counting.by_rater(()) == ()


def test_both_empty_are_about_as_long(make) -> None:
    assert counting.length_slice(make.pair(1.0, better_length=0, worse_length=0)) == ABOUT_AS_LONG


# -- calibration --------------------------------------------------------------------------------------


def test_ece_and_brier_by_hand(make) -> None:
    """80 pairs make two bins of 40: 55 % sure and half right, 80 % sure and three of four right."""
    low, high = math.log(0.55 / 0.45), math.log(0.8 / 0.2)
    gaps = [low] * 20 + [-low] * 20 + [high] * 30 + [-high] * 10
    random.Random(0).shuffle(gaps)
    found = measures.calibration(make.pairs(gaps))
    assert [(one.n, one.predicted, one.observed) for one in found.bins] == [
        (40, pytest.approx(0.55), 0.5),
        (40, pytest.approx(0.8), 0.75),
    ]
    assert [(one.low, one.high) for one in found.bins] == [(pytest.approx(0.55),) * 2, (pytest.approx(0.8),) * 2]
    assert found.ece == pytest.approx(0.05)
    assert found.brier == pytest.approx((20 * 0.45**2 + 20 * 0.55**2 + 30 * 0.2**2 + 10 * 0.8**2) / 80)


def test_the_interval_of_a_bin_knows_which_pairs_are_of_one_prompt(make) -> None:
    gaps = [1.0, 1.0, -1.0] * 13 + [1.0]
    apart = measures.calibration(make.pairs(gaps)).bins[0]
    together = measures.calibration(make.pairs(gaps, prompt=[f"p{gap > 0}{i % 4}" for i, gap in enumerate(gaps)])).bins[
        0
    ]
    assert (apart.under, apart.over) == pytest.approx(wilson(27, 40))
    assert together.observed == apart.observed == 27 / 40
    assert together.over - together.under > 1.5 * (apart.over - apart.under)


@settings(deadline=None)
@given(GAPS)
def test_calibration_spelt_out(make, gaps: list[float]) -> None:
    found = measures.calibration(make.pairs(gaps))
    count = max(1, min(10, len(gaps) // 40))
    ordered = sorted(gaps, key=abs)
    sizes = [one.n for one in found.bins]
    assert (len(sizes), sum(sizes)) == (count, len(gaps))
    assert max(sizes) - min(sizes) <= 1
    start, ece = 0, 0.0
    for one in found.bins:
        part = ordered[start : start + one.n]
        start += one.n
        sure = [1 / (1 + math.exp(-abs(gap))) for gap in part]
        assert one.predicted == pytest.approx(sum(sure) / one.n)
        assert (one.low, one.high) == (pytest.approx(sure[0]), pytest.approx(sure[-1]))
        if len({abs(gap) for gap in part}) == len(part):  # else the order among equals decides
            observed = sum((gap > 0) + 0.5 * (gap == 0) for gap in part) / one.n
            assert one.observed == pytest.approx(observed)
        ece += abs(one.predicted - one.observed) * one.n / len(gaps)
    assert found.ece == pytest.approx(ece)
    assert found.brier == pytest.approx(sum((1 - 1 / (1 + math.exp(-gap))) ** 2 for gap in gaps) / len(gaps))


def test_a_model_that_means_what_it_says_is_calibrated(make) -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=20_000) * 1.5
    gaps = np.abs(gaps) * np.where(rng.random(20_000) < 1 / (1 + np.exp(-np.abs(gaps))), 1, -1)
    found = measures.calibration(make.pairs(gaps.tolist()))
    assert len(found.bins) == 10
    assert found.ece < 0.012
    assert found.temperature == pytest.approx(1.0, abs=0.05)
    loud = measures.calibration(make.pairs((gaps * 3).tolist()))
    assert loud.temperature == pytest.approx(3.0, rel=0.05)
    assert loud.ece > 0.1


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_by_grid_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=60) * rng.uniform(0.2, 8) + rng.uniform(0, 1)
    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 20_001))
    losses = np.logaddexp(0, -gaps[None, :] / grid[:, None]).mean(axis=1)
    assert measures.temperature(gaps) == pytest.approx(grid[losses.argmin()], rel=1e-3)


def test_the_ends_of_the_temperature() -> None:
    assert measures.temperature(np.array([1.0, 2.0])) == pytest.approx(0.05)
    assert measures.temperature(np.array([-1.0, -2.0, 0.5])) == pytest.approx(20)


def test_nothing_decided_is_not_calibrated(make) -> None:
    assert measures.calibration(make.pairs([1.0], tie=True)) is None


# -- length -------------------------------------------------------------------------------------------


def test_the_correlation_of_score_and_length(make) -> None:
    """As Pearson's over both candidates of every pair, each taken from the mean of its pair."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 300, size=(80, 2))
    scores = 0.01 * lengths + rng.normal(size=(80, 2)) + rng.normal(size=(80, 1)) * 9
    pairs = make.pairs(
        [0.0] * 80,
        better_score=scores[:, 0].tolist(),
        worse_score=scores[:, 1].tolist(),
        better_length=lengths[:, 0].tolist(),
        worse_length=lengths[:, 1].tolist(),
    )
    found = measures.length_correlation(pairs, seed=0)
    inside = [(side - side.mean(axis=1, keepdims=True)).ravel() for side in (scores, lengths)]
    assert found.value == pytest.approx(np.corrcoef(*inside)[0, 1])
    assert found.low < found.value < found.high
    assert (found.n, found.enough) == (80, True)


def test_scores_that_are_the_length_correlate_fully(make) -> None:
    lengths = [5, 90, 30, 30]
    named = {"better_length": lengths, "worse_length": [50, 10, 20, 30]}
    assert measures.length_correlation(make.pairs([-4.5, 8.0, 1.0, 0.0], **named), seed=0).value == pytest.approx(1)
    assert measures.length_correlation(make.pairs([4.5, -8.0, -1.0, 0.0], **named), seed=0).value == pytest.approx(-1)


def test_no_correlation_can_be_said_of_what_does_not_vary(make) -> None:
    assert measures.length_correlation(make.pairs([0.0] * 5), seed=0).value is None
    assert measures.length_correlation((), seed=0).n == 0


# -- paired differences -------------------------------------------------------------------------------


def plain_bootstrap(clusters: list[list[float]], resamples: int, seed: int) -> tuple[float, float]:
    """Prompts with replacement, with all their pairs, one at a time."""
    draw = random.Random(seed)
    means = []
    for _ in range(resamples):
        chosen = [draw.choice(clusters) for _ in clusters]
        means.append(sum(map(sum, chosen)) / sum(map(len, chosen)))
    means.sort()
    return means[round(0.025 * resamples)], means[round(0.975 * resamples)]


def test_the_difference_of_model_and_rule_against_a_plain_bootstrap(make) -> None:
    rng = np.random.default_rng(2)
    gaps = rng.normal(size=120) + 0.5
    lengths = rng.integers(1, 100, size=(120, 2))
    prompts = [f"p{place % 35}" for place in range(120)]
    pairs = make.pairs(
        gaps.tolist(), prompt=prompts, better_length=lengths[:, 0].tolist(), worse_length=lengths[:, 1].tolist()
    )
    found = measures.paired_difference(pairs, right, counting.longer_is_better, seed=0)
    values: dict[str, list[float]] = {}
    for pair in pairs:
        values.setdefault(pair.prompt, []).append(right(pair) - counting.longer_is_better(pair))
    assert found[0] == pytest.approx(sum(map(sum, values.values())) / 120)
    assert found[1:] == pytest.approx(plain_bootstrap(list(values.values()), 4000, 1), abs=0.015)


def test_paired_is_narrower_than_it_would_be_unpaired(make) -> None:
    """Two models that are nearly always right about the same pairs differ surely, by little."""
    gaps = [1.0] * 130 + [-1.0] * 70
    pairs = make.pairs(gaps)
    first_wrong = {pairs[place] for place in range(8)}
    found = measures.paired_difference(pairs, right, lambda pair: 0.0 if pair in first_wrong else right(pair), seed=0)
    assert found[0] == pytest.approx(0.04)
    assert 0 < found[1] < found[2] < 0.08


def test_of_one_prompt_no_difference_is_known(make) -> None:
    found = measures.paired_difference(make.pairs([1.0, 1.0], prompt="p"), right, counting.longer_is_better, seed=0)
    assert found == (0.5, -1.0, 1.0)


# -- disagreements ------------------------------------------------------------------------------------


def test_the_widest_disagreements_come_first_one_for_each_judgement(make) -> None:
    heldout = make.pairs([-1.0, 2.0, -3.0, -2.0, -9.0], judgement=["a", "b", "c", "c", "t"], tie=[False] * 4 + [True])
    found = measures.disagreements(heldout, ())
    usual = (99 / 5) ** 0.5  # the root mean square of all five gaps
    assert [one.gap for one in found] == pytest.approx([-3 / usual, -1 / usual])
    assert {one.kind for one in found} == {"heldout"}
    assert found[0].judgement_id == heldout[2].judgement_id


def test_gaps_of_two_kinds_of_model_are_held_against_their_own_kind(make) -> None:
    heldout = make.pairs([-1.0, 0.1, 0.1])
    cross = make.pairs([-10.0, 50.0, -40.0], start=10)
    found = measures.disagreements(heldout, cross)
    assert [one.kind for one in found] == ["heldout", "crossvalidated", "crossvalidated"]
    assert [one.gap for one in found] == pytest.approx([-1 / 0.34**0.5, -40 / 1400**0.5, -10 / 1400**0.5])
    assert [one.gap for one in found] == sorted(one.gap for one in found)


def test_there_are_at_most_twenty(make) -> None:
    assert len(measures.disagreements(make.pairs([-1.0] * 50), ())) == 20
