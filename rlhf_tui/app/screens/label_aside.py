"""What is counted at leisure: statistics, nudges, today. Made when the next candidates are already on screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rlhf_tui.preferences.nudges import nudges
from rlhf_tui.preferences.records import Fact
from rlhf_tui.preferences.statistics import LabelReport, Tally

#: After so many answers beside the same nudge it goes; the statistics still hold it.
HEARD = 5


@dataclass(frozen=True)
class Aside:
    """How a rater has judged so far. `report` None: not counted yet. `nudge`: one thing to say, or ''."""

    report: LabelReport | None = None
    nudge: str = ""
    skipped: int = 0
    today: int = 0


class Gathering:
    """Makes the asides of one sitting, and remembers which nudges have been said."""

    def __init__(self) -> None:
        self.aside = Aside()
        self._tally = Tally()
        self._heard: Counter[str] = Counter()

    def gather(self, given: Sequence[Fact]) -> None:
        """Count a rater's active answers, oldest first."""
        self._tally.follow(given)
        report = self._tally.report()
        today = datetime.now(UTC).date().isoformat()
        self.aside = Aside(
            report=report,
            nudge=self._nudge(given, report),
            skipped=sum(fact.verdict.outcome == "skip" for fact in given),
            today=sum(fact.created_at.startswith(today) for fact in given),
        )

    def _nudge(self, given: Sequence[Fact], report: LabelReport) -> str:
        """The first nudge that has not been on screen beside enough answers already."""
        for nudge in nudges(given, report):
            if self._heard[nudge.id] < HEARD:
                self._heard[nudge.id] += 1
                return nudge.text
        return ""
