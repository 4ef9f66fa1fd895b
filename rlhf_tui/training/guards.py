"""Checks while a model trains: each names what went wrong, why, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles
from rlhf_tui.training.batching import Tokens, pad, pooled

# what the log-probability of one token may differ by between two identical forward passes
_FIRST_PASS_LIMIT = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.05}


class NotFinite(UserError):
    """A number became NaN or infinite: nothing after it can be trusted, what was kept before can."""


def require_finite(values: Mapping[str, float], update: int) -> None:
    """Raise NotFinite when any metric is NaN or infinite."""
    broken = sorted(name for name, value in values.items() if not math.isfinite(value))
    if broken:
        raise NotFinite(
            f"Update {update} gave numbers that are not finite: {', '.join(broken)}.",
            why="The policy has been pushed too far; usually the learning rate is too high.",
            todo="Lower ppo.policy_learning_rate, or raise ppo.kl_coefficient, and start again.",
        )


def overflows(role: str, update: int) -> NoReturn:
    """Raise NotFinite: a gradient overflows in fp16 however low the loss scale."""
    raise NotFinite(
        f"Update {update}: the gradient of the {role} is not finite, however far it is scaled down.",
        why="Either the policy has been pushed too far (usually the learning rate is too high), or the numbers inside "
        "this model are too large for fp16, in which this card computes.",
        todo=f"Lower ppo.{role}_learning_rate and start again; if that does not help, choose another model.",
    )


def require_moved(before: str, after: str, role: str) -> None:
    """Raise UserError when an adapter that has just been trained has the fingerprint it had before."""
    if before == after:
        rate = "reward.learning_rate" if role == "reward" else f"ppo.{role}_learning_rate"
        raise UserError(
            f"The {role} adapter did not move.",
            why="After the first steps its weights are the same as before: it is not being trained.",
            todo=f"Check that {rate} is not vanishingly small.",
        )


def require_first_ratio_one(deviation: float, dtype: torch.dtype) -> None:
    """Raise UserError when the first pass of an update does not reproduce the old log-probabilities."""
    if not deviation <= _FIRST_PASS_LIMIT[dtype]:  # so that NaN is caught, too
        raise UserError(
            "The first pass of an update does not reproduce the log-probabilities of the sampler.",
            why=f"A token's log-probability differs by {deviation:.3g}; the ratio should be exactly 1.",
            todo="This is a fault in the engine or the model's code; please report it with the model's name.",
        )


def require_finite_features(features: Tensor, dtype: torch.dtype) -> None:
    """Raise UserError when the base's own hidden states, (candidates, width), are NaN or infinite anywhere."""
    broken = int((~torch.isfinite(features).all(dim=-1)).sum())
    if broken:
        _base_overflows(f"{broken} of {len(features)} candidates", dtype)


def explain_reward_breakdown(roles: Roles, sequences: Sequence[Tokens]) -> NoReturn:
    """Raise UserError that names why training the reward model met NaN or infinity on these completions."""
    if not all(torch.isfinite(parameter).all() for parameter in roles.parameters("reward")):
        raise UserError(
            "Training the reward model broke down: a weight of its adapter or head is not a finite number.",
            why="An earlier step has pushed it there, or the adapter it started from was broken.",
            todo="Lower reward.learning_rate and reward.head_learning_rate, and start again.",
        )
    with torch.no_grad(), roles.reference():
        for one in sequences:
            batch = pad([one], roles.base.device)
            if not torch.isfinite(pooled(roles, roles.reader.lower(batch.ids), batch)).all():
                _base_overflows(f"A completion of {len(one)} tokens", roles.base.dtype)
    raise UserError(
        "Training the reward model broke down: the gradient is not a finite number.",
        why="The base and all weights are finite, so it is this step that is too large; usually the learning rate.",
        todo="Lower reward.learning_rate and reward.head_learning_rate.",
    )


def _base_overflows(which: str, dtype: torch.dtype) -> NoReturn:
    raise UserError(
        "The base model itself gives numbers that are not finite: nothing can be learnt from them.",
        why=f"{which} overflowed in {str(dtype).removeprefix('torch.')}, with all adapters off.",
        todo="Use another quantisation or device (model.quantisation, model.device): 16-bit floats overflow with some "
        "models.",
    )
