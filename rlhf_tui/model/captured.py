"""Decoding steps recorded once and played again: on a card, launching the kernels costs more than running them.

A recording holds for one number of rows and one reach, so both are rounded up: surplus rows and columns are computed
and thrown away. Every recording is played once beside the plain step before it is trusted; if recording fails (some
kernels cannot be) or gives other tokens, the plain step it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_tui.model.stepping import Stepper

_COLUMNS = 64  # the reach is rounded up to multiples of this

#: Runs some work while recording it. → how to play it again, and the tensor that then holds the outcome
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
Played = tuple[Callable[[], None], Tensor]


def quickest_step(stepper: Stepper) -> Callable[[], Tensor]:
    """The step of `stepper`, through recordings where the device has them."""
    if stepper.slots.index.device.type != "cuda":
        return stepper.step
    return CapturedSteps(stepper, cuda_graphs()).step


def cuda_graphs() -> Record:
    """Recording by CUDA graphs, all in one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def record(work: Callable[[], Tensor]) -> Played:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outcome = work()
        return graph.replay, outcome

    return record


class CapturedSteps:
    """The step of a stepper, recorded for each shape when that is first met."""

    def __init__(self, stepper: Stepper, record: Record) -> None:
        self._stepper, self._slots, self._record = stepper, stepper.slots, record
        self._recordings: dict[tuple[int, int], Played] = {}
        self._trusted = True

    def step(self) -> Tensor:
        """Like `Stepper.step`. → (live,) on the device"""
        live, reach = self._slots.live, self._slots.reach
        if not self._trusted:
            return self._stepper.step()
        shape = (_rounded_rows(live, self._slots.rows), min(self._slots.columns, -(-reach // _COLUMNS) * _COLUMNS))
        # surplus rows start over at every step, so that they never run out of columns
        for store in (self._slots.lengths, self._stepper.made):
            store[live : shape[0]] = 0
        self._slots.live, self._slots.reach = shape
        try:
            if shape not in self._recordings and not self._learn(shape, live):
                return self._stepper.step()[:live]
            play, outcome = self._recordings[shape]
            play()
            return outcome[:live].clone()
        finally:
            self._slots.live, self._slots.reach = live, reach

    def _learn(self, shape: tuple[int, int], live: int) -> bool:
        """Record a step of this shape and try it; everything stands as before. Whether it can be trusted."""
        stores = (self._stepper.inputs, self._stepper.made, self._slots.lengths)
        before = [store.clone() for store in stores]

        def back() -> None:
            for store, value in zip(stores, before, strict=True):
                store.copy_(value)

        wanted = self._stepper.step()
        back()
        try:
            recording = self._record(self._stepper.step)
            back()
            recording[0]()
            self._trusted = torch.equal(recording[1][:live], wanted[:live])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self._trusted = False
        back()
        if self._trusted:
            self._recordings[shape] = recording
        return self._trusted


def _rounded_rows(live: int, most: int) -> int:
    """The next power of two: when slots empty at the end, a few recordings serve."""
    return min(most, 1 << (live - 1).bit_length())
