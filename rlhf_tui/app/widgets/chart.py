"""A live line chart in braille, drawn a line at a time from the cached picture of its series."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from rlhf_tui.app import chartview
from rlhf_tui.app.glyphs import ascii_wanted
from rlhf_tui.app.plot import BAND, BEST, BLANK, CURSOR, LINE, PLAIN, RULE, WORD, Look, Picture, draw, draw_ascii
from rlhf_tui.app.series import Series
from rlhf_tui.app.words import number

GUTTER = 7
_STYLES = {
    BLANK: "chart--label",
    BAND: "chart--band",
    LINE: "chart--line",
    RULE: "chart--rule",
    WORD: "chart--label",
    BEST: "chart--best",
    CURSOR: "chart--cursor",
}


class Chart(Widget, can_focus=True):
    """One metric over the steps: a faint band of extremes, a smoothed line, the last value in the title.

    What does not fit into the picture is said in the lower border: values that are not numbers, levels that lie far
    away, the scale, and the note. The chart that has the focus carries a mark in its title. A log scale is drawn only
    while all values are above 0.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = set(_STYLES.values())

    def __init__(self, metric: str, title: str, *, classes: str = "") -> None:
        super().__init__(classes=f"chart {classes}")
        self.metric = metric
        self._title = title
        self._series = Series()
        self._note = ""
        self._wanted = self._look = PLAIN
        self._ends: tuple[float, float] | None = None
        self._drawn: tuple[Size, Picture] | None = None
        self._key: object = None
        self._styles: dict[int, Style] = {}
        self.border_title = Content(title)

    @property
    def series(self) -> Series:
        """What it shows."""
        return self._series

    def take(self, metric: str, title: str) -> None:
        """Become the chart of another metric."""
        if metric != self.metric:
            self.metric, self._title, self._key = metric, title, None

    def show(self, series: Series, *, note: str = "", look: Look = PLAIN) -> None:
        """Take the series and how to draw it; draws again only when that would look different."""
        last = series.buckets[-1] if series.buckets else None
        seen = (last.last, last.total, last.missing, len(series.buckets)) if last else ()
        key = (id(series), seen, note, look)
        if key == self._key:
            return
        same = self._looks_the_same(series, look)
        self._key, self._series, self._note = key, series, note
        if not same:
            self._wanted, self._drawn = look, None
            self._choose_levels()
            self.refresh()
        self._tell()

    def _looks_the_same(self, series: Series, look: Look) -> bool:
        """Whether what is drawn would move by less than a dot: a long run brings many values for each column."""
        wanted, drawn = self._wanted, self._drawn
        if series is not self._series or drawn is None or self._ends is None or not (look.span and wanted.span):
            return False
        dot = (wanted.span[1] - wanted.span[0]) / (2 * drawn[0].width)
        moved = max(abs(look.span[0] - wanted.span[0]), abs(look.span[1] - wanted.span[1]))
        inside = self._ends[0] <= series.latest <= self._ends[1]
        return moved < dot and inside and replace(look, span=wanted.span) == wanted

    def on_resize(self) -> None:
        """The lower border is cut to the width."""
        self._tell()

    def watch_has_focus(self, has_focus: bool) -> None:
        """The title of the lit chart carries a mark."""
        super().watch_has_focus(has_focus)
        self._tell()

    def notify_style_update(self) -> None:
        """The theme or the focus changed: colours are looked up again."""
        self._styles.clear()
        super().notify_style_update()

    def _choose_levels(self) -> None:
        """Which levels come into the picture, and whether a log scale is possible now."""
        found = self._ends = chartview.extremes(self._series, self._wanted.span)
        log = self._wanted.log and found is not None and found[0] > 0
        levels = chartview.near(self._wanted.levels, *found, log=log) if found else ()
        self._look = replace(self._wanted, levels=levels, log=log)

    def _tell(self) -> None:
        """Title and lower border."""
        mark = "▶ " if self.has_focus else ""
        value = ""
        if self._series.buckets:
            cursor = self._wanted.cursor
            value = number(self._series.latest)
            if cursor is not None:
                found = chartview.reading(self._series, cursor)
                value = chartview.in_words(found) + (f" at {cursor}" if found and found.exact else "")
        self.border_title = Content(f"{mark}{self._title}  {value}".rstrip())
        self.border_subtitle = Content(chartview.that_fit(self._remarks(), max(self.size.width - 4, 0)))

    def _remarks(self) -> list[str]:
        """What the lower border says, the most important first."""
        remarks = [chartview.missing(self._series, self._wanted.span)]
        if self._wanted.log:
            remarks.append("log" if self._look.log else "linear: values of 0 or less")
        if self._ends:
            remarks += chartview.far(self._wanted.levels, self._look.levels, self._ends[0])
        return [remark for remark in [*remarks, self._note] if remark]

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of a part of the widget. What they look like is worked out once, not for each of them."""
        self._styles = self._styles or {kind: self.get_component_rich_style(name) for kind, name in _STYLES.items()}
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One row: the axis label (highest value on top, lowest at the bottom), then the picture."""
        width, height = self.size
        styles = self._styles
        if not self._series.buckets:
            text = "no values yet" if y == height // 2 else ""
            return Strip([Segment(text.center(width)[:width], styles.get(BLANK))])
        picture = self._picture(max(width - GUTTER, 1), height)
        if y >= len(picture.rows):
            return Strip.blank(width, self.rich_style)
        label = number(picture.high) if y == 0 else number(picture.low) if y == height - 1 else ""
        segments = [Segment(f"{label:>{GUTTER - 1}} ", styles.get(BLANK))]
        segments += [Segment(text, styles.get(kind)) for text, kind in _runs(picture.rows[y], picture.kinds[y])]
        return Strip(segments, GUTTER + len(picture.rows[y])).crop(0, width)

    def _picture(self, width: int, height: int) -> Picture:
        size = Size(width, height)
        if self._drawn is None or self._drawn[0] != size:
            make = draw_ascii if ascii_wanted() else draw
            self._drawn = (size, make(self._series, width, height, self._look))
        return self._drawn[1]


def _runs(row: str, kinds: tuple[int, ...]) -> list[tuple[str, int]]:
    """A row split where the kind of cell changes."""
    found: list[tuple[str, int]] = []
    start = 0
    for index in range(1, len(kinds) + 1):
        if index == len(kinds) or kinds[index] != kinds[start]:
            found.append((row[start:index], kinds[start]))
            start = index
    return found
