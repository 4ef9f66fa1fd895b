"""What an update of PPO was like, in numbers: of the rollout before it was learnt from, and of the learning."""

from __future__ import annotations

import torch

from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import objectives
from rlhf_tui.training.rollout import Experience, Rollout


def sequence_kl(experience: Experience) -> torch.Tensor:
    return (objectives.kl_k1(experience.logprobs, experience.reference) * experience.mask).sum(-1)


def describe(rollout: Rollout, kl_coefficient: float, settings: PpoSettings) -> dict[str, float]:
    """What the policy did in this round, before it learnt from it."""
    kl = rollout.rows(sequence_kl)
    k3 = rollout.rows(lambda e: (objectives.kl_k3(e.logprobs, e.reference) * e.mask).sum(-1))
    scores = rollout.rows(lambda e: e.scores)
    lengths = torch.tensor([float(len(one.response)) for one in rollout.sequences])
    values, returns = rollout.tokens(lambda e: e.values), rollout.tokens(lambda e: e.returns)
    explained = objectives.explained_variance(values, returns, torch.ones_like(values))
    return {
        "score": float(scores.mean()),
        "score_std": float(scores.std(unbiased=False)),
        "score_raw": float(rollout.rows(lambda e: e.raw_scores).mean()),
        "kl": float(kl.mean()),
        "kl_k3": float(k3.mean()),
        "kl_coefficient": kl_coefficient,
        "objective": float((scores - kl_coefficient * kl).mean()),
        "length": float(lengths.mean()),
        "length_max": float(lengths.max()),
        "eos_rate": float(rollout.rows(lambda e: e.ended).mean()),
        "entropy": float(rollout.tokens(lambda e: e.entropies).mean()),
        "explained_variance": float(explained),
    }


class Tally:
    """Token-weighted means over all optimiser steps of one update."""

    def __init__(self) -> None:
        self.first_deviation = 0.0
        self._sums: dict[str, float] = {}
        self._tokens = {"policy": 0, "value": 0}
        self._norms: dict[str, list[float]] = {"policy": [], "value": []}
        self._ratio_max = 1.0

    @property
    def untouched(self) -> bool:
        """Whether the policy is still the one that sampled."""
        return not self._norms["policy"]

    def policy(
        self, one: Experience, logprobs: torch.Tensor, losses: torch.Tensor, moved: torch.Tensor, clip: float
    ) -> None:
        ratio = objectives.policy_ratio(logprobs, one.logprobs)
        self._ratio_max = max(self._ratio_max, float(torch.where(one.mask, ratio, 0.0).max()))
        self._add("policy_loss", losses, one.mask)
        self._add("approx_kl", moved, one.mask)
        self._add("ratio_mean", ratio, one.mask)
        self._add("clip_fraction", objectives.clipped(logprobs, one.logprobs, one.advantages, clip=clip), one.mask)
        self._tokens["policy"] += one.tokens

    def value(self, one: Experience, losses: torch.Tensor) -> None:
        self._add("value_loss", losses, one.mask)
        self._tokens["value"] += one.tokens

    def policy_norm(self, norm: float) -> None:
        self._norms["policy"].append(norm)

    def value_norm(self, norm: float) -> None:
        self._norms["value"].append(norm)

    def means(self) -> dict[str, float]:
        means = {
            name: amount / self._tokens["value" if name == "value_loss" else "policy"]
            for name, amount in self._sums.items()
        }
        for role, norms in self._norms.items():
            if norms:
                means[f"{role}_grad_norm"] = sum(norms) / len(norms)
        if self._norms["policy"]:
            means |= {"ratio_max": self._ratio_max, "first_deviation": self.first_deviation}
        return means

    def _add(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(torch.where(mask, values, 0.0).sum())
