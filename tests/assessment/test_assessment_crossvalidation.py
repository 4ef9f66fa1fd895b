"""Out-of-fold gaps and the learning curve: nothing of a fold leaks into its own prediction, and the curve is honest."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_tui.assessment import crossvalidation
from rlhf_tui.assessment.bradley_terry import RIDGES, Floats, Integers, cross_entropy, ridge_bradley_terry
from rlhf_tui.assessment.crossvalidation import DRAWS, SHARES, folded
from rlhf_tui.assessment.thresholds import READY, ready_accuracy

Problem = tuple[Floats, Floats, Floats, Integers, Integers]


def world(pairs: int, prompts: int, *, width: int = 20, noise: float = 0.1, seed: int = 0) -> Problem:
    """Features, targets, weights, folds, prompts of a rater with a linear taste who slips in `noise` of the pairs."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(99).normal(size=width)
    units = np.random.default_rng(98).uniform(0.1, 10, size=width)
    features = rng.normal(size=(pairs, width))
    better = np.where(features @ taste > 0, 1, -1) * np.where(rng.random(pairs) < noise, -1, 1)
    of_prompt = np.arange(pairs) % prompts
    targets = np.full(pairs, 0.95)
    return features * better[:, None] * units, targets, 0.5 + rng.random(pairs), of_prompt % 5, of_prompt


def spelt_out(problem: Problem) -> Floats:
    """The same by explicit weight vectors: for each fold units and ridge from the others, a fit, a prediction."""
    x, y, w, folds, _ = problem
    gaps = np.zeros(len(x))
    for fold in range(5):
        learn = folds != fold
        z = x / np.sqrt((x[learn] ** 2).mean(axis=0)) / np.sqrt(x.shape[1])
        inner = np.searchsorted(np.unique(folds[learn]), folds) % 3
        losses = []
        for ridge in RIDGES:
            loss = 0.0
            for group in range(3):
                rest, out = learn & (inner != group), learn & (inner == group)
                u = ridge_bradley_terry(z[rest], y[rest], w[rest], ridge=ridge)
                loss += w[out] @ cross_entropy(z[out] @ u, y[out])
            losses.append(loss)
        u = ridge_bradley_terry(z[learn], y[learn], w[learn], ridge=RIDGES[int(np.argmin(losses))])
        gaps[~learn] = z[~learn] @ u
    return gaps


def test_it_is_what_it_says_spelt_out() -> None:
    problem = world(80, 40, noise=0.2)
    assert folded(*problem[:4]).gaps() == pytest.approx(spelt_out(problem), abs=2e-4)


def test_units_and_ridge_are_chosen_once_for_the_gaps_and_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, w, folds, prompts = world(60, 30)
    gaps = folded(x, y, w, folds).gaps()
    curve = folded(x, y, w, folds).curve(prompts.tolist(), y > 0.6, ceiling=None, seed=0)
    chosen, really = [], crossvalidation.choose_ridge
    monkeypatch.setattr(crossvalidation, "choose_ridge", lambda *args: chosen.append(1) or really(*args))
    both = folded(x, y, w, folds)
    assert np.array_equal(both.gaps(), gaps)
    assert both.curve(prompts.tolist(), y > 0.6, ceiling=None, seed=0) == curve
    assert len(chosen) == 5


def test_a_fold_has_no_say_in_its_own_gaps() -> None:
    """Neither by its labels, nor by its weights, nor through the units of its features."""
    x, y, w, folds, _ = world(100, 50)
    own = folds == 2
    before = folded(x, y, w, folds).gaps()
    lied = folded(x, np.where(own, 0.05, y), np.where(own, 9.0, w), folds).gaps()
    assert np.array_equal(before[own], lied[own])
    assert not np.allclose(before[~own], lied[~own])
    wide = folded(np.where(own[:, None], 7 * x, x), y, w, folds).gaps()
    assert wide[own] == pytest.approx(7 * before[own], rel=1e-6)


def test_units_of_the_features_do_not_matter() -> None:
    x, y, w, folds, _ = world(60, 30)
    scaled = x * np.random.default_rng(1).uniform(0.001, 1000, size=x.shape[1])
    assert folded(scaled, y, w, folds).gaps() == pytest.approx(folded(x, y, w, folds).gaps(), abs=1e-6)


def test_a_column_of_nothing_changes_nothing() -> None:
    x, y, w, folds, _ = world(60, 30)
    padded = np.hstack([x, np.zeros((60, 5))])
    assert folded(padded, y, w, folds).gaps() == pytest.approx(folded(x, y, w, folds).gaps(), abs=1e-9)


def test_turning_pairs_round_turns_their_gaps_round() -> None:
    x, y, w, folds, _ = world(60, 30)
    sign = np.where(np.arange(60) % 3 == 0, -1.0, 1.0)
    turned = folded(x * sign[:, None], np.where(sign < 0, 1 - y, y), w, folds).gaps()
    assert turned == pytest.approx(sign * folded(x, y, w, folds).gaps(), abs=1e-4)


def test_a_known_taste_is_found_and_random_labels_are_not() -> None:
    x, y, w, folds, _ = world(400, 200, noise=0.1)
    assert (folded(x, y, w, folds).gaps() > 0).mean() > 0.8  # the rater's own ceiling is 0.9
    rng = np.random.default_rng(4)
    coin = np.where(rng.random(400) < 0.5, -1.0, 1.0)
    assert 0.43 < (folded(x * coin[:, None], y, w, folds).gaps() > 0).mean() < 0.57


@pytest.mark.parametrize("folds", [[0, 0, 0, 0], [0, 1, 0]])
def test_without_two_folds_there_is_nothing_to_hold_out(folds: list[int]) -> None:
    with pytest.raises(ValueError, match="folds"):
        folded(np.ones((4, 2)), np.ones(4), np.ones(4), folds).gaps()


def test_two_folds_are_enough() -> None:
    x, y, w, _, prompts = world(400, 200)
    assert (folded(x, y, w, prompts % 2).gaps() > 0).mean() > 0.75


# -- the learning curve -------------------------------------------------------------------------------


def curve_of(problem: Problem, *, ceiling: float | None = None, seed: int = 0):
    x, y, w, folds, prompts = problem
    return folded(x, y, w, folds).curve(prompts.tolist(), y > 0.6, ceiling=ceiling, seed=seed)


def test_the_curve_of_a_taste_rises_and_ends_where_cross_validation_is() -> None:
    problem = world(300, 150, width=40)
    curve = curve_of(problem, ceiling=0.9)
    assert tuple(point.share for point in curve.points) == SHARES
    right = [point.accuracy for point in curve.points]
    assert right[0] + 0.03 < right[-1]
    assert right[-1] == pytest.approx((folded(*problem[:4]).gaps() > 0).mean())
    assert [point.pairs for point in curve.points] == pytest.approx([60, 120, 180, 240], abs=2)
    assert all(point.low < point.accuracy < point.high for point in curve.points)
    assert curve.gain_50 is not None
    assert curve.gain_50[1] <= curve.gain_50[0] <= curve.gain_50[2]
    assert curve.asymptote is not None
    assert curve.asymptote <= 0.9


def test_more_labels_do_gain_about_what_was_projected() -> None:
    """From 200 pairs on, against what cross-validation finds with the 50 more that come later."""
    projected, found = [], []
    for seed in range(6):
        x, y, w, folds, prompts = world(250, 250, width=40, seed=seed)
        first = slice(0, 200)
        curve = curve_of((x[first], y[first], w[first], folds[first], prompts[first]), ceiling=0.9)
        assert curve.gain_50 is not None
        projected.append(curve.gain_50[0])
        found.append((folded(x, y, w, folds).gaps() > 0).mean() - curve.points[-1].accuracy)
    assert np.mean(projected) == pytest.approx(np.mean(found), abs=0.02)


def test_the_curve_of_a_random_rater_is_flat_and_reaches_nothing() -> None:
    for seed in range(5):
        x, y, w, folds, prompts = world(200, 100, seed=seed)
        coin = np.where(np.random.default_rng(seed).random(200) < 0.5, -1.0, 1.0)
        curve = curve_of((x * coin[:, None], y, w, folds, prompts))
        assert curve.pairs_to_ready is None
        assert all(0.4 < point.accuracy < 0.6 for point in curve.points)


def test_a_curve_that_is_there_says_where_it_got_there() -> None:
    curve = curve_of(world(400, 200), ceiling=None)
    assert curve.points[0].accuracy > READY
    assert curve.pairs_to_ready is not None
    assert curve.pairs_to_ready <= 100


def test_with_a_high_ceiling_more_is_asked() -> None:
    assert ready_accuracy(None) == READY
    assert ready_accuracy(0.7) == READY
    assert ready_accuracy(0.95) == pytest.approx(0.77)


def test_ties_are_learnt_from_and_not_counted() -> None:
    x, y, w, folds, prompts = world(200, 100)
    y = np.where(np.arange(200) % 4 == 0, 0.5, y)
    curve = folded(x, y, w, folds).curve(prompts.tolist(), y > 0.6, ceiling=None, seed=0)
    gaps = folded(x, y, w, folds).gaps()
    assert curve.points[-1].accuracy == pytest.approx((gaps[y > 0.6] > 0).mean())
    assert curve.points[-1].pairs == pytest.approx(160)


def test_the_same_seed_gives_the_same_curve() -> None:
    problem = world(100, 50)
    assert curve_of(problem, seed=3) == curve_of(problem, seed=3)
    assert curve_of(problem, seed=3) != curve_of(problem, seed=4)


def test_features_that_say_nothing_are_a_coin_not_right() -> None:
    _, y, w, folds, prompts = world(60, 30)
    curve = folded(np.zeros((60, 4)), y, w, folds).curve(prompts.tolist(), y > 0.6, ceiling=None, seed=0)
    assert [point.accuracy for point in curve.points] == [0.5] * 4


def test_with_ties_only_there_is_no_curve() -> None:
    x, _, w, folds, prompts = world(40, 20)
    curve = folded(x, np.full(40, 0.5), w, folds).curve(prompts.tolist(), np.zeros(40, bool), ceiling=None, seed=0)
    assert curve.points == ()
    assert curve.gain_50 is None


def test_prompts_are_drawn_whole_and_intervals_resample_them() -> None:
    """Ten copies of every pair are no more than one: the interval does not narrow as if they were."""
    x, y, w, folds, prompts = world(60, 60)
    often = np.repeat(np.arange(60), 10)
    copied = curve_of((x[often], y[often], w[often] / 10, folds[often], prompts[often]))
    once = curve_of((x, y, w, folds, prompts))
    wide = [point.high - point.low for point in once.points]
    assert [point.high - point.low for point in copied.points] == pytest.approx(wide, rel=0.25)
    assert DRAWS > 1
