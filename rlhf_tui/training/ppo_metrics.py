"""What an update of PPO was like, in numbers: of the rollout before it was learnt from, and of the learning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import objectives
from rlhf_tui.training.rollout import Experience, Rollout


def sequence_kl(experience: Experience) -> Tensor:
    """k1 estimate for each completion, in nats. → (rows,)"""
    return (objectives.kl_k1(experience.logprobs, experience.reference) * experience.mask).sum(-1)


def repeated(tokens: Sequence[int], run: int = 4) -> float:
    """Share of the runs of `run` tokens that have occurred before in the same completion; 0 when it is shorter."""
    runs = [tuple(tokens[start : start + run]) for start in range(len(tokens) - run + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def describe(rollout: Rollout, kl_coefficient: float, settings: PpoSettings) -> dict[str, float]:
    """What the policy did in this round, before it learnt from it."""
    kl = rollout.rows(sequence_kl)
    k3 = rollout.rows(lambda e: (objectives.kl_k3(e.logprobs, e.reference) * e.mask).sum(-1))
    scores = rollout.rows(lambda e: e.scores)
    lengths = torch.tensor([float(len(one.response)) for one in rollout.sequences])
    repetition = torch.tensor([repeated(one.response) for one in rollout.sequences])
    values, returns = rollout.tokens(lambda e: e.values), rollout.tokens(lambda e: e.returns)
    explained = objectives.explained_variance(values, returns, torch.ones_like(values))
    return {
        "score": float(scores.mean()),
        "score_std": float(scores.std(unbiased=False)),
        "score_raw": float(rollout.rows(lambda e: e.raw_scores).mean()),
        "saturation": float(rollout.rows(lambda e: e.saturated).mean()),
        "kl": float(kl.mean()),
        "kl_k3": float(k3.mean()),
        "kl_coefficient": kl_coefficient,
        "objective": float((scores - kl_coefficient * kl).mean()),
        "tokens": float(lengths.sum()),
        "length": float(lengths.mean()),
        "length_max": float(lengths.max()),
        "eos_rate": float(rollout.rows(lambda e: e.ended).mean()),
        "repetition": float(repetition.mean()),
        "entropy": float(rollout.tokens(lambda e: e.entropies).mean()),
        "explained_variance": float(explained),
    }


class Tally:
    """Token-weighted means over all optimiser steps of one update. Sums stay on the device until they are asked for."""

    def __init__(self, settings: PpoSettings) -> None:
        self._settings = settings
        self._sums: dict[str, Tensor] = {}
        self._tokens = {"policy": 0, "value": 0}
        self._norms: dict[str, list[float]] = {"policy": [], "value": []}
        self._deviations: list[Tensor] = []
        self._ratios: list[tuple[Tensor, Tensor]] = []
        self.skipped = 0
        """steps that were not taken, for fp16's sake"""

    @property
    def untouched(self) -> bool:
        """Whether the policy is still the one that sampled."""
        return not self._norms["policy"]

    @property
    def first_deviation(self) -> float:
        """The most by which a log-probability of the untouched policy differs from that of the rollout."""
        return float(torch.stack(self._deviations).max()) if self._deviations else 0.0

    def policy(self, one: Experience, logprobs: Tensor, losses: Tensor) -> Tensor:
        """Take in a micro-batch of a policy step; returns its approximate KL from the sampler, summed. → ()"""
        if self.untouched:
            self._deviations.append((logprobs - one.logprobs).abs().max())
        settings = self._settings
        ratio = objectives.policy_ratio(logprobs, one.logprobs)
        cut = objectives.clipped(
            logprobs,
            one.logprobs,
            one.advantages,
            clip=settings.clip,
            clip_above=settings.clip_above,
            dual_clip=settings.dual_clip,
        )
        self._ratios.append(
            (torch.where(one.mask, ratio, math.inf).min(), torch.where(one.mask, ratio, -math.inf).max())
        )
        self._add("policy_loss", losses, one.mask)
        self._add("ratio_mean", ratio, one.mask)
        self._add("clip_fraction", cut, one.mask)
        self._tokens["policy"] += one.tokens
        return self._add("approx_kl", objectives.approximate_kl(logprobs, one.logprobs), one.mask)

    def value(self, one: Experience, losses: Tensor) -> None:
        """Take in a micro-batch of a value step."""
        self._add("value_loss", losses, one.mask)
        self._tokens["value"] += one.tokens

    def norm(self, role: str, norm: float) -> None:
        """Take in the gradient's norm of a step that was taken."""
        self._norms[role].append(norm)

    def means(self) -> dict[str, float]:
        """All of it; what nobody has learnt is not claimed."""
        means = {
            name: float(amount) / self._tokens["value" if name == "value_loss" else "policy"]
            for name, amount in self._sums.items()
        }
        for role, norms in self._norms.items():
            if norms:
                means[f"{role}_grad_norm"] = sum(norms) / len(norms)
        if self._ratios:
            least, greatest = (torch.stack(ends) for ends in zip(*self._ratios, strict=True))
            means |= {"ratio_min": float(least.min()), "ratio_max": float(greatest.max())}
            means["first_deviation"] = self.first_deviation
        return means

    def _add(self, name: str, values: Tensor, mask: Tensor) -> Tensor:
        amount = torch.where(mask, values, 0.0).sum()
        self._sums[name] = self._sums.get(name, 0.0) + amount.double()
        return amount
