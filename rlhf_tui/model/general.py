"""Sampling from any decoder of transformers, by its own cache and its own attention.

Slower than slots, and right for architectures that slots do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlhf_tui.model.draw import Completion, Sampling, chances, draw

_SHRINK = 0.75  # the batch is compacted when this share of it, or less, is still going


@torch.no_grad()
def sample_in_batches(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    rows: int,
    seed: int,
    progress: Callable[[int], None],
) -> list[Completion]:
    """See `generation.sample`. Prompts are grouped by length into batches; rows that have ended leave theirs."""
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    results: dict[int, Completion] = {}
    finished = 0
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        streams = torch.stack([chances(seed, index, sampling.max_new_tokens) for index in chosen])
        batch = _Batch(model, [prompts[index] for index in chosen], sampling, end_ids, streams)
        while batch.going:
            ended = batch.step()
            finished += ended
            if ended:
                progress(finished)
        results.update(zip(chosen, batch.completions(), strict=True))
    return [results[index] for index in range(len(prompts))]


class _Batch:
    """The rows being sampled together: prompts padded on the left, one cache, a shrinking set of live rows."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        end_ids: Sequence[int],
        streams: Tensor,
    ) -> None:
        device = next(model.parameters()).device
        width = max(len(prompt) for prompt in prompts)
        self._model, self._sampling, self._streams = model, sampling, streams.to(device)
        self._ends = torch.tensor(list(end_ids), device=device)
        self._input = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros((len(prompts), width + sampling.max_new_tokens), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            self._input[row, width - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, width - len(prompt) : width] = 1
        mask[:, width:] = 1
        self._input, self._mask = self._input.to(device), mask.to(device)
        self._positions = (self._mask[:, :width].cumsum(-1) - 1).clamp(min=0)
        self._width, self._made = width, 0
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
        tokens = draw(output.logits[:, -1], self._sampling, self._streams[self._rows, self._made])
        stopping = torch.isin(tokens, self._ends)
        live = [row for row in self._rows.tolist() if not self._over(row)]
        for row, token, stop in zip(self._rows.tolist(), tokens.tolist(), stopping.tolist(), strict=True):
            if not self._over(row):
                self._ids[row].append(token)
                self._ended[row] = stop
        still = torch.tensor([not self._over(row) for row in self._rows.tolist()], device=tokens.device)
        self._width, self._made = self._width + 1, self._made + 1
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
