"""What a grid of charts shows together: steps, cursor and words, without a screen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.app import chartview
from rlhf_tui.app.chartview import View, moved, zoomed
from rlhf_tui.app.plot import Level
from rlhf_tui.app.series import Series

WHOLE = (1, 401)


def series(values: list[float], start: int = 1, every: int = 1) -> Series:
    made = Series()
    for number, value in enumerate(values):
        made.add(start + number * every, value)
    return made


def test_all_charts_share_the_steps_of_all_series() -> None:
    assert chartview.whole([series([1.0, 2.0]), Series(), series([1.0], start=9)]) == (1, 9)
    assert chartview.whole([Series()]) is None


# Zoom


def test_without_a_cursor_zoom_keeps_to_the_newest_and_follows_the_run() -> None:
    near = zoomed(View(), WHOLE, closer=True)
    assert near.span(WHOLE) == (201, 401)
    assert near.span((1, 500)) == (300, 500)
    assert zoomed(near, WHOLE, closer=True).span(WHOLE) == (301, 401)


def test_with_a_cursor_zoom_keeps_around_it() -> None:
    near = zoomed(View(cursor=100), WHOLE, closer=True)
    assert near.span(WHOLE) == (1, 201)
    nearer = zoomed(near, WHOLE, closer=True)
    assert nearer.span(WHOLE) == (50, 150)
    assert nearer.span((1, 500)) == (50, 150)  # it does not run away from the reader


def test_zooming_out_ends_at_all_steps() -> None:
    view = View(50, 300, 290)
    for _ in range(4):
        view = zoomed(view, WHOLE, closer=False)
    assert view == View(cursor=290)
    assert zoomed(View(), WHOLE, closer=False) == View()


@given(st.integers(0, 60), st.integers(1, 3000), st.lists(st.sampled_from(["in", "out", "left", "right"]), max_size=25))
def test_what_is_shown_lies_among_the_steps_and_holds_the_cursor(first: int, count: int, keys: list[str]) -> None:
    line = series([float(value) for value in range(count)], start=first)
    whole, view = (first, first + count - 1), View()
    for key in keys:
        if key in ("in", "out"):
            view = zoomed(view, whole, closer=key == "in")
        else:
            view = moved(view, line, whole, -1 if key == "left" else 1, 30)
        low, high = view.span(whole)
        assert whole[0] <= low <= high <= whole[1]
        assert view.cursor is None or low <= view.cursor <= high
        assert view.all_steps or high - low >= min(chartview.NEAREST, count - 1)


# The cursor


def test_the_cursor_goes_from_value_to_value_of_the_lit_chart() -> None:
    line = series([0.0, 1.0, 2.0], start=10, every=10)
    view = moved(View(), line, (1, 35), -1, 30)
    assert view.cursor == 30
    view = moved(view, line, (1, 35), -1, 30)
    assert view.cursor == 20
    assert moved(view, line, (1, 35), 1, 30).cursor is None  # the last value: it follows the newest again
    assert moved(view, line, (1, 35), -9, 30).cursor == 10


def test_the_cursor_takes_wider_steps_where_values_are_denser_than_dots() -> None:
    line = series([0.0] * 400)
    assert moved(View(), line, (1, 400), -1, 20).cursor == 390
    assert moved(View(30), line, (1, 400), -1, 20).cursor == 399


def test_the_steps_shown_move_along_with_the_cursor() -> None:
    line = series([0.0] * 400)
    view = View(10, 200, 190)
    assert moved(view, line, (1, 400), -1, 20).span((1, 400)) == (189, 199)
    assert moved(View(10, 200, 200), line, (1, 400), 1, 20).span((1, 400)) == (191, 201)


def test_a_run_that_resumes_earlier_takes_the_cursor_along() -> None:
    assert chartview.held(View(cursor=90), (1, 50)).cursor is None
    assert chartview.held(View(cursor=0), (5, 50)).cursor == 5
    assert chartview.held(View(cursor=9), (5, 50)).cursor == 9


# Words


def test_the_readout_says_all_charts_in_one_line() -> None:
    lines = {
        "score": series([1.0, 1.5, math.nan]),
        "held-out": series([0.25], start=2),
        "late": series([1.0], start=9),
        "none": Series(),
    }
    assert chartview.readout(lines, 2, "update") == "Update 2: score 1.50, held-out 0.250, late no value yet"
    assert chartview.readout(lines, 3, "update").startswith("Update 3: score not a number, held-out 0.250 at 2")


def test_merged_values_say_how_many_they_are_of() -> None:
    line = series([1.0] * 10_000)
    assert chartview.readout({"score": line}, 500, "update") == "Update 500 (means of 32 updates): score 1"
    assert chartview.means(1, "update") == ""


def test_missing_values_are_counted_where_they_are_shown() -> None:
    line = series([math.nan, 1.0, math.inf, math.nan])
    assert chartview.missing(line) == "3 not a number"
    assert chartview.missing(line, (1, 2)) == "1 not a number"
    assert chartview.missing(line, (2, 2)) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "no value yet"),
        ([math.nan], "no value yet"),
        ([0.0, 1.0], "it is 0"),
        ([-2.0], "goes down to -2"),
        ([2.0], ""),
    ],
)
def test_a_log_scale_is_refused_in_words(values: list[float], words: str) -> None:
    refused = chartview.no_log(series(values))
    assert words in refused
    assert bool(refused) == bool(words)


def test_far_levels_are_said_and_near_ones_drawn() -> None:
    levels = (
        Level(6.5, "target"),
        Level(50.0, "limit"),
        Level(-9.0, "warns", told=False),
        Level(20.0, "zero", always=True),
    )
    drawn = chartview.near(levels, 0.0, 6.0, log=False)
    assert [level.label for level in drawn] == ["target", "zero"]
    assert chartview.far(levels, drawn, 0.0) == ["limit far above"]
    assert [level.label for level in chartview.near(levels, 1.0, 10.0, log=True)] == ["target", "zero"]


def test_remarks_are_left_out_whole() -> None:
    assert chartview.that_fit(["3 not a number", "log", "a long note"], 20) == "3 not a number · log"
    assert chartview.that_fit(["a long note", "log"], 5) == "log"


@pytest.mark.parametrize(
    ("count", "size", "layout"),
    [
        (4, (80, 12), (2, 6)),
        (8, (160, 20), (4, 10)),
        (6, (160, 20), (3, 10)),
        (5, (80, 12), (2, 6)),
        (2, (40, 6), (1, 6)),
        (0, (80, 12), (1, 12)),
    ],
)
def test_charts_are_laid_out_evenly(count: int, size: tuple[int, int], layout: tuple[int, int]) -> None:
    assert chartview.layout(count, *size) == layout
