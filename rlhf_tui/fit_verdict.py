"""Does the memory plan fit a card, and if not, which settings make it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_tui import settings as settings_module
from rlhf_tui.fit import GIB, MemoryPlan, Stage, StagePlan, plan


@dataclass(frozen=True)
class Verdict:
    """Whether one stage fits, and what would make it fit."""

    stage: Stage
    fits: bool
    needed: int
    """bytes at the peak"""
    spare: int
    """bytes left over; negative: bytes missing"""
    lower: tuple[str, ...]
    """`section.key=value` overrides that together make it fit; empty when it fits, or when nothing helps"""
    advice: str


# What to lower, the least harmful first: micro-batches and sampling batches change speed, not the result.
_LOWERABLE: dict[Stage, tuple[str, ...]] = {
    "generate": ("generate.batch_size", "model.quantisation", "generate.max_new_tokens", "model.max_prompt_tokens"),
    "reward": (
        "reward.micro_batch_tokens",
        "reward.checkpointing",
        "model.quantisation",
        "adapters.layers",
        "model.max_prompt_tokens",
        "generate.max_new_tokens",
        "adapters.rank",
    ),
    "ppo": (
        "ppo.sampling_weights",
        "ppo.micro_batch_tokens",
        "ppo.sampling_rows",
        "ppo.checkpointing",
        "model.quantisation",
        "ppo.rollout_size",
        "adapters.layers",
        "model.max_prompt_tokens",
        "ppo.max_new_tokens",
        "adapters.rank",
    ),
    "compare": (
        "ppo.sampling_weights",
        "ppo.micro_batch_tokens",
        "ppo.sampling_rows",
        "model.quantisation",
        "model.max_prompt_tokens",
        "ppo.max_new_tokens",
    ),
}
# Halving stops here: below, a setting is of no use to anybody.
_LEAST = {
    "generate.batch_size": 1,
    "generate.max_new_tokens": 16,
    "ppo.max_new_tokens": 16,
    "model.max_prompt_tokens": 64,
    "reward.micro_batch_tokens": 64,
    "ppo.micro_batch_tokens": 64,
    "ppo.rollout_size": 8,
    "ppo.sampling_rows": 1,
    "adapters.layers": 1,
    "adapters.rank": 4,
}
# A halving must gain this share of what is missing, or the next setting is tried.
_WORTH = 0.05


def verdict(planned: MemoryPlan, card_bytes: int) -> list[Verdict]:
    """For each stage: does it fit in `card_bytes`, by how much, and which settings make it fit.

    Settings are halved one after another, the least harmful first, and only those that gain something.
    """
    return [_judge(planned, stage, card_bytes) for stage in planned.stages]


def _judge(planned: MemoryPlan, stage: StagePlan, card_bytes: int) -> Verdict:
    spare = card_bytes - stage.peak
    if spare >= 0:
        text = f"{stage.stage} fits: {stage.peak / GIB:.1f} GiB of {card_bytes / GIB:.1f} GiB."
        return Verdict(stage.stage, True, stage.peak, spare, (), text)
    changes = _remedy(planned, stage.stage, card_bytes)
    lower = tuple(f"{key}={value}" for key, value in changes.items())
    cure = f"Set {' and '.join(lower)}." if lower else "No setting makes it fit: choose a smaller model."
    text = f"{stage.stage} needs {stage.peak / GIB:.1f} GiB, {-spare / GIB:.1f} GiB too much. {cure}"
    return Verdict(stage.stage, False, stage.peak, spare, lower, text)


def _remedy(planned: MemoryPlan, stage: Stage, room: int) -> dict[str, Any]:
    """Settings, halved one after another until the stage fits; empty when that does not help."""
    changes: dict[str, Any] = {}
    while (missing := _peak(planned, stage, changes) - room) > 0:
        for key in _LOWERABLE[stage]:
            value = _lowered(planned, key, changes)
            if value is not None and room + missing - _peak(planned, stage, changes | {key: value}) >= _WORTH * missing:
                changes[key] = value
                break
        else:
            return {}
    for key in reversed(list(changes)):  # one may have made another needless: the most harmful one goes first
        without = {other: value for other, value in changes.items() if other != key}
        if _peak(planned, stage, without) <= room:
            changes = without
    return changes


def _lowered(planned: MemoryPlan, key: str, changes: Mapping[str, Any]) -> Any:
    """The next smaller value of a setting, or None at the end."""
    if key == "model.quantisation":
        return None if changes.get(key, planned.quantisation) == "nf4" else "nf4"
    if key == "ppo.sampling_weights":
        return "auto" if changes.get(key, settings_module.value(planned.settings, key)) == "copy" else None
    if key.endswith(".checkpointing"):
        return None if changes.get(key, settings_module.value(planned.settings, key)) == "on" else "on"
    current = changes.get(key, settings_module.value(planned.settings, key))
    if key == "adapters.layers":
        current = planned.shape.adapted(current)
    half = max(current // 2, _LEAST[key])
    return half if half < current else None


def _peak(before: MemoryPlan, stage: Stage, changes: Mapping[str, Any]) -> int:
    settings = before.settings
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(settings, section).model_copy(update={name: value})
        settings = settings.model_copy(update={section: changed})
    quantisation = changes.get("model.quantisation", before.quantisation)
    again = plan(before.shape, settings, quantisation=quantisation, device=before.device, candidates=before.candidates)
    return next(one.peak for one in again.stages if one.stage == stage)
