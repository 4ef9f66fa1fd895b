"""What a verdict says about two candidates at a time: the ground of every statistic about preferences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from rlhf_tui.preferences.reading import preferences
from rlhf_tui.preferences.records import DECIDED, Fact, Verdict

#: (place, later place, answer): positive when the earlier one is better, 2 when much better, 0 when tied.
Comparison = tuple[int, int, int]


def compared(verdict: Verdict) -> tuple[Comparison, ...]:
    """Every comparison a verdict implies, by place on screen; K candidates give up to K(K-1)/2.

    'both_bad' compares nothing, and neither do two candidates that were both accepted or both rejected.
    """
    return _compared(verdict.outcome, verdict.ranks, verdict.ratings, verdict.accepted, verdict.strength)


# A sitting holds few different verdicts: this is what makes statistics over 20,000 judgements quick.
@lru_cache(maxsize=4096)
def _compared(
    outcome: str, ranks: tuple[int, ...], ratings: tuple[int, ...], accepted: tuple[bool, ...], strength: int
) -> tuple[Comparison, ...]:
    return tuple(
        (better, worse, size) if better < worse else (worse, better, -size)
        for better, worse, size in preferences(Verdict(outcome, ranks, ratings, accepted, strength))
    )


def oriented(fact: Fact) -> dict[tuple[int, int], int]:
    """The comparisons of a judgement by completion, not by side: positive when the lower id is better.

    Coded by side, agreement would measure a habit of side instead.
    """
    shown = fact.shown
    return {
        (shown[i], shown[j]) if shown[i] < shown[j] else (shown[j], shown[i]): size if shown[i] < shown[j] else -size
        for i, j, size in compared(fact.verdict)
    }


def marked(fact: Fact) -> dict[int, int]:
    """The mark of each completion of a rated or accepted judgement; empty for others."""
    marks: Sequence[int] = fact.verdict.ratings or fact.verdict.accepted
    return {completion: int(mark) for completion, mark in zip(fact.shown, marks, strict=False)}


def is_decided(fact: Fact) -> bool:
    """Whether the judgement says something about its candidates: no skip, no discard."""
    return fact.verdict.outcome in DECIDED


def is_blind(fact: Fact) -> bool:
    """Whether the rater judged texts of others, unknown to them; nobody is blind to their own edit."""
    return fact.selection != "edit"


def sign(answer: int) -> int:
    """Which side an answer is on, without its strength."""
    return (answer > 0) - (answer < 0)
