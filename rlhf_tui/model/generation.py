"""Sampling from the model as it stands: pure, seeded, and ended at the end-of-turn token.

A row that has ended gives its slot to the next prompt; equal prompts are read once; nothing is copied for a token.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from rlhf_tui.model.captured import quickest_step
from rlhf_tui.model.draw import Completion, Sampling, chances, draw
from rlhf_tui.model.general import sample_in_batches
from rlhf_tui.model.linear import quick_linears
from rlhf_tui.model.slots import Slots, attending
from rlhf_tui.model.stepping import Stepper, suits_slots
from rlhf_tui.model.unpacked import Weights, multiplying_with

__all__ = ["Completion", "Sampling", "draw", "projected_seconds", "sample"]

_LOOK = {"cpu": 1}  # steps between two looks at what has ended
_LOOK_ELSEWHERE = 8  # every look makes the device wait for the host
_TRIED = 6  # looks that are timed, after one that is not


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    rows: int,
    seed: int,
    progress: Callable[[int], None] = lambda finished: None,
    weights: Weights = "quantised",
) -> list[Completion]:
    """One completion for each prompt (a list of ids, never empty), in the order of `prompts`.

    At most `rows` are in flight. Every completion is decided by uniform numbers of its own, made from `seed` and its
    place in `prompts`, so that `rows` and the company it is sampled in do not change it, beyond rounding.
    `progress` is told how many completions are finished, whenever there are more. `weights`: what the layers of a 4-bit
    base multiply with.
    """
    if not prompts:
        return []
    rows = min(rows, len(prompts))
    suited = suits_slots(model)
    with multiplying_with(model, weights, rows=rows):
        if not suited:
            return sample_in_batches(model, prompts, sampling, end_ids=end_ids, rows=rows, seed=seed, progress=progress)
        with _crew(model, prompts, sampling, end_ids, rows, seed) as crew:
            while crew.going:
                finished = crew.advance()
                if finished:
                    progress(crew.finished)
            return crew.completions()


@torch.no_grad()
def projected_seconds(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling, *, steps: int, weights: Weights
) -> float:
    """What `steps` of decoding would take, each for a row of every prompt, and making the copy if there is one.

    By the quickest of a few. Infinite for a copy where completions are too short to make one for, or where the model is
    not sampled from in slots.
    """
    device = next(model.parameters()).device
    timed = (_TRIED + 1) * _look(device)
    if sampling.max_new_tokens < timed or not suits_slots(model):
        return 0.0 if weights == "quantised" else math.inf
    began = time.perf_counter()
    with multiplying_with(model, weights, rows=len(prompts)):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        making = time.perf_counter() - began
        with _crew(model, prompts, sampling, (), len(prompts), seed=0) as crew:
            crew.advance()
            return making + steps * min(_seconds_of_a_step(crew) for _ in range(_TRIED))


def _seconds_of_a_step(crew: _Crew) -> float:
    began, before = time.perf_counter(), crew.steps
    crew.advance()
    return (time.perf_counter() - began) / (crew.steps - before)


@contextmanager
def _crew(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    end_ids: Sequence[int],
    rows: int,
    seed: int,
) -> Iterator[_Crew]:
    # the last token is never run through the model
    slots = Slots(model, rows, max(map(len, prompts)) + sampling.max_new_tokens - 1)
    steps = sampling.max_new_tokens * len(prompts) // rows
    with attending(model, slots), quick_linears(model, rows=rows, steps=steps):
        yield _Crew(Stepper(model, slots, sampling), prompts, end_ids, seed)


class _Crew:
    """Who sits in which slot. The first `slots.live` slots are at work; the queue fills the others.

    The queue holds equal prompts one after another, the longest first. So whoever comes next either has a prompt that
    nobody has read yet, or the one that was admitted last, whose slot still holds it.
    """

    def __init__(self, stepper: Stepper, prompts: Sequence[Sequence[int]], end_ids: Sequence[int], seed: int) -> None:
        self._stepper, self._slots, self._step = stepper, stepper.slots, quickest_step(stepper)
        self._prompts = [tuple(prompt) for prompt in prompts]
        self._ends, self._seed = frozenset(end_ids), seed
        self._most = stepper.sampling.max_new_tokens
        self._look = _look(self._slots.index.device)
        self._queue = deque(_grouped(self._prompts))
        self._seats = [0] * self._slots.rows  # the completion in each slot
        self._ids: list[list[int]] = [[] for _ in prompts]
        self._ended = [False] * len(prompts)
        self._last: tuple[tuple[int, ...], int] = ((), 0)
        self.finished = 0
        self.steps = 0
        self._admit(range(self._slots.rows))

    @property
    def going(self) -> bool:
        return bool(self._seats)

    def completions(self) -> list[Completion]:
        return [Completion(tuple(ids), ended) for ids, ended in zip(self._ids, self._ended, strict=True)]

    def advance(self) -> int:
        """A few steps for every live slot, then a look at them. Returns how many completions that finished."""
        longest = max(self._length(job) for job in self._seats)
        steps = min(self._look, min(self._most - len(self._ids[job]) for job in self._seats))
        self._slots.live = len(self._seats)
        self.steps += steps
        drawn = []
        for turn in range(steps):
            self._slots.reach = longest + turn
            drawn.append(self._step())
        for job, tokens in zip(self._seats, torch.stack(drawn, dim=1).tolist(), strict=True):
            self._take(job, tokens)
        free = [slot for slot, job in enumerate(self._seats) if self._over(job)]
        self.finished += len(free)
        self._reseat(free)
        return len(free)

    def _take(self, job: int, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._ids[job].append(token)
            if token in self._ends:
                self._ended[job] = True
                return

    def _over(self, job: int) -> bool:
        return self._ended[job] or len(self._ids[job]) >= self._most

    def _length(self, job: int) -> int:
        return len(self._prompts[job]) + len(self._ids[job])

    def _reseat(self, free: Sequence[int]) -> None:
        """Fill the slots that are `free` from the queue; when it is empty, close the gaps with the last live slots."""
        filled = min(len(free), len(self._queue))
        self._admit(free[:filled])
        for slot in reversed(free[filled:]):
            last = self._seats.pop()
            if slot < len(self._seats):
                self._stepper.move(len(self._seats), slot, self._length(last) - 1)
                self._seats[slot] = last

    def _admit(self, slots: Sequence[int]) -> None:
        """Give each of `slots` the next completion of the queue, reading every prompt once."""
        fresh: list[tuple[tuple[int, ...], int]] = []
        copies: list[tuple[int, int, int]] = []
        for slot in slots:
            job = self._queue.popleft()
            prompt, (known, holder) = self._prompts[job], self._last
            if prompt != known:
                fresh.append((prompt, slot))
            elif fresh:  # the holder is yet to be filled itself
                copies.append((holder, slot, len(prompt) - 1))
            else:
                self._slots.copy(holder, slot, len(prompt) - 1)
            self._last, self._seats[slot] = (prompt, slot), job
            self._stepper.start(slot, prompt, chances(self._seed, job, self._most))
        self._stepper.prefill([prompt for prompt, _ in fresh], [slot for _, slot in fresh])
        for source, target, length in copies:
            self._slots.copy(source, target, length)


def _look(device: torch.device) -> int:
    return _LOOK.get(device.type, _LOOK_ELSEWHERE)


def _grouped(prompts: Sequence[tuple[int, ...]]) -> list[int]:
    """Places in `prompts`: equal ones together, the longest first (most memory is needed at the start)."""
    first: dict[tuple[int, ...], int] = {}
    for place, prompt in enumerate(prompts):
        first.setdefault(prompt, place)
    return sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), first[prompts[place]], place))
