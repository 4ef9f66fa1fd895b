"""Student's t against printed tables, closed forms and the finite sums of its distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.student import incomplete_beta, t_as_rare_as

#: Both tails together 5 % and 0.1 %, as printed in tables of t (such as NIST's e-Handbook, 1.3.6.7.2).
TABLE = {
    1: (12.706, 636.619),
    2: (4.303, 31.599),
    3: (3.182, 12.924),
    4: (2.776, 8.610),
    5: (2.571, 6.869),
    9: (2.262, 4.781),
    10: (2.228, 4.587),
    19: (2.093, 3.883),
    30: (2.042, 3.646),
    40: (2.021, 3.551),
    60: (2.000, 3.460),
    120: (1.980, 3.373),
}


@pytest.mark.parametrize("df", TABLE)
def test_against_printed_tables(df: int) -> None:
    found = [t_as_rare_as(NormalDist().inv_cdf(p), df) for p in (0.975, 0.9995)]
    assert found == pytest.approx(TABLE[df], abs=0.51e-3)


def beyond(t: float, df: int) -> float:
    """P(|T| > t) for whole df by Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: sums of powers of a cosine."""
    angle = math.atan(t / math.sqrt(df))
    cosine = math.cos(angle)
    term = total = cosine if df % 2 else 1.0
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    inside = math.sin(angle) * total
    if df % 2:
        inside = 2 / math.pi * (angle + (inside if df > 1 else 0.0))
    return 1 - inside


@given(df=st.integers(1, 400), z=st.floats(0.5, 4.0))
def test_it_is_exceeded_as_often_as_the_normal_one(df: int, z: float) -> None:
    tail = math.erfc(z / math.sqrt(2))
    assert beyond(t_as_rare_as(z, df), df) == pytest.approx(tail, rel=1e-6, abs=1e-13)


def test_one_and_two_degrees_of_freedom_have_a_closed_form() -> None:
    for z in (0.1, 1.96, 3.29, 5.0):
        tail = math.erfc(z / math.sqrt(2))
        assert t_as_rare_as(z, 1) == pytest.approx(1 / math.tan(math.pi * tail / 2), rel=1e-9)
        assert t_as_rare_as(z, 2) == pytest.approx((1 - tail) * math.sqrt(2 / (tail * (2 - tail))), rel=1e-9)


@pytest.mark.parametrize("z", [0.5, 1.96, 3.29])
def test_the_two_ways_to_it_meet(z: float) -> None:
    below, above = t_as_rare_as(z, 200 - 1e-9), t_as_rare_as(z, 200.0)
    assert below == pytest.approx(above, rel=1e-8)


@given(df=st.floats(1, 500), more=st.floats(0.01, 50), z=st.floats(0.5, 4.0))
def test_more_degrees_of_freedom_bring_it_nearer_to_the_normal_one(df: float, more: float, z: float) -> None:
    assert z < t_as_rare_as(z, df + more) < t_as_rare_as(z, df)


def test_from_less_than_two_values_nothing_is_known() -> None:
    assert t_as_rare_as(1.96, 0) == math.inf
    assert t_as_rare_as(1.96, 0.99) == math.inf
    with pytest.raises(ValueError, match="z = 0"):
        t_as_rare_as(0.0, 5)


@given(a=st.integers(1, 40), b=st.integers(1, 40), x=st.floats(0.01, 0.99))
def test_the_incomplete_beta_function_is_a_tail_of_the_binomial(a: int, b: int, x: float) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert incomplete_beta(a, b, x) == pytest.approx(tail, rel=1e-9, abs=1e-14)


@given(x=st.floats(0, 0.99))
def test_the_incomplete_beta_function_of_halves_is_an_arc_sine(x: float) -> None:
    assert incomplete_beta(0.5, 0.5, x) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)), abs=1e-12)
