"""Series and chart maths: bounded memory, gaps for what is not a number, lines that go where they should."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.app import plot
from rlhf_tui.app.series import LIMIT, Series


def series(values: list[float], start: int = 1) -> Series:
    made = Series()
    for step, value in enumerate(values, start=start):
        made.add(step, value)
    return made


def test_a_short_series_keeps_every_point() -> None:
    made = series([1.0, 3.0, 2.0])
    assert [(b.first, b.last, b.mean) for b in made.buckets] == [(1, 1, 1.0), (2, 2, 3.0), (3, 3, 2.0)]
    assert made.latest == 2.0


@given(st.integers(1, 5000))
def test_memory_is_bounded_and_nothing_is_lost(count: int) -> None:
    made = series([float(i) for i in range(count)])
    assert len(made.buckets) <= LIMIT
    assert len(made) == count
    assert sum(b.total for b in made.buckets) == pytest.approx(sum(range(count)))
    assert min(b.low for b in made.buckets) == 0.0
    assert max(b.high for b in made.buckets) == count - 1
    edges = [(b.first, b.last) for b in made.buckets]
    assert edges[0][0] == 1
    assert edges[-1][1] == count
    assert all(a[1] + 1 == b[0] for a, b in pairwise(edges))


def test_values_that_are_no_numbers_are_counted_not_summed() -> None:
    made = series([1.0, math.nan, math.inf, 3.0])
    assert [b.missing for b in made.buckets] == [0, 1, 1, 0]
    assert sum(b.total for b in made.buckets) == 4.0
    assert made.recent_mean() == 2.0


def test_a_resumed_run_replaces_the_steps_it_repeats() -> None:
    made = series([0.0, 1.0, 2.0, 3.0])
    made.add(3, 20.0)
    made.add(4, 30.0)
    assert [(b.first, b.mean) for b in made.buckets] == [(1, 0.0), (2, 1.0), (3, 20.0), (4, 30.0)]


def test_recent_mean_looks_at_the_last_points_only() -> None:
    made = series([100.0] * 50 + [2.0] * 20)
    assert made.recent_mean(20) == 2.0
    assert math.isnan(Series().recent_mean())


def test_columns_spread_first_and_last_to_the_edges() -> None:
    cols = plot.columns(series([1.0, 2.0, 3.0]), 9)
    assert {at: col.mean for at, col in cols.items()} == {0: 1.0, 4: 2.0, 8: 3.0}


def test_columns_pool_points_that_share_one() -> None:
    cols = plot.columns(series([1.0, 3.0, 10.0, 20.0]), 2)
    assert (cols[0].low, cols[0].high, cols[0].mean) == (1.0, 3.0, 2.0)
    assert (cols[1].low, cols[1].high, cols[1].mean) == (10.0, 20.0, 15.0)


def test_drawing_does_not_change_the_series() -> None:
    made = series([1.0, 3.0, 10.0, 20.0])
    plot.columns(made, 2)
    assert [b.mean for b in made.buckets] == [1.0, 3.0, 10.0, 20.0]


def test_smoothing_starts_at_the_first_value_and_skips_gaps() -> None:
    assert plot.smooth([2.0, math.nan, 4.0], weight=0.5) == pytest.approx([2.0, math.nan, 3.0], nan_ok=True)


def test_few_points_are_not_smoothed_and_many_are() -> None:
    assert [plot.weight(count) for count in (0, 1, 6, 12, 20, 500)] == [1.0, 1.0, 1.0, 0.5, 0.3, 0.3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], (0.0, 1.0)), ([math.nan], (0.0, 1.0)), ([5.0], (4.5, 5.5)), ([0.0, 0.0], (-0.1, 0.1)), ([1.0, 3.0], (1, 3))],
)
def test_bounds(values: list[float], expected: tuple[float, float]) -> None:
    cols = plot.columns(series(values), 10).values()
    assert plot.bounds(cols) == pytest.approx(expected)


def test_bounds_include_the_rule() -> None:
    assert plot.bounds(plot.columns(series([1.0, 2.0]), 4).values(), [0.5]) == (0.5, 2.0)


def test_a_segment_joins_its_ends_without_holes() -> None:
    dots = plot.segment((0, 0), (3, 9))
    assert dots[0] == (0, 0)
    assert dots[-1] == (3, 9)
    assert all(abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1 for a, b in pairwise(dots))


def test_a_flat_line_in_braille() -> None:
    picture = plot.draw(series([2.0, 2.0]), 2, 1)
    assert picture.kinds == ((plot.LINE, plot.LINE),)
    # Both columns of dots of both cells, in one row of dots: the third of four.
    assert picture.rows == ("⠤⠤",)


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    picture = plot.draw_ascii(series([0.0, 1.0, 2.0, 3.0]), 4, 4)
    assert picture.rows == ("   *", "  * ", " *  ", "*   ")
    assert (picture.low, picture.high) == (0.0, 3.0)


def test_a_missing_value_breaks_the_line() -> None:
    whole = plot.draw_ascii(series([1.0, 1.0, 1.0]), 21, 3)
    broken = plot.draw_ascii(series([1.0, math.nan, 1.0]), 21, 3)
    assert whole.rows[1] == "*" * 21
    assert broken.rows[1] == "*" + " " * 19 + "*"


def test_the_rule_is_dotted_behind_the_line() -> None:
    picture = plot.draw_ascii(series([1.0, 1.0]), 9, 3, rule=0.0)
    assert picture.rows[0] == "*" * 9
    assert picture.rows[2] == "-   -   -"


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60),
    st.integers(0, 40),
    st.integers(0, 12),
)
def test_any_values_in_any_size_give_a_picture_of_that_size(values: list[float], width: int, height: int) -> None:
    for make in (plot.draw, plot.draw_ascii):
        picture = make(series(values), width, height)
        assert len(picture.rows) == len(picture.kinds) == height
        assert all(len(row) == len(kinds) == width for row, kinds in zip(picture.rows, picture.kinds, strict=True))
