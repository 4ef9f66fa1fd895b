"""What can be wrong with a reward model, or with the labels it learnt from, that one number does not show.

Each detector says what it saw, why that matters, and what to do about it. The limits are written where the user
reads them too ('rlhf-tui help reward').
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_tui.assessment.case import Case
from rlhf_tui.assessment.chance import beats_coin, loses_to_coin
from rlhf_tui.assessment.counting import ABOUT_AS_LONG, by_length, decided, half_step, longer_is_better, share
from rlhf_tui.assessment.figures import estimated_share, percent, points, share_and_n, share_of
from rlhf_tui.assessment.records import (
    Baseline,
    Finding,
    Scored,
    Severity,
)
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.intervals import Rate, difference

#: σ(0.01) is 50.25 %: a model whose gaps are no wider tells nothing apart.
COLLAPSED_GAP = 0.01
#: Largest difference that rounding (fp32) makes between one completion alone and in a batch.
INVARIANCE = 1e-4
#: How far above new prompts the training labels must be, in share, and at least at the near end of the interval.
MEMORISED, MEMORISED_LOW = 0.2, 0.1
#: A model that picks the same side of length in so many pairs is driven by it.
FOLLOWS_LENGTH = 0.75
#: Careful people prefer the longer one in 64 to 70 % of pairs; labels that go with length this often are about length.
LENGTH_LABELS = 0.8
#: So far above the rule a model must be, and surely above it, to know more than length.
LENGTH_MARGIN = 0.05
#: Labels that name one side of the screen so often are about the screen.
ONE_SIDE = 0.9
#: The finished one wins so often, where only one is finished, and there are so many such pairs.
ENDING, ENDING_PAIRS = 0.75, 20
UNFINISHED = 0.5
#: Careful raters agree about two pairs in three. Two who surely agree less, over so many pairs, want different models.
CONTRADICTION, CONTRADICTION_PAIRS = 0.66, 20
#: σ(10) is 99.995 %: nothing can be learnt from such a pair any more.
SATURATED_GAP = 10.0
TOO_SURE = 2.0
#: A rater whose single labels are this unreliable leaves no model room to be good.
UNSTEADY = 0.65


Found = tuple[Severity, str] | None


@dataclass(frozen=True)
class Detector:
    """`looks_for` says what counts as found, in words; `find` is None where only the engine can tell."""

    name: str
    looks_for: str
    why: str
    remedy: str
    find: Callable[[Case], Found] | None


def findings(case: Case) -> tuple[Finding, ...]:
    """Everything that is found, in the order of the catalogue: what breaks a model comes first."""
    found = [(detector, detector.find(case)) for detector in CATALOGUE if detector.find is not None]
    return tuple(finding(detector.name, *seen) for detector, seen in found if seen is not None)


def finding(name: str, severity: Severity, what: str) -> Finding:
    """A finding of this detector, with its reason and remedy. Raises KeyError for a name that is not in CATALOGUE."""
    detector = _BY_NAME[name]
    return Finding(name, severity, what, detector.why, detector.remedy)


# -- the model ----------------------------------------------------------------------------------------


def _collapsed(case: Case) -> Found:
    pairs = case.heldout or case.train
    if not pairs:
        return None
    size = math.sqrt(statistics.fmean(pair.gap**2 for pair in pairs))
    equal = statistics.fmean(pair.gap == 0 for pair in pairs)
    if size < COLLAPSED_GAP:
        return "broken", f"All completions score about the same: better and worse differ by {size:.2g} on average."
    if equal > 0.5:
        return "broken", f"In {percent(equal)} of {len(pairs)} pairs both completions have exactly the same score."
    return None


def _padding(case: Case) -> Found:
    if case.invariance <= case.invariance_limit:
        return None
    return "broken", f"The same completion scores differently alone and in a batch, by up to {case.invariance:.2g}."


def _worse_than_its_start(case: Case) -> Found:
    trained, start = case.heldout_accuracy, case.crossvalidated
    if trained is None or start is None or case.crossvalidated_by != "probe" or trained.rate.high >= start.rate.low:
        return None
    return "warning", (
        f"Trained, the model is right about {share_and_n(trained.rate)} held-out pairs; a quick head on the base, "
        f"before any training, about {share_and_n(start.rate)}."
    )


def _beaten_by_words(case: Case) -> Found:
    words = next((one for one in case.baselines if one.name == "bag of words"), None)
    if words is None or case.of_quick_head or words.difference[2] >= 0:
        return None
    return "warning", (
        f"Counting words, learnt from the same labels, is right about {share_and_n(words.rate)} pairs; the model "
        f"differs from that by {points(words.difference)}."
    )


def _memorised(case: Case) -> Found:
    unseen = case.heldout_accuracy
    if (unseen is None or not unseen.rate.enough) and case.crossvalidated_by == "lora":
        unseen = case.crossvalidated  # of a quick head it would say nothing: that one learnt nothing by heart
    if case.train_accuracy is None or unseen is None:
        return None
    inside, outside = case.train_accuracy.rate, unseen.rate
    gap = difference(inside, outside)
    if gap is None or not (inside.enough and outside.enough) or gap[0] < MEMORISED or gap[1] < MEMORISED_LOW:
        return None
    severity: Severity = "note" if case.deciding is not None and beats_coin(case.deciding.rate) else "warning"
    return severity, (
        f"It is right about {percent(inside.share or 0)} of the labels it was trained on, and about "
        f"{share_of(outside)} on prompts kept out of training."
    )


def _length(case: Case) -> Found:
    """The labels go with length, or the model does, and it is not clearly better than doing just that."""
    labels = share(decided(_of_unequal_length([*case.train, *case.heldout])), longer_is_better)
    picks = share(_of_unequal_length(case.measured), _picks_longer)
    for seen, limit, says in (
        (picks, FOLLOWS_LENGTH, f"{case.subject} picks the {{side}} one in {{often}} of {{n}} pairs"),
        (labels, LENGTH_LABELS, "The {side} one was called better in {often} of {n} pairs"),
    ):
        side, often = ("longer", seen.share or 0.0) if (seen.share or 0.0) > 0.5 else ("shorter", 1 - (seen.share or 0))
        rule = next((one for one in case.baselines if one.name == side), None)
        if rule is None or not _off_coin(seen) or often < limit:
            continue
        if rule.difference[0] < LENGTH_MARGIN or rule.difference[1] <= 0:
            return "warning", says.format(side=side, often=percent(often), n=seen.n) + _against(rule, case.measured)
    return None


def _of_unequal_length(pairs: Sequence[Scored]) -> list[Scored]:
    return [pair for pair in pairs if pair.better_length != pair.worse_length]


def _against(rule: Baseline, measured: Sequence[Scored]) -> str:
    """The rule beside the model, and what is left of the model where the rule has nothing to say."""
    alike = [one.rate for one in by_length(measured) if one.name == ABOUT_AS_LONG]
    left = f" Where both are about as long, the model is right about {share_and_n(alike[0])}." if alike else ""
    return (
        f". Always picking the {rule.name} one is right about {share_of(rule.rate)}; the model differs from that by "
        f"{points(rule.difference)}.{left}"
    )


def _off_coin(rate: Rate) -> bool:
    return beats_coin(rate) or loses_to_coin(rate)


def _picks_longer(pair: Scored) -> float:
    return half_step(pair.gap * (pair.better_length - pair.worse_length))


def _saturated(case: Case) -> Found:
    pairs = case.heldout or case.train
    middle = statistics.median(abs(pair.gap) for pair in pairs) if pairs else 0.0
    if middle <= SATURATED_GAP:
        return None
    return (
        "warning",
        f"Half of all pairs differ by more than {middle:.1f}: the model is certain about nearly everything.",
    )


def _too_sure(case: Case) -> Found:
    if case.of_quick_head or case.calibration is None or case.deciding is None or not beats_coin(case.deciding.rate):
        return None
    if case.calibration.temperature < TOO_SURE:
        return None
    return "note", f"Its gaps are {case.calibration.temperature:.1f} times as wide as how often it is right allows."


# -- the labels ---------------------------------------------------------------------------------------


def _contradiction(case: Case) -> Found:
    apart = [
        one
        for one in case.agreement
        if one.same.high <= 0.5 or (one.same.n >= CONTRADICTION_PAIRS and one.same.high < CONTRADICTION)
    ]
    if not apart:
        return None
    worst = min(apart, key=lambda one: one.same.share or 0.0)
    more = f" So do {len(apart) - 1} more." if len(apart) > 1 else ""
    return "warning", (
        f"Two raters contradict each other: {clean(worst.one)} and {clean(worst.other)} prefer the same one in "
        f"{share_of(worst.same)} of the {worst.same.n} pairs that both judged.{more}"
    )


def _unsteady(case: Case) -> Found:
    if case.ceiling is None or case.ceiling.value is None or not case.ceiling.enough or case.ceiling.value >= UNSTEADY:
        return None
    return "warning", (
        f"Shown again, too many pairs got the other answer: single labels are right about "
        f"{estimated_share(case.ceiling)} of the time."
    )


def _position(case: Case) -> Found:
    known = [pair for pair in (*case.train, *case.heldout) if pair.better_first is not None and not pair.tie]
    first = share(known, lambda pair: float(pair.better_first is True))
    if not _off_coin(first) or first.share is None:
        return None
    side, low = ("first", first.low) if first.share > 0.5 else ("second", 1 - first.high)
    often = max(first.share, 1 - first.share)
    severity: Severity = "broken" if low >= ONE_SIDE else "warning"
    return severity, f"The one shown {side} was called better in {percent(often)} of {first.n} pairs."


def _ending(case: Case) -> Found:
    said = decided(case.measured)
    finished = share([pair for pair in said if pair.better_ended != pair.worse_ended], _ended_is_better)
    if finished.share is None or finished.n < ENDING_PAIRS or finished.share < ENDING or finished.low <= 0.5:
        return None
    rule, model = share(said, _ended_is_better), share(said)
    if (rule.share or 0.0) < (model.share or 0.0):
        return None
    return "warning", (
        f"Where only one of two was finished, it was the better one in {share_of(finished)} of {finished.n} pairs; "
        f"picking the finished one is right about {share_of(rule)} in all, the model about {share_of(model)}."
    )


def _ended_is_better(pair: Scored) -> float:
    return half_step(pair.better_ended - pair.worse_ended)


def _unfinished(case: Case) -> Found:
    pairs = (*case.train, *case.heldout)
    if not pairs:
        return None
    cut = statistics.fmean((not pair.better_ended) + (not pair.worse_ended) for pair in pairs) / 2
    if cut <= UNFINISHED:
        return None
    return "warning", f"{percent(cut)} of the completions in the pairs are cut off before their end."


#: What breaks a model comes first, then what narrows it, then what costs accuracy.
CATALOGUE = (
    Detector(
        "collapsed",
        f"gaps below {COLLAPSED_GAP} (root mean square), or equal scores in more than half of the pairs",
        "Such a model prefers nothing; PPO would follow rounding errors.",
        "Look at the training loss: at 0.693 nothing was learnt. Try a higher reward.learning_rate, and "
        "check that the candidates differ at all.",
        _collapsed,
    ),
    Detector(
        "padding",
        f"a score differing alone, in a batch, or with other padding by over {INVARIANCE:g} (16-bit: 0.2 deviations)",
        "Then the score depends on the neighbours or on the padding, and means nothing in PPO.",
        "This is an error of the program or of the model's files, not of your labels: check that the tokenizer "
        "belongs to the model, and report it.",
        _padding,
    ),
    Detector(
        "template",
        "another chat template when scoring than when training",
        "The model then scores texts of a form it has never seen.",
        "Train the reward model again with the tokenizer that the model has now, or put the old one back.",
        None,
    ),
    Detector(
        "length",
        f"the longer (or shorter) one picked in {percent(FOLLOWS_LENGTH)} of the pairs, or better in "
        f"{percent(LENGTH_LABELS)} of the labels, and a model not surely better than that rule, or by less than "
        f"{100 * LENGTH_MARGIN:.0f} points",
        "PPO would learn to write longer or shorter, and nothing else.",
        "If length is not what you mean: judge pairs of about the same length, let both be finished, and look at "
        "'rlhf-tui labels stats' for your own habit. If it is, you need no reward model for it.",
        _length,
    ),
    Detector(
        "contradiction",
        f"two raters who surely agree in less than {percent(CONTRADICTION)} of {CONTRADICTION_PAIRS} pairs or more, or "
        "of fewer, in no more than half",
        "One model cannot follow two tastes; the labels cancel each other out.",
        "Talk over the pairs you disagree about and write it into the guideline, or train one model for each "
        "(reward.raters).",
        _contradiction,
    ),
    Detector(
        "unsteady",
        f"repeats that make single labels right less than {percent(UNSTEADY)} of the time",
        "No model can agree with labels more often than you agree with yourself.",
        "Write down what 'better' means in the guideline, call close pairs ties, and judge the largest "
        "disagreements again.",
        _unsteady,
    ),
    Detector(
        "worse than its start",
        "the trained model surely below the quick head on the base's own features",
        "Training took away what the base already knew.",
        "Lower reward.learning_rate or reward.epochs, and train again.",
        _worse_than_its_start,
    ),
    Detector(
        "beaten by words",
        "a bag of words fitted to the same labels that is surely better than the model",
        "Your taste can be read off the words, and training has not found it.",
        "Try more reward.epochs or a higher reward.learning_rate; look whether the texts were cut short.",
        _beaten_by_words,
    ),
    Detector(
        "memorised",
        f"training labels {100 * MEMORISED:.0f} points or more above new prompts (surely {100 * MEMORISED_LOW:.0f})",
        "It knows these labels by heart; only the number on new prompts says what it will do in PPO.",
        "Normal with few labels. Fewer reward.epochs help a little, more labels help more.",
        _memorised,
    ),
    Detector(
        "position",
        f"one side of the screen better more often than luck explains; from {percent(ONE_SIDE)} on, the labels say no "
        "more than that",
        "Sides are drawn by chance, so a habit of side is noise to a model that does not see the screen.",
        "Read both completions before answering, and judge in shorter sittings; label some pairs again.",
        _position,
    ),
    Detector(
        "ending",
        f"of {ENDING_PAIRS} pairs or more with one finished, that one better in {percent(ENDING)} (surely in more than "
        "half), and this rule as good as the model",
        "The model may have learnt to see the end-of-turn token, not the answer before it.",
        "Generate with more generate.max_new_tokens, so that both candidates are finished, and judge those.",
        _ending,
    ),
    Detector(
        "unfinished",
        f"more than {percent(UNFINISHED)} of the completions cut off",
        "You judged beginnings; the model is asked about whole answers.",
        "Raise generate.max_new_tokens, or ask for short answers in the prompt, and generate again.",
        _unfinished,
    ),
    Detector(
        "saturated",
        f"half of the gaps above {SATURATED_GAP:g}",
        "So wide a gap is as good as certainty: such pairs teach nothing any more, and a few of them rule PPO.",
        "Lower reward.head_learning_rate or reward.epochs, or raise reward.label_smoothing.",
        _saturated,
    ),
    Detector(
        "too sure",
        f"gaps {TOO_SURE:g} times as wide as the accuracy allows",
        "Take its '99 % sure' for less; the order of the scores is as good as the accuracy says.",
        "Nothing to do for PPO, which measures scores in their own deviation; more reward.label_smoothing helps.",
        _too_sure,
    ),
)
_BY_NAME = {detector.name: detector for detector in CATALOGUE}
