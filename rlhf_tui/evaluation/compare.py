"""Before and after, on held-out prompts: score, length, endings, and how far the policy has moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rlhf_tui.evaluation.intervals import Interval, mean_interval
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import EventSink, Progress, Sample, Stage
from rlhf_tui.settings import CompareSettings, PpoSettings
from rlhf_tui.training import objectives
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.rollout import Scoring, bare_experiences, response_logprobs


@dataclass(frozen=True)
class Side:
    """One model on the held-out prompts; lengths in tokens, scores in reward-model deviations."""

    score: float
    score_low: float
    score_high: float
    length: float
    eos_rate: float


@dataclass(frozen=True)
class Comparison:
    """The measured change. `difference` is after minus before, paired by prompt."""

    prompts: int
    samples_per_prompt: int
    before: Side
    after: Side
    difference: float
    low: float
    high: float
    length_low: float
    """95 % interval of the change of the mean length"""
    length_high: float
    kl: float
    """nats per completion, policy to reference, on the policy's own completions"""
    kl_low: float
    kl_high: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Answers:
    sequences: list[Tokens]
    ended: list[bool]
    scores: list[float]

    def by_prompt(self, values: Sequence[float], each: int) -> list[float]:
        return [sum(values[i : i + each]) / each for i in range(0, len(values), each)]


def compare(
    roles: Roles,
    prompts: Sequence[TrainPrompt],
    settings: CompareSettings,
    ppo: PpoSettings,
    scoring: Scoring,
    *,
    seed: int,
    emit: EventSink,
    boundary: Callable[[], None],
) -> Comparison:
    """Sample base and policy on the same prompts with the same seed and measure both.

    Temperature and length limit are those of PPO. Intervals are bootstrapped over prompts.
    """
    each = settings.samples_per_prompt
    before = _answers(roles, roles.reference(), "before", prompts, settings, ppo, scoring, seed, emit)
    boundary()
    after = _answers(roles, roles.acting("policy"), "after", prompts, settings, ppo, scoring, seed, emit)
    boundary()
    emit(Stage("measuring the KL"))
    kl = mean_interval(after.by_prompt(_kl(roles, after, ppo), each), resamples=settings.bootstrap, seed=seed)
    _show(roles, prompts, before, after, each, emit)

    def change(first: Sequence[float], second: Sequence[float]) -> Interval:
        gaps = [b - a for a, b in zip(before.by_prompt(first, each), after.by_prompt(second, each), strict=True)]
        return mean_interval(gaps, resamples=settings.bootstrap, seed=seed)

    score = change(before.scores, after.scores)
    length = change(_lengths(before), _lengths(after))
    return Comparison(
        prompts=len(prompts),
        samples_per_prompt=each,
        before=_side(before, each, settings, seed),
        after=_side(after, each, settings, seed),
        difference=score.value,
        low=score.low,
        high=score.high,
        length_low=length.low,
        length_high=length.high,
        kl=kl.value,
        kl_low=kl.low,
        kl_high=kl.high,
    )


def _answers(
    roles: Roles,
    role: AbstractContextManager[None],
    name: str,
    prompts: Sequence[TrainPrompt],
    settings: CompareSettings,
    ppo: PpoSettings,
    scoring: Scoring,
    seed: int,
    emit: EventSink,
) -> _Answers:
    emit(Stage(f"sampling {name}"))
    wanted = [prompt.ids for prompt in prompts for _ in range(settings.samples_per_prompt)]
    with role:
        completions = sample(
            roles.base.model,
            wanted,
            Sampling(ppo.max_new_tokens, ppo.temperature),
            end_ids=roles.base.chat.end_ids,
            rows=ppo.sampling_rows,
            seed=seed,
            progress=lambda finished: emit(Progress(finished, len(wanted), f"completions {name}")),
        )
    sequences = [Tokens(tuple(ids), one.ids) for ids, one in zip(wanted, completions, strict=True)]
    emit(Stage(f"scoring {name}"))
    sizes = MicroBatching(roles.base, ppo.micro_batch_tokens, "off")
    raw = score_tokens(roles, sequences, scoring.pooling, sizes)
    scores = ((raw - scoring.mean) / scoring.deviation).tolist()
    return _Answers(sequences, [one.ended for one in completions], scores)


@torch.no_grad()
def _kl(roles: Roles, answers: _Answers, ppo: PpoSettings) -> list[float]:
    """Nats by which each completion is likelier under the policy than under the reference."""
    kl = torch.zeros(len(answers.sequences))
    for one in bare_experiences(roles, answers.sequences, answers.ended, ppo.micro_batch_tokens):
        with roles.acting("policy"):
            logprobs, _ = response_logprobs(roles, one, ppo.temperature)
        with roles.reference():
            reference, _ = response_logprobs(roles, one, ppo.temperature)
        kl[one.members] = objectives.kl_k1(logprobs, reference).sum(-1).cpu()
    return [float(value) for value in kl]


def _side(answers: _Answers, each: int, settings: CompareSettings, seed: int) -> Side:
    score = mean_interval(answers.by_prompt(answers.scores, each), resamples=settings.bootstrap, seed=seed)
    count = len(answers.sequences)
    return Side(score.value, score.low, score.high, sum(_lengths(answers)) / count, sum(answers.ended) / count)


def _lengths(answers: _Answers) -> list[float]:
    return [float(len(one.response)) for one in answers.sequences]


def _show(
    roles: Roles, prompts: Sequence[TrainPrompt], before: _Answers, after: _Answers, each: int, emit: EventSink
) -> None:
    """The first completion of every prompt, from both models."""
    for index, prompt in enumerate(prompts):
        for name, answers in (("before", before), ("after", after)):
            tokens = answers.sequences[index * each].response
            values = {"score": answers.scores[index * each], "length": float(len(tokens))}
            emit(Sample(index, prompt.text, roles.base.chat.text(tokens), values, name))
