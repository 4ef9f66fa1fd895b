"""The limits of the verdict, each with the reason why it is where it is: what 'rlhf-tui help reward' prints."""

from __future__ import annotations

from typing import NamedTuple

from rlhf_tui.assessment.figures import percent
from rlhf_tui.preferences.intervals import ENOUGH

READY = 0.65
READY_WAY = 0.6
#: Of fewer prompts nothing is called 'ready', 'usable' or 'prefers the worse ones'.
LEAST_PROMPTS = 20
#: From so many decided held-out pairs on, they decide.
HELDOUT_DECIDES = 100
#: So many the trained model itself must have been measured on before it is called ready.
HELDOUT_LEAST = 20
#: And so often it must be right about them.
HELDOUT_AGREES = 0.55
#: With fewer pairs nobody can say that labels do not help.
TELL_FROM = 200


class Threshold(NamedTuple):
    """A limit of the verdict: what it is about, its value as shown, and why it is where it is."""

    name: str
    value: str
    reason: str


THRESHOLDS = (
    Threshold(
        "decided pairs, at least",
        f"{ENOUGH}",
        "With so few the interval is still 34 points wide. Pairs of one prompt hang together and count for less.",
    ),
    Threshold(
        "prompts that they are of, at least",
        f"{LEAST_PROMPTS}",
        "What a model gets wrong may be of a kind that few prompts show. One that is right about 70 % of the pairs of "
        "five prompts in seven, and wrong about all of the others, is no better than a coin. With 20 pairs of each it "
        "passes for better one time in forty on 10 prompts, and one in two hundred on 20 (simulated). Intervals "
        "know how many prompts there are: with few they are wider.",
    ),
    Threshold(
        "better than a coin: surely, at the level of",
        "99.9 %",
        "You look again after every sitting. At the usual 95 % a model that has learnt nothing passes one look in "
        "forty; a label costs you half a minute, a PPO run on noise costs a night.",
    ),
    Threshold(
        "ready: accuracy, at least",
        percent(READY),
        "Two careful people agree about two pairs in three (66 % among the raters of AlpacaFarm). A model at 65 % "
        "stands in for a second rater; below that PPO follows its errors nearly as much as your taste. Where luck is "
        "ruled out too, the interval of such a model begins above 55 %.",
    ),
    Threshold(
        "ready: of the way from a coin to your own ceiling",
        percent(READY_WAY),
        "As far as a second careful person gets: raters who agree about 66 % are each right about 78 %, and 66 is 57 % "
        "of the way from 50 to 78. Who is steadier leaves more to learn. It is asked only when your repeats show the "
        "ceiling.",
    ),
    Threshold(
        "ready: better than 'the longer one' and 'the shorter one'",
        "interval above 0",
        "Length is the first thing a model finds, and what PPO exaggerates first.",
    ),
    Threshold(
        "held-out pairs that decide on their own",
        f"{HELDOUT_DECIDES}",
        "At 100 the interval is 9 points to each side. With fewer, cross-validation over all training pairs decides: "
        "it is narrower, though of a quick head on the base's own features (or of the whole adapter, with "
        "reward.folds).",
    ),
    Threshold(
        "ready: held-out pairs of the trained model itself",
        f"{HELDOUT_LEAST}",
        f"Where the quick head decides, the model that PPO gets must not disagree: {percent(HELDOUT_AGREES)} right.",
    ),
    Threshold(
        "labels before 'more will not help' is said",
        f"{TELL_FROM}",
        "Below, a curve that rises and one that does not look alike.",
    ),
)


def ready_accuracy(ceiling: float | None) -> float:
    """The accuracy that 'ready' asks for, given the rater's own ceiling (None: not known)."""
    return READY if ceiling is None else max(READY, 0.5 + READY_WAY * (ceiling - 0.5))
