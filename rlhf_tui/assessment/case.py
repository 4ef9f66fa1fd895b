"""What the detectors look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_tui.assessment.records import (
    Accuracy,
    Baseline,
    Calibration,
    CrossvalidatedBy,
    MeasuredOn,
    RaterAgreement,
    Scored,
)
from rlhf_tui.preferences.intervals import Estimate


@dataclass(frozen=True)
class Case:
    """Pairs that were scored, and what is known of them.

    `measured` are the pairs that the verdict rests on, `deciding` their accuracy, `measured_on` their name.
    """

    train: Sequence[Scored]
    heldout: Sequence[Scored]
    measured: Sequence[Scored]
    measured_on: MeasuredOn
    train_accuracy: Accuracy | None
    heldout_accuracy: Accuracy | None
    crossvalidated: Accuracy | None
    crossvalidated_by: CrossvalidatedBy
    deciding: Accuracy | None
    baselines: Sequence[Baseline]
    calibration: Calibration | None
    ceiling: Estimate | None
    agreement: Sequence[RaterAgreement]
    invariance: float
    invariance_limit: float

    @property
    def of_quick_head(self) -> bool:
        """Whether what was measured is the quick head on the base's features, and not the model that was trained."""
        return self.measured_on == "crossvalidated" and self.crossvalidated_by == "probe"

    @property
    def subject(self) -> str:
        """What was measured, to begin a sentence with."""
        return "A quick head on the base's features" if self.of_quick_head else "It"
