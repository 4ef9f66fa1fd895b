"""The labelling screen: candidates in view, an answer on one key, the next ones at once.

What a key means for an answer is in `label_draft`, the face of the screen in `label_view`, what its lines
say in `label_panels`, its windows in `label_dialogs`. The order of work for one key: the answer is on disk,
the next candidates are drawn, and only when they are on screen the statistics are made.
"""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual._styles_cache import StylesCache
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.timer import Timer

from rlhf_tui.app import keys, keytable
from rlhf_tui.app.labelling import Sitting, described, own_rater
from rlhf_tui.app.screens import label_draft, label_panels
from rlhf_tui.app.screens.dialogs import give_up_dialog
from rlhf_tui.app.screens.label_aside import Gathering
from rlhf_tui.app.screens.label_looking import Looking
from rlhf_tui.app.screens.label_panels import Progress
from rlhf_tui.app.screens.label_view import LabelView
from rlhf_tui.app.screens.label_windows import Windows
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.app.widgets.status import KeyLine
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.records import Rater, Verdict, prefer, tied
from rlhf_tui.preferences.store import Store

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp

#: Which actions exist only for some kinds of task: elsewhere their keys mean something else, or nothing.
ONLY = {
    "prefer": ("pair",),
    "tie": ("pair",),
    "all_bad": ("pair", "rank"),
    "place": ("rank",),
    "equal": ("rank",),
    "mark": ("rate",),
    "accept": ("accept",),
    "erase": ("rank", "rate", "accept"),
    "commit": ("rank", "rate", "accept"),
}
#: Seconds after an answer until the statistics are made: never in the way of the next key.
PAUSE = 0.3


class LabelScreen(Looking):
    """Judging candidates. Blind: neither the source nor any score of a candidate is shown."""

    #: The app reads no labels meanwhile: what changes is changed here.
    writes_labels = True
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings(
        "label", "label-pair", "label-rank", "label-rate", "label-accept"
    )

    def __init__(
        self,
        store: Store,
        *,
        rater: Rater | None,
        rules: Rules,
        clock: Callable[[], float],
        keymap: keys.Keymap | None = None,
    ) -> None:
        """`rater` None: the project's own. The screen closes the store when it goes."""
        super().__init__()
        self.store, self.rules = store, rules
        self._rater, self._clock = rater, clock
        self._keymap: keys.Keymap = keymap or {}
        self._sitting: Sitting | None = None
        self._draft = label_draft.draft("pair", 2)
        self._unsaved = self._trouble = self._guideline = ""
        self._gathering = Gathering()
        self._later: Timer | None = None
        self._windows = Windows(self)

    def compose(self) -> ComposeResult:
        """The view, and the line of keys."""
        yield LabelView(id="label-view")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Begin once the screen has its size: the layout is stored with what is shown."""
        self.view.asked.hint = f"{self._key('label.read')} opens it"
        self.call_after_refresh(self.begin)

    def on_unmount(self) -> None:
        """End the sitting and close the database."""
        if self._sitting:
            self.guarded(self._sitting.close)
        self.store.close()
        gc.unfreeze()

    def on_screen_resume(self) -> None:
        """A window has closed. Textual 8.2 would keep the drawings of its widgets: a cache there holds on to them."""
        StylesCache.get_inner_outer.cache_clear()

    def on_resize(self) -> None:
        """The lines are laid out for a width."""
        if self._sitting:
            self.show_lines()

    def command_line(self) -> str:
        """The same on the command line."""
        rater = f" --rater {shlex.quote(self._rater.handle)}" if self._rater else ""
        return f"rlhf-tui label{rater} --project {shlex.quote(str(cast('RlhfApp', self.app).overview.project.root))}"

    @property
    def sitting(self) -> Sitting:
        """The sitting, which exists once the screen has begun."""
        assert self._sitting is not None
        return self._sitting

    @property
    def unstored(self) -> str:
        """What to say of notes, flags, an order or marks that no answer has been given with."""
        sitting = self._sitting
        begun = sitting is not None and (sitting.begun or (sitting.shown is not None and self._draft.touched))
        return "What you began to say is stored only with an answer." if begun else ""

    @property
    def kind(self) -> str:
        """What kind of task is judged now: an earlier answer that is open again may be of another one."""
        shown = self._sitting.shown if self._sitting else None
        return shown.kind if shown else self.rules.kind

    @property
    def keys_named(self) -> str:
        """Which of the key registry's screens this is now."""
        return keys.screen_of(self.kind)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The same key may mean different things in different modes."""
        if self._sitting is None:
            return action == "back"
        return self.kind in ONLY.get(action, (self.kind,))

    # Answers

    def action_prefer(self, place: int, strength: int) -> None:
        """One of a pair is better."""
        self._answer(prefer(place, strength))

    def action_tie(self) -> None:
        """Both are equally good."""
        self._answer(tied())

    def action_all_bad(self) -> None:
        """None should be learnt from."""
        self._answer(Verdict("both_bad"))

    def action_skip(self) -> None:
        """It comes back in the next sitting."""
        self._answer(Verdict("skip"))

    def action_discard(self) -> None:
        """It does not come back."""
        self._answer(Verdict("discard"))

    def action_place(self, number: int) -> None:
        """The next in the order."""
        self._say(lambda: label_draft.with_sign(self._draft, str(number)))

    def action_equal(self) -> None:
        """The next is as good as the last."""
        self._say(lambda: label_draft.with_sign(self._draft, "="))

    def action_mark(self, mark: int) -> None:
        """Mark the lit answer and light the next one without a mark."""
        place = self.view.candidates.lit or 0
        if place < len(self._draft.marks) and self._say(lambda: label_draft.with_mark(self._draft, place, mark)):
            self.view.candidates.light(label_draft.next_open(self._draft, place))

    def action_accept(self, yes: bool) -> None:
        """Accept or reject the lit answer."""
        self.action_mark(int(yes))

    def action_erase(self) -> None:
        """Take the last sign or mark back."""
        if self.sitting.shown is None:
            return
        self._draft, place = label_draft.erased(self._draft, self.view.candidates.lit or 0)
        if self._draft.marks:
            self.view.candidates.light(place)
        self._show_draft()

    def action_commit(self) -> None:
        """Store the order or the marks. An untouched order is not an answer."""
        if self.sitting.shown is None or self.sitting.too_early:
            return
        try:
            said = label_draft.verdict(self._draft)
        except ValueError as error:
            self.notify(str(error), timeout=3, markup=False)
        else:
            self._answer(said)

    def action_undo(self) -> None:
        """Take the last answer back."""
        if self._move(self.sitting.undo) is False:
            self.notify("There is nothing to take back.", timeout=2)

    def action_redo(self) -> None:
        """Give the answer taken back again."""
        if self._move(self.sitting.redo) is False:
            self.notify("There is nothing to give again.", timeout=2)

    # Looking

    def action_stack(self) -> None:
        """Side by side or one above the other."""
        self.view.candidates.stack()
        self.sitting.layout = self.view.candidates.arrangement.name

    def action_ask(self, what: str) -> None:
        """Open a window; what it hands back is dealt with in `label_windows`."""
        self._windows.open(what)

    def action_back(self) -> None:
        """Back to the pairs."""
        self.unless_begun(self._go_back)

    def _go_back(self) -> None:
        self.dismiss(None)

    def unless_begun(self, go: Callable[[], None]) -> None:
        """Do what ends the sitting; after a question where something was begun."""
        if self.unstored:
            self.app.push_screen(give_up_dialog(self.unstored), lambda yes: go() if yes else None)
        else:
            go()

    # The sitting

    def begin(self, *, rater: Rater | None = None, rules: Rules | None = None) -> None:
        """A new sitting: at first, and for another rater or another mode."""
        rater, rules = rater or self._rater, rules or self.rules
        before = self._sitting
        layout = self.view.candidates.arranged(2 if rules.kind == "pair" else rules.size).name

        def begin() -> None:
            after = self.sit(rater or own_rater(self.store), rules, layout)
            if before:
                before.close()
            # Only now: should closing fail, the keys still answer what is on screen.
            self._sitting, self._rater, self.rules = after, rater, rules

        if self.guarded(begin):
            self._gathering = Gathering()
            self.read_guideline()
            self.show_task()
            self.call_after_refresh(_settle_memory)
            if before is None:
                self.set_interval(1.0, self._look_for_more)
        elif before is None:
            self.view.show_nothing(lines(tinted(self._trouble, "warn"), "", f"{self._key('label.back')} goes back."))

    def sit(self, rater: Rater, rules: Rules, layout: str) -> Sitting:
        """Sit a rater down. Raises UserError when the store cannot have it."""
        size = self.app.size
        return Sitting(
            self.store, rater, rules=rules, columns=size.width, rows=size.height, layout=layout, clock=self._clock
        )

    def _answer(self, verdict: Verdict) -> None:
        shown = self.sitting.shown
        if shown is None:
            return
        what = described(verdict, shown.kind)
        if self._move(lambda: self.sitting.answer(verdict)) is None:
            # Not on disk: the candidates, the note and the draft are still there, and so is what was said.
            self._unsaved = what if self.sitting.shown else ""
            self.show_lines()

    def _move(self, step: Callable[[], bool]) -> bool | None:
        """Go on to what the sitting shows next. False: it did nothing. None: it failed, and the window says why."""
        done: list[bool] = []
        before = self.sitting.shown
        fine = self.guarded(lambda: done.append(step()))
        if self.sitting.shown is not before:
            self._unsaved = ""
            self.show_task()
        elif fine:
            self.show_lines()
        return done[0] if fine else None

    def guarded(self, work: Callable[[], object]) -> bool:
        """Do something with the store; what fails is told in a window, and False."""
        try:
            work()
        except UserError as error:
            self._trouble = str(error)
            cast("RlhfApp", self.app).show_error(error)
            return False
        self._trouble = ""
        return True

    def _say(self, draft: Callable[[], label_draft.Draft]) -> bool:
        """Put the draft on; False when the key comes too early or makes no sense there."""
        if self.sitting.shown is None or self.sitting.too_early:
            return False
        try:
            self._draft = draft()
        except ValueError as error:
            self.notify(str(error), timeout=2, markup=False)
            return False
        self._show_draft()
        return True

    def _look_for_more(self) -> None:
        """What others have written: new tasks appear by themselves, also when there were none."""
        waiting = self.sitting.left_over
        try:
            came = self.sitting.look()
        except UserError as error:
            self._trouble = error.what
            came = False
        else:
            self._trouble = ""
        if came:
            self.show_task()
        elif self.sitting.shown is None:
            self._show_nothing()
        if self.sitting.left_over != waiting:
            self._show_counts()

    # Showing

    def show_task(self) -> None:
        shown = self.sitting.shown
        if shown is None:
            self._show_nothing()
        else:
            self._draft = label_draft.draft(shown.kind, len(shown.shown))
            self.view.show_task(shown, self._draft)
            self.sitting.layout = self.view.candidates.arrangement.name
        self.show_lines()
        if self._later:
            self._later.stop()
        self._later = self.set_timer(PAUSE, self._count)

    def _show_nothing(self) -> None:
        live = cast("RlhfApp", self.app).overview.live
        progress = live.state.progress if live else None
        done = f": {progress.done} of {progress.total} {progress.unit}" if progress else ""
        going_on = f"{live.name} is going on{done}." if live else ""
        rater = self.sitting.rater.handle
        begin = "⏎ generates candidates" if self.store.counts().prompts else "i imports prompts, w writes one"
        self.view.show_nothing(
            label_panels.nothing_left(self._progress(), rater, going_on, self._trouble, self._key, begin)
        )

    def _show_draft(self) -> None:
        self.view.show_standing(self._draft)
        self._show_answer()

    def show_lines(self) -> None:
        self._show_counts()
        self._show_answer()
        there: list[keytable.When] = ["shown"] if self.sitting.shown else []
        footer = keys.footer(self.keys_named, self.app.size.width, live=False, there=there, keymap=self._keymap)
        self.query_one(KeyLine).show(footer)

    def _show_counts(self) -> None:
        progress, handle = self._progress(), self.sitting.rater.handle
        self.view.show_lines(progress, handle, self._guideline, self._key("label.guideline"))
        self.view.show_side(progress, self.sitting.facts, self._gathering.aside, handle)

    def _show_answer(self) -> None:
        sitting = self.sitting
        answers = label_panels.answers(self.kind, self._draft, self._keymap, self.app.size.width - 4)
        remarks = label_panels.remarks(sitting.last, sitting.note, sitting.flags, self._unsaved)
        self.view.show_answer(answers if sitting.shown else None, remarks, self._gathering.aside)

    def _count(self) -> None:
        """Make the statistics, now that the candidates are on screen."""
        self._gathering.gather(self.sitting.facts)
        self._show_counts()
        self._show_answer()

    def _progress(self) -> Progress:
        sitting = self.sitting
        return Progress(self.kind, sitting.judged, sitting.left_over, sitting.seconds_each)

    def read_guideline(self) -> None:
        guideline = self.store.guideline()
        self._guideline = label_panels.first_line(guideline.body_md) if guideline else ""

    def _key(self, action_id: str) -> str:
        return keys.key_of(self.keys_named, action_id, self._keymap)


def _settle_memory() -> None:
    """Leave what lives for the whole sitting out of garbage collection: looking through 20,000 answers takes 80 ms."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
