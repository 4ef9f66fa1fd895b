"""Completions of the base, sampled as PPO will: the unit of the scores, and what would be chosen of 1, 4 and 16."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rlhf_tui.assessment.records import Choice, Normalisation, Preview
from rlhf_tui.evaluation.scoring import stepwise_scores
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import progress, prompts_that_fit, seed_from
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.reward import Trained

_CHOICES = (1, 4, 16)


def normalise(context: StageContext, roles: Roles, trained: Trained) -> Normalisation:
    """Mean and deviation of the scores of reference completions; of the judged candidates where none are wanted."""
    wanted = context.settings.reward.reference_completions
    prompts, _ = prompts_that_fit(context, roles.base, "train")
    if wanted and prompts:
        context.emit(Stage("sampling reference completions"))
        drawn = _drawn(context, roles, [prompts[number % len(prompts)] for number in range(wanted)], "reference")
        scores = reward_scores(context, roles, drawn)
        deviation = float(scores.std(unbiased=False))
        if deviation > 1e-6:
            return Normalisation(float(scores.mean()), deviation, wanted, "reference completions")
    return Normalisation(trained.mean, trained.deviation, 2 * len(trained.train.chosen), "judged candidates")


def preview(context: StageContext, roles: Roles, units: Normalisation) -> tuple[Preview, ...]:
    """What the reward model chooses of more and more completions of the first held-out prompts."""
    prompts, _ = prompts_that_fit(context, roles.base, "heldout")
    prompts = prompts[: context.settings.reward.preview_prompts]
    if not prompts:
        return ()
    context.emit(Stage("sampling for the preview"))
    each = max(_CHOICES)
    drawn = _drawn(context, roles, [prompt for prompt in prompts for _ in range(each)], "preview")
    scores = ((reward_scores(context, roles, drawn) - units.mean) / units.deviation).tolist()
    return tuple(
        Preview(prompt.text, _choices(roles, drawn[start : start + each], scores[start : start + each]))
        for prompt, start in zip(prompts, range(0, len(drawn), each), strict=True)
    )


def reward_scores(context: StageContext, roles: Roles, sequences: Sequence[Tokens]) -> Tensor:
    """Raw scores of the reward model; what is asked of the run is done between forward passes. → (sequences,)"""
    settings = context.settings.reward
    sizes = MicroBatching(roles.base, settings.micro_batch_tokens, "off")
    return stepwise_scores(roles, sequences, sizes, lambda: context.control.boundary(lambda: None))


def _choices(roles: Roles, drawn: Sequence[Tokens], scores: Sequence[float]) -> tuple[Choice, ...]:
    best = [max(range(count), key=lambda index: scores[index]) for count in _CHOICES]
    return tuple(
        Choice(count, roles.base.chat.text(drawn[i].response), scores[i], len(drawn[i].response))
        for count, i in zip(_CHOICES, best, strict=True)
    )


def _drawn(context: StageContext, roles: Roles, prompts: Sequence[TrainPrompt], what: str) -> list[Tokens]:
    base, size = roles.base, context.settings.generate.batch_size
    found: list[Tokens] = []
    for start in range(0, len(prompts), size):
        some = prompts[start : start + size]
        seed = seed_from(context.settings.run.seed, what, start)
        with roles.reference():
            completions = sample(
                base.model,
                [prompt.ids for prompt in some],
                Sampling(context.settings.ppo.max_new_tokens, context.settings.ppo.temperature),
                end_ids=base.chat.end_ids,
                rows=size,
                seed=seed,
                progress=progress(context, start, len(prompts)),
            )
        found += [Tokens(tuple(prompt.ids), one.ids) for prompt, one in zip(some, completions, strict=True)]
        context.control.boundary(lambda: None)
    return found
