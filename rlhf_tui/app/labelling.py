"""A sitting of one rater at the pairs: what is shown, what was answered, how long it takes. No Textual.

The 300 ms after a pair appears do not count: a key that is still being held, or was meant for the pair
before, must not judge the next one unread.
"""

from __future__ import annotations

import getpass
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from rlhf_tui.preferences.queue import next_task, remaining
from rlhf_tui.preferences.store import Presentation, Rater, Store

Answer = Literal["left", "right", "tie", "both_bad", "skip"]

#: Seconds after a pair appears during which answers are ignored.
GUARD = 0.3
#: A pause longer than this says nothing about the pace.
IDLE = 300.0


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
    """One rater judging pairs until there are none left or they have had enough."""

    def __init__(
        self, store: Store, rater: Rater, *, columns: int, rows: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.rater = rater
        self.note = ""
        self.last = ""
        self.layout = "side-by-side"
        self.pair: Presentation | None = None
        self.left_over = 0
        self._clock = clock
        self._shown_at = clock()
        self._times: deque[float] = deque(maxlen=20)
        self._session = store.start_session(rater.id, columns=columns, rows=rows)
        self.judged = store.counts(rater.id).judgements
        self.advance()

    @property
    def total(self) -> int:
        """Pairs judged and pairs still to come."""
        return self.judged + self.left_over

    @property
    def too_early(self) -> bool:
        """Whether the pair has only just appeared."""
        return self._clock() - self._shown_at < GUARD

    @property
    def seconds_each(self) -> float:
        """Median seconds for a pair in this sitting; NaN before the first."""
        return statistics.median(self._times) if self._times else float("nan")

    def advance(self) -> None:
        """Show the next pair; `pair` is None when none is left."""
        task = next_task(self.store, self.rater.id)
        self.left_over = remaining(self.store, self.rater.id)
        if task is None:
            self.pair = None
            return
        self._show(
            self.store.present(task, rater_id=self.rater.id, session_id=self._session, layout=self.layout),
        )

    def answer(self, answer: Answer, strength: int) -> bool:
        """Record an answer to the pair on show and go on; False when it came too early or there is no pair."""
        pair = self.pair
        if pair is None or self.too_early:
            return False
        took = self._clock() - self._shown_at
        winner = {"left": pair.left.id, "right": pair.right.id}.get(answer)
        self.store.judge(
            pair.id,
            outcome="ordered" if winner is not None else answer,
            winner_id=winner,
            strength=strength,
            note=self.note,
            latency_ms=round(took * 1000),
        )
        if took < IDLE:
            self._times.append(took)
        self.last = described(answer, strength) + ("  with a note" if self.note else "")
        self._recount()
        self.advance()
        return True

    def undo(self) -> bool:
        """Take the newest answer back and show its pair again; False when there is none."""
        pair = self.store.undo(self.rater.id)
        if pair is None:
            return False
        self.last = "taken back"
        self._recount()
        self._show(pair)
        return True

    def redo(self) -> bool:
        """Let the answer taken back hold again and go on; False when there is none."""
        if self.store.redo(self.rater.id) is None:
            return False
        self.last = "given again"
        self._recount()
        self.advance()
        return True

    def close(self) -> None:
        """End the sitting. The store stays open: the caller opened it."""
        self.store.end_session(self._session)

    def _show(self, pair: Presentation) -> None:
        self.pair = pair
        self.note = ""
        self._shown_at = self._clock()

    def _recount(self) -> None:
        self.judged = self.store.counts(self.rater.id).judgements
        self.left_over = remaining(self.store, self.rater.id)


def described(answer: Answer, strength: int) -> str:
    """An answer in words: 'A much better', 'tie', 'both bad', 'skipped'."""
    if answer in ("left", "right"):
        side = "A" if answer == "left" else "B"
        return f"{side} {'much ' if strength > 1 else ''}better"
    return {"tie": "tie", "both_bad": "both bad", "skip": "skipped"}[answer]
