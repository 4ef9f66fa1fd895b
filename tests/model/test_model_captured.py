"""Recorded steps give what plain steps give, whatever the number of rows; with a recorder that needs no card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_tui.model import captured, generation
from rlhf_tui.model.base import Base
from rlhf_tui.model.captured import CapturedSteps
from rlhf_tui.model.generation import Completion, Sampling, sample

PROMPTS = [[5, 6, 7], [8] * 9, [9, 10], [11] * 70, [12], [5, 6, 7], [13, 14, 15, 16]]
HOT = Sampling(12, 1.3)
ENDS = tuple(range(0, 370, 9))
Played = tuple[Callable[[], None], Tensor]


def recorder(work: Callable[[], Tensor]) -> Played:
    """As a card does it: the outcome always lies in the same place."""
    outcome = work().clone()

    def play() -> None:
        outcome.copy_(work())

    return play, outcome


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Lets recorded steps be used on the CPU, a look every third step; the shapes that were recorded."""
    seen: list[tuple[int, int]] = []

    def steps(stepper: Any) -> Callable[[], Tensor]:
        def record(work: Callable[[], Tensor]) -> Played:
            seen.append((stepper.slots.live, stepper.slots.reach))
            return recorder(work)

        return CapturedSteps(stepper, record).step

    monkeypatch.setattr(generation, "quickest_step", steps)
    monkeypatch.setattr(generation, "_LOOK", {"cpu": 3})
    return seen


def sampled(base: Base) -> list[Completion]:
    return sample(base.model, PROMPTS, HOT, end_ids=ENDS, rows=4, seed=5)


def test_recorded_steps_change_nothing(
    tiny_base: Base, shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    got = sampled(tiny_base)
    assert (4, 81) in shapes  # all columns that there are
    assert {rows for rows, _ in shapes} == {1, 2, 4}
    assert len(shapes) == len(set(shapes))
    monkeypatch.undo()
    assert got == sampled(tiny_base)


def test_a_recording_that_fails_or_differs_is_not_used(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sampled(tiny_base)

    def failing(work: Callable[[], Tensor]) -> Played:
        work()
        raise RuntimeError("operation not permitted when stream is capturing")

    def wrong(work: Callable[[], Tensor]) -> Played:
        work()
        return lambda: None, torch.zeros(4, dtype=torch.long)

    for record in (failing, wrong):
        monkeypatch.setattr(generation, "quickest_step", lambda stepper, r=record: CapturedSteps(stepper, r).step)
        assert sampled(tiny_base) == expected


def test_running_out_of_memory_is_told(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(work: Callable[[], Tensor]) -> Played:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(generation, "quickest_step", lambda stepper: CapturedSteps(stepper, full).step)
    with pytest.raises(torch.OutOfMemoryError):
        sampled(tiny_base)


def test_rows_are_rounded_up_to_a_power_of_two() -> None:
    assert [captured._rounded_rows(live, 12) for live in (1, 2, 3, 4, 5, 8, 9, 12)] == [1, 2, 4, 4, 8, 8, 12, 12]
