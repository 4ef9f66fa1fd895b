"""The store of people's judgements: one SQLite file a project, and the one door to it.

Every public write is one transaction on disk (WAL, synchronous=FULL): a killed program leaves
either all of it or nothing. Errors a user can act on are raised as `UserError`. A store belongs
to the thread that opened it.

The work is done by `texts` (prompts, completions), `tasks` (what is offered together), `people` (raters,
guideline, sessions), `judging` (showing, answering, undo), `reading` (what it amounts to), `importing` and
`merging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rlhf_tui
from rlhf_tui.preferences import database, importing, judging, merging, people, reading, tasks, texts
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.records import (
    Added,
    Completion,
    Counts,
    Fact,
    Generation,
    Guideline,
    HistoryEntry,
    ImportedLabel,
    Judged,
    LabelledPair,
    Merged,
    Message,
    NewCompletion,
    NewPrompt,
    Presentation,
    Prompt,
    Rater,
    Verdict,
)

__all__ = [
    "Added",
    "Completion",
    "Counts",
    "Fact",
    "Generation",
    "Guideline",
    "HistoryEntry",
    "Judged",
    "LabelledPair",
    "Merged",
    "Message",
    "NewCompletion",
    "NewPrompt",
    "Presentation",
    "Prompt",
    "Rater",
    "Store",
    "Verdict",
]

PATIENCE = 5.0  # seconds to wait for another program that is writing


class Store:
    """An open preference store; a context manager that closes itself."""

    def __init__(self, opened: Database) -> None:
        """Use `Store.create` or `Store.open`."""
        self.database = opened

    @classmethod
    def create(cls, path: Path, *, name: str, seed: int) -> Store:
        """Make a new store. Raises UsageError when `path` exists, UserError when it cannot be made."""
        opened = database.create(path, patience=PATIENCE)
        try:
            opened.insert(
                "INSERT INTO project(id, name, seed, tool_version, created_at) VALUES(1, ?, ?, ?, ?)",
                name,
                seed,
                rlhf_tui.__version__,
                database.now(),
            )
        except BaseException:
            opened.close()
            path.unlink()
            raise
        return cls(opened)

    @classmethod
    def open(cls, path: Path, *, patience: float = PATIENCE) -> Store:
        """Open a store; `patience` is how many seconds to wait for a lock.

        Raises UsageError when it is missing, not ours, or written by a newer version.
        """
        return cls(database.open_existing(path, patience=patience))

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The project's name."""
        return str(self.database.rows("SELECT name FROM project")[0][0])

    @property
    def seed(self) -> int:
        """The seed that decides splits, sides and the order of tasks."""
        return texts.seed_of(self.database)

    def transaction(self) -> AbstractContextManager[None]:
        """Several writes, all or nothing."""
        return self.database.transaction()

    # Prompts

    def add_prompts(self, rows: Iterable[NewPrompt], *, heldout_fraction: float) -> Added:
        """Add prompts; one that is there already (same messages) stays as it is, split included.

        A prompt without a split gets one by a stable hash of its uid and the project's seed.
        Raises UsageError, and adds none, when one is empty or malformed.
        """
        return texts.add_prompts(self.database, rows, heldout_fraction=heldout_fraction)

    def prompts(self, split: str | None = None) -> list[Prompt]:
        """All prompts, or those of 'train' or 'heldout', in the order they were added."""
        return texts.prompts(self.database, split)

    def prompt(self, prompt_id: int) -> Prompt:
        """One prompt. Raises UsageError when there is none of that id."""
        return texts.prompt(self.database, prompt_id)

    # Completions and tasks

    def add_model(self, name: str, kind: str, *, sha: str = "", **facts: object) -> int:
        """The id of a model; the same (name, kind, sha) is the same model.

        `kind`: 'base', 'sft', 'policy', 'human' or 'import'. `facts` (path, revision, …) are kept as JSON.
        """
        return texts.add_model(self.database, name, kind, sha=sha, facts=facts)

    def add_generation(self, *, temperature: float, top_p: float, max_new_tokens: int, system_prompt: str) -> int:
        """The id of these sampling settings; the same settings are the same row."""
        return texts.add_generation(
            self.database,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            system_prompt=system_prompt,
        )

    def generation(self, generation_id: int) -> Generation:
        """The sampling settings of one generation."""
        return texts.generation(self.database, generation_id)

    def add_completions(self, rows: Iterable[NewCompletion]) -> list[int]:
        """Add completions, texts as they are; return their ids. The same draw twice is one completion."""
        return texts.add_completions(self.database, rows)

    def completions(self, prompt_id: int) -> list[Completion]:
        """The completions of one prompt, in the order they were added."""
        return texts.completions(self.database, prompt_id)

    def completions_by_prompt(self) -> dict[int, int]:
        """How many completions each prompt has, by prompt id; prompts without any are left out."""
        return texts.completions_by_prompt(self.database)

    def make_tasks(self, prompt_id: int, *, kind: str = "pair", size: int = 2, max_similarity: float = 0.9) -> int:
        """Offer the completions of a prompt together; return how many tasks are new. Safe to repeat.

        Empty texts and those more alike than `max_similarity` (see `tasks.similarity`) are left out; K texts
        give floor(K/2) disjoint pairs, or groups of `size` of another kind.
        """
        return tasks.make_tasks(self.database, prompt_id, kind=kind, size=size, max_similarity=max_similarity)

    def pairs_with(self, completion_ids: Sequence[int]) -> int:
        """How many pairs in the queue offer one of these completions, or two."""
        return tasks.pairs_with(self.database, completion_ids)

    def near_duplicates(self, completion_ids: Sequence[int]) -> int:
        """How many of these completions are offered to nobody, because they are too like another one."""
        return tasks.near_duplicates(self.database, completion_ids)

    def set_scores(self, run: str, scores: Mapping[int, float]) -> None:
        """Keep what the reward model of a run thinks of completions (id to score), in place of older scores."""
        texts.set_scores(self.database, run, scores)

    def scores(self) -> dict[int, float]:
        """The reward model's newest score of each scored completion, by id."""
        return texts.scores(self.database)

    # People

    def guideline(self) -> Guideline | None:
        """The guideline in force, or None."""
        return people.guideline(self.database)

    def set_guideline(self, body_md: str) -> Guideline:
        """Put a guideline in force. The same text is the same version."""
        return people.set_guideline(self.database, body_md)

    def add_rater(
        self, handle: str, *, kind: str = "human", card: dict[str, Any] | None = None, uid: str | None = None
    ) -> Rater:
        """The rater of that handle, made when new (with that uid, if given); a card replaces the one there.

        `kind`: 'human', 'import', 'rule' or 'model'. Raises UsageError when the handle belongs to another kind.
        """
        return people.add_rater(self.database, handle, kind=kind, card=card, identity=uid)

    def raters(self) -> list[Rater]:
        """Every rater, in the order they came."""
        return people.raters(self.database)

    def judging_raters(self) -> list[Rater]:
        """The raters who have said something, in the order they came."""
        return reading.judging_raters(self.database)

    def rater(self, handle: str) -> Rater | None:
        """The rater of that handle, or None."""
        return people.rater(self.database, handle)

    def set_consent(self, rater_id: int, consent: bool) -> Rater:
        """Record whether a rater's handle and card may leave the project."""
        return people.set_consent(self.database, rater_id, consent)

    def rename_rater(self, rater_id: int, handle: str) -> Rater:
        """Give a rater another handle. Raises UsageError when it is taken."""
        return people.rename_rater(self.database, rater_id, handle)

    def rater_by_uid(self, uid: str) -> Rater | None:
        """The rater of that uid, or None."""
        return people.rater_by_uid(self.database, uid)

    def start_session(self, rater_id: int, *, columns: int, rows: int) -> int:
        """Begin a sitting at a terminal of `columns` x `rows` characters; return its id."""
        return people.start_session(self.database, rater_id, columns=columns, rows=rows)

    def end_session(self, session_id: int) -> None:
        """End a sitting; ending it twice changes nothing."""
        people.end_session(self.database, session_id)

    # Judging

    def present(
        self,
        task_id: int,
        *,
        rater_id: int,
        session_id: int,
        layout: str,
        purpose: str = "label",
        selection: str = "random",
    ) -> Presentation:
        """Record that candidates are about to be shown, then return them; always in the same order to the same rater.

        `purpose` 'repeat' reverses the order. `selection` says why this task: see `records.Fact`.
        """
        return judging.present(
            self.database,
            task_id,
            rater_id=rater_id,
            session_id=session_id,
            layout=layout,
            purpose=purpose,
            selection=selection,
        )

    def judge(
        self, presentation_id: int, verdict: Verdict, *, note: str = "", flags: Sequence[str] = (), latency_ms: int
    ) -> int:
        """Record a verdict, in the order of what was shown; return its id.

        A later answer to the same task replaces this one. Raises ValueError for a verdict that makes no sense.
        """
        return judging.judge(self.database, presentation_id, verdict, note=note, flags=flags, latency_ms=latency_ms)

    def edit(self, completion_id: int, text: str, *, rater_id: int, session_id: int) -> Fact:
        """Store a person's better version of a completion, and the judgement that it is better.

        Raises UsageError for a text that is empty or unchanged.
        """
        task_id = judging.edit(self.database, completion_id, text, rater_id=rater_id, session_id=session_id)
        given = self.answer(rater_id, task_id, "label")
        assert given is not None
        return given

    def undo(self, rater_id: int) -> Presentation | None:
        """Take back the rater's newest answer given on screen; return what to show again, or None."""
        return judging.undo(self.database, rater_id)

    def redo(self, rater_id: int) -> Presentation | None:
        """Let the answer taken back last hold again; return its presentation, or None."""
        return judging.redo(self.database, rater_id)

    def reopen(self, judgement_id: int) -> Presentation:
        """What was shown for a judgement, in the same order; judging it again replaces the old answer."""
        return judging.reopen(self.database, judgement_id)

    def mark_gold(self, judgement_id: int) -> bool:
        """Declare an answer the known right one for its task, or no longer; True when it is gold now."""
        return judging.mark_gold(self.database, judgement_id)

    def gold(self) -> dict[int, int]:
        """The tasks whose answer is known: task id to the id of the judgement that says it."""
        return reading.gold(self.database)

    def history(self, rater_id: int, limit: int = 5) -> list[HistoryEntry]:
        """The rater's last active answers given on screen, newest first."""
        return reading.history(self.database, rater_id, limit)

    # Other files

    def import_judgement(self, label: ImportedLabel, *, rater_id: int, heldout_fraction: float) -> importing.Imported:
        """Add one judgement of a file with its prompt and candidates, as part of an open transaction."""
        return importing.import_judgement(self.database, label, rater_id=rater_id, heldout_fraction=heldout_fraction)

    def merge(self, other: Path) -> Merged:
        """Take over everything another copy of the project holds and this one does not, all or nothing.

        The other file is only read. Raises UsageError when it is no store.
        """
        return merging.merge(self.database, other)

    # Reading

    def changed(self) -> bool:
        """Whether another program has written to the store since this was asked last."""
        return self.database.changed()

    def facts(self, rater_id: int | None = None) -> list[Fact]:
        """Active judgements without their texts, skips and repeats included, in the order they were given."""
        return reading.facts(self.database, rater_id)

    def answer(self, rater_id: int, task_id: int, purpose: str) -> Fact | None:
        """The active answer of a rater to a task ('label') or to its repeat ('repeat'), or None."""
        return reading.answer(self.database, rater_id, task_id, purpose)

    def judgements(self, rater_id: int | None = None, split: str | None = None) -> list[Judged]:
        """Active judgements with their texts, skips and repeats included, in the order they were given."""
        return reading.judgements(self.database, rater_id, split)

    def pairs(self, split: str | None = None) -> list[LabelledPair]:
        """What training reads: every pair that active judgements imply, repeats left out, in the order of judging."""
        return reading.pairs(self.database, split)

    def waiting_pairs(self, limit: int) -> list[tuple[Prompt, tuple[Completion, ...]]]:
        """At most `limit` pairs nobody has decided: the first of every prompt, then the second ones, and so on."""
        return reading.waiting_pairs(self.database, limit)

    def counts(self, rater_id: int | None = None) -> Counts:
        """How much there is of everything; the judgements of one rater if named."""
        return reading.counts(self.database, rater_id)

    def snapshot_hash(self) -> str:
        """SHA-256 over the active judgements: what a run records as its labels."""
        return reading.snapshot_hash(self.database)
