"""The frame around every stage: the two lines on top and the line of keys at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from rlhf_tui.app.keytable import STAGES
from rlhf_tui.app.widgets.panel import tinted

MARKS = {"done": ("✓", "good"), "running": ("▶", "accent"), "broken": ("⚠", "warn"), "open": ("·", "quiet")}


class Ends(Widget):
    """One line with a left and a right end. When it gets narrow the left end is cut, then the right."""

    can_focus = False

    def __init__(self, *, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self._left = self._right = Content("")

    def show(self, left: Content, right: Content) -> None:
        """Replace both ends."""
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def render(self) -> Content:
        """Both ends with the space between them."""
        width = max(self.size.width - 2, 0)
        right = self._right.truncate(width, ellipsis=True)
        left = self._left.truncate(max(width - right.cell_length - 1, 0), ellipsis=True)
        room = max(width - left.cell_length - right.cell_length, 0)
        return Content.assemble(" ", left, " " * room, right, " ")


class StageBar(Widget):
    """The six stages with their marks; the one on screen stands in brackets. Folds when it gets narrow."""

    can_focus = False

    class Chosen(Message):
        """A stage was clicked."""

        def __init__(self, stage: str) -> None:
            super().__init__()
            self.stage = stage

    def __init__(self, current: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._current = current
        self._marks: tuple[str, ...] = tuple("open" for _ in STAGES)

    def show(self, marks: Sequence[str]) -> None:
        """Set the mark of each stage: 'done', 'running', 'broken' or 'open'."""
        if tuple(marks) != self._marks:
            self._marks = tuple(marks)
            self.refresh()

    def render(self) -> Content:
        """The line."""
        parts = self._parts()
        line = Content("").join(parts)
        if line.cell_length <= self.size.width:
            return line
        at = [name for name, _ in STAGES].index(self._current)
        title = f" {at + 1}/{len(STAGES)} {STAGES[at][1]}  "
        marks = [tinted(MARKS[mark][0] + " ", MARKS[mark][1]) for mark in self._marks]
        return Content.assemble(tinted(title, "strong"), *marks)

    def on_click(self, event: Click) -> None:
        """Go to the stage under the mouse."""
        edge = 0
        for (name, _), part in zip(STAGES, self._parts(), strict=True):
            edge += part.cell_length
            if event.x < edge:
                self.post_message(self.Chosen(name))
                return

    def _parts(self) -> list[Content]:
        parts = []
        for number, ((name, title), mark) in enumerate(zip(STAGES, self._marks, strict=True), start=1):
            glyph, tone = MARKS[mark]
            here = name == self._current
            parts.append(
                Content.assemble(
                    tinted("[" if here else " ", "accent"),
                    tinted(f"{number} ", "accent" if here else "quiet"),
                    tinted(glyph, tone),
                    Content.styled(f" {title}", "bold" if here else ""),
                    tinted("] " if here else "  ", "accent"),
                )
            )
        return [Content.assemble(" ", parts[0]), *parts[1:]]


class KeyLine(Widget):
    """The last line: the keys that matter now."""

    can_focus = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys: list[tuple[str, str]] = []

    def show(self, keys: list[tuple[str, str]]) -> None:
        """Set the (key, label) pairs."""
        if keys != self._keys:
            self._keys = keys
            self.refresh()

    def render(self) -> Content:
        """The line."""
        parts = [Content.assemble(tinted(key, "accent"), f" {label}") for key, label in self._keys]
        return Content.assemble(" ", Content("  ").join(parts))
