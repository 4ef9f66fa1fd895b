"""Opening the labelling screen: the store, the rater and the rules that it needs. Whatever fails is a UserError."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_tui.app import keys
from rlhf_tui.app.labelling import rules_of
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.rejudge import RejudgeScreen, rater_to_ask
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project

PATIENCE = 1.0  # seconds that a key waits for another program's lock before the screen says so


def labelling_screen(
    project: Project, *, rater: str, rules: Rules | None, clock: Callable[[], float], keymap: keys.Keymap
) -> LabelScreen:
    """The labelling screen. `rater` '' and `rules` None: the project's own."""
    rules = rules or rules_of(project.settings().label)
    store = Store.open(project.database, patience=PATIENCE)
    try:
        who = store.add_rater(rater) if rater else None
    except BaseException:
        store.close()
        raise
    return LabelScreen(store, rater=who, rules=rules, clock=clock, keymap=keymap)


def rejudging_screen(
    project: Project, judgement_id: int, *, clock: Callable[[], float], keymap: keys.Keymap
) -> RejudgeScreen:
    """The labelling screen on one earlier judgement, with its own rater."""
    rules = rules_of(project.settings().label)
    store = Store.open(project.database, patience=PATIENCE)
    try:
        rater = rater_to_ask(store, judgement_id)
    except BaseException:
        store.close()
        raise
    return RejudgeScreen(store, judgement_id=judgement_id, rater=rater, rules=rules, clock=clock, keymap=keymap)
