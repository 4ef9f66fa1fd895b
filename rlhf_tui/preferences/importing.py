"""One judgement of a file becomes a prompt, two candidates, a task and a judgement."""

from __future__ import annotations

from typing import Literal

from rlhf_tui.preferences import judging, people, texts
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.identity import uid
from rlhf_tui.preferences.records import Completion, ImportedCandidate, ImportedLabel, NewCompletion

Imported = Literal["added", "changed", "duplicate"]


def import_judgement(db: Database, label: ImportedLabel, *, rater_id: int, heldout_fraction: float) -> Imported:
    """Add one imported judgement. The same one again is a 'duplicate' and changes nothing.

    A different answer of the same rater to the same pair is 'changed': both stay, the newer one
    is active. A prompt that is there keeps its split. Raises UsageError for a malformed prompt.
    """
    with db.transaction():
        prompt_id, _ = texts.add_prompt(db, label.prompt, heldout_fraction=heldout_fraction)
        left, right = (_completion(db, prompt_id, candidate) for candidate in label.candidates)
        task_id = texts.add_task(db, left, right)
        winner_id = None if label.better is None else (left, right)[label.better].id
        identity = _identity(db, label, task_id=task_id, rater_id=rater_id, winner_id=winner_id)
        standing = db.row(
            "SELECT outcome, winner_id, strength FROM active_judgement WHERE task_id = ? AND rater_id = ?",
            task_id,
            rater_id,
        )
        strength = label.strength if label.outcome == "ordered" else 0
        same = standing is not None and tuple(standing) == (label.outcome, winner_id, strength)
        if same or db.row("SELECT 1 FROM judgement WHERE uid = ?", identity) is not None:
            return "duplicate"
        presentation_id = judging.add_presentation(
            db,
            task_id,
            rater_id=rater_id,
            session_id=None,
            left_id=left.id,
            right_id=right.id,
            layout=label.layout,
        )
        judging.judge(
            db,
            presentation_id,
            outcome=label.outcome,
            winner_id=winner_id,
            strength=label.strength,
            note=label.note,
            latency_ms=None,
            uid=identity,
        )
    return "added" if standing is None else "changed"


def _identity(db: Database, label: ImportedLabel, *, task_id: int, rater_id: int, winner_id: int | None) -> str:
    (task,) = db.rows("SELECT uid FROM task WHERE id = ?", task_id)
    handle = people.rater_by_id(db, rater_id).handle
    winner = None if winner_id is None else texts.completion(db, winner_id).uid
    return uid("judgement", handle, task["uid"], label.outcome, winner, label.strength)


def _completion(db: Database, prompt_id: int, candidate: ImportedCandidate) -> Completion:
    """The completion of that text: the first the prompt has (the one pairs are made of), or a new one.

    Matching by text lets a project read its own export again without a second copy of everything.
    """
    texts.check_text(candidate.text)
    known = db.row(
        "SELECT id FROM completion WHERE prompt_id = ? AND text = ? ORDER BY id LIMIT 1",
        prompt_id,
        candidate.text,
    )
    if known is not None:
        return texts.completion(db, known["id"])
    generation_id = None
    if candidate.generation is not None:
        temperature, top_p, max_new_tokens, system_prompt = candidate.generation
        generation_id = texts.add_generation(
            db, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, system_prompt=system_prompt
        )
    new = NewCompletion(
        prompt_id,
        texts.add_model(db, candidate.model, "import", sha="", facts={}),
        generation_id,
        candidate.text,
        candidate.n_tokens,
        candidate.finish_reason,
        candidate.seed,
    )
    (completion_id,) = texts.add_completions(db, [new])
    return texts.completion(db, completion_id)
