"""What judgements show about whoever made them: habits of side and length, pace, consistency with themselves.

Everything works on `Fact`s, judgements without their texts, so that the labelling screen can ask after
every answer. `label_report` is about one rater; how several agree is in `agreement`, and `project_report`
puts all of it together.
"""

from __future__ import annotations

import statistics
from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rlhf_tui.preferences.comparisons import Comparison, compared, is_blind, is_decided
from rlhf_tui.preferences.consistency import Consistency, Repeats, gold_answer
from rlhf_tui.preferences.intervals import Clusters, Rate, rate, wilson
from rlhf_tui.preferences.records import DECIDED, Fact

__all__ = ["LabelReport", "Tally", "gold_facts", "label_report", "wilson"]

#: Texts this alike in length (in characters) say nothing about a taste for length (AlpacaEval's bound).
MIN_CHARS = 30
#: Nobody reads two answers in less.
TOO_FAST_MS = 2000
#: A pause of so many seconds begins a new sitting.
BREAK_SECONDS = 900.0


@dataclass(frozen=True)
class LabelReport:
    """The judgements of one rater: how many of each outcome, and what they show.

    `n` counts the decided ones (ordered, ties, both bad, rated, accepted) that are no repeats. Shares:
    `tie_share` of the decided pairs and rankings, `both_bad_share` of all decided, `skip_share` and
    `discard_share` of everything offered, `too_fast` of the timed answers, repeats included. `refusal_wins`:
    of one candidate that declines and one that does not, how often the refusal was better. `per_hour` and
    `sitting` (answers) are of the latest sitting. Times are None when none is known, as for imported labels.
    """

    n: int
    ordered: int
    ties: int
    both_bad: int
    rated: int
    accepted: int
    skipped: int
    discarded: int
    first_side: Rate
    longer_wins: Rate
    refusal_wins: Rate
    tie_share: Rate
    both_bad_share: Rate
    skip_share: Rate
    discard_share: Rate
    too_fast: Rate
    gold: Rate
    consistency: Consistency
    median_seconds: float | None
    sitting: int
    per_hour: float | None


class Tally:
    """The judgements of one rater as they come and go, so that a report after each answer costs next to nothing.

    `gold` is the known right answer of each gold task (`gold_facts`), `refusals` the completions that decline.
    """

    def __init__(
        self,
        facts: Iterable[Fact] = (),
        *,
        gold: Mapping[int, Fact] | None = None,
        refusals: Collection[int] = frozenset(),
    ) -> None:
        self._gold = gold or {}
        self._refusals = refusals
        self._said: Counter[str] = Counter()
        self._side = Clusters()
        self._length = Clusters()
        self._refusal = Clusters()
        self._right = Clusters()
        self._repeats = Repeats()
        self._latencies: list[int] = []
        self._times: list[tuple[float, int]] = []
        self._too_fast = 0
        self._counted: dict[int, Fact] = {}
        self.follow(facts)

    def follow(self, facts: Iterable[Fact]) -> None:
        """Count what stands now, given all of it: what is new comes in, what was taken back or replaced goes."""
        standing = {fact.judgement_id: fact for fact in facts}
        for judgement in self._counted.keys() - standing.keys():
            self._remove(self._counted[judgement])
        for judgement, fact in standing.items():
            if judgement not in self._counted:
                self._add(fact)
        self._counted = standing

    def _add(self, fact: Fact) -> None:
        self._count(fact, +1)
        self._repeats.add(fact)
        if fact.latency_ms is not None and is_decided(fact):
            self._latencies.append(fact.latency_ms)
            insort(self._times, (_seconds(fact), fact.latency_ms))

    def _remove(self, fact: Fact) -> None:
        self._count(fact, -1)
        self._repeats.remove(fact)
        if fact.latency_ms is not None and is_decided(fact):
            self._latencies.remove(fact.latency_ms)
            self._times.remove((_seconds(fact), fact.latency_ms))

    def _count(self, fact: Fact, times: int) -> None:
        first_answer = fact.purpose == "label"
        if first_answer:
            self._said[fact.verdict.outcome] += times
        if not is_decided(fact):
            return
        if fact.latency_ms is not None:
            self._too_fast += times * (fact.latency_ms < TOO_FAST_MS)
        if fact.task_id in self._gold:
            self._right.add(*gold_answer(fact, self._gold), times)
        if first_answer and is_blind(fact):
            answers = compared(fact.verdict)
            self._side.add(*_first_side(fact, answers), times)
            self._length.add(*_longer_wins(fact, answers), times)
            if self._refusals:
                self._refusal.add(*_refusal_wins(fact, answers, self._refusals), times)

    def report(self) -> LabelReport:
        """What the judgements show so far."""
        said = self._said
        decided, offered = sum(said[outcome] for outcome in DECIDED), said.total()
        self._latencies.sort()  # nearly sorted already, so this is one pass
        sitting, per_hour = _latest_sitting(self._times)
        return LabelReport(
            n=decided,
            ordered=said["ordered"],
            ties=said["tie"],
            both_bad=said["both_bad"],
            rated=said["rated"],
            accepted=said["accepted"],
            skipped=said["skip"],
            discarded=said["discard"],
            first_side=self._side.rate(),
            longer_wins=self._length.rate(),
            refusal_wins=self._refusal.rate(),
            tie_share=rate(said["tie"], said["ordered"] + said["tie"] + said["both_bad"]),
            both_bad_share=rate(said["both_bad"], decided),
            skip_share=rate(said["skip"], offered),
            discard_share=rate(said["discard"], offered),
            too_fast=rate(self._too_fast, len(self._latencies)),
            gold=self._right.rate(),
            consistency=self._repeats.report(),
            median_seconds=statistics.median(self._latencies) / 1000 if self._latencies else None,
            sitting=sitting,
            per_hour=per_hour,
        )


def label_report(
    facts: Iterable[Fact], gold: Mapping[int, Fact] | None = None, refusals: Collection[int] = frozenset()
) -> LabelReport:
    """Everything about one rater's active judgements; see `Tally` for what the arguments are."""
    return Tally(facts, gold=gold, refusals=refusals).report()


def _first_side(fact: Fact, answers: Sequence[Comparison]) -> tuple[int, int]:
    """How often the candidate that stood first was better, of the comparisons with a better one.

    Over many judgements it is half without a habit, because the order is drawn by chance; (0, 0) when
    the order on screen is not known.
    """
    if fact.layout == "unordered":
        return 0, 0
    decisive = [size > 0 for _, _, size in answers if size]
    return sum(decisive), len(decisive)


def _longer_wins(fact: Fact, answers: Sequence[Comparison]) -> tuple[int, int]:
    """How often the longer text was better, of the comparisons with a better one and a clear difference in length.

    The measure of AlpacaEval's length bias. Careful people prefer the longer text in two cases of three:
    0.64 there, 0.69 in the raters' study of open-instruct, 0.70 in OpenAssistant's rankings.
    """
    lengths = fact.characters
    clear = [
        (size > 0) == (lengths[i] > lengths[j])
        for i, j, size in answers
        if size and abs(lengths[i] - lengths[j]) > MIN_CHARS
    ]
    return sum(clear), len(clear)


def _refusal_wins(fact: Fact, answers: Sequence[Comparison], refusals: Collection[int]) -> tuple[int, int]:
    """How often the candidate that declines was better, of the comparisons with a better one where one declines."""
    declines = [completion in refusals for completion in fact.shown]
    decisive = [(size > 0) == declines[i] for i, j, size in answers if size and declines[i] != declines[j]]
    return sum(decisive), len(decisive)


def gold_facts(facts: Iterable[Fact], gold: Mapping[int, int]) -> dict[int, Fact]:
    """The known right answer of each gold task, as far as it still stands; `gold` as the store gives it."""
    return {fact.task_id: fact for fact in facts if gold.get(fact.task_id) == fact.judgement_id}


def _latest_sitting(times: Sequence[tuple[float, int]]) -> tuple[int, float | None]:
    """How many answers, by (time, latency), came since the last long pause, and how many that makes in an hour."""
    if not times:
        return 0, None
    shown = times[-1][0]  # when the question of the answer last looked at came up
    answers = 0
    for at, latency_ms in reversed(times):
        if answers and shown - at > BREAK_SECONDS:
            break
        answers, shown = answers + 1, at - latency_ms / 1000
    elapsed = times[-1][0] - shown
    return answers, answers * 3600 / elapsed if elapsed > 0 else None


def _seconds(fact: Fact) -> float:
    return datetime.fromisoformat(fact.created_at).timestamp()
