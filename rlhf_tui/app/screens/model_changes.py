"""What the Model screen writes into the settings, each after the question that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_tui import models
from rlhf_tui.app import model_rows
from rlhf_tui.app.screens.dialogs import ConfirmDialog
from rlhf_tui.app.settings_form import Entry, SettingsForm, entries
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.room import Fitting, remedy
from rlhf_tui.settings import parse_override

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp


def choose(rlhf: RlhfApp, name: str, title: str, chosen: Callable[[], None]) -> None:
    """Make a model the project's; where adapters belong to another one, after a question. `chosen` follows."""
    project = rlhf.overview.project

    def write() -> None:
        try:
            models.choose(project, name)
        except UserError as error:
            rlhf.show_error(error)
        else:
            rlhf.look()
            chosen()

    try:
        elsewhere = models.trained_elsewhere(project, name)
    except UserError as error:
        rlhf.show_error(error)
        return
    if elsewhere:
        question = clean(f"{models.belongings(elsewhere, title)}\n\nChoose it all the same?")
        rlhf.push_screen(ConfirmDialog("Another base model", question), lambda yes: write() if yes else None)
    else:
        write()


def make_fit(rlhf: RlhfApp, outcome: Fitting, cures: bool, written: Callable[[], None]) -> None:
    """Ask, then lower the settings that keep a stage from fitting. `cures`: then every stage fits."""
    lower = remedy(outcome)
    if not lower:
        rlhf.show_text("No setting helps", [judged.advice for judged in outcome.verdicts if not judged.fits])
        return
    form = SettingsForm(rlhf.overview.project)
    known = {one.key: one for one in entries()}
    changes = [(known[key], form.now(known[key]), new) for key, new in map(parse_override, lower)]
    question = model_rows.remedy_question(outcome, [(entry.key, old, new) for entry, old, new in changes], then=cures)

    def write(yes: bool | None) -> None:
        if yes:
            _store(rlhf, form, changes)
            written()

    rlhf.push_screen(ConfirmDialog("Make it fit", question), write)


def _store(rlhf: RlhfApp, form: SettingsForm, changes: Sequence[tuple[Entry, Any, Any]]) -> None:
    try:
        for entry, old, new in changes:
            form.store(entry, new, seen=old)
    except UserError as error:
        rlhf.show_error(error)
    else:
        rlhf.notify("Lowered. e shows the settings.", timeout=4)
    rlhf.look()
