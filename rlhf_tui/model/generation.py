"""Batched sampling from the model as it stands: pure, seeded, and ended at the end-of-turn token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

_SHRINK = 0.75  # the batch is compacted when this share of it, or less, is still going


@dataclass(frozen=True)
class Sampling:
    """How to sample. `top_p` below 1 is for candidates only: rollouts must sample purely."""

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Completion:
    """Sampled ids, the end-of-turn token included when the model ended by itself."""

    ids: tuple[int, ...]
    ended: bool


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    batch_size: int,
    generator: torch.Generator,
    progress: Callable[[int], None] = lambda finished: None,
) -> list[Completion]:
    """One completion for each prompt, in the order of `prompts`.

    Prompts are grouped by length into batches of at most `batch_size`; rows that have ended leave
    the batch. `generator` lives on the model's device and is the only source of chance.
    `progress` is told how many completions are finished, whenever there are more.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    results: list[Completion | None] = [None] * len(prompts)
    finished = 0
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = _Batch(model, [prompts[index] for index in chosen], sampling, end_ids, generator)
        while batch.going:
            ended = batch.step()
            finished += ended
            if ended:
                progress(finished)
        for index, completion in zip(chosen, batch.completions(), strict=True):
            results[index] = completion
    return [completion for completion in results if completion is not None]


class _Batch:
    """The rows being sampled together: prompts padded on the left, one cache, a shrinking set of live rows."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        end_ids: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        device = next(model.parameters()).device
        width = max(len(prompt) for prompt in prompts)
        self._model, self._sampling, self._generator = model, sampling, generator
        self._ends = torch.tensor(list(end_ids), device=device)
        self._input = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros((len(prompts), width + sampling.max_new_tokens), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            self._input[row, width - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, width - len(prompt) : width] = 1
        mask[:, width:] = 1
        self._input, self._mask = self._input.to(device), mask.to(device)
        self._positions = (self._mask[:, :width].cumsum(-1) - 1).clamp(min=0)
        self._width = width
        self._cache = DynamicCache(config=model.config)
        self._rows = torch.arange(len(prompts), device=device)
        self._ids: list[list[int]] = [[] for _ in prompts]
        self._ended = [False] * len(prompts)

    @property
    def going(self) -> bool:
        return len(self._rows) > 0

    def completions(self) -> list[Completion]:
        return [Completion(tuple(ids), ended) for ids, ended in zip(self._ids, self._ended, strict=True)]

    def step(self) -> int:
        """Sample one token for every live row; returns how many rows that finished."""
        output = self._model(
            input_ids=self._input,
            attention_mask=self._mask[:, : self._width],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens = draw(output.logits[:, -1], self._sampling, self._generator)
        stopping = torch.isin(tokens, self._ends)
        live = [row for row in self._rows.tolist() if not self._over(row)]
        for row, token, stop in zip(self._rows.tolist(), tokens.tolist(), stopping.tolist(), strict=True):
            if not self._over(row):
                self._ids[row].append(token)
                self._ended[row] = stop
        still = torch.tensor([not self._over(row) for row in self._rows.tolist()], device=tokens.device)
        self._width += 1
        self._input = tokens[:, None]
        self._positions = self._positions[:, -1:] + 1
        if still.sum() <= _SHRINK * len(self._rows):
            self._keep(still.nonzero()[:, 0])
        return sum(self._over(row) for row in live)

    def _over(self, row: int) -> bool:
        return self._ended[row] or len(self._ids[row]) >= self._sampling.max_new_tokens

    def _keep(self, indices: Tensor) -> None:
        self._rows = self._rows[indices]
        self._input, self._mask, self._positions = self._input[indices], self._mask[indices], self._positions[indices]
        if len(indices):
            self._cache.batch_select_indices(indices)


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token for each row. logits: (batch, vocabulary) → ids: (batch,).

    By inverting the cumulative distribution in fp64 with one uniform number a row: on the CPU several
    times faster than torch.multinomial, which draws a number for every token of the vocabulary.
    top_p keeps the smallest set of tokens whose probability reaches it (Holtzman et al., 2020).
    """
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ranked, places = probabilities.sort(dim=-1, descending=True)
        ranked[ranked.cumsum(-1) - ranked >= sampling.top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, places, ranked)
    cumulative = probabilities.double().cumsum(dim=-1)
    drawn = torch.rand((len(logits), 1), generator=generator, device=logits.device, dtype=torch.float64)
    # the first token whose cumulative probability is above the draw: never one of probability 0
    places = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)
    return places.clamp(max=logits.shape[-1] - 1)[:, 0]
