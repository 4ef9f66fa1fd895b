"""Breaking a text into lines of a width, quickly: 50 kB in one line must not delay the next pair.

Lines are spans of the text, nothing is copied. Widths are terminal cells: two for CJK and emoji, none for
marks that join the character before them, which is never cut apart from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len, split_graphemes

#: Scripts and signs that are one cell wide in every terminal; most texts hold nothing else.
_NARROW = re.compile("[ -~\u00a0-\u00ac\u00ae-\u02ff\u0370-\u0373\u0400-\u0482\u2010-\u2027\u2500-\u257f]*")
#: A word with the blanks before it, or the blanks at the end.
_WORD = re.compile(" *[^ ]+| +")

Span = tuple[int, int]


def wrap(text: str, width: int) -> list[Span]:
    """The lines of `text` at `width` cells, as (start, end) of each; an empty text has one empty line.

    Words stay whole where they fit on a line; the blanks at a break belong to no line, those that begin a
    paragraph do. `text` has been cleaned (`preferences.display`). Raises ValueError unless width >= 2.
    """
    if width < 2:
        raise ValueError(f"a width of {width}")
    lines: list[Span] = []
    start = 0
    for paragraph in text.split("\n"):
        end = start + len(paragraph)
        if len(paragraph) <= width and _NARROW.fullmatch(paragraph):
            lines.append((start, end))
        elif _NARROW.fullmatch(paragraph):
            lines += _narrow(text, start, end, width)
        else:
            lines += ((start + one, start + two) for one, two in _wide(paragraph, width))
        start = end + 1
    return lines


def _narrow(text: str, start: int, end: int, width: int) -> Iterator[Span]:
    """Lines of a paragraph in which every character is one cell wide."""
    while end - start > width:
        cut = text.rfind(" ", start, start + width + 1)
        if cut <= start or not text[start:cut].strip(" "):
            cut = start + width
        yield start, cut
        start = cut
        while start < end and text[start] == " ":
            start += 1
        if start == end:
            return
    yield start, end


def _wide(paragraph: str, width: int) -> Iterator[Span]:
    """Lines of any paragraph: word by word, and sign by sign where a word is longer than a line."""
    begin = used = 0  # where the line begins, and its cells so far
    for found in _WORD.finditer(paragraph):
        start, end = found.span()
        cells = cell_len(found.group())
        if used + cells <= width:
            used += cells
            continue
        if used:
            yield begin, start
            begin = end - len(found.group().lstrip(" "))
            used = 0
            if begin == len(paragraph):
                return
        base = begin
        for one, _, size in split_graphemes(paragraph[base:end])[0]:
            if used + size > width:
                yield begin, base + one
                begin, used = base + one, 0
            used += size
    yield begin, len(paragraph)
