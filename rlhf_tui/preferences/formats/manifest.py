"""The manifest beside every export: what the file is, whose judgements it holds, under which guideline, what is
missing from it and why, and how to use it.

A person who has not agreed to be named is called by a stable pseudonym, and their card stays here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import rlhf_tui
from rlhf_tui.preferences import database
from rlhf_tui.preferences.formats.writers.registry import Format
from rlhf_tui.preferences.formats.writers.sources import Material, Tally
from rlhf_tui.preferences.records import Judged, Prompt, Rater

_LICENCE = ("licence:", "license:")


def manifest(
    format: Format, material: Material, tally: Tally, *, file: str, sha256: str, snapshot: str, rows: int, use: str
) -> bytes:
    """The manifest of a written file, as JSON."""
    used = [judged for judged in material.judged if judged.id in tally.judgements]
    prompts = {prompt.id: prompt for prompt in material.prompts}
    about = [prompts[prompt_id] for prompt_id in tally.prompts]
    content = {
        "tool": "rlhf-tui",
        "version": rlhf_tui.__version__,
        "created_at": database.now(),
        "file": file,
        "sha256": sha256,
        "format": format.name,
        "how_to_use": use + _warning(len(tally.heldout), len(about)),
        "snapshot_sha256": snapshot,
        "rows": rows,
        "split": material.split,
        "heldout_prompts": len(tally.heldout),
        "rows_by_split": _by_split(tally.prompts, prompts),
        "judgements": len(used),
        "pairs": sum(tally.weights.values()),
        "pairs_by_weight": {f"{weight:.6g}": count for weight, count in sorted(tally.weights.items(), reverse=True)},
        "ties": tally.ties,
        "left_out": dict(tally.left_out.most_common()),
        "raters": _raters(used),
        "guidelines": _guidelines(used, material.guidelines),
        "prompts": _sources(about),
    }
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _warning(heldout: int, prompts: int) -> str:
    """What a trainer's user must know of held-out prompts, on a line that configuration files take for a comment."""
    if not heldout:
        return ""
    return (
        f"\n# Attention: held-out prompts in this file: {heldout} of {prompts}. This project measures with them: "
        "a model that was trained on them looks better than it is. For training export with --split train."
    )


def _by_split(rows: Mapping[int, int], prompts: Mapping[int, Prompt]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for prompt_id, count in rows.items():
        found[prompts[prompt_id].split] += count
    return dict(sorted(found.items()))


def _raters(used: Iterable[Judged]) -> list[dict[str, Any]]:
    """Who judged, the busiest first."""
    counts: Counter[str] = Counter()
    raters: dict[str, Rater] = {}
    for judged in used:
        counts[judged.rater.uid] += 1
        raters[judged.rater.uid] = judged.rater
    return [_rater(raters[uid], count) for uid, count in counts.most_common()]


def _rater(rater: Rater, judgements: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": rater.public_name, "kind": rater.kind, "judgements": judgements}
    if rater.public_card:
        found["card"] = rater.public_card
    return found


def _guidelines(used: Iterable[Judged], guidelines: Mapping[int, tuple[int, str]]) -> list[dict[str, Any]]:
    """The guidelines that were in force; version null: none was."""
    counts = Counter(guidelines.get(judged.id) for judged in used)
    return [
        {"version": None, "sha256": None, "judgements": count}
        if which is None
        else {"version": which[0], "sha256": which[1], "judgements": count}
        for which, count in sorted(counts.items(), key=lambda one: one[0] or (0, ""))
    ]


def _sources(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Where the prompts came from; the licence is that of a tag 'licence:…', where there is one."""
    counts = Counter((prompt.source, _licence(prompt.tags)) for prompt in prompts)
    return [
        {"source": source, "licence": licence, "prompts": count} for (source, licence), count in counts.most_common()
    ]


def _licence(tags: Iterable[str]) -> str | None:
    named = (tag.partition(":")[2].strip() for tag in tags if tag.lower().startswith(_LICENCE))
    return next((licence for licence in named if licence), None)
