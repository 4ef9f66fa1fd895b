"""How the app looks: its own themes, and from which size on a screen is narrow, wide, short or tall.

Every colour on screen is a variable of the theme; the words beside it say the same. Beyond Textual's variables
there are our own: `quiet` (text that matters less), `edge` (borders), `rule` and `band` (the faint parts of a
chart), `lit` and `lit-style` (the row under the cursor), `mark` and `mark-style` (marked words), `field` (the
line that is written in), `code` (code in Markdown), `veil` (over what lies behind a window).
"""

from __future__ import annotations

import os
from typing import Any

from textual.app import App
from textual.theme import Theme

#: CSS classes that a screen has from so many columns and rows on.
WIDTHS = [(0, "-narrow"), (76, "-medium"), (140, "-wide")]
HEIGHTS = [(0, "-short"), (22, "-middling"), (40, "-tall")]

_SCROLLBAR_GROUND = (
    "scrollbar-background",
    "scrollbar-background-hover",
    "scrollbar-background-active",
    "scrollbar-corner-color",
)


def _theme(name: str, *, dark: bool, text: str, ground: tuple[str, str], tones: dict[str, str], **ours: str) -> Theme:
    """A theme in true colours. `ground`: behind everything, and behind panels; `tones`: what colours mean."""
    accent, good, warn, bad = (tones[tone] for tone in ("accent", "good", "warn", "bad"))
    quiet, lit = ours["quiet"], ours["lit"]
    return Theme(
        name=name,
        dark=dark,
        foreground=text,
        background=ground[0],
        surface=ground[0],
        panel=ground[1],
        primary=accent,
        secondary=accent,
        accent=accent,
        success=good,
        warning=warn,
        error=bad,
        variables={
            "text": text,
            "text-muted": quiet,
            "text-disabled": quiet,
            "text-primary": accent,
            "text-secondary": accent,
            "text-accent": accent,
            "text-success": good,
            "text-warning": warn,
            "text-error": bad,
            "foreground-muted": quiet,
            "foreground-disabled": quiet,
            "block-cursor-background": lit,
            "block-cursor-foreground": text,
            "block-cursor-blurred-background": lit,
            "block-cursor-blurred-foreground": text,
            "block-hover-background": lit,
            "input-selection-background": ours["mark"],
            "input-selection-foreground": text,
            "input-cursor-background": text,
            "input-cursor-foreground": ground[0],
            "screen-selection-background": ours["mark"],
            "screen-selection-foreground": text,
            "scrollbar": ours["rule"],
            "scrollbar-hover": accent,
            "scrollbar-active": accent,
            **dict.fromkeys(_SCROLLBAR_GROUND, ground[0]),
            "veil": f"{ground[0]} 60%",
            "lit-style": "bold",
            "mark-style": "bold",
            **ours,
        },
    )


CALM = _theme(
    "calm",
    dark=True,
    text="#d6d9dc",
    ground=("#14181b", "#1b2125"),
    tones={"accent": "#5fb3a8", "good": "#86b97a", "warn": "#d9ad5b", "bad": "#e0837a"},
    quiet="#9299a0",
    edge="#454a4e",
    rule="#767d84",
    band="#447f78",
    lit="#1f3031",
    field="#233838",
    mark="#2a4745",
    code="#d9ad5b",
)
LIGHT = _theme(
    "light",
    dark=False,
    text="#1f2427",
    ground=("#fafaf8", "#eff1ef"),
    tones={"accent": "#0b655c", "good": "#2b6420", "warn": "#7a4b00", "bad": "#a32a22"},
    quiet="#565e63",
    edge="#b9bfbd",
    rule="#7b8387",
    band="#5a948d",
    lit="#d9e8e4",
    field="#dfebe8",
    mark="#c4dfd9",
    code="#7a4b00",
)
#: Blue, yellow and vermillion of Okabe and Ito ("Color Universal Design", 2008), made lighter for a dark ground: red
#: and green are never told apart by their hue.
COLOUR_BLIND = _theme(
    "colour-blind",
    dark=True,
    text="#dfe3e8",
    ground=("#11151a", "#191f26"),
    tones={"accent": "#56b4e9", "good": "#8ecbf0", "warn": "#f0e442", "bad": "#f0803c"},
    quiet="#98a1ab",
    edge="#444b54",
    rule="#78818c",
    band="#3d80a5",
    lit="#1c2f3d",
    field="#203648",
    mark="#26455c",
    code="#f0e442",
)
#: The terminal's own sixteen colours, and of those only some that can be read on black and on white alike. What is
#: lit or marked stands reversed: no ground of ours would suit every palette.
ANSI = Theme(
    name="ansi",
    ansi=True,
    primary="ansi_magenta",
    secondary="ansi_magenta",
    accent="ansi_magenta",
    success="ansi_default",
    warning="ansi_red",
    error="ansi_red",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "text-muted": "ansi_default",
        "text-disabled": "ansi_default",
        "block-cursor-foreground": "ansi_default",
        "block-cursor-background": "ansi_default",
        "block-cursor-text-style": "reverse",
        "block-cursor-blurred-text-style": "reverse",
        "input-cursor-background": "ansi_default",
        "input-cursor-foreground": "ansi_default",
        "input-cursor-text-style": "reverse",
        "border": "ansi_magenta",
        "border-blurred": "ansi_default",
        "scrollbar": "ansi_default",
        "scrollbar-hover": "ansi_magenta",
        "scrollbar-active": "ansi_magenta",
        **dict.fromkeys((*_SCROLLBAR_GROUND, "quiet", "edge", "rule", "band", "lit", "field", "mark"), "ansi_default"),
        "code": "ansi_magenta",
        "lit-style": "reverse",
        "mark-style": "reverse",
    },
)
THEMES = {theme.name: theme for theme in (CALM, LIGHT, COLOUR_BLIND, ANSI)}


def dress(app: App[Any], name: str) -> None:
    """Give an app our themes and no others, and put on the one of this name. For its `__init__`, so that nothing
    is ever drawn in other colours.
    """
    for theme in THEMES.values():
        app.register_theme(theme)
    app.theme = name
    for other in set(app.available_themes) - set(THEMES):
        app.unregister_theme(other)


def colourless() -> bool:
    """Whether the user wants no colours at all (no-color.org): a variable that is set and not empty."""
    return bool(os.environ.get("NO_COLOR"))
