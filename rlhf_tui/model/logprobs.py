"""Log-probabilities and entropies of chosen tokens, without ever holding logits for a whole batch.

The tensor of logits over the vocabulary is the largest thing in reinforcement learning on a small
card. Here it exists only for `chunk` positions at a time: the forward pass keeps one number
(log-sum-exp) for each position, the backward pass computes the chunk's logits again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

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
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, unembedding: Unembedding, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropies, normalisers = [], [], []
        for part, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
            logits = _logits(part, unembedding) / temperature
            normaliser = logits.logsumexp(dim=-1)
            logprobs.append(logits.gather(-1, wanted[:, None])[:, 0] - normaliser)
            probabilities = (logits - normaliser[:, None]).exp_()
            entropies.append(normaliser - (probabilities * logits).sum(dim=-1))
            normalisers.append(normaliser)
        ctx.save_for_backward(hidden, targets, torch.cat(normalisers))
        ctx.unembedding, ctx.temperature, ctx.chunk = unembedding, temperature, chunk
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        hidden, targets, normalisers = ctx.saved_tensors
        unembedding, temperature = ctx.unembedding, ctx.temperature
        parts = zip(*(x.split(ctx.chunk) for x in (hidden, targets, normalisers, gradients[0])), strict=True)
        out = []
        for part, wanted, normaliser, gradient in parts:
            logits = _logits(part, unembedding)
            slope = (logits / temperature - normaliser[:, None]).exp_().neg_()
            slope.scatter_add_(-1, wanted[:, None], torch.ones_like(slope[:, :1]))
            slope *= gradient[:, None] / temperature
            if unembedding.softcap is not None:
                slope *= 1 - (logits / unembedding.softcap) ** 2
            if unembedding.scale != 1.0:
                slope *= unembedding.scale
            out.append((slope.to(unembedding.weight.dtype) @ unembedding.weight).to(hidden.dtype))
        return torch.cat(out), None, None, None, None


def _logits(hidden: Tensor, unembedding: Unembedding) -> Tensor:
    """(positions, hidden) → (positions, vocabulary) in fp32."""
    logits = (hidden.to(unembedding.weight.dtype) @ unembedding.weight.T).float()
    if unembedding.bias is not None:
        logits = logits + unembedding.bias.float()
    if unembedding.scale != 1.0:
        logits = logits * unembedding.scale
    if unembedding.softcap is not None:
        logits = unembedding.softcap * torch.tanh(logits / unembedding.softcap)
    return logits
