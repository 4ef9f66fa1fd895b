"""Coefficients of agreement between raters, as formulas over counts: any number of raters, with gaps.

The data are counts, units by categories: how many raters put unit u into category k. Every coefficient
here depends on them only through sums over the units. That is what makes a bootstrap cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["identity", "quadratic", "ordinal"]

#: The categories of a preference: the one is better, none is, the other is.
THREE_WAY = (-1, 0, 1)


@dataclass(frozen=True)
class Measure:
    """`value` of the sums over all units of `parts`.

    `parts` gives a row for each unit; its last entry is how many cases of what is measured the unit holds.
    `value` takes sums with any number of axes before the last, and is not a number where nothing can be said.
    """

    parts: Callable[[Array], Array]
    value: Callable[[Array], Array]


def count(units: Iterable[Iterable[float | None]], scale: Sequence[float]) -> Array:
    """Units by categories from the raw answers to each unit; None is no answer."""
    import numpy as np

    place = {category: k for k, category in enumerate(scale)}
    rows = [[place[answer] for answer in unit if answer is not None] for unit in units]
    counts = np.zeros((len(rows), len(scale)))
    for row, places in enumerate(rows):
        for k in places:
            counts[row, k] += 1
    return counts


# -- shares of agreeing pairs of answers ----------------------------------------------------------


def exact() -> Measure:
    """The share of agreeing pairs of answers to the same unit, over all pairs of raters."""
    return _share(_agreeing, lambda counts: _pairs(counts.sum(axis=1)))


def relaxed() -> Measure:
    """The same over `THREE_WAY`, with half a point where one saw a tie and the other did not (as AlpacaEval)."""

    def agreeing(counts: Array) -> Array:
        half: Array = counts[:, 1] * (counts[:, 0] + counts[:, 2]) / 2
        return _agreeing(counts) + half

    return _share(agreeing, lambda counts: _pairs(counts.sum(axis=1)))


def decisive() -> Measure:
    """The same over `THREE_WAY`, for the pairs of answers that both name a better side."""
    return _share(
        lambda counts: _agreeing(counts[:, [0, 2]]),
        lambda counts: _pairs(counts[:, [0, 2]].sum(axis=1)),
    )


def _share(of: Callable[[Array], Array], total: Callable[[Array], Array]) -> Measure:
    def parts(counts: Array) -> Array:
        import numpy as np

        return np.stack([of(counts), total(counts)], axis=1)

    return Measure(parts, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


def _agreeing(counts: Array) -> Array:
    agreeing: Array = _pairs(counts).sum(axis=1)
    return agreeing


def _pairs(counts: Array) -> Array:
    """How many pairs of answers there are among so many."""
    pairs: Array = counts * (counts - 1) / 2
    return pairs


# -- coefficients corrected for chance ------------------------------------------------------------


def krippendorff(level: Level, scale: Sequence[float]) -> Measure:
    """Krippendorff's alpha, 1 - D_o / D_e, from the matrix of coincidences.

    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability. Units with fewer than two answers
    say nothing.
    """
    import numpy as np

    q = len(scale)

    def parts(counts: Array) -> Array:
        answers = counts.sum(axis=1)
        pairable = answers >= 2
        coincide = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(q)
        coincide /= np.where(pairable, answers - 1, np.inf)[:, None, None]
        return np.concatenate([coincide.reshape(-1, q * q), pairable[:, None]], axis=1)

    def value(sums: Array) -> Array:
        observed = sums[..., :-1].reshape(*sums.shape[:-1], q, q)
        totals = observed.sum(axis=-1)
        distance = _distance(level, np.asarray(scale, dtype=float), totals)
        expected = (totals[..., :, None] * totals[..., None, :] * distance).sum(axis=(-2, -1))
        found = (observed * distance).sum(axis=(-2, -1)) * (totals.sum(axis=-1) - 1)
        return 1 - _ratio(found, expected)

    return Measure(parts, value)


def _distance(level: Level, scale: Array, totals: Array) -> Array:
    """The squared difference of two categories; of ordinal ones it depends on how often each occurs."""
    import numpy as np

    if level == "nominal":
        return 1.0 - np.eye(len(scale))
    if level == "ordinal":
        scale = np.cumsum(totals, axis=-1) - totals / 2  # the middle rank of each category
    gap = scale[..., :, None] - scale[..., None, :]
    return np.asarray(gap**2)


def gwet(weights: Weights, scale: Sequence[float]) -> Measure:
    """Gwet's AC1 (weights 'identity') or AC2, which stay sensible where nearly all answers are alike.

    Gwet 2014, Handbook of Inter-Rater Reliability, 4th edition, with missing answers: the observed agreement
    is over units with two answers or more, the prevalence over all with any.
    """
    import numpy as np

    weight = _weights(weights, np.asarray(scale, dtype=float))
    q = len(scale)

    def by_chance(prevalence: Array) -> Array:
        return np.asarray(weight.sum() / (q * (q - 1)) * (prevalence * (1 - prevalence)).sum(axis=-1))

    return _beyond_chance(weight, by_chance)


def fleiss(scale: Sequence[float]) -> Measure:
    """Fleiss' kappa (Fleiss 1971), in Gwet's form for a changing number of raters."""
    import numpy as np

    return _beyond_chance(np.eye(len(scale)), lambda prevalence: np.asarray((prevalence**2).sum(axis=-1)))


def _beyond_chance(weight: Array, by_chance: Callable[[Array], Array]) -> Measure:
    """(p_a - p_e) / (1 - p_e), p_e from the prevalence of the categories."""
    import numpy as np

    def parts(counts: Array) -> Array:
        answers = counts.sum(axis=1)
        pairable = answers >= 2
        agreeing = (counts * (counts @ weight - 1)).sum(axis=1)
        agreement = np.where(pairable, _ratio(agreeing, answers * (answers - 1)), 0.0)
        prevalence = _ratio(counts, answers[:, None], otherwise=0.0)
        return np.column_stack([prevalence, answers > 0, agreement, pairable])

    def value(sums: Array) -> Array:
        prevalence = _ratio(sums[..., :-3], sums[..., -3:-2])
        expected = by_chance(prevalence)
        return _ratio(_ratio(sums[..., -2], sums[..., -1]) - expected, 1 - expected)

    return Measure(parts, value)


def _weights(weights: Weights, scale: Array) -> Array:
    """How much two categories agree, from 0 to 1 (Gwet 2014)."""
    import numpy as np

    if weights == "identity":
        return np.eye(len(scale))
    if weights == "quadratic":
        gap = scale[:, None] - scale[None, :]
        return np.asarray(1 - gap**2 / (scale.max() - scale.min()) ** 2)
    steps = np.abs(np.subtract.outer(np.arange(len(scale)), np.arange(len(scale))))
    between = steps * (steps + 1) / 2  # pairs of categories among those from the one to the other
    return np.asarray(1 - between / between.max())


def cohen(q: int) -> Measure:
    """Cohen's kappa of two raters (Cohen 1960). Its data are not counts: see `joint`."""

    def parts(joint: Array) -> Array:
        import numpy as np

        return np.column_stack([joint, joint.sum(axis=1)])

    def value(sums: Array) -> Array:
        table = _ratio(sums[..., :-1], sums[..., -1:]).reshape(*sums.shape[:-1], q, q)
        observed = table.trace(axis1=-2, axis2=-1)
        expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1)
        return _ratio(observed - expected, 1 - expected)

    return Measure(parts, value)


def joint(answers: Sequence[tuple[float, float]], scale: Sequence[float]) -> Array:
    """Units by q² cells: a one in the cell of what the one and the other rater said of the unit."""
    import numpy as np

    place = {category: k for k, category in enumerate(scale)}
    found = np.zeros((len(answers), len(scale) ** 2))
    for row, (one, other) in enumerate(answers):
        found[row, place[one] * len(scale) + place[other]] = 1
    return found


def _ratio(part: Array, whole: Array, otherwise: float = float("nan")) -> Array:
    import numpy as np

    part, whole = np.broadcast_arrays(part, whole)
    ratio: Array = np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole != 0)
    return ratio
