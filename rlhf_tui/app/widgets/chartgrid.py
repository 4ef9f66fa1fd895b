"""Charts side by side that are read together: one is lit, one cursor goes through all, all show the same steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from textual.containers import Container
from textual.message import Message

from rlhf_tui.app import chartview, glossary
from rlhf_tui.app.chartview import View
from rlhf_tui.app.plot import Level, Look, Span
from rlhf_tui.app.series import Series
from rlhf_tui.app.widgets.chart import GUTTER, Chart


@dataclass(frozen=True)
class Charted:
    """What a grid draws: the series of a run by metric, and what is said and marked in its charts."""

    lines: Mapping[str, Series]
    notes: Callable[[str], str] = lambda name: ""
    levels: Callable[[str], tuple[Level, ...]] = lambda name: ()
    best: int | None = None


@dataclass(frozen=True)
class Usual:
    """Which charts there are until the user chooses others, the most telling first.

    Those `if_measured` are there only when the run has their values. `few` on a small screen, `many` on a large one.
    """

    names: tuple[str, ...]
    if_measured: frozenset[str] = field(default=frozenset())
    few: int = 4
    many: int = 8


class ChartGrid(Container):
    """A grid of charts. Which metrics it shows, their steps and their scales stay as long as the app runs."""

    class Read(Message):
        """The cursor, the steps shown or the lit chart have changed."""

    def __init__(self, usual: Usual, *, unit: str = "update", id: str | None = None) -> None:
        super().__init__(id=id, classes="charts")
        self.unit = unit
        self.view = View()
        self._usual = usual
        self._chosen: tuple[str, ...] = ()
        self._log: set[str] = set()
        self._data = Charted({})
        self._names: tuple[str, ...] = ()

    # -- what it shows

    def show(self, data: Charted) -> None:
        """Draw what has changed."""
        self._data = data
        names = self.shown
        if names != self._names:
            self._names = names
            self._arrange()
        whole = self._whole()
        if whole:
            self.view = chartview.held(self.view, whole)
        span = self.view.span(whole) if whole else None
        for chart in self.charts:
            name = chart.metric
            look = Look(span, name in self._log, data.levels(name), data.best, self.view.cursor)
            chart.show(data.lines.get(name, _NONE), note=self._note(name, span), look=look)

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that have a chart: those chosen, or the usual ones that there is room for."""
        known = self._data.lines
        if self._chosen:
            return tuple(name for name in self._chosen if name in known) or self._chosen
        usual = [name for name in self._usual.names if name in known or name not in self._usual.if_measured]
        large = self.app.size.width >= 140 and self.app.size.height >= 40
        return tuple(usual[: self._usual.many if large else self._usual.few])

    @property
    def known(self) -> tuple[str, ...]:
        """Every metric that can have a chart: those of the run, the usual ones first."""
        names = [*self.shown, *self._usual.names, *sorted(self._data.lines, key=glossary.label)]
        return tuple(dict.fromkeys(name for name in names if name in self._data.lines or name in self.shown))

    @property
    def charts(self) -> list[Chart]:
        """The charts in use."""
        return [chart for chart in self.children if isinstance(chart, Chart) and chart.display]

    @property
    def lit(self) -> Chart | None:
        """The chart that has the focus."""
        return next((chart for chart in self.charts if chart.has_focus), None)

    def readout(self) -> str:
        """The values of all charts at the cursor, in one line; those of the lit chart first."""
        whole = self._whole()
        if whole is None:
            return ""
        lit = self.lit
        names = sorted(self._names, key=lambda name: lit is None or name != lit.metric)
        lines = {glossary.short(name): self._data.lines.get(name, _NONE) for name in names}
        step = whole[1] if self.view.cursor is None else self.view.cursor
        return chartview.readout(lines, step, self.unit)

    def range_words(self) -> str:
        """Which steps are shown, when they are not all; and how fine the values are."""
        whole = self._whole()
        if whole is None or self.view.all_steps:
            return ""
        first, last = self.view.span(whole)
        merged = max((chart.series.points_per_bucket for chart in self.charts), default=1)
        fine = chartview.means(merged, self.unit) or "every value"
        return f"{self.unit}s {first} to {last} of {whole[1]}, {fine}"

    # -- what keys do

    def light(self, by: int) -> None:
        """Light up the next chart, or the one before."""
        charts, lit = self.charts, self.lit
        if charts:
            at = charts.index(lit) + by if lit else 0 if by > 0 else -1
            charts[at % len(charts)].focus()

    def put_out(self) -> None:
        """No chart is lit, and the newest values are read again."""
        self.view = View(self.view.width, self.view.end)
        self.screen.set_focus(None)
        self._changed()

    def move(self, by: int) -> None:
        """The cursor to a later or an earlier value of the lit chart."""
        lit, whole = self.lit, self._whole()
        if lit and whole:
            self.view = chartview.moved(self.view, lit.series, whole, by, max(lit.size.width - GUTTER, 1))
            self._changed()

    def zoom(self, closer: bool | None) -> None:
        """Half as many steps, twice as many, or all (None), in all charts."""
        whole = self._whole()
        if whole:
            view = self.view
            self.view = View(cursor=view.cursor) if closer is None else chartview.zoomed(view, whole, closer=closer)
            self._changed()

    def toggle_log(self) -> str:
        """Change the scale of the lit chart; what was done, or why it cannot be."""
        lit = self.lit
        if lit is None:
            return "Light up a chart first."
        name = lit.metric
        refused = "" if name in self._log else chartview.no_log(lit.series)
        if refused:
            return refused
        self._log ^= {name}
        self._changed()
        return f"{glossary.label(name)}: {'logarithmic' if name in self._log else 'linear'} scale."

    def choose(self, names: Sequence[str]) -> None:
        """Show these metrics; none of them: the usual ones."""
        self._chosen = tuple(names)
        self._changed()

    def on_descendant_focus(self) -> None:
        """Another chart is lit."""
        self.post_message(self.Read())

    def on_descendant_blur(self) -> None:
        """A chart is lit no more."""
        self.post_message(self.Read())

    def on_resize(self) -> None:
        """The rows are as high as there is room."""
        self._arrange()

    def _changed(self) -> None:
        self.show(self._data)
        self.post_message(self.Read())

    def _whole(self) -> Span | None:
        return chartview.whole(self._data.lines[name] for name in self._names if name in self._data.lines)

    def _note(self, name: str, span: Span | None) -> str:
        if self.view.all_steps or span is None:
            return self._data.notes(name)
        return f"{span[0]} to {span[1]}"

    def _arrange(self) -> None:
        """As many charts as metrics, in rows of one height."""
        names = self._names
        charts = [chart for chart in self.children if isinstance(chart, Chart)]
        for name in names[len(charts) :]:
            charts.append(Chart(name, glossary.label(name)))
            self.mount(charts[-1])
        for at, chart in enumerate(charts):
            chart.display = at < len(names)
            if at < len(names):
                chart.take(names[at], glossary.label(names[at]))
        across, height = chartview.layout(len(names), self.size.width, self.size.height)
        self.styles.grid_size_columns = across
        fits = height * -(-len(names) // across) <= self.size.height
        self.styles.grid_rows = "1fr" if fits else str(height)


_NONE = Series()
