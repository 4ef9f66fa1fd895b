"""What to do next: how many labels more, or what else, where labels alone will not do."""

from __future__ import annotations

import math

from rlhf_tui.assessment.chance import LUCK, cases_to_beat_coin, enough_prompts
from rlhf_tui.assessment.figures import points
from rlhf_tui.assessment.grounds import Grounds
from rlhf_tui.assessment.records import Curve, LabelFacts
from rlhf_tui.assessment.thresholds import LEAST_PROMPTS, TELL_FROM
from rlhf_tui.preferences.intervals import ENOUGH, Rate, counted_as

#: Asking for more labels than this at once is no advice.
MOST_MORE = 1000
_STEP = 10

READY = (
    "Look at what it would choose (best-of-n), then start PPO: 4 in the app, or 'rlhf-tui train ppo'. The behaviour "
    "will be shaped by whoever did the rating; RLHF tunes behaviour, not facts."
)
_LABEL = "Judge them (2 and l in the app, or 'rlhf-tui label') and train again."
_HELDOUT = "Judge held-out prompts too: only they show what the trained model makes of new ones."
_ALL_HELDOUT = "All of them should be of held-out prompts: too few of those are judged."
_OTHER_PROMPTS = "Each should be of another prompt, some of them held out: pairs of one prompt hang together."
_NOT_THE_SAME = "More pairs of the same prompts will not do: they hang together."
_NARROWER = "A narrower taste (one thing you want, written into the guideline) needs fewer labels."


# -- how many ------------------------------------------------------------------------------------------


def to_beat_a_coin(grounds: Grounds) -> tuple[int | None, str]:
    """How many more pairs until there are enough and luck is ruled out, None when labels alone will hardly do it;
    and what to do then.

    As many as it takes if it stays as right as it is, or as the curve takes to 'ready', whichever is less. Where
    neither can be had and there are few labels yet, as many as it takes to tell.
    """
    labels, curve = grounds.labels, grounds.curve
    rate = grounds.deciding.rate if grounds.deciding is not None else None
    if rate is None or rate.share is None:
        return ENOUGH, f"{_LABEL} {_HELDOUT}"
    enough = _until(ENOUGH, counted_as(rate), labels.comparisons)
    luck = _until(cases_to_beat_coin(rate.share), counted_as(rate, LUCK), labels.comparisons)
    by_curve = pairs_by_curve(labels, curve)
    missing = TELL_FROM - labels.comparisons
    if enough > MOST_MORE:
        wanted, todo = ENOUGH - counted_as(rate), f"{_LABEL} {_OTHER_PROMPTS if rate.n >= ENOUGH else _ALL_HELDOUT}"
    elif enough >= min(luck, by_curve):
        wanted, todo = enough, f"{_LABEL} {_HELDOUT}"
    elif by_curve < luck and by_curve <= MOST_MORE:
        wanted, todo = by_curve, f"{_LABEL} The curve is where 'ready' asks by then. {_NARROWER}"
    elif luck <= MOST_MORE:
        wanted, todo = luck, f"{_LABEL} If it is right as often then, luck is ruled out. {_NARROWER}"
    elif missing > 0:
        wanted, todo = max(enough, missing), f"{_LABEL} From about {TELL_FROM} on, the curve shows more. {_NARROWER}"
    else:
        return None, beyond_labels(curve)
    return rounded(wanted), todo


def _until(cases: float, counted: float, judged: int) -> float:
    """How many more judged pairs until so many cases count, when of those `judged` so many do."""
    return (cases - counted) / counted * judged if counted else math.inf


def prompts_are_missing(rate: Rate) -> bool:
    """There are too few prompts to say anything, and it is further to enough of them than to enough pairs."""
    return not enough_prompts(rate) and rate.clusters / LEAST_PROMPTS <= rate.n / ENOUGH


def to_other_prompts(grounds: Grounds, rate: Rate) -> tuple[str, int, str]:
    """The headline, how many more prompts, and what to do about them.

    Where held-out pairs decide, each of another held-out prompt counts. For cross-validation, of newly judged prompts
    as large a part will count as does so far: the others are held out, or have ties only.
    """
    missing = LEAST_PROMPTS - rate.clusters
    if grounds.measured_on == "heldout":
        kind, more = "held-out prompt", missing
    else:
        kind, more = "prompt", math.ceil(missing * max(1.0, grounds.labels.prompts / rate.clusters))
    todo = (
        "Judge pairs of prompts you have not judged yet (2 and l in the app, or 'rlhf-tui label') and train again; "
        f"i there, or 'rlhf-tui prompts import', adds prompts. {_NOT_THE_SAME}"
    )
    return f"Not yet — label pairs of {more} more {kind}{'' if more == 1 else 's'}.", more, todo


def pairs_by_curve(labels: LabelFacts, curve: Curve | None) -> float:
    """How many more pairs until the curve is where 'ready' asks; infinite when it does not say.

    The curve counts training pairs; of the new ones, some will be of held-out prompts.
    """
    if curve is None or curve.pairs_to_ready is None or curve.pairs_to_ready <= labels.train_pairs:
        return math.inf
    return (curve.pairs_to_ready - labels.train_pairs) * labels.comparisons / max(labels.train_pairs, 1)


def rounded(wanted: float) -> int | None:
    """In tens; None for more than anybody would be asked for."""
    return max(_STEP, math.ceil(wanted / _STEP) * _STEP) if wanted <= MOST_MORE else None


# -- in words ------------------------------------------------------------------------------------------


def to_ready(more: int | None, otherwise: str) -> str:
    """What to do with a model that is better than a coin and not ready."""
    first = f"Label about {more} more pairs and train again." if more is not None else otherwise
    return f"{first} Or use it as it is: best-of-n shows what it would choose."


def beyond_labels(curve: Curve | None) -> str:
    """What may help where more of the same labels are not expected to, or too slowly."""
    if curve is not None and curve.gain_50 is not None and curve.gain_50[1] > 0:
        first = f"50 more labels are expected to add {points(curve.gain_50, 1)}: with labels alone it is a long way."
    else:
        first = "Nothing shows that more labels alone would lift it."
    return (
        f"{first} What may: ask for one thing instead of 'quality' (write it into the guideline), judge again what was "
        "a slip among the largest disagreements, or take a bigger base."
    )
