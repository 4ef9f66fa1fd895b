"""Numbers that know how sure they are: a share or an estimate with its 95 % interval and its n.

Nothing here is shown as a finding before n reaches `ENOUGH`: until then the screens draw it grey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rlhf_tui.preferences.student import t_as_rare_as

#: Below this n a number is shown, but not as something to believe.
ENOUGH = 30
#: Standard errors from the middle to the ends of a 95 % interval.
USUAL = 1.96


@dataclass(frozen=True)
class Rate:
    """`successes` of `n` with a 95 % Wilson interval. `share` is None when n is 0.

    `enough`: n is large enough to say something. Comparisons of one ranking stand or fall together, so they
    count for less than as many separate pairs, in the interval and here: they came in `clusters`, which tell as much
    as `even` clusters of one size, and as they scatter are worth `worth` separate cases. All three are 0 in reports
    that were written without them.
    """

    successes: float
    n: int
    share: float | None
    low: float
    high: float
    enough: bool = False
    clusters: int = 0
    even: float = 0.0
    worth: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A number that is no share of a count, with its 95 % interval; None where it cannot be said."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    enough: bool


def wilson(successes: float, n: float, z: float = USUAL) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927); (0, 1) when n is 0.

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    # At 0 and n the exact ends are 0 and 1; rounding would leave a hair.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def rate(successes: float, n: int) -> Rate:
    """A proportion of independent cases with its interval."""
    return _rate(successes, n, n, n, n)


def counted_as(found: Rate, z: float = USUAL) -> float:
    """As how many independent cases the rate counts in an interval of z standard errors to each side; 0 for none.

    How much clusters scatter is itself an estimate from so few of them that intervals which take it for the truth
    are too narrow. So what the cases are worth is multiplied by (t(n - 1) / t(m - 1))², with t(d) the quantile of
    Student's t with d degrees of freedom in place of z, for n cases in m clusters (Korn and Graubard 1998, Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data, Survey
    Methodology 24). m is the number of clusters of one size that tell as much: where one prompt has half of the
    pairs, the others add little. Below two of those nothing is known, and the interval is (0, 1).
    """
    if found.clusters == found.n:
        return found.worth
    return found.worth * (t_as_rare_as(z, found.n - 1) / t_as_rare_as(z, found.even - 1)) ** 2


def _rate(successes: float, n: int, clusters: int, even: float, worth: float) -> Rate:
    if n == 0:
        return Rate(0, 0, None, 0.0, 1.0)
    share = successes / n
    found = Rate(successes, n, share, 0.0, 1.0, False, clusters, even, worth)
    cases = counted_as(found)
    low, high = wilson(share * cases, cases)
    return replace(found, low=low, high=high, enough=cases >= ENOUGH)


class Clusters:
    """Counts cases that come in clusters, such as the comparisons of one ranking, for an honest interval."""

    def __init__(self) -> None:
        self._clusters = 0
        self._successes = 0.0
        self._n = 0
        self._xx = 0.0
        self._xn = 0.0
        self._nn = 0

    def add(self, successes: float, n: int, times: int = 1) -> None:
        """Add a cluster: `successes` of `n` cases (`times` -1: take it out again). An empty one is nothing."""
        if n:
            self._clusters += times
            self._successes += times * successes
            self._n += times * n
            self._xx += times * successes * successes
            self._xn += times * successes * n
            self._nn += times * n * n

    def rate(self) -> Rate:
        """The share of all cases; its Wilson interval is that of as many independent cases as these count for.

        n is divided by the design effect: how much more the clusters scatter than independent cases would
        (Rao and Scott 1992, A simple method for the analysis of clustered binary data, Biometrics 48). With few
        clusters it counts for less still, see `counted_as`. With one case a cluster this is the plain Wilson interval.
        """
        if not self._n:
            return rate(0, 0)
        even = self._n * self._n / self._nn
        return _rate(self._successes, self._n, self._clusters, even, self._worth(even))

    def _worth(self, even: float) -> float:
        """n over the design effect. `even`: as many clusters of one size as these (Kish 1965, Survey Sampling);
        m / (m - 1) with it for m keeps the scatter right where clusters are of many sizes."""
        m, n = self._clusters, self._n
        if n == m:
            return n
        share = self._successes / n
        expected = n * share * (1 - share)
        if m == 1 or expected <= 0:
            return m  # nothing scatters, so the data cannot say what a case is worth: a cluster is one
        scatter = self._xx - 2 * share * self._xn + share * share * self._nn
        return n / max(1.0, scatter / expected * even / (even - 1))


def difference(one: Rate, other: Rate) -> tuple[float, float, float] | None:
    """share(one) - share(other) with a 95 % interval; None when one of them is unknown.

    Newcombe 1998, Interval estimation for the difference between independent proportions, Statistics in
    Medicine 17, method 10: the ends come from the Wilson intervals of both.
    """
    if one.share is None or other.share is None:
        return None
    gap = one.share - other.share
    below = math.hypot(one.share - one.low, other.high - other.share)
    above = math.hypot(one.high - one.share, other.share - other.low)
    return gap, gap - below, gap + above
