"""What a verdict rests on, put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_tui.assessment.chance import effective
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
from rlhf_tui.preferences.intervals import ENOUGH, Estimate


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
        worth = effective(self.deciding.rate) if self.deciding is not None else 0.0
        return worth / max(self.labels.comparisons, 1)


def measured_on(heldout: Accuracy | None, crossvalidated: Accuracy | None, by: CrossvalidatedBy) -> MeasuredOn:
    """Which pairs decide: the adapter's cross-validation, else enough held-out pairs, else whichever are more."""
    tried, held = (effective(one.rate) if one is not None else 0.0 for one in (crossvalidated, heldout))
    if tried == held == 0:
        return ""
    if by == "lora" and tried >= ENOUGH:
        return "crossvalidated"
    return "heldout" if held >= HELDOUT_DECIDES or held >= tried else "crossvalidated"
