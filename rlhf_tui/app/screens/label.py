"""The labelling screen: two candidates side by side, and the keys on which the fingers rest."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from rlhf_tui.app import keys, words
from rlhf_tui.app.labelling import Answer, Sitting, own_rater
from rlhf_tui.app.screens.dialogs import LineDialog, TextDialog, WritingDialog
from rlhf_tui.app.widgets.candidate import Candidate
from rlhf_tui.app.widgets.panel import Panel, Row, lines, rows, tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.statistics import Rate, label_report
from rlhf_tui.preferences.store import Completion, HistoryEntry, Store

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp

ZOOMS = ("", "zoom-a", "zoom-b")
BUSY = UserError(
    "The answer could not be stored.",
    why="Another program holds the project's database.",
    todo="Wait a moment and give the answer again.",
)


class LabelScreen(Screen[None]):
    """Judging pairs. Blind: neither the source nor any score of a candidate is shown."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("label")

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        super().__init__()
        self._store = store
        self._clock = clock
        self._zoom = 0
        self._stacked = False
        self._sitting: Sitting | None = None

    def compose(self) -> ComposeResult:
        """Two lines of facts, the prompt, the candidates, the answers, the keys."""
        yield Ends(id="head")
        yield Ends(id="facts")
        with Container(id="label-main"):
            with Container(id="label-body"):
                with VerticalScroll(id="prompt", classes="panel", can_focus=False) as prompt:
                    prompt.border_title = Content("Prompt")
                    yield Static("", id="prompt-text", markup=False)
                with Container(id="candidates"):
                    yield Candidate("A", id="left")
                    yield Candidate("B", id="right")
                yield Panel("Your answer", id="answer")
            with Container(id="label-side"):
                yield Panel("You", id="you")
                yield Panel("Last answers", id="history")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Begin the sitting and show the first pair."""
        size = self.app.size
        self._sitting = Sitting(
            self._store, own_rater(self._store), columns=size.width, rows=size.height, clock=self._clock
        )
        self._show_pair()

    def on_unmount(self) -> None:
        """End the sitting and close the database."""
        if self._sitting:
            self._sitting.close()
        self._store.close()

    def on_resize(self) -> None:
        """The lines are laid out for a width."""
        if self._sitting:
            self._show_facts()

    def command(self) -> str:
        """The same on the command line."""
        return "label"

    def action_answer(self, answer: Answer, strength: int) -> None:
        """Store an answer and show the next pair."""
        self._guarded(lambda: self.sitting.answer(answer, strength))

    def action_undo(self) -> None:
        """Take the last answer back."""
        if not self._guarded(lambda: self.sitting.undo()):
            self.notify("There is nothing to take back.", timeout=2)

    def action_redo(self) -> None:
        """Give the answer taken back again."""
        if not self._guarded(lambda: self.sitting.redo()):
            self.notify("There is nothing to give again.", timeout=2)

    def action_note(self) -> None:
        """Ask for a note, which is stored with the answer."""
        if self.sitting.pair is None:
            return
        dialog = LineDialog("Note on this pair", start=self.sitting.note, hint="stored with your answer")
        self.app.push_screen(dialog, self._take_note)

    def action_zoom(self) -> None:
        """Only A, only B, both."""
        self._zoom = (self._zoom + 1) % len(ZOOMS)
        for name in ZOOMS[1:]:
            self.set_class(ZOOMS[self._zoom] == name, name)

    def action_stack(self) -> None:
        """Side by side or one above the other."""
        self._stacked = not self._stacked
        self.set_class(self._stacked, "stacked")
        self.sitting.layout = "stacked" if self._stacked else "side-by-side"

    def action_scroll_both(self, by: int) -> None:
        """Scroll both candidates by lines; ten means a page."""
        for pane in self.query(Candidate):
            step = by if abs(by) == 1 else int(math.copysign(max(pane.size.height - 2, 1), by))
            pane.scroll_relative(y=step, animate=False)

    def action_guideline(self) -> None:
        """Read the guideline, or write one."""
        guideline = self._store.guideline()
        title = f"Guideline, version {guideline.version}" if guideline else "Guideline: what makes an answer better?"
        self.app.push_screen(WritingDialog(title, guideline.body_md if guideline else ""), self._take_guideline)

    def action_statistics(self) -> None:
        """How this rater has judged so far."""
        self.app.push_screen(TextDialog("How you judge", rows(self._statistics())))

    def action_back(self) -> None:
        """Back to the pairs."""
        self.dismiss(None)

    @property
    def sitting(self) -> Sitting:
        """The sitting, which exists once the screen is mounted."""
        assert self._sitting is not None
        return self._sitting

    def _guarded(self, write: Callable[[], bool]) -> bool:
        try:
            done = write()
        except UserError as error:
            cast("RlhfApp", self.app).show_error(error)
            return True
        except sqlite3.OperationalError:
            cast("RlhfApp", self.app).show_error(BUSY)
            return True
        if done:
            self._show_pair()
        return done

    def _take_note(self, note: str | None) -> None:
        if note is not None:
            self.sitting.note = note.strip()
            self._show_facts()

    def _take_guideline(self, body: str | None) -> None:
        if body is not None and body.strip():
            self._store.set_guideline(body)
            self._show_facts()

    def _show_pair(self) -> None:
        pair = self.sitting.pair
        prompt = self.query_one("#prompt-text", Static)
        if pair is None:
            prompt.update(self._nothing_left())
        else:
            prompt.update(self._conversation())
            self.query_one("#left", Candidate).show(clean(pair.left.text), _facts(pair.left))
            self.query_one("#right", Candidate).show(clean(pair.right.text), _facts(pair.right))
        self.query_one("#prompt").scroll_home(animate=False)
        for part in ("#candidates", "#answer"):
            self.query_one(part).display = pair is not None
        self._show_facts()

    def _conversation(self) -> Content:
        """The prompt as the rater reads it: earlier turns quietly, the last one plainly."""
        pair = self.sitting.pair
        if pair is None:
            return Content("")
        *earlier, last = pair.prompt.messages
        shown = [tinted(f"{turn.role}: {clean(turn.content)}", "quiet") for turn in earlier]
        return lines(*shown, Content(clean(last.content)))

    def _nothing_left(self) -> Content:
        if self.sitting.judged:
            return lines(
                tinted(f"✓ No pair is left: {words.plural(self.sitting.judged, 'judgement')} by you.", "good"),
                "Press esc and then 3 to train the reward model, or u to go back to the last pair.",
            )
        return Content("There is no pair to judge yet. Press esc, then ⏎ to generate candidates.")

    def _show_facts(self) -> None:
        sitting = self.sitting
        number = min(sitting.judged + 1, sitting.total)
        where = f"pair {number} of {sitting.total}" if sitting.total else "no pairs"
        left = Content.assemble(tinted("Label", "accent"), "  ", tinted(where, "strong"))
        self.query_one("#head", Ends).show(left, Content(self._pace()))
        guideline = self._store.guideline()
        says = first_line(guideline.body_md) if guideline else "no guideline yet: g writes one"
        self.query_one("#facts", Ends).show(
            tinted(says, "quiet"), tinted("blind: order is shuffled, sources hidden", "quiet")
        )
        self.query_one("#answer", Panel).show(self._answers())
        self.query_one("#you", Panel).show(rows(self._statistics()), title=f"You ({sitting.rater.handle})")
        self.query_one("#history", Panel).show(self._history())
        self.query_one(KeyLine).show(keys.footer("label", self.app.size.width, live=False))

    def _pace(self) -> str:
        sitting = self.sitting
        share = words.percent(sitting.judged / sitting.total) if sitting.total else ""
        each = sitting.seconds_each
        if math.isnan(each):
            return share
        left = words.duration(each * sitting.left_over)
        return f"{share} · {words.duration(each)} a pair · {left} left"

    def _answers(self) -> Content:
        parts = [
            ("d", "A much"),
            ("f", "A better"),
            ("SPACE", "tie"),
            ("j", "B better"),
            ("k", "B much"),
            ("x", "both bad"),
        ]
        answers = Content("   ").join(Content.assemble(tinted(key, "accent"), f" {label}") for key, label in parts)
        last = f"last: {self.sitting.last}  (u undo)" if self.sitting.last else "s skips, u takes an answer back"
        note = f"note: {words.one_line(self.sitting.note, 40)}" if self.sitting.note else ""
        return lines(answers, tinted("   ".join(part for part in (last, note) if part), "quiet"))

    def _statistics(self) -> list[Row]:
        report = label_report(self._store, self.sitting.rater.id)
        seconds = "-" if report.median_seconds is None else words.duration(report.median_seconds)
        return [
            Row("judged", str(report.n), f"{report.ties} ties"),
            Row("both bad", str(report.both_bad), f"{report.skipped} skipped"),
            Row("A chosen", _rate(report.first_side), _interval(report.first_side)),
            Row("longer chosen", _rate(report.longer_wins), _interval(report.longer_wins)),
            Row("median time", seconds),
        ]

    def _history(self) -> Content:
        entries = self._store.history(self.sitting.rater.id, limit=14)
        if not entries:
            return tinted("None yet.", "quiet")
        return lines(*(_entry(entry) for entry in entries))


def first_line(body: str) -> str:
    """What a guideline is called: its first line that says something."""
    return next((line.strip(" #*") for line in clean(body).splitlines() if line.strip(" #*")), "guideline")


def _facts(completion: Completion) -> str:
    return f"{completion.n_tokens} tok" if completion.n_tokens else words.plural(len(completion.text), "character")


def _rate(rate: Rate) -> str:
    return "-" if rate.share is None else words.percent(rate.share)


def _interval(rate: Rate) -> str:
    return f"{rate.low * 100:.0f} to {rate.high * 100:.0f} %" if rate.n else ""


def _entry(entry: HistoryEntry) -> Content:
    side = {"left": "A", "right": "B"}.get(entry.winner or "", "")
    said = f"{side} {'much' if entry.strength > 1 else 'better'}" if side else entry.outcome.replace("_", " ")
    return Content.assemble(f"{said:<9} ", tinted(words.one_line(clean(entry.prompt), 22), "quiet"))
