"""One judgement of a file becomes a prompt, its candidates, a task and a judgement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from rlhf_tui.preferences import judging, people, reading, tasks, texts
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.identity import uid
from rlhf_tui.preferences.records import Completion, ImportedCandidate, ImportedLabel, NewCompletion, Verdict

Imported = Literal["added", "changed", "duplicate"]


def import_judgement(db: Database, label: ImportedLabel, *, rater_id: int, heldout_fraction: float) -> Imported:
    """Add one imported judgement. The same one again is a 'duplicate' and changes nothing.

    A different answer of the same rater to the same task is 'changed': both stay, the newer one
    is active. A prompt that is there keeps its split. Raises UsageError for a malformed prompt,
    ValueError for candidates with the same text or a verdict that does not fit them.
    """
    judging.check_verdict(label.verdict, label.kind, len(label.candidates))
    if len({candidate.text for candidate in label.candidates}) < len(label.candidates):
        raise ValueError("an imported judgement has the same candidate twice")
    with db.transaction():
        prompt_id, _ = texts.add_prompt(db, label.prompt, heldout_fraction=heldout_fraction)
        shown = [_completion(db, prompt_id, candidate) for candidate in label.candidates]
        task_id = tasks.add_task(db, label.kind, shown)
        standing = reading.answer(db, rater_id, task_id, "label")
        ids = [completion.id for completion in shown]
        if standing is not None and said(standing.shown, standing.verdict) == said(ids, label.verdict):
            return "duplicate"
        rater = people.rater_by_id(db, rater_id)
        identity = uid("judgement", rater.uid, label.kind, said([one.uid for one in shown], label.verdict))
        if db.row("SELECT 1 FROM judgement WHERE uid = ?", identity) is not None:
            return "duplicate"
        presentation_id = judging.add_presentation(
            db,
            task_id,
            rater_id=rater_id,
            session_id=None,
            purpose="label",
            order=ids,
            layout=label.layout,
            selection="import",
        )
        judging.judge(
            db,
            presentation_id,
            label.verdict,
            note=label.note,
            flags=label.flags,
            latency_ms=label.latency_ms,
            uid=identity,
        )
    return "added" if standing is None else "changed"


def said(candidates: Sequence[int] | Sequence[str], verdict: Verdict) -> str:
    """What a verdict says of each candidate, whatever the order they stood in, as a canonical text."""
    marks = verdict.ranks or verdict.ratings or verdict.accepted or (0,) * len(candidates)
    of_each = sorted((str(one), int(mark)) for one, mark in zip(candidates, marks, strict=True))
    return json.dumps([verdict.outcome, verdict.strength, of_each])


def _completion(db: Database, prompt_id: int, candidate: ImportedCandidate) -> Completion:
    """The completion of that text: the first the prompt has (the one tasks are made of), or a new one.

    Matching by text lets a project read its own export again without a second copy of everything.
    """
    texts.check_text(candidate.text)
    known = db.row(
        f"{texts.COMPLETIONS} WHERE c.prompt_id = ? AND c.text = ? ORDER BY c.id LIMIT 1", prompt_id, candidate.text
    )
    if known is not None:
        return Completion(*known)
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
