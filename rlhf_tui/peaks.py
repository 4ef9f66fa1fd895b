"""The memory that each phase of a run took at its peak, beside what was planned for it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rlhf_tui.fit import CONTEXT_BYTES, GIB, StagePlan
from rlhf_tui.runs.events import Alert, Event, EventSink, Memory

#: How far above the plan a peak may lie, as a share of it, before it is said.
ALLOWED = 0.15


class Peaks:
    """An event sink that puts the plan beside every measured peak, and tells once of each phase that is far above it.

    `plan` is that of the stage that runs; None where nothing can be planned. `before` are the peaks of earlier
    executions of the run. `held` is what the process held before the stage began, beyond a process that has just
    started: on the CPU it is added to the plan. Every event goes on to `emit`.
    """

    def __init__(self, plan: StagePlan | None, emit: EventSink, before: Iterable[Event] = (), *, held: int = 0) -> None:
        self._planned = {phase: parts.total for phase, parts in plan.phases.items()} if plan else {}
        self._held = held
        self._emit = emit
        self._largest: dict[str, Memory] = {}
        for event in before:
            if isinstance(event, Memory):
                keep_larger(self._largest, event)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Memory):
            return self._emit(event)
        planned = self._planned.get(event.phase, 0)
        if planned and not event.peak_device:
            planned += self._held
        one = msgspec.structs.replace(event, planned=planned)
        told = one.phase in self._largest and is_over(self._largest[one.phase])
        keep_larger(self._largest, one)
        self._emit(one)
        if is_over(one) and not told:
            self._emit(_over(one))

    def result(self) -> dict[str, dict[str, int]]:
        """Bytes taken, planned and reserved, by phase, of those that were planned: for the result of a run."""
        return {
            phase: {"peak": taken(one), "planned": one.planned, "reserved": one.reserved}
            for phase, one in self._largest.items()
            if one.planned
        }


def keep_larger(peaks: dict[str, Memory], one: Memory) -> None:
    """Let `one` be the peak of its phase if none before was larger."""
    before = peaks.get(one.phase)
    if before is None or taken(one) > taken(before):
        peaks[one.phase] = one


def taken(one: Memory) -> int:
    """The peak in bytes as the plan counts: the process's, or the card's with what torch's allocator does not see."""
    return one.peak_device + CONTEXT_BYTES if one.peak_device else one.peak_rss


def is_over(one: Memory) -> bool:
    """Whether a peak is further above its plan than plans are usually off."""
    return bool(one.planned) and taken(one) > (1 + ALLOWED) * one.planned


def beside_plan(peak: int, planned: int, reserved: int = 0) -> str:
    """All in words: '1.64 of 1.73 GiB planned'; how much more it is where that is more than plans are usually off.

    `reserved` is told where there is any: what torch's allocator held of a card, used or not.
    """
    held = f", {reserved / GIB:.2f} reserved" if reserved else ""
    more = f", {peak / planned - 1:.0%} more" if peak > (1 + ALLOWED) * planned else ""
    return f"{peak / GIB:.2f} of {planned / GIB:.2f} GiB planned{more}{held}"


def _over(one: Memory) -> Alert:
    return Alert(
        "note",
        "over-plan",
        f"More memory than planned in {one.phase}: {beside_plan(taken(one), one.planned)}.",
        why=f"The plan of 'rlhf-tui fit' is usually off by less than {ALLOWED:.0%}; of this model or machine it knows "
        "too little.",
        remedy="Nothing, while there is room: a run that comes to an end of its memory cuts its batches by itself. "
        "What 'rlhf-tui fit' says of this model, take with so much more.",
    )
