"""The store of people's judgements: one SQLite file a project, and the one door to it.

Every public write is one transaction on disk (WAL, synchronous=FULL): a killed program leaves
either all of it or nothing. Errors a user can act on are raised as `UserError`. A store belongs
to the thread that opened it.

The work is done by `texts` (prompts, completions, pairs), `people` (raters, guideline, sessions),
`judging` (showing, answering, undo), `reading` (what it amounts to) and `importing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rlhf_tui
from rlhf_tui.preferences import database, importing, judging, people, reading, texts
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.records import (
    Added,
    Completion,
    Counts,
    Generation,
    Guideline,
    HistoryEntry,
    ImportedLabel,
    Judged,
    LabelledPair,
    Message,
    NewCompletion,
    NewPrompt,
    Presentation,
    Prompt,
    Rater,
)

__all__ = [
    "Added",
    "Completion",
    "Counts",
    "Generation",
    "Guideline",
    "HistoryEntry",
    "Judged",
    "LabelledPair",
    "Message",
    "NewCompletion",
    "NewPrompt",
    "Presentation",
    "Prompt",
    "Rater",
    "Store",
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

    def make_pair_tasks(self, prompt_id: int) -> int:
        """Offer the completions of a prompt as pairs; return how many tasks are new. Safe to repeat.

        Empty and identical texts are left out; K texts give floor(K/2) disjoint pairs.
        """
        return texts.make_pair_tasks(self.database, prompt_id)

    # People

    def guideline(self) -> Guideline | None:
        """The guideline in force, or None."""
        return people.guideline(self.database)

    def set_guideline(self, body_md: str) -> Guideline:
        """Put a guideline in force. The same text is the same version."""
        return people.set_guideline(self.database, body_md)

    def add_rater(self, handle: str, *, kind: str = "human", card: dict[str, Any] | None = None) -> Rater:
        """The rater of that handle, made when new; a card replaces the one that was there.

        `kind`: 'human', 'import', 'rule' or 'model'. Raises UsageError when the handle belongs to another kind.
        """
        return people.add_rater(self.database, handle, kind=kind, card=card)

    def raters(self) -> list[Rater]:
        """Every rater, in the order they came."""
        return people.raters(self.database)

    def rater(self, handle: str) -> Rater | None:
        """The rater of that handle, or None."""
        return people.rater(self.database, handle)

    def start_session(self, rater_id: int, *, columns: int, rows: int) -> int:
        """Begin a sitting at a terminal of `columns` x `rows` characters; return its id."""
        return people.start_session(self.database, rater_id, columns=columns, rows=rows)

    def end_session(self, session_id: int) -> None:
        """End a sitting; ending it twice changes nothing."""
        people.end_session(self.database, session_id)

    # Judging

    def present(self, task_id: int, *, rater_id: int, session_id: int, layout: str) -> Presentation:
        """Record that a pair is about to be shown, then return it. The same rater sees the same sides again."""
        return judging.present(self.database, task_id, rater_id=rater_id, session_id=session_id, layout=layout)

    def judge(
        self,
        presentation_id: int,
        *,
        outcome: str,
        winner_id: int | None = None,
        strength: int = 1,
        note: str = "",
        latency_ms: int,
    ) -> int:
        """Record an answer; return its id. `outcome`: 'ordered' (with the better completion's id),
        'tie', 'both_bad' or 'skip'; `strength` 1 (better) or 2 (much better).

        A later answer to the same task replaces this one. Raises ValueError for an answer that makes no sense.
        """
        return judging.judge(
            self.database,
            presentation_id,
            outcome=outcome,
            winner_id=winner_id,
            strength=strength,
            note=note,
            latency_ms=latency_ms,
        )

    def undo(self, rater_id: int) -> Presentation | None:
        """Take back the rater's newest answer given on screen; return what to show again, or None."""
        return judging.undo(self.database, rater_id)

    def redo(self, rater_id: int) -> Presentation | None:
        """Let the answer taken back last hold again; return its presentation, or None."""
        return judging.redo(self.database, rater_id)

    def history(self, rater_id: int, limit: int = 5) -> list[HistoryEntry]:
        """The rater's last active answers given on screen, newest first."""
        return judging.history(self.database, rater_id, limit)

    def import_judgement(self, label: ImportedLabel, *, rater_id: int, heldout_fraction: float) -> importing.Imported:
        """Add one judgement of a file with its prompt and candidates, as part of an open transaction."""
        return importing.import_judgement(self.database, label, rater_id=rater_id, heldout_fraction=heldout_fraction)

    # Reading

    def judgements(self, rater_id: int | None = None, split: str | None = None) -> list[Judged]:
        """Active judgements, skips included, in the order they were given."""
        return reading.judgements(self.database, rater_id, split)

    def pairs(self, split: str | None = None) -> list[LabelledPair]:
        """What training reads: ordered pairs and ties that are active, in the order they were judged."""
        return reading.pairs(self.database, split)

    def counts(self, rater_id: int | None = None) -> Counts:
        """How much there is of everything; the judgements of one rater if named."""
        return reading.counts(self.database, rater_id)

    def snapshot_hash(self) -> str:
        """SHA-256 over the active judgements: what a run records as its labels."""
        return reading.snapshot_hash(self.database)
