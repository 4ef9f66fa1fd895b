"""Groups of candidates: put together from single rows, and freed of what cannot be in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from rlhf_tui.preferences.formats.fields import EMPTY, IDENTICAL
from rlhf_tui.preferences.formats.readers.building import order
from rlhf_tui.preferences.records import ImportedLabel, Verdict

EMPTY_ONE = f"{EMPTY} of a group, which is kept without it"
SAME_ONE = "a candidate that is twice in a group, which is kept with the first"

_Item = TypeVar("_Item")


def gather(labels: Iterable[ImportedLabel]) -> Iterator[ImportedLabel]:
    """Marks of single candidates that follow each other become one task when prompt, kind and rater are the same.

    A text that the task has already begins a new one, so that a second answer about it is not lost.
    """
    task: list[ImportedLabel] = []
    texts: set[str] = set()
    for label in labels:
        words = label.candidates[0].text.strip()
        if task and (words in texts or not _alike(label, task[0])):
            yield _together(task)
            task, texts = [], set()
        task.append(label)
        texts.add(words)
    if task:
        yield _together(task)


def _alike(label: ImportedLabel, first: ImportedLabel) -> bool:
    """Whether a label marks one candidate of the same task as the first one."""
    if label.kind not in ("rate", "accept") or len(label.candidates) > 1:
        return False
    same = (label.kind, label.rater, label.note) == (first.kind, first.rater, first.note)
    return same and label.prompt == first.prompt


def _together(task: Sequence[ImportedLabel]) -> ImportedLabel:
    if len(task) == 1:
        return task[0]
    first = task[0]
    verdict = Verdict(
        first.verdict.outcome,
        ratings=tuple(mark for one in task for mark in one.verdict.ratings),
        accepted=tuple(mark for one in task for mark in one.verdict.accepted),
    )
    return replace(first, candidates=tuple(one.candidates[0] for one in task), verdict=verdict)


def without_repeats(label: ImportedLabel) -> tuple[ImportedLabel | None, list[str]]:
    """A group without empty and repeated candidates, or None when too few are left; and why each was left out."""
    kept: list[int] = []
    seen: set[str] = set()
    reasons: list[str] = []
    for place, one in enumerate(label.candidates):
        words = one.text.strip()
        if words and words not in seen:
            kept.append(place)
            seen.add(words)
        else:
            reasons.append(SAME_ONE if words else EMPTY_ONE)
    if not reasons:
        return label, []
    if len(kept) < (2 if label.kind == "rank" else 1):
        return None, [EMPTY if EMPTY_ONE in reasons else IDENTICAL]
    candidates = tuple(label.candidates[place] for place in kept)
    return replace(label, candidates=candidates, verdict=_of(label.verdict, kept)), reasons


def _of(verdict: Verdict, kept: Sequence[int]) -> Verdict:
    """What the verdict says of the candidates at the places that are kept."""
    if verdict.ranks:
        return order(_at(verdict.ranks, kept))
    return replace(verdict, ratings=_at(verdict.ratings, kept), accepted=_at(verdict.accepted, kept))


def _at(marks: tuple[_Item, ...], kept: Sequence[int]) -> tuple[_Item, ...]:
    return tuple(marks[place] for place in kept) if marks else ()
