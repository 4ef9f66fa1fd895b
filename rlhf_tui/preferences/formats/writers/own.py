"""Our own line for one judgement ('rlhf-tui'): all that is known of it.

    {"prompt": "…" or "messages": […], "split", "tags"?, "kind": "pair" | "rank" | "rate" | "accept",
     "candidates": [{"text", "n_tokens"?, "finish_reason"?, "model"?, "seed"?,
                     "generation"?: {"temperature", "top_p", "max_new_tokens", "system_prompt"}}, …],
     "outcome": "ordered" | "tie" | "both_bad" | "rated" | "accepted",
     "ranks"?, "ratings"?, "accepted"?, "strength"?: 1 | 2 (2 = much better), "note"?, "flags"?,
     "rater", "rater_uid", "layout", "latency_ms"?, "guideline"?: its sha256, "created_at"}

The candidates stand in the order the rater saw them (layout 'unordered': it is not known), and so does what was
said of each. Optional fields that say nothing are left out. A person who has not agreed to be named is called by
a stable pseudonym. Reading a line again brings back all of it but two: `created_at` (of a judgement that was
imported itself: when it came in) and `guideline` (the one on screen), which are for readers of the file.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlhf_tui.preferences.formats.writers.shapes import Row, conversation
from rlhf_tui.preferences.records import Completion, Generation, Judged

USE = (
    "rlhf-tui labels import {file}  # All but the time of judging and the guideline comes back; "
    "'rlhf-tui labels merge' brings those too, from a copy of the project."
)


def line(judged: Judged, generations: Mapping[int, Generation], guideline: str | None) -> Row:
    """One judgement with all that is known of it; `guideline` is the hash of the one in force."""
    turns, verdict = judged.prompt.messages, judged.verdict
    alone = len(turns) == 1 and turns[0].role == "user"
    row: Row = {"prompt": turns[0].content} if alone else {"messages": conversation(turns)}
    row |= {"split": judged.prompt.split, "tags": list(judged.prompt.tags), "kind": judged.kind}
    row["candidates"] = [_candidate(one, generations) for one in judged.shown]
    row |= {
        "outcome": verdict.outcome,
        "ranks": list(verdict.ranks),
        "ratings": list(verdict.ratings),
        "accepted": list(verdict.accepted),
        "strength": verdict.strength or None,
        "note": judged.note,
        "flags": list(judged.flags),
        "rater": judged.rater.public_name,
        "rater_uid": judged.rater.uid,
        "layout": judged.layout,
        "latency_ms": judged.latency_ms,
        "guideline": guideline,
        "created_at": judged.created_at,
    }
    return {key: value for key, value in row.items() if value not in (None, "", [])}


def _candidate(one: Completion, generations: Mapping[int, Generation]) -> Row:
    row: Row = {"text": one.text}
    for key in ("n_tokens", "finish_reason", "model", "seed"):
        if getattr(one, key) is not None:
            row[key] = getattr(one, key)
    if one.generation_id is not None:
        how = generations[one.generation_id]
        row["generation"] = {
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_new_tokens": how.max_new_tokens,
            "system_prompt": how.system_prompt,
        }
    return row
