"""Token sequences, and how they are cut into micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.model.heads import Pooling
from rlhf_tui.model.roles import Roles


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


def micro_batches(lengths: Sequence[int], most_tokens: int, rows: Sequence[int] | None = None) -> list[list[int]]:
    """Indices grouped so that rows · longest ≤ `most_tokens`, similar lengths together, longest group first.

    `rows` says how many rows each index brings along (default: one), all as long as its longest. The
    longest group comes first so that running out of memory happens in the first minute. An index
    beyond the limit stands alone.
    """
    groups: list[list[int]] = []
    height = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        more = 1 if rows is None else rows[index]
        if groups and (height + more) * lengths[groups[-1][0]] <= most_tokens:
            groups[-1].append(index)
            height += more
        else:
            groups.append([index])
            height = more
    return groups


def pooled(roles: Roles, lower: Tensor, batch: Batch) -> Tensor:
    """What the head of the active role reads: one hidden state for each row. → (rows, hidden)

    `lower`: what `roles.reader.lower` made of the batch.
    """
    return pool(roles.read(lower), batch, roles.reading.pooling)


def pool(hidden: Tensor, batch: Batch, pooling: Pooling) -> Tensor:
    """One of the hidden states (rows, width, hidden), or their mean, for each row. → (rows, hidden)

    'last': that of the last token, found by length; 'mean': the mean over the response's tokens, in fp32.
    """
    if pooling == "last":
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), batch.last]
    place = torch.arange(hidden.shape[1], device=hidden.device)[None]
    inside = (place >= batch.prompt_lengths[:, None]) & (place < batch.lengths[:, None])
    counts = inside.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(inside[..., None], hidden.float(), 0.0).sum(dim=1) / counts
