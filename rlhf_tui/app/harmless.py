"""The last line of defence: whatever a screen was given to draw, nothing in it is obeyed by the terminal.

Texts of models, files and people are cleaned where they come in (`preferences.display.clean`), which also says what
was hidden. This filter stands behind all of that, where the lines leave for the terminal.
"""

from __future__ import annotations

import re

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

# Control characters (C0, DEL, C1), the marks, embeddings, overrides and isolates of bidirectional text, line and
# paragraph separators, and lone surrogates, at which writing to the terminal would fail.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text without what a terminal obeys, as wide on screen as before."""
    return _OBEYED.sub(lambda found: "\ufffd" * get_character_cell_size(found[0]), text)


class HarmlessFilter(LineFilter):
    """Takes it out of every line that is drawn, whoever drew it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments with harmless texts; those that are for the terminal itself stay as they are."""
        return [
            segment
            if segment.control or not _OBEYED.search(segment.text)
            else Segment(harmless(segment.text), segment.style)
            for segment in segments
        ]
