"""Highlighted code in the tones of the app's theme, for Rich. Apart, because the highlighter takes time to import."""

from __future__ import annotations

from pygments.token import Comment, Keyword, Number, String, Token
from rich.style import Style
from rich.syntax import SyntaxTheme

_TONES = {Comment: "quiet", Keyword: "item", String: "code", Number: "code", Token.Name.Function: "item"}


class CodeTheme(SyntaxTheme):
    """Which tone a piece of code has. A `Style` only names it: what it looks like is for the widget to say."""

    def get_style_for_token(self, token_type: object) -> Style:
        """The tone of a kind of token, or none."""
        return next((Style(meta={"tone": tone}) for kind, tone in _TONES.items() if token_type in kind), Style.null())

    def get_background_style(self) -> Style:
        """Code stands on the ground of the text around it."""
        return Style.null()
