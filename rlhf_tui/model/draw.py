"""Chance: one uniform number a token, and the token that it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

_BLOCK = 256  # tokens


@dataclass(frozen=True)
class Sampling:
    """How to sample. `top_p` below 1 is for candidates only: rollouts must sample purely."""

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Completion:
    """Sampled ids, the end-of-turn token included when the model ended by itself."""

    ids: tuple[int, ...]
    ended: bool


def chances(seed: int, index: int, count: int) -> Tensor:
    """The uniform numbers in [0, 1) that decide completion `index`. → (count,) fp64 on the CPU

    Philox (Salmon et al., 2011) keyed by seed and index: every completion has a stream of its own, whoever is sampled
    beside it and in whatever order.
    """
    key = numpy.array([seed % 2**64, index], dtype=numpy.uint64)
    return torch.from_numpy(numpy.random.Generator(numpy.random.Philox(key=key)).random(count))


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """One token for each row. logits: (batch, vocabulary), uniform: (batch,) in [0, 1), fp64 → ids: (batch,).

    By inverting the cumulative distribution in fp64, first over blocks of the vocabulary and then inside the one that
    is hit: on the CPU fourteen times faster than over all of it, which is faster still than torch.multinomial, which
    draws a number for every token. top_p keeps the smallest set of tokens whose probability reaches it (Holtzman et
    al., 2020).
    """
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ranked, places = probabilities.sort(dim=-1, descending=True)
        ranked[ranked.cumsum(-1) - ranked >= sampling.top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, places, ranked)
    rows, size = probabilities.shape
    blocks = nn.functional.pad(probabilities, (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    masses = blocks.sum(dim=-1, dtype=torch.float64)
    ends = masses.cumsum(dim=-1)
    drawn = uniform[:, None] * ends[:, -1:]
    block = _first_above(ends, drawn)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0].cumsum(dim=-1, dtype=torch.float64)
    place = _first_above(inside, drawn - (ends - masses).gather(1, block))
    return (block * _BLOCK + place)[:, 0].clamp(max=size - 1)


def _first_above(cumulative: Tensor, drawn: Tensor) -> Tensor:
    """The first place whose cumulative mass is above the draw, so that its own is not 0. Both (batch, …) → (batch, 1)

    Rounding may push a draw out of the range that the masses cover; it is put back just inside.
    """
    total = cumulative[:, -1:]
    within = drawn.clamp(min=0.0).minimum(torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, within, right=True).clamp(max=cumulative.shape[-1] - 1)
