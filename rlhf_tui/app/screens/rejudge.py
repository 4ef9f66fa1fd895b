"""Judging one thing again: the labelling screen on an earlier judgement, and then back to where one came from.

Blind as ever: what the reward model thinks of the candidates is not shown here, nor what was answered before.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from rlhf_tui.app import keys
from rlhf_tui.app.labelling import SecondLook, Sitting, no_longer_counts
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.status import Ends
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.records import Rater
from rlhf_tui.preferences.store import Store

#: What would lead away from the one judgement.
ELSEWHERE = {("skip",), ("undo",), ("redo",), ("ask", "history"), ("ask", "mode"), ("ask", "raters")}


class RejudgeScreen(LabelScreen):
    """One judgement to give again, by the rater who gave it. The answer replaces it; esc leaves it as it is."""

    def __init__(
        self,
        store: Store,
        *,
        judgement_id: int,
        rater: Rater,
        rules: Rules,
        clock: Callable[[], float],
        keymap: keys.Keymap | None = None,
    ) -> None:
        super().__init__(store, rater=rater, rules=rules, clock=clock, keymap=keymap)
        self._judgement_id = judgement_id
        #: Whether an answer has been stored.
        self.answered = False

    @property
    def keys_named(self) -> str:
        """The keys of labelling without those that would lead away from this one judgement."""
        return keys.rejudging(super().keys_named)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing that would lead away from this one judgement."""
        return (action, *parameters) not in ELSEWHERE and super().check_action(action, parameters)

    def sit(self, rater: Rater, rules: Rules, layout: str) -> Sitting:
        """Sit the rater down at the earlier judgement. Raises UserError when it is no longer active."""
        size = self.app.size
        return SecondLook(
            self.store,
            rater,
            judgement_id=self._judgement_id,
            rules=rules,
            columns=size.width,
            rows=size.height,
            layout=layout,
            clock=self._clock,
        )

    def show_task(self) -> None:
        """Show the judgement; once it is given again, go back."""
        if self.sitting.shown is None:
            self.answered = True
            self._go()
        else:
            super().show_task()

    def _show_nothing(self) -> None:
        """The answer is stored, and the screen is about to close: what the next task may be is no matter here."""

    def on_screen_resume(self) -> None:
        """A window over an answer that is stored has closed: there is nothing left to do here."""
        super().on_screen_resume()
        self._go()

    def _go(self) -> None:
        if self.answered and self.is_active:  # `is_current` would also hold under a window
            self.dismiss(None)

    def _show_counts(self) -> None:
        super()._show_counts()
        left = Content.assemble(
            tinted("Judge again", "accent"), tinted(f"  {clean(self.sitting.rater.handle)}", "strong")
        )
        right = tinted(f"{self._key('label.back')} leaves the answer as it is", "quiet")
        self.view.query_one("#head", Ends).show(left, right)


def rater_to_ask(store: Store, judgement_id: int) -> Rater:
    """Who gave a judgement and can be asked again.

    Raises UserError when it no longer counts, or is not a person's: nobody can answer for a model or a rule.
    """
    handle = next((fact.rater for fact in store.facts() if fact.judgement_id == judgement_id), None)
    rater = store.rater(handle) if handle is not None else None
    if rater is None:
        raise no_longer_counts()
    if rater.kind in ("model", "rule"):
        raise UserError(
            f"This is a judgement of {clean(rater.handle)}, a {rater.kind}.",
            why="Nobody else can answer in its name: whose taste the reward model learns must stay known.",
            todo="Judge the pair as yourself, on the Label stage. Or train on people only: reward.raters.",
        )
    return rater
