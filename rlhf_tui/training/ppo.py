"""Proximal policy optimisation with policy, value, reward and reference on one base.

Running out of memory costs time and never the step: fewer completions are sampled at a time, micro-batches become
smaller, and at last layers are run again for the backward pass. An update that had begun is taken back first, and its
rollout is evaluated again in the new shape, so that everything is as it would have been with that shape from the start.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rlhf_tui.model.generation import Sampling, projected_seconds
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.model.unpacked import Weights
from rlhf_tui.runs.events import EventSink, Sample, Stage
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import guards, objectives
from rlhf_tui.training.backoff import MicroBatching, RowsInFlight, less_at_a_time, without_a_copy
from rlhf_tui.training.batching import Tokens, micro_batches
from rlhf_tui.training.memory import measure, release
from rlhf_tui.training.optimisation import adam, linear, set_rate
from rlhf_tui.training.ppo_metrics import Tally, describe, sequence_kl
from rlhf_tui.training.rehearsal import rehearse
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
from rlhf_tui.training.sampling_weights import SamplingWeights, told
from rlhf_tui.training.scaling import TOLD_AFTER, Scaling, skipped_alert
from rlhf_tui.training.undo import Undo

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
        weights: SamplingWeights | None = None,
    ) -> None:
        """`weights`: what to sample with; None: a copy of 4-bit weights only when the settings ask for it."""
        self.roles = roles
        self.settings = settings
        self.kl_coefficient = settings.kl_coefficient
        self.done = 0
        self._prompts, self._scoring, self._seed, self._emit = list(prompts), scoring, seed, emit
        self._judge = judge
        self.weights = weights or SamplingWeights(roles.base, settings.sampling_weights, 0)
        self.rows = RowsInFlight(roles.base, settings.sampling_rows, self._give_up_copy)
        self.sizes = MicroBatching(roles.base, settings.micro_batch_tokens, settings.checkpointing)
        self._measured: tuple[int, int, bool] | None = None
        rates = {"policy": settings.policy_learning_rate, "value": settings.value_learning_rate}
        self.optimisers = {
            role: adam(roles, role, adapter_rate=rates[role], head_rate=rates[role], epsilon=settings.adam_epsilon)
            for role in LEARNING
        }
        self.scaling: dict[Role, Scaling] = {role: Scaling(roles.base) for role in LEARNING}

    @property
    def critic_warmup(self) -> int:
        """How many first updates train the value only."""
        if self.settings.critic_warmup_updates >= 0:
            return self.settings.critic_warmup_updates
        return 0 if self.settings.value_start == "reward" else 3

    def skips(self, role: Role) -> bool:
        """Whether the last step of `role` was skipped: in fp16, while its loss scale is being found."""
        return self.scaling[role].skipped > 0

    def update(self) -> dict[str, float]:
        """One round: sample, score, learn. Returns the metrics of the round; raises UserError when it broke down."""
        if self.done == 0:
            self._rehearse()
        prompts, began = self._next_prompts(), time.monotonic()
        sizes = self._sizes
        if sizes != self._measured:
            measure("", self.roles.base.device)  # what came before is not this update's
        seed = self._seed * 1_000_003 + self.done
        self._tell_stage("sampling")
        sequences, ended = self._sample([prompt.ids for prompt in prompts], seed, self._sampling(len(prompts)))
        self._measure("sampling")
        sampled = time.monotonic()
        rollout, learnt, scored = self._score_and_learn(sequences, ended, random.Random(seed))
        self._measure("update")
        release(self.roles.base.device)  # or the next update's sampling comes on top of it
        self._measured = sizes
        finished = time.monotonic()
        self.done += 1
        values = describe(rollout, self.kl_coefficient, self.settings) | learnt
        guards.require_finite(values, self.done)
        self._show(rollout, prompts)
        self._adapt(values["kl"], len(prompts))
        return values | {
            "tokens_per_second": values["tokens"] / (sampled - began),
            "update_tokens_per_second": values["tokens"] * self.settings.epochs / (finished - scored),
            "seconds_sampling": sampled - began,
            "seconds_scoring": scored - sampled,
            "seconds_update": finished - scored,
        }

    def explore(self, prompts: Sequence[Sequence[int]], seed: int) -> Rollout:
        """Draw and score as an update does, with the policy as it is, and learn nothing. KL costs nothing here."""
        sequences, ended = self._sample(prompts, seed, lambda finished: None)
        return self._evaluate(sequences, ended, [range(len(sequences))], kl_coefficient=0.0)

    # -- what a checkpoint holds --------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What decides the next update beside weights and optimisers."""
        return {
            "kl_coefficient": self.kl_coefficient,
            "rows": self.rows.most,
            "most_tokens": self.sizes.most_tokens,
            "recompute": self.sizes.recompute,
            "back_offs": [self.rows.back_offs, self.sizes.back_offs],
            "sampling_weights": self.weights.state(),
            "scaling": {role: one.state() for role, one in self.scaling.items()},
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Nothing beside weights and optimisers."""
        return {}

    def resume(self, done: int, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Be where another one was when it gave `state`; weights and optimisers are the caller's."""
        self.done = done
        self.kl_coefficient = float(state["kl_coefficient"])
        self.rows.most = int(state["rows"])
        self.sizes.most_tokens, self.sizes.recompute = int(state["most_tokens"]), bool(state["recompute"])
        self.rows.back_offs, self.sizes.back_offs = map(int, state["back_offs"])
        self.weights.resume(state.get("sampling_weights", {"chosen": "quantised", "seconds": {}}))
        for role, one in self.scaling.items():
            one.resume(state.get("scaling", {}).get(role, {}))

    # -- one round ----------------------------------------------------------------------------

    def _rehearse(self) -> None:
        """Find out before the first update whether the largest micro-batch fits that there can be in any."""
        self._emit(Stage("rehearsal", "a pass of the largest size"))
        before = self._sizes
        rehearse(self.roles, self.settings, self.sizes, max(len(prompt.ids) for prompt in self._prompts))
        release(self.roles.base.device)
        self._tell_back_off("a pass of the largest size", before)

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

    def _sample(
        self, prompts: Sequence[Sequence[int]], seed: int, progress: Callable[[int], None]
    ) -> tuple[list[Tokens], list[bool]]:
        def work(rows: int) -> tuple[list[Tokens], list[bool]]:
            weights = self._weights(prompts, rows)
            return sample_rollout(
                self.roles, prompts, self.settings, seed=seed, rows=rows, progress=progress, weights=weights
            )

        before = self._sizes
        drawn = self.rows.survive(work, len(prompts))
        release(self.roles.base.device)  # what the cache of keys and values was made of is in pieces of all sizes
        self._tell_back_off("sampling", before)
        return drawn

    def _weights(self, prompts: Sequence[Sequence[int]], rows: int) -> Weights:
        """What to sample with; timed with the rows of an update, whatever is sampled first."""
        size = self.settings.rollout_size
        rows = min(rows, size)
        some = [prompts[place % len(prompts)] for place in range(rows)]
        sampling = Sampling(self.settings.max_new_tokens, self.settings.temperature)
        steps = sampling.max_new_tokens * size // rows

        def seconds(weights: Weights) -> float:
            with self.roles.acting("policy"):
                return projected_seconds(self.roles.base.model, some, sampling, steps=steps, weights=weights)

        known = self.weights.chosen
        chosen = self.weights.choose(seconds)
        if known is None and self.weights.seconds:
            self._emit(Stage("sampling", told(self.weights)))
        return chosen

    def _score_and_learn(
        self, sequences: Sequence[Tokens], ended: Sequence[bool], order: random.Random
    ) -> tuple[Rollout, dict[str, float], float]:
        """The rollout, the metrics of learning from it, and when (monotonic seconds) it had been scored."""
        hands = deal(len(sequences), self.settings.minibatches, order)
        turns = [order.sample(range(len(hands)), len(hands)) for _ in range(self.settings.epochs)]
        judge = self._judge
        given = list(judge(sequences)) if judge is not None else None
        evaluate = partial(self._evaluate, sequences, ended, hands, kl_coefficient=self.kl_coefficient, given=given)
        self._tell_stage("scoring")
        held = [evaluate()]  # not in a name of its own: it must be gone before another try
        self._measure("scoring")
        scored = time.monotonic()
        self._tell_stage("learning")
        before, start = self._sizes, Undo(self.roles, self.optimisers, self.scaling)

        def work() -> tuple[Rollout, dict[str, float]]:
            if not held:
                start.restore()
                held.append(evaluate())
            rollout = held.pop()
            return rollout, self._learn(rollout, turns)

        rollout, learnt = self.sizes.survive(work, lambda: self._largest(sequences, hands))
        self._tell_back_off("the update", before)
        return rollout, learnt, scored

    def _evaluate(
        self,
        sequences: Sequence[Tokens],
        ended: Sequence[bool],
        hands: Sequence[Sequence[int]],
        *,
        kl_coefficient: float,
        given: Sequence[float] | None = None,
    ) -> Rollout:
        """Score a rollout in passes that fit. `given`: raw scores that a judge has given already."""
        judge = self._judge if given is None else lambda _: given

        def work() -> Rollout:
            return evaluate_rollout(
                self.roles,
                sequences,
                ended,
                self.settings,
                self._scoring,
                kl_coefficient=kl_coefficient,
                minibatches=hands,
                judge=judge,
                most_tokens=self.sizes.most_tokens,
            )

        before = self._sizes
        rollout = self.sizes.survive(work, lambda: self._largest(sequences, hands))
        self._tell_back_off("scoring", before)
        return rollout

    def _learn(self, rollout: Rollout, turns: Sequence[Sequence[int]]) -> dict[str, float]:
        """Every optimiser step of an update. `turns`: for each epoch, the minibatches in their order."""
        settings = self.settings
        rates = {role: set_rate(self.optimisers[role], self._share_of_rate(role)) for role in LEARNING}
        tally = Tally(settings)
        policy_learns = self.done >= self.critic_warmup
        for turn in turns:
            for number in turn:
                minibatch = rollout.minibatches[number]
                if policy_learns:
                    moved = self._policy_step(minibatch, tally)
                    policy_learns = settings.target_kl == 0 or moved <= 1.5 * settings.target_kl
                self._value_step(minibatch, tally)
        learnt = tally.means() | {"policy_lr": rates["policy"], "value_lr": rates["value"]}
        if self.scaling["policy"].on:
            learnt |= {f"{role}_loss_scale": one.scale for role, one in self.scaling.items()}
            learnt["skipped_steps"] = float(tally.skipped)
        return learnt

    def _share_of_rate(self, role: Role) -> float:
        """Of the peak rate, in this update. The policy's rises when it begins to learn, not while it waits."""
        late = self.critic_warmup if role == "policy" else 0
        if self.done < late:
            return 0.0
        return linear(self.done - late, self.settings.updates - late, self.settings.warmup_updates)

    def _policy_step(self, minibatch: Sequence[Experience], tally: Tally) -> float:
        """One optimiser step of the policy; returns how far it already was from the sampler (approximate KL)."""
        settings, tokens = self.settings, sum(one.tokens for one in minibatch)
        moved = torch.zeros((), device=self.roles.base.device)
        with self.roles.learning("policy"):
            for one in minibatch:
                with self.sizes.forward():
                    logprobs, _ = response_logprobs(self.roles, one, settings.temperature)
                    losses = objectives.policy_loss(
                        logprobs,
                        one.logprobs,
                        one.advantages,
                        clip=settings.clip,
                        clip_above=settings.clip_above,
                        dual_clip=settings.dual_clip,
                    )
                    loss = torch.where(one.mask, losses, 0.0).sum() / tokens
                    torch.autograd.backward(self.scaling["policy"].scaled(loss))
                moved += tally.policy(one, logprobs.detach(), losses.detach()) / tokens
            if tally.untouched:
                guards.require_first_ratio_one(tally.first_deviation, self.roles.base.dtype)
            self._step("policy", tally)
        return float(moved)

    def _value_step(self, minibatch: Sequence[Experience], tally: Tally) -> None:
        tokens = sum(one.tokens for one in minibatch)
        with self.roles.learning("value"):
            for one in minibatch:
                with self.sizes.forward():
                    values = response_values(self.roles, one)
                    losses = objectives.value_loss(values, one.values, one.returns, clip=self.settings.value_clip)
                    loss = torch.where(one.mask, losses, 0.0).sum() / tokens
                    torch.autograd.backward(self.scaling["value"].scaled(loss))
                tally.value(one, losses.detach())
            self._step("value", tally)

    def _step(self, role: Role, tally: Tally) -> None:
        """Move `role` by its gradients. Raises NotFinite when they are not finite and no loss scale helps."""
        scaling = self.scaling[role]
        step = scaling.step(self.optimisers[role], self.roles.parameters(role), self.settings.max_grad_norm)
        if not scaling.on:
            guards.require_finite({f"{role} gradient": step.norm}, self.done + 1)
        elif step.hopeless:
            guards.overflows(role, self.done + 1)
        if step.taken:
            tally.norm(role, step.norm)
            return
        tally.skipped += 1
        if scaling.skipped == TOLD_AFTER:
            self._emit(skipped_alert(role, scaling))

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

    # -- sizes, and what is said of them ------------------------------------------------------

    @property
    def _sizes(self) -> tuple[int, int, bool]:
        return self.rows.most, self.sizes.most_tokens, self.sizes.recompute

    def _largest(self, sequences: Sequence[Tokens], hands: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Tokens of the largest forward pass of a rollout that is dealt so, and of its longest sequence."""
        lengths = [[len(sequences[row]) for row in hand] for hand in hands]
        groups = [(own, group) for own in lengths for group in micro_batches(own, self.sizes.most_tokens)]
        return max(len(group) * own[group[0]] for own, group in groups), max(map(max, lengths))

    def _measure(self, phase: str) -> None:
        """Memory at the end of a phase: in the first update, and in the first with other sizes."""
        if self._measured != self._sizes:
            self._emit(measure(phase, self.roles.base.device))

    def _tell_stage(self, name: str, more: str = "") -> None:
        self._emit(Stage(name, f"update {self.done + 1} of {self.settings.updates}{more}"))

    def _sampling(self, total: int) -> Callable[[int], None]:
        """Tells of sampling eight times at most."""
        told = 0

        def progress(finished: int) -> None:
            nonlocal told
            if finished * 8 // total > told:
                told = finished * 8 // total
                self._tell_stage("sampling", f", {finished} of {total} completions")

        return progress

    def _give_up_copy(self) -> bool:
        """Sample without a copy of the weights from now on. Whether there was one."""
        had = self.weights.give_up()
        if had:
            self._emit(without_a_copy())
        return had

    def _tell_back_off(self, phase: str, before: tuple[int, int, bool]) -> None:
        if self._sizes != before:
            self._emit(less_at_a_time(phase, *self._sizes))
