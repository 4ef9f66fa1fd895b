"""More than luck? A stricter question than whether an interval contains one half.

People look again after every sitting. With the usual 95 %, a model that has learnt nothing looks better than a
coin at one look in forty; over ten looks at labels that grow by as many each time, that is one user in ten
(Armitage, McPherson and Rowe 1969, Repeated significance tests on accumulating data). So the word 'better than a
coin' is kept for what a coin does once in two thousand looks: over ten of them, one user in four hundred.
"""

from __future__ import annotations

import math

from rlhf_tui.assessment.thresholds import LEAST_PROMPTS
from rlhf_tui.preferences.intervals import Rate, counted_as, wilson

#: Standard errors from one half: the ends of a 99.9 % interval.
LUCK = 3.29


def enough_prompts(rate: Rate) -> bool:
    """The pairs are of so many prompts that they may speak for others."""
    return rate.clusters >= LEAST_PROMPTS


def enough_to_tell(rate: Rate) -> bool:
    """There are enough pairs, of enough prompts, to call the model anything."""
    return rate.enough and enough_prompts(rate)


def beats_coin(rate: Rate) -> bool:
    """The share is above one half by more than luck explains."""
    return rate.share is not None and _ends(rate)[0] > 0.5


def loses_to_coin(rate: Rate) -> bool:
    """The share is below one half by more than luck explains."""
    return rate.share is not None and _ends(rate)[1] < 0.5


def cases_to_beat_coin(share: float) -> float:
    """How many independent cases it takes until this share beats a coin; infinite when it is none above one half.

    The Wilson interval excludes p where (share - p)² > z²·p(1 - p)/n, with p = ½ here.
    """
    return LUCK**2 / 4 / (share - 0.5) ** 2 if share > 0.5 else math.inf


def luck_in_words(rate: Rate) -> str:
    """How often a coin does at least as well, as a sentence with a round number (normal approximation).

    For a rate that does not beat a coin: cases count for as much as they do there, so the two agree.
    """
    z = ((rate.share or 0.0) - 0.5) * 2 * math.sqrt(counted_as(rate, LUCK))
    if z <= 0:
        return "A coin does as well."
    times = 2 / math.erfc(z / math.sqrt(2))
    size = 10 ** math.floor(math.log10(times))
    return f"That may be luck: a coin gets as far once in {round(times / size) * size} times."


def _ends(rate: Rate) -> tuple[float, float]:
    n = counted_as(rate, LUCK)
    return wilson((rate.share or 0.0) * n, n, LUCK)
