"""A bordered text of a fixed place: what it shows can change without the screen being laid out anew."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.widget import Widget

#: A text, or what makes one for a width and a height in characters.
Body = Content | Callable[[int, int], Content]

_NOTHING = Content("")


class Board(Widget):
    """A panel for what changes with every answer. Its size comes from the style sheet, never from the text."""

    can_focus = False
    ALLOW_SELECT = False

    def __init__(self, title: str, *, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=f"panel {classes}")
        self.border_title = Content(title)
        self._body: Body = Content("")
        self._note: Body = Content("")

    def show(self, body: Body, *, title: str | None = None, note: Body = _NOTHING) -> None:
        """Replace the text, the note in the lower border and, when given, the title."""
        if title is not None:
            self.border_title = Content(title)
        self._note = note
        self._body = body
        self._write_note()
        self.refresh()

    def on_resize(self) -> None:
        """The note depends on the room, too."""
        self._write_note()

    def _write_note(self) -> None:
        self.border_subtitle = self._note(*self.content_size) if callable(self._note) else self._note

    def render(self) -> Content:
        """The text, made for the room there is."""
        return self._body(*self.content_size) if callable(self._body) else self._body
