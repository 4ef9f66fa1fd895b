"""A sitting of one rater at the candidates: what is shown, what was answered, how long it takes. No Textual.

The 300 ms after candidates appear do not count: a key that is still being held, or was meant for the ones
before, must not judge the next unread.
"""

from __future__ import annotations

import getpass
import statistics
import time
from collections import deque
from collections.abc import Callable

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import DECIDED, Fact, Presentation, Rater, Verdict
from rlhf_tui.preferences.store import Store
from rlhf_tui.settings import LabelSettings

#: Seconds after candidates appear during which answers are ignored.
GUARD = 0.3
#: A pause longer than this says nothing about the pace.
IDLE = 300.0


def rules_of(settings: LabelSettings) -> Rules:
    """How a sitting chooses, as the project's settings say."""
    return Rules(
        kind=settings.mode,
        size=2 if settings.mode == "pair" else settings.candidates,
        repeat_share=settings.repeat_share,
        active_share=settings.active_share,
        max_similarity=settings.max_similarity,
    )


def own_rater(store: Store) -> Rater:
    """The first human rater of the project, or a new one named after the login."""
    human = next((rater for rater in store.raters() if rater.kind == "human"), None)
    return human or store.add_rater(_free_handle(store), kind="human")


def _free_handle(store: Store) -> str:
    try:
        login = getpass.getuser()
    except (OSError, KeyError, ImportError):
        login = ""
    handle = login if login and login != "root" else "you"
    return handle if store.rater(handle) is None else f"{handle}-human"


class Sitting:
    """One rater judging until nothing is left or they have had enough.

    Whatever fails while an answer is stored, `shown`, `note` and `flags` stay as they are: the answer can
    be given again.
    """

    def __init__(
        self,
        store: Store,
        rater: Rater,
        *,
        rules: Rules,
        columns: int,
        rows: int,
        clock: Callable[[], float] = time.monotonic,
        guard: float = GUARD,
        layout: str = "side-by-side",
    ) -> None:
        self.store = store
        self.rater = rater
        self.rules = rules
        self.note = ""
        self.flags: tuple[str, ...] = ()
        self.last = ""
        self.layout = layout
        self.shown: Presentation | None = None
        self._clock = clock
        self._guard = guard
        self._shown_at = clock()
        self._put_aside: dict[int, tuple[str, tuple[str, ...]]] = {}  # by task: a note and flags without an answer
        self._times: deque[float] = deque(maxlen=20)
        self._session = store.start_session(rater.id, columns=columns, rows=rows)
        self._queue = Queue(store, rater, rules)
        self.advance()

    @property
    def facts(self) -> list[Fact]:
        """This rater's active answers, oldest first: what the statistics are made of."""
        return self._queue.facts

    @property
    def judged(self) -> int:
        """How many tasks of this kind the rater has decided; repeats and own better versions do not count."""
        return sum(
            fact.kind == self.rules.kind
            and fact.purpose == "label"
            and fact.selection != "edit"
            and fact.verdict.outcome in DECIDED
            for fact in self.facts
        )

    @property
    def left_over(self) -> int:
        """How many tasks of this kind still wait for this rater."""
        return self._queue.remaining

    @property
    def total(self) -> int:
        """Tasks judged and tasks still to come."""
        return self.judged + self.left_over

    @property
    def begun(self) -> bool:
        """Whether there is a note or a flag, here or on a task that has been left, that no answer was given with."""
        return bool(self._put_aside) or (self.shown is not None and bool(self.note or self.flags))

    @property
    def too_early(self) -> bool:
        """Whether the candidates have only just appeared."""
        return self._clock() - self._shown_at < self._guard

    @property
    def seconds_each(self) -> float:
        """Median seconds for an answer in this sitting; NaN before the first."""
        return statistics.median(self._times) if self._times else float("nan")

    def advance(self) -> None:
        """Show what comes next; `shown` is None when nothing is left."""
        offer = self._queue.next()
        if offer is None:
            self._put_on(None)
            return
        self._show(
            self.store.present(
                offer.task_id,
                rater_id=self.rater.id,
                session_id=self._session,
                layout=self.layout,
                purpose=offer.purpose,
                selection=offer.selection,
            )
        )

    def look(self) -> bool:
        """Take notice of what others have written; show what has come when nothing was. True: show it anew."""
        self._queue.catch_up()
        if self.shown is not None:
            return False
        self.advance()
        return self.shown is not None

    def answer(self, verdict: Verdict) -> bool:
        """Record a verdict on what is shown and go on; False when it came too early or nothing is shown.

        A skip, too, is a verdict. Raises UserError when it cannot be stored, or when it is stored and the
        next candidates cannot be shown; `shown` tells which: it is None in the second case.
        """
        shown = self.shown
        if shown is None or self.too_early:
            return False
        took = self._clock() - self._shown_at
        self.store.judge(shown.id, verdict, note=self.note, flags=self.flags, latency_ms=round(took * 1000))
        # The answer is on disk; from here on it must not be given a second time, whatever fails.
        self.shown = None
        if took < IDLE:
            self._times.append(took)
        extras = [name for name, there in (("a note", self.note), ("a flag", self.flags)) if there]
        self.last = described(verdict, shown.kind) + (f"  with {' and '.join(extras)}" if extras else "")
        try:
            self._queue.refresh(shown.task_id, shown.purpose)
            self.advance()
        except UserError as error:
            raise UserError(
                "Your answer is stored, but what comes next cannot be shown.",
                why=f"{error.what} {error.why}".strip(),
                todo=error.todo.removesuffix("Nothing was changed.").strip(),
            ) from error
        return True

    def undo(self) -> bool:
        """Take the newest answer back and show it again; False when there is none."""
        taken = self.store.undo(self.rater.id)
        if taken is None:
            return False
        self.last = "taken back"
        self._queue.refresh(taken.task_id, taken.purpose)
        if taken.selection == "edit":
            self.last = "edited answer taken back"
        else:
            self._show(taken)
        return True

    def redo(self) -> bool:
        """Let the answer taken back hold again and go on; False when there is none."""
        given = self.store.redo(self.rater.id)
        if given is None:
            return False
        self.last = "given again"
        self._queue.refresh(given.task_id, given.purpose)
        if given.selection != "edit":
            self.advance()
        return True

    def reopen(self, judgement_id: int) -> None:
        """Show what an earlier judgement of this rater was about; the next answer replaces it.

        Raises ValueError for a judgement that is not an active one of this rater.
        """
        if judgement_id not in {fact.judgement_id for fact in self.facts}:
            raise ValueError(f"judgement {judgement_id} is not an active one of {self.rater.handle}")
        self._show(self.store.reopen(judgement_id))

    def edit(self, place: int, text: str) -> None:
        """Store a better version of the candidate at `place`, and that it is better; the same stays on show.

        Raises UserError when it cannot be stored or is no change.
        """
        if self.shown is None:
            return
        better = self.store.edit(self.shown.shown[place].id, text, rater_id=self.rater.id, session_id=self._session)
        self.last = "better version stored"
        self._queue.refresh(better.task_id, better.purpose)

    def gold(self, judgement_id: int) -> bool:
        """Declare an answer the known right one, or no longer; True when it is gold now."""
        return self.store.mark_gold(judgement_id)

    def close(self) -> None:
        """End the sitting. The store stays open: the caller opened it."""
        self.store.end_session(self._session)

    def _show(self, shown: Presentation) -> None:
        self._put_on(shown)
        self._shown_at = self._clock()

    def _put_on(self, shown: Presentation | None) -> None:
        """What was begun about a task that goes without an answer waits until the task comes back."""
        if self.shown is not None and (self.note or self.flags):
            self._put_aside[self.shown.task_id] = (self.note, self.flags)
        self.shown = shown
        self.note, self.flags = self._put_aside.pop(shown.task_id, ("", ())) if shown else ("", ())


class SecondLook(Sitting):
    """A sitting about one earlier judgement: it is shown as it was then, and once it is answered nothing follows."""

    def __init__(
        self,
        store: Store,
        rater: Rater,
        *,
        judgement_id: int,
        rules: Rules,
        columns: int,
        rows: int,
        clock: Callable[[], float] = time.monotonic,
        layout: str = "side-by-side",
    ) -> None:
        """Raises UserError when the judgement is not an active one of this rater."""
        self._judgement_id: int | None = judgement_id
        super().__init__(store, rater, rules=rules, columns=columns, rows=rows, clock=clock, layout=layout)

    def advance(self) -> None:
        """Show the judgement the first time, and nothing after that."""
        judgement_id, self._judgement_id = self._judgement_id, None
        if judgement_id is None:
            self.shown = None
            return
        try:
            self.reopen(judgement_id)
        except ValueError:
            self.close()
            raise no_longer_counts() from None


def no_longer_counts() -> UserError:
    """A judgement that somebody wants to give again has been replaced or taken back."""
    return UserError(
        "This judgement no longer counts.",
        why="It has been given again or taken back since the report was made.",
        todo="What counts now is in the history of the labelling screen.",
    )


def described(verdict: Verdict, kind: str) -> str:
    """A verdict in words: 'A much better', '2 1 = 3', 'both bad', 'skipped'."""
    if verdict.outcome in ("skip", "discard"):
        return {"skip": "skipped", "discard": "discarded"}[verdict.outcome]
    if verdict.outcome == "both_bad":
        return "both bad" if kind == "pair" else "all bad"
    if verdict.outcome == "tie":
        return "tie"
    if kind == "pair":
        side = "A" if verdict.ranks[0] == 1 else "B"
        return f"{side} {'much ' if verdict.strength > 1 else ''}better"
    if verdict.ratings:
        return "rated " + " ".join(map(str, verdict.ratings))
    if verdict.accepted:
        return " ".join("yes" if yes else "no" for yes in verdict.accepted)
    levels = sorted(set(verdict.ranks))
    return "  ".join(
        "=".join(str(place + 1) for place, rank in enumerate(verdict.ranks) if rank == level) for level in levels
    )
