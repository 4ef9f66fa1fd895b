"""Active or random so far: what the pairs picked where the reward model is unsure have shown, beside random ones.

Picking pairs by uncertainty often gains nothing over chance (for preferences e.g. Gleave and Irving 2022,
arXiv 2203.07472), so this compares and promises nothing. The random share also keeps the other statistics
honest: actively picked pairs are harder than the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rlhf_tui.preferences.comparisons import is_decided
from rlhf_tui.preferences.intervals import Rate, difference, rate
from rlhf_tui.preferences.records import Fact


@dataclass(frozen=True)
class Picks:
    """The decided pairs picked one way: how many had a better side, and how often the model had bet on the other.

    `wrong` counts pairs with a better side that the model had a prediction for; an even bet is half wrong.
    """

    n: int
    decisive: Rate
    wrong: Rate


@dataclass(frozen=True)
class SelectionReport:
    """Both ways of picking side by side, and what may be said about them."""

    active: Picks
    random: Picks
    sentence: str


def selection_report(facts: Iterable[Fact]) -> SelectionReport | None:
    """Active against random picks so far; None as long as nothing was picked actively."""
    decided = [fact for fact in facts if fact.kind == "pair" and fact.purpose == "label" and is_decided(fact)]
    active = _picks([fact for fact in decided if fact.selection == "active"])
    if active.n == 0:
        return None
    random = _picks([fact for fact in decided if fact.selection == "random"])
    return SelectionReport(active, random, _sentence(active, random))


def _picks(facts: list[Fact]) -> Picks:
    ordered = [fact for fact in facts if fact.verdict.outcome == "ordered"]
    bets = [_wrong(fact.predicted, fact.verdict.ranks) for fact in ordered if fact.predicted is not None]
    return Picks(len(facts), rate(len(ordered), len(facts)), rate(sum(bets), len(bets)))


def _wrong(predicted: float, ranks: tuple[int, ...]) -> float:
    first_won = ranks[0] < ranks[1]
    return 0.5 if predicted == 0.5 else float((predicted > 0.5) != first_won)


def _sentence(active: Picks, random: Picks) -> str:
    gap = difference(active.wrong, random.wrong)
    if gap is None or not (active.wrong.enough and random.wrong.enough):
        return "Too few answers of both kinds to compare them."
    _, low, high = gap
    if low > 0:
        found = "The model errs more often on the pairs picked for being unsure: they do show where it is weak."
    elif high < 0:
        found = "The model errs less often on the pairs picked for being unsure: its doubts are no guide here."
    else:
        found = "It cannot be said yet that the model errs more often on one kind than on the other."
    return f"{found} Whether such labels make a better reward model than as many random ones is another question."
