"""Which pairs the model gets right, counted: the share of them, and of those of a kind.

Ties never count as right: they are left out. Where the model gives two different completions the same score, that
is one half: a model that has collapsed is right about half, not always (counting >= as right has put accuracies
of 0.99 beside a loss of ln 2 on published model cards). Intervals treat the pairs of one prompt as hanging together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from rlhf_tui.assessment.records import Scored, Slice
from rlhf_tui.preferences.intervals import Clusters, Rate

#: What a pair counts as: 1 right, 0 wrong, ½ undecided by the model or the rule.
Points = Callable[[Scored], float]

#: Completions whose lengths differ by less than this share of the longer one are about as long.
ALIKE = 0.1

ABOUT_AS_LONG = "about as long (within 10 %)"
LONGER_IS_BETTER = "the longer one is better"
SHORTER_IS_BETTER = "the shorter one is better"


def decided(pairs: Sequence[Scored]) -> list[Scored]:
    """All but the ties."""
    return [pair for pair in pairs if not pair.tie]


def right(pair: Scored) -> float:
    """1 when the better one scores higher, 0 when the other does, ½ when both score the same."""
    return half_step(pair.gap)


def half_step(gap: float) -> float:
    """1 above 0, ½ at 0, 0 below."""
    return 0.5 if gap == 0 else float(gap > 0)


def longer_is_better(pair: Scored) -> float:
    """1 where the better one is the longer, ½ where both have as many tokens."""
    return half_step(pair.better_length - pair.worse_length)


def shorter_is_better(pair: Scored) -> float:
    """1 where the better one is the shorter, ½ where both have as many tokens."""
    return half_step(pair.worse_length - pair.better_length)


def share(pairs: Sequence[Scored], points: Points = right) -> Rate:
    """The mean of `points` over these pairs, with an interval that knows which are of one prompt."""
    prompts: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        prompts[pair.prompt].append(points(pair))
    clusters = Clusters()
    for values in prompts.values():
        clusters.add(sum(values), len(values))
    return clusters.rate()


# -- slices -------------------------------------------------------------------------------------------


def by_strength(pairs: Sequence[Scored]) -> tuple[Slice, ...]:
    """Accuracy where the rater said 'better', and where they said 'much better'."""
    return _slices(pairs, lambda pair: "much better" if pair.strength > 1 else "better", ("better", "much better"))


def by_rater(pairs: Sequence[Scored]) -> tuple[Slice, ...]:
    """Accuracy on each rater's labels, those with most first."""
    counted: dict[str, int] = defaultdict(int)
    for pair in decided(pairs):
        counted[pair.rater] += 1
    return _slices(pairs, lambda pair: pair.rater, sorted(counted, key=lambda name: (-counted[name], name)))


def by_length(pairs: Sequence[Scored]) -> tuple[Slice, ...]:
    """Accuracy by which of the two is longer, and where both are about as long."""
    return _slices(pairs, length_slice, (ABOUT_AS_LONG, LONGER_IS_BETTER, SHORTER_IS_BETTER))


def length_slice(pair: Scored) -> str:
    """Which slice of `by_length` the pair belongs to."""
    longer = max(pair.better_length, pair.worse_length)
    if abs(pair.better_length - pair.worse_length) <= ALIKE * longer:
        return ABOUT_AS_LONG
    return LONGER_IS_BETTER if pair.better_length == longer else SHORTER_IS_BETTER


def _slices(pairs: Sequence[Scored], name: Callable[[Scored], str], names: Sequence[str]) -> tuple[Slice, ...]:
    parts: dict[str, list[Scored]] = {one: [] for one in names}
    for pair in decided(pairs):
        parts[name(pair)].append(pair)
    return tuple(Slice(one, share(part)) for one, part in parts.items() if part)
