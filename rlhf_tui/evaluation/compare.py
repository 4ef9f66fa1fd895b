"""Before and after, on held-out prompts: score, length, endings, and how far the policy has moved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_tui.evaluation.intervals import Interval, mean_interval
from rlhf_tui.evaluation.kept import keep, key_of, recall
from rlhf_tui.evaluation.scoring import stepwise_scores
from rlhf_tui.model.generation import Completion, Sampling, sample
from rlhf_tui.model.roles import Roles
from rlhf_tui.model.unpacked import Weights
from rlhf_tui.runs.events import EventSink, Progress, Sample, Stage
from rlhf_tui.settings import CompareSettings, PpoSettings
from rlhf_tui.training import objectives
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens, micro_batches
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.rollout import Scoring, bare_experiences, response_logprobs

_ROUNDS = 4  # how often every row of the sampler is used in one part


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
    kept: Path | None = None,
) -> Comparison:
    """Sample base and policy on the same prompts with the same seed and measure both.

    Temperature and length limit are those of PPO. Intervals are bootstrapped over prompts. Completions are sampled in
    parts and kept in the folder `kept`: called again, it goes on from there. There is a `boundary` after each part, and
    after each forward pass of what is measured then.
    """
    each = settings.samples_per_prompt
    wanted = [prompt.ids for prompt in prompts for _ in range(each)]
    sampler = _Sampler(roles, wanted, each, ppo, seed, emit, boundary, kept)
    base = (roles.base.location.published_name, roles.base.quantisation)
    before = _scored(sampler, "before", sampler.draw("before", roles.reference, base), scoring)
    policy = roles.fingerprint("policy")
    after = _scored(sampler, "after", sampler.draw("after", lambda: roles.acting("policy"), (*base, policy)), scoring)
    emit(Stage("measuring the KL"))
    kl = mean_interval(after.by_prompt(_kl(roles, after, ppo, boundary), each), resamples=settings.bootstrap, seed=seed)
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


@dataclass(frozen=True)
class _Sampler:
    """Draws a completion for every prompt of `wanted`, a part at a time; each part is kept when it is there."""

    roles: Roles
    wanted: Sequence[tuple[int, ...]]
    each: int
    ppo: PpoSettings
    seed: int
    emit: EventSink
    boundary: Callable[[], None]
    kept: Path | None

    def draw(self, side: str, role: Callable[[], AbstractContextManager[None]], model: object) -> list[Completion]:
        """All completions of one side, in the order of `wanted`. `model`: what tells this model from another."""
        self.emit(Stage(f"sampling {side}"))
        size = self.each * max(1, _ROUNDS * self.ppo.sampling_rows // self.each)
        drawn: list[Completion] = []
        for start in range(0, len(self.wanted), size):
            drawn += self._part(side, role, model, start, self.wanted[start : start + size])
            self.boundary()
        return drawn

    def _part(
        self,
        side: str,
        role: Callable[[], AbstractContextManager[None]],
        model: object,
        start: int,
        wanted: Sequence[tuple[int, ...]],
    ) -> list[Completion]:
        sampling = Sampling(self.ppo.max_new_tokens, self.ppo.temperature)
        end_ids, seed = self.roles.base.chat.end_ids, _seed_of_part(self.seed, start)
        path = self.kept / f"{side}-{start:06d}.json" if self.kept is not None else None
        # without the choice that a run makes by timing: parts that are kept must come out the same again
        weights: Weights = "copy" if self.ppo.sampling_weights == "copy" else "quantised"
        key = key_of(model if weights == "quantised" else (model, weights), wanted, sampling, end_ids, seed)
        there = recall(path, key) if path is not None else None
        if there is not None:
            self._progress(side, start + len(there))
            return there
        with role():
            drawn = sample(
                self.roles.base.model,
                wanted,
                sampling,
                end_ids=end_ids,
                rows=self.ppo.sampling_rows,
                seed=seed,
                progress=lambda finished: self._progress(side, start + finished),
                weights=weights,
            )
        if path is not None:
            keep(path, key, drawn)
        return drawn

    def _progress(self, side: str, done: int) -> None:
        self.emit(Progress(done, len(self.wanted), f"completions {side}"))


def _seed_of_part(seed: int, start: int) -> int:
    """A seed for each part, the same for both sides."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{start}".encode()).digest()[:6], "big") if start else seed


def _scored(sampler: _Sampler, side: str, completions: Sequence[Completion], scoring: Scoring) -> _Answers:
    sequences = [Tokens(ids, one.ids) for ids, one in zip(sampler.wanted, completions, strict=True)]
    sampler.emit(Stage(f"scoring {side}"))
    sizes = MicroBatching(sampler.roles.base, sampler.ppo.micro_batch_tokens, "off")
    raw = stepwise_scores(sampler.roles, sequences, sizes, sampler.boundary)
    scores = ((raw - scoring.mean) / scoring.deviation).tolist()
    return _Answers(sequences, [one.ended for one in completions], scores)


@torch.no_grad()
def _kl(roles: Roles, answers: _Answers, ppo: PpoSettings, boundary: Callable[[], None]) -> list[float]:
    """Nats by which each completion is likelier under the policy than under the reference."""
    kl = torch.zeros(len(answers.sequences))
    for members in micro_batches([len(one) for one in answers.sequences], ppo.micro_batch_tokens):
        (one,) = bare_experiences(roles, answers.sequences, answers.ended, ppo.micro_batch_tokens, members)
        with roles.acting("policy"):
            logprobs, _ = response_logprobs(roles, one, ppo.temperature)
        with roles.reference():
            reference, _ = response_logprobs(roles, one, ppo.temperature)
        kl[one.members] = objectives.kl_k1(logprobs, reference).sum(-1).cpu()
        boundary()
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
