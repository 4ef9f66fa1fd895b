"""Hand-made judgements: statistics need no store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.preferences.records import Fact, Verdict

SHARED = Path(__file__).parents[4] / "shared" / "data"
START = datetime(2026, 11, 1, 9, 0, tzinfo=UTC)

Make = Callable[..., Fact]


@pytest.fixture(scope="session")
def fact() -> Make:
    """`fact(verdict, (ids on screen), …)`: a judgement of its own task unless told otherwise, 20 s after the last."""
    numbers = itertools.count(1)

    def made(verdict: Verdict, shown: tuple[int, ...] = (), **more: Any) -> Fact:
        number = next(numbers)
        shown = shown or (2 * number, 2 * number + 1)
        silent = verdict.outcome in ("skip", "discard")
        at = START + more.pop("at", timedelta(seconds=20 * number))
        values: dict[str, Any] = {
            "judgement_id": number,
            "task_id": 1_000_000 + number,
            "prompt_id": number,
            "rater": "me",
            "kind": {"rated": "rate", "accepted": "accept"}.get(verdict.outcome, "pair" if len(shown) == 2 else "rank"),
            "purpose": "label",
            "selection": "random",
            "verdict": verdict,
            "shown": () if silent else shown,
            "characters": () if silent else (100,) * len(shown),
            "layout": "stacked",
            "latency_ms": 10_000,
            "predicted": None,
            "created_at": at.isoformat(timespec="milliseconds"),
        }
        return Fact(**{**values, **more})

    return made


@pytest.fixture(scope="session")
def published() -> dict[str, Any]:
    """Numbers computed elsewhere, by other programs; they do not come with the package."""
    path = SHARED / "reference_values.json"
    if not path.exists():
        pytest.skip("the reference values are not here")
    values: dict[str, Any] = json.loads(path.read_text())
    return values


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets."""
    if not SHARED.exists():
        pytest.skip("the public data are not here")
    return SHARED
