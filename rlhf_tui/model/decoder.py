"""Running the decoder stack to the last hidden state, sharing what all roles have in common.

When only the last layers carry adapters, the layers below them compute the same for every role:
policy, reference, value and reward. `SplitDecoder` runs them once (`lower`) and the adapted ones
for each role (`upper`); nothing below needs a backward pass. `WholeDecoder` is the same interface
for adapters in all layers. Sequences are padded on the right: with causal attention a token never
sees what follows it, so that padding changes nothing and no mask is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


class Decoder(Protocol):
    """The decoder stack in two parts."""

    def lower(self, ids: Tensor) -> Tensor:
        """ids: (batch, length) → what `upper` needs. The same for every role; no gradient."""
        ...

    def upper(self, lower: Tensor) -> Tensor:
        """The result of `lower` → last hidden state (batch, length, hidden) of the active role."""
        ...


class WholeDecoder:
    """All layers belong to the roles: `lower` hands the ids on."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._stack = model.get_decoder()

    def lower(self, ids: Tensor) -> Tensor:
        return ids

    def upper(self, lower: Tensor) -> Tensor:
        hidden: Tensor = self._stack(input_ids=lower, use_cache=False).last_hidden_state
        return hidden


class SplitDecoder:
    """The first `shared` layers run once for all roles."""

    def __init__(self, model: PreTrainedModel, shared: int) -> None:
        self._stack: Any = model.get_decoder()
        self._layers: nn.ModuleList = self._stack.layers
        self._shared = shared

    @torch.no_grad()
    def lower(self, ids: Tensor) -> Tensor:
        with self._only(slice(None, self._shared), norm=nn.Identity()):
            hidden: Tensor = self._stack(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def upper(self, lower: Tensor) -> Tensor:
        with self._only(slice(self._shared, None), norm=self._stack.norm):
            hidden: Tensor = self._stack(inputs_embeds=lower, use_cache=False).last_hidden_state
        return hidden

    @contextmanager
    def _only(self, part: slice, *, norm: nn.Module) -> Iterator[None]:
        stack, config = self._stack, self._stack.config
        whole, final, count = stack.layers, stack.norm, config.num_hidden_layers
        types = getattr(config, "layer_types", None)  # of every layer: windowed or full attention
        stack.layers, stack.norm = self._layers[part], norm
        config.num_hidden_layers = len(stack.layers)
        if types is not None:
            config.layer_types = types[part]
        try:
            yield
        finally:
            stack.layers, stack.norm, config.num_hidden_layers = whole, final, count
            if types is not None:
                config.layer_types = types


def decoder_for(model: PreTrainedModel, shared: int) -> Decoder:
    """The leanest decoder that is right for this model.

    Not every architecture can be run in two parts (some scale their embeddings inside the stack),
    so the split is tried on a short sequence and taken only when it gives the very same numbers.
    """
    whole = WholeDecoder(model)
    stack = model.get_decoder()
    if shared <= 0 or not isinstance(getattr(stack, "layers", None), nn.ModuleList) or not hasattr(stack, "norm"):
        return whole
    split = SplitDecoder(model, shared)
    ids = torch.arange(1, 9, device=next(model.parameters()).device)[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        try:
            same = torch.equal(split.upper(split.lower(ids)), whole.upper(whole.lower(ids)))
        except (TypeError, IndexError, KeyError, AttributeError):
            same = False
    return split if same else whole


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Inside, each decoder layer keeps only its input for the backward pass and is run again there.

    Gradient checkpointing: about a third more computing, a fraction of the memory, the same gradients.
    transformers' own switch acts only in training mode, which would turn dropout on; the model here stays in
    evaluation mode throughout. Where no gradient is recorded it changes nothing. A stack that has no list of
    layers is left as it is.
    """
    layers = getattr(model.get_decoder(), "layers", ())
    own = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_again, layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _again(forward: Any, *arguments: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **options)
