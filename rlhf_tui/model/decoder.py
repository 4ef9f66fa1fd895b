"""Running the decoder stack to the last hidden state, sharing what all roles have in common.

When only the last layers carry adapters, the layers below them compute the same for every role:
policy, reference, value and reward. `SplitDecoder` runs them once (`lower`) and the adapted ones
for each role (`upper`); nothing below needs a backward pass. `WholeDecoder` is the same interface
for adapters in all layers. Sequences are padded on the right: with causal attention a token never
sees what follows it, so that padding changes nothing and no mask is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
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

    def upper(self, lower: Tensor, layers: int | None = None) -> Tensor:
        """The result of `lower` → hidden state (batch, length, hidden) of the active role.

        After all layers and the model's own norm; or after the first `layers` of the model, each state then divided
        by its root mean square: a residual stream grows from layer to layer, and its norm weights fit the end alone.
        """
        ...


class WholeDecoder:
    """All layers belong to the roles: `lower` hands the ids on."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._stack: Any = model.get_decoder()

    def lower(self, ids: Tensor) -> Tensor:
        return ids

    def upper(self, lower: Tensor, layers: int | None = None) -> Tensor:
        if layers is None:
            hidden: Tensor = self._stack(input_ids=lower, use_cache=False).last_hidden_state
            return hidden
        with _only(self._stack, slice(None, layers), norm=UnitNorm()):
            hidden = self._stack(input_ids=lower, use_cache=False).last_hidden_state
        return hidden


class SplitDecoder:
    """The first `shared` layers run once for all roles."""

    def __init__(self, model: PreTrainedModel, shared: int) -> None:
        self._stack: Any = model.get_decoder()
        self._shared = shared

    @torch.no_grad()
    def lower(self, ids: Tensor) -> Tensor:
        with _only(self._stack, slice(None, self._shared), norm=nn.Identity()):
            hidden: Tensor = self._stack(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    @torch.no_grad()
    def lower_from(self, other: SplitDecoder, lower: Tensor) -> Tensor:
        """What `lower` gives, bit for bit, from the `lower` of one that shares no more layers of the same model."""
        if other._shared == self._shared:
            return lower
        with _only(self._stack, slice(other._shared, self._shared), norm=nn.Identity()):
            hidden: Tensor = self._stack(inputs_embeds=lower, use_cache=False).last_hidden_state
        return hidden

    def upper(self, lower: Tensor, layers: int | None = None) -> Tensor:
        norm = self._stack.norm if layers is None else UnitNorm()
        with _only(self._stack, slice(self._shared, layers), norm=norm):
            hidden: Tensor = self._stack(inputs_embeds=lower, use_cache=False).last_hidden_state
        return hidden


class UnitNorm(nn.Module):
    """x / √(mean(x²) + ε) over the last dimension, in fp32: a root mean square norm (Zhang and Sennrich, 2019)
    without weights."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)


@contextmanager
def _only(stack: Any, part: slice, *, norm: nn.Module) -> Iterator[None]:
    """Inside, `stack` has this part of its layers and ends with `norm`."""
    config = stack.config
    whole, final, count = stack.layers, stack.norm, config.num_hidden_layers
    types = getattr(config, "layer_types", None)  # of every layer: windowed or full attention
    stack.layers, stack.norm = whole[part], norm
    config.num_hidden_layers = len(stack.layers)
    if types is not None:
        config.layer_types = types[part]
    try:
        yield
    finally:
        stack.layers, stack.norm, config.num_hidden_layers = whole, final, count
        if types is not None:
            config.layer_types = types


def runs_in_part(model: PreTrainedModel) -> bool:
    """Whether the stack is a list of layers and a norm, so that it can be left after any layer."""
    stack = model.get_decoder()
    return isinstance(getattr(stack, "layers", None), nn.ModuleList) and hasattr(stack, "norm")


@torch.no_grad()
def states_after(model: PreTrainedModel, ids: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
    """Hidden states (batch, length, hidden) after each of these numbers of layers, as `upper` gives them, in one pass.

    0 stands for all layers and the model's own norm. ids: (batch, length).
    """
    found: dict[int, Tensor] = {}
    norm = UnitNorm()

    def keep(count: int, output: Any) -> None:
        found[count] = norm(output[0] if isinstance(output, tuple) else output)

    stack: Any = model.get_decoder()
    hooks = [
        stack.layers[count - 1].register_forward_hook(lambda _, __, output, count=count: keep(count, output))
        for count in layers
        if count
    ]
    try:
        last = stack(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return found | ({0: last} if 0 in layers else {})


def decoder_for(model: PreTrainedModel, shared: int) -> Decoder:
    """The leanest decoder that is right for this model.

    Not every architecture can be run in two parts (some scale their embeddings inside the stack),
    so the split is tried on a short sequence and taken only when it gives the very same numbers.
    """
    whole = WholeDecoder(model)
    if shared <= 0 or not runs_in_part(model):
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
