"""All there is to say about a project's judgements: each rater, how they agree, and what picking pairs has shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rlhf_tui.preferences.agreement import Agreement, PairOfRaters, agreements, pairs_of_raters
from rlhf_tui.preferences.nudges import Nudge, nudges
from rlhf_tui.preferences.records import Counts, Fact, Rater
from rlhf_tui.preferences.refusals import refusals
from rlhf_tui.preferences.selection import SelectionReport, selection_report
from rlhf_tui.preferences.statistics import LabelReport, gold_facts, label_report
from rlhf_tui.preferences.store import Store

#: Raters whose judgements are taken together; a rule's or a model's are never mixed into them.
PEOPLE = ("human", "import")


@dataclass(frozen=True)
class RaterReport:
    """One rater: handle and kind, what their judgements show, and what they may want to hear about them."""

    rater: str
    kind: str
    report: LabelReport
    nudges: tuple[Nudge, ...]


@dataclass(frozen=True)
class ProjectReport:
    """Every rater with judgements, most first.

    `agreement` is among people; `pairs_of_raters` compares everybody, rules and models too, two by two, where
    that says more. `selection` is None as long as no pair was picked actively.
    """

    counts: Counts
    raters: tuple[RaterReport, ...]
    agreement: tuple[Agreement, ...]
    pairs_of_raters: tuple[PairOfRaters, ...]
    selection: SelectionReport | None


def project_report(store: Store) -> ProjectReport:
    """What the active judgements of a project show."""
    facts = store.facts()
    gold = gold_facts(facts, store.gold())
    declining = refusals(store)
    by_rater: dict[str, list[Fact]] = {}
    for fact in facts:
        by_rater.setdefault(fact.rater, []).append(fact)
    known = {rater.handle: rater for rater in store.raters()}
    people = {handle for handle in by_rater if known[handle].kind in PEOPLE}
    reports = [_of_rater(known[handle], by_rater[handle], gold, declining) for handle in by_rater]
    return ProjectReport(
        counts=store.counts(),
        raters=tuple(sorted(reports, key=lambda one: (-one.report.n, one.rater))),
        agreement=tuple(agreements(fact for fact in facts if fact.rater in people)) if len(people) > 1 else (),
        pairs_of_raters=tuple(pairs_of_raters(facts)) if len(by_rater) > len(people) or len(people) > 2 else (),
        selection=selection_report(facts),
    )


def _of_rater(rater: Rater, facts: Sequence[Fact], gold: Mapping[int, Fact], declining: Collection[int]) -> RaterReport:
    report = label_report(facts, gold, declining)
    return RaterReport(rater.handle, rater.kind, report, tuple(nudges(facts, report)))
