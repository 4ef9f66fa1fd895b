"""The project as the app sees it: labels, runs and which stage comes next. Free of Textual.

`Overview.poll` is called twice a second. It looks at the folder, reads what is new in the journals within
a time budget, and says whether anything changed. It never writes.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from rlhf_tui.app.keytable import STAGES
from rlhf_tui.app.state import RunState
from rlhf_tui.errors import UserError
from rlhf_tui.models import is_here
from rlhf_tui.preferences.store import Counts, Rater, Store
from rlhf_tui.project import Project
from rlhf_tui.runs.ending import Ending, ending, exit_pending
from rlhf_tui.runs.folder import RunFolder, list_runs
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.saved import KEEPS_NOTHING
from rlhf_tui.runs.turn import WITHOUT_MODEL
from rlhf_tui.settings import Settings

#: Which kind of run belongs to which stage.
KIND_OF_STAGE = {
    "model": "download",
    "pairs": "generate",
    "reward": "reward",
    "ppo": "ppo",
    "compare": "compare",
    "export": "export",
}
STAGE_OF_KIND = {kind: stage for stage, kind in KIND_OF_STAGE.items()}
ALIVE = ("running", "paused", "queued")
BROKEN = ("failed", "crashed")
BROKEN_OFF = (*BROKEN, "stopped")
#: So many judgements are usually enough to train on, whether or not more pairs wait.
ENOUGH = 100
_MOMENT = 5.0  # seconds
_CATCHING_UP = 0.2  # seconds of reading at a look: a key waits no longer than that

_NEXT: dict[str | None, str] = {
    "pairs": "Press 2 for the pairs: generate candidates there, and judge them.",
    "reward": "Press 3 to train the reward model on your judgements.",
    "ppo": "Press 4 to move the model towards higher scores.",
    "compare": "Press 5 to measure what changed on held-out prompts.",
    "export": "Press 6 to write the tuned model for other programs.",
    None: "Every stage is done. Press 6 to see where the model lies, or 2 to judge more pairs.",
}


@dataclass
class Watched:
    """A run and what its journal has told so far."""

    folder: RunFolder
    reader: JournalReader
    state: RunState = field(default_factory=RunState)
    status: str = "new"
    end: Ending | None = None
    _gone_since: float | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def alive(self) -> bool:
        return self.status in ALIVE

    @property
    def waits(self) -> bool:
        """Whether it was stopped or broke off, and kept something to go on from."""
        return self.status in BROKEN_OFF and self.folder.kind not in KEEPS_NOTHING

    def read(self, budget: float) -> bool:
        """Fold what is new in the journal; True when the status or the state moved."""
        before = (self.status, self.state, self.state.revision)
        self.status = self._status()
        if self.status != before[0]:
            self.end = ending(self.folder)
        deadline = time.monotonic() + budget
        while self._fold() and time.monotonic() < deadline:
            pass
        return before != (self.status, self.state, self.state.revision)

    def _fold(self) -> bool:
        """Take in the next piece of the journal, a small one: folding counts, too. False when that was the end."""
        resets = self.reader.resets
        events = self.reader.read(budget=0)
        if self.reader.resets != resets:
            self.state = RunState()
        for stamped in events:
            self.state.apply(stamped)
        return not self.reader.caught_up

    def _status(self) -> str:
        """How the run fares; one whose worker has just died counts as alive until it is noted how, for a moment."""
        status = self.folder.status()
        if status != "crashed" or not self.alive or not exit_pending(self.folder):
            self._gone_since = None
            return status
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        return self.status if now < self._gone_since + _MOMENT else status


class Overview:
    """Everything the screens show about one project."""

    def __init__(self, project: Project, *, follow: RunFolder | None = None) -> None:
        self.project = project
        self.settings: Settings | None = None
        self.problem: UserError | None = None
        self.counts = Counts(*[0] * len(fields(Counts)))
        self.raters: list[Rater] = []  # those who have judged
        self.runs: dict[str, Watched] = {}
        self.demo = Watched(follow, JournalReader(follow.events_path)) if follow else None
        self._names: frozenset[str] = frozenset()
        self._folders: dict[str, list[RunFolder]] = {}  # by kind, oldest first
        self._seen: dict[str, object] = {}

    def poll(self, budget: float = 0.05) -> bool:
        """Look again; True when anything changed. Reading journals takes at most about `budget` seconds.

        Or longer, while there is much to catch up with: a run of a day is read in half a minute then.
        """
        changed = self._look_at_labels()
        return self.poll_runs(max(budget, _CATCHING_UP) if self.behind else budget) or changed

    def poll_runs(self, budget: float = 0.05) -> bool:
        """`poll` without the labels: while somebody is labelling, counting them all would cost after every key."""
        deadline = time.monotonic() + budget
        changed = self._look_for_runs()
        changed |= self._look_at_settings()
        for run in sorted(self._watched(), key=lambda item: not item.alive):
            changed |= run.read(max(deadline - time.monotonic(), 0.002))
        return changed

    @property
    def behind(self) -> Watched | None:
        """A run whose journal has not been read to its end yet, or None."""
        return next((run for run in self._watched() if not run.reader.caught_up), None)

    def _watched(self) -> list[Watched]:
        return [*([self.demo] if self.demo else []), *self.runs.values()]

    def run(self, stage: str) -> Watched | None:
        """The newest run of a stage; while that one waits, the one of this stage that is at work."""
        return self.runs.get(KIND_OF_STAGE.get(stage, ""))

    @property
    def model_here(self) -> bool:
        """Whether the project's model can be loaded without the network. Some looks at the disk."""
        return self.settings is not None and is_here(self.settings.model)

    @property
    def labels_seen(self) -> object:
        """Something that is equal as long as the labels have not been written to since the last `poll`."""
        return self._seen.get("labels")

    @property
    def live(self) -> Watched | None:
        """The run that is going on: a stage's own, or the demo that is between two stages."""
        going_on = [run for run in self.runs.values() if run.alive]
        if going_on:
            return min(going_on, key=lambda run: run.status == "queued")  # one that works, before one that waits
        return self.demo if self.demo and self.demo.alive else None

    def steered(self, stage: str) -> Watched | None:
        """The run that takes pause, save and stop: the stage's own if it is alive, or what goes on.

        A demo is steered as a whole.
        """
        demo = self.demo if self.demo and self.demo.alive else None
        own = self.run(stage)
        if own is not None and own.alive and not (demo and _is_part(own.folder, demo.folder)):
            return own
        return demo or self.live

    def unfinished(self, stage: str) -> Watched | None:
        """The run of a stage that can be taken up; for a part of a demo, or before it came so far, the demo."""
        own, demo = self.run(stage), self.demo
        if demo is not None and (own is None or (own.waits and _is_part(own.folder, demo.folder))):
            own = demo
        return own if own is not None and own.waits else None

    def in_the_way(self, stage: str) -> Watched | None:
        """The run that keeps a stage from being started: its own, or whichever has the model if none is to wait."""
        own = self.run(stage)
        if own is not None and own.alive:
            return own
        waits = self.settings is not None and self.settings.run.when_busy == "wait"
        other = self.live
        if waits or other is None or {KIND_OF_STAGE[stage], other.folder.kind} & WITHOUT_MODEL:
            return None
        return other

    def mark(self, stage: str) -> str:
        """How far a stage is: 'running', 'done', 'broken' or 'open'."""
        run = self.run(stage)
        if run and run.alive:
            return "running"
        if run and run.status in BROKEN and not (stage == "model" and self.model_here):
            return "broken"
        return "done" if self._is_done(stage, run) else "open"

    def first_stage(self) -> str:
        """Where the app opens: the live run's stage, or else the first unfinished one."""
        live = self.live
        if live and live.folder.kind in STAGE_OF_KIND:
            return STAGE_OF_KIND[live.folder.kind]
        return next((name for name, _ in STAGES if self.mark(name) != "done"), STAGES[-1][0])

    def followed_stage(self) -> str | None:
        """The stage the demo is in, or None before its first."""
        stage = self.demo.state.stage if self.demo else None
        return STAGE_OF_KIND.get(stage.name) if stage else None

    def next_step(self) -> str:
        """What to do next, with the key to press."""
        live = self.live
        if live and live.folder.kind in STAGE_OF_KIND:
            return f"{live.name} is going on: press {_key(STAGE_OF_KIND[live.folder.kind])} to watch it."
        if not self.counts.prompts:
            return "Press 2, then i to import prompts from a file, or w to write one. Then generate candidates there."
        open_still = [name for name, _ in STAGES[1:] if self.mark(name) != "done"]
        if self.counts.judgements >= ENOUGH or self.mark("reward") == "done":
            open_still = [name for name in open_still if name != "pairs"]  # pairs that wait keep nobody from going on
        if not open_still:
            return _NEXT[None]
        stage = open_still[0]
        waits = self.unfinished(stage)
        return f"{waits.name} did not finish: press {_key(stage)}, then r to go on with it." if waits else _NEXT[stage]

    def missing(self, stage: str) -> UserError | None:
        """What must be there before a stage can start; None when it can."""
        if self.problem:
            return self.problem
        if stage == "pairs" and not self.counts.prompts:
            return UserError(
                "There is nothing to generate from yet.",
                why="The project holds no prompts.",
                todo="Press 2, then i to import some from a file, or w to write one.",
            )
        if stage == "reward" and not self.counts.teaching:
            return UserError(
                "There is nothing to learn from yet.",
                why="No pair has been judged.",
                todo="Press 2, then l, and judge some pairs; or import labels with 'rlhf-tui labels import FILE'.",
            )
        needs = {"ppo": "reward", "compare": "ppo", "export": "ppo"}.get(stage)
        if needs and not self._adapter_there({"reward": "reward", "ppo": "policy"}[needs]):
            return UserError(
                {"reward": "There is no reward model yet.", "ppo": "There is no tuned model yet."}[needs],
                why={"reward": "PPO needs one to score completions.", "ppo": "No PPO run has finished."}[needs],
                todo={"reward": "Press 3 and train it.", "ppo": "Press 4 and start a PPO run."}[needs],
            )
        return None

    def _adapter_there(self, role: str) -> bool:
        return (self.project.adapter(role) / "manifest.json").is_file()

    def _is_done(self, stage: str, run: Watched | None) -> bool:
        if stage == "model":
            begun = self.counts.prompts > 0 or any(kind != "download" for kind in self.runs)
            return self.problem is None and (begun or (run is not None and run.status == "finished"))
        if stage == "pairs":
            return self.counts.judgements > 0 and self.counts.pairs_waiting == 0
        return run is not None and run.status == "finished"

    def _look_for_runs(self) -> bool:
        changed = self._list_runs()
        for kind, folders in self._folders.items():
            shown = _shown(folders)
            # A demo run found in the folder plays the same part as one the app was told to follow.
            known = self.demo if kind == "demo" else self.runs.get(kind)
            if known is not None and known.name == shown.name:
                continue
            changed = True
            watched = Watched(shown, JournalReader(shown.events_path))
            if kind == "demo":
                self.demo = watched
            else:
                self.runs[kind] = watched
        return changed

    def _list_runs(self) -> bool:
        try:
            names = frozenset(os.listdir(self.project.runs))
        except OSError:
            names = frozenset()
        if names == self._names:
            return False
        self._names, self._folders = names, {}
        for run in list_runs(self.project):
            self._folders.setdefault(run.kind, []).append(run)
        return True

    def _look_at_settings(self) -> bool:
        if not self._moved("settings", self.project.config):
            return False
        try:
            self.settings, self.problem = self.project.settings(), None
        except UserError as error:
            self.problem = error
        return True

    def _look_at_labels(self) -> bool:
        database = self.project.database
        if not self._moved("labels", database, database.with_name(database.name + "-wal")):
            return False
        try:
            with Store.open(self.project.database, patience=0.1) as store:
                self.counts = store.counts()
                self.raters = store.judging_raters()
        except (UserError, sqlite3.Error):
            self._seen.pop("labels", None)
            return False
        return True

    def _moved(self, what: str, *paths: Path) -> bool:
        now = tuple(_stamp(path) for path in paths)
        moved = self._seen.get(what) != now
        self._seen[what] = now
        return moved


def _shown(folders: Sequence[RunFolder]) -> RunFolder:
    """Of all runs of a kind the newest, unless an older one is at work and the newest is not."""
    newest = folders[-1]
    if newest.status() in ("new", "running"):
        return newest
    alive = [
        (ALIVE.index(status), run.number, run) for run in folders if run.alive and (status := run.status()) in ALIVE
    ]
    return min(alive, key=lambda item: item[:2])[2] if alive else newest


def _key(stage: str) -> int:
    return [name for name, _ in STAGES].index(stage) + 1


def _is_part(run: RunFolder, whole: RunFolder) -> bool:
    try:
        return run.record.parents.get("demo") == whole.name
    except UserError:
        return False


def how_it_ended(run: Watched) -> UserError | str:
    """The end of a demo: a sentence, or the error to show."""
    done = run.state.done
    if done and done.error:
        return UserError(done.error.get("what", ""), why=done.error.get("why", ""), todo=done.error.get("todo", ""))
    if done:
        words = {"finished": "The whole loop is done. 5 shows what changed.", "stopped": "The demo was stopped."}
        return words.get(done.status, done.status)
    if run.end is None:
        return f"{run.name} goes on."
    todo = f"{run.end.todo}\nWhat the finished stages made is still there."
    return UserError(run.end.what, why=run.end.why, todo=todo)


def _stamp(path: Path) -> tuple[int, int] | None:
    """When a file was written and its size. An empty one is like none: whoever only reads the labels makes one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found.st_size else None
