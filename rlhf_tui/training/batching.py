"""Token sequences, and how they are cut into micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.model.heads import Pooling
from rlhf_tui.model.roles import Roles

#: What a pass costs however few tokens it has, in tokens. Measured on 2 CPU cores with the starter: a policy pass,
#: forward and backward, takes 0.62 s for 248 tokens and 1.91 s for 992 (tests/bench/update_speed.py --rows 2 and 8),
#: which is 1.7 ms for each token and as much as 108 of them for the pass. With PPO's defaults and answers that end
#: after 40 % of the limit on average, 12 % of the tokens computed are padding (34 % if groups were merely filled).
PASS_TOKENS = 100


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

    Of all such cuts this is the one of least work: tokens with their padding, and `PASS_TOKENS` for each
    group. `rows` says how many rows each index brings along (default: one), all as long as its longest. The
    longest group comes first so that running out of memory happens in the first minute. An index
    beyond the limit stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    work, cut = [0] * (len(order) + 1), [0] * len(order)
    for start in reversed(range(len(order))):
        longest, height = lengths[order[start]], 0
        for end in range(start + 1, len(order) + 1):
            height += 1 if rows is None else rows[order[end - 1]]
            if end > start + 1 and height * longest > most_tokens:
                break
            needed = PASS_TOKENS + height * longest + work[end]
            if end == start + 1 or needed <= work[start]:
                work[start], cut[start] = needed, end
    groups, start = [], 0
    while start < len(order):
        groups.append(order[start : cut[start]])
        start = cut[start]
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
