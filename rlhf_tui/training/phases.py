"""The peak of each phase of a run, gathered from its events."""

from __future__ import annotations

import gc

import msgspec
import torch

from rlhf_tui.peaks import keep_larger
from rlhf_tui.runs.events import Event, EventSink, Memory, Stage
from rlhf_tui.training.memory import measure, release

# What the phases are called where memory is measured, by the name of the stage in which it happens.
_CALLED = {"learning": "update", "rehearsal": "update"}


class PhasePeaks:
    """An event sink that keeps the largest peak of each phase: a phase begins with its Stage event.

    What the run measures itself counts, and at the end of each phase it is measured here. Every event goes on to
    `emit`.
    """

    def __init__(self, device: torch.device, emit: EventSink = lambda event: None) -> None:
        self._device, self._emit = device, emit
        self._phase = ""
        self._peaks: dict[str, Memory] = {}
        measure("", device)  # what came before belongs to nobody

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, Memory):
            self._keep(event)
        elif isinstance(event, Stage):
            self.close()
            gc.collect()
            release(self._device)
            measure("", self._device)
            self._phase = _CALLED.get(event.name, event.name)

    def close(self) -> dict[str, Memory]:
        """End the phase that is going on; returns the peaks so far, by phase."""
        self._keep(measure(self._phase, self._device))
        return {phase: peak for phase, peak in self._peaks.items() if phase}

    def _keep(self, one: Memory) -> None:
        keep_larger(self._peaks, msgspec.structs.replace(one, phase=self._phase))
