"""Drawing shares with their intervals, and points against a line."""

from __future__ import annotations

import math

import pytest

from rlhf_tui.app import scatter
from rlhf_tui.app.forest import Bar, Scale, axis, drawn, scale
from rlhf_tui.app.plot import BLANK, LINE
from rlhf_tui.app.scatter import POINT, WHISKER, Frame, Point


def test_a_bar_runs_from_its_low_to_its_high_end_and_marks_the_coin() -> None:
    on = Scale(0.4, 61)  # a column is a hundredth
    line = drawn(Bar(0.71, 0.64, 0.77), on)
    assert len(line) == 61
    assert (line.index("├"), line.index("●"), line.index("┤")) == (24, 31, 37)
    assert line.index("┊") == 10
    assert line.strip(" ┊├─●┤") == ""


def test_a_bar_hides_the_coin_that_lies_within_it() -> None:
    assert "┊" not in drawn(Bar(0.52, 0.4, 0.64), Scale(0.3, 50))


@pytest.mark.parametrize("bar", [Bar(1.0, 1.0, 1.0), Bar(0.0, 0.0, 0.1), Bar(0.5, 0.5, 0.5)])
def test_what_is_at_an_end_or_a_point_is_drawn_as_one(bar: Bar) -> None:
    line = drawn(bar, scale([bar], 30))
    assert len(line) == 30
    assert line.count("●") == 1


@pytest.mark.parametrize(
    ("lows", "low"), [([], 0.4), ([0.62], 0.4), ([0.41, 0.7], 0.4), ([0.4], 0.4), ([0.39], 0.3), ([0.0], 0.0)]
)
def test_the_scale_begins_at_a_tenth_below_everything_and_below_the_coin(lows: list[float], low: float) -> None:
    assert math.isclose(scale([Bar(0.8, one, 0.9) for one in lows], 40).low, low)


@pytest.mark.parametrize("width", [14, 20, 31, 44, 80])
@pytest.mark.parametrize("low", [0.0, 0.1, 0.3, 0.4])
def test_the_axis_fits_and_names_the_coin_where_the_bars_have_it(width: int, low: float) -> None:
    on = Scale(low, width)
    line = axis(on)
    assert len(line) <= width
    at = line.index("coin")
    assert at <= on.column(0.5) < at + len("coin")
    assert line.endswith("100")
    words = line.split()
    assert all(word in ("coin", *(str(10 * tenth) for tenth in range(11))) for word in words)
    numbers = [50 if word == "coin" else int(word) for word in words]
    assert numbers == sorted(numbers)


def test_the_axis_has_every_tenth_where_there_is_room() -> None:
    assert axis(Scale(0.4, 60)).split() == ["40", "coin", "60", "70", "80", "90", "100"]


def test_points_stand_where_their_values_are() -> None:
    frame = Frame(0.5, 1.0, 0.0, 1.0)
    scene = scatter.draw([Point(0.5, 0.0, 0.0, 0.5), Point(1.0, 1.0, 0.5, 1.0)], [], frame, 21, 11)
    assert [len(row) for row in scene.rows] == [21] * 11
    assert scene.rows[10][0] == "●"
    assert scene.rows[0][20] == "●"
    assert [scene.rows[row][0] for row in range(5, 10)] == ["│"] * 5
    assert scene.kinds[10][0] == POINT
    assert scene.kinds[5][20] == WHISKER
    assert scene.rows[4][0] == " "


def test_the_line_goes_through_the_corners_and_points_lie_over_it() -> None:
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    scene = scatter.draw([Point(0.5, 0.5, 0.5, 0.5)], [(0.0, 0.0), (1.0, 1.0)], frame, 9, 9)
    assert [scene.kinds[8 - at][at] for at in range(9)] == [LINE] * 4 + [POINT] + [LINE] * 4
    assert scene.kinds[0][0] == BLANK
    assert all(0x2800 < ord(scene.rows[8 - at][at]) < 0x2900 for at in (0, 1, 7, 8))


def test_without_braille_the_line_is_of_dots() -> None:
    scene = scatter.draw_ascii([], [(0.0, 0.0), (1.0, 1.0)], Frame(0.0, 1.0, 0.0, 1.0), 5, 5)
    assert scene.rows == ("    .", "   . ", "  .  ", " .   ", ".    ")


def test_what_lies_outside_is_drawn_at_the_edge() -> None:
    scene = scatter.draw([Point(2.0, 0.2, -1.0, 3.0)], [], Frame(0.0, 1.0, 0.0, 1.0), 4, 6)
    assert "".join(row[3] for row in scene.rows) == "││││●│"
    assert {row[:3] for row in scene.rows} == {"   "}


def test_a_hidden_point_is_none() -> None:
    points = [Point(0.5, 0.5, 0.0, 1.0), Point(0.5, 0.9, 0.0, 1.0)]
    scene = scatter.draw(points, [], Frame(0.0, 1.0, 0.0, 1.0), 5, 11)
    assert sum(row.count("●") for row in scene.rows) == 2
