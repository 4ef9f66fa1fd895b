"""What several stages of a run need from their project: the base model, prompts and completions as ids."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from rlhf_tui import fit
from rlhf_tui.errors import UserError
from rlhf_tui.locate import require
from rlhf_tui.model.base import Base, load_base
from rlhf_tui.model.roles import Roles
from rlhf_tui.peaks import Peaks
from rlhf_tui.preferences.records import Completion
from rlhf_tui.runs.events import Event, Memory, Progress, Stage
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.shape import shape_of
from rlhf_tui.training.memory import measure
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.rollout import Scoring

#: The phase in which it is measured what the process already holds.
BEFORE_LOADING = "before loading"


def loaded_base(context: StageContext) -> Base:
    """Load the base model, with the number of threads that the settings say."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(context.settings.run.threads or psutil.cpu_count(logical=False) or os.cpu_count() or 1)
    context.emit(Stage("loading the model"))
    context.emit(measure(BEFORE_LOADING, torch.device("cpu")))
    base = load_base(context.settings.model, lambda text: context.emit(Stage(text)))
    context.emit(measure("model loaded", base.device))
    return base


def memory_plan(context: StageContext, base: Base, candidates: int | None = None) -> fit.MemoryPlan | None:
    """What the stages of this project take; None for an unusual model, which nothing can be planned for."""
    wanted = context.settings.model
    try:
        shape = shape_of(require(wanted.name, wanted.revision), wanted.revision)
    except UserError:
        return None
    device: fit.Device = "cuda" if base.device.type == "cuda" else "cpu"
    return fit.plan(shape, context.settings, quantisation=base.quantisation, device=device, candidates=candidates)


def peaks_beside(context: StageContext, plan: fit.StagePlan | None) -> Peaks:
    """What puts the plan beside the peaks of this run; those of its earlier executions are in its journal.

    In a demo, earlier stages leave something in the process: it comes on top of the plan.
    """
    journal, before = JournalReader(context.run.events_path), list[Event]()
    while not journal.caught_up:
        before += [stamped.event for stamped in journal.read() if isinstance(stamped.event, Memory)]
    found = [one.rss for one in before if isinstance(one, Memory) and one.phase == BEFORE_LOADING]
    return Peaks(plan, context.emit, before, held=max(0, found[-1] - fit.PROCESS_BYTES["cpu"]) if found else 0)


def with_policy(context: StageContext) -> tuple[Roles, dict[str, Any]]:
    """The base with the project's current policy on it, and what is known of that policy."""
    roles = Roles(loaded_base(context), context.settings.adapters, seed=context.settings.run.seed)
    return roles, roles.load("policy", context.project.adapter("policy"))


def add_reward_model(roles: Roles, folder: Path) -> tuple[dict[str, Any], Scoring]:
    """Put the reward model saved in `folder` on the base: what is known of it, and the unit of its scores.

    Raises UserError when it learnt from texts that were put to the model in another way.
    """
    facts = roles.load("reward", folder)
    if facts.get("template", roles.base.chat.fingerprint) != roles.base.chat.fingerprint:
        raise UserError(
            "The reward model was trained with another chat template or system prompt.",
            why="Its scores mean something only for text that is put to the model as it was in training.",
            todo="Set model.chat_template and model.system_prompt back, or run 'rlhf-tui train reward' again.",
        )
    return facts, Scoring(facts["mean"], facts["deviation"])


def fitting_prompts(context: StageContext, base: Base, split: str | None) -> tuple[list[TrainPrompt], int]:
    """The prompts of a split (None: all) as ids, and how many were too long. Raises UserError when none is left."""
    kept, too_long = prompts_that_fit(context, base, split)
    if not kept:
        raise UserError(
            "No prompt fits.",
            why=f"All {split or ''} prompts are longer than model.max_prompt_tokens.".replace("  ", " "),
            todo="Raise model.max_prompt_tokens, or import shorter prompts.",
        )
    return kept, too_long


def prompts_that_fit(context: StageContext, base: Base, split: str | None) -> tuple[list[TrainPrompt], int]:
    """The same, without an error when none is left."""
    with context.project.store() as store:
        stored = store.prompts(split)
    prompts = [TrainPrompt(prompt.text, tuple(base.chat.prompt_ids(prompt.messages))) for prompt in stored]
    kept = [prompt for prompt in prompts if len(prompt.ids) <= context.settings.model.max_prompt_tokens]
    return kept, len(prompts) - len(kept)


def completion_ids(base: Base, completion: Completion) -> tuple[int, ...]:
    """Ids of a stored text. Only one that is known to have been cut off lacks the end-of-turn token."""
    return tuple(base.chat.completion_ids(completion.text, ended=completion.finish_reason != "length"))


def progress(context: StageContext, before: int, total: int, what: str = "completions") -> Callable[[int], None]:
    """Tells how many of `total` are done, when `before` were done already."""
    return lambda finished: context.emit(Progress(before + finished, total, what))


def steps(context: StageContext, total: int, what: str) -> Callable[[int], None]:
    """The same where nothing is half done whenever there is more: what is asked of the run is done then."""
    tell = progress(context, 0, total, what)

    def step(finished: int) -> None:
        tell(finished)
        context.control.boundary(lambda: None)

    return step


def seed_from(*parts: object) -> int:
    """A seed that depends on all of these."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")
