"""What a verdict rests on, put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_tui.assessment.chance import enough_prompts
from rlhf_tui.assessment.records import (
    Accuracy,
    Baseline,
    CrossvalidatedBy,
    Curve,
    Finding,
    LabelFacts,
    MeasuredOn,
)
from rlhf_tui.assessment.thresholds import HELDOUT_DECIDES
from rlhf_tui.preferences.intervals import ENOUGH, Estimate, counted_as


@dataclass(frozen=True)
class Grounds:
    """What the verdict rests on; `deciding` is the accuracy on the pairs named by `measured_on`."""

    labels: LabelFacts
    measured_on: MeasuredOn
    crossvalidated_by: CrossvalidatedBy
    deciding: Accuracy | None
    heldout: Accuracy | None
    ceiling: Estimate | None
    baselines: Sequence[Baseline]
    findings: Sequence[Finding]
    curve: Curve | None

    @property
    def known_ceiling(self) -> Estimate | None:
        """The rater's ceiling, when there are enough repeats to show it."""
        return self.ceiling if self.ceiling is not None and self.ceiling.enough and self.ceiling.value else None

    @property
    def length_rule(self) -> Baseline | None:
        """The better of the two rules about length."""
        rules = [one for one in self.baselines if one.name in ("longer", "shorter")]
        return max(rules, key=lambda one: one.rate.share or 0.0, default=None)

    @property
    def each(self) -> float:
        """By how many independent pairs one more judged pair adds to what is measured."""
        worth = counted_as(self.deciding.rate) if self.deciding is not None else 0.0
        return worth / max(self.labels.comparisons, 1)


def measured_on(heldout: Accuracy | None, crossvalidated: Accuracy | None, by: CrossvalidatedBy) -> MeasuredOn:
    """Which pairs decide: those of enough prompts, where the others are of too few; else the adapter's
    cross-validation, else enough held-out pairs, else whichever count for more."""
    if heldout is None or crossvalidated is None:
        return "heldout" if heldout is not None else "crossvalidated" if crossvalidated is not None else ""
    held, tried = counted_as(heldout.rate), counted_as(crossvalidated.rate)
    if enough_prompts(heldout.rate) != enough_prompts(crossvalidated.rate):
        return "heldout" if enough_prompts(heldout.rate) else "crossvalidated"
    if by == "lora" and tried >= ENOUGH:
        return "crossvalidated"
    return "heldout" if held >= HELDOUT_DECIDES or held >= tried else "crossvalidated"
