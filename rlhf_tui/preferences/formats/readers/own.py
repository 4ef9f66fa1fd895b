"""Our own line for one judgement ('rlhf-tui'): everything needed to read it again elsewhere.

    {"prompt": "…" or "messages": […], "split"?, "tags"?, "kind"?: "pair" | "rank" | "rate" | "accept",
     "candidates": [{"text", "n_tokens"?, "finish_reason"?, "model"?, "seed"?,
                     "generation"?: {"temperature", "top_p", "max_new_tokens", "system_prompt"}}, …],
     "outcome", "ranks"?, "ratings"?, "accepted"?, "strength"?, "note"?, "flags"?, "rater"?, "rater_uid"?,
     "layout"?, "latency_ms"?, "guideline"?, "created_at"?}

The candidates stand in the order the rater saw them, unless the layout is 'unordered'; it is 'file' where none is
named. When the judgement was given (`created_at`) and by which guideline stays in the file: the store dates a
judgement by when it came in. Lines of version 0.1 say `better` (0 or 1, only for 'ordered') in place of `ranks`,
and know pairs only.
"""

from __future__ import annotations

import sys
from typing import Any

from rlhf_tui.preferences.formats.fields import (
    DISCARDED,
    SKIPPED,
    Malformed,
    Unusable,
    choice,
    objects,
    text,
    texts,
    whole,
)
from rlhf_tui.preferences.formats.prompts import as_prompt
from rlhf_tui.preferences.formats.readers.building import Context, Found
from rlhf_tui.preferences.judging import check_verdict
from rlhf_tui.preferences.records import FLAGS, KINDS, OUTCOMES, ImportedCandidate, ImportedLabel, Verdict, prefer, tied

_PROMPT = ("messages", "prompt", "split", "tags")
_LEFT_OUT = {"skip": SKIPPED, "discard": DISCARDED}


def read(row: dict[str, Any], context: Context) -> list[Found]:
    """One line as a judgement. Raises Malformed, and Unusable for a task that was left undecided."""
    outcome = choice(row, "outcome", OUTCOMES)
    if outcome is None:
        raise Malformed(f"'outcome' is missing; known are {', '.join(OUTCOMES)}.")
    if outcome in _LEFT_OUT:
        raise Unusable(_LEFT_OUT[outcome])
    kind = choice(row, "kind", KINDS) or "pair"
    candidates = tuple(_candidate(one) for one in objects(row, "candidates"))
    verdict = _verdict(row, kind, outcome, len(candidates))
    try:
        check_verdict(verdict, kind, len(candidates))
    except ValueError as error:
        raise Malformed(f"{error}.") from None
    if len(candidates) < (2 if kind in ("pair", "rank") else 1) or (kind == "pair" and len(candidates) > 2):
        raise Malformed(f"'candidates' of kind {kind!r} cannot be {len(candidates)}.")
    prompt = as_prompt({key: row[key] for key in _PROMPT if key in row}, source=context.origin)
    return [
        ImportedLabel(
            prompt,
            candidates,
            kind,
            verdict,
            note=text(row, "note", ""),
            flags=_flags(row),
            rater=_name(row, "rater"),
            rater_uid=_name(row, "rater_uid"),
            layout=_name(row, "layout") or "file",
            latency_ms=whole(row, "latency_ms"),
        )
    ]


def _verdict(row: dict[str, Any], kind: str, outcome: str, candidates: int) -> Verdict:
    strength = whole(row, "strength")
    if strength not in (None, 0, 1, 2):
        raise Malformed("'strength' must be 1 (better) or 2 (much better).")
    if outcome == "ordered" and "ranks" not in row:
        better = whole(row, "better")
        if better not in (0, 1):
            raise Malformed("'ranks' is missing, and 'better' (its older form for pairs) is not 0 or 1.")
        return prefer(better, strength or 1)
    if row.get("better") is not None:
        raise Malformed("'better' is for the outcome 'ordered' only.")
    if outcome == "tie" and "ranks" not in row:
        return tied(candidates)
    return Verdict(
        outcome,
        ranks=tuple(_list(row, "ranks", int)),
        ratings=tuple(_list(row, "ratings", int)),
        accepted=tuple(_list(row, "accepted", bool)),
        strength=(strength or 1) if outcome == "ordered" and kind == "pair" else 0,
    )


def _list(row: dict[str, Any], key: str, kind: type) -> list[Any]:
    value = row.get(key) or []
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise Malformed(f"{key!r} must be a list of {'true and false' if kind is bool else 'whole numbers'}.")
    return value


def _flags(row: dict[str, Any]) -> tuple[str, ...]:
    flags = texts(row, "flags")
    unknown = [flag for flag in flags if flag not in FLAGS]
    if unknown:
        raise Malformed(f"'flags' holds {unknown[0]!r}; known are {', '.join(FLAGS)}.")
    return flags


def _name(row: dict[str, Any], key: str) -> str | None:
    if row.get(key) is None:
        return None
    name = text(row, key)
    if not name.strip():
        raise Malformed(f"{key!r} must not be empty.")
    return name


def _candidate(row: dict[str, Any]) -> ImportedCandidate:
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
