"""Products with frozen weights while sampling, by the fastest kernel that this machine has for them.

torch multiplies in fp32 on the CPU through MKL, which is slow for a handful of rows and on processors that are not
Intel's. The oneDNN kernel that torch brings along takes the weight as it lies in memory, or, faster for few rows, in
blocks of its own making. Measured on two AMD cores with AVX-512, 16 rows: the starter's output head 48 GFLOP/s by MKL,
104 by oneDNN, 155 by oneDNN in blocks; 1536 x 576: 57, 82 and 136. Nothing here records a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

COPY_LIMIT = 1 << 30  # bytes of weights, at most, that are laid out in blocks: a copy of the model, while sampling
WORTH = 32  # steps of decoding that blocks must serve: laying them out costs as much as about 20 steps save


@cache
@torch.no_grad()
def has_kernel() -> bool:
    """Whether oneDNN's product is there and right, tried once on random numbers."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((5, 24), (40, 24), (40,)))
    try:
        found = [_product(form, bias, x) for form in (weight, _in_blocks(weight, 5))]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = nn.functional.linear(x, weight, bias)
    return all(torch.allclose(one, wanted, atol=1e-4) for one in found)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias, recording no gradient. x: (…, in), weight: (out, in) → (…, out).

    For gradients g of it, product(g, weight.T) is the one towards x. By torch's own product where the kernel is missing
    or the tensors are not fp32 on the CPU.
    """
    if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and has_kernel():
        return _product(weight, bias, x)
    return nn.functional.linear(x, weight, bias)


def in_blocks(weight: Tensor, rows: int) -> Tensor:
    """The weight (out, in) as `product` likes it best for about `rows` rows: in blocks, or as it is."""
    fits = weight.dtype == torch.float32 and weight.device.type == "cpu" and has_kernel()
    return _in_blocks(weight, rows) if fits else weight


def copied_bytes(model: nn.Module) -> int:
    """Bytes of the blocks that `quick_linears` makes for a long enough sampling; 0 when it makes none."""
    total = sum(layer.weight.nbytes for layer in _bases(model)) if has_kernel() else 0
    return total if total <= COPY_LIMIT else 0


@contextmanager
def quick_linears(model: nn.Module, *, rows: int, steps: int) -> Iterator[None]:
    """Inside, the plain linear layers of `model` (fp32, on the CPU) multiply by oneDNN, for `steps` of `rows` rows.

    When the steps are worth it and the model is small, the weights are laid out in blocks for that time, each with
    its layer's active adapter added (Hu et al., 2021, section 4.1): then adapters cost nothing.
    """
    changed: list[tuple[Any, Any]] = []
    merged: list[LoraLayer] = []
    try:
        with torch.no_grad():
            if steps >= WORTH and copied_bytes(model) > 0:
                _install_blocks(model, rows, changed, merged)
            elif has_kernel():
                for layer in _bases(model):
                    _replace(layer, partial(_product, layer.weight, layer.bias), changed)
        yield
    finally:
        for layer in merged:
            layer.merged_adapters.clear()
        for layer, own in reversed(changed):
            if own is None:
                del layer.forward
            else:
                layer.forward = own


def _install_blocks(model: nn.Module, rows: int, changed: list[tuple[Any, Any]], merged: list[LoraLayer]) -> None:
    adapted = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    done = set()
    for layer in adapted:
        weight = _with_adapter(layer)
        if weight is not None:
            done.add(layer.base_layer)
            _replace(layer, partial(_product, _in_blocks(weight, rows), layer.base_layer.bias), changed)
            if not layer.disable_adapters:
                # whoever looks past the layer's forward at its parts (a fused feed-forward block) must not
                layer.merged_adapters.extend(layer.active_adapters)
                merged.append(layer)
    for layer in _bases(model):
        if layer not in done:
            _replace(layer, partial(_product, _in_blocks(layer.weight, rows), layer.bias), changed)


def _bases(model: nn.Module) -> list[Any]:
    """Every plain linear layer in fp32 on the CPU, adapters' own matrices left out."""
    inside = {part for layer in model.modules() if isinstance(layer, LoraLayer) for part in layer.modules()}
    inside -= {layer.base_layer for layer in model.modules() if isinstance(layer, LoraLayer)}
    return [layer for layer in model.modules() if _plain(layer) and layer not in inside]


def _plain(layer: Any) -> bool:
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    return layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu"


def _with_adapter(layer: Any) -> Tensor | None:
    """(out, in): the weight of an adapted layer as it acts now; None when there is more to it than a plain product."""
    base = layer.base_layer
    if not _plain(base) or layer.merged:
        return None
    weight: Tensor = base.weight
    if layer.disable_adapters:
        return weight
    for name in layer.active_adapters:
        if name not in layer.lora_A:
            continue  # a role that changes other layers
        if name in layer.lora_variant or layer.lora_bias[name]:
            return None
        weight = torch.addmm(weight, layer.lora_B[name].weight, layer.lora_A[name].weight, alpha=layer.scaling[name])
    return weight


def _replace(layer: Any, forward: Any, changed: list[tuple[Any, Any]]) -> None:
    changed.append((layer, vars(layer).get("forward")))
    layer.forward = forward


def _in_blocks(weight: Tensor, rows: int) -> Tensor:
    """The weight in the order that oneDNN likes best for `rows` rows; good for any number of them."""
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return blocks


def _product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """x @ weight.T + bias; weight (out, in) as it lies or in blocks. x: (…, in) → (…, out). Records no gradient."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found
