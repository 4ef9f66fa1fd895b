"""One candidate of a pair: a scrolling pane that says how much of the text lies below its edge."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static


class Candidate(VerticalScroll, can_focus=False):
    """The text of one candidate. Never interprets markup; the caller has cleaned the text."""

    def __init__(self, title: str, *, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=f"panel {classes}")
        self.border_title = Content(title)
        self._facts = ""
        self.text = ""

    def compose(self) -> ComposeResult:
        """The pane holds one block of text."""
        yield Static("", classes="candidate-text", markup=False)

    def on_mount(self) -> None:
        """Keep the mark in the lower border true while the text scrolls or the pane changes its size."""
        self.watch(self, "scroll_y", self._mark, init=False)
        self.watch(self, "virtual_size", self._mark, init=False)

    def on_resize(self) -> None:
        """The number of hidden lines has changed."""
        self._mark()

    def show(self, text: str, facts: str = "") -> None:
        """Put a new text in, from its beginning; `facts` stands in the lower border."""
        self._facts = facts
        self.text = text
        self.query_one(Static).update(text)
        self.scroll_home(animate=False)
        self.call_after_refresh(self._mark)

    @property
    def lines_below(self) -> int:
        """How many lines lie below the lower edge."""
        return max(round(self.max_scroll_y - self.scroll_y), 0)

    def _mark(self) -> None:
        more = f"▼ {self.lines_below} more line{'s' if self.lines_below > 1 else ''}" if self.lines_below else ""
        self.border_subtitle = Content(" · ".join(part for part in (more, self._facts) if part))
