"""A quick reward model on fixed features, fitted again and again: out-of-fold gaps and the learning curve.

The features are what the base model already makes of a completion; the model is a ridge Bradley–Terry head.
Its maths is convex and, by the dual, as small as the number of pairs, so that hundreds of fits take seconds.
With few labels it comes close to the trained adapter, and it tells far more cheaply whether labels help.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlhf_tui.assessment.bradley_terry import Floats, Integers, choose_ridge, cross_entropy, fit_dual
from rlhf_tui.assessment.powerlaw import PowerLaw, fit_power_law
from rlhf_tui.assessment.records import Curve, CurvePoint, Interval
from rlhf_tui.assessment.thresholds import ready_accuracy

SHARES = (0.25, 0.5, 0.75, 1.0)
#: How often a share of the prompts is drawn anew; beyond so many pairs, once: it takes long and scatters less.
DRAWS = 8
MANY_PAIRS = 1500
RESAMPLES = 1000
#: How many labels more the curve is asked about.
MORE = 50
#: More training pairs than this no hobbyist will give: then the curve does not get there.
MOST_PAIRS = 5000
#: What the curve is taken to grow towards at most, when the rater's own ceiling is not known.
USUAL_CEILING = 0.95


# -- folds -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fold:
    """The pairs to learn from and those to predict, the kernel of all in the units of the former, the ridge.

    `inner_loss`: log-loss (nats a pair) with that ridge when parts of the former are left out in turn.
    """

    learn: Integers
    predict: Integers
    kernel: Floats
    ridge: float
    inner_loss: float

    def predicted(self, targets: Floats, weights: Floats, learn: Integers) -> Floats:
        """What a fit on `learn`, some of its pairs, predicts: (len(predict),)"""
        kernel = self.kernel[np.ix_(learn, learn)]
        a = fit_dual(kernel, targets[learn], weights[learn], self.ridge, np.zeros(len(learn)))
        found: Floats = self.kernel[np.ix_(self.predict, learn)] @ a
        return found


@dataclass(frozen=True)
class Folded:
    """Pairs in folds, each with what was chosen without it, once for all fits: units of the features, and a ridge."""

    targets: Floats
    weights: Floats
    folds: tuple[_Fold, ...]

    def gaps(self) -> Floats:
        """The gap of each pair as a head predicts it that was fitted on the other folds only: (pairs,)"""
        found = np.zeros(len(self.targets))
        for fold in self.folds:
            found[fold.predict] = fold.predicted(self.targets, self.weights, fold.learn)
        return found

    def loss(self) -> float:
        """Mean log-loss of those gaps, in nats, each pair by its weight."""
        return float(self.weights @ cross_entropy(self.gaps(), self.targets) / self.weights.sum())

    def inner_losses(self) -> Floats:
        """For each fold, how well heads do inside the others, in nats a pair: nothing of the fold itself is in it."""
        return np.array([fold.inner_loss for fold in self.folds])

    def curve(self, prompts: Sequence[Hashable], decided: ArrayLike, *, ceiling: float | None, seed: int) -> Curve:
        """How the out-of-fold accuracy grows when 25, 50, 75 and 100 % of the training prompts are used.

        prompts: (pairs,) names; decided: (pairs,), False for ties, which are learnt from and not counted as right
        or wrong. Of each share several draws of prompts are averaged, each draw part of the next larger one.
        Intervals are of a bootstrap over prompts. Through the points goes a(n) = a∞ - b·n^(-c) with a∞ at most
        `ceiling` (see `powerlaw`), which is fitted again to every resample. There are no points when fewer than
        two prompts have a decided pair.
        """
        names = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        groups = np.array([names[prompt] for prompt in prompts])
        counted = np.asarray(decided, dtype=np.bool_)
        if len(np.unique(groups[counted])) < 2:
            return Curve((), None, None, None)
        right, pairs = _right_by_share(self, groups, seed)
        drawn = _resampled(right[:, counted], groups[counted], seed)
        points = right[:, counted].mean(axis=1)
        limit = USUAL_CEILING if ceiling is None else ceiling
        law = fit_power_law(pairs, points[None], limit)
        gain, reached = _outlook(law, fit_power_law(pairs, drawn, limit), len(groups), ready_accuracy(ceiling))
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        return Curve(
            points=tuple(
                CurvePoint(share, float(n), float(value), float(under), float(over))
                for share, n, value, under, over in zip(SHARES, pairs, points, low, high, strict=True)
            ),
            gain_50=gain,
            asymptote=float(law.limit[0]),
            pairs_to_ready=reached,
        )


def folded(features: ArrayLike, targets: ArrayLike, weights: ArrayLike, folds: ArrayLike) -> Folded:
    """Ready for any number of fits on parts of these pairs.

    features: (pairs, width) of the better minus the worse; targets: (pairs,) in [0, 1]; weights: (pairs,);
    folds: (pairs,) integers, at least two different ones, all pairs of a prompt in the same. Units of the
    features and the ridge of a fold come from the other folds as well. Raises ValueError for one fold.
    """
    x, y, w, f = _checked(features, targets, weights, folds)
    made = []
    for fold in np.unique(f):
        learn, predict = np.flatnonzero(f != fold), np.flatnonzero(f == fold)
        kernel = _kernel(x, learn)
        ridge, loss = choose_ridge(kernel[np.ix_(learn, learn)], y[learn], w[learn], f[learn])
        made.append(_Fold(learn, predict, kernel, ridge, loss))
    return Folded(y, w, tuple(made))


def _kernel(features: Floats, learn: Integers) -> Floats:
    """Inner products of all rows, with each column in units of its root mean square over the rows to learn from.

    Nothing is subtracted: which of a pair comes first is the label itself. Columns that are always 0 say nothing.
    """
    size = np.sqrt(np.mean(features[learn] ** 2, axis=0))
    varied = size > 1e-9 * size.max(initial=0.0)
    scaled = features[:, varied] / (size[varied] * np.sqrt(max(1, varied.sum())))
    found: Floats = scaled @ scaled.T
    return found


def _checked(
    features: ArrayLike, targets: ArrayLike, weights: ArrayLike, folds: ArrayLike
) -> tuple[Floats, Floats, Floats, Integers]:
    x = np.asarray(features, dtype=np.float64)
    y, w = np.asarray(targets, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    f = np.asarray(folds, dtype=np.int64)
    if len({len(x), len(y), len(w), len(f)}) > 1 or len(np.unique(f)) < 2:
        raise ValueError(f"{len(x)} pairs, {len(y)} targets, {len(w)} weights, {len(np.unique(f))} folds")
    return x, y, w, f


# -- the learning curve ------------------------------------------------------------------------------


def _right_by_share(pairs: Folded, groups: Integers, seed: int) -> tuple[Floats, Floats]:
    """Of each pair, by share, how often the draws get it right: (shares, pairs); and pairs learnt from: (shares,)"""
    rng = np.random.default_rng(seed)
    right, used = np.zeros((len(SHARES), len(groups))), np.zeros(len(SHARES))
    draws = DRAWS if len(groups) <= MANY_PAIRS else 1
    for fold in pairs.folds:
        prompts = np.unique(groups[fold.learn])
        for draw in range(draws):
            order = rng.permutation(prompts)
            for place, share in enumerate(SHARES):
                if share == 1.0 and draw:
                    continue  # all of them are the same every time
                times = 1 if share == 1.0 else draws
                chosen = order[: max(1, round(share * len(order)))]
                learn = fold.learn[np.isin(groups[fold.learn], chosen)]
                gaps = fold.predicted(pairs.targets, pairs.weights, learn)
                right[place, fold.predict] += ((gaps > 0) + 0.5 * (gaps == 0)) / times
                used[place] += len(learn) / times / len(pairs.folds)
    return right, used


def _resampled(right: Floats, groups: Integers, seed: int) -> Floats:
    """The accuracy by share over prompts drawn with replacement, with all their pairs: (resamples, shares)"""
    rng = np.random.default_rng(seed)
    _, where = np.unique(groups, return_inverse=True)
    prompts = int(where.max()) + 1
    sums = np.stack([np.bincount(where, weights=row, minlength=prompts) for row in right], axis=1)
    sizes = np.bincount(where, minlength=prompts).astype(np.float64)
    times = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES).astype(np.float64)
    found: Floats = (times @ sums) / (times @ sizes)[:, None]
    return found


def _outlook(law: PowerLaw, drawn: PowerLaw, pairs: int, target: float) -> tuple[Interval, int | None]:
    """What MORE pairs would add to these, with its interval; how many in all reach the target, if any do.

    A curve that may as well be flat (in more than one of forty resamples it does not rise) reaches nothing that
    it has not reached.
    """
    gain = float((law.at(pairs + MORE) - law.at(pairs))[0])
    gains = drawn.at(pairs + MORE) - drawn.at(pairs)
    low, high = (float(end) for end in np.percentile(gains, [2.5, 97.5]))
    needed = float(law.reaches(target)[0])
    there = needed <= pairs or (low > 0 and needed <= MOST_PAIRS)
    return (gain, low, high), int(np.ceil(needed)) if there else None
