"""A live line chart in braille, drawn a line at a time from the cached picture of its series."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from rlhf_tui.app.glyphs import ascii_wanted
from rlhf_tui.app.plot import BAND, BLANK, LINE, RULE, Picture, draw, draw_ascii
from rlhf_tui.app.series import Series
from rlhf_tui.app.words import number

GUTTER = 7
_STYLES = {BLANK: "chart--label", BAND: "chart--band", LINE: "chart--line", RULE: "chart--rule"}


class Chart(Widget):
    """One metric over the steps: a faint band of extremes, a smoothed line, the last value in the title."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"chart--line", "chart--band", "chart--rule", "chart--label"}

    def __init__(self, metric: str, title: str, *, rule: float | None = None, classes: str = "") -> None:
        super().__init__(classes=f"chart {classes}")
        self.metric = metric
        self._title = title
        self._rule = rule
        self._series = Series()
        self._drawn: tuple[Size, Picture] | None = None
        self._key: tuple[int, int, float] | None = None
        self.border_title = Content(title)

    def show(self, series: Series, *, note: str = "", rule: float | None = None) -> None:
        """Take the series; draws again only when it, the note or the rule has changed."""
        last = series.buckets[-1] if series.buckets else None
        key = (id(series), last.last if last else -1, last.total if last else 0.0)
        if key == self._key and note == (self.border_subtitle or "") and (rule is None or rule == self._rule):
            return
        self._key, self._series, self._drawn = key, series, None
        self._rule = self._rule if rule is None else rule
        self.border_title = Content(f"{self._title}  {number(series.latest)}" if last else self._title)
        self.border_subtitle = Content(note)
        self.refresh()

    def notify_style_update(self) -> None:
        """The theme changed: draw again."""
        self._drawn = None
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        """One row: the axis label (highest value on top, lowest at the bottom), then the picture."""
        width, height = self.size
        if not self._series.buckets:
            text = "no values yet" if y == height // 2 else ""
            return Strip([Segment(text.center(width)[:width], self.get_component_rich_style("chart--label"))])
        picture = self._picture(max(width - GUTTER, 1), height)
        if y >= len(picture.rows):
            return Strip.blank(width, self.rich_style)
        label = number(picture.high) if y == 0 else number(picture.low) if y == height - 1 else ""
        segments = [Segment(f"{label:>{GUTTER - 1}} ", self.get_component_rich_style("chart--label"))]
        for text, kind in _runs(picture.rows[y], picture.kinds[y]):
            segments.append(Segment(text, self.get_component_rich_style(_STYLES[kind])))
        return Strip(segments).crop(0, width)

    def _picture(self, width: int, height: int) -> Picture:
        size = Size(width, height)
        if self._drawn is None or self._drawn[0] != size:
            make = draw_ascii if ascii_wanted() else draw
            self._drawn = (size, make(self._series, width, height, rule=self._rule))
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
