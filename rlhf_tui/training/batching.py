"""Token sequences, and how they are cut into micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.model.decoder import Decoder


@dataclass(frozen=True)
class Tokens:
    """A prompt and its completion as ids: sampled, or encoded once. Never decoded and encoded again."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right, with lengths: masks come from these, never from a pad token."""

    ids: Tensor
    """(rows, width) long"""
    prompt_lengths: Tensor
    """(rows,) long"""
    lengths: Tensor
    """(rows,) long, prompt and response together"""

    @property
    def last(self) -> Tensor:
        """Index of the last token of each row. (rows,)"""
        return self.lengths - 1

    def before_response(self, width: int) -> tuple[Tensor, Tensor]:
        """Where each response token is predicted from, as (positions, mask), both (rows, width).

        The t-th response token is predicted from position prompt_length - 1 + t. Masked positions
        point to 0.
        """
        steps = torch.arange(width, device=self.ids.device)[None]
        mask = steps < (self.lengths - self.prompt_lengths)[:, None]
        positions = torch.where(mask, self.prompt_lengths[:, None] - 1 + steps, 0)
        return positions, mask


def pad(sequences: Sequence[Tokens], device: torch.device) -> Batch:
    """One padded batch. The pad id is 0, and no result depends on it."""
    ids = torch.zeros((len(sequences), max(len(one) for one in sequences)), dtype=torch.long)
    for row, one in enumerate(sequences):
        ids[row, : len(one)] = torch.tensor(one.prompt + one.response)
    prompts = torch.tensor([len(one.prompt) for one in sequences])
    lengths = torch.tensor([len(one) for one in sequences])
    return Batch(ids.to(device), prompts.to(device), lengths.to(device))


def micro_batches(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Indices grouped so that rows · longest ≤ `most_tokens`, similar lengths together, longest group first.

    The longest group comes first so that running out of memory happens in the first minute. A
    sequence longer than the limit stands alone.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= most_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def last_hidden(decoder: Decoder, lower: Tensor, batch: Batch) -> Tensor:
    """Hidden state of the active role at the last token of each row. → (rows, hidden)"""
    hidden = decoder.upper(lower)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), batch.last]
