"""Measured peaks beside the plan: which one counts, when it is said, and how."""

from __future__ import annotations

import pytest

from rlhf_tui.fit import CONTEXT_BYTES, GIB, Moment, Parts, StagePlan
from rlhf_tui.peaks import Peaks, beside_plan, taken
from rlhf_tui.runs.events import Alert, Event, Memory, Stage

PLAN = StagePlan(
    "ppo",
    (
        Moment("sampling", "sampling", Parts(weights=4 * GIB)),
        Moment("log-probabilities", "update", Parts(weights=5 * GIB)),
        Moment("backward", "update", Parts(weights=6 * GIB)),
    ),
)


def measured(phase: str, gib: float) -> Memory:
    return Memory(phase, GIB, int(gib * GIB))


def heard(*events: Event, before: tuple[Event, ...] = ()) -> tuple[list[Event], Peaks]:
    told: list[Event] = []
    peaks = Peaks(PLAN, told.append, before)
    for event in events:
        peaks(event)
    return told, peaks


def test_a_peak_gets_its_plan_and_everything_else_passes() -> None:
    told, peaks = heard(Stage("sampling"), measured("sampling", 3.5), measured("load", 9), measured("update", 6.5))
    assert told[0] == Stage("sampling")
    assert [one.planned for one in told[1:] if isinstance(one, Memory)] == [4 * GIB, 0, 6 * GIB]
    assert len(told) == 4
    assert peaks.result() == {
        "sampling": {"peak": int(3.5 * GIB), "planned": 4 * GIB, "reserved": 0},
        "update": {"peak": int(6.5 * GIB), "planned": 6 * GIB, "reserved": 0},
    }


def test_the_largest_peak_of_a_phase_counts() -> None:
    _, peaks = heard(measured("sampling", 2), measured("sampling", 3), measured("sampling", 1))
    assert peaks.result()["sampling"]["peak"] == 3 * GIB


def test_a_phase_that_takes_far_more_than_planned_is_told_once() -> None:
    told, _ = heard(measured("sampling", 4.5), *[measured("update", 7.2)] * 3)
    (note,) = [one for one in told if isinstance(one, Alert)]
    assert (note.level, note.code) == ("note", "over-plan")
    assert note.message == "More memory than planned in update: 7.20 of 6.00 GiB planned, 20% more."
    assert note.why
    assert note.remedy
    assert told.index(note) == 2  # right after the peak


def test_a_run_that_goes_on_keeps_its_earlier_peaks_and_does_not_tell_again() -> None:
    once, _ = heard(measured("update", 7.5))
    told, peaks = heard(measured("update", 7.2), before=tuple(once))
    assert not [one for one in told if isinstance(one, Alert)]
    assert peaks.result()["update"]["peak"] == int(7.5 * GIB)


def test_of_a_card_what_cuda_itself_takes_counts_too() -> None:
    assert taken(Memory("update", 9 * GIB, 9 * GIB, GIB, 2 * GIB)) == 2 * GIB + CONTEXT_BYTES
    assert taken(Memory("update", GIB, 2 * GIB)) == 2 * GIB


def test_what_the_allocator_reserved_of_a_card_is_kept_and_told() -> None:
    _, peaks = heard(Memory("update", GIB, GIB, GIB, 5 * GIB, reserved=6 * GIB))
    (found,) = peaks.result().values()
    assert found == {"peak": 5 * GIB + CONTEXT_BYTES, "planned": 6 * GIB, "reserved": 6 * GIB}
    assert beside_plan(**found) == "5.70 of 6.00 GiB planned, 6.00 reserved"


def test_where_nothing_can_be_planned_nothing_is_compared() -> None:
    told: list[Event] = []
    peaks = Peaks(None, told.append)
    peaks(measured("update", 99))
    assert told == [measured("update", 99)]
    assert peaks.result() == {}


@pytest.mark.parametrize(
    ("peak", "said"),
    [
        (1.9, "1.90 of 2.00 GiB planned"),
        (2.2, "2.20 of 2.00 GiB planned"),
        (2.5, "2.50 of 2.00 GiB planned, 25% more"),
    ],
)
def test_in_words(peak: float, said: str) -> None:
    assert beside_plan(int(peak * GIB), 2 * GIB) == said


def test_what_earlier_stages_left_in_the_process_is_no_fault_of_the_plan() -> None:
    told: list[Event] = []
    peaks = Peaks(PLAN, told.append, held=2 * GIB)
    peaks(Memory("update", int(8.5 * GIB), int(8.6 * GIB)))  # 6 planned, 2 held before
    peaks(Memory("sampling", GIB, GIB, 5 * GIB, 5 * GIB))  # on a card it does not count
    assert [one.planned for one in told if isinstance(one, Memory)] == [8 * GIB, 4 * GIB]
    assert [one.message for one in told if isinstance(one, Alert)] == [
        f"More memory than planned in sampling: {beside_plan(5 * GIB + CONTEXT_BYTES, 4 * GIB)}."
    ]
