"""Chart maths: a series becomes columns of dots, and the dots become characters. No Textual in here.

A braille character holds 2 x 4 dots. Values are drawn twice: the raw extremes of a column as a faint band
and a smoothed line through the column means. A column whose values were all missing breaks the line. Levels
are dotted rules across, the best step and the cursor rules down; a level and the best step carry a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rlhf_tui.app.series import Series

#: Bit of each dot in the braille block, indexed [column][row from the top] (Unicode chart U+2800).
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK, BAND, LINE, RULE, CURSOR, BEST, WORD = 0, 1, 2, 3, 6, 7, 8
_STRENGTH = {BLANK: 0, RULE: 1, BAND: 2, BEST: 3, CURSOR: 4, LINE: 5}
_BRAILLE = (" ", *map(chr, range(0x2801, 0x2900)))
_ASCII = {BLANK: " ", BAND: ":", LINE: "*", RULE: "-", CURSOR: "|", BEST: "!"}

#: First and last step that a picture covers.
Span = tuple[int, int]


@dataclass(frozen=True)
class Level:
    """A value that a rule marks, with the word at the rule.

    `always`: in the picture however far from the values it lies. `told`: where it is not, it is put into words.
    """

    value: float
    label: str = ""
    always: bool = False
    told: bool = True


@dataclass(frozen=True)
class Look:
    """How a series is drawn: which steps, on which scale, and what is marked.

    `span` None covers the series. `best` and `cursor` are steps. All levels given come into the picture.
    """

    span: Span | None = None
    log: bool = False
    levels: tuple[Level, ...] = ()
    best: int | None = None
    cursor: int | None = None


PLAIN = Look()


@dataclass(frozen=True)
class Column:
    """What falls into one column: the extremes and the mean, or nothing finite (`mean` is NaN)."""

    low: float
    high: float
    mean: float


@dataclass(frozen=True)
class Picture:
    """A drawn chart: `rows` of characters and, cell by cell, `kinds` (BLANK, BAND, LINE, …).

    `low` and `high` are the values at the lower and the upper edge.
    """

    rows: tuple[str, ...]
    kinds: tuple[tuple[int, ...], ...]
    low: float
    high: float


def covered(series: Series) -> Span | None:
    """First and last step of a series; None when it is empty."""
    return (series.buckets[0].first, series.buckets[-1].last) if series.buckets else None


def place(step: float, span: Span, width: int) -> int:
    """The column of a step; outside 0..width-1 when it is not in the span."""
    return round((step - span[0]) / max(span[1] - span[0], 1) * (width - 1))


def columns(series: Series, width: int, span: Span | None = None) -> dict[int, Column]:
    """The series spread over `width` columns; a column that no point falls into is absent."""
    span = span or covered(series)
    if span is None or width < 1:
        return {}
    start, end = span
    scale = (width - 1) / max(end - start, 1)
    gathered: dict[int, list[float]] = {}
    for bucket in series.buckets:
        first, last = max(bucket.first, start), min(bucket.last, end)
        if first > last:
            continue
        at = round(((first + last) / 2 - start) * scale)
        known = gathered.get(at)
        if known is None:
            gathered[at] = [bucket.low, bucket.high, bucket.total, bucket.count]
            continue
        known[0] = min(known[0], bucket.low)
        known[1] = max(known[1], bucket.high)
        known[2] += bucket.total
        known[3] += bucket.count
    return {
        at: Column(low, high, total / count if count else math.nan)
        for at, (low, high, total, count) in gathered.items()
    }


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


def draw(series: Series, width: int, height: int, look: Look = PLAIN) -> Picture:
    """The series in `width` x `height` braille cells."""
    return _drawn(series, width, height, look, across=2, down=4)


def draw_ascii(series: Series, width: int, height: int, look: Look = PLAIN) -> Picture:
    """The same with one dot a cell: `*` line, `:` band, `-` level, `!` best step, `|` cursor."""
    return _drawn(series, width, height, look, across=1, down=1)


def _drawn(series: Series, width: int, height: int, look: Look, *, across: int, down: int) -> Picture:
    grid = Canvas(width, height, across, down)
    span = look.span or covered(series)
    cols = columns(series, grid.width, span)
    log = look.log and all(col.low > 0 for col in cols.values())
    if log:
        cols = {at: Column(*(math.log10(value) for value in _finite(col))) for at, col in cols.items()}
    levels = [Level(_scaled(level.value, log), level.label) for level in look.levels]
    low, high = bounds(cols.values(), [level.value for level in levels])
    scale = (grid.height - 1) / (high - low) if grid.height else 0.0

    def row(value: float) -> int:
        return round((high - value) * scale)

    _mark_rules(grid, [row(level.value) for level in levels if math.isfinite(level.value)])
    if span is not None:
        _mark_steps(grid, span, look)
    _mark_values(grid, cols, row)
    texts, kinds = grid.drawn()
    for level in levels:
        if level.label and math.isfinite(level.value):
            _write(texts, kinds, row(level.value) // down, level.label)
    if look.best is not None and span is not None and span[0] <= look.best <= span[1]:
        _write_beside(texts, kinds, place(look.best, span, grid.width) // across, "best")
    ends = (10**low, 10**high) if log else (low, high)
    return Picture(tuple("".join(line) for line in texts), tuple(tuple(line) for line in kinds), *ends)


def _scaled(value: float, log: bool) -> float:
    if not log:
        return value
    return math.log10(value) if value > 0 else math.nan


def _finite(col: Column) -> Iterator[float]:
    """The three values, with NaN for the infinite extremes of a column without values."""
    return (value if math.isfinite(value) else math.nan for value in (col.low, col.high, col.mean))


def _mark_rules(grid: Canvas, levels: Iterable[int]) -> None:
    for y in levels:
        grid.mark(((x, y) for x in range(0, grid.width, 4)), RULE)


def _mark_steps(grid: Canvas, span: Span, look: Look) -> None:
    """The best step as a dotted rule down, the cursor as a whole one."""
    for step, every, kind in ((look.best, 2, BEST), (look.cursor, 1, CURSOR)):
        if step is not None:
            x = place(step, span, grid.width)
            grid.mark(((x, y) for y in range(0, grid.height, every)), kind)


def _mark_values(grid: Canvas, cols: dict[int, Column], row: Callable[[float], int]) -> None:
    """The band of extremes, and over it the smoothed line; a value between gaps, or the first one, as a blob."""
    for x, col in cols.items():
        if not math.isnan(col.mean):
            grid.mark(((x, y) for y in _band_rows(row(col.high), row(col.low))), BAND)
    previous: tuple[int, int] | None = None
    levels = smooth((col.mean for col in cols.values()), weight(len(cols)))
    for number, (x, level) in enumerate(zip(cols, levels, strict=True), start=1):
        if math.isnan(level):
            previous = None
            continue
        here = (x, row(level))
        alone = previous is None and (number == len(levels) or math.isnan(levels[number]))
        grid.mark(grid.blob(*here) if alone else segment(previous or here, here), LINE)
        previous = here


def _band_rows(top: int, bottom: int) -> list[int]:
    """Every second dot row of the band, both ends included."""
    return [*range(top, bottom, 2), bottom]


def segment(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line from `start` to `end`, both included."""
    (x0, y0), (x1, y1) = start, end
    length = max(abs(x1 - x0), abs(y1 - y0))
    if length == 0:
        return [end]
    return [(round(x0 + (x1 - x0) * i / length), round(y0 + (y1 - y0) * i / length)) for i in range(length + 1)]


def _write(texts: list[list[str]], kinds: list[list[int]], y: int, word: str) -> None:
    """A word on a row, at the end where it hides least of the line; none where there is no room for it."""
    if not 0 <= y < len(texts) or len(word) > len(texts[y]) // 2:
        return
    _put_at_best(texts, kinds, [(y, len(texts[y]) - len(word)), (y, 0)], word)


def _write_beside(texts: list[list[str]], kinds: list[list[int]], x: int, word: str) -> None:
    """A word beside a column, on the top or the bottom row, where it hides least of the line."""
    if not texts or len(word) > len(texts[0]) // 2:
        return
    start = x + 1 if x + 1 + len(word) <= len(texts[0]) else x - len(word)
    _put_at_best(texts, kinds, [(0, start), (len(texts) - 1, start)], word)


def _put_at_best(texts: list[list[str]], kinds: list[list[int]], places: Sequence[tuple[int, int]], word: str) -> None:
    """Write where the least of the line is hidden; nowhere if it would hide another word, or run together with one."""
    free = [(y, start) for y, start in places if WORD not in kinds[y][max(start - 1, 0) : start + len(word) + 1]]
    if free:
        y, start = min(free, key=lambda at: sum(kind == LINE for kind in kinds[at[0]][at[1] : at[1] + len(word)]))
        _put(texts, kinds, start, y, word)


def _put(texts: list[list[str]], kinds: list[list[int]], start: int, y: int, word: str) -> None:
    texts[y][start : start + len(word)] = word
    kinds[y][start : start + len(word)] = [WORD] * len(word)


class Canvas:
    """Dots that become characters of `across` x `down` dots each; in each only the strongest kind is drawn."""

    def __init__(self, columns: int, rows: int, across: int, down: int) -> None:
        self.columns, self.rows, self.across, self.down = max(columns, 0), max(rows, 0), across, down
        self.width, self.height = self.columns * across, self.rows * down
        self._kinds = bytearray(self.columns * self.rows)
        self._bits = bytearray(self.columns * self.rows)

    def mark(self, dots: Iterable[tuple[int, int]], kind: int) -> None:
        """Set dots; LINE wins over the cursor, that over the best step, BAND and RULE."""
        kinds, bits, across, down = self._kinds, self._bits, self.across, self.down
        strength = _STRENGTH[kind]
        for x, y in dots:
            if 0 <= x < self.width and 0 <= y < self.height:
                at = y // down * self.columns + x // across
                known = kinds[at]
                if kind == known:
                    bits[at] |= DOTS[x % across][y % down]
                elif strength > _STRENGTH[known]:
                    kinds[at] = kind
                    bits[at] = DOTS[x % across][y % down]

    def blob(self, x: int, y: int) -> list[tuple[int, int]]:
        """The dots of a character around (x, y), as wide as it and half as high: a single dot is hard to see."""
        left, high = x - x % self.across, max(self.down // 2, 1)
        top = min(max(y - y % self.down, y - high // 2), y - y % self.down + self.down - high)
        return [(left + dx, top + dy) for dx in range(self.across) for dy in range(high)]

    def drawn(self) -> tuple[list[list[str]], list[list[int]]]:
        """The characters and the kinds of all cells, row by row, to be written over."""
        starts = range(0, len(self._kinds), self.columns) if self.columns else [0] * self.rows
        kinds = [list(self._kinds[start : start + self.columns]) for start in starts]
        if self.down == 1:
            return [[_ASCII[kind] for kind in row] for row in kinds], kinds
        return [[_BRAILLE[bits] for bits in self._bits[start : start + self.columns]] for start in starts], kinds
