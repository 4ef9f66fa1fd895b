"""The window that imports prompts: a file is named or browsed to, and what it would add is said before it does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, Static

from rlhf_tui.app import keys
from rlhf_tui.app.importing import Foreseen, foresee, foreseen_words
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.app.widgets.pathline import PathLine
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.formats import read_prompts
from rlhf_tui.preferences.formats.sources import kind_of
from rlhf_tui.preferences.records import Added, NewPrompt
from rlhf_tui.preferences.records import Message as Turn
from rlhf_tui.project import Project

HUB = "hub:"
KINDS = ".txt (one prompt a line), .jsonl, .json, .csv, .tsv, .parquet; also .gz"
#: Seconds without a key after which a file is looked into.
_REST = 0.15


def holds_prompts(name: str) -> bool:
    """Whether a file of this name may hold prompts."""
    return kind_of(Path(name)) is not None


class PromptsWindow(ModalScreen[Added | None]):
    """A line for the file, the files that are there, and what the named one would add."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("dialog")

    class Looked(Message):
        """What a file would add, or why it cannot be read."""

        def __init__(self, source: str, rows: Sequence[NewPrompt], found: Foreseen | UserError) -> None:
            super().__init__()
            self.source, self.rows, self.found = source, rows, found

    class Imported(Message):
        """The prompts are in the project, or why not."""

        def __init__(self, outcome: Added | UserError) -> None:
            super().__init__()
            self.outcome = outcome

    def __init__(self, project: Project, base: Path) -> None:
        """`base` is where relative paths begin."""
        super().__init__(classes="window")
        self._project, self._base = project, base
        self._looked: PromptsWindow.Looked | None = None
        self._waits: Timer | None = None
        self._wanted = False  # enter was pressed before the file had been read
        self._busy = False

    def compose(self) -> ComposeResult:
        """The line, the files, what would be imported."""
        with Vertical(classes="dialog small picking") as box:
            box.border_title = Content("Import prompts")
            box.border_subtitle = Content("⏎ import · tab complete · ↑↓ choose · esc leave")
            yield PathLine("", base=self._base, fits=holds_prompts, hint="a file, or hub:OWNER/NAME", id="line")
            yield Static("", markup=False, classes="choices", id="choices")
            yield Static("", markup=False, id="explanation", classes="foreseen")

    def on_mount(self) -> None:
        """Show what lies here."""
        self.call_after_refresh(self._renew)

    def on_resize(self) -> None:
        """Texts are cut to the room there is."""
        self.call_after_refresh(self._renew)

    @on(Input.Changed)
    def _typed(self) -> None:
        self._wanted = False
        if self._waits:
            self._waits.stop()
        self._waits = self.set_timer(_REST, self._look) if self._readable() else None
        self._renew()

    @on(PathLine.Browsed)
    def _browsed(self) -> None:
        self._renew()

    @on(Input.Submitted)
    def _asked(self) -> None:
        """Import what is shown; a source that has not been read is read, and a file then imported."""
        if self._busy:
            return
        if self._is_shown():
            self._import_shown()
        elif self._source.startswith(HUB):
            self._look()  # it is fetched, shown, and imported by the next enter
        elif self._readable():
            self._wanted = True
        self._renew()

    @on(Looked)
    def _looked_at(self, event: Looked) -> None:
        if event.source != self._source:
            return
        self._looked, wanted, self._wanted = event, self._wanted, False
        if wanted:
            self._import_shown()
        self._renew()

    @on(Imported)
    def _imported(self, event: Imported) -> None:
        self._busy = False
        if isinstance(event.outcome, Added):
            self.dismiss(event.outcome)
            return
        self._looked = self.Looked(self._source, (), event.outcome)
        self._renew()

    def action_close(self) -> None:
        """Give up; what is being written is waited for."""
        if not self._busy:
            self.dismiss(None)

    @property
    def _line(self) -> PathLine:
        return self.query_one("#line", PathLine)

    @property
    def _source(self) -> str:
        text = self._line.value.strip()
        return text if text.startswith(HUB) or not text else str(self._line.path)

    def _readable(self) -> bool:
        """Whether the line names a file that may hold prompts."""
        return not self._source.startswith(HUB) and holds_prompts(self._source) and os.path.isfile(self._source)

    def _is_shown(self) -> bool:
        return self._looked is not None and self._looked.source == self._source

    def _import_shown(self) -> None:
        if self._looked and isinstance(self._looked.found, Foreseen) and self._looked.found.new:
            self._busy = True
            self._import(self._looked.rows)

    def _renew(self) -> None:
        listed, told = self.query_one("#choices", Static), self.query_one("#explanation", Static)
        hub = self._source.startswith(HUB)
        size = listed.content_size
        listed.update("" if hub else self._line.listed(size.width, size.height))
        told.update(self._told(max(told.content_size.width, 20)))

    def _told(self, width: int) -> Content:
        if self._busy:
            return tinted("Importing…", "accent")
        if self._is_shown() and self._looked:
            found = self._looked.found
            if isinstance(found, UserError):
                return error_words(found, self._source)
            return foreseen_words(found, width)
        if self._source.startswith(HUB):
            return tinted(
                "A data set of the hub: ⏎ fetches it and shows what is in it; nothing is imported yet.", "quiet"
            )
        if self._readable():
            return tinted("Reading…", "accent")
        if self._source and os.path.isfile(self._source):
            return tinted(f"Not a kind of file that holds prompts. Known are {KINDS}.", "warn")
        return tinted(f"Nothing is imported before ⏎. Known are {KINDS}.", "quiet")

    def _look(self) -> None:
        self._read(self._source)

    @work(thread=True, exclusive=True, group="look")
    def _read(self, source: str) -> None:
        """Read a source and count, away from the thread that draws."""
        rows: list[NewPrompt] = []
        found: Foreseen | UserError
        try:
            rows = read_prompts(source)
            with self._project.store() as store:
                found = foresee(store, rows, self._project.settings().prompts.heldout_fraction)
        except UserError as error:
            found = error
        except OSError as error:
            found = UserError(f"{source} cannot be read.", why=str(error))
        self.post_message(self.Looked(source, rows, found))

    @work(thread=True, group="import")
    def _import(self, rows: Sequence[NewPrompt]) -> None:
        self.post_message(self.Imported(add_prompts(self._project, rows)))


def add_prompts(project: Project, rows: Sequence[NewPrompt]) -> Added | UserError:
    """Add prompts as 'rlhf-tui prompts import' does."""
    try:
        fraction = project.settings().prompts.heldout_fraction
        with project.store() as store:
            return store.add_prompts(rows, heldout_fraction=fraction)
    except UserError as error:
        return error
    except OSError as error:
        return UserError("The prompts could not be stored.", why=str(error))


def by_hand(text: str) -> NewPrompt:
    """A prompt that was typed."""
    return NewPrompt((Turn("user", text.strip()),), "typed")


def error_words(error: UserError, source: str) -> Content:
    """What is wrong with a file, why, and what to do; its folder stands in the line above."""
    what = error.what if source.startswith(HUB) else error.what.replace(source, Path(source).name)
    rest = [tinted(clean(part), "quiet") for part in (error.why, error.todo) if part]
    return lines(tinted(f"✗ {clean(what)}", "bad"), *rest)
