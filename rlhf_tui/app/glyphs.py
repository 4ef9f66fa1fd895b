"""Drawing without anything beyond ASCII, for terminals and fonts that lack it (`RLHF_TUI_ASCII=1`)."""

from __future__ import annotations

import os

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_PLAIN = str.maketrans(
    {
        **dict(zip("✓▶·⚠●○‖■✗•", "+>.!*o=#x*", strict=True)),
        **dict(zip("→←↑↓⏎…▼±—", "><^v<.v~-", strict=True)),
        **dict.fromkeys("─╶╴", "-"),
        **dict.fromkeys("│▎▏▔▕├┤┊", "|"),
        **dict.fromkeys("╭╮╰╯┌┐└┘", "+"),
        **dict.fromkeys("█▁▂▃▄▅▆▇", "#"),
        "░": ".",
    }
)


def ascii_wanted() -> bool:
    """Whether the user asked for plain ASCII drawing."""
    return os.environ.get("RLHF_TUI_ASCII", "") not in ("", "0")


def plain(text: str) -> str:
    """The text with every glyph of the app's own drawing replaced, character for character."""
    return text.translate(_PLAIN)


class PlainFilter(LineFilter):
    """Replaces the glyphs as the very last step, whoever drew them."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments with plain texts."""
        return [Segment(plain(text), style, control) for text, style, control in segments]
