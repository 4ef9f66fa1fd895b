"""How good the scores are, pair by pair: accuracy, loss, calibration, length, and how it compares with a rule.

What counts as right is in `counting`. Intervals resample prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from rlhf_tui.assessment.bradley_terry import Floats, sigmoid
from rlhf_tui.assessment.counting import Points, decided, share
from rlhf_tui.assessment.records import Accuracy, Bin, Calibration, Disagreement, Interval, Scored
from rlhf_tui.preferences.agreement import Sample, bootstrap
from rlhf_tui.preferences.coefficients import Measure
from rlhf_tui.preferences.intervals import Estimate

Kind = Literal["heldout", "crossvalidated"]
#: Pairs for each bin of the calibration curve, at least: so many tell a share to within 15 points.
BIN_PAIRS = 40
MOST_BINS = 10
TEMPERATURES = (0.05, 20.0)
MOST_DISAGREEMENTS = 20


def accuracy(pairs: Sequence[Scored]) -> Accuracy | None:
    """How often the better one scores higher, over decided pairs; None when there is none."""
    said = decided(pairs)
    if not said:
        return None
    return Accuracy(share(said), _log_loss(_gaps(said)), len(pairs) - len(said))


# -- is it as sure as it should be --------------------------------------------------------------------


def calibration(pairs: Sequence[Scored]) -> Calibration | None:
    """How sure the model is against how often it is right, over decided pairs; None when there is none.

    σ(|gap|) is what the model takes its chance of being right to be. Bins hold equal numbers of pairs, in the order
    of |gap|: with equal widths most would be empty. ECE: Naeini, Cooper and Hauskrecht 2015, Obtaining well
    calibrated probabilities using Bayesian binning; temperature: Guo et al. 2017, On calibration of modern networks.
    """
    said = decided(pairs)
    if not said:
        return None
    gaps = _gaps(said)
    order = np.argsort(np.abs(gaps), kind="stable")
    count = max(1, min(MOST_BINS, len(said) // BIN_PAIRS))
    bins = tuple(_bin([said[place] for place in part]) for part in np.array_split(order, count))
    return Calibration(
        bins=bins,
        ece=sum(one.n * abs(one.predicted - one.observed) for one in bins) / len(said),
        brier=float(np.mean((1 - sigmoid(gaps)) ** 2)),
        log_loss=_log_loss(gaps),
        temperature=temperature(gaps),
    )


def _bin(pairs: Sequence[Scored]) -> Bin:
    """At least one pair."""
    sure, found = sigmoid(np.abs(_gaps(pairs))), share(pairs)
    observed = found.successes / found.n
    return Bin(
        float(sure.min()), float(sure.max()), float(sure.mean()), observed, found.n, under=found.low, over=found.high
    )


def temperature(gaps: Floats) -> float:
    """The T in TEMPERATURES that makes the mean of -log σ(gap/T) least. gaps: (pairs,)

    The loss is convex in 1/T: its slope, -mean(gap·σ(-gap/T)), is bisected. A model that is right about everything
    has the smallest T there is, one that is worse than a coin the largest.
    """
    lowest, highest = (float(np.log(end)) for end in TEMPERATURES)
    for _ in range(60):
        middle = (lowest + highest) / 2
        if np.mean(gaps * sigmoid(-gaps / np.exp(middle))) > 0:  # surer would be better still
            highest = middle
        else:
            lowest = middle
    return float(np.exp((lowest + highest) / 2))


def _gaps(pairs: Sequence[Scored]) -> Floats:
    return np.array([pair.gap for pair in pairs], dtype=np.float64)


def _log_loss(gaps: Floats) -> float:
    return float(np.logaddexp(0.0, -gaps).mean())


# -- against length, and against rules ----------------------------------------------------------------


def length_correlation(pairs: Sequence[Scored], *, seed: int) -> Estimate:
    """The correlation of score and tokens within pairs: Σ gap·Δ / √(Σ gap² · Σ Δ²), Δ the difference in tokens.

    Pearson's, of the candidates with the mean of their pair taken off: how scores differ from prompt to prompt
    means nothing to a model of differences. Ties count too. The interval is a bootstrap over prompts.
    """
    if not pairs:
        return Estimate(None, None, None, 0, enough=False)
    gaps = _gaps(pairs)
    longer = np.array([pair.better_length - pair.worse_length for pair in pairs], dtype=np.float64)
    rows = np.stack([gaps * longer, gaps**2, longer**2, np.ones(len(pairs))], axis=1)
    return bootstrap({"r": Sample(Measure(_as_they_are, _correlation), rows, _places(pairs))}, seed=seed)["r"]


def _correlation(sums: Floats) -> Floats:
    scale = np.sqrt(sums[..., 1] * sums[..., 2])
    found: Floats = np.divide(sums[..., 0], scale, out=np.full(scale.shape, np.nan), where=scale > 0)
    return found


def paired_difference(pairs: Sequence[Scored], one: Points, other: Points, *, seed: int) -> Interval:
    """The mean of one minus the mean of the other over the same pairs, with a bootstrap interval over prompts.

    Paired: prompts that are easy for both do not blur it. With one prompt nothing is known: (-1, 1).
    """
    rows = np.array([[one(pair) - other(pair), 1.0] for pair in pairs])
    found = bootstrap({"d": Sample(Measure(_as_they_are, _mean), rows, _places(pairs))}, seed=seed)["d"]
    if found.value is None or found.low is None or found.high is None:
        return (found.value or 0.0, -1.0, 1.0)
    return found.value, found.low, found.high


def _mean(sums: Floats) -> Floats:
    found: Floats = np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)
    return found


def _as_they_are(rows: Floats) -> Floats:
    return rows


def _places(pairs: Sequence[Scored]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(pair.prompt, len(numbers)) for pair in pairs]


# -- where rater and model part ways ------------------------------------------------------------------


def disagreements(heldout: Sequence[Scored], cross: Sequence[Scored]) -> tuple[Disagreement, ...]:
    """The decided pairs where the model prefers the other one, the widest gap first, one for each judgement.

    Only of prompts the model had not seen: of what it was trained on it knows the answer. Scores of the two kinds
    of model have different units, so that gaps are in units of the root mean square of their kind.
    """
    both = [*_wrong(heldout, "heldout"), *_wrong(cross, "crossvalidated")]
    widest: dict[str, Disagreement] = {}
    for judgement, found in sorted(both, key=lambda one: (one[1].gap, one[0])):
        widest.setdefault(judgement, found)
    return tuple(widest.values())[:MOST_DISAGREEMENTS]


def _wrong(pairs: Sequence[Scored], kind: Kind) -> Iterator[tuple[str, Disagreement]]:
    """The judgement's uid, and what there is to show."""
    unit = float(np.sqrt(np.mean(_gaps(pairs) ** 2))) if pairs else 0.0
    for pair in decided(pairs):
        if pair.gap < 0:
            shown = Disagreement(
                judgement_id=pair.judgement_id,
                prompt_text=pair.prompt_text,
                better_text=pair.better_text,
                worse_text=pair.worse_text,
                rater=pair.rater,
                gap=pair.gap / unit,
                kind=kind,
            )
            yield pair.judgement, shown
