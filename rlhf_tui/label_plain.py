"""Judging line by line, without the app: for a screen reader, a phone, a slow line, or a script.

Reads one answer or command a line (`label_lines` says what a line means), and stores what was shown
and what was said through the same sitting as the labelling screen. Blind as it is there: neither the
source nor any score of a candidate is shown.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from rlhf_tui.app.labelling import Sitting, described, own_rater
from rlhf_tui.app.ordering import names
from rlhf_tui.app.words import one_line, plural
from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.label_lines import Command, Unclear, help_text, number_of, place_of, reasons, understand
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.project_report import project_report
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import HistoryEntry, Rater, Verdict
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project
from rlhf_tui.reports import label_stats

#: How many answers 'history' lists when it is not told.
_HISTORY = 5
_PROMPT_WIDTH = 60
_TASKS = {"pair": "pairs", "rank": "rankings", "rate": "sets to rate", "accept": "sets to accept or reject"}


@dataclass(frozen=True)
class Left:
    """How things stand when a rater leaves: this rater's active answers of every kind, and the tasks still to come.

    `judgements` are the decided ones without repeats; `left` counts tasks of the mode only.
    """

    rater: str
    mode: str
    judgements: int
    repeats: int
    skipped: int
    discarded: int
    left: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        aside = "".join(
            f", {count} {what}"
            for count, what in ((self.repeats, "repeats"), (self.skipped, "skipped"), (self.discarded, "discarded"))
            if count
        )
        return (
            f"{plural(self.judgements, 'judgement')} by {self.rater}{aside}; {self.left} {_TASKS[self.mode]} left.\n"
            "Next: 'rlhf-tui train reward', or 'rlhf-tui label' to go on."
        )


def label_plain(
    project: Project,
    handle: str,
    *,
    rules: Rules,
    source: TextIO,
    out: TextIO,
    clock: Callable[[], float] = time.monotonic,
) -> Left:
    """Let a rater judge by `rules`, answers from `source`, until 'q' or the end of the input.

    `handle` empty: the project's own human rater. Raises UsageError, before anything is written, when
    nothing waits for this rater or the name belongs to a rater that is not a person.
    """
    with project.store() as store:
        _require_work(store, handle, rules)
        rater = store.add_rater(handle, kind="human") if handle else own_rater(store)
        size = shutil.get_terminal_size()
        sitting = Sitting(
            store,
            rater,
            rules=rules,
            columns=size.columns,
            rows=size.lines,
            clock=clock,
            guard=0.0,  # a line is never a key still held down; of a pipe it would swallow answers
            layout="stacked",
        )
        try:
            _Conversation(store, sitting, rules, source, out).hold()
        finally:
            sitting.close()
        counts = store.counts(rater.id)
        return Left(
            rater.handle,
            rules.kind,
            counts.judgements,
            counts.repeats,
            counts.skipped,
            counts.discarded,
            sitting.left_over,
        )


def _require_work(store: Store, handle: str, rules: Rules) -> None:
    """Raises UsageError when a sitting of this rater would have nothing to show."""
    known = store.rater(handle) if handle else next((one for one in store.raters() if one.kind == "human"), None)
    somebody_new = Rater(0, "", handle, "human")
    if Queue(store, known or somebody_new, rules).next() is None:
        raise UsageError(
            f"No {_TASKS[rules.kind]} wait for a judgement.",
            why="" if store.counts().completions else "There are no candidates yet.",
            todo="Sample candidates with 'rlhf-tui generate'.",
        )


class _Conversation:
    """One rater, one line at a time."""

    def __init__(self, store: Store, sitting: Sitting, rules: Rules, source: TextIO, out: TextIO) -> None:
        self._store = store
        self._sitting = sitting
        self._kind = rules.kind
        self._source = source
        self._out = out
        self._commands: dict[str, Callable[[str], None]] = {
            "undo": self._undo,
            "redo": self._redo,
            "note": self._note,
            "flag": self._flag,
            "edit": self._edit,
            "history": self._history,
            "reopen": self._reopen,
            "gold": self._gold,
            "stats": self._stats,
            "guideline": self._guideline,
            "again": self._again,
            "help": lambda _: self._say(help_text(self._open_kind)),
        }

    def hold(self) -> None:
        """Until the rater quits or the input ends."""
        if self._store.guideline() is not None:
            self._guideline("")
        self._say(help_text(self._kind))
        self._read_out()
        while (line := self._next_line("> ")) is not None:
            try:
                if not self._take(line):
                    return
            except Unclear as error:
                self._say(str(error))
            except UserError as error:
                if not self._source.isatty():  # the next line of a pipe is meant for what comes after this answer
                    raise
                self._say(str(error))

    @property
    def _open_kind(self) -> str:
        """The kind of what is on show: a reopened answer may be of another kind than the mode."""
        shown = self._sitting.shown
        return self._kind if shown is None else shown.kind

    def _take(self, line: str) -> bool:
        """Do what one line says; False when it says to leave."""
        shown = self._sitting.shown
        if not line.strip():
            self._say(help_text(self._open_kind))
            return True
        meant = understand(line, self._open_kind, 0 if shown is None else len(shown.shown))
        if isinstance(meant, Verdict):
            self._sitting.answer(meant)
            self._go_on()
        elif meant.name == "quit":
            return False
        else:
            self._do(meant)
        return True

    def _do(self, command: Command) -> None:
        self._commands[command.name](command.words)

    # -- commands -----------------------------------------------------------------------------------

    def _undo(self, words: str) -> None:
        if not self._sitting.undo():
            raise Unclear("There is nothing to take back.")
        self._go_on()

    def _redo(self, words: str) -> None:
        if not self._sitting.redo():
            raise Unclear("There is nothing to give again.")
        self._go_on()

    def _note(self, words: str) -> None:
        self._require_open()
        self._sitting.note = words
        self._say("Noted; it is stored with your answer." if words else "No note.")

    def _flag(self, words: str) -> None:
        self._require_open()
        self._sitting.flags = reasons(words)
        flags = ", ".join(self._sitting.flags)
        self._say(f"Flagged: {flags}; it is stored with your answer." if flags else "No flags.")

    def _edit(self, words: str) -> None:
        self._require_open()
        shown = self._sitting.shown
        assert shown is not None
        place = place_of(words, shown.kind, len(shown.shown))
        name = names(shown.kind, len(shown.shown))[place]
        self._say(f"Write the better answer to take the place of {name}; a line with a single dot ends it.")
        text = self._written()
        if not text.strip():
            raise Unclear("Nothing was written, so nothing is kept.")
        self._sitting.edit(place, text)
        self._say(f"Kept: your version is better than {name}. Now your answer to what was shown:")

    def _history(self, words: str) -> None:
        entries = self._store.history(self._sitting.rater.id, limit=number_of(words, _HISTORY))
        if not entries:
            raise Unclear("No answers yet.")
        self._say("\n".join(f"{number}  {_described(entry)}" for number, entry in enumerate(entries, 1)))

    def _reopen(self, words: str) -> None:
        entry = self._entry(words)
        self._sitting.reopen(entry.judgement_id)
        self._say(f"It was: {_described(entry)}. A new answer replaces it.")
        self._read_out()

    def _gold(self, words: str) -> None:
        entry = self._entry(words)
        gold = self._sitting.gold(entry.judgement_id)
        self._say(f"{'Gold' if gold else 'No longer gold'}: {_described(entry)}")

    def _stats(self, words: str) -> None:
        self._say(label_stats(project_report(self._store), self._sitting.rater.handle))

    def _guideline(self, words: str) -> None:
        found = self._store.guideline()
        if found is None:
            raise Unclear("There is no guideline yet; the labelling screen writes one.")
        self._say(f"Guideline, version {found.version}:\n{found.body_md.strip()}\n")

    def _again(self, words: str) -> None:
        self._sitting.look()  # while nothing was open, new tasks may have come
        self._read_out()

    def _entry(self, words: str) -> HistoryEntry:
        """The answer of that number, 1 being the newest. Raises Unclear when there are not so many."""
        number = number_of(words)
        entries = self._store.history(self._sitting.rater.id, limit=number)
        if len(entries) < number:
            raise Unclear(f"There are only {len(entries)} answers." if entries else "No answers yet.")
        return entries[number - 1]

    def _require_open(self) -> None:
        if self._sitting.shown is None:
            raise Unclear("Nothing is open: u takes the last answer back, 'reopen 1' opens it again.")

    def _go_on(self) -> None:
        """Say what was understood, and read out what comes now."""
        self._say(f"{self._sitting.last[:1].upper()}{self._sitting.last[1:]}.")
        self._read_out()

    # -- reading and writing ------------------------------------------------------------------------

    def _read_out(self) -> None:
        shown = self._sitting.shown
        if shown is None:
            self._say(f"\nNo {_TASKS[self._kind]} are left. u takes the last answer back, q leaves.")
            return
        self._say(f"\n{self._sitting.left_over} to go.")
        *earlier, last = shown.prompt.messages
        for turn in earlier:
            self._say(_hanging(turn.role, turn.content))
        self._say(_hanging("Prompt", last.content))
        for name, candidate in zip(names(shown.kind, len(shown.shown)), shown.shown, strict=True):
            self._say("\n" + _hanging(name, candidate.text))
        self._say("")

    def _written(self) -> str:
        """The lines up to one with a single dot. Of a line of more dots one is taken off, so that any text can be
        written. Raises Unclear when the input ends before."""
        lines: list[str] = []
        while (line := self._next_line("")) is not None:
            if line == ".":
                return "\n".join(lines)
            lines.append(line[1:] if line.strip(".") == "" and line else line)
        raise Unclear("The input ended before the single dot, so nothing is kept.")

    def _next_line(self, mark: str) -> str | None:
        """The next line without its end; None at the end of the input."""
        self._out.write(mark)
        self._out.flush()
        line = self._source.readline()
        if not line:
            self._say("")
            return None
        return line.rstrip("\r\n")

    def _say(self, text: str) -> None:
        self._out.write(clean(text) + "\n")


def _described(entry: HistoryEntry) -> str:
    """An answer of the history as one line: what was said, to what, and what goes with it."""
    said = f"{described(entry.verdict, entry.kind)}: {one_line(clean(entry.prompt), _PROMPT_WIDTH)}"
    note = f"note: {' '.join(entry.note.split())}" if entry.note else ""
    flags = f"flags: {', '.join(entry.flags)}" if entry.flags else ""
    return "; ".join(part for part in (said, note, flags, "gold" if entry.gold else "") if part)


def _hanging(name: str, text: str) -> str:
    """'A: text' with the further lines set in, so that no line of a model's text can pass for a candidate's name."""
    return f"{name}: " + "\n".join(clean(text).splitlines()).replace("\n", "\n   ")
