"""Making texts of files and models safe to show in a terminal."""

from __future__ import annotations

import re

TAB = 4  # columns

# C0 (but newline and tab), DEL and C1: what a terminal obeys instead of showing. Lone surrogates cannot be written.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text without anything a terminal would obey; every line end is a newline, tabs are spaces.

    Only the control characters go: of a colour code "[31m" stays visible, because it is in the text.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", lines)).expandtabs(TAB)
