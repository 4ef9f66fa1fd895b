"""A bordered panel with a title that shows rows of text.

Text of users and models is never markup, and nothing in it is obeyed: what stands here goes through `clean` once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from textual.content import Content
from textual.widgets import Static

from rlhf_tui.preferences.display import clean

#: The colours that mean something, as theme variables. The words beside them say the same.
TONES = {
    "": "",
    "good": "$text-success",
    "warn": "$text-warning",
    "bad": "$text-error",
    "quiet": "$quiet",
    "accent": "$text-accent",
    "strong": "bold",
}


@dataclass(frozen=True)
class Row:
    """A line of a panel: a quiet label, a value, and a note behind it."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


def tinted(text: str, tone: str = "") -> Content:
    """Plain text, safe to show, in one of the tones."""
    return Content.styled(clean(text), TONES[tone])


def rows(items: Iterable[Row], *, gap: int = 2) -> Content:
    """Rows with their values and notes aligned in columns."""
    kept = [replace(row, value=clean(row.value), note=clean(row.note)) for row in items]
    first = max((len(row.label) for row in kept), default=0) + gap
    second = max((len(row.value) for row in kept if row.note), default=0) + gap
    lines = [
        Content.assemble(
            tinted(row.label.ljust(first), "quiet"),
            tinted(row.value.ljust(second) if row.note else row.value, row.tone),
            tinted(row.note, row.tone or "quiet"),
        )
        for row in kept
    ]
    return Content("\n").join(lines)


def lines(*items: Content | str) -> Content:
    """Lines one below the other; plain texts are made safe to show."""
    return Content("\n").join(clean(item) if isinstance(item, str) else item for item in items)


def list_line(parts: Iterable[Content | str], width: int, *, lit: bool) -> Content:
    """A line of a list, as wide as it is: ▶ stands before the lit one, which has a ground of its own."""
    line = Content.assemble(tinted("▶ " if lit else "  ", "accent"), *parts).truncate(width, ellipsis=True, pad=True)
    return line.stylize("$lit-style on $lit") if lit else line


#: A text, or what makes one for a width and a height in characters.
Body = Content | str | Callable[[int, int], Content]


class Panel(Static):
    """A `Static` in a rounded border. The title and the text are set together.

    A text that depends on the room there is comes as a function, and is made again when the room changes.
    """

    def __init__(self, title: str, *, id: str | None = None, classes: str = "") -> None:
        super().__init__("", id=id, classes=f"panel {classes}", markup=False)
        self.border_title = Content(title)
        self._body: Body = ""

    def on_resize(self) -> None:
        """Fit a sized text to the new room."""
        if callable(self._body):
            self.update(self._body(*self.content_size))

    def show(self, body: Body, *, title: str | None = None, note: str | None = None) -> None:
        """Replace the text and, when given, the title and the note in the lower border."""
        if title is not None:
            self.border_title = Content(clean(title))
        if note is not None:
            self.border_subtitle = Content(clean(note))
        self._body = clean(body) if isinstance(body, str) else body
        self.update(self._body(*self.content_size) if callable(self._body) else self._body)
