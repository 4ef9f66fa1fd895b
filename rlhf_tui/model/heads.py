"""The scalar head of the reward and value roles: one number from a hidden state, always in fp32, and where it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["last", "mean"]


@dataclass(frozen=True)
class Reading:
    """Where the roles with a head read a text."""

    layer: int = 0
    """after how many layers of the model; 0: after all of them"""
    pooling: Pooling = "last"
    """'last': at the last token; 'mean': the mean over the completion's tokens"""


class ScalarHead(nn.Module):
    """score = hidden · weight + bias, in fp32 whatever the model computes in. It starts at 0.

    With the few hundred labels of one person, a random start (N(0, 1/√(width+1)), Ziegler et al.,
    2019, for tens of thousands) costs most of the first epoch to unlearn: the last hidden state has
    a norm of dozens, so random scores differ by several units before anything is learnt.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, dtype=torch.float32, device=device))
        self.bias = nn.Parameter(torch.zeros((), dtype=torch.float32, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (..., width) → (...)"""
        return hidden.float() @ self.weight + self.bias

    @torch.no_grad()
    def normalise(self, mean: float, deviation: float) -> None:
        """Change the head so that it gives (score - mean) / deviation."""
        self.weight.div_(deviation)
        self.bias.sub_(mean).div_(deviation)
