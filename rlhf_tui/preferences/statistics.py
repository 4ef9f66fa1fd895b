"""What the judgements show about the rater: habits of side and length, with honest intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from rlhf_tui.preferences.reading import as_pair
from rlhf_tui.preferences.records import LabelledPair
from rlhf_tui.preferences.store import Store


@dataclass(frozen=True)
class Rate:
    """`successes` of `n` with a 95 % Wilson interval. `share` is None when n is 0."""

    successes: int
    n: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class LabelReport:
    """The judgements of one rater, or of all: how many of each outcome, and two habits to watch.

    `n` counts ordered, tie and both-bad; `median_seconds` is None when no time is known.
    """

    n: int
    ordered: int
    ties: int
    both_bad: int
    skipped: int
    first_side: Rate
    longer_wins: Rate
    median_seconds: float | None


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927); (0, 1) when n is 0.

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    # At 0 and n the exact ends are 0 and 1; rounding would leave a hair.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def rate(successes: int, n: int) -> Rate:
    """A proportion with its interval."""
    low, high = wilson(successes, n)
    return Rate(successes, n, successes / n if n else None, low, high)


def first_side_rate(store: Store, rater_id: int | None = None) -> Rate:
    """How often the left candidate won, among ordered judgements whose sides are known.

    Without a habit it is near 0.5, because sides are drawn by chance.
    """
    sided = [
        judged.winner_id == judged.left.id
        for judged in store.judgements(rater_id)
        if judged.outcome == "ordered" and judged.layout != "unordered"
    ]
    return rate(sum(sided), len(sided))


def longer_wins_rate(pairs: Iterable[LabelledPair], min_chars: int = 30) -> Rate:
    """How often the longer text won, among ordered pairs that differ by more than `min_chars` characters.

    The measure of AlpacaEval's length bias; people there prefer the longer text in about 0.64 of the cases.
    """
    differences = [len(pair.chosen.text) - len(pair.rejected.text) for pair in pairs if not pair.tie]
    clear = [difference for difference in differences if abs(difference) > min_chars]
    return rate(sum(difference > 0 for difference in clear), len(clear))


def label_report(store: Store, rater_id: int | None = None) -> LabelReport:
    """Everything about the judgements of one rater, or of all."""
    counts = store.counts(rater_id)
    judgements = [judged for judged in store.judgements(rater_id) if judged.outcome != "skip"]
    seconds = [judged.latency_ms / 1000 for judged in judgements if judged.latency_ms is not None]
    return LabelReport(
        n=counts.judgements,
        ordered=counts.pairs,
        ties=counts.ties,
        both_bad=counts.both_bad,
        skipped=counts.skipped,
        first_side=first_side_rate(store, rater_id),
        longer_wins=longer_wins_rate(as_pair(judged) for judged in judgements if judged.outcome == "ordered"),
        median_seconds=statistics.median(seconds) if seconds else None,
    )
