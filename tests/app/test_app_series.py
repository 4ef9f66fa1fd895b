"""Series and chart maths: bounded memory, gaps for what is not a number, lines that go where they should."""

from __future__ import annotations

import math
import re
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


def test_a_value_alone_is_larger_than_a_dot() -> None:
    assert plot.draw(series([5.0]), 3, 3).rows == ("   ", "⠶  ", "   ")
    assert plot.draw(series([0.0, math.nan, 1.0]), 5, 1).rows == ("⣤   ⠛",)
    assert plot.draw_ascii(series([5.0]), 3, 3).rows == ("   ", "*  ", "   ")


def test_the_rule_is_dotted_behind_the_line() -> None:
    picture = plot.draw_ascii(series([1.0, 1.0]), 9, 3, plot.Look(levels=(plot.Level(0.0),)))
    assert picture.rows[0] == "*" * 9
    assert picture.rows[2] == "-   -   -"


def test_a_level_carries_its_word_where_it_hides_least_of_the_line() -> None:
    rising = plot.draw_ascii(series([0.0, 1.0, 2.0, 3.0]), 16, 4, plot.Look(levels=(plot.Level(3.0, "limit"),)))
    assert rising.rows[0].startswith("limit")
    falling = plot.draw_ascii(series([3.0, 2.0, 1.0, 0.0]), 16, 4, plot.Look(levels=(plot.Level(3.0, "limit"),)))
    assert falling.rows[0].endswith("limit")


def test_the_best_step_and_the_cursor_are_rules_down_behind_the_line() -> None:
    picture = plot.draw_ascii(series([1.0] * 21), 21, 5, plot.Look(best=6, cursor=16))
    assert picture.rows[0][5] == "!"
    assert picture.rows[0][6:10] == "best"
    assert [row[15] for row in picture.rows] == ["|", "|", "*", "|", "|"]
    outside = plot.draw_ascii(series([1.0] * 21), 21, 5, plot.Look(span=(10, 21), best=6, cursor=3))
    assert "best" not in "".join(outside.rows)
    assert "|" not in "".join(outside.rows)


def test_a_span_shows_only_its_steps_from_edge_to_edge() -> None:
    made = series([float(step) for step in range(1, 101)])
    cols = plot.columns(made, 11, (40, 50))
    assert {at: col.mean for at, col in cols.items()} == {at: 40.0 + at for at in range(11)}
    picture = plot.draw(made, 10, 4, plot.Look(span=(40, 50)))
    assert (picture.low, picture.high) == (40.0, 50.0)


def test_a_series_that_begins_later_begins_later_in_a_shared_span() -> None:
    assert list(plot.columns(series([1.0, 2.0], start=9), 10, (1, 10))) == [8, 9]


def test_a_log_scale_puts_each_power_of_ten_as_far_from_the_next() -> None:
    made = series([1.0, 10.0, 100.0, 1000.0])
    assert plot.draw_ascii(made, 4, 4, plot.Look(log=True)).rows == ("   *", "  * ", " *  ", "*   ")
    below = plot.draw_ascii(series([0.0, 10.0]), 4, 4, plot.Look(log=True))
    assert below == plot.draw_ascii(series([0.0, 10.0]), 4, 4)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60),
    st.integers(0, 40),
    st.integers(0, 12),
)
def test_any_values_in_any_size_give_a_picture_of_that_size(values: list[float], width: int, height: int) -> None:
    look = plot.Look((2, 30), True, (plot.Level(0.5, "limit"), plot.Level(math.nan, "none")), 7, 9)
    drawn = [
        make(series(values), width, height, how) for make in (plot.draw, plot.draw_ascii) for how in (plot.PLAIN, look)
    ]
    for picture in drawn:
        assert len(picture.rows) == len(picture.kinds) == height
        assert all(len(row) == len(kinds) == width for row, kinds in zip(picture.rows, picture.kinds, strict=True))


def test_two_words_in_a_chart_do_not_run_together() -> None:
    """The word of a rule stands at the right end of its row, and so does that of the best step, when it is late."""
    levels = (plot.Level(2.0, "warns 2"), plot.Level(0.0, "warns 0"))
    for best in range(10, 21):
        rows = plot.draw_ascii(series([1.0] * 21), 21, 5, plot.Look(best=best, levels=levels)).rows
        for row in (rows[0], rows[-1]):
            assert re.fullmatch(r"[^a-z]*(best)?[^a-z]*(warns [02])?[^a-z]*(best)?[^a-z]*", row), (best, row)
            assert not re.search(r"[02]best|best(?=warns)", row), (best, row)
