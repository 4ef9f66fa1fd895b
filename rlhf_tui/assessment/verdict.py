"""Good enough? The evidence against the thresholds, and what that gives in plain words."""

from __future__ import annotations

from rlhf_tui.assessment import advice
from rlhf_tui.assessment.chance import beats_coin, enough_to_tell, loses_to_coin, luck_in_words
from rlhf_tui.assessment.figures import estimated_share, percent, points, share_of
from rlhf_tui.assessment.grounds import Grounds, measured_on
from rlhf_tui.assessment.records import Finding, Verdict
from rlhf_tui.assessment.shortfalls import shortfalls
from rlhf_tui.assessment.thresholds import LEAST_PROMPTS, THRESHOLDS, ready_accuracy
from rlhf_tui.preferences.intervals import ENOUGH, Rate

__all__ = ["THRESHOLDS", "Grounds", "judge", "measured_on", "ready_accuracy"]

#: What is found that leaves a model good for one narrow thing at most.
NARROWING = ("length", "contradiction", "unsteady", "worse than its start", "ending")


def judge(grounds: Grounds) -> Verdict:
    """The verdict: broken, not yet, usable for a narrow taste, or ready; the first that holds."""
    return _broken(grounds) or _not_yet(grounds) or _narrow(grounds) or _ready(grounds)


# -- broken -------------------------------------------------------------------------------------------


def _broken(grounds: Grounds) -> Verdict | None:
    fatal = [one for one in grounds.findings if one.severity == "broken"]
    if fatal:
        because = tuple(f"{one.what} {one.why}" for one in fatal)
        return Verdict("broken", f"Broken — because {_clause(fatal[0])}.", because, fatal[0].remedy, None)
    for accuracy in (grounds.deciding, grounds.heldout):
        if accuracy is not None and enough_to_tell(accuracy.rate) and loses_to_coin(accuracy.rate):
            return Verdict(
                "broken",
                "Broken — because it prefers the worse ones.",
                (f"It is right about {share_of(accuracy.rate)} of {accuracy.rate.n} pairs; a coin is about half.",),
                "Check that better and worse were not swapped (in a file you imported?), and look at the largest "
                "disagreements.",
                None,
            )
    return None


# -- not yet ------------------------------------------------------------------------------------------


def _not_yet(grounds: Grounds) -> Verdict | None:
    rate = grounds.deciding.rate if grounds.deciding is not None else None
    if rate is not None and enough_to_tell(rate) and beats_coin(rate):
        return None
    narrowing = _narrowing(grounds)
    because = (*_why_not_yet(grounds, rate), *(one.what for one in narrowing))
    if rate is not None and advice.prompts_are_missing(rate):
        headline, prompts, todo = advice.to_other_prompts(grounds, rate)
        return Verdict("not_yet", headline, because, todo, prompts)
    more, todo = advice.to_beat_a_coin(grounds)
    if more is None:
        remedies = [one.remedy for one in narrowing[:1]]
        headline, todo = "Not yet — more labels alone will not do it.", " ".join([*remedies, todo])
    else:
        headline = f"Not yet — label about {more} more pairs."
    return Verdict("not_yet", headline, because, todo, more)


def _why_not_yet(grounds: Grounds, rate: Rate | None) -> tuple[str, ...]:
    if rate is None:
        return ("There is no decided pair of a prompt it had not seen, so nothing can be measured.",)
    if advice.prompts_are_missing(rate):
        return (_right_about(grounds, rate), _too_few_prompts(rate))
    if not rate.enough:
        return (_right_about(grounds, rate), f"That is worth fewer than {ENOUGH} pairs: too few to say anything.")
    return (_right_about(grounds, rate), luck_in_words(rate))


def _too_few_prompts(rate: Rate) -> str:
    of = "one prompt" if rate.clusters == 1 else f"only {rate.clusters} prompts"
    return (
        f"These are pairs of {of}, and it takes {LEAST_PROMPTS} to say anything: what it gets wrong may be of a kind "
        "that so few do not show."
    )


# -- usable for a narrow taste, or ready --------------------------------------------------------------


def _narrow(grounds: Grounds) -> Verdict | None:
    assert grounds.deciding is not None, "without it, it is not yet"
    rate = grounds.deciding.rate
    narrowing, missing = _narrowing(grounds), shortfalls(grounds, rate)
    if narrowing:
        headline = f"Usable for a narrow taste: {_clause(narrowing[0])}."
        because = (
            _right_about(grounds, rate),
            *_after_the_first(narrowing[0]),
            *(one.what for one in narrowing[1:]),
            *(one.what for one in missing),
        )
        return Verdict("narrow", headline, because, narrowing[0].remedy, None)
    if missing:
        headline = f"Usable for a narrow taste: right about {share_of(rate)} of new pairs."
        because = (_measured(grounds, rate), *(one.what for one in missing))
        worst = max(missing, key=lambda one: one.more)
        more = advice.rounded(worst.more)
        return Verdict("narrow", headline, because, advice.to_ready(more, worst.otherwise), more)
    return None


def _narrowing(grounds: Grounds) -> list[Finding]:
    return [one for one in grounds.findings if one.name in NARROWING and one.severity == "warning"]


def _ready(grounds: Grounds) -> Verdict:
    assert grounds.deciding is not None, "without it, it is not yet"
    rate, rule, ceiling = grounds.deciding.rate, grounds.length_rule, grounds.known_ceiling
    because = [_measured(grounds, rate)]
    if rule is not None:
        because.append(
            f"Always picking the {rule.name} one is right about {percent(rule.rate.share or 0)}; the model differs "
            f"from that by {points(rule.difference)}."
        )
    if ceiling is not None:
        because.append(f"Your own labels are right about {estimated_share(ceiling)} of the time.")
    return Verdict("ready", f"Ready: right about {share_of(rate)} of new pairs.", tuple(because), advice.READY, None)


def _right_about(grounds: Grounds, rate: Rate) -> str:
    return f"Right about {share_of(rate)} of {_pairs(grounds, rate)}."


def _measured(grounds: Grounds, rate: Rate) -> str:
    return f"Measured on {_pairs(grounds, rate)}."


def _pairs(grounds: Grounds, rate: Rate) -> str:
    """What it was measured on, and what was: '180 pairs of held-out prompts'."""
    if grounds.measured_on == "heldout":
        return f"{rate.n} pairs of held-out prompts"
    what = "a quick head on the base's features" if grounds.crossvalidated_by == "probe" else "the adapter trained anew"
    return f"{rate.n} pairs in cross-validation ({what})"


def _clause(finding: Finding) -> str:
    """The first sentence of what was found, to follow a colon."""
    sentence = finding.what.partition(". ")[0].rstrip(".")
    return sentence[0].lower() + sentence[1:]


def _after_the_first(finding: Finding) -> tuple[str, ...]:
    """What was found but for the first sentence, which the headline says."""
    rest = finding.what.partition(". ")[2]
    return (rest,) if rest else ()
