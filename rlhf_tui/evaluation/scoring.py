"""Scores of many completions, given a forward pass at a time, so that whoever waits can be heard in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlhf_tui.model.roles import Roles
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens, micro_batches
from rlhf_tui.training.features import score_tokens


def stepwise_scores(
    roles: Roles, sequences: Sequence[Tokens], sizes: MicroBatching, boundary: Callable[[], None]
) -> Tensor:
    """Raw scores of the reward role, the same bits as `score_tokens` gives; `boundary` after each forward pass.

    → (sequences,) fp32 on the CPU. `boundary` may raise to stop.
    """
    scores = torch.zeros(len(sequences))
    for members in micro_batches([len(one) for one in sequences], sizes.most_tokens):
        scores[members] = score_tokens(roles, [sequences[index] for index in members], sizes)
        boundary()
    return scores
