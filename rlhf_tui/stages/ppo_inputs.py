"""What a PPO run was started with, held still in the run's folder: one that is taken up again reads it there.

    runs/ppo-0007/inputs/
        prompts.json    those it practises on and those it is evaluated on: their ids, in their order
        reward/         the reward model that it learns from
        gold/           the second one, when there is one

A prompt that is imported later would reshuffle every rollout to come, and a reward model that was trained again would
hand its own scores to the optimisers of the first. The folder stays: it says what the policy was trained against.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rlhf_tui.errors import UserError
from rlhf_tui.model.base import Base
from rlhf_tui.model.manifest import read_manifest, saved_reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Alert
from rlhf_tui.runs.folder import INPUTS, RunFolder
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import add_reward_model, fitting_prompts, prompts_that_fit
from rlhf_tui.swap import replacing
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.rollout import Scoring

_PROMPTS, _REWARD, _GOLD = "prompts.json", "reward", "gold"
_SECOND_MODEL = "fits/member-2/adapter"  # in the folder of a reward run with reward.ensemble of 2 or more


class Prompts(msgspec.Struct, frozen=True):
    """The prompts of a run in their order; none are held out when nothing is evaluated. `too_long`: left out."""

    train: list[TrainPrompt]
    heldout: list[TrainPrompt]
    too_long: int


class _Held(msgspec.Struct, frozen=True):
    prompts: Prompts
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """All that a PPO run begins with: 'policy' is new, 'reward' and perhaps 'gold' are trained models."""

    roles: Roles
    prompts: Prompts
    scoring: Scoring
    reward_run: str


def ppo_inputs(context: StageContext, base: Base) -> Inputs:
    """What this run began with, or at its first start what lies in the project, which is held from then on.

    Raises UserError when the project has no reward model that fits, or no prompt; and when the run has been going on
    and what it began with is missing or damaged.
    """
    folder = context.run.path / INPUTS
    held = folder.exists()
    if not held:
        _require_new(context.run)
    reward = folder / _REWARD if held else context.project.adapter("reward")
    reading = saved_reading(reward, "reward")
    roles = Roles(base, context.settings.adapters, seed=context.settings.run.seed, reading=reading)
    roles.add("policy")
    facts, scoring = add_reward_model(roles, reward)
    if held:
        prompts = _read_prompts(folder / _PROMPTS)
        if (folder / _GOLD).exists():
            roles.load("gold", folder / _GOLD)
    else:
        prompts = _gathered(context, base)
        _add_second_model(context, roles, str(facts["run"]))
        _hold(folder, prompts, roles, facts)  # last: what was refused until here can be put right, and resumed
    return Inputs(roles, prompts, scoring, str(facts["run"]))


def _require_new(run: RunFolder) -> None:
    """Raise UserError when the run has checkpoints: what they were trained with is not in its folder any more."""
    if any(run.checkpoints.glob("step-*")):
        raise UserError(
            f"{run.path / INPUTS} is missing.",
            why="It held the prompts and the reward model that the run began with (earlier versions kept none).",
            todo="Put it back from a copy, or start a new run with 'rlhf-tui train ppo'.",
        )


def _gathered(context: StageContext, base: Base) -> Prompts:
    """The project's prompts that fit, as far as the run needs them."""
    settings = context.settings.ppo
    train, too_long = fitting_prompts(context, base, "train")
    heldout = prompts_that_fit(context, base, "heldout")[0] if settings.evaluate_every else []
    return Prompts(train, heldout[: settings.evaluate_prompts], too_long)


def _add_second_model(context: StageContext, roles: Roles, reward_run: str) -> None:
    """The other reward model of the same training as role 'gold', when there was one: it judges and never teaches."""
    folder = context.project.runs / reward_run / _SECOND_MODEL
    if not context.settings.ppo.evaluate_every or not folder.exists():
        return
    try:
        read_manifest(folder, "reward")
    except UserError as error:
        message = "The second reward model cannot be read, and is done without."
        context.emit(Alert("warning", "gold-damaged", message, why=error.what, remedy=error.todo))
        return
    roles.restore("reward", folder)
    roles.copy("reward", "gold")
    roles.restore("reward", context.project.adapter("reward"))


def _hold(folder: Path, prompts: Prompts, roles: Roles, facts: dict[str, Any]) -> None:
    """Write it all, whole or not at all; the models as they are on the base, whatever their folders hold by now."""
    with replacing(folder) as beside:
        roles.save("reward", beside / _REWARD, facts)
        if "gold" in roles.names:
            roles.save("gold", beside / _GOLD, {"run": facts["run"]})
        (beside / _PROMPTS).write_bytes(msgspec.json.encode(_Held(prompts, _digest(prompts))))


def _read_prompts(path: Path) -> Prompts:
    try:
        held = msgspec.json.decode(path.read_bytes(), type=_Held)
        why = "" if held.sha256 == _digest(held.prompts) else "It does not match the hash that was written with it."
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error)
    if why:
        todo = "Put it back from a copy, or start a new run with 'rlhf-tui train ppo'."
        raise UserError(f"{path} is damaged.", why=why, todo=todo)
    return held.prompts


def _digest(prompts: Prompts) -> str:
    return hashlib.sha256(msgspec.json.encode(prompts)).hexdigest()
