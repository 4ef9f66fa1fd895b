"""The window that asks for a base model: a folder is browsed to, the id of one on the hub is typed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from rlhf_tui.app import keys, model_rows
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.pathline import PathLine
from rlhf_tui.preferences.display import clean

#: What a line for a model says while it is empty.
HINT = "starter, a folder, or owner/model of the hub"


def no_file(name: str) -> bool:
    """A model is a folder: no file is offered."""
    return False


class ModelWindow(ModalScreen[str | None]):
    """A line, the folders it may become, and what is said of the model that is named. Enter hands the name back."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("dialog")

    def __init__(self, base: Path) -> None:
        """`base` is where relative paths begin."""
        super().__init__(classes="window")
        self._base = base

    def compose(self) -> ComposeResult:
        """The line, the folders, the verdict."""
        with Vertical(classes="dialog small picking") as box:
            box.border_title = Content("Base model")
            box.border_subtitle = Content("⏎ take · tab complete · ↑↓ choose · esc leave")
            yield PathLine("", base=self._base, fits=no_file, hint=HINT, id="line")
            yield Static("", markup=False, classes="choices", id="choices")
            yield Static("", markup=False, id="explanation", classes="outcome")

    def on_mount(self) -> None:
        """Show what lies here."""
        self.call_after_refresh(self._renew)

    def on_resize(self) -> None:
        """Texts are cut to the room there is."""
        self.call_after_refresh(self._renew)

    def action_close(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)

    @on(PathLine.Browsed)
    @on(Input.Changed)
    def _renew(self) -> None:
        if not self.is_mounted:
            return
        line, listed = self.query_one("#line", PathLine), self.query_one("#choices", Static)
        known = bool(line.value.strip()) and not model_rows.told(line.value.strip())[0]
        listed.update("" if known and not line.choices.names else line.listed(*listed.content_size))
        self.query_one("#explanation", Static).update(self._told(line.value.strip()))

    @on(Input.Submitted)
    def _taken(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        if name and not model_rows.told(name)[0]:
            self.dismiss(name)

    def _told(self, name: str) -> Content:
        if not name:
            return tinted("A folder that save_pretrained wrote, or an id of the hub. Nothing is fetched here.", "quiet")
        wrong, text = model_rows.told(name)
        return tinted(clean(text), "bad" if wrong else "quiet")
