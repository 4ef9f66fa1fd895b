"""How far several raters agree, with intervals by a bootstrap over prompts.

Raters are compared on what they said about completions, never about sides. Only first answers count:
repeats are a matter of each rater with themselves, and one's own edits are not judged blind.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rlhf_tui.preferences.coefficients import (
    THREE_WAY,
    Measure,
    cohen,
    count,
    decisive,
    exact,
    fleiss,
    gwet,
    joint,
    krippendorff,
    relaxed,
)
from rlhf_tui.preferences.comparisons import is_blind, marked, oriented, sign
from rlhf_tui.preferences.intervals import ENOUGH, Estimate
from rlhf_tui.preferences.records import Fact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Name = TypeVar("Name")

RESAMPLES = 2000
#: How many pairs of raters are looked at, those with most in common first.
MOST_PAIRS = 10
FIVE_WAY = (-2, -1, 0, 1, 2)
RATINGS = (1, 2, 3, 4, 5)
YES_NO = (0, 1)
_DRAWS_AT_A_TIME = 1 << 21  # 16 MB of them


@dataclass(frozen=True)
class Agreement:
    """How far raters agree about 'preferences' (pairs of completions), 'ratings' or 'acceptances' (of one).

    `units` were judged by two or more. `estimates` by name: `exact`, `relaxed` (a tie and a better side
    agree by half) and `decisive` (only where both name a better side) are shares of pairs of answers;
    `alpha` (nominal), `alpha_ordinal`, `alpha_interval` are Krippendorff's; `ac1`, `ac2` Gwet's; `fleiss`.
    Preferences are taken three ways, and with their strength for `alpha_ordinal` and `ac2`.
    """

    about: str
    raters: tuple[str, ...]
    units: int
    prompts: int
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class PairOfRaters:
    """How far two raters agree about preferences, three ways: the share, and Cohen's kappa."""

    one: str
    other: str
    exact: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Sample:
    """What a measure is taken of; `prompts` says for each row of the data which prompt it belongs to."""

    measure: Measure
    data: Array
    prompts: Sequence[int]


class _Said:
    """What each rater said of each unit; the newest answer of a rater to a unit holds."""

    def __init__(self) -> None:
        self.answers: dict[Hashable, dict[str, int]] = defaultdict(dict)
        self.prompts: dict[Hashable, int] = {}

    def add(self, fact: Fact, said: Iterable[tuple[Hashable, int]]) -> None:
        for unit, answer in said:
            self.answers[unit][fact.rater] = answer
            self.prompts[unit] = fact.prompt_id

    def shared(self) -> dict[Hashable, dict[str, int]]:
        """The units that two raters or more have judged."""
        return {unit: by for unit, by in self.answers.items() if len(by) > 1}


def agreements(facts: Iterable[Fact], *, seed: int = 0) -> list[Agreement]:
    """Agreement about everything that at least two of the raters have judged; empty when that is nothing."""
    first = _first_answers(facts)
    about = {"preferences": _Said(), "ratings": _Said(), "acceptances": _Said()}
    for fact in first:
        about["preferences"].add(fact, oriented(fact).items())
        if fact.verdict.ratings:
            about["ratings"].add(fact, marked(fact).items())
        elif fact.verdict.accepted:
            about["acceptances"].add(fact, marked(fact).items())
    return [_agreement(name, said, seed) for name, said in about.items() if said.shared()]


def pairs_of_raters(facts: Iterable[Fact], *, most: int = MOST_PAIRS, seed: int = 0) -> list[PairOfRaters]:
    """How far each two raters agree about preferences; of many, the pairs with most in common."""
    said = _Said()
    for fact in _first_answers(facts):
        said.add(fact, oriented(fact).items())
    shared = said.shared()
    common = Counter(pair for by in shared.values() for pair in itertools.combinations(sorted(by), 2))
    samples: dict[tuple[str, str, str], Sample] = {}
    for (one, other), _ in common.most_common(most):
        units = [unit for unit, by in shared.items() if one in by and other in by]
        answers = [(sign(shared[unit][one]), sign(shared[unit][other])) for unit in units]
        prompts = [said.prompts[unit] for unit in units]
        samples["exact", one, other] = Sample(exact(), count(answers, THREE_WAY), prompts)
        samples["kappa", one, other] = Sample(cohen(len(THREE_WAY)), joint(answers, THREE_WAY), prompts)
    found = bootstrap(samples, seed=seed)
    return [
        PairOfRaters(one, other, found["exact", one, other], found["kappa", one, other])
        for name, one, other in samples
        if name == "exact"
    ]


def _first_answers(facts: Iterable[Fact]) -> list[Fact]:
    return [fact for fact in facts if fact.purpose == "label" and is_blind(fact)]


def _agreement(about: str, said: _Said, seed: int) -> Agreement:
    shared = said.shared()
    prompts = [said.prompts[unit] for unit in shared]
    answers = [list(by.values()) for by in shared.values()]
    samples = {name: Sample(measure, data, prompts) for name, (measure, data) in _measures(about, answers).items()}
    raters = sorted({rater for by in shared.values() for rater in by})
    return Agreement(about, tuple(raters), len(shared), len(set(prompts)), bootstrap(samples, seed=seed))


def _measures(about: str, answers: Sequence[Sequence[int]]) -> dict[str, tuple[Measure, Array]]:
    """What is measured about each kind of answer, and of which counts."""
    if about == "ratings":
        rated = count(answers, RATINGS)
        return {
            "exact": (exact(), rated),
            "alpha_ordinal": (krippendorff("ordinal", RATINGS), rated),
            "alpha_interval": (krippendorff("interval", RATINGS), rated),
            "ac2": (gwet("quadratic", RATINGS), rated),
        }
    if about == "acceptances":
        accepted = count(answers, YES_NO)
        return {
            "exact": (exact(), accepted),
            "alpha": (krippendorff("nominal", YES_NO), accepted),
            "ac1": (gwet("identity", YES_NO), accepted),
        }
    sides = count([[sign(answer) for answer in by] for by in answers], THREE_WAY)
    strengths = count(answers, FIVE_WAY)
    return {
        "exact": (exact(), sides),
        "relaxed": (relaxed(), sides),
        "decisive": (decisive(), sides),
        "alpha": (krippendorff("nominal", THREE_WAY), sides),
        "alpha_ordinal": (krippendorff("ordinal", FIVE_WAY), strengths),
        "ac1": (gwet("identity", THREE_WAY), sides),
        "ac2": (gwet("ordinal", FIVE_WAY), strengths),
        "fleiss": (fleiss(THREE_WAY), sides),
    }


def bootstrap(samples: Mapping[Name, Sample], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[Name, Estimate]:
    """Each measure with a 95 % percentile interval over resampled prompts, all from the same draws.

    Prompts are drawn with all that was said about them, because judgements of one prompt hang together
    (the cluster bootstrap, Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8). The
    interval is None with fewer than two prompts, or when hardly a resample can be measured.
    """
    import numpy as np

    if not samples:
        return {}
    names = {prompt: place for place, prompt in enumerate(sorted({p for s in samples.values() for p in s.prompts}))}
    sums, ends = [], [0]
    for sample in samples.values():
        parts = sample.measure.parts(sample.data)
        where = np.array([names[prompt] for prompt in sample.prompts])
        columns = [np.bincount(where, weights=column, minlength=len(names)).astype(float) for column in parts.T]
        sums.append(np.stack(columns, axis=1))
        ends.append(ends[-1] + len(columns))
    block: Array = np.concatenate(sums, axis=1)
    drawn = _resampled(block, resamples, seed)
    return {
        name: _estimate(sample, block[:, start:end].sum(axis=0), drawn[:, start:end])
        for (name, sample), (start, end) in zip(samples.items(), itertools.pairwise(ends), strict=True)
    }


def _resampled(block: Array, resamples: int, seed: int) -> Array:
    """The sums over as many rows as there are, drawn with replacement, again and again."""
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = len(block)
    step = max(1, _DRAWS_AT_A_TIME // rows)
    found = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = rng.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * rows).reshape(size, rows)
        found.append(times @ block)
    return np.concatenate(found)


def _estimate(sample: Sample, total: Array, drawn: Array) -> Estimate:
    import numpy as np

    value = float(sample.measure.value(total))
    values = sample.measure.value(drawn)
    values = values[np.isfinite(values)]
    prompts = len(set(sample.prompts))
    known = np.isfinite(value) and prompts > 1 and len(values) > len(drawn) / 2
    low, high = (float(end) for end in np.percentile(values, [2.5, 97.5])) if known else (None, None)
    return Estimate(
        value=value if np.isfinite(value) else None,
        low=low,
        high=high,
        n=round(float(total[-1])),
        enough=prompts >= ENOUGH,
    )
