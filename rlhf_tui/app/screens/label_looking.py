"""Looking at candidates: scrolling, lighting up one, zooming, and the ways to draw them. Nothing here answers."""

from __future__ import annotations

from textual.screen import Screen

from rlhf_tui.app import formatted
from rlhf_tui.app.screens.label_view import LabelView


class Looking(Screen[None]):
    """A screen with a `LabelView`, and what keys do to it."""

    @property
    def view(self) -> LabelView:
        """What is drawn."""
        return self.query_one(LabelView)

    def action_scroll_all(self, by: int) -> None:
        """Scroll every candidate by lines."""
        self.view.candidates.scroll_all(by)

    def action_scroll_page(self, by: int) -> None:
        """Scroll every candidate by a page."""
        self.view.candidates.scroll_pages(by)

    def action_scroll_far(self, by: int) -> None:
        """Scroll every candidate to its beginning or its end."""
        self.view.candidates.scroll_to_end(by)

    def action_scroll_lit(self, by: int) -> None:
        """Scroll only the lit candidate."""
        self.view.candidates.scroll_lit(by)

    def action_light(self, by: int) -> None:
        """Light up the next candidate, or the one before."""
        self.view.candidates.step(by)
        if self.view.look == "diff":
            self.view.dress()

    def action_zoom(self) -> None:
        """Only one candidate, then the next, then all again."""
        self.view.candidates.zoom()

    def action_markdown(self) -> None:
        """Formatted, or as it was written."""
        self._look("markdown")
        if self.view.look and any(len(pane.text) > formatted.LONGEST for pane in self.view.candidates.shown):
            self.notify(f"Texts of more than {formatted.LONGEST:,} characters stay as they are.", timeout=3)

    def action_word_diff(self) -> None:
        """Mark the words that the other answer does not have."""
        self._look("diff")

    def _look(self, look: str) -> None:
        self.view.look = "" if self.view.look == look else look
        self.view.dress()
