"""The bench: how fast each phase of PPO is on this machine, and how much memory it takes. Nothing is kept of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from rlhf_tui import fit
from rlhf_tui.locate import require
from rlhf_tui.model.base import Base
from rlhf_tui.model.roles import Roles
from rlhf_tui.peaks import taken
from rlhf_tui.runs.events import Event, Progress, Sample, Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.settings import Settings
from rlhf_tui.shape import ModelShape, shape_of
from rlhf_tui.stages.gathering import loaded_base, prompts_that_fit
from rlhf_tui.training.machine import measured_machine
from rlhf_tui.training.phases import PhasePeaks
from rlhf_tui.training.ppo import Ppo, TrainPrompt
from rlhf_tui.training.rollout import Scoring
from rlhf_tui.training.sampling_weights import SamplingWeights
from rlhf_tui.training.speed import Sizes, Speed, measured_speeds

_USUAL_PROMPT = 60  # tokens, where the project has no prompts to go by
_PARTS = ("warming up", "one update", "each phase", "the machine's best")


def bench(context: StageContext) -> dict[str, Any]:
    """Measure one update of PPO, then each kind of work alone, then what the hardware could do at best.

    Prompts are random tokens, as many as the project's own have on average; no completion ends before its limit.
    The adapters are fresh and are thrown away.
    """
    base = loaded_base(context)
    base = replace(base, chat=replace(base.chat, end_ids=()))
    settings = context.settings
    shape = shape_of(require(settings.model.name, settings.model.revision), settings.model.revision)
    roles = _roles(base, settings)
    sizes = _sizes(context, base)
    emit = _without_samples(context.emit)
    _begin(context, 0)
    _updated(roles, settings, sizes.small(), lambda event: None, SamplingWeights(base, "quantised", 0))
    _begin(context, 1)
    peaks = PhasePeaks(base.device, emit)
    weights = SamplingWeights(
        base, settings.ppo.sampling_weights, fit.copy_room(_planned(shape, settings, base, sizes))
    )
    values = _updated(roles, settings, sizes, peaks, weights)
    measured = peaks.close()
    _begin(context, 2)
    settings = settings.model_copy(
        update={"ppo": settings.ppo.model_copy(update={"sampling_weights": weights.chosen or "quantised"})}
    )
    speeds = measured_speeds(roles, shape, settings, sizes)
    _begin(context, 3)
    machine = measured_machine(shape, sizes.micro_rows * sizes.length, base.dtype, base.device)
    context.emit(Progress(len(_PARTS), len(_PARTS), "parts"))
    planned = _planned(shape, settings, base, sizes)
    seconds = {phase: values[f"seconds_{phase}"] for phase in ("sampling", "scoring", "update")}
    return {
        "run": context.run.name,
        "model": shape.name,
        "parameters": shape.parameters,
        "quantisation": base.quantisation,
        "dtype": str(base.dtype).removeprefix("torch."),
        "device": base.device.type,
        "device_name": torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else "the CPU",
        "threads": torch.get_num_threads(),
        "sampling_weights": weights.state(),
        "sizes": asdict(sizes),
        "machine": asdict(machine),
        "speeds": [_as_dict(one, machine.matmul, machine.bandwidth) for one in speeds],
        "seconds": sum(seconds.values()),
        "phases": [
            {
                "phase": phase,
                "seconds": seconds[phase],
                "share": seconds[phase] / sum(seconds.values()),
                "peak": taken(measured[phase]),
                "planned": planned.phases[phase].total,
                "planned_parts": asdict(planned.phases[phase]),
            }
            for phase in seconds
        ],
    }


def _begin(context: StageContext, part: int) -> None:
    context.control.boundary(lambda: None)
    context.emit(Stage(_PARTS[part]))
    context.emit(Progress(part, len(_PARTS), "parts"))


def _roles(base: Base, settings: Settings) -> Roles:
    """Policy, reward and value as PPO has them. The scores must differ, or there is nothing to learn from."""
    roles = Roles(base, settings.adapters, seed=settings.run.seed)
    roles.add("policy")
    roles.add("reward")
    with torch.no_grad():
        roles.head("reward").weight.normal_(0, 0.01, generator=torch.Generator(base.device).manual_seed(0))
    roles.copy("reward", "value")
    return roles


def _sizes(context: StageContext, base: Base) -> Sizes:
    wanted = context.settings.ppo
    lengths = [len(prompt.ids) for prompt in prompts_that_fit(context, base, None)[0]]
    longest = context.settings.model.max_prompt_tokens
    prompt = round(sum(lengths) / len(lengths)) if lengths else min(_USUAL_PROMPT, longest)
    return Sizes(
        prompt_tokens=prompt,
        new_tokens=wanted.max_new_tokens,
        rollout_size=wanted.rollout_size,
        sampling_rows=min(wanted.sampling_rows, wanted.rollout_size),
        micro_rows=max(1, min(wanted.micro_batch_tokens // (prompt + wanted.max_new_tokens), wanted.rollout_size)),
        minibatches=wanted.minibatches,
        epochs=wanted.epochs,
    )


def _updated(
    roles: Roles, settings: Settings, sizes: Sizes, emit: Callable[[Event], None], weights: SamplingWeights
) -> dict[str, float]:
    """One update with these sizes and nothing held back: the value and the policy both learn. Its metrics."""
    wanted = settings.ppo.model_copy(
        update={
            "rollout_size": sizes.rollout_size,
            "max_new_tokens": sizes.new_tokens,
            "critic_warmup_updates": 0,
            "target_kl": 0.0,
        }
    )
    order = random.Random(settings.run.seed)
    vocabulary = roles.base.model.config.get_text_config().vocab_size
    prompts = [
        TrainPrompt(f"{number}", tuple(order.choices(range(vocabulary), k=sizes.prompt_tokens)))
        for number in range(sizes.rollout_size)
    ]
    learner = Ppo(roles, prompts, wanted, Scoring(0.0, 1.0), seed=settings.run.seed, emit=emit, weights=weights)
    return learner.update()


def _planned(shape: ModelShape, settings: Settings, base: Base, sizes: Sizes) -> fit.StagePlan:
    """The plan for what was measured, which may have had shorter prompts than the settings allow."""
    model = settings.model.model_copy(update={"max_prompt_tokens": sizes.prompt_tokens})
    reward = settings.reward.model_copy(update={"ensemble": 1})
    same = settings.model_copy(update={"model": model, "reward": reward})
    device: fit.Device = "cuda" if base.device.type == "cuda" else "cpu"
    return fit.plan(shape, same, quantisation=base.quantisation, device=device).ppo


def _as_dict(speed: Speed, matmul: float, bandwidth: float) -> dict[str, Any]:
    """With the share of the ceilings that it reaches; None for one that does not bound it."""
    return {
        **asdict(speed),
        "of_matmul": speed.flops / matmul,
        "of_own_matmul": speed.flops / speed.own_matmul,
        "of_bandwidth": speed.bytes / bandwidth if speed.bytes else None,
    }


def _without_samples(emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """Random tokens are nothing to look at."""
    return lambda event: None if isinstance(event, Sample) else emit(event)
