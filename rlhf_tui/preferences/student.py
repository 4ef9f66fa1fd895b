"""Student's t: how much further than a normal variable one must go whose spread is only estimated."""

from __future__ import annotations

import math
from functools import lru_cache

#: From here on the series in 1/df is right to eight digits and far quicker than solving for t.
_MANY = 200.0
_TINY = 1e-300
_TOLERANCE = 1e-15
_MOST_TERMS = 500
_MOST_STEPS = 100
_NEAR = 1e-12


@lru_cache(maxsize=4096)
def t_as_rare_as(z: float, df: float) -> float:
    """The t > 0 that Student's t with `df` degrees of freedom is beyond, either way, as often as a normal one ±z.

    t_as_rare_as(1.96, 9) is 2.262. Infinite below one degree of freedom: from fewer than two values nothing is
    known of how they scatter. Raises ValueError unless z > 0.
    """
    if z <= 0:
        raise ValueError(f"z = {z}")
    if df < 1:
        return math.inf
    return _expanded(z, df) if df >= _MANY else _solved(z, df)


def _expanded(z: float, df: float) -> float:
    """Abramowitz and Stegun 1964, 26.7.5."""
    s = z * z
    return z * (
        1
        + (s + 1) / (4 * df)
        + (5 * s**2 + 16 * s + 3) / (96 * df**2)
        + (3 * s**3 + 19 * s**2 + 17 * s - 15) / (384 * df**3)
        + (79 * s**4 + 776 * s**3 + 1482 * s**2 - 1920 * s - 945) / (92160 * df**4)
    )


def _solved(z: float, df: float) -> float:
    """By Newton's method on P(|T| > t) = I_x(df/2, 1/2), x = df / (df + t²) (Abramowitz and Stegun 1964, 26.7.1).

    The tail is convex in t and t > z, so that from z on no step goes too far.
    """
    tail, t = math.erfc(z / math.sqrt(2)), z
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    for _ in range(_MOST_STEPS):
        x = df / (df + t * t)
        density = math.exp(log_scale + (df + 1) / 2 * math.log(x))
        step = (incomplete_beta(df / 2, 0.5, x) - tail) / (2 * density)
        t += step
        if abs(step) <= _NEAR * t:
            break
    return t


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 and 0 <= x <= 1.

    By its continued fraction (Abramowitz and Stegun 1964, 26.5.8), which converges fast below x = (a + 1)/(a + b + 2);
    above, I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + …)) by Lentz's method (Lentz 1976, Applied Optics 15)."""
    value = above = 1.0
    below = 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = 1 / ((1 + d * below) or _TINY)
        above = (1 + d / above) or _TINY
        value *= above * below
        if abs(above * below - 1) < _TOLERANCE:
            break
    return value
