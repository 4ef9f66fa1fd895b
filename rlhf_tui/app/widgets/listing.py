"""A list of lines with headings, one of them lit. It makes only the lines in view."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.content import Content
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.widget import Widget


class Listing(Widget):
    """Lines in a border. The caller moves the cursor; the list keeps it in view, with the heading above it."""

    can_focus = False
    ALLOW_SELECT = False

    class Chosen(Message):
        """A line was clicked."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    class Turned(Message):
        """The wheel was turned, so many lines down."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="panel")
        self._headings: Sequence[bool] = ()
        self._lit: int | None = None
        self._line: Callable[[int, int], Content] = lambda at, width: Content("")
        self._top = 0

    def show(self, headings: Sequence[bool], lit: int | None, line: Callable[[int, int], Content]) -> None:
        """Replace the list: which lines are headings, which is lit, and what makes line `at` for a width."""
        self._headings, self._lit, self._line = headings, lit, line
        self.refresh()

    def bring_to_top(self, at: int) -> None:
        """Put a line at the upper edge, as far as the lit one stays in view."""
        self._top = at

    def render(self) -> Content:
        """The lines in view."""
        width, height = self.content_size
        self._bring_into_view(height)
        shown = range(self._top, min(self._top + height, len(self._headings)))
        return Content("\n").join(self._line(at, width) for at in shown)

    @property
    def page(self) -> int:
        """How many lines a page down moves."""
        return max(self.content_size.height - 2, 1)

    def on_click(self, event: Click) -> None:
        """Tell which line that was."""
        offset = event.get_content_offset(self)
        at = self._top + offset.y if offset else -1
        if 0 <= at < len(self._headings) and not self._headings[at]:
            self.post_message(self.Chosen(at))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Down."""
        event.stop()
        self.post_message(self.Turned(1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Up."""
        event.stop()
        self.post_message(self.Turned(-1))

    def _bring_into_view(self, height: int) -> None:
        """The lit line, the one before it and the one after it, where there is room for them."""
        if self._lit is None or height < 1:
            self._top = 0
            return
        margin = 1 if height >= 3 else 0
        above, below = max(self._lit - margin, 0), self._lit + margin
        self._top = min(max(self._top, below - height + 1), above)
        self._top = max(min(self._top, len(self._headings) - height), 0)
