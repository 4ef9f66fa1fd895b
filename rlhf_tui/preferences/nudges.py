"""Nudges: what a rater may want to hear about their own judgements. They never block anything.

Habits that come and go are looked for in the newest answers, habits of taste in all of them, and none is
spoken of before there are enough answers to see it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rlhf_tui.preferences.comparisons import is_blind, is_decided
from rlhf_tui.preferences.intervals import Rate
from rlhf_tui.preferences.records import Fact
from rlhf_tui.preferences.statistics import LabelReport

#: Two texts with so many characters together take more than a second and a half to look through.
LONG_CHARACTERS = 400
HASTY_MS = 1500
HASTY_ANSWERS = 20
SAME_SIDE = 12
NEWEST = 30
MANY_TIES = 0.6
MANY_BAD = 0.4
#: Careful raters prefer the longer text in up to 0.70 of the cases; a taste for length clearly above is a warning.
LONGER = 0.7


@dataclass(frozen=True)
class Nudge:
    """`id` is stable: a screen can remember what was said already. `text` is a sentence or two."""

    id: str
    text: str


def nudges(facts: Sequence[Fact], report: LabelReport) -> list[Nudge]:
    """What to say about one rater's active judgements, given in the order they were made, and their report."""
    found = ((name, say(facts, report)) for name, say in _NUDGES.items())
    return [Nudge(name, text) for name, text in found if text]


def _hasty(facts: Sequence[Fact], report: LabelReport) -> str:
    newest = [
        fact.latency_ms
        for fact in islice(_newest_decided(facts), 10 * HASTY_ANSWERS)
        if fact.latency_ms is not None and sum(fact.characters) >= LONG_CHARACTERS
    ][:HASTY_ANSWERS]
    if len(newest) < HASTY_ANSWERS or (median := statistics.median(newest)) >= HASTY_MS:
        return ""
    return (
        f"Your last {len(newest)} answers to long texts took {median / 1000:.1f} s each: too fast to have read them. "
        "Fewer judgements that you mean teach more."
    )


def _same_side(facts: Sequence[Fact], report: LabelReport) -> str:
    newest = [fact for fact in islice(_newest_decided(facts), SAME_SIDE) if fact.kind == "pair"]
    winners = {fact.verdict.ranks for fact in newest}
    if len(newest) < SAME_SIDE or len(winners) > 1 or any(not _has_side(fact) for fact in newest):
        return ""
    side = "first" if winners == {(1, 2)} else "second"
    return (
        f"The {side} answer won {SAME_SIDE} times in a row. Sides are drawn by chance, so that is rare: "
        "about once in 2,000 rows of twelve."
    )


def _ties(facts: Sequence[Fact], report: LabelReport) -> str:
    newest = _newest_labels(facts, "pair", "rank")
    ties = sum(fact.verdict.outcome == "tie" for fact in newest)
    if len(newest) < NEWEST or ties <= MANY_TIES * len(newest):
        return ""
    return (
        f"{ties} of your last {len(newest)} were ties, and a tie teaches little. Candidates that differ more "
        "help: raise the sampling temperature, or sample more candidates for each prompt."
    )


def _both_bad(facts: Sequence[Fact], report: LabelReport) -> str:
    newest = _newest_labels(facts, "pair", "rank")
    bad = sum(fact.verdict.outcome == "both_bad" for fact in newest)
    if len(newest) < NEWEST or bad <= MANY_BAD * len(newest):
        return ""
    return (
        f"You called {bad} of the last {len(newest)} all bad. Preferences choose among what a model can write; they do "
        "not add to it. Start from a larger or a fine-tuned model, or write better answers yourself."
    )


def _first_side(facts: Sequence[Fact], report: LabelReport) -> str:
    sides = report.first_side
    if not sides.enough or sides.low <= 0.5 <= sides.high:
        return ""
    side = "first" if sides.low > 0.5 else "second"
    share = (sides.share or 0.0) if side == "first" else 1 - (sides.share or 0.0)
    return (
        f"You prefer the {side} answer in {share:.0%} of {sides.n} cases; chance alone would leave it near 50 %. "
        "Try reading the other one first."
    )


def _longer(facts: Sequence[Fact], report: LabelReport) -> str:
    if not report.longer_wins.enough or report.longer_wins.low <= LONGER:
        return ""
    return (
        f"The longer answer wins {_share(report.longer_wins)}: a model learns length from that sooner than anything "
        "else. If length is not what you mean, judge some pairs where the shorter one is better."
    )


def _refusals(facts: Sequence[Fact], report: LabelReport) -> str:
    if not report.refusal_wins.enough or report.refusal_wins.low <= 0.5:
        return ""
    return (
        f"An answer that declines wins {_share(report.refusal_wins)} against one that does not. A model trained on "
        "this learns to decline much more than you asked of it."
    )


def _coin(facts: Sequence[Fact], report: LabelReport) -> str:
    kept = report.consistency.self_consistency
    if not kept.enough or kept.low > 0.5:
        return ""
    return (
        f"Shown again with the order reversed, the same answer wins {_share(kept)}: that cannot be told from "
        "a coin. A guideline of your own, with two or three examples, is the usual cure."
    )


_NUDGES: dict[str, Callable[[Sequence[Fact], LabelReport], str]] = {
    "hasty": _hasty,
    "same-side": _same_side,
    "ties": _ties,
    "both-bad": _both_bad,
    "first-side": _first_side,
    "longer": _longer,
    "refusals": _refusals,
    "coin": _coin,
}


def _newest_decided(facts: Sequence[Fact]) -> Iterator[Fact]:
    return (fact for fact in reversed(facts) if is_decided(fact) and is_blind(fact))


def _newest_labels(facts: Sequence[Fact], *kinds: str) -> list[Fact]:
    """The newest first answers; on a repeat somebody who was torn is likely to be torn again."""
    return list(islice((f for f in _newest_decided(facts) if f.purpose == "label" and f.kind in kinds), NEWEST))


def _has_side(fact: Fact) -> bool:
    return fact.verdict.outcome == "ordered" and fact.layout != "unordered"


def _share(rate: Rate) -> str:
    return f"{rate.share or 0.0:.0%} of {rate.n} times [{rate.low:.0%}, {rate.high:.0%}]"
