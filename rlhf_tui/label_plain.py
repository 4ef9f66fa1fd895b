"""Judging line by line, without the app: for a screen reader, a slow line, or a script.

Reads one answer a line, and stores what was shown and what was said as the labelling screen does.
Blind as it is there: neither the source nor any score of a candidate is shown.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from rlhf_tui.app.labelling import Answer, described, own_rater
from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.queue import next_task, remaining
from rlhf_tui.preferences.records import Presentation, Rater
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project

# The letters are the keys of the labelling screen.
ANSWERS: dict[str, tuple[Answer, int]] = {
    "d": ("left", 2),
    "a much": ("left", 2),
    "f": ("left", 1),
    "a": ("left", 1),
    "=": ("tie", 1),
    "tie": ("tie", 1),
    "j": ("right", 1),
    "b": ("right", 1),
    "k": ("right", 2),
    "b much": ("right", 2),
    "x": ("both_bad", 1),
    "both bad": ("both_bad", 1),
    "s": ("skip", 1),
    "skip": ("skip", 1),
}
UNDO = ("u", "undo")
QUIT = ("q", "quit")
_KEYS = (
    "d A much better   f A better   = tie   j B better   k B much better\nx both bad   s skip   u take back   q leave"
)


@dataclass(frozen=True)
class Left:
    """How things stand when a rater leaves: this rater's active judgements and skips, and the pairs still to come."""

    rater: str
    judgements: int
    skipped: int
    pairs_left: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        return (
            f"{self.judgements} judgements by {self.rater}, {self.skipped} pairs skipped, {self.pairs_left} left.\n"
            "Next: 'rlhf-tui train reward', or 'rlhf-tui label' to go on."
        )


def label_plain(
    project: Project, handle: str, *, source: TextIO, out: TextIO, clock: Callable[[], float] = time.monotonic
) -> Left:
    """Let a rater judge pairs, answers from `source`, until none is left, 'q' or the end of the input.

    `handle` empty: the project's own human rater. Raises UsageError, before anything is written, when
    no pair waits for this rater or the name belongs to a rater that is not a person.
    """
    with project.store() as store:
        known = store.rater(handle) if handle else next((one for one in store.raters() if one.kind == "human"), None)
        if not _waiting(store, known):
            raise UsageError("No pair waits for a judgement.", todo="Sample candidates with 'rlhf-tui generate'.")
        rater = store.add_rater(handle, kind="human") if handle else own_rater(store)
        size = shutil.get_terminal_size()
        session = store.start_session(rater.id, columns=size.columns, rows=size.lines)
        try:
            _Sitting(store, rater, session, source, out, clock).judge_all()
        finally:
            store.end_session(session)
        counts = store.counts(rater.id)
        return Left(rater.handle, counts.judgements, counts.skipped, remaining(store, rater.id))


def _waiting(store: Store, rater: Rater | None) -> int:
    """Pairs that a new sitting of this rater would offer; what the last one skipped comes back. None: somebody new."""
    if rater is None:
        return remaining(store, 0)
    return remaining(store, rater.id) + store.counts(rater.id).skipped


class _Sitting:
    """One rater, one answer a line."""

    def __init__(
        self, store: Store, rater: Rater, session: int, source: TextIO, out: TextIO, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._rater = rater
        self._session = session
        self._source = source
        self._out = out
        self._clock = clock

    def judge_all(self) -> None:
        guideline = self._store.guideline()
        if guideline is not None:
            self._say(f"Guideline, version {guideline.version}:\n{guideline.body_md.strip()}\n")
        self._say(_KEYS)
        pair = self._next()
        while True:
            shown_at = self._clock()
            self._show(pair)
            word = self._ask(pair)
            if word in QUIT:
                return
            if word in UNDO:
                back = self._store.undo(self._rater.id)
                self._say("Taken back." if back is not None else "There is nothing to take back.")
                pair = back or pair
            elif pair is not None:
                self._judge(pair, *ANSWERS[word], latency=self._clock() - shown_at)
                pair = self._next()

    def _next(self) -> Presentation | None:
        task = next_task(self._store, self._rater.id)
        if task is None:
            return None
        return self._store.present(task, rater_id=self._rater.id, session_id=self._session, layout="stacked")

    def _judge(self, pair: Presentation, answer: Answer, strength: int, *, latency: float) -> None:
        winner = {"left": pair.left.id, "right": pair.right.id}.get(answer)
        self._store.judge(
            pair.id,
            outcome="ordered" if winner is not None else answer,
            winner_id=winner,
            strength=strength,
            latency_ms=round(latency * 1000),
        )
        self._say(described(answer, strength))

    def _show(self, pair: Presentation | None) -> None:
        if pair is None:
            self._say("\nNo pair is left. u takes the last answer back, q leaves.")
            return
        *earlier, last = pair.prompt.messages
        turns = "".join(f"{turn.role}: {turn.content}\n" for turn in earlier)
        self._say(f"\n-- {remaining(self._store, self._rater.id)} to go --\nPrompt: {turns}{last.content}")
        self._say(f"\nA: {pair.left.text}\n\nB: {pair.right.text}\n")

    def _ask(self, pair: Presentation | None) -> str:
        """The next word that means something now; the end of the input means leaving."""
        known = {*UNDO, *QUIT, *(ANSWERS if pair is not None else ())}
        while True:
            self._out.write("> ")
            self._out.flush()
            line = self._source.readline()
            word = " ".join(line.lower().split())
            if not line:
                self._say("")
                return QUIT[0]
            if word in known:
                return word
            if word:
                self._say(f"{word!r} is not an answer. {nearest(word, known)}".rstrip())
            self._say(_KEYS)

    def _say(self, text: str) -> None:
        self._out.write(clean(text) + "\n")
