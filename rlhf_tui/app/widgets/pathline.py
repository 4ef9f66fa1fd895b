"""A line for a path: tab completes it, the arrows choose among what lies there, enter takes the choice or the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from rlhf_tui.app.paths import Choices, as_path, choices
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.app.words import one_line


class PathLine(Input):
    """An `Input` that knows the disk. Its owner draws `listed`, whenever `Browsed` or `Input.Changed` comes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", show=False),
        Binding("down", "choose(1)", "Next", show=False),
        Binding("up", "choose(-1)", "Previous", show=False),
    ]

    class Browsed(Message):
        """Another entry is lit."""

        def __init__(self, line: PathLine) -> None:
            super().__init__()
            self.line = line

        @property
        def control(self) -> PathLine:
            """The line it happened on."""
            return self.line

    def __init__(
        self, text: str, *, base: Path, fits: Callable[[str], bool], hint: str = "", id: str | None = None
    ) -> None:
        """`base` is where relative paths begin; `fits` says of a file's name whether it is offered."""
        super().__init__(text, placeholder=hint, select_on_focus=False, id=id)
        self._base, self._fits = base, fits
        self._seen: tuple[str, Choices] | None = None
        self._lit: int | None = None

    @property
    def choices(self) -> Choices:
        """What the line may become; the disk is looked at once for every text."""
        if self._seen is None or self._seen[0] != self.value:
            self._seen = (self.value, choices(self.value, self._base, self._fits))
            self._lit = None
        return self._seen[1]

    @property
    def path(self) -> Path:
        """The path that is typed."""
        return as_path(self.value, self._base)

    def action_complete(self) -> None:
        """Fill in the lit entry, or what all entries share; with nothing to fill in, go to the next line."""
        found = self.choices
        text = found.completed if self._lit is None else found.taken(self._lit)
        if text != self.value:
            self._fill(text)
        else:
            self.screen.focus_next()

    def action_choose(self, by: int) -> None:
        """Light up the entry below or above; above the first one there is none."""
        count = len(self.choices.names)
        at = (-1 if self._lit is None else self._lit) + by
        self._lit = min(at, count - 1) if count and at >= 0 else None
        self.post_message(self.Browsed(self))

    async def action_submit(self) -> None:
        """Take the lit entry; without one, the line."""
        if self._lit is not None and self._lit < len(self.choices.names):
            self._fill(self.choices.taken(self._lit))
        else:
            await super().action_submit()

    def listed(self, width: int, height: int) -> Content:
        """The entries around the lit one, in so many lines."""
        names = self.choices.names
        if not names:
            return tinted("Nothing here by that name." if self.value else "Nothing to choose here.", "quiet")
        height = max(height, 1)
        rest = len(names) > height
        room = height - 1 if rest and height > 1 else height
        first = min(max((self._lit or 0) - room // 2, 0), max(len(names) - room, 0))
        shown = [
            Content.assemble(
                tinted("▸ " if at == self._lit else "  ", "accent"),
                tinted(one_line(names[at], width - 2), "strong" if at == self._lit else ""),
            )
            for at in range(first, min(first + room, len(names)))
        ]
        if rest and height > 1:
            shown.append(tinted(f"  {len(names) - room:,} more: ↑↓, or type on", "quiet"))
        return lines(*shown)

    def _fill(self, text: str) -> None:
        self.value = text
        self.cursor_position = len(text)
