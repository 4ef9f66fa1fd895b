"""A scrolling text that draws only the lines in view: 50 kB are on screen as fast as five lines.

It takes no part in Textual's scrolling, which would lay out the whole screen anew for each text. The text
is cleaned by the caller and never read as markup.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from rlhf_tui.app import words
from rlhf_tui.app.formatted import tone_of
from rlhf_tui.app.wrapping import Span, wrap

#: Makes the lines of a text at a width, in place of plain wrapping.
Formatter = Callable[[str, int], list[list[Segment]]]

#: What text may be beside plain; the style sheet says how that looks.
TONES = ("quiet", "marked", "code", "item")


class TextPane(Widget):
    """Plain text, some of it quiet, some of it marked; or lines that something else has formatted."""

    can_focus = False
    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"textpane--{tone}" for tone in TONES}

    class Resized(Message):
        """There is more room now, or less."""

    def __init__(self, title: str = "", *, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=f"panel textpane {classes}")
        self.border_title = Content(title)
        self.text = ""
        self.top = 0
        #: Said in the lower border while not everything is in view.
        self.hint = ""
        self._facts = ""
        self._quiet: Sequence[Span] = ()
        self._marked: Sequence[Span] = ()
        self._lines: list[Span] = [(0, 0)]
        self._width = 0
        self._whole = True
        self._styles: dict[str, Style] = {}
        self._formatter: Formatter | None = None
        self._formatted: list[list[Segment]] | None = None
        self._begin: int | None = 0

    def show(self, text: str, facts: str = "", *, quiet: Sequence[Span] = (), begin: int = 0) -> None:
        """Put a new text in; `facts` stand in the lower border. Spans are in order.

        The line with the character `begin` is at the upper edge until the text is scrolled.
        """
        self.text, self._facts, self._quiet = text, facts, quiet
        self._marked, self._formatter, self._begin = (), None, begin
        self._width = 0
        self._fit()

    def tell(self, facts: str) -> None:
        """Put something else in the lower border."""
        self._facts = facts
        self._tell()

    def mark(self, spans: Sequence[Span]) -> None:
        """Light up parts of the plain text; the spans are in order and do not overlap."""
        self._marked = spans
        self.refresh()

    def format_with(self, formatter: Formatter | None) -> None:
        """Draw the text as the formatter says, at every width; None brings the plain text back."""
        if formatter is not self._formatter:
            self._formatter = formatter
            self._width = 0
            self._fit()

    @property
    def height_of_text(self) -> int:
        """How many lines there are at this width."""
        return len(self._lines if self._formatted is None else self._formatted)

    @property
    def lines_below(self) -> int:
        """How many lines lie below the lower edge."""
        return self.reach - self.top

    @property
    def reach(self) -> int:
        """The line that is at the upper edge when the end of the text is in view."""
        return max(self.height_of_text - self.size.height, 0)

    def line_of(self, offset: int) -> int:
        """The line in which a character of the plain text stands."""
        return max(bisect_right(self._lines, (offset, len(self.text) + 1)) - 1, 0)

    def offset_of(self, line: int) -> int:
        """The character of the plain text with which a line begins; the last line's for one after it."""
        return self._lines[min(max(line, 0), len(self._lines) - 1)][0]

    def scroll_by(self, lines: int) -> None:
        """Scroll down by so many lines (up when negative), as far as there is text."""
        self.scroll_to_line(self.top + lines)

    def scroll_to_line(self, line: int) -> None:
        """Put a line at the upper edge, or the end of the text at the lower one."""
        self._begin = None
        self._wrap_rest()
        self._put(line)

    def on_resize(self) -> None:
        """Break the lines anew when the width has changed."""
        self._fit()
        self.post_message(self.Resized())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Three lines down."""
        event.stop()
        self.scroll_by(3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Three lines up."""
        event.stop()
        self.scroll_by(-3)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of a part of the widget. What they look like is worked out once for all of them."""
        self._styles = {
            "": self.rich_style,
            **{tone: self.get_component_rich_style(f"textpane--{tone}") for tone in TONES},
        }
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One line of the content."""
        width, at, plain = self.size.width, self.top + y, self._styles[""]
        if self._formatted is not None:
            found = self._formatted[at] if at < len(self._formatted) else []
            toned = [Segment(text, self._styles[tone_of(style)] + style, control) for text, style, control in found]
            return Strip(toned).adjust_cell_length(width, plain)
        if at >= len(self._lines):
            return Strip.blank(width, plain)
        parts = [Segment(self.text[a:b], self._styles[tone]) for a, b, tone in self._toned(*self._lines[at])]
        return Strip(parts).adjust_cell_length(width, plain)

    def _fit(self) -> None:
        """Break the text into lines of the width; what was at the upper edge stays there."""
        width = self.size.width
        if not width:  # not laid out yet, or hidden: a resize will follow
            self._width = 0
            return
        at = self._begin
        if at is None:
            at = self._lines[min(self.top, len(self._lines) - 1)][0]
        if width != self._width:
            self._width = width
            self._formatted = self._formatter(self.text, width) if self._formatter else None
            # A line depends on nothing below it: what is in view can be drawn before the rest is broken.
            in_view = 2 * width * (self.size.height + 1)
            self._whole = at > 0 or len(self.text) <= in_view
            self._lines = wrap(self.text if self._whole else self.text[:in_view], max(width, 2))
            if not self._whole:
                self.call_after_refresh(self._wrap_rest)
        self._put(self.line_of(at))

    def _wrap_rest(self) -> None:
        """Break what is not in view yet."""
        if not self._whole:
            self._whole = True
            self._lines = wrap(self.text, max(self._width, 2))
            self._put(self.top)

    def _put(self, line: int) -> None:
        self.top = min(max(line, 0), self.reach)
        self._tell()
        self.refresh()

    def _toned(self, start: int, end: int) -> Iterator[tuple[int, int, str]]:
        """A line cut where its tone changes."""
        cuts = [start, end]
        for spans in (self._quiet, self._marked):
            cuts += [edge for span in _touching(spans, start, end) for edge in span if start < edge < end]
        edges = sorted(set(cuts))
        for one, two in pairwise(edges):
            marked, quiet = _touching(self._marked, one, two), _touching(self._quiet, one, two)
            yield one, two, "marked" if marked else "quiet" if quiet else ""

    def _tell(self) -> None:
        above = f"↑ {self.top} above" if self.top else ""
        below = f"▼ {words.plural(self.lines_below, 'more line')}" if self.lines_below and self._whole else ""
        hint = self.hint if above or below else ""
        self.border_subtitle = Content(" · ".join(part for part in (above, below, self._facts, hint) if part))


def _touching(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """The spans that have a character in start..end."""
    first = bisect_right(spans, start, key=lambda span: span[1])
    last = first
    while last < len(spans) and spans[last][0] < end:
        last += 1
    return spans[first:last]
