"""Drawing without anything beyond ASCII, for terminals and fonts that lack it, or whoever wants it so."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from rlhf_tui.doctor import lacks_glyphs

_LOOKS_LIKE = {
    **dict.fromkeys(map(chr, range(0x2500, 0x2580)), "+"),  # frames of Textual's own widgets, and next its blocks
    **dict.fromkeys(map(chr, range(0x2580, 0x25A0)), "#"),
    **dict(zip("√–★◆°\xa0", "v-*%' ", strict=True)),
    **dict(zip("✓▶·⚠●○‖■✗•", "+>.!*o=#x*", strict=True)),
    **dict(zip("→←↑↓⏎…▼▸±—", "><^v<.v>~-", strict=True)),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("─╶╴━", "-"),
    **dict.fromkeys("│▎▏▔▕├┤┊▊▌▐", "|"),
    **dict.fromkeys("█▁▂▃▄▅▆▇", "#"),
    "░": ".",
    "🔎": "> ",  # two cells wide
}
_PLAIN = str.maketrans(_LOOKS_LIKE)


def ascii_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to draw in plain ASCII: as `RLHF_TUI_ASCII` says (0: never), else where the terminal has no more."""
    wish = environ.get("RLHF_TUI_ASCII", "")
    return wish != "0" if wish else bool(lacks_glyphs(environ))


def plain(text: str) -> str:
    """The text with every glyph of the app's own drawing replaced, cell for cell."""
    return text.translate(_PLAIN)


class PlainFilter(LineFilter):
    """Replaces the glyphs as the very last step, whoever drew them."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments with plain texts."""
        return [Segment(plain(text), style, control) for text, style, control in segments]
