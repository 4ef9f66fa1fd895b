"""What a grid of charts shows together: which steps, where the cursor stands, and all of it in words. No Textual.

A `View` belongs to all charts of a grid. It holds no steps of the run itself, so that a view of the newest steps
moves along with a run that goes on.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rlhf_tui.app.plot import Level, Span, covered
from rlhf_tui.app.series import Bucket, Series
from rlhf_tui.app.words import number

#: The fewest steps that zooming in leaves.
NEAREST = 4


@dataclass(frozen=True)
class View:
    """Which steps all charts show.

    `width` is how far the last step shown lies from the first, None for all steps; `end` is the last one, None for
    the newest. `cursor` is the step that is read, None for the newest.
    """

    width: int | None = None
    end: int | None = None
    cursor: int | None = None

    def span(self, whole: Span) -> Span:
        """The steps shown, of the `whole` that there is."""
        if self.width is None:
            return whole
        last = whole[1] if self.end is None else min(max(self.end, whole[0]), whole[1])
        return max(last - self.width, whole[0]), last

    @property
    def all_steps(self) -> bool:
        return self.width is None


def whole(lines: Iterable[Series]) -> Span | None:
    """First and last step of several series; None when all are empty."""
    spans = [span for span in map(covered, lines) if span]
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None


def zoomed(view: View, whole: Span, *, closer: bool) -> View:
    """Half as many steps, or twice as many, around the cursor; without one, the newest."""
    first, last = view.span(whole)
    width = max((last - first) // 2, NEAREST) if closer else max((last - first) * 2, 1)
    if width >= whole[1] - whole[0]:
        return View(cursor=view.cursor)
    if view.cursor is None and view.end is None:
        return View(width)
    middle = last - (last - first) // 2 if view.cursor is None else view.cursor
    return _ending(view, whole, width, middle + (width + 1) // 2)


def _ending(view: View, whole: Span, width: int, end: int) -> View:
    """A view of so many steps that ends at `end`, or as near to that as there are steps."""
    end = max(end, whole[0] + width)
    return View(width, None if end >= whole[1] else end, view.cursor)


def moved(view: View, series: Series, whole: Span, by: int, cells: int) -> View:
    """The cursor further by so many values of a series, and the steps shown along with it.

    A move goes further where values stand closer than the dots of a chart that is `cells` wide. Beyond the last
    value the cursor goes back to following the newest.
    """
    steps = [bucket.last for bucket in series.buckets]
    if not steps:
        return view
    first, last = view.span(whole)
    inside = bisect_right(steps, last) - bisect_left(steps, first)
    by *= max(1, inside // max(2 * cells, 1))
    here = whole[1] if view.cursor is None else view.cursor
    at = (bisect_left(steps, here) if by < 0 else bisect_right(steps, here) - 1) + by
    if at >= len(steps) - 1 and by > 0:
        return View(view.width, None, None)
    cursor = steps[min(max(at, 0), len(steps) - 1)]
    if view.width is None or first <= cursor <= last:
        return replace(view, cursor=cursor)
    end = cursor if cursor > last else cursor + view.width
    return replace(_ending(view, whole, view.width, end), cursor=cursor)


def held(view: View, whole: Span) -> View:
    """The same view, with a cursor that is among the steps there are: a run that resumes has fewer of them."""
    if view.cursor is not None and not whole[0] <= view.cursor < whole[1]:
        return replace(view, cursor=None if view.cursor >= whole[1] else whole[0])
    return view


# -- values ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What a series says at a step: the mean of steps `first`..`last`; NaN where there was no number."""

    first: int
    last: int
    mean: float
    exact: bool
    """False when the series has no value at that step and this is the one before it"""


def reading(series: Series, step: int) -> Reading | None:
    """The value at a step, or the last one before it; None when there is none yet."""
    at = bisect_right(series.buckets, step, key=lambda bucket: bucket.first) - 1
    if at < 0:
        return None
    bucket = series.buckets[at]
    return Reading(bucket.first, bucket.last, bucket.mean, bucket.last >= step)


def in_words(found: Reading | None) -> str:
    """A value as a person reads it: '1.84', '1.12 at 170' when it is from an earlier step, or that there is none."""
    if found is None:
        return "no value yet"
    value = "not a number" if math.isnan(found.mean) else number(found.mean)
    return value if found.exact else f"{value} at {found.last}"


def readout(lines: Mapping[str, Series], step: int, unit: str) -> str:
    """The values of all charts at a step in one line; `lines` are series by their words, in order."""
    merged = max((series.points_per_bucket for series in lines.values()), default=1)
    about = f" ({means(merged, unit)})" if merged > 1 else ""
    said = [f"{label} {in_words(reading(series, step))}" for label, series in lines.items() if series.buckets]
    return f"{unit.capitalize()} {step}{about}: {', '.join(said)}" if said else f"{unit.capitalize()} {step}"


def means(merged: int, unit: str) -> str:
    """How fine the values are: 'means of 4 updates'; nothing when each step has its own."""
    return f"means of {merged} {unit}s" if merged > 1 else ""


def inside(series: Series, span: Span | None) -> Sequence[Bucket]:
    """The buckets that reach into the span."""
    known = covered(series)
    if span is None or known is None or (span[0] <= known[0] and known[1] <= span[1]):
        return series.buckets
    return [bucket for bucket in series.buckets if bucket.last >= span[0] and bucket.first <= span[1]]


def missing(series: Series, span: Span | None = None) -> str:
    """How many values are not numbers: '3 not a number'; nothing when all are."""
    count = sum(bucket.missing for bucket in inside(series, span))
    return f"{count:,} not a number" if count else ""


def extremes(series: Series, span: Span | None = None) -> tuple[float, float] | None:
    """Lowest and highest value; None when there is none."""
    found = [bucket for bucket in inside(series, span) if bucket.count]
    return (min(bucket.low for bucket in found), max(bucket.high for bucket in found)) if found else None


# -- scale and levels -----------------------------------------------------------------------------


def no_log(series: Series) -> str:
    """Why a series cannot be drawn on a logarithmic scale; empty when it can."""
    found = extremes(series)
    if found is None:
        return "There is no value yet."
    if found[0] > 0:
        return ""
    at_zero = (found[0] == 0 and "it is 0 at its lowest") or f"it goes down to {number(found[0])}"
    return f"No log scale: {at_zero}, and only values above 0 have a logarithm."


def near(levels: Sequence[Level], low: float, high: float, *, log: bool) -> tuple[Level, ...]:
    """The levels that come into the picture: not those so far from the values that these would be pressed flat."""
    if log and low > 0:
        low, high = math.log10(low), math.log10(high)
    room = max((high - low) / 2, 0.05 * max(abs(low), abs(high)))
    return tuple(level for level in levels if level.always or _lies_between(level, low - room, high + room, log=log))


def _lies_between(level: Level, low: float, high: float, *, log: bool) -> bool:
    if log:
        return level.value > 0 and low <= math.log10(level.value) <= high
    return low <= level.value <= high


def far(levels: Sequence[Level], shown: Sequence[Level], low: float) -> list[str]:
    """The other levels in words: 'limit 50 far above'."""
    return [
        f"{level.label} far {'above' if level.value > low else 'below'}"
        for level in levels
        if level not in shown and level.label and level.told
    ]


def that_fit(parts: Iterable[str], width: int) -> str:
    """As many of the parts as fit into the width, the first ones first."""
    kept = ""
    for part in parts:
        longer = f"{kept} · {part}" if kept and part else kept or part
        if len(longer) <= width:
            kept = longer
    return kept


def layout(count: int, width: int, height: int, least: int = 6) -> tuple[int, int]:
    """Columns, and lines for each row, of so many charts in a room; rows that are too many are scrolled to."""
    most = 4 if width >= 140 else 2 if width >= 48 else 1
    rows = max(math.ceil(count / most), 1)
    return max(math.ceil(count / rows), 1), max(height // rows, least)
