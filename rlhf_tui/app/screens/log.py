"""The logs of a project's runs: worker.log, or what the journal says the run did; followed while the run lives."""

from __future__ import annotations

import shlex
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from rlhf_tui.app import keys, keytable, logtext, words
from rlhf_tui.app.copying import copy
from rlhf_tui.app.overview import ALIVE
from rlhf_tui.app.screens.stage import STATES
from rlhf_tui.app.widgets.listing import Listing
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.project import Project
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.folder import list_runs
from rlhf_tui.runs.paging import Window, search

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp
    from rlhf_tui.app.home import HomeApp

_RUNS_EVERY = 4  # looks: asking every run how it fares costs more than asking one file
_CONTEXT, _PART = 3, 6  # lines above one that was searched for; at most a sixth of the page, for they may be broken
_NOTHING = "No run has been started yet. esc leads back: ⏎ on a stage starts one."


class LogScreen(Screen[None]):
    """The runs of a project, newest first, and the log of the lit one."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("log")
    keys_named = "log"
    AUTO_FOCUS = ""

    class Found(Message):
        """The search has ended: where the line begins, or None."""

        def __init__(self, path: Path, needle: str, offset: int | None, *, backwards: bool) -> None:
            super().__init__()
            self.path, self.needle, self.offset, self.backwards = path, needle, offset, backwards

    def __init__(self, project: Project, lit: str = "", *, now: Callable[[], float] = time.time) -> None:
        """`lit` names the run to begin with; the newest if there is none of that name."""
        super().__init__()
        self._project, self._now = project, now
        self._runs = self._list()
        self._lit = next((run for run in self._runs if run.name == lit), self._runs[0] if self._runs else None)
        self._events = False  # whether the journal is shown
        self._window = self._opened()
        self._follow = True
        self._needle, self._hit, self._searching = "", -1, False
        self._begins: list[int] = []
        self._looks = 0

    def compose(self) -> ComposeResult:
        """The runs, the log of one, the line of keys."""
        yield Ends(id="head")
        with Container(id="finding"):
            yield Static("Find", markup=False, id="finding-label")
            yield Input(placeholder="words of the log", compact=True, id="needle")
        with Container(id="logs"):
            yield Listing(id="log-runs")
            with Vertical(id="log-page"):
                yield Static("", markup=False, id="log-end")
                yield TextPane("", id="log")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show the end of the log, and look twice a second."""
        self.query_one("#finding").display = False
        self.query_one("#log-runs").border_title = Content("Runs")
        self.call_after_refresh(self._fill_in)
        self.set_interval(0.5, self._look)

    def on_resize(self) -> None:
        """Lines are broken anew."""
        self.call_after_refresh(self._to_bottom if self._follow else self._show)

    def command_line(self) -> str:
        """The command that shows the lit run."""
        where = f"--project {shlex.quote(str(self._project.root))}"
        if self._lit is None:
            return f"rlhf-tui runs list {where}"
        return f"rlhf-tui runs {'watch' if self._lit.status in ALIVE else 'show'} {self._lit.name} {where}"

    # What is shown

    def _fill_in(self) -> None:
        """The window's text from its end on."""
        self._put(begin=0)
        self._to_bottom()

    def _put(self, begin: int) -> None:
        """The window's text, the line with the character `begin` at the upper edge."""
        text, self._begins = logtext.joined(self._window.lines)
        pane = self.query_one("#log", TextPane)
        pane.show(text or self._empty(), begin=begin)
        pane.mark(logtext.matches(text, self._needle))
        self._show()

    def _empty(self) -> str:
        if self._lit is None:
            return _NOTHING
        return "The journal says nothing yet." if self._events else "The log is empty. v shows what the run did."

    def _show(self) -> None:
        """Everything around the text."""
        if not self.is_mounted:
            return
        app, run = cast("RlhfApp | HomeApp", self.app), self._lit
        left = Content.assemble(tinted("rlhf_tui", "accent"), "  ", tinted("Log", "strong"))
        state = Content("")
        if run is not None:
            glyph, word, tone = STATES[run.status]
            state = Content.assemble(tinted(f"{glyph} {word} ", tone), run.name)
        self.query_one("#head", Ends).show(left, state)
        runs, now = self._runs, self._now()
        at = next((place for place, one in enumerate(runs) if run and one.name == run.name), None)
        self.query_one("#log-runs", Listing).show(
            [False] * len(runs),
            at,
            lambda place, width: logtext.run_row(runs[place], STATES[runs[place].status], now, width, lit=place == at),
        )
        told = logtext.how_it_broke_off(ending(run.folder) if run else None)
        end = self.query_one("#log-end", Static)
        end.display = bool(told.plain)
        end.update(told)
        pane = self.query_one("#log", TextPane)
        pane.border_title = Content("What the run did" if self._events else "worker.log")
        pane.tell(self._place())
        there: list[keytable.When] = ["shown"] if run is not None else []
        footer = keys.footer("log", self.app.size.width, live=False, there=there, keymap=app.keymap)
        self.query_one(KeyLine).show(footer)

    def _place(self) -> str:
        """Where in the file this is, for the lower border."""
        if self._searching:
            return "● searching…"
        window = self._window
        if self._follow and self._lit and self._lit.status in ALIVE:
            return "● follows"
        if not window.size or (window.at_start and window.at_end):
            return ""
        return f"{words.percent(self._top_offset() / window.size)} of {words.size(window.size)}"

    def _top_offset(self) -> int:
        """Where in the file the line at the upper edge begins."""
        shown = self._window.lines
        if not shown:
            return self._window.start
        return shown[self._line_at(self.query_one("#log", TextPane).top)].offset

    def _line_at(self, row: int) -> int:
        """Which of the window's lines stands in a row of the text."""
        return max(bisect_right(self._begins, self.query_one("#log", TextPane).offset_of(row)) - 1, 0)

    # What keys do

    def action_scroll_log(self, by: int) -> None:
        """So many lines down; up ends following, and the end begins it again."""
        pane = self.query_one("#log", TextPane)
        pane.scroll_by(by)
        self._page()

    def action_page(self, by: int) -> None:
        """A page up or down."""
        self.action_scroll_log(by * max(self.query_one("#log", TextPane).size.height - 2, 1))

    def action_start(self) -> None:
        """To the very beginning."""
        self._follow = False
        self._window.around(0)
        self._put(begin=0)
        self.query_one("#log", TextPane).scroll_to_line(0)
        self._show()

    def action_end(self) -> None:
        """To the end, and on with it."""
        self._follow = True
        self._window.to_end()
        self._fill_in()

    def action_turn(self, by: int) -> None:
        """To the run so many places further down: an older one."""
        if self._runs:
            names = [run.name for run in self._runs]
            at = names.index(self._lit.name) if self._lit else 0
            self._choose(max(min(at + by, len(names) - 1), 0))

    def action_turn_over(self) -> None:
        """The journal instead of the log, or the other way round."""
        self._events = not self._events
        self._open()

    def action_find(self) -> None:
        """Type what to look for."""
        self.query_one("#finding").display = True
        self.query_one("#needle").focus()

    def action_again(self, backwards: bool) -> None:
        """The match before, or after."""
        if not self._needle:
            self.action_find()
        elif not self._searching:
            self._search_on(backwards)

    def action_copy_path(self) -> None:
        """Copy where the file lies."""
        copy(self.app, str(self._window.path))

    def action_back(self) -> None:
        """One layer out: of the search, or of the log."""
        if self.query_one("#finding").display or self._needle:
            self._leave_search()
        else:
            self.dismiss(None)

    # What happens

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Look for it, from the lower edge up: what matters is near the end."""
        self.set_focus(None)
        self._needle, self._hit = event.value, -1
        self.query_one("#finding").display = bool(event.value)
        pane = self.query_one("#log", TextPane)
        pane.mark(logtext.matches(pane.text, self._needle))
        if event.value:
            self._search_on(backwards=True)

    @on(Found)
    def _found(self, event: Found) -> None:
        self._searching = False
        if (event.path, event.needle) != (self._window.path, self._needle):
            return
        if event.offset is None:
            where = "further up" if event.backwards else "further down"
            self.notify(f"“{event.needle}” is not said {where}.", markup=False, timeout=3)
            self._show()
            return
        self._follow, self._hit = False, event.offset
        if not any(line.offset == event.offset for line in self._window.lines):
            self._window.around(event.offset)
        at = next(place for place, line in enumerate(self._window.lines) if line.offset == event.offset)
        _, begins = logtext.joined(self._window.lines)
        above = min(_CONTEXT, self.query_one("#log", TextPane).size.height // _PART)
        self._put(begin=begins[max(at - above, 0)])

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        """Show the run that was clicked."""
        self._choose(event.at)

    def on_listing_turned(self, event: Listing.Turned) -> None:
        """The cursor goes along with the wheel."""
        self.action_turn(event.by)

    def _search_on(self, backwards: bool) -> None:
        shown = self._window.lines
        if self._hit < 0 and shown:
            pane = self.query_one("#log", TextPane)
            last = shown[-1] if self._follow else shown[self._line_at(pane.top + pane.size.height - 1)]
            self._hit = last.offset + (last.size + 1 if backwards else 0)  # the line at the lower edge counts, too
        self._searching = True
        self._show()
        self._search(self._window.path, self._needle, max(self._hit, 0), backwards)

    @work(thread=True, exclusive=True, group="search")
    def _search(self, path: Path, needle: str, at: int, backwards: bool) -> None:
        worker = get_current_worker()
        shown = logtext.event_line if path.name == "events.jsonl" else logtext.log_line_saying(needle)
        offset = search(path, shown, needle, at, backwards=backwards, stopped=lambda: worker.is_cancelled)
        if not worker.is_cancelled:
            self.post_message(self.Found(path, needle, offset, backwards=backwards))

    def _leave_search(self) -> None:
        self.set_focus(None)
        self._needle, self._hit = "", -1
        self.query_one("#needle", Input).value = ""
        self.query_one("#finding").display = False
        self.query_one("#log", TextPane).mark([])
        self._show()

    def _look(self) -> None:
        """What is new: in the log, and now and then among the runs."""
        self._looks += 1
        if self._looks % _RUNS_EVERY == 0:
            self._runs = self._list()
            if self._lit is None and self._runs:
                self._choose(0)
            self._lit = next((run for run in self._runs if self._lit and run.name == self._lit.name), self._lit)
        pane = self.query_one("#log", TextPane)
        if self._window.changed() and self._follow:
            self._window.follow()
            self._fill_in()
        elif pane.size.height:
            self._page()

    def _page(self) -> None:
        """Take in more of the file where the text is scrolled to its edge."""
        pane, window = self.query_one("#log", TextPane), self._window
        self._follow = not pane.lines_below and window.at_end
        if pane.top == 0 and not window.at_start:
            self._keeping_place(window.back)
        elif not pane.lines_below and not window.at_end:
            self._keeping_place(window.on)
        else:
            self._show()

    def _keeping_place(self, move: Callable[[], object]) -> None:
        """Move the window; the text at the upper edge stays where it is."""
        offset = self._top_offset()
        follow = self._follow
        move()
        offsets = [line.offset for line in self._window.lines]
        _, begins = logtext.joined(self._window.lines)
        self._put(begin=begins[offsets.index(offset)] if offset in offsets else 0)
        if follow:
            self._to_bottom()

    def _to_bottom(self) -> None:
        pane = self.query_one("#log", TextPane)
        pane.scroll_to_line(pane.reach)
        pane.scroll_to_line(pane.reach)  # only now all lines are broken
        self._show()

    @on(TextPane.Resized)
    def _keep_up(self) -> None:
        """How a run broke off takes room from its log: the end stays in view."""
        if self._follow:
            self._to_bottom()

    def _choose(self, at: int) -> None:
        if self._lit is None or self._runs[at].name != self._lit.name:
            self._lit = self._runs[at]
            self._open()

    def _open(self) -> None:
        self._window, self._follow, self._hit = self._opened(), True, -1
        self._fill_in()

    def _opened(self) -> Window:
        if self._lit is None:
            return Window(self._project.runs / "none", logtext.log_line)
        folder = self._lit.folder
        if self._events:
            return Window(folder.events_path, logtext.event_line)
        return Window(folder.log_path, logtext.log_line)

    def _list(self) -> list[logtext.Listed]:
        return [logtext.listed(run) for run in reversed(list_runs(self._project))]
