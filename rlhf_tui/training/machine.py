"""How fast this machine can be at best: matrix products, and reading from memory. All measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rlhf_tui.model.linear import has_kernel
from rlhf_tui.shape import ModelShape

Product = Callable[[Tensor], Tensor]  # (rows, in) → (rows, out)
Kernel = Callable[[Tensor, int], Product]  # a weight (out, in) and how many rows there will be → its product

_SIDE = 2048  # of the square matrices: large enough for any processor to be at its best
_STREAMED = 256 * 2**20  # bytes: more than any cache holds
_PATIENCE = 10.0  # seconds that one measurement may take, repeats together


@dataclass(frozen=True)
class Machine:
    """What the hardware gives at best."""

    matmul: float
    """FLOP/s of the fastest matrix product tried, in the number format that the model computes in"""
    bandwidth: float
    """bytes/s when everything comes from memory"""


def timed(work: Callable[[], object], device: torch.device, *, repeats: int = 3) -> float:
    """Median seconds of `work`, which has run once before; fewer repeats when it takes long."""
    taken: list[float] = []
    _waited(work, device)
    while len(taken) < repeats and (not taken or sum(taken) < _PATIENCE):
        taken.append(_waited(work, device))
    return statistics.median(taken)


def measured_machine(shape: ModelShape, rows: int, dtype: torch.dtype, device: torch.device) -> Machine:
    """The best of a large square product and the model's own products with `rows` rows; and reading 256 MiB."""
    sizes = [(_SIDE, _SIDE, _SIDE), *((rows, wide, high) for wide, high in sorted(set(_matrices(shape))))]
    best = max(_rate([size], kernel, dtype, device) for size in sizes for kernel in _kernels(dtype, device))
    return Machine(best, _bandwidth(device))


def layers_rate(shape: ModelShape, rows: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the linear layers' products alone, one decoder layer after another, with `rows` rows; the best kernel.

    So many layers take part that their weights come from memory and not from a cache, as the model's do.
    """
    size = sum(wide * high for wide, high in _matrices(shape)) * dtype.itemsize
    layers = min(shape.layers, max(1, -(-_STREAMED // size)))
    products = [(rows, wide, high) for wide, high in _matrices(shape)] * layers
    return max(_rate(products, kernel, dtype, device) for kernel in _kernels(dtype, device))


def _kernels(dtype: torch.dtype, device: torch.device) -> list[Kernel]:
    """Every way in which this program multiplies by a weight: torch's own, and oneDNN's in blocks (model/linear.py)."""
    blocks = dtype == torch.float32 and device.type == "cpu" and has_kernel()
    return [_plain, *([_in_blocks] if blocks else [])]


def _plain(weight: Tensor, rows: int) -> Product:
    return lambda states: torch.nn.functional.linear(states, weight)


def _in_blocks(weight: Tensor, rows: int) -> Product:
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return partial(_by_blocks, blocks)


def _by_blocks(blocks: Tensor, states: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(states, blocks, None, "none", [], "")
    return found


@torch.no_grad()
def _rate(sizes: Sequence[tuple[int, int, int]], kernel: Kernel, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of these products (rows, in, out), each with a weight of its own, one after another."""
    states = {(rows, wide): torch.randn(rows, wide, device=device).to(dtype) for rows, wide, _ in sizes}
    products = [
        (states[rows, wide], kernel(torch.randn(high, wide, device=device).to(dtype), rows))
        for rows, wide, high in sizes
    ]

    def run() -> None:
        for state, product in products:
            product(state)

    return 2 * sum(rows * wide * high for rows, wide, high in sizes) / timed(run, device)


def _matrices(shape: ModelShape) -> list[tuple[int, int]]:
    """(in, out) of the linear layers of one decoder layer."""
    d, q, kv, wide = shape.hidden, shape.query_width, shape.kv_width, shape.intermediate
    return [(d, q), (d, kv), (d, kv), (q, d), (d, wide), (d, wide), (wide, d)]


def _bandwidth(device: torch.device) -> float:
    numbers = torch.ones(_STREAMED // 4, device=device)
    return _STREAMED / timed(lambda: numbers.sum(), device, repeats=5)


def _waited(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the result is there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
