"""Comparisons made up from gaps, and the evidence of a run made up from comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlhf_tui.assessment.records import LabelFacts, Normalisation, Scored, TrainingFacts
from rlhf_tui.assessment.report import Evidence


class Maker:
    """Makes what the tests need; everything that a test does not name is unremarkable."""

    @staticmethod
    def pair(gap: float, place: int = 0, **named: Any) -> Scored:
        usual: dict[str, Any] = {
            "judgement": f"j{place}",
            "judgement_id": place + 1,
            "prompt": f"p{place}",
            "prompt_text": f"Question {place}?",
            "rater": "anna",
            "strength": 1,
            "tie": False,
            "weight": 1.0,
            "better_text": f"answer n{2 * place}",
            "worse_text": f"answer n{2 * place + 1}",
            "better_score": gap,
            "worse_score": 0.0,
            # Alternating, so that no rule about length, side or ending is of any use.
            "better_length": 20 + 10 * (place % 2),
            "worse_length": 30 - 10 * (place % 2),
            "better_ended": True,
            "worse_ended": True,
            "better_first": place % 4 < 2,
        }
        return Scored(**(usual | named))

    def pairs(self, gaps: Sequence[float], start: int = 0, **named: Any) -> tuple[Scored, ...]:
        """One pair of a prompt of its own for each gap; a named list gives each pair its own."""
        rows = [{key: v[i] if isinstance(v, list) else v for key, v in named.items()} for i in range(len(gaps))]
        return tuple(
            self.pair(float(gap), start + i, **row) for i, (gap, row) in enumerate(zip(gaps, rows, strict=True))
        )

    @staticmethod
    def labels(train: int, heldout: int, **named: Any) -> LabelFacts:
        usual: dict[str, Any] = {
            "hash": "a1b2c3d4e5f60718",
            "snapshot": "snapshot.jsonl",
            "raters_filter": (),
            "ties": "half",
            "folds": 5,
            "judgements": train + heldout,
            "comparisons": train + heldout,
            "train_pairs": train,
            "heldout_pairs": heldout,
            "heldout_ties": 0,
            "prompts": train + heldout,
            "raters": ("anna",),
            "too_long": 0,
        }
        return LabelFacts(**(usual | named))

    def evidence(
        self, train: Sequence[Scored] = (), heldout: Sequence[Scored] = (), cross: Sequence[Scored] = (), **named: Any
    ) -> Evidence:
        usual: dict[str, Any] = {
            "run": "reward-0003",
            "labels": self.labels(max(len(train), len(cross)), len(heldout)),
            "cross_by": "probe" if cross else "",
            "ceiling": None,
            "curve": None,
            "preview": (),
            "normalisation": Normalisation(0.25, 1.5, 64, "reference completions"),
            "ensemble": None,
            "training": TrainingFacts(2, 2, False, 40, 0, False),
            "agreement": (),
            "invariance": 1e-6,
            "seed": 0,
        }
        return Evidence(train=tuple(train), heldout=tuple(heldout), cross=tuple(cross), **(usual | named))


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()
