"""What the base itself sees in a candidate: one hidden state each, computed once and used again.

Features of the frozen base start the head, and give a cross-validation and a learning curve in seconds where a
fine-tuning for each fold would take hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Pooling, Tokens, micro_batches, pad, pooled
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.shared import SharedLayers


@dataclass(frozen=True)
class Features:
    """Pooled last hidden states of the base, a row for each candidate."""

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
    roles: Roles,
    shared: SharedLayers,
    sequences: Sequence[Tokens],
    pooling: Pooling,
    sizes: MicroBatching,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Features of these sequences, each once, with all adapters off. `progress` hears how many are done."""
    unique = list(dict.fromkeys(sequences))
    lengths = [len(one) for one in unique]
    values = torch.zeros(len(unique), roles.base.model.config.get_text_config().hidden_size)

    def run() -> None:
        done = 0
        for members in micro_batches(lengths, sizes.most_tokens):
            batch, lower = shared.run([unique[index] for index in members])
            values[members] = pooled(roles.decoder, lower, batch, pooling).float().cpu()
            done += len(members)
            progress(done)

    with torch.no_grad(), roles.reference():
        sizes.survive(run, lambda: _sizes(lengths, sizes.most_tokens))
    return Features({one: row for row, one in enumerate(unique)}, values)


def score_tokens(
    roles: Roles, sequences: Sequence[Tokens], pooling: Pooling, sizes: MicroBatching, *, role: Role = "reward"
) -> Tensor:
    """Raw scores of completions by a role with a head. → (sequences,) fp32 on the CPU, no gradient."""
    lengths = [len(one) for one in sequences]
    scores = torch.zeros(len(sequences))

    def run() -> None:
        for members in micro_batches(lengths, sizes.most_tokens):
            batch = pad([sequences[index] for index in members], roles.base.device)
            hidden = pooled(roles.decoder, roles.decoder.lower(batch.ids), batch, pooling)
            scores[members] = roles.head(role)(hidden).cpu()

    with torch.no_grad(), roles.acting(role):
        sizes.survive(run, lambda: _sizes(lengths, sizes.most_tokens))
    return scores


def invariance(roles: Roles, sequences: Sequence[Tokens], pooling: Pooling) -> float:
    """By how much a score changes with what stands beside it: alone, in one batch, and with more padding.

    In fp32 this is rounding, far below 1e-4; more means that padding or the end token is mistaken for text.
    """
    if not sequences:
        return 0.0
    wide = max(sequences, key=len)
    widest = Tokens(wide.prompt, wide.response + wide.response[-1:] * 7)

    def scored(batch: Sequence[Tokens]) -> Tensor:
        padded = pad(batch, roles.base.device)
        hidden = pooled(roles.decoder, roles.decoder.lower(padded.ids), padded, pooling)
        scores: Tensor = roles.head("reward")(hidden)
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
