"""A list whose lit line is told by a sign, not by its colour alone."""

from __future__ import annotations

from rich.segment import Segment
from textual.strip import Strip
from textual.widgets import OptionList


class Options(OptionList):
    """Textual's list, with ▶ before the lit line, where a blank was."""

    def render_line(self, y: int) -> Strip:
        """One line of what is in view."""
        strip, row = super().render_line(y), self.scroll_offset.y + y
        lit = self.highlighted is not None and self._lines[row : row + 1] == [(self.highlighted, 0)]
        if not lit or not strip.text.startswith(" "):
            return strip
        rest = list(strip.crop(1))
        return Strip([Segment("▶", rest[0].style if rest else None), *rest], strip.cell_length)
