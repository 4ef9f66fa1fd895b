"""Will it fit? An analytic memory plan for every stage, from the model's config.json and the settings alone.

No torch and no weights are needed: the answer comes at once, before anything is downloaded. `shape_of`
reads what matters of a model, `plan` counts bytes, `verdict` compares with a card and says what to lower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from rlhf_tui import settings as settings_module
from rlhf_tui.settings import ModelSettings, Settings
from rlhf_tui.shape import ModelShape

Quantisation = Literal["nf4", "int8", "none"]
Device = Literal["cpu", "cuda"]
Stage = Literal["generate", "reward", "ppo", "compare"]

GIB = 2**30

# Positions whose logits exist at one time; the same as CHUNK of model/logprobs.py, which imports torch.
_CHUNK = 256
# NF4: half a byte, one absmax byte for each 64 weights, one fp32 for each 256 of those (QLoRA, arXiv 2305.14314).
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# The CUDA context with its libraries. On the CPU: the interpreter with torch and transformers, measured.
_PROCESS = {"cuda": int(0.7 * GIB), "cpu": int(0.5 * GIB)}
# What an allocator rounds up and cannot reuse.
_SLACK = 0.06
# Logits in fp32, live at once in token_logprobs: this chunk's, scaled, as probabilities, and the chunk before.
_LOGITS_BYTES = 16
# ids, positions, targets (8 each), mask, and the log-probabilities, values, advantages … of a rollout, per token.
_ROLLOUT_BYTES = 56
# On the CPU, reward training keeps the shared layers' results up to this (_KEPT_BYTES of training/shared.py).
_KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Parts:
    """What memory goes to, in bytes."""

    weights: int = 0
    """the base model"""
    unpacked: int = 0
    """one quantised matrix, unpacked for the multiplication"""
    adapters: int = 0
    """LoRA adapters and heads, their gradients and optimiser states"""
    cache: int = 0
    """keys and values of the sequences being sampled"""
    activations: int = 0
    """what the layers hold; in learning, everything kept for the backward pass"""
    logits: int = 0
    """scores over the vocabulary"""
    rollout: int = 0
    """sequences with what is known of each token, and the kept results of shared layers"""
    overhead: int = 0
    """the process itself and what the allocator loses"""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class StagePlan:
    """One stage at its tightest moment."""

    stage: Stage
    moment: str
    """'sampling', 'scoring', 'log-probabilities' or 'backward'"""
    parts: Parts

    @property
    def peak(self) -> int:
        """Bytes."""
        return self.parts.total


@dataclass(frozen=True)
class MemoryPlan:
    """The stages, and what they were planned for."""

    shape: ModelShape
    settings: Settings
    quantisation: Quantisation
    device: Device
    generate: StagePlan
    reward: StagePlan
    ppo: StagePlan
    compare: StagePlan

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        return (self.generate, self.reward, self.ppo, self.compare)


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


# -- counting bytes -------------------------------------------------------------------------------


def resolve(settings: ModelSettings, *, card: bool) -> tuple[Quantisation, Device]:
    """What 'auto' means on a machine with or without a card; the same rules as model/base.py."""
    device: Device = "cuda" if settings.device == "cuda" or (settings.device == "auto" and card) else "cpu"
    if settings.quantisation != "auto":
        return settings.quantisation, device
    return ("nf4" if device == "cuda" else "none"), device


def plan(shape: ModelShape, settings: Settings, *, quantisation: Quantisation, device: Device) -> MemoryPlan:
    """The most memory that each stage takes, in bytes, part by part.

    d is the hidden size, d_q, d_kv and d_ff those of queries, keys and the feed-forward part, L layers, V the
    vocabulary, r the rank, b the bytes of a number (4 on the CPU, 2 on a card). Where no paper is named, the
    terms count what this program's own code keeps:

    - weights: 0.5159 (nf4, double quantisation) or 1 (int8) byte for each weight of a linear layer, b otherwise;
      embeddings, norms and biases always b (QLoRA; bitsandbytes leaves the unembedding alone).
    - adapters: fp32, 4 bytes for each number; Adam 8 more for a role that learns; gradients 4 more for the one role
      that learns at the moment (they are dropped after each step). PPO: policy and value learn, reward is frozen.
    - cache: 2 · L · d_kv · b for each token being sampled.
    - sampling: b · (8d + 3·d_ff) for each prompt token, the padding mask, and the last position's logits
      (no scores are stored): b + 8 bytes each, b + 24 with top-p (sorted values, places, sums).
    - learning: b · (12d + 4·d_q + 6·d_ff) for each token and *adapted* layer (16d where d_q = d): there is no
      gradient checkpointing, and layers without adapters keep nothing. Each of the seven low-rank results adds 4·r
      (fp32); int8 also keeps the inputs of its matrices (bitsandbytes MatMul8bitLt). The layer in the backward
      pass is counted once more; it and the logits do not exist at the same time.
    - logits: 16 · min(256, tokens) · V, as the functions in model/logprobs.py hold them.
    - unpacked: b · d · d_ff for a quantised base. overhead: 0.7 GiB (CUDA) or 0.5 GiB (CPU), and 6 % of the rest.

    A forward pass has at most `micro_batch_tokens` tokens, or one sequence when that is longer.
    Prompts and completions are taken at their longest. Not known here, and left out: imported labels longer than
    `generate.max_new_tokens`, and the shared layers' results of a comparison on all held-out prompts.
    """
    count = _Count(shape, settings, quantisation, device)
    return MemoryPlan(
        shape, settings, quantisation, device, count.generate(), count.reward(), count.ppo(), count.compare()
    )


class _Count:
    """The terms of the plan, for one model and one set of settings."""

    def __init__(self, shape: ModelShape, settings: Settings, quantisation: Quantisation, device: Device) -> None:
        self.shape, self.settings, self.quantisation, self.device = shape, settings, quantisation, device
        self.number = 4 if device == "cpu" else 2
        self.adapted = shape.adapted(settings.adapters.layers)
        self.adapter = shape.adapter_parameters(settings.adapters.rank, settings.adapters.layers)

    # -- stages

    def generate(self) -> StagePlan:
        wanted = self.settings.generate
        sampling = self._sampling(wanted.batch_size, wanted.max_new_tokens, wanted.top_p)
        return self._tightest("generate", {"sampling": sampling})

    def reward(self) -> StagePlan:
        longest = self.settings.model.max_prompt_tokens + self.settings.generate.max_new_tokens
        tokens = max(self.settings.reward.micro_batch_tokens, longest)
        sharing = self.device == "cpu" and self.adapted < self.shape.layers
        head = self.shape.hidden + 1
        learning = {
            "adapters": 16 * (self.adapter + head),
            "rollout": tokens * _ROLLOUT_BYTES + (_KEPT_BYTES if sharing else 0),
        }
        again = self.settings.reward.checkpointing == "on"
        backward = self._recomputed(tokens) if again else self._backward(tokens)
        return self._tightest("reward", {"backward": backward | learning})

    def ppo(self) -> StagePlan:
        wanted = self.settings.ppo
        longest = self.settings.model.max_prompt_tokens + wanted.max_new_tokens
        tokens = max(wanted.micro_batch_tokens, longest)
        held = wanted.rollout_size * self._held(wanted.max_new_tokens)
        head = self.shape.hidden + 1
        # policy and value with their Adam states, reward without; value and reward have heads
        resting = (3 * 4 + 2 * 8) * self.adapter + (2 * 4 + 8) * head
        learning = {"adapters": resting + 4 * (self.adapter + head), "rollout": held}
        sampling = self._sampling(wanted.rollout_size, wanted.max_new_tokens, 1.0)
        return self._tightest(
            "ppo",
            {
                "sampling": sampling | {"adapters": resting},
                "scoring": self._scoring(tokens) | {"adapters": resting, "rollout": held},
                "log-probabilities": self._log_probabilities(tokens) | learning,
                "backward": self._backward(tokens) | learning,
            },
        )

    def compare(self) -> StagePlan:
        wanted = self.settings.ppo
        tokens = max(wanted.micro_batch_tokens, self.settings.model.max_prompt_tokens + wanted.max_new_tokens)
        loaded = {"adapters": 4 * (2 * self.adapter + self.shape.hidden + 1)}
        rows = self.settings.compare.prompts * self.settings.compare.samples_per_prompt
        held = {"rollout": rows * self._held(wanted.max_new_tokens)}
        sampling = self._sampling(wanted.rollout_size, wanted.max_new_tokens, 1.0)
        scoring = self._scoring(tokens) | loaded | held
        return self._tightest("compare", {"sampling": sampling | loaded, "scoring": scoring})

    # -- moments of a stage

    def _sampling(self, rows: int, new_tokens: int, top_p: float) -> dict[str, int]:
        shape, prompt, number = self.shape, self.settings.model.max_prompt_tokens, self.number
        mask = rows * prompt * prompt * (1 + number)  # boolean, and once more as numbers for the attention
        return {
            "cache": 2 * shape.layers * shape.kv_width * number * rows * (prompt + new_tokens),
            "activations": number * rows * prompt * (8 * shape.hidden + 3 * shape.intermediate) + mask,
            "logits": rows * shape.vocabulary * (number + (8 if top_p == 1.0 else 24)),
        }

    def _scoring(self, tokens: int) -> dict[str, int]:
        """Log-probabilities without a gradient: one layer lives at a time."""
        return {"activations": tokens * self._layer() + self._last_hidden(tokens), "logits": self._logits(tokens)}

    def _log_probabilities(self, tokens: int) -> dict[str, int]:
        """All adapted layers are kept, and the loss is being computed."""
        kept = self.adapted * tokens * self._layer()
        return {"activations": kept + self._last_hidden(tokens), "logits": self._logits(tokens)}

    def _backward(self, tokens: int) -> dict[str, int]:
        """All adapted layers are kept, and the gradients of the last one come on top."""
        return {"activations": (self.adapted + 1) * tokens * self._layer() + self._last_hidden(tokens)}

    def _recomputed(self, tokens: int) -> dict[str, int]:
        """Gradient checkpointing: each adapted layer keeps its input alone, and two layers exist at a time."""
        kept = self.adapted * self.number * self.shape.hidden + 2 * self._layer()
        return {"activations": tokens * kept + self._last_hidden(tokens)}

    # -- terms

    def _layer(self) -> int:
        """Bytes that one layer keeps for each token."""
        shape = self.shape
        kept = self.number * (12 * shape.hidden + 4 * shape.query_width + 6 * shape.intermediate)
        if self.quantisation == "int8":
            kept += self.number * (2 * shape.hidden + shape.query_width + shape.intermediate)
        return kept + 7 * 4 * self.settings.adapters.rank

    def _last_hidden(self, tokens: int) -> int:
        """The last hidden state, the positions picked from it, and the gradients of both."""
        return 4 * self.number * tokens * self.shape.hidden

    def _held(self, new_tokens: int) -> int:
        """Bytes that one sampled completion keeps, with what the shared layers made of it, until it is done with."""
        shared = self.number * self.shape.hidden if self.adapted < self.shape.layers else 0
        return (self.settings.model.max_prompt_tokens + new_tokens) * (_ROLLOUT_BYTES + shared)

    def _logits(self, tokens: int) -> int:
        return _LOGITS_BYTES * min(_CHUNK, tokens) * self.shape.vocabulary

    def _weights(self) -> int:
        each = {"nf4": _NF4_BYTES, "int8": 1.0, "none": float(self.number)}[self.quantisation]
        return int(each * self.shape.linear_parameters) + self.number * self.shape.other_parameters

    def _tightest(self, stage: Stage, moments: Mapping[str, Mapping[str, int]]) -> StagePlan:
        unpacked = self.number * self.shape.hidden * self.shape.intermediate if self.quantisation != "none" else 0
        plans = []
        for moment, terms in moments.items():
            bare = Parts(weights=self._weights(), unpacked=unpacked, **terms)
            overhead = _PROCESS[self.device] + int(_SLACK * bare.total)
            plans.append(StagePlan(stage, moment, Parts(bare.weights, unpacked, **terms, overhead=overhead)))
        return max(plans, key=lambda one: one.peak)


# -- judging --------------------------------------------------------------------------------------

# What to lower, the least harmful first: micro-batches and sampling batches change speed, not the result.
_LOWERABLE: dict[Stage, tuple[str, ...]] = {
    "generate": ("generate.batch_size", "model.quantisation", "generate.max_new_tokens", "model.max_prompt_tokens"),
    "reward": (
        "reward.micro_batch_tokens",
        "model.quantisation",
        "adapters.layers",
        "model.max_prompt_tokens",
        "generate.max_new_tokens",
        "adapters.rank",
    ),
    "ppo": (
        "ppo.micro_batch_tokens",
        "model.quantisation",
        "ppo.rollout_size",
        "adapters.layers",
        "model.max_prompt_tokens",
        "ppo.max_new_tokens",
        "adapters.rank",
    ),
    "compare": (
        "ppo.micro_batch_tokens",
        "model.quantisation",
        "ppo.rollout_size",
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
    "adapters.layers": 1,
    "adapters.rank": 4,
}
# A halving must gain this share of what is missing, or the next setting is tried.
_WORTH = 0.05


def verdict(plan: MemoryPlan, card_bytes: int) -> list[Verdict]:
    """For each stage: does it fit in `card_bytes`, by how much, and which settings make it fit.

    Settings are halved one after another, the least harmful first, and only those that gain something.
    """
    return [_judge(plan, stage, card_bytes) for stage in plan.stages]


def _judge(plan: MemoryPlan, stage: StagePlan, card_bytes: int) -> Verdict:
    spare = card_bytes - stage.peak
    if spare >= 0:
        text = f"{stage.stage} fits: {stage.peak / GIB:.1f} GiB of {card_bytes / GIB:.1f} GiB."
        return Verdict(stage.stage, True, stage.peak, spare, (), text)
    changes = _remedy(plan, stage.stage, card_bytes)
    lower = tuple(f"{key}={value}" for key, value in changes.items())
    cure = f"Set {' and '.join(lower)}." if lower else "No setting makes it fit: choose a smaller model."
    text = f"{stage.stage} needs {stage.peak / GIB:.1f} GiB, {-spare / GIB:.1f} GiB too much. {cure}"
    return Verdict(stage.stage, False, stage.peak, spare, lower, text)


def _remedy(plan: MemoryPlan, stage: Stage, room: int) -> dict[str, Any]:
    """Settings, halved one after another until the stage fits; empty when that does not help."""
    changes: dict[str, Any] = {}
    while (missing := _peak(plan, stage, changes) - room) > 0:
        for key in _LOWERABLE[stage]:
            value = _lowered(plan, key, changes)
            if value is not None and room + missing - _peak(plan, stage, changes | {key: value}) >= _WORTH * missing:
                changes[key] = value
                break
        else:
            return {}
    for key in list(changes):  # what came later may have made it needless
        without = {other: value for other, value in changes.items() if other != key}
        if _peak(plan, stage, without) <= room:
            changes = without
    return changes


def _lowered(plan: MemoryPlan, key: str, changes: Mapping[str, Any]) -> Any:
    """The next smaller value of a setting, or None at the end."""
    if key == "model.quantisation":
        return None if changes.get(key, plan.quantisation) == "nf4" else "nf4"
    current = changes.get(key, settings_module.value(plan.settings, key))
    if key == "adapters.layers":
        current = plan.shape.adapted(current)
    half = max(current // 2, _LEAST[key])
    return half if half < current else None


def _peak(before: MemoryPlan, stage: Stage, changes: Mapping[str, Any]) -> int:
    settings = before.settings
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(settings, section).model_copy(update={name: value})
        settings = settings.model_copy(update={section: changed})
    quantisation = changes.get("model.quantisation", before.quantisation)
    count = _Count(before.shape, settings, quantisation, before.device)
    planned: StagePlan = getattr(count, stage)()
    return planned.peak
