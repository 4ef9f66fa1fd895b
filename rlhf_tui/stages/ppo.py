"""The PPO stage: move the policy towards what the reward model scores highly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_tui import fit
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Alert, Checkpoint, Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import loaded_base, memory_plan, peaks_beside
from rlhf_tui.stages.ppo_inputs import ppo_inputs
from rlhf_tui.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from rlhf_tui.training.heldout import Heldout, gold_judge
from rlhf_tui.training.ppo import Ppo, TrainPrompt
from rlhf_tui.training.ppo_run import PpoRun
from rlhf_tui.training.rollout import Scoring
from rlhf_tui.training.sampling_weights import SamplingWeights


def ppo(context: StageContext) -> dict[str, Any]:
    """Move the policy; the one that is kept, and the value beside it, become the project's current ones."""
    settings, seed = context.settings, context.settings.run.seed
    inputs = ppo_inputs(context, loaded_base(context))
    roles, prompts = inputs.roles, inputs.prompts
    start_value(context, roles, inputs.scoring)
    planned = memory_plan(context, roles.base)
    peaks = peaks_beside(context, planned.ppo if planned else None)
    copy_room = fit.copy_room(planned.ppo) if planned and roles.base.quantisation == "nf4" else 0
    learner = Ppo(
        roles,
        prompts.train,
        settings.ppo,
        inputs.scoring,
        seed=seed,
        emit=peaks,
        weights=SamplingWeights(roles.base, settings.ppo.sampling_weights, copy_room),
    )
    heldout = _heldout(context, learner, prompts.heldout)
    run = PpoRun(learner, settings.guard, emit=peaks, checkpoints=context.run.checkpoints, heldout=heldout)
    checkpoint = newest_checkpoint(context.run.checkpoints, run.optimisers, context.emit)
    if checkpoint is not None:
        load_checkpoint(run, checkpoint)
        context.emit(Stage("resumed", checkpoint.name))

    def save(current: PpoRun) -> None:
        folder = save_checkpoint(current, context.run.checkpoints, settings.run)
        context.emit(Checkpoint(current.done, str(folder.relative_to(context.run.path))))

    outcome = run.run(save=save, boundary=context.control.boundary)
    result = outcome.as_dict() | {
        "run": context.run.name,
        "reward_run": inputs.reward_run,
        "episodes": learner.done * settings.ppo.rollout_size,
        "prompts": len(prompts.train),
        "prompts_too_long": prompts.too_long,
        "heldout_prompts": len(heldout) if heldout else 0,
        "kl_coefficient": learner.kl_coefficient,
        "sampling_weights": learner.weights.state(),
    }
    for role in ("policy", "value"):
        roles.save(role, context.project.adapter(role), _manifest(result))
    return result | {"memory": peaks.result()}


def start_value(context: StageContext, roles: Roles, scoring: Scoring) -> None:
    """The value begins as the reward model, so that its first guesses are the scores, or as nothing."""
    if context.settings.ppo.value_start == "reward":
        roles.copy("reward", "value")
        roles.head("value").normalise(scoring.mean, scoring.deviation)
    else:
        roles.add("value")


def _heldout(context: StageContext, learner: Ppo, prompts: Sequence[TrainPrompt]) -> Heldout | None:
    """The held-out prompts of the run; None when none are wanted or there are none."""
    roles = learner.roles
    if not learner.settings.evaluate_every:
        return None
    if not prompts:
        message = "No held-out prompt fits: nothing is evaluated during the run, and the last policy is kept."
        remedy = "Import more prompts, or raise prompts.heldout_fraction or model.max_prompt_tokens."
        context.emit(Alert("warning", "no-heldout", message, remedy=remedy))
        return None
    return Heldout(
        roles,
        prompts,
        learner.explore,
        seed=context.settings.run.seed,
        emit=context.emit,
        gold=gold_judge(roles, learner.sizes) if "gold" in roles.names else None,
    )


def _manifest(result: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter says of itself: all but the alerts, which are in the run's journal."""
    return {name: value for name, value in result.items() if name != "alerts"}
