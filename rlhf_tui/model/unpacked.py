"""4-bit weights, unpacked once for a whole sampling: what bitsandbytes does again for every step.

For more than one row its kernels unpack a weight into a temporary matrix at each product and multiply with that. A copy
in the computing precision is made from the same numbers, so that it is the same model up to the rounding of the
kernels; adapters stay beside it, where their small numbers are not rounded away. It takes four times the memory of the
packed weights in 16 bits, and eight times in 32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn

from rlhf_tui.model.linear import in_blocks, product

#: What is multiplied with while sampling: the 4-bit weights as they lie, or an unpacked copy of them.
Weights = Literal["quantised", "copy"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


def unpacked_bytes(model: nn.Module) -> int:
    """Bytes of the copy; 0 when there is nothing to unpack."""
    return sum(layer.weight.quant_state.shape.numel() * _precision(layer).itemsize for layer in _packed(model))


def packed_bytes(model: nn.Module) -> int:
    """Bytes of the 4-bit weights themselves."""
    return sum(layer.weight.nbytes for layer in _packed(model))


@contextmanager
def multiplying_with(model: nn.Module, weights: Weights, *, rows: int) -> Iterator[None]:
    """Inside, the 4-bit layers of `model` multiply so; a copy is made on entry and gone afterwards. No gradients."""
    changed: list[Any] = []
    try:
        if weights == "copy":
            with torch.no_grad():
                for layer in _packed(model):
                    layer.forward = partial(_forward, layer, *_unpacked(layer, rows))
                    changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward


def _packed(model: nn.Module) -> list[Any]:
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, Linear4bit) and layer.weight.quant_state is not None and "forward" not in vars(layer)
    ]


def _precision(layer: Any) -> torch.dtype:
    """What the layer computes in."""
    precision: torch.dtype = layer.compute_dtype or layer.weight.quant_state.dtype
    return precision


def _unpacked(layer: Any, rows: int) -> tuple[Tensor, Tensor | None]:
    """Weight (out, in), on the CPU laid out in blocks where that is possible, and bias."""
    precision = _precision(layer)
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(precision)
    return in_blocks(weight, rows), None if layer.bias is None else layer.bias.to(precision)


def _forward(layer: Any, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return product(x.to(_precision(layer)), weight, bias).to(x.dtype)
