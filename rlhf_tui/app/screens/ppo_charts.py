"""The keys of a screen with a grid of charts, and the window in which one chooses what the charts show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from rlhf_tui.app import glossary, keys, keytable, words
from rlhf_tui.app.widgets.chartgrid import ChartGrid
from rlhf_tui.app.widgets.options import Options
from rlhf_tui.app.widgets.panel import lines, tinted

if TYPE_CHECKING:
    from rlhf_tui.app.screens.stage import StageScreen

    Base = StageScreen
else:
    Base = object


class ChartKeys(Base):
    """Lighting, reading, zooming and choosing charts: for a stage screen that shows one `ChartGrid`."""

    AUTO_FOCUS: ClassVar[str | None] = ""  # no chart is lit until the user wants it

    @property
    def grid(self) -> ChartGrid:
        """The charts."""
        return self.query_one(ChartGrid)

    @property
    def has_charts(self) -> bool:
        """Whether the charts are on screen now."""
        return True

    @property
    def there(self) -> Sequence[keytable.When]:
        """Charts to light up, while they are on screen."""
        return ("charts",) if self.has_charts else ()

    def on_chart_grid_read(self) -> None:
        """The values at the cursor stand in a panel."""
        self.renew()

    def action_light(self, by: int) -> None:
        """Light up the next chart (1), or the one before (-1)."""
        if self._charts_or_say():
            self.grid.light(by)

    def action_put_out(self) -> None:
        """No chart is lit."""
        self.grid.put_out()

    def action_browse(self, by: int) -> None:
        """The cursor of the lit chart to a later value (1) or an earlier one (-1)."""
        if self._charts_or_say():
            if self.grid.lit:
                self.grid.move(by)
            else:
                self.leaf(by)

    def leaf(self, by: int) -> None:
        """What the arrows do while no chart is lit."""
        self.notify(f"{self._key('charts.next')} lights up a chart first.", timeout=3)

    def action_zoom(self, closer: bool | None) -> None:
        """Half as many steps, twice as many, or all of them."""
        if self._charts_or_say():
            self.grid.zoom(closer)
            self.notify(self.grid.range_words() or "All steps.", timeout=2)

    def action_log_scale(self) -> None:
        """The other scale for the lit chart."""
        if self._charts_or_say():
            hint = f" ({self._key('charts.next')})" if self.grid.lit is None else ""
            self.notify(self.grid.toggle_log() + hint, timeout=4)

    def action_choose(self) -> None:
        """Choose which numbers have a chart."""
        if not self._charts_or_say():
            return
        self.app.push_screen(ChooseDialog(self.grid.known, self.grid.shown), self._take_choice)

    def _take_choice(self, names: Sequence[str] | None) -> None:
        if names is not None:
            self.grid.choose(names)

    def _key(self, action_id: str) -> str:
        return keys.key_of(self.STAGE, action_id, self.rlhf.keymap)

    def _charts_or_say(self) -> bool:
        if not self.has_charts:
            self.notify("There are no charts on screen now.", timeout=3)
        return self.has_charts


def read_line(read: str, width: int) -> Content:
    """The values at the cursor, in one line."""
    step, colon, said = words.one_line(read, max(width, 10)).partition(":")
    return Content.assemble(tinted(step + colon, "accent"), said)


class ChooseDialog(ModalScreen[Sequence[str] | None]):
    """Every number that the run has, with a mark where it has a chart. Esc and q take the choice."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,slash", "close", "Done"),
        ("space", "turn", "Chart or no chart"),
        ("j", "step(1)", "Down"),
        ("k", "step(-1)", "Up"),
        ("r", "usual", "The usual charts"),
    ]

    def __init__(self, known: Sequence[str], shown: Sequence[str]) -> None:
        super().__init__(classes="window")
        self._known, self._before = tuple(known), tuple(shown)
        self._wanted = list(shown)

    def compose(self) -> ComposeResult:
        """The list, and below it what the number under the cursor is."""
        with Vertical(classes="dialog") as box:
            box.border_title = Content("Which numbers have a chart")
            box.border_subtitle = Content("space chart or not · r the usual ones · esc done")
            yield Options(*(Option(self._line(name), id=name) for name in self._known), id="choosing", markup=False)
            yield Static("", id="choice", markup=False)

    def on_mount(self) -> None:
        """Choose at once."""
        self.query_one("#choosing").focus()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what it is."""
        said = [text for _, text in glossary.explained(event.option_id or "")[:2]]
        self.query_one("#choice", Static).update(lines(*said))

    def on_option_list_option_selected(self) -> None:
        """Enter does as space does."""
        self.action_turn()

    def action_turn(self) -> None:
        """Give the number under the cursor a chart, or take it away."""
        listed = self.query_one("#choosing", OptionList)
        if listed.highlighted is None:
            return
        name = self._known[listed.highlighted]
        if name in self._wanted:
            self._wanted.remove(name)
        else:
            self._wanted.append(name)
        listed.replace_option_prompt(name, self._line(name))

    def action_step(self, by: int) -> None:
        """A line up or down."""
        listed = self.query_one("#choosing", OptionList)
        if by > 0:
            listed.action_cursor_down()
        else:
            listed.action_cursor_up()

    def action_usual(self) -> None:
        """Back to the usual charts."""
        self.dismiss(())

    def action_close(self) -> None:
        """Take the choice; the charts stay when nothing was changed."""
        self.dismiss(None if tuple(self._wanted) == self._before else tuple(self._wanted))

    def _line(self, name: str) -> Content:
        wanted = name in self._wanted
        mark = tinted("✓ ", "good") if wanted else tinted("· ", "quiet")
        own = "" if glossary.label(name) == name.replace("_", " ") else f"  {name}"
        return Content.assemble("  ", mark, glossary.label(name), tinted(own, "quiet"))
