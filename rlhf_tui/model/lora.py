"""LoRA's arithmetic in one piece: two narrow matrix products on top of the base's, in place, and nothing else.

PEFT computes `result + lora_B(lora_A(dropout(x))) * scaling`: correct, but every layer costs more passes over its
output, and under a 16-bit base a copy of its input in fp32 that is kept for the backward pass. Here a layer computes

    low = s · x Aᵀ;  y = x Wᵀ + bias;  y += low Bᵀ                      (Hu et al., 2021, section 4.1, with s = α / r)

and, for a gradient G of y,

    up = s · G B;  dX = G W;  dX += up A;  dA = upᵀ x;  dB = Gᵀ low

W is frozen and gets no gradient. Only x and `low` are kept. A 4-bit W is dequantised for the length of one product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlhf_tui.model import linear

#: Adapters are kept in fp32 and take part in the base's own precision. In fp16 their gradients would underflow: whoever
#: trains scales the loss (training/scaling.py).
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Adapted:
    """A frozen linear layer and how strongly its adapter counts."""

    base: Any
    """nn.Linear or bitsandbytes' Linear4bit; weight (out, in)"""
    scale: float
    """α / r"""


def install(layer: LoraLayer) -> None:
    """Let `layer` compute as above wherever that is the same thing, and as PEFT does wherever it is not."""
    if "forward" not in vars(layer):
        layer.forward = partial(_forward, layer, layer.forward)


def applicable(layer: Any, x: Tensor) -> tuple[Adapted, Tensor, Tensor] | None:
    """What `layer` does to x, with the active adapter's A (rank, in) and B (out, rank); None when PEFT knows better.

    That is: all adapters off, merged, more than one active, a variant of LoRA, dropout, a base layer whose gradient
    with respect to its input is not known here (8-bit), or one that learns itself.
    """
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    name, base = layer.active_adapters[0], layer.base_layer
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias[name]:
        return None
    if not isinstance(layer.lora_dropout[name], nn.Identity) or not _differentiable(base, x):
        return None
    return Adapted(base, layer.scaling[name]), layer.lora_A[name].weight, layer.lora_B[name].weight


def _differentiable(base: nn.Module, x: Tensor) -> bool:
    if x.dtype not in PRECISIONS or torch.is_autocast_enabled(x.device.type) or base.weight.requires_grad:
        return False
    if isinstance(base, Linear4bit):
        return base.compute_dtype in (x.dtype, None) and not base.support_avx512bf16_for_cpu
    return type(base) is nn.Linear and base.weight.dtype == x.dtype


def product(layer: Adapted, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x: (..., in) → y: (..., out), and low: (tokens, rank), which the backward pass needs again."""
    y = _base_product(layer.base, x)
    low = torch.mm(x.reshape(-1, x.shape[-1]), a.to(x.dtype).T).mul_(layer.scale)
    y.view(-1, y.shape[-1]).addmm_(low, b.to(x.dtype).T)
    return y, low


def adapter_gradients(
    layer: Adapted, gradient: Tensor, x: Tensor, low: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dA, dB, up) of `product`, all 2-d. gradient: (tokens, out); x: (tokens, in); up: (tokens, rank)."""
    up = torch.mm(gradient, b.to(gradient.dtype)).mul_(layer.scale)
    # lowᵀ G, and turned afterwards: on the CPU twice as fast as Gᵀ low where B is tall
    return torch.mm(up.T, x).to(a.dtype), torch.mm(low.T, gradient).T.to(b.dtype), up


def input_gradient(layer: Adapted, gradient: Tensor, up: Tensor, a: Tensor, onto: Tensor | None = None) -> Tensor:
    """dX of `product`, (tokens, in), plus `onto` when that is given."""
    weight = _weight(layer.base, gradient.dtype)
    dx = linear.product(gradient, weight.T)
    if onto is not None:
        dx += onto
    return dx.addmm_(up, a.to(gradient.dtype))


def _base_product(base: Any, x: Tensor) -> Tensor:
    """What the frozen layer makes of x, recording no gradient."""
    if type(base) is nn.Linear and "forward" not in vars(base):
        return linear.product(x, base.weight, base.bias)
    y: Tensor = base(x)
    return y


def _weight(base: Any, dtype: torch.dtype) -> Tensor:
    weight: Tensor = base.weight
    if isinstance(base, Linear4bit):
        weight = dequantize_4bit(base.weight.data, base.weight.quant_state).to(dtype)
    return weight


def _forward(layer: Any, peft_forward: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    found = None if arguments or options else applicable(layer, x)
    if found is None and not layer.merged and not (torch.is_grad_enabled() and x.requires_grad) and _idle(layer):
        return _base_product(layer.base_layer, x)  # the very product that the adapted layer adds to
    if not torch.is_grad_enabled() and found is not None:
        return product(found[0], x, *found[1:])[0]
    if found is None:
        left: Tensor = peft_forward(x, *arguments, **options)
        return left
    y: Tensor = _Product.apply(x, *found)  # type: ignore[no-untyped-call]
    return y


def _idle(layer: Any) -> bool:
    """Whether the active role changes nothing here: all adapters off, or none of its own in this layer."""
    return layer.disable_adapters or not any(name in layer.lora_A for name in layer.active_adapters)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Adapted, a: Tensor, b: Tensor) -> Tensor:
        y, low = product(layer, x, a, b)
        ctx.save_for_backward(x, low, a, b)
        ctx.layer = layer
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, low, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        da, db, up = adapter_gradients(ctx.layer, gradient, x.reshape(-1, x.shape[-1]), low, a, b)
        # nothing below the first adapted layer learns
        dx = input_gradient(ctx.layer, gradient, up, a).view(x.shape) if ctx.needs_input_grad[0] else None
        return dx, None, da, db
