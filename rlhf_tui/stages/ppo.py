"""The PPO stage: move the policy towards what the reward model scores highly."""

from __future__ import annotations

from typing import Any

from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Checkpoint, Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import add_reward_model, fitting_prompts, loaded_base
from rlhf_tui.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from rlhf_tui.training.ppo import Ppo
from rlhf_tui.training.ppo_run import train_ppo


def ppo(context: StageContext) -> dict[str, Any]:
    """Move the policy; at the end its adapter and the value's become the project's current ones."""
    base = loaded_base(context)
    roles = Roles(base, context.settings.adapters, seed=context.settings.run.seed)
    roles.add("policy")
    facts, scoring = add_reward_model(context, roles)
    roles.copy("reward", "value")
    roles.head("value").normalise(facts["mean"], facts["deviation"])
    prompts, left_out = fitting_prompts(context, base, "train")
    learner = Ppo(
        roles,
        prompts,
        context.settings.ppo,
        scoring,
        seed=context.settings.run.seed,
        emit=context.emit,
    )
    checkpoint = newest_checkpoint(context.run.checkpoints, learner.optimisers)
    if checkpoint is not None:
        load_checkpoint(learner, checkpoint)
        context.emit(Stage("resumed", checkpoint.name))

    def save(current: Ppo) -> None:
        folder = save_checkpoint(current, context.run.checkpoints)
        context.emit(Checkpoint(current.done, str(folder.relative_to(context.run.path))))

    ended = train_ppo(learner, context.settings.guard, emit=context.emit, save=save, boundary=context.control.boundary)
    result = {
        "run": context.run.name,
        "reward_run": facts["run"],
        "updates": learner.done,
        "episodes": learner.done * context.settings.ppo.rollout_size,
        "prompts": len(prompts),
        "prompts_too_long": left_out,
        "kl_coefficient": learner.kl_coefficient,
        "ended": ended,
    }
    for role in ("policy", "value"):
        roles.save(role, context.project.adapter(role), result)
    return result
