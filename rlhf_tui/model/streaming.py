"""One completion, a token at a time, for somebody who reads along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from rlhf_tui.model.draw import Sampling, chances, draw


@torch.no_grad()
def stream(
    model: PreTrainedModel, prompt: Sequence[int], sampling: Sampling, *, end_ids: Sequence[int], seed: int
) -> Iterator[int]:
    """The tokens of one completion of `prompt` (ids, never empty), the one that ends the turn included.

    They are those of `generation.sample` with this prompt alone and this seed, beyond rounding. The model must stay
    as it is until the last one: between two tokens whoever reads has the word.
    """
    device = next(model.parameters()).device
    uniform = chances(seed, 0, sampling.max_new_tokens).to(device)
    cache = DynamicCache(config=model.config)
    ids = torch.tensor([list(prompt)], dtype=torch.long, device=device)
    for turn in range(sampling.max_new_tokens):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids = draw(output.logits[:, -1], sampling, uniform[turn : turn + 1])[:, None]
        token = int(ids)
        yield token
        if token in end_ids:
            return
