"""How the app looks: its own quiet theme, and from which size on a screen is narrow, wide, short or tall."""

from __future__ import annotations

from textual.theme import Theme

#: CSS classes that a screen has from so many columns and rows on.
WIDTHS = [(0, "-narrow"), (76, "-medium"), (140, "-wide")]
HEIGHTS = [(0, "-short"), (22, "-middling"), (40, "-tall")]

CALM = Theme(
    name="calm",
    primary="#5fb3a8",
    secondary="#5fb3a8",
    accent="#5fb3a8",
    foreground="#d6d9dc",
    background="#14181b",
    surface="#14181b",
    panel="#1b2125",
    success="#86b97a",
    warning="#d9ad5b",
    error="#d9756c",
    dark=True,
)
