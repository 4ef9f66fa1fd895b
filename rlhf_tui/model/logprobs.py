"""Log-probabilities and entropies of chosen tokens, without ever holding logits for a whole batch.

The tensor of logits over the vocabulary is the largest thing in reinforcement learning on a small
card. Here it exists only for `chunk` positions at a time, and once: what the backward pass needs of it
is a vector of hidden size for each position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_tui.model import linear

CHUNK = 256  # positions; 256 x 150,000 logits in fp32 are 150 MB


@dataclass(frozen=True)
class Unembedding:
    """What turns a hidden state into logits: logits = softcap(hidden @ weight.T + bias)."""

    weight: Tensor
    """(vocabulary, hidden)"""
    bias: Tensor | None = None
    """(vocabulary,)"""
    softcap: float | None = None
    """Gemma 2: logits = cap * tanh(logits / cap)."""
    scale: float = 1.0
    """Cohere and Granite: logits = scale * logits, before any softcap."""


def unembedding_of(model: PreTrainedModel) -> Unembedding:
    """The unembedding of a causal language model. Raises TypeError when its head is not a plain linear layer."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        raise TypeError(f"the output head is {type(head).__name__}; a plain linear layer is needed")
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    return Unembedding(head.weight, head.bias, getattr(config, "final_logit_softcapping", None), scale)


@torch.no_grad()
def reproduces_logits(model: PreTrainedModel) -> bool:
    """Whether hidden state and unembedding give this model's own logits, tried on a few tokens.

    Some architectures scale their logits in ways of their own; log-probabilities would be those of
    another model than the one that samples.
    """
    device = next(model.parameters()).device
    ids = torch.arange(1, 5, device=device)[None] % model.config.get_text_config().vocab_size
    wanted = model(input_ids=ids, use_cache=False).logits[0].float()
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
    found = _logits(hidden, unembedding_of(model))
    slack = 1e-4 if wanted.dtype == hidden.dtype else 5e-2
    return bool((found - wanted).abs().max() <= slack * wanted.abs().max().clamp(min=1.0))


def token_logprobs(
    hidden: Tensor, targets: Tensor, unembedding: Unembedding, *, temperature: float, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target token, and the entropy of the distribution it was drawn from.

    hidden: (positions, hidden) the last hidden state before each token; targets: (positions,) ids.
    Returns logprobs (positions,) and entropies (positions,) in fp32, both at `temperature`, in nats.
    Gradients flow into `hidden` through the log-probabilities only: the unembedding is frozen and
    the entropy is a measurement.
    """
    if hidden.shape[0] == 0:
        empty = hidden.new_zeros(0, dtype=torch.float32)
        return empty + hidden.sum(), empty
    logprobs, entropies = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, targets, unembedding, temperature, chunk
    )
    return logprobs, entropies


class _TokenLogprobs(torch.autograd.Function):
    """The gradient of one log-probability depends on its own hidden state alone, and a loss only scales it.

    So the direction ∂ log p(target) / ∂ hidden, (positions, hidden), is taken while the probabilities are at hand, and
    the backward pass needs no logits again.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, unembedding: Unembedding, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        learns = ctx.needs_input_grad[0]
        parts = [
            _chunk(part, wanted, unembedding, temperature, learns)
            for part, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
        ]
        logprobs, entropies, directions = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(directions)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (directions,) = ctx.saved_tensors
        return (gradients[0][:, None] * directions).to(directions.dtype), None, None, None, None


def _chunk(
    hidden: Tensor, targets: Tensor, unembedding: Unembedding, temperature: float, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities and entropies (positions,), and ∂ log p / ∂ hidden (positions, hidden), empty unless `learns`.

    Two tensors over the vocabulary live at a time. log Σ exp = max - log(largest probability): the softmax has
    summed already.
    """
    logits = _logits(hidden, unembedding)
    steep = None
    if learns and unembedding.softcap is not None:
        steep = 1 - (logits / unembedding.softcap).square_()
    if temperature != 1.0:
        logits.div_(temperature)
    probabilities = torch.softmax(logits, dim=-1)
    normaliser = logits.amax(dim=-1) - probabilities.amax(dim=-1).log()
    logprobs = logits.gather(-1, targets[:, None])[:, 0] - normaliser
    entropies = normaliser - logits.mul_(probabilities).sum(dim=-1)
    if not learns:
        return logprobs, entropies, hidden.new_zeros(0, hidden.shape[-1])
    del logits
    slope = probabilities.neg_()
    slope.scatter_add_(-1, targets[:, None], torch.ones_like(slope[:, :1]))
    if steep is not None:
        slope.mul_(steep)
    direction = linear.product(slope.to(unembedding.weight.dtype), unembedding.weight.T)
    return logprobs, entropies, direction.mul_(unembedding.scale / temperature).to(hidden.dtype)


def _logits(hidden: Tensor, unembedding: Unembedding) -> Tensor:
    """(positions, hidden) → (positions, vocabulary) in fp32."""
    logits = linear.product(hidden.to(unembedding.weight.dtype), unembedding.weight).float()
    if unembedding.bias is not None:
        logits = logits + unembedding.bias.float()
    if unembedding.scale != 1.0:
        logits = logits * unembedding.scale
    if unembedding.softcap is not None:
        logits = unembedding.softcap * torch.tanh(logits / unembedding.softcap)
    return logits
