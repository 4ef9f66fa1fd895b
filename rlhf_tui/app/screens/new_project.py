"""The window that makes a project: its folder, its model and its prompts, each explained while it is typed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, Static

from rlhf_tui import locate, projects
from rlhf_tui.app import keys, model_rows
from rlhf_tui.app.importing import Foreseen, count
from rlhf_tui.app.paths import as_path
from rlhf_tui.app.screens.model_window import HINT, no_file
from rlhf_tui.app.screens.prompts_window import add_prompts, holds_prompts
from rlhf_tui.app.shelf import short
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.app.widgets.pathline import PathLine
from rlhf_tui.app.words import one_line
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.formats import read_prompts
from rlhf_tui.preferences.records import NewPrompt
from rlhf_tui.project import Project
from rlhf_tui.settings import Settings

#: The word for the prompts that come with the program.
SAMPLE = "sample"
FIELDS = ("folder", "model", "prompts")
_TITLES = {"folder": "Folder", "model": "Model", "prompts": "Prompts"}
_REST = 0.15


@dataclass(frozen=True)
class Made:
    """A new project, how many prompts are in it, and what to say when it is opened."""

    project: Project
    prompts: int
    told: str


class NewProjectWindow(ModalScreen[Made | None]):
    """Three lines; enter goes from one to the next and, on the last one, makes the project."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("dialog"), ("ctrl+s", "make", "Make it")]

    class Looked(Message):
        """The prompts of a file have been read, or cannot be."""

        def __init__(self, source: str, rows: Sequence[NewPrompt], error: UserError | None) -> None:
            super().__init__()
            self.source, self.rows, self.error = source, rows, error

    class Ended(Message):
        """The project is made, or could not be."""

        def __init__(self, outcome: Made | UserError) -> None:
            super().__init__()
            self.outcome = outcome

    def __init__(self, base: Path) -> None:
        """`base` is where relative paths begin."""
        super().__init__(classes="window")
        self._base = base
        self._read: NewProjectWindow.Looked | None = None
        self._waits: Timer | None = None
        self._wanted = self._busy = False
        self._error: UserError | None = None

    def compose(self) -> ComposeResult:
        """Each line with its explanation, and what the line with the cursor may become."""
        starts = {"folder": _free_name(self._base), "model": locate.STARTER, "prompts": SAMPLE}
        hints = {
            "folder": "a new folder",
            "model": HINT,
            "prompts": "sample, a file, or nothing for now",
        }
        with Vertical(classes="dialog small picking form") as box:
            box.border_title = Content("New project")
            box.border_subtitle = Content("⏎ next, or make · tab complete · ^s make · esc leave")
            for name in FIELDS:
                fits = holds_prompts if name == "prompts" else no_file
                with Horizontal(classes="form-row"):
                    yield Static("", markup=False, classes="form-title", id=f"title-{name}")
                    line = PathLine(starts[name], base=self._base, fits=fits, hint=hints[name], id=f"new-{name}")
                    yield line.add_class("form-line")
                yield Static("", markup=False, classes="form-told", id=f"told-{name}")
            yield Static("", markup=False, classes="choices", id="choices")
            yield Static("", markup=False, id="explanation", classes="outcome")

    def on_mount(self) -> None:
        """Begin with the folder; read the sample prompts."""
        self.line("folder").focus()
        self.line("folder").cursor_position = len(self.line("folder").value)
        self._look_soon()
        self.call_after_refresh(self._renew)

    def on_resize(self) -> None:
        """Texts are cut to the room there is."""
        self.call_after_refresh(self._renew)

    def on_descendant_focus(self) -> None:
        """Another line: other choices."""
        self.call_after_refresh(self._renew)

    def line(self, name: str) -> PathLine:
        """One of the three lines."""
        return self.query_one(f"#new-{name}", PathLine)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._wanted, self._error = False, None
        if event.input.id == "new-prompts":
            self._look_soon()
        self._renew()

    @on(PathLine.Browsed)
    def _browsed(self) -> None:
        self._renew()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        name = (event.input.id or "").removeprefix("new-")
        if name == FIELDS[-1]:
            self.action_make()
        else:
            self.line(FIELDS[FIELDS.index(name) + 1]).focus()

    def action_make(self) -> None:
        """Make the project, as soon as its prompts are read and if nothing is wrong."""
        if self._busy:
            return
        told = [self._folder_told(), self._model_told()]
        wrong = [error for error, _ in told] + [bool(self._shown() and self._read and self._read.error)]
        if any(wrong):
            self.line(FIELDS[wrong.index(True)]).focus()
            return
        if self._source and not self._shown():
            self._wanted = True
        else:
            self._busy = True
            rows = self._read.rows if self._read and self._source else ()
            self._create(self.line("folder").path, self.line("model").value.strip(), rows)
        self._renew()

    def action_close(self) -> None:
        """Give up; what is being made is waited for."""
        if not self._busy:
            self.dismiss(None)

    @on(Looked)
    def _looked_at(self, event: Looked) -> None:
        if event.source == self._source:
            self._read, wanted, self._wanted = event, self._wanted, False
            self._renew()
            if wanted:
                self.action_make()

    @on(Ended)
    def _ended(self, event: Ended) -> None:
        self._busy = False
        if isinstance(event.outcome, Made):
            self.dismiss(event.outcome)
            return
        self._error = event.outcome
        self._renew()

    # What is told

    def _renew(self) -> None:
        if not self.is_mounted:
            return
        for name, (wrong, text) in zip(
            FIELDS, (self._folder_told(), self._model_told(), self._prompts_told()), strict=True
        ):
            here = self.line(name).has_focus
            title = Content.assemble("▸ " if here else "  ", tinted(_TITLES[name], "strong" if here else ""))
            self.query_one(f"#title-{name}", Static).update(title)
            told = self.query_one(f"#told-{name}", Static)
            tone = "bad" if wrong else "quiet"
            told.update(tinted(one_line(clean(text), max(told.content_size.width, 20)), tone))
        listed, focused = self.query_one("#choices", Static), self.focused
        if isinstance(focused, PathLine):
            size, some = listed.content_size, focused.choices.names
            listed.update(focused.listed(size.width, size.height) if some else "")
        self.query_one("#explanation", Static).update(self._outcome())

    def _outcome(self) -> Content:
        if self._busy:
            return tinted("● Making it…", "accent")
        if self._error:
            parts = [tinted(clean(part), "quiet") for part in (self._error.why, self._error.todo) if part]
            return lines(tinted(f"✗ {clean(self._error.what)}", "bad"), *parts)
        return tinted("Nothing is made or fetched before the last ⏎.", "quiet")

    def _folder_told(self) -> tuple[bool, str]:
        """Whether the folder cannot be taken, and what to say of it."""
        if not self.line("folder").value.strip():
            return True, "✗ A name is needed."
        path = Path(os.path.abspath(self.line("folder").path))
        try:
            if path.exists() and not path.is_dir():
                return True, "✗ That is a file."
            if path.is_dir() and any(path.iterdir()):
                return True, "✗ That folder is not empty: choose a new one."
            above = next(part for part in (path, *path.parents) if part.exists())
        except (OSError, ValueError) as error:
            return True, f"✗ {getattr(error, 'strerror', None) or error}"
        if not above.is_dir() or not os.access(above, os.W_OK):
            return True, f"✗ You may not write to {short(above)}."
        return False, f"✓ {short(path)}"

    def _model_told(self) -> tuple[bool, str]:
        """Whether there is no such model, and what to say of it: above all, what will be fetched."""
        return model_rows.told(self.line("model").value.strip())

    def _prompts_told(self) -> tuple[bool, str]:
        """Whether the prompts cannot be read, and how many there are."""
        if not self._source:
            return False, "· none for now: i on the Pairs screen imports some"
        if not self._shown() or self._read is None:
            if self._readable():
                return False, "● reading…"
            return True, "✗ No such file of prompts: .txt, .jsonl, .json, .csv, .tsv, .parquet, or 'sample'."
        if self._read.error:
            return (
                True,
                f"✗ {self._read.error.what.replace(self._source, Path(self._source).name)} {self._read.error.why}",
            )
        seen = foreseen(self._read.rows)
        kind = "questions and tasks" if self._source == SAMPLE else "prompts"
        return False, f"✓ {seen.new:,} {kind}, {seen.heldout:,} held out"

    @property
    def _source(self) -> str:
        text = self.line("prompts").value.strip()
        return text if text in ("", SAMPLE) else str(as_path(text, self._base))

    def _readable(self) -> bool:
        return self._source == SAMPLE or (holds_prompts(self._source) and os.path.isfile(self._source))

    def _shown(self) -> bool:
        return self._read is not None and self._read.source == self._source

    # What threads do

    def _look_soon(self) -> None:
        if self._waits:
            self._waits.stop()
        self._waits = self.set_timer(_REST, self._look) if self._source and self._readable() else None

    def _look(self) -> None:
        self._read_prompts(self._source)

    @work(thread=True, exclusive=True, group="look")
    def _read_prompts(self, source: str) -> None:
        rows: list[NewPrompt] = []
        error: UserError | None = None
        try:
            if source == SAMPLE:
                with as_file(files("rlhf_tui.demo") / "prompts.jsonl") as path:
                    rows = read_prompts(path)
            else:
                rows = read_prompts(source)
        except UserError as caught:
            error = caught
        except OSError as caught:
            error = UserError(f"{source} cannot be read.", why=str(caught))
        self.post_message(self.Looked(source, rows, error))

    @work(thread=True, group="make")
    def _create(self, folder: Path, model: str, rows: Sequence[NewPrompt]) -> None:
        try:
            project = projects.new_project(folder, model)
        except UserError as error:
            self.post_message(self.Ended(error))
            return
        except (OSError, sqlite3.Error) as error:
            self.post_message(self.Ended(UserError("The project could not be made.", why=str(error))))
            return
        self.post_message(self.Ended(_filled(project, rows)))


def _filled(project: Project, rows: Sequence[NewPrompt]) -> Made:
    """The project with its prompts. That they could not be stored is said, and the project opened all the same."""
    outcome = add_prompts(project, rows) if rows else None
    if outcome is None:
        return Made(project, 0, f"{project.name} is ready. Press 2, then i, to give it prompts.")
    if isinstance(outcome, UserError):
        return Made(project, 0, f"The prompts were not imported: {outcome.what} Press 2, then i, to try again.")
    return Made(
        project, outcome.added, f"{project.name} is ready, with {outcome.added:,} prompts. ⏎ generates candidates."
    )


def foreseen(rows: Sequence[NewPrompt]) -> Foreseen:
    """What a new project makes of these prompts."""
    settings = Settings()
    return count(rows, set(), seed=settings.run.seed, heldout_fraction=settings.prompts.heldout_fraction)


def _free_name(base: Path) -> str:
    """'my-assistant', or with a number when that is taken."""
    names = ["my-assistant", *(f"my-assistant-{number}" for number in range(2, 100))]
    return next((name for name in names if not (base / name).exists()), names[0])
