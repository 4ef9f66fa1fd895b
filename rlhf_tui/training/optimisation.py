"""Optimisers and learning-rate schedules, one set for each role."""

from __future__ import annotations

import math

import torch

from rlhf_tui.model.roles import Role, Roles


def adam(
    roles: Roles,
    role: Role,
    *,
    adapter_rate: float,
    head_rate: float,
    weight_decay: float = 0.0,
    epsilon: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW over exactly the parameters of `role`, registered with the role table. Betas 0.9 and 0.999.

    Each group remembers its peak rate as 'peak'. `epsilon` is added outside the bias correction (PyTorch's way).
    """
    parameters = roles.parameters(role)
    matrices = [parameter for parameter in parameters if parameter.ndim == 2]
    head = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "lr": adapter_rate, "peak": adapter_rate}]
    if head:
        groups.append({"params": head, "lr": head_rate, "peak": head_rate})
    optimiser = torch.optim.AdamW(groups, eps=epsilon, weight_decay=weight_decay, foreach=False)
    roles.enlist(role, optimiser)
    return optimiser


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to `factor` times its peak; returns the first group's rate."""
    for group in optimiser.param_groups:
        group["lr"] = factor * group["peak"]
    return float(optimiser.param_groups[0]["lr"])


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak rate at `step` of `steps`: a linear rise over `warmup` steps, then a half cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def linear(step: int, steps: int, warmup: int) -> float:
    """Share of the peak rate at `step` of `steps`: a linear rise over `warmup` steps, then a line towards 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, 1 - (step - warmup) / max(1, steps - warmup))
