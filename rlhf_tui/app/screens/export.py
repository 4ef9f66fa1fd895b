"""Stage 6, Export: the tuned model as a folder that other programs load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from rlhf_tui.app import keys, words
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.screens.stage import StageScreen, progress_body
from rlhf_tui.app.widgets.panel import Panel, Row, lines, rows, tinted

#: What can be written: the run's option, its words, and who can read it.
FORMS = (
    ("merged", "merged model", "loads like any other model"),
    ("adapter", "LoRA adapter only", "small; needs the same base model"),
)


class ExportScreen(StageScreen):
    """The choice of form, where it goes, and what the check of the result said."""

    STAGE = "export"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("export")

    def __init__(self) -> None:
        super().__init__()
        self._chosen = 0

    def compose_body(self) -> ComposeResult:
        """The choice, the run, the result."""
        yield Panel("What", id="what")
        yield Panel("Export", id="progress")
        yield Panel("Result and check", id="export-result", classes="grows")
        with Container(classes="plain"):
            yield Panel("Next", id="next")

    def show(self, view: Overview) -> None:
        """Fill the panels."""
        dtype = view.settings.export.dtype if view.settings else ""
        self.query_one("#what", Panel).show(choice(self._chosen, dtype))
        run = self.run_shown
        panel = self.query_one("#progress", Panel)
        if run:
            panel.show(progress_body(run))
        else:
            panel.show(tinted("Nothing has been exported from this project.", "quiet"))
        result = run.state.done.result if run and run.state.done else {}
        self.query_one("#export-result", Panel).show(outcome(result))
        missing = view.missing("export")
        self.query_one("#next", Panel).show(
            str(missing).replace("\n", " ") if missing else next_words(run, result, FORMS[self._chosen])
        )

    def action_choose(self, by: int) -> None:
        """Move the choice."""
        self._chosen = (self._chosen + by) % len(FORMS)
        self.renew()

    def options(self) -> dict[str, str]:
        """The chosen form."""
        return {"format": FORMS[self._chosen][0]}

    def command(self) -> str:
        """The same on the command line."""
        return f"export {FORMS[self._chosen][0]}"


def choice(chosen: int, dtype: str) -> Content:
    """The forms, with a mark before the chosen one."""
    found = []
    for index, (name, title, reader) in enumerate(FORMS):
        here = index == chosen
        label = f"{title} ({dtype} safetensors)" if name == "merged" and dtype else title
        found.append(
            Content.assemble(
                tinted("(•) " if here else "( ) ", "accent"),
                tinted(label.ljust(34), "strong" if here else ""),
                tinted(reader, "quiet"),
            )
        )
    return lines(*found)


def next_words(run: Watched | None, result: Mapping[str, Any], chosen: tuple[str, str, str]) -> str:
    """What to press now: before the export, while it goes on, and when the model is written."""
    name, title, _ = chosen
    if run is not None and run.alive:
        return "The export goes on by itself, also when you leave. Nothing is uploaded."
    if not result:
        return f"Press ⏎ to write the {title}. Nothing is uploaded; the base model stays as it is."
    more = "again" if result.get("format") == name else "too"
    return f"The model is yours. t talks to it, 2 judges more pairs; ⏎ writes the {title}, {more}."


def outcome(result: Mapping[str, Any]) -> Content:
    """Where the export lies and how close it is to the tuned model."""
    if not result:
        return tinted("The path and the check of the written model are shown here.", "quiet")
    check = result.get("check")
    found = [Row("path", str(result.get("path", "")), tone="good"), Row("form", str(result.get("format", "")))]
    if isinstance(check, Mapping):
        found += [Row(LABELS.get(str(name), str(name)), _written(name, value)) for name, value in check.items()]
    return rows(found)


LABELS = {"kl": "KL to the tuned model", "top1": "same next token"}


def _written(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value * 100:.1f} %" if name == "top1" else f"{words.number(value)}{' nats' if name == 'kl' else ''}"
