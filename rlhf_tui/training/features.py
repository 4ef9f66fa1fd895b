"""What the base itself sees in a candidate: one hidden state each, computed once and used again.

Features of the frozen base start the head, and give a cross-validation and a learning curve in seconds where a
fine-tuning for each fold would take hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import states_after
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens, micro_batches, pad, pool, pooled
from rlhf_tui.training.groups import Pair


@dataclass(frozen=True)
class Features:
    """One hidden state of the base for each candidate."""

    rows: Mapping[Tokens, int]
    values: Tensor
    """(candidates, width) fp32, on the CPU"""

    def of(self, sequences: Sequence[Tokens]) -> Tensor:
        """→ (sequences, width)"""
        return self.values[[self.rows[one] for one in sequences]]

    def gaps(self, pairs: Sequence[Pair]) -> Tensor:
        """Better minus worse. → (pairs, width)"""
        return self.of([pair.chosen for pair in pairs]) - self.of([pair.rejected for pair in pairs])


def base_features(
    base: Base,
    sequences: Sequence[Tokens],
    readings: Sequence[Reading],
    sizes: MicroBatching,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[Reading, Features]:
    """What each reading makes of these sequences, all of them in one pass through the base.

    No adapter may be active. `progress` hears how many sequences are done.
    """
    unique = list(dict.fromkeys(sequences))
    lengths = [len(one) for one in unique]
    width = base.model.config.get_text_config().hidden_size
    values = {reading: torch.zeros(len(unique), width) for reading in readings}
    layers = {reading.layer for reading in readings}

    def run() -> None:
        done = 0
        for members in micro_batches(lengths, sizes.most_tokens):
            batch = pad([unique[index] for index in members], base.device)
            states = states_after(base.model, batch.ids, layers)
            for reading, own in values.items():
                own[members] = pool(states[reading.layer], batch, reading.pooling).float().cpu()
            done += len(members)
            progress(done)

    with torch.no_grad():
        sizes.survive(run, lambda: _sizes(lengths, sizes.most_tokens))
    rows = {one: row for row, one in enumerate(unique)}
    return {reading: Features(rows, own) for reading, own in values.items()}


def score_tokens(roles: Roles, sequences: Sequence[Tokens], sizes: MicroBatching, *, role: Role = "reward") -> Tensor:
    """Raw scores of completions by a role with a head. → (sequences,) fp32 on the CPU, no gradient."""
    lengths = [len(one) for one in sequences]
    scores = torch.zeros(len(sequences))

    def run() -> None:
        for members in micro_batches(lengths, sizes.most_tokens):
            batch = pad([sequences[index] for index in members], roles.base.device)
            scores[members] = roles.head(role)(pooled(roles, roles.reader.lower(batch.ids), batch)).cpu()

    with torch.no_grad(), roles.acting(role):
        sizes.survive(run, lambda: _sizes(lengths, sizes.most_tokens))
    return scores


def invariance(roles: Roles, sequences: Sequence[Tokens]) -> float:
    """By how much a score changes with what stands beside it: alone, in one batch, and with more padding.

    In fp32 this is rounding, far below 1e-4; more means that padding or the end token is mistaken for text.
    """
    if not sequences:
        return 0.0
    wide = max(sequences, key=len)
    widest = Tokens(wide.prompt, wide.response + wide.response[-1:] * 7)

    def scored(batch: Sequence[Tokens]) -> Tensor:
        padded = pad(batch, roles.base.device)
        scores: Tensor = roles.head("reward")(pooled(roles, roles.reader.lower(padded.ids), padded))
        return scores.float().cpu()

    with torch.no_grad(), roles.acting("reward"):
        alone = torch.cat([scored([one]) for one in sequences])
        together = scored(list(sequences))
        padded = torch.cat([scored([one, widest])[:1] for one in sequences])
    return float(torch.stack([together - alone, padded - alone]).abs().max())


def _sizes(lengths: Sequence[int], most_tokens: int) -> tuple[int, int]:
    """Tokens of the largest forward pass, and of the longest sequence."""
    groups = micro_batches(lengths, most_tokens)
    return max(len(group) * lengths[group[0]] for group in groups), max(lengths)
