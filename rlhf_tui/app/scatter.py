"""A few measured points against a line, with their intervals: calibration and learning curves. No Textual.

The line is drawn in braille dots (or '.' where only ASCII is wanted), the points over it as whole characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlhf_tui.app.plot import LINE, Canvas, segment

POINT = 4  # beside plot's BLANK, BAND, LINE and RULE
WHISKER = 5


@dataclass(frozen=True)
class Point:
    """A measured `y` at `x`, with the interval of y, and the character it is drawn as."""

    x: float
    y: float
    low: float
    high: float
    glyph: str = "●"


@dataclass(frozen=True)
class Frame:
    """What the picture covers, from the left to the right edge and from the bottom to the top."""

    left: float
    right: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Scene:
    """A drawn picture: rows of characters and, cell by cell, what they are."""

    rows: tuple[str, ...]
    kinds: tuple[tuple[int, ...], ...]


def draw(points: Sequence[Point], line: Sequence[tuple[float, float]], frame: Frame, width: int, height: int) -> Scene:
    """Points over the line through the (x, y) of `line`, in `width` x `height` characters."""
    return _over(_braille(line, frame, width, height), points, frame, width, height)


def draw_ascii(
    points: Sequence[Point], line: Sequence[tuple[float, float]], frame: Frame, width: int, height: int
) -> Scene:
    """The same without braille."""
    return _over(_dots(line, frame, width, height), points, frame, width, height)


Cells = list[list[tuple[str, int]]]


def _braille(line: Sequence[tuple[float, float]], frame: Frame, width: int, height: int) -> Cells:
    texts, kinds = _traced(line, frame, Canvas(width, height, 2, 4)).drawn()
    return [list(zip(*row, strict=True)) for row in zip(texts, kinds, strict=True)]


def _dots(line: Sequence[tuple[float, float]], frame: Frame, width: int, height: int) -> Cells:
    _, kinds = _traced(line, frame, Canvas(width, height, 1, 1)).drawn()
    return [[("." if kind else " ", kind) for kind in row] for row in kinds]


def _traced(line: Sequence[tuple[float, float]], frame: Frame, canvas: Canvas) -> Canvas:
    dots = [_place(x, y, frame, canvas.width, canvas.height) for x, y in line]
    for one, two in pairwise(dots):
        canvas.mark(segment(one, two), LINE)
    return canvas


def _over(cells: Cells, points: Sequence[Point], frame: Frame, width: int, height: int) -> Scene:
    for point in points:
        column, top = _place(point.x, point.high, frame, width, height)
        _, bottom = _place(point.x, point.low, frame, width, height)
        for row in range(top, bottom + 1):
            cells[row][column] = ("│", WHISKER)
    for point in points:  # after all whiskers: no point is hidden
        column, row = _place(point.x, point.y, frame, width, height)
        cells[row][column] = (point.glyph, POINT)
    return Scene(
        tuple("".join(text for text, _ in row) for row in cells),
        tuple(tuple(kind for _, kind in row) for row in cells),
    )


def _place(x: float, y: float, frame: Frame, width: int, height: int) -> tuple[int, int]:
    """The column and the row from the top of a value; the nearest edge for one outside."""
    across = (x - frame.left) / max(frame.right - frame.left, 1e-9)
    up = (y - frame.bottom) / max(frame.top - frame.bottom, 1e-9)
    column, row = round(across * (width - 1)), round((1.0 - up) * (height - 1))
    return min(max(column, 0), width - 1), min(max(row, 0), height - 1)
