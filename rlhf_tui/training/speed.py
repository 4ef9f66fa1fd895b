"""The kinds of work that PPO is made of, each timed alone on one micro-batch or one batch of rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch

from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.model.unpacked import Weights, multiplying_with, packed_bytes, unpacked_bytes
from rlhf_tui.settings import Settings
from rlhf_tui.shape import ModelShape
from rlhf_tui.training.arithmetic import Work
from rlhf_tui.training.batching import Tokens, pooled
from rlhf_tui.training.machine import layers_rate, timed
from rlhf_tui.training.rollout import Experience, bare_experiences, response_logprobs, response_values

_DECODED = 32  # tokens for each row: enough to be timed


@dataclass(frozen=True)
class Sizes:
    """How much of everything: tokens of a prompt and of a completion, completions, rows in flight or in a pass."""

    prompt_tokens: int
    new_tokens: int
    rollout_size: int
    sampling_rows: int
    micro_rows: int
    minibatches: int
    epochs: int

    @property
    def length(self) -> int:
        return self.prompt_tokens + self.new_tokens

    def small(self) -> Sizes:
        """As little as makes everything happen once."""
        return replace(
            self, rollout_size=2, new_tokens=min(4, self.new_tokens), prompt_tokens=min(8, self.prompt_tokens)
        )


@dataclass(frozen=True)
class Speed:
    """What one kind of work came to."""

    phase: str
    """'prefill', 'decode', 'scoring' or 'update'"""
    role: str
    rows: int
    """sequences at a time"""
    tokens: float
    """tokens/s, of prompts and completions together; of prefill those of prompts, of decode those sampled"""
    flops: float
    """FLOP/s, as training/arithmetic.py counts"""
    own_matmul: float
    """FLOP/s of this model's linear layers alone, with as many rows as go through them here"""
    bytes: float = 0.0
    """bytes/s that have to be read at least; 0 where that is no bound"""


def measured_speeds(roles: Roles, shape: ModelShape, settings: Settings, sizes: Sizes) -> list[Speed]:
    """Prefill and decode by the policy; scoring by each role; the policy's and the value's forward and backward."""
    adapted = shape.adapted(settings.adapters.layers)
    work = Work(shape, settings.adapters.rank, adapted, sizes.prompt_tokens, sizes.new_tokens)
    return _Bench(roles, work, settings, sizes).all()


class _Bench:
    """The model, one micro-batch, and how it is timed."""

    def __init__(self, roles: Roles, work: Work, settings: Settings, sizes: Sizes) -> None:
        self._roles, self._work, self._settings, self._sizes = roles, work, settings, sizes
        order = random.Random(settings.run.seed)
        ids = range(work.shape.vocabulary)
        count = max(sizes.sampling_rows, sizes.micro_rows)
        self._prompts = [tuple(order.choices(ids, k=sizes.prompt_tokens)) for _ in range(count)]
        self._sequences = [
            Tokens(prompt, tuple(order.choices(ids, k=sizes.new_tokens)))
            for prompt in self._prompts[: sizes.micro_rows]
        ]
        # the machine's rate with so many rows, measured once for each number of rows
        self._rate = cache(partial(layers_rate, work.shape, dtype=roles.base.dtype, device=roles.base.device))

    def all(self) -> list[Speed]:
        speeds = self._sampling()
        one = self._experience()
        if self._work.shared():
            speeds.append(self._speed("scoring", "shared layers", self._work.shared(), self._experience))
        speeds += self._scoring(one)
        return speeds + self._learning(one)

    def _sampling(self) -> list[Speed]:
        """Prefill is what a single token takes; decoding what more of them take on top."""
        sizes, work = self._sizes, self._work
        device, rows = self._roles.base.device, sizes.sampling_rows
        more = min(_DECODED, max(2, sizes.new_tokens))
        model = self._roles.base.model
        weights: Weights = "copy" if self._settings.ppo.sampling_weights == "copy" else "quantised"
        stored = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
        if weights == "copy":
            stored += unpacked_bytes(model) - packed_bytes(model)
        with self._roles.acting("policy"), multiplying_with(model, weights, rows=rows):
            first = timed(partial(self._sampled, 1), device)
            rest = max(timed(partial(self._sampled, more), device) - first, 1e-9)
        short = replace(work, response=more)
        decoded = rows * (more - 1) / rest
        read = short.decoding_bytes(stored, self._roles.base.dtype.itemsize, rows) / rows
        return [
            Speed(
                phase="prefill",
                role="policy",
                rows=rows,
                tokens=rows * sizes.prompt_tokens / first,
                flops=rows * work.prefill() / first,
                own_matmul=self._rate(rows * sizes.prompt_tokens),
            ),
            Speed(
                phase="decode",
                role="policy",
                rows=rows,
                tokens=decoded,
                flops=decoded * short.decoding(),
                own_matmul=self._rate(rows),
                bytes=decoded * read,
            ),
        ]

    def _sampled(self, new_tokens: int) -> None:
        rows = self._sizes.sampling_rows
        wanted = Sampling(new_tokens, self._settings.ppo.temperature)
        sample(self._roles.base.model, self._prompts[:rows], wanted, end_ids=(), rows=rows, seed=0)

    def _experience(self) -> Experience:
        """All of the micro-batch's sequences in one forward pass."""
        ended = [False] * len(self._sequences)
        return bare_experiences(self._roles, self._sequences, ended, self._sizes.length * len(self._sequences))[0]

    def _scoring(self, one: Experience) -> list[Speed]:
        roles, work, temperature = self._roles, self._work, self._settings.ppo.temperature
        speeds = []
        with torch.no_grad():
            with roles.acting("policy"):
                flops = work.forward() + work.logits()
                speeds.append(
                    self._speed("scoring", "policy", flops, lambda: response_logprobs(roles, one, temperature))
                )
            with roles.reference():
                flops = work.bare_forward() + work.logits()
                speeds.append(
                    self._speed("scoring", "reference", flops, lambda: response_logprobs(roles, one, temperature))
                )
            with roles.acting("value"):
                speeds.append(self._speed("scoring", "value", work.forward(), lambda: response_values(roles, one)))
            with roles.acting("reward"):
                head = roles.head("reward")
                speeds.append(
                    self._speed(
                        "scoring",
                        "reward",
                        work.forward(),
                        lambda: head(pooled(roles, one.seen, one.batch)),
                    )
                )
        return speeds

    def _learning(self, one: Experience) -> list[Speed]:
        """Forward and backward of one micro-batch; the optimiser's step, once a minibatch, is left out."""
        roles, temperature = self._roles, self._settings.ppo.temperature

        def gradients(role: Role, output: Callable[[], torch.Tensor]) -> None:
            torch.autograd.backward(output().sum())
            for parameter in roles.parameters(role):
                parameter.grad = None

        with roles.learning("policy"):
            policy = partial(gradients, "policy", lambda: response_logprobs(roles, one, temperature)[0])
            speeds = [self._speed("update", "policy", self._work.policy_learning(), policy)]
        with roles.learning("value"):
            value = partial(gradients, "value", lambda: response_values(roles, one))
            speeds.append(self._speed("update", "value", self._work.learning(), value))
        return speeds

    def _speed(self, phase: str, role: str, flops: int, run: Callable[[], object]) -> Speed:
        """`flops` are those of one sequence of the micro-batch."""
        seconds, rows = timed(run, self._roles.base.device), len(self._sequences)
        tokens = rows * self._sizes.length
        return Speed(phase, role, rows, tokens / seconds, rows * flops / seconds, self._rate(tokens))
