"""How well raters agree with themselves: planned repeats with the order reversed, and gold items.

For one person at home this is the most useful number there is: no reward model can agree with single
labels more often than the labels agree with what the rater means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rlhf_tui.preferences.comparisons import compared, is_decided, marked, oriented, sign
from rlhf_tui.preferences.intervals import Clusters, Estimate, Rate
from rlhf_tui.preferences.records import Fact


@dataclass(frozen=True)
class Flips:
    """Comparisons whose winner changed on the repeat, by what the rater went with.

    `first_side`: the one that stood first won both times, though it was the other one; `second_side`
    likewise; `elsewhere`: the order was not reversed. A rater who is merely unsure keeps the first side as
    often as the second, so the surplus of one over the other is what a habit of side explains: that many
    follow `side_habit`, the rest is `noise`.
    """

    first_side: int
    second_side: int
    elsewhere: int

    @property
    def n(self) -> int:
        return self.first_side + self.second_side + self.elsewhere

    @property
    def side_habit(self) -> int:
        return abs(self.first_side - self.second_side)

    @property
    def noise(self) -> int:
        return self.n - self.side_habit


@dataclass(frozen=True)
class Consistency:
    """What the repeats of one rater (or of several, each with themselves) show.

    `same`: answered exactly the same, ties and 'both bad' included; of ratings, the same mark.
    `self_consistency`: of the comparisons with a better side both times, how often it was the same. `ceiling`:
    the reliability of one label that follows from it, which no reward model can exceed on single labels.
    """

    repeats: int
    same: Rate
    self_consistency: Rate
    ceiling: Estimate
    flips: Flips


def reliability(agreement: float) -> float:
    """The share c of right labels when two of the same thing agree in this share s: s = c² + (1 - c)².

    That is, c = (1 + √(2s - 1)) / 2, when labels err by chance and both ways alike; at or below s = ½ the
    labels are no better than a coin, c = ½. It holds between raters as within one.
    """
    return (1 + math.sqrt(max(0.0, 2 * agreement - 1))) / 2


def ceiling(agreement: Rate) -> Estimate:
    """The reliability of single labels from how often they are confirmed; its ends from the ends of the interval."""
    if agreement.share is None:
        return Estimate(None, None, None, 0, enough=False)
    value, low, high = (reliability(share) for share in (agreement.share, agreement.low, agreement.high))
    return Estimate(value, low, high, agreement.n, agreement.enough)


class Repeats:
    """The planned repeats as they come in, each held against its rater's own first answer."""

    def __init__(self) -> None:
        self._answers: dict[str, dict[tuple[str, int], Fact]] = {"label": {}, "repeat": {}}
        self._repeats = 0
        self._same = Clusters()
        self._preferred = Clusters()
        self._flips: Counter[str] = Counter()

    def add(self, fact: Fact) -> None:
        """Count a judgement that now stands."""
        if is_decided(fact):
            self._answers[fact.purpose][fact.rater, fact.task_id] = fact
            self._count(fact, +1)

    def remove(self, fact: Fact) -> None:
        """Forget a judgement that was added and no longer stands."""
        if is_decided(fact):
            self._count(fact, -1)
            del self._answers[fact.purpose][fact.rater, fact.task_id]

    def report(self) -> Consistency:
        """What the repeats show so far."""
        confirmed = self._preferred.rate()
        flips = Flips(self._flips["first"], self._flips["second"], self._flips["elsewhere"])
        return Consistency(self._repeats, self._same.rate(), confirmed, ceiling(confirmed), flips)

    def _count(self, fact: Fact, times: int) -> None:
        """Count what this answer and its counterpart say together, if that is there."""
        key = (fact.rater, fact.task_id)
        again = self._answers["repeat"].get(key)
        first = self._answers["label"].get(key)
        if first is not None and again is not None:
            self._repeats += times
            self._same.add(*same(first, again), times)
            self._preferred.add(*_confirmed(first, again), times)
            for side in _flipped(first, again):
                self._flips[side] += times


def consistency(facts: Iterable[Fact]) -> Consistency:
    """What the repeats among these judgements show."""
    repeats = Repeats()
    for fact in facts:
        repeats.add(fact)
    return repeats.report()


def same(one: Fact, other: Fact) -> tuple[int, int]:
    """Of the parts of two decided answers to one task, how many say the same, of how many; strength left aside.

    A part is the comparison of two candidates, or the mark of one, or the whole when all were called bad.
    """
    if "both_bad" in (one.verdict.outcome, other.verdict.outcome):
        return int(one.verdict.outcome == other.verdict.outcome), 1
    mine, theirs = marked(one), marked(other)
    if mine:
        return sum(theirs.get(completion) == mark for completion, mark in mine.items()), len(mine)
    left, right = oriented(one), oriented(other)
    shared = left.keys() & right.keys()
    return sum(sign(left[pair]) == sign(right[pair]) for pair in shared), len(shared)


def gold_answer(fact: Fact, gold: Mapping[int, Fact]) -> tuple[int, int]:
    """How much of an answer is right by the gold answer to its task; (0, 0) where there is none but itself."""
    right = gold.get(fact.task_id)
    if right is None or right.judgement_id == fact.judgement_id or not is_decided(fact):
        return 0, 0
    return same(right, fact)


def _confirmed(first: Fact, again: Fact) -> tuple[int, int]:
    """Of the comparisons that have a better side both times, how many have the same one."""
    then, now = oriented(first), oriented(again)
    both = [sign(size) == sign(now[pair]) for pair, size in then.items() if size and now.get(pair)]
    return sum(both), len(both)


def _flipped(first: Fact, again: Fact) -> Iterator[str]:
    """For each comparison whose winner changed: which side on screen won both times."""
    then, now = _winners(first), _winners(again)
    for pair in then.keys() & now.keys():
        (was, side_then), (became, side_now) = then[pair], now[pair]
        if was != became:
            yield side_then if side_then == side_now else "elsewhere"


def _winners(fact: Fact) -> dict[frozenset[int], tuple[int, str]]:
    """By pair of completions: which one won, and whether it stood first or second of the two."""
    return {
        frozenset((fact.shown[i], fact.shown[j])): (fact.shown[i], "first") if size > 0 else (fact.shown[j], "second")
        for i, j, size in compared(fact.verdict)
        if size
    }
