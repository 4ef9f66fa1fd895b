"""What the windows of the labelling screen are opened with, and what becomes of what they hand back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from rlhf_tui.app import ordering
from rlhf_tui.app.screens import label_panels
from rlhf_tui.app.screens.dialogs import LineDialog, TextDialog, WritingDialog
from rlhf_tui.app.screens.label_dialogs import (
    ChoiceDialog,
    FlagDialog,
    HistoryDialog,
    RaterDialog,
    ReadingDialog,
    card_from,
    card_text,
)
from rlhf_tui.app.widgets.candidate import MOST
from rlhf_tui.preferences.agreement import agreements
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.nudges import nudges
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.records import Fact, HistoryEntry, Rater
from rlhf_tui.preferences.statistics import gold_facts, label_report

if TYPE_CHECKING:
    from rlhf_tui.app.screens.label import LabelScreen

#: What can be asked: the key to press, the kind of task, and what it is.
MODES = {
    "p": ("pair", "pairs: which of two is better"),
    "r": ("rank", "rankings: the order of several"),
    "m": ("rate", "marks: 1 to 5 for each"),
    "a": ("accept", "accept or reject each"),
}


class Windows:
    """The windows of one labelling screen."""

    def __init__(self, screen: LabelScreen) -> None:
        self._screen = screen
        self._open: dict[str, Callable[[], None]] = {
            "note": self._note,
            "flag": self._flag,
            "edit": self._edit,
            "read_prompt": self._read_prompt,
            "guideline": self._guideline,
            "statistics": self._statistics,
            "history": self._history,
            "mode": self._mode,
            "raters": self._raters,
        }

    def open(self, what: str) -> None:
        """Open one. Raises KeyError for a name that is none."""
        self._open[what]()

    # What goes with an answer

    def _note(self) -> None:
        sitting = self._screen.sitting

        def take(note: str | None) -> None:
            if note is not None:
                sitting.note = note.strip()
                self._screen.show_lines()

        if sitting.shown:
            self._screen.app.push_screen(LineDialog("Note", start=sitting.note, hint="stored with your answer"), take)

    def _flag(self) -> None:
        sitting = self._screen.sitting

        def take(flags: tuple[str, ...] | None) -> None:
            if flags is not None:
                sitting.flags = flags
                self._screen.show_lines()

        if sitting.shown:
            self._screen.app.push_screen(FlagDialog(sitting.flags), take)

    def _edit(self) -> None:
        """Asks which answer, unless one is lit."""
        shown, lit = self._screen.sitting.shown, self._screen.view.candidates.lit
        if shown is None:
            return
        if lit is not None or len(shown.shown) == 1:
            self._write(lit or 0)
            return
        names = ordering.names(shown.kind, len(shown.shown))
        places = {name.lower(): place for place, name in enumerate(names)}
        choices = {key: f"a better version of {names[place]}" for key, place in places.items()}
        self._screen.app.push_screen(
            ChoiceDialog("Which answer?", choices), lambda key: self._write(places[key]) if key else None
        )

    def _write(self, place: int) -> None:
        screen, shown = self._screen, self._screen.sitting.shown
        if shown is None:
            return
        name = ordering.names(shown.kind, len(shown.shown))[place]
        text = clean(shown.shown[place].text)

        def take(better: str | None) -> None:
            if better is None or better == text:
                return
            if screen.guarded(lambda: screen.sitting.edit(place, better)):
                screen.notify(f"Stored: yours is better than {name}.", timeout=3)
                screen.show_lines()

        screen.app.push_screen(WritingDialog(f"A better version of {name}", text), take)

    # What helps to judge

    def _read_prompt(self) -> None:
        shown = self._screen.sitting.shown
        if shown:
            text, quiet, _ = label_panels.asked(shown.prompt)
            self._screen.app.push_screen(ReadingDialog("Prompt", text, quiet=quiet))

    def _guideline(self) -> None:
        screen = self._screen
        now = screen.store.guideline()
        title = f"Guideline, version {now.version}" if now else "Guideline: what makes an answer better?"

        def take(body: str | None) -> None:
            if body is not None and body.strip() and screen.guarded(lambda: screen.store.set_guideline(body)):
                screen.read_guideline()
                screen.show_lines()

        screen.app.push_screen(WritingDialog(title, now.body_md if now else ""), take)

    def _statistics(self) -> None:
        """The rater's own habits at once; how far several people agree takes a moment more."""
        screen, mine = self._screen, self._screen.sitting.facts
        gathered: list[tuple[list[Fact], dict[int, int]]] = []
        people = {rater.handle for rater in screen.store.raters() if rater.kind == "human"}
        if not screen.guarded(lambda: gathered.append((screen.store.facts(), screen.store.gold()))):
            return
        everybody, gold = gathered[0]
        of_people = [fact for fact in everybody if fact.rater in people]
        report = label_report(mine, gold_facts(everybody, gold))
        nudged = nudges(mine, report)
        dialog = TextDialog("How you judge", label_panels.statistics_window(report, nudged, ()))
        screen.app.push_screen(dialog)
        if len({fact.rater for fact in of_people}) > 1:

            def show(window: Content) -> None:
                if dialog.is_attached:
                    dialog.query_one("#dialog-text", Static).update(window)

            def count() -> None:
                window = label_panels.statistics_window(report, nudged, agreements(of_people))
                screen.app.call_from_thread(show, window)

            screen.run_worker(count, thread=True, exclusive=True, group="agreement")

    # What was answered

    def _history(self) -> None:
        screen = self._screen

        def read(limit: int) -> list[HistoryEntry]:
            found: list[HistoryEntry] = []
            screen.guarded(lambda: found.extend(screen.store.history(screen.sitting.rater.id, limit=limit)))
            return found

        def gold(judgement_id: int) -> bool | None:
            now: list[bool] = []
            screen.guarded(lambda: now.append(screen.sitting.gold(judgement_id)))
            return now[0] if now else None

        def reopen(judgement_id: int | None) -> None:
            if judgement_id is not None and screen.guarded(lambda: screen.sitting.reopen(judgement_id)):
                screen.show_task()

        screen.app.push_screen(HistoryDialog(read, gold), reopen)

    # What is asked, and whom

    def _mode(self) -> None:
        choices = {key: said for key, (_, said) in MODES.items()}
        self._screen.app.push_screen(ChoiceDialog("How to judge", choices), self._mode_chosen)

    def _mode_chosen(self, key: str | None) -> None:
        screen = self._screen
        if key is None:
            return
        kind = MODES[key][0]
        if kind == "pair":
            self._begin(rules=replace(screen.rules, kind=kind))
            return
        counts = {str(count): f"{count} answers at a time" for count in range(3 if kind == "rank" else 2, MOST + 1)}
        screen.app.push_screen(
            ChoiceDialog("How many?", counts),
            lambda size: self._begin(rules=replace(screen.rules, kind=kind, size=int(size))) if size else None,
        )

    def _begin(self, *, rater: Rater | None = None, rules: Rules | None = None) -> None:
        screen = self._screen
        screen.unless_begun(lambda: screen.begin(rater=rater, rules=rules))

    def _raters(self) -> None:
        screen = self._screen
        people = [rater for rater in screen.store.raters() if rater.kind == "human"]
        screen.app.push_screen(RaterDialog(people, screen.sitting.rater.handle), self._rater_wished)

    def _rater_wished(self, wish: str | None) -> None:
        screen = self._screen
        verb, _, handle = (wish or "").partition(" ")
        if verb == "new":
            screen.app.push_screen(LineDialog("Who judges?", hint="a name"), self._new_rater)
            return
        rater = screen.store.rater(handle) if handle else None
        if rater is None:
            return
        if verb == "take":
            self._begin(rater=rater)
        elif verb == "consent":
            screen.guarded(lambda: screen.store.set_consent(rater.id, not rater.consent))
            self._raters()
        elif verb == "card":
            screen.app.push_screen(
                WritingDialog(f"About {handle}, as they say themselves", card_text(rater.card)),
                lambda said: self._card(handle, said),
            )

    def _new_rater(self, handle: str | None) -> None:
        screen, name = self._screen, (handle or "").strip()
        if name and screen.guarded(lambda: screen.store.add_rater(name, kind="human")):
            self._begin(rater=screen.store.rater(name))

    def _card(self, handle: str, said: str | None) -> None:
        screen = self._screen
        if said is not None:
            card = card_from(said)
            screen.guarded(lambda: screen.store.add_rater(handle, kind="human", card=card))
        self._raters()
