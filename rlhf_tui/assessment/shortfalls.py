"""What a model that beats a coin still lacks for 'ready', and what each of these would take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_tui.assessment import advice
from rlhf_tui.assessment.figures import estimated_share, percent, points, share_of
from rlhf_tui.assessment.grounds import Grounds
from rlhf_tui.assessment.thresholds import HELDOUT_AGREES, HELDOUT_LEAST, READY, READY_WAY, ready_accuracy
from rlhf_tui.preferences.intervals import Rate, counted_as


@dataclass(frozen=True)
class Shortfall:
    """`what` is missing, in words; `more`: how many judged pairs more would do, infinite when they alone do not;
    `otherwise`: what to do then."""

    what: str
    more: float
    otherwise: str


def shortfalls(grounds: Grounds, rate: Rate) -> tuple[Shortfall, ...]:
    """All of them, given the accuracy that decides; none when there is nothing between it and 'ready'."""
    return (*_accuracy(grounds, rate), *_length_rule(grounds, rate), *_not_confirmed(grounds))


def _accuracy(grounds: Grounds, rate: Rate) -> Iterator[Shortfall]:
    share, ceiling = rate.share or 0.0, grounds.known_ceiling
    asked = ready_accuracy(ceiling.value if ceiling is not None else None)
    by_curve, otherwise = advice.pairs_by_curve(grounds.labels, grounds.curve), advice.beyond_labels(grounds.curve)
    if share < READY:
        yield Shortfall(f"'Ready' asks for {percent(READY)} or more.", by_curve, otherwise)
    elif share < asked and ceiling is not None:
        yield Shortfall(
            f"Your own labels are right about {estimated_share(ceiling)} of the time. 'Ready' asks for "
            f"{percent(READY_WAY)} of the way there from a coin: {percent(asked)}.",
            by_curve,
            otherwise,
        )


def _length_rule(grounds: Grounds, rate: Rate) -> Iterator[Shortfall]:
    rule = grounds.length_rule
    if rule is None or rule.difference[1] > 0:
        return
    gap, low, _ = rule.difference
    # An interval narrows with the root of the number of pairs.
    needed = (((gap - low) / gap) ** 2 - 1) * counted_as(rate) / grounds.each if gap > 0 else math.inf
    yield Shortfall(
        f"Always picking the {rule.name} one is right about {percent(rule.rate.share or 0)}: the model is not "
        f"clearly better, {points(rule.difference)}.",
        needed,
        "Judge pairs of about the same length: they teach what length does not.",
    )


def _not_confirmed(grounds: Grounds) -> Iterator[Shortfall]:
    """Where the quick head decides, the trained model must at least not contradict it."""
    if grounds.measured_on != "crossvalidated" or grounds.crossvalidated_by != "probe":
        return
    own = grounds.heldout.rate if grounds.heldout is not None else None
    if own is None or own.n < HELDOUT_LEAST:
        count = 0 if own is None else own.n
        missing = HELDOUT_LEAST - count
        yield Shortfall(
            f"The trained model itself was measured on {count} held-out pairs; 'ready' asks for {HELDOUT_LEAST}.",
            missing * grounds.labels.comparisons / count if count else math.inf,
            f"Judge about {missing} more pairs of held-out prompts, so that the trained model can be measured.",
        )
    elif (own.share or 0.0) < HELDOUT_AGREES:
        yield Shortfall(
            f"The trained model itself is right about {share_of(own)} of {own.n} held-out pairs.",
            math.inf,
            "Train again with a lower reward.learning_rate or fewer reward.epochs, and judge more held-out prompts.",
        )
