"""Chart maths: a series becomes columns of dots, and the dots become characters. No Textual in here.

A braille character holds 2 x 4 dots. Values are drawn twice: the raw extremes of a column as a faint band
and a smoothed line through the column means. A column whose values were all missing breaks the line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhf_tui.app.series import Bucket, Series

#: Bit of each dot in the braille block, indexed [column][row from the top] (Unicode chart U+2800).
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK, BAND, LINE, RULE = 0, 1, 2, 3


@dataclass(frozen=True)
class Column:
    """What falls into one column: the extremes and the mean, or nothing finite (`mean` is NaN)."""

    low: float
    high: float
    mean: float


@dataclass(frozen=True)
class Picture:
    """A drawn chart: `rows` of characters and, cell by cell, `kinds` (BLANK, BAND, LINE or RULE)."""

    rows: tuple[str, ...]
    kinds: tuple[tuple[int, ...], ...]
    low: float
    high: float


def columns(series: Series, width: int) -> dict[int, Column]:
    """The series spread over `width` columns; a column that no point falls into is absent."""
    buckets = series.buckets
    if not buckets or width < 1:
        return {}
    start, end = buckets[0].first, buckets[-1].last
    span = max(end - start, 1)
    gathered: dict[int, Bucket] = {}
    for bucket in buckets:
        middle = (bucket.first + bucket.last) / 2
        at = min(width - 1, round((middle - start) / span * (width - 1)))
        if at in gathered:
            gathered[at].absorb(bucket)
        else:
            gathered[at] = Bucket(**vars(bucket))
    return {at: Column(bucket.low, bucket.high, bucket.mean) for at, bucket in gathered.items()}


def weight(points: int) -> float:
    """Weight of a new value in the smoothed line: 1 (no smoothing) for few points, falling to 0.3."""
    return min(1.0, max(0.3, 6 / max(points, 1)))


def smooth(values: Iterable[float], weight: float) -> list[float]:
    """Exponential moving average that starts at the first value; NaN stays NaN and is skipped."""
    result: list[float] = []
    current = math.nan
    for value in values:
        if math.isnan(value):
            result.append(math.nan)
            continue
        current = value if math.isnan(current) else current + weight * (value - current)
        result.append(current)
    return result


def bounds(cols: Iterable[Column], include: Sequence[float] = ()) -> tuple[float, float]:
    """Lowest and highest value to show, a little apart when they coincide; (0, 1) when there is none."""
    finite = [value for col in cols if not math.isnan(col.mean) for value in (col.low, col.high)]
    finite += [value for value in include if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):
        room = max(abs(low) * 0.1, 0.1)
        return low - room, high + room
    return low, high


def draw(series: Series, width: int, height: int, *, rule: float | None = None) -> Picture:
    """The series in `width` x `height` braille cells; `rule` draws a dotted level across."""
    grid = Grid(width * 2, height * 4)
    low, high = _plot(series, grid, rule)
    rows, kinds = [], []
    for y in range(height):
        bits_kinds = [grid.cell(x, y, 2, 4) for x in range(width)]
        rows.append("".join(chr(0x2800 + bits) if bits else " " for bits, _ in bits_kinds))
        kinds.append(tuple(kind for _, kind in bits_kinds))
    return Picture(tuple(rows), tuple(kinds), low, high)


def draw_ascii(series: Series, width: int, height: int, *, rule: float | None = None) -> Picture:
    """The same with one dot a cell: `*` for the line, `:` for the band, `-` for the rule."""
    grid = Grid(width, height)
    low, high = _plot(series, grid, rule)
    kinds = tuple(tuple(grid.cell(x, y, 1, 1)[1] for x in range(width)) for y in range(height))
    rows = tuple("".join(" :*-"[kind] for kind in row) for row in kinds)
    return Picture(rows, kinds, low, high)


def _plot(series: Series, grid: Grid, rule: float | None) -> tuple[float, float]:
    cols = columns(series, grid.width)
    low, high = bounds(cols.values(), () if rule is None else (rule,))
    if grid.height < 1:
        return low, high
    scale = (grid.height - 1) / (high - low)

    def row(value: float) -> int:
        return round((high - value) * scale)

    if rule is not None and math.isfinite(rule):
        for x in range(0, grid.width, 4):
            grid.mark(x, row(rule), RULE)
    for x, col in cols.items():
        if not math.isnan(col.mean):
            for y in _band_rows(row(col.high), row(col.low)):
                grid.mark(x, y, BAND)
    previous: tuple[int, int] | None = None
    for x, level in zip(cols, smooth((col.mean for col in cols.values()), weight(len(cols))), strict=True):
        if math.isnan(level):
            previous = None
            continue
        here = (x, row(level))
        for dot in segment(previous or here, here):
            grid.mark(*dot, LINE)
        previous = here
    return low, high


def _band_rows(top: int, bottom: int) -> list[int]:
    """Every second dot row of the band, both ends included."""
    return sorted({*range(top, bottom + 1, 2), bottom})


def segment(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line from `start` to `end`, both included."""
    (x0, y0), (x1, y1) = start, end
    length = max(abs(x1 - x0), abs(y1 - y0))
    if length == 0:
        return [end]
    return [(round(x0 + (x1 - x0) * i / length), round(y0 + (y1 - y0) * i / length)) for i in range(length + 1)]


class Grid:
    """Dots by kind. In a cell only the strongest kind is drawn: the line hides the band behind it."""

    def __init__(self, width: int, height: int) -> None:
        self.width = max(width, 0)
        self.height = max(height, 0)
        self._dots = bytearray(self.width * self.height)

    def mark(self, x: int, y: int, kind: int) -> None:
        """Set a dot; LINE wins over BAND, BAND over RULE."""
        if 0 <= x < self.width and 0 <= y < self.height:
            at = y * self.width + x
            if _STRENGTH[kind] > _STRENGTH[self._dots[at]]:
                self._dots[at] = kind

    def cell(self, x: int, y: int, across: int, down: int) -> tuple[int, int]:
        """Braille bits and the kind of the cell that is `across` x `down` dots large."""
        found: dict[int, int] = {}
        for dy in range(down):
            base = (y * down + dy) * self.width + x * across
            for dx in range(across):
                kind = self._dots[base + dx]
                if kind:
                    found[kind] = found.get(kind, 0) | DOTS[dx][dy]
        if not found:
            return 0, BLANK
        kind = max(found, key=lambda name: _STRENGTH[name])
        return found[kind], kind


_STRENGTH = {BLANK: 0, RULE: 1, BAND: 2, LINE: 3}
