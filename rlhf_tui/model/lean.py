"""Pieces of a decoder layer that keep less for the backward pass: the norms and the gated feed-forward block.

What is cheap to compute again is not kept. A norm keeps its input, in the precision that it came in, and not the fp32
copies between its steps. A gated block keeps what its two matrix products gave, and neither the activation nor the
product of the two: with a feed-forward width of 2.7 to 3.5 times the hidden one, that halves the largest part of what
a layer keeps.

The forward pass gives the same bits as the model's own. Architectures differ, so a piece is taken only where its
gradient is that of the original, tried once on random numbers; otherwise the original stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from rlhf_tui.model.lora import Adapted, adapter_gradients, applicable, input_gradient, product

TRIED = (2, 3)  # rows and tokens of the random numbers
_DOUBTS = (AttributeError, TypeError, ValueError, RuntimeError)

Forward = Callable[..., Any]


def install(model: PreTrainedModel) -> None:
    """Replace norms and gated blocks of the decoder where ours give the same values and the same gradients."""
    for module in model.get_decoder().modules():
        if "forward" in vars(module):
            continue  # taken already
        if _is_norm(module):
            for gain in (_own_gain, _gain_above_one):
                if _take(module, partial(_norm, module, module.forward, gain), module.weight.shape[-1]):
                    break
        elif all(isinstance(getattr(module, name, None), LoraLayer) for name in _GATED):
            _take(module, partial(_gated, module, module.forward), module.gate_proj.base_layer.in_features)


def _take(module: nn.Module, ours: Forward, width: int) -> bool:
    """Make `ours` the forward of `module` if it is the same function. Whether it was."""
    try:
        same = _same(module.forward, ours, width, next(module.parameters()).device, _precision(module))
    except _DOUBTS:
        same = False
    if same:
        module.forward = ours
    return same


def _same(theirs: Forward, ours: Forward, width: int, device: torch.device, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, pull = (torch.randn(*TRIED, width, generator=generator).to(device, dtype) for _ in range(2))
    outcomes = []
    for function in (theirs, ours):
        leaf = x.clone().requires_grad_(True)
        with torch.enable_grad():
            y = function(leaf)
            outcomes.append((y.detach(), *torch.autograd.grad((y * pull[..., : y.shape[-1]]).sum(), leaf)))
    (value, gradient), (our_value, our_gradient) = outcomes
    slack = 1e-4 if dtype == torch.float32 else 3e-2
    close = (our_gradient - gradient).abs().max() <= slack * gradient.abs().max()
    return torch.equal(our_value, value) and bool(close)


def _precision(module: nn.Module) -> torch.dtype:
    """The precision that activations have here: that of the first parameter which is not an adapter's or packed."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and "lora_" not in name:
            return parameter.dtype
    base = getattr(module, "gate_proj", None)
    compute: torch.dtype | None = getattr(getattr(base, "base_layer", None), "compute_dtype", None)
    return compute or torch.float32


# -- norms ------------------------------------------------------------------------------------------------------


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or _epsilon(module) is None:
        return False
    return not list(module.children())


def _epsilon(module: nn.Module) -> float | None:
    found = getattr(module, "variance_epsilon", None)
    return found if found is not None else getattr(module, "eps", None)


def _own_gain(module: Any) -> Tensor:
    gain: Tensor = module.weight.float()
    return gain


def _gain_above_one(module: Any) -> Tensor:
    """Gemma's norms multiply with 1 + weight."""
    gain: Tensor = 1.0 + module.weight.float()
    return gain


def _norm(module: nn.Module, theirs: Forward, gain: Callable[[Any], Tensor], x: Tensor) -> Tensor:
    if module.weight.requires_grad or not torch.is_grad_enabled():
        simply: Tensor = theirs(x)
        return simply
    y: Tensor = _Norm.apply(x, module, theirs, gain)  # type: ignore[no-untyped-call]
    return y


class _Norm(torch.autograd.Function):
    """y = w · x · ρ with ρ = 1 / √(mean(x²) + ε), so dX = ρ · (w G) - x · ρ³ · mean(w G x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any, theirs: Forward, gain: Callable[[Any], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.module, ctx.gain = module, gain
        y: Tensor = theirs(x)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        wide, pull = x.float(), gradients[0] * ctx.gain(ctx.module)  # both fp32
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = (length.square().div_(x.shape[-1]).add_(_epsilon(ctx.module))).rsqrt_()
        along = torch.linalg.vecdot(pull, wide)[..., None].div_(x.shape[-1]).mul_(inverse.pow(3))
        return pull.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype), None, None, None


# -- gated feed-forward blocks ------------------------------------------------------------------------------------

_GATED = ("gate_proj", "up_proj", "down_proj")
_SILU = (nn.SiLU, SiLUActivation)


def _gated(module: Any, theirs: Forward, x: Tensor) -> Tensor:
    gate, up, down = (getattr(module, name) for name in _GATED)
    found = [applicable(layer, x) for layer in (gate, up, down)]
    if any(one is None for one in found) or not torch.is_grad_enabled():
        left: Tensor = theirs(x)
        return left
    layers = tuple(one[0] for one in found if one is not None)
    adapters = [matrix for one in found if one is not None for matrix in one[1:]]
    y: Tensor = _Gated.apply(x, layers, module.act_fn, *adapters)  # type: ignore[no-untyped-call]
    return y


class _Gated(torch.autograd.Function):
    """y = down(act(gate(x)) · up(x)), each of the three with its adapter. Kept: x, gate(x), up(x) and the low ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: tuple[Adapted, ...], act: Forward, *adapters: Tensor) -> Tensor:
        gate, up, down = layers
        opened, low_gate = product(gate, x, *adapters[:2])
        lifted, low_up = product(up, x, *adapters[2:4])
        y, low_down = product(down, act(opened) * lifted, *adapters[4:])
        ctx.save_for_backward(x, opened, lifted, low_gate, low_up, low_down, *adapters)
        ctx.layers, ctx.act = layers, act
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, opened, lifted, low_gate, low_up, low_down, *adapters = ctx.saved_tensors
        gate, up, down = ctx.layers
        a_gate, b_gate, a_up, b_up, a_down, b_down = adapters
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        opened, lifted = flat(opened), flat(lifted)
        bent, inner_gradients = _activated(ctx.act, opened, lifted)
        da_down, db_down, low = adapter_gradients(down, gradient, bent, low_down, a_down, b_down)
        pull_gate, pull_up = inner_gradients(input_gradient(down, gradient, low, a_down))
        del bent
        rows = flat(x)
        da_gate, db_gate, low = adapter_gradients(gate, pull_gate, rows, low_gate, a_gate, b_gate)
        dx = input_gradient(gate, pull_gate, low, a_gate) if ctx.needs_input_grad[0] else None
        da_up, db_up, low = adapter_gradients(up, pull_up, rows, low_up, a_up, b_up)
        dx = None if dx is None else input_gradient(up, pull_up, low, a_up, onto=dx).view(x.shape)
        return dx, None, None, da_gate, db_gate, da_up, db_up, da_down, db_down


def _activated(
    act: Forward, opened: Tensor, lifted: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """act(opened) · lifted, and what turns its gradient into those of `opened` and `lifted`.

    SiLU's is known to torch and taken in place; any other activation is left to autograd.
    """
    if type(act) in _SILU:
        bent = nn.functional.silu(opened)

        def known(pull: Tensor) -> tuple[Tensor, Tensor]:
            onto_lifted = bent.mul_(pull)
            return torch.ops.aten.silu_backward(pull.mul_(lifted), opened), onto_lifted

        return bent * lifted, known
    with torch.enable_grad():
        leaves = opened.detach().requires_grad_(True), lifted.detach().requires_grad_(True)
        inner = act(leaves[0]) * leaves[1]

    def general(pull: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.autograd.grad(inner, leaves, pull)
        return first, second

    return inner.detach(), general


def flat(x: Tensor) -> Tensor:
    """(..., width) → (tokens, width)"""
    return x.reshape(-1, x.shape[-1])
