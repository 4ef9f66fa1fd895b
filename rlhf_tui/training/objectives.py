"""The formulas: losses, KL estimators, advantages. Pure functions of tensors, fp32, natural logarithms.

Masks are float or bool tensors with 1 where a position counts. Nothing here knows of models.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_RATIO_LIMIT = 20.0  # exp(20) is 5e8: beyond it a ratio is a fault, not a number


# -- masked means ---------------------------------------------------------------------------------


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is 1, over all elements; 0 for an empty mask. Shapes: equal, any → ()."""
    mask = mask.to(values.dtype)
    return torch.where(mask > 0, values, 0.0).sum() / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Biased variance of `values` where `mask` is 1 (as tf.nn.moments, which the 2019 code used)."""
    mean = masked_mean(values, mask)
    return masked_mean((values - mean) ** 2, mask)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 where `mask` is 1; 0 elsewhere.

    With fewer than two counted elements there is no deviation, and the values are only centred.
    """
    centred = values - masked_mean(values, mask)
    if mask.sum() > 1:
        centred = centred * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return torch.where(mask > 0, centred, 0.0)


def scale_to_unit_deviation(values: Tensor, mask: Tensor) -> Tensor:
    """Scale to standard deviation 1 where `mask` is 1 and keep the mean; 0 elsewhere."""
    mean = masked_mean(values, mask)
    return torch.where(mask > 0, whiten(values, mask) + mean, 0.0)


# -- the reward model -----------------------------------------------------------------------------


def bradley_terry(
    chosen: Tensor, rejected: Tensor, *, ties: Tensor, margins: Tensor, label_smoothing: float | Tensor, centre: float
) -> Tensor:
    """Loss of each pair under the Bradley–Terry model. All tensors: (pairs,) → (pairs,).

    A pair with a winner: -(1-ε)·log σ(d-m) - ε·log σ(-(d-m)) with d = chosen - rejected, margin m
    (Touvron et al., 2023) and smoothing ε (cDPO's form). A tie (ties = 1) has the target ½:
    -½·[log σ(d) + log σ(-d)], least at d = 0. Plus centre·(chosen + rejected)², which keeps the
    scores around 0 (Eisenstein et al., 2023).
    """
    gap = chosen - rejected - margins * (1 - ties)
    target = torch.where(ties > 0, 0.5, torch.ones_like(gap) - label_smoothing)
    loss = -(target * logsigmoid(gap) + (1 - target) * logsigmoid(-gap))
    return loss + centre * (chosen + rejected) ** 2


# -- rewards, advantages --------------------------------------------------------------------------


def kl_k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Unbiased estimate of KL(policy ‖ reference) at each sampled token; may be negative (Schulman, 2020)."""
    return logprobs - reference


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Unbiased, never negative: (e^r - 1) - r with r = reference - policy (Schulman, 2020). For watching only."""
    log_ratio = (reference - logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(kl: Tensor, scores: Tensor, mask: Tensor, *, kl_coefficient: float) -> Tensor:
    """-β·KL at every token, plus the score at the last one (Ziegler et al., 2019, eq. 2).

    kl, mask: (batch, response); scores: (batch,). The last token is the last one that counts: the
    end-of-turn token of a completion that ended. Every row must have at least one token.
    """
    rewards = torch.where(mask > 0, -kl_coefficient * kl, 0.0)
    last = mask.long().sum(dim=-1, keepdim=True) - 1
    return rewards.scatter_add(-1, last, scores[:, None].to(rewards.dtype))


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016): δ_t = r_t + γV_{t+1} - V_t, A_t = δ_t + γλA_{t+1}.

    rewards, values, mask: (batch, response) with the counted tokens first in each row. The value
    after the last counted token is 0. Returns (advantages, returns = advantages + values), both 0
    where the mask is 0; whitening comes later.
    """
    values = torch.where(mask > 0, values, 0.0)
    rewards = torch.where(mask > 0, rewards, 0.0)
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    following_value = torch.zeros_like(values[:, 0])
    for step in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, step] + gamma * following_value - values[:, step]
        following = delta + gamma * gae_lambda * following
        advantages[:, step] = following
        following_value = values[:, step]
    advantages = torch.where(mask > 0, advantages, 0.0)
    return advantages, torch.where(mask > 0, advantages + values, 0.0)


# -- PPO ------------------------------------------------------------------------------------------


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """exp(new - old) with the exponent held within ±20. Shapes: equal, any.

    Beyond the limit the gradient is 0 as well: a ratio of 5e8 is a fault, and its gradient would drown all others.
    """
    return (logprobs - old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip: float,
    clip_above: float = 0.0,
    dual_clip: float = 0.0,
) -> Tensor:
    """-min(ratio·A, clip(ratio, 1-ε, 1+ε')·A) for each token (Schulman et al., 2017, eq. 7). Shapes: equal, any.

    ε is `clip`, ε' is `clip_above` (Yu et al., 2025, DAPO's clip-higher), or ε when that is 0. With `dual_clip` c > 1 a
    token with A < 0 costs at most c·|A| (Ye et al., 2020, eq. 5); 0 sets no such limit.

    The caller sums over the counted tokens and divides by the number of counted tokens of the whole
    minibatch, so that the size of a micro-batch never changes the result.
    """
    ratio = policy_ratio(logprobs, old_logprobs)
    losses = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + (clip_above or clip)) * advantages)
    if dual_clip > 0:
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    return losses


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """½·max((V-R)², (clip(V, V_old ± ε)-R)²) for each token (as in Ziegler et al.'s code). Shapes: equal, any."""
    clipped = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """½·(new - old)² for each token: how far this update has moved the policy (Schulman's k2)."""
    return 0.5 * (logprobs - old_logprobs) ** 2


def clipped(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip: float,
    clip_above: float = 0.0,
    dual_clip: float = 0.0,
) -> Tensor:
    """1 for each token whose gradient a limit of `policy_loss` has cut, else 0."""
    ratio = policy_ratio(logprobs, old_logprobs)
    above, below = (ratio > 1 + (clip_above or clip)) & (advantages > 0), (ratio < 1 - clip) & (advantages < 0)
    if dual_clip > 0:
        below = below | ((ratio > dual_clip) & (advantages < 0))
    return (above | below).float()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R) over the counted tokens: 1 is a perfect value, 0 a constant one. Shape → ()."""
    return 1 - masked_variance(returns - values, mask) / masked_variance(returns, mask).clamp(min=1e-8)


def adapt_kl_coefficient(coefficient: float, kl: float, *, target: float, horizon: int, episodes: int) -> float:
    """β·(1 + clip(KL/target - 1, ±0.2)·episodes/horizon) (Ziegler et al., 2019, §2.2). KL in nats per completion."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * episodes / horizon)
