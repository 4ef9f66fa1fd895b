"""Markdown of a model as lines to draw: formatted for the eye, with nothing hidden and nothing to follow.

HTML stays as it was written (a renderer would swallow a `<think>` block, and the rater must see it), links
show their address and lead nowhere, and what a character reference stands for is cleaned like all text.
"""

from __future__ import annotations

from functools import cache
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme

from rlhf_tui.preferences.display import clean

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

#: Characters up to which a text is formatted; a longer one would make every pair wait and stays as it is.
LONGEST = 10_000


def _tone(name: str) -> Style:
    return Style(meta={"tone": name})


_STYLES = {
    "markdown.code": _tone("code"),
    "markdown.code_block": _tone("code"),
    "markdown.h1": Style(bold=True, underline=True),
    "markdown.h2": Style(bold=True),
    "markdown.h3": Style(bold=True),
    "markdown.h4": _tone("quiet") + Style(bold=True),
    "markdown.item.bullet": _tone("item"),
    "markdown.item.number": _tone("item"),
    "markdown.block_quote": Style(italic=True),
    "markdown.hr": _tone("quiet"),
    "markdown.h1.border": _tone("quiet"),
    "markdown.link": Style(underline=True),
    "markdown.link_url": _tone("quiet"),
    "markdown.table.border": _tone("quiet"),
    "markdown.table.header": Style(bold=True),
}


def markdown_lines(text: str, width: int) -> list[list[Segment]]:
    """The lines of a cleaned text formatted at `width` cells; each holds segments of styled text.

    No segment has a colour: its style may hold a "tone" ('code', 'item', 'quiet'), which `tone_of` tells.
    """
    from rich.markdown import Markdown  # with its parser and highlighter 0.2 s, and few people press the key

    from rlhf_tui.app.codetheme import CodeTheme

    markdown = Markdown("", hyperlinks=False, code_theme=CodeTheme())  # type: ignore[arg-type]  # Rich takes it, too
    markdown.markup = text
    markdown.parsed = _parser().parse(text)
    console = _console()
    options = console.options.update(width=max(width, 2))
    lines = console.render_lines(markdown, options, pad=False)
    return [[Segment(clean(part.text), part.style) for part in line] for line in lines] or [[]]


def tone_of(style: Style | None) -> str:
    """The tone that a style of `markdown_lines` names; empty for none."""
    return str(style.meta.get("tone", "")) if style else ""


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table").disable("image")


@cache
def _console() -> Console:
    return Console(
        file=StringIO(), theme=Theme(_STYLES), force_terminal=True, color_system="truecolor", legacy_windows=False
    )
