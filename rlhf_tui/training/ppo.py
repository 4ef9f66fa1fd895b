"""Proximal policy optimisation with policy, value, reward and reference on one base."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import EventSink, Sample, Stage
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import guards, objectives
from rlhf_tui.training.optimisation import adam, linear, set_rate
from rlhf_tui.training.ppo_metrics import Tally, describe, sequence_kl
from rlhf_tui.training.rollout import (
    Experience,
    Judge,
    Rollout,
    Scoring,
    deal,
    evaluate_rollout,
    response_logprobs,
    response_values,
    sample_rollout,
)

LEARNING: tuple[Role, ...] = ("policy", "value")


@dataclass(frozen=True)
class TrainPrompt:
    """A prompt to practise on: its text for people, its ids for the model."""

    text: str
    ids: tuple[int, ...]


class Ppo:
    """The state of a PPO run between two updates: adapters, optimisers, KL coefficient, update number.

    Everything random is drawn from generators seeded with (seed, update), so that this is all the
    state there is.
    """

    def __init__(
        self,
        roles: Roles,
        prompts: Sequence[TrainPrompt],
        settings: PpoSettings,
        scoring: Scoring,
        *,
        seed: int,
        emit: EventSink,
        judge: Judge | None = None,
    ) -> None:
        self.roles = roles
        self.settings = settings
        self.kl_coefficient = settings.kl_coefficient
        self.done = 0
        self._prompts, self._scoring, self._seed, self._emit = list(prompts), scoring, seed, emit
        self._judge = judge
        rates = {"policy": settings.policy_learning_rate, "value": settings.value_learning_rate}
        self.optimisers = {
            role: adam(roles, role, adapter_rate=rates[role], head_rate=rates[role], epsilon=settings.adam_epsilon)
            for role in LEARNING
        }

    @property
    def critic_warmup(self) -> int:
        """How many first updates train the value only."""
        if self.settings.critic_warmup_updates >= 0:
            return self.settings.critic_warmup_updates
        return 0 if self.settings.value_start == "reward" else 3

    def update(self) -> dict[str, float]:
        """One round: sample, score, learn. Returns the metrics of the round; raises UserError when it broke down."""
        prompts = self._next_prompts()
        began = time.monotonic()
        self._emit(Stage("sampling", f"update {self.done + 1} of {self.settings.updates}"))
        generator = torch.Generator(self.roles.base.device).manual_seed(self._seed * 1_000_003 + self.done)
        sequences, ended = sample_rollout(
            self.roles,
            [prompt.ids for prompt in prompts],
            self.settings,
            generator=generator,
        )
        sampled = time.monotonic()
        self._emit(Stage("scoring", f"update {self.done + 1} of {self.settings.updates}"))
        order = random.Random(self._seed * 1_000_003 + self.done)
        rollout = evaluate_rollout(
            self.roles,
            sequences,
            ended,
            self.settings,
            self._scoring,
            kl_coefficient=self.kl_coefficient,
            minibatches=deal(len(sequences), self.settings.minibatches, order),
            judge=self._judge,
        )
        scored = time.monotonic()
        self._emit(Stage("learning", f"update {self.done + 1} of {self.settings.updates}"))
        values = describe(rollout, self.kl_coefficient, self.settings) | self._learn(rollout, order)
        finished = time.monotonic()
        self.done += 1
        guards.require_finite(values, self.done)
        self._show(rollout, prompts)
        self._adapt(values["kl"], len(prompts))
        return values | {
            "tokens_per_second": sum(len(one.response) for one in sequences) / (sampled - began),
            "seconds_sampling": sampled - began,
            "seconds_scoring": scored - sampled,
            "seconds_update": finished - scored,
        }

    # -- what a checkpoint holds --------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What decides the next update beside weights and optimisers."""
        return {"kl_coefficient": self.kl_coefficient}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Nothing beside weights and optimisers."""
        return {}

    def resume(self, done: int, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Be where another one was when it gave `state`; weights and optimisers are the caller's."""
        self.done = done
        self.kl_coefficient = float(state["kl_coefficient"])

    # -- one round ----------------------------------------------------------------------------

    def _next_prompts(self) -> list[TrainPrompt]:
        """The prompts of this update: all prompts shuffled, again and again, cut into rollouts."""
        size = self.settings.rollout_size
        chosen: list[TrainPrompt] = []
        position = self.done * size
        while len(chosen) < size:
            lap, place = divmod(position + len(chosen), len(self._prompts))
            order = random.Random(self._seed * 1_000_003 + lap).sample(self._prompts, len(self._prompts))
            chosen += order[place : place + size - len(chosen)]
        return chosen

    def _learn(self, rollout: Rollout, order: random.Random) -> dict[str, float]:
        settings = self.settings
        factor = linear(self.done, settings.updates, settings.warmup_updates)
        rates = {role: set_rate(self.optimisers[role], factor) for role in LEARNING}
        tally = Tally()
        policy_learns = self.done >= self.critic_warmup
        for _ in range(settings.epochs):
            for minibatch in order.sample(rollout.minibatches, len(rollout.minibatches)):
                if policy_learns:
                    moved = self._policy_step(minibatch, tally)
                    policy_learns = settings.target_kl == 0 or moved <= 1.5 * settings.target_kl
                self._value_step(minibatch, tally)
        return tally.means() | {"policy_lr": rates["policy"], "value_lr": rates["value"]}

    def _policy_step(self, minibatch: Sequence[Experience], tally: Tally) -> float:
        """One optimiser step of the policy; returns how far it already was from the sampler (approximate KL)."""
        tokens = sum(one.tokens for one in minibatch)
        moved, clip = 0.0, self.settings.clip
        with self.roles.learning("policy"):
            for one in minibatch:
                logprobs, _ = response_logprobs(self.roles, one, self.settings.temperature)
                losses = objectives.policy_loss(logprobs, one.logprobs, one.advantages, clip=clip)
                loss = torch.where(one.mask, losses, 0.0).sum() / tokens
                torch.autograd.backward(loss)
                logprobs = logprobs.detach()
                if tally.untouched:
                    deviation = float((logprobs - one.logprobs).abs().max())
                    guards.require_first_ratio_one(deviation, self.roles.base.dtype)
                    tally.first_deviation = max(tally.first_deviation, deviation)
                approximate = objectives.approximate_kl(logprobs, one.logprobs)
                moved += float(torch.where(one.mask, approximate, 0.0).sum()) / tokens
                tally.policy(one, logprobs, losses.detach(), approximate, clip)
            tally.policy_norm(self._step("policy"))
        return moved

    def _value_step(self, minibatch: Sequence[Experience], tally: Tally) -> None:
        tokens = sum(one.tokens for one in minibatch)
        with self.roles.learning("value"):
            for one in minibatch:
                values = response_values(self.roles, one)
                losses = objectives.value_loss(values, one.values, one.returns, clip=self.settings.value_clip)
                loss = torch.where(one.mask, losses, 0.0).sum() / tokens
                torch.autograd.backward(loss)
                tally.value(one, losses.detach())
            tally.value_norm(self._step("value"))

    def _step(self, role: Role) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.roles.parameters(role), self.settings.max_grad_norm)
        guards.require_finite({f"{role} gradient": float(norm)}, self.done + 1)
        self.optimisers[role].step()
        self.optimisers[role].zero_grad(set_to_none=True)
        return float(norm)

    def _adapt(self, kl: float, episodes: int) -> None:
        if self.settings.kl_target > 0:
            self.kl_coefficient = objectives.adapt_kl_coefficient(
                self.kl_coefficient,
                kl,
                target=self.settings.kl_target,
                horizon=self.settings.kl_horizon,
                episodes=episodes,
            )

    def _show(self, rollout: Rollout, prompts: Sequence[TrainPrompt]) -> None:
        """Two completions of this round, for people: the first two that were drawn, not the best two."""
        scores, kl = rollout.rows(lambda e: e.scores), rollout.rows(sequence_kl)
        for index in range(min(2, len(prompts))):
            tokens = rollout.sequences[index].response
            self._emit(
                Sample(
                    self.done,
                    prompts[index].text,
                    self.roles.base.chat.text(tokens),
                    {"score": float(scores[index]), "kl": float(kl[index]), "length": float(len(tokens))},
                    "policy",
                )
            )
