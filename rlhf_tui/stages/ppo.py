"""The PPO stage: move the policy towards what the reward model scores highly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles, read_manifest
from rlhf_tui.runs.events import Alert, Checkpoint, Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import add_reward_model, fitting_prompts, loaded_base, project_roles, prompts_that_fit
from rlhf_tui.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from rlhf_tui.training.heldout import Heldout, gold_judge
from rlhf_tui.training.ppo import Ppo
from rlhf_tui.training.ppo_run import PpoRun
from rlhf_tui.training.rollout import Scoring

_SECOND_MODEL = "fits/member-2/adapter"  # in the folder of a reward run with reward.ensemble of 2 or more


def ppo(context: StageContext) -> dict[str, Any]:
    """Move the policy; the one that is kept, and the value beside it, become the project's current ones."""
    base = loaded_base(context)
    settings, seed = context.settings, context.settings.run.seed
    roles = project_roles(context, base)
    roles.add("policy")
    facts, scoring = add_reward_model(context, roles)
    _load_second_model(context, roles, str(facts["run"]))
    _start_value(context, roles, scoring)
    prompts, left_out = fitting_prompts(context, base, "train")
    learner = Ppo(roles, prompts, settings.ppo, scoring, seed=seed, emit=context.emit)
    heldout = _heldout(context, learner, scoring)
    run = PpoRun(learner, settings.guard, emit=context.emit, checkpoints=context.run.checkpoints, heldout=heldout)
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
        "reward_run": facts["run"],
        "episodes": learner.done * settings.ppo.rollout_size,
        "prompts": len(prompts),
        "prompts_too_long": left_out,
        "heldout_prompts": len(heldout) if heldout else 0,
        "kl_coefficient": learner.kl_coefficient,
    }
    for role in ("policy", "value"):
        roles.save(role, context.project.adapter(role), _manifest(result))
    return result


def _load_second_model(context: StageContext, roles: Roles, reward_run: str) -> None:
    """The other reward model of the same training as role 'gold', when there was one: it judges and never teaches."""
    folder = context.project.runs / reward_run / _SECOND_MODEL
    if not context.settings.ppo.evaluate_every or not folder.exists():
        return
    try:
        read_manifest(folder, "reward")
    except UserError as error:
        message = "The second reward model cannot be read: there is no second opinion."
        context.emit(Alert("warning", "no-gold", message, why=error.what, remedy=error.todo))
        return
    roles.restore("reward", folder)
    roles.copy("reward", "gold")
    roles.restore("reward", context.project.adapter("reward"))


def _start_value(context: StageContext, roles: Roles, scoring: Scoring) -> None:
    """The value begins as the reward model, so that its first guesses are the scores, or as nothing."""
    if context.settings.ppo.value_start == "reward":
        roles.copy("reward", "value")
        roles.head("value").normalise(scoring.mean, scoring.deviation)
    else:
        roles.add("value")


def _heldout(context: StageContext, learner: Ppo, scoring: Scoring) -> Heldout | None:
    """The held-out prompts of the run; None when none are wanted or there are none."""
    settings, roles = learner.settings, learner.roles
    if not settings.evaluate_every:
        return None
    prompts, _ = prompts_that_fit(context, roles.base, "heldout")
    if not prompts:
        message = "No held-out prompt fits: nothing is evaluated during the run, and the last policy is kept."
        remedy = "Import more prompts, or raise prompts.heldout_fraction or model.max_prompt_tokens."
        context.emit(Alert("warning", "no-heldout", message, remedy=remedy))
        return None
    return Heldout(
        roles,
        prompts[: settings.evaluate_prompts],
        learner.explore,
        seed=context.settings.run.seed,
        emit=context.emit,
        gold=gold_judge(roles, learner.sizes) if "gold" in roles.names else None,
    )


def _manifest(result: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter says of itself: all but the alerts, which are in the run's journal."""
    return {name: value for name, value in result.items() if name != "alerts"}
