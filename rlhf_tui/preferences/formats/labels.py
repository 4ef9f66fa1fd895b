"""Our own line for one judgement ('rlhf-tui'): everything needed to read it again elsewhere.

    {"prompt": "…" or "messages": […], "split"?, "tags"?,
     "candidates": [{"text", "n_tokens"?, "finish_reason"?, "model"?, "seed"?,
                     "generation"?: {"temperature", "top_p", "max_new_tokens", "system_prompt"}}, {…}],
     "outcome": "ordered" | "tie" | "both_bad", "better": 0 | 1 (only for ordered),
     "strength"?: 1 | 2 (2 = much better), "note"?: "…", "rater"?: "handle"}

The candidates stand in the order the rater saw them, left first.
"""

from __future__ import annotations

import sys
from typing import Any

from rlhf_tui.preferences.formats.lines import Malformed, choice, text, whole
from rlhf_tui.preferences.formats.prompts import as_prompt
from rlhf_tui.preferences.records import Completion, Generation, ImportedCandidate, ImportedLabel, Judged

OUTCOMES = ("ordered", "tie", "both_bad")


def read(row: dict[str, Any], *, source: str) -> ImportedLabel:
    """One line as a judgement. Raises Malformed."""
    candidates = row.get("candidates")
    if not isinstance(candidates, list) or len(candidates) != 2:
        raise Malformed("'candidates' must be a list of two.")
    outcome = choice(row, "outcome", OUTCOMES)
    if outcome is None:
        raise Malformed(f"'outcome' is missing; known are {', '.join(OUTCOMES)}.")
    better, strength = whole(row, "better"), whole(row, "strength")
    if (better is not None) != (outcome == "ordered") or better not in (None, 0, 1):
        raise Malformed("'better' must be 0 or 1 when the outcome is 'ordered', and absent otherwise.")
    if strength not in (None, 1, 2):
        raise Malformed("'strength' must be 1 (better) or 2 (much better).")
    rater = row.get("rater")
    if rater is not None and not text(row, "rater").strip():
        raise Malformed("'rater' must not be empty.")
    return ImportedLabel(
        as_prompt({key: row[key] for key in ("messages", "prompt", "split", "tags") if key in row}, source=source),
        (_candidate(candidates[0]), _candidate(candidates[1])),
        outcome,
        better,
        strength or 1,
        text(row, "note", ""),
        rater,
    )


def _candidate(row: Any) -> ImportedCandidate:
    if not isinstance(row, dict):
        raise Malformed("A candidate must be an object with a 'text'.")
    generation = row.get("generation")
    reason = row.get("finish_reason")
    return ImportedCandidate(
        text(row, "text"),
        whole(row, "n_tokens"),
        None if reason is None else text(row, "finish_reason"),
        text(row, "model", "imported"),
        whole(row, "seed"),
        None if generation is None else _generation(generation),
    )


def _generation(row: Any) -> tuple[float, float, int, str]:
    if not isinstance(row, dict):
        raise Malformed("'generation' must be an object.")
    tokens = whole(row, "max_new_tokens")
    if tokens is None:
        raise Malformed("'max_new_tokens' must be a whole number.")
    return _number(row, "temperature"), _number(row, "top_p"), tokens, text(row, "system_prompt", "")


def _number(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise Malformed(f"{key!r} must be a number.")
    return float(value)


def write(judged: Judged, generations: dict[int, Generation]) -> dict[str, Any]:
    """One judgement as a line; optional fields that say nothing are left out."""
    turns = judged.prompt.messages
    single = len(turns) == 1
    row: dict[str, Any] = {"prompt": turns[0].content} if single else {"messages": conversation(judged)}
    row["split"] = judged.prompt.split
    if judged.prompt.tags:
        row["tags"] = list(judged.prompt.tags)
    row["candidates"] = [_written(side, generations) for side in (judged.left, judged.right)]
    row["outcome"] = judged.outcome
    if judged.winner_id is not None:
        row["better"] = 0 if judged.winner_id == judged.left.id else 1
        row["strength"] = judged.strength
    if judged.note:
        row["note"] = judged.note
    row["rater"] = judged.rater
    return row


def conversation(judged: Judged) -> list[dict[str, str]]:
    """The prompt as a list of messages."""
    return [{"role": message.role, "content": message.content} for message in judged.prompt.messages]


def _written(side: Completion, generations: dict[int, Generation]) -> dict[str, Any]:
    row: dict[str, Any] = {"text": side.text}
    for key in ("n_tokens", "finish_reason", "model", "seed"):
        if getattr(side, key) is not None:
            row[key] = getattr(side, key)
    if side.generation_id is not None:
        how = generations[side.generation_id]
        row["generation"] = {
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_new_tokens": how.max_new_tokens,
            "system_prompt": how.system_prompt,
        }
    return row
