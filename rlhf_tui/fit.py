"""Will it fit? An analytic memory plan for every stage, from the model's config.json and the settings alone.

No torch and no weights are needed: the answer comes at once, before anything is downloaded. `shape_of` (shape.py)
reads what matters of a model, `plan` counts bytes, `verdict` (fit_verdict.py) compares with a card and says what to
lower. `tests/bench/fit_measured.py` sets the plan beside what is really taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from rlhf_tui.settings import ModelSettings, Settings
from rlhf_tui.shape import ModelShape

Quantisation = Literal["nf4", "int8", "none"]
Device = Literal["cpu", "cuda"]
Stage = Literal["generate", "reward", "ppo", "compare"]
Checkpointing = Literal["auto", "on", "off"]
Terms = Mapping[str, int]

GIB = 2**30

# Positions whose logits exist at one time; the same as CHUNK of model/logprobs.py, which imports torch.
_CHUNK = 256
# NF4: half a byte, one absmax byte for each 64 weights, one fp32 for each 256 of those (QLoRA, arXiv 2305.14314).
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
#: The CUDA context with its libraries, which torch's allocator does not see.
CONTEXT_BYTES = int(0.7 * GIB)
# On the CPU: the interpreter with torch and transformers, measured.
PROCESS_BYTES = {"cuda": CONTEXT_BYTES, "cpu": int(0.5 * GIB)}
# What an allocator rounds up and cannot reuse.
_SLACK = 0.06
# Logits in fp32, live at once in token_logprobs: this chunk's, and as probabilities.
_LOGITS_BYTES = 8
# Tokens of prompts that are read in one forward pass; the same as PREFILL_TOKENS of model/stepping.py.
_PREFILL = 1024
# ids, positions, targets (8 each), mask, and the log-probabilities, values, advantages … of a rollout, per token.
_ROLLOUT_BYTES = 56
# Weights are laid out in blocks up to this; the same as COPY_LIMIT of model/linear.py.
_BLOCKS_LIMIT = 2**30
# … and only for so many steps of decoding or more; the same as WORTH of model/linear.py.
_BLOCKS_WORTH = 32
# The phases in which completions are sampled.
_SAMPLING = ("evaluation", "sampling")
# On the CPU, reward training keeps the shared layers' results up to this (_KEPT_BYTES of training/shared.py).
_KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Parts:
    """What memory goes to, in bytes."""

    weights: int = 0
    """the base model"""
    unpacked: int = 0
    """one quantised matrix, unpacked for the multiplication"""
    blocks: int = 0
    """a second copy of the weights while sampling on the CPU, laid out for a few rows"""
    copy: int = 0
    """4-bit weights, unpacked for the length of a sampling"""
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
class Moment:
    """What is in memory at one moment of a stage."""

    name: str
    """'reading prompts', 'sampling', 'scoring', 'log-probabilities' or 'backward'"""
    phase: str
    """the phase it belongs to: 'sampling', 'scoring', 'update' as a run's `memory` events call them, or 'evaluation'"""
    parts: Parts


@dataclass(frozen=True)
class StagePlan:
    """One stage, moment by moment; at its tightest one where no other is named."""

    stage: Stage
    moments: tuple[Moment, ...]

    @property
    def tightest(self) -> Moment:
        return max(self.moments, key=lambda one: one.parts.total)

    @property
    def moment(self) -> str:
        return self.tightest.name

    @property
    def parts(self) -> Parts:
        return self.tightest.parts

    @property
    def peak(self) -> int:
        """Bytes."""
        return self.parts.total

    @property
    def phases(self) -> dict[str, Parts]:
        """Each phase at its tightest moment, in the order in which they come."""
        found: dict[str, Parts] = {}
        for one in self.moments:
            if one.phase not in found or one.parts.total > found[one.phase].total:
                found[one.phase] = one.parts
        return found


@dataclass(frozen=True)
class MemoryPlan:
    """The stages, and what they were planned for."""

    shape: ModelShape
    settings: Settings
    quantisation: Quantisation
    device: Device
    candidates: int | None
    """how many judged completions the reward model learns from; None: not known"""
    stages: tuple[StagePlan, ...]

    @property
    def generate(self) -> StagePlan:
        return self.stages[0]

    @property
    def reward(self) -> StagePlan:
        return self.stages[1]

    @property
    def ppo(self) -> StagePlan:
        return self.stages[2]

    @property
    def compare(self) -> StagePlan:
        return self.stages[3]


# -- counting bytes -------------------------------------------------------------------------------


def resolve(settings: ModelSettings, *, card: bool) -> tuple[Quantisation, Device]:
    """What 'auto' means on a machine with or without a card; the same rules as model/base.py."""
    device: Device = "cuda" if settings.device == "cuda" or (settings.device == "auto" and card) else "cpu"
    if settings.quantisation != "auto":
        return settings.quantisation, device
    return ("nf4" if device == "cuda" else "none"), device


def plan(
    shape: ModelShape,
    settings: Settings,
    *,
    quantisation: Quantisation,
    device: Device,
    candidates: int | None = None,
) -> MemoryPlan:
    """The most memory that each stage takes, in bytes, moment by moment and part by part.

    `candidates` says how many judged completions there are to learn a reward model from; None: not known.

    d is the hidden size, d_q, d_kv and d_ff those of queries, keys and the feed-forward part, L layers, V the
    vocabulary, r the rank, b the bytes of a number (4 on the CPU, 2 on a card). Where no paper is named, the
    terms count what this program's own code keeps:

    - weights: 0.5159 (nf4, double quantisation) or 1 (int8) byte for each weight of a linear layer, b otherwise;
      embeddings, norms and biases always b (QLoRA; bitsandbytes leaves the unembedding alone).
    - adapters: fp32, 4 bytes for each number; Adam 8 more for a role that learns; gradients 4 more for the one role
      that learns at the moment (they are dropped after each step). PPO: policy and value learn, reward is frozen,
      and so is the second reward model (reward.ensemble above 1). Without a card, the copy that takes an update back
      is in the same memory: 12 for each number of the two that learn.
    - cache: 2 · L · d_kv · b for each place of each row in flight.
    - sampling: prompts are read up to 1024 tokens (or one prompt) at a time; then each row has its logits, its
      probabilities and their sums in fp64, b + 12 bytes for each word (with top-p, sorted, b + 28).
      Without a card the plain linear layers are laid out once more for that time, up to 1 GiB and for at least 32 steps
      (model/linear.py).
      Of a 4-bit base there may be an unpacked copy, b for each weight of a linear layer: as ppo.sampling_weights says,
      for 'auto' if it fits below the update's peak (model/unpacked.py).
    - one layer at work: b · (3d + 4·d_ff) for each token, or b · (2d + 5·d_q + 4·d_kv) in attention.
    - learning: for each token and *adapted* layer b · (4d + 2·d_q + 2·d_kv + 2·d_ff + 7·r): both norms' inputs and
      results, queries, keys, values and the result of attention, the two halves of the feed-forward block, and the
      low-rank results (model/lean.py, model/lora.py). Layers without adapters keep nothing. On top comes the layer
      in the backward pass, b · (3d + 6·d_ff); it and the logits do not exist at the same time. int8 goes through
      bitsandbytes and PEFT, which keep b · (14d + 5·d_q + 7·d_ff) + 28·r. With gradient checkpointing a layer keeps
      its input alone, b · d, and one at a time all the rest.
    - logits: 8 · min(256, tokens) · V, as the functions in model/logprobs.py hold them.
    - unpacked: b · d · d_ff for a quantised base. overhead: 0.7 GiB (CUDA) or 0.5 GiB (CPU), and 6 % of the rest.

    A forward pass has at most `micro_batch_tokens` tokens, or one sequence when that is longer.
    Prompts and completions are taken at their longest, and reward and value as if they read at the model's end as long
    as `reward.layer` is 0: where a lower one is chosen they take less. The logits are those of a pass that is all
    completion: with long prompts and short completions there are fewer. Not known here, and left out: imported labels
    longer than `generate.max_new_tokens`, and the shared layers' results of a comparison on all held-out prompts.
    """
    count = _Count(shape, settings, quantisation, device, candidates)
    stages = (count.generate(), count.reward(), count.ppo(), count.compare())
    return MemoryPlan(shape, settings, quantisation, device, candidates, stages)


def copy_room(ppo: StagePlan) -> int:
    """Bytes that a copy of the weights may take while sampling, so that the stage's peak is no higher for it."""
    grown = 1 + _SLACK
    sampling = max(one.parts.total - grown * one.parts.copy for one in ppo.moments if one.phase in _SAMPLING)
    others = max(one.parts.total for one in ppo.moments if one.phase not in _SAMPLING)
    return max(0, int((others - sampling) / grown))


class _Count:
    """The terms of the plan, for one model and one set of settings."""

    def __init__(
        self,
        shape: ModelShape,
        settings: Settings,
        quantisation: Quantisation,
        device: Device,
        candidates: int | None,
    ) -> None:
        self.shape, self.settings, self.quantisation, self.device = shape, settings, quantisation, device
        self.candidates = candidates
        self.number = 4 if device == "cpu" else 2
        self.adapted = shape.adapted(settings.adapters.layers)
        self.adapter = shape.adapter_parameters(settings.adapters.rank, settings.adapters.layers)
        # reward and value; where they are read is not known as long as it is to be chosen: then at the model's end
        self.read = min(settings.reward.layer or shape.layers, shape.layers)
        self.heads_adapted = min(self.adapted, self.read)
        self.heads_adapter = shape.adapter_parameters(settings.adapters.rank, self.heads_adapted)

    # -- stages

    def generate(self) -> StagePlan:
        wanted = self.settings.generate
        moments = self._sampling(
            "sampling", wanted.batch_size, wanted.batch_size, wanted.max_new_tokens, {}, wanted.top_p
        )
        return StagePlan("generate", moments)

    def reward(self) -> StagePlan:
        longest = self.settings.model.max_prompt_tokens + self.settings.generate.max_new_tokens
        tokens = max(self.settings.reward.micro_batch_tokens, longest)
        learning = {
            "adapters": 16 * (self.heads_adapter + self.shape.hidden + 1),
            "rollout": tokens * _ROLLOUT_BYTES + self._kept(longest),
        }
        backward = self._backward(tokens, self.heads_adapted, self.settings.reward.checkpointing, learning)
        return StagePlan("reward", (backward,))

    def ppo(self) -> StagePlan:
        wanted = self.settings.ppo
        longest = self.settings.model.max_prompt_tokens + wanted.max_new_tokens
        tokens = max(wanted.micro_batch_tokens, longest)
        held = wanted.rollout_size * self._held(wanted.max_new_tokens)
        head = self.shape.hidden + 1
        frozen = 2 if self.settings.reward.ensemble > 1 else 1  # the reward model, and the one that only watches
        # policy and value with their Adam states; all but the policy have heads
        resting = 12 * self.adapter + ((1 + frozen) * 4 + 8) * (self.heads_adapter + head)
        undo = 12 * (self.adapter + self.heads_adapter + head) if self.device == "cpu" else 0
        learning = {"adapters": resting + undo + 4 * (self.adapter + head), "rollout": held}
        loaded = {"adapters": resting}
        rest = (
            self._scoring(tokens, loaded | {"rollout": held}),
            self._log_probabilities(tokens, wanted.checkpointing, learning),
            self._backward(tokens, self.adapted, wanted.checkpointing, learning),
        )

        def sampled(copy: int) -> tuple[Moment, ...]:
            terms, rows, new_tokens = loaded | {"copy": copy}, wanted.sampling_rows, wanted.max_new_tokens
            looks = [("evaluation", wanted.evaluate_prompts)] if wanted.evaluate_every else []
            phases = [*looks, ("sampling", wanted.rollout_size)]
            return tuple(one for name, count in phases for one in self._sampling(name, count, rows, new_tokens, terms))

        room = copy_room(StagePlan("ppo", (*sampled(0), *rest)))
        return StagePlan("ppo", (*sampled(self._copy(room)), *rest))

    def compare(self) -> StagePlan:
        wanted = self.settings.ppo
        tokens = max(wanted.micro_batch_tokens, self.settings.model.max_prompt_tokens + wanted.max_new_tokens)
        loaded = {
            "adapters": 4 * (self.adapter + self.heads_adapter + self.shape.hidden + 1),
            "copy": self._copy(0),
        }
        rows = self.settings.compare.prompts * self.settings.compare.samples_per_prompt
        held = {"rollout": rows * self._held(wanted.max_new_tokens)}
        moments = self._sampling(
            "sampling", rows or wanted.sampling_rows, wanted.sampling_rows, wanted.max_new_tokens, loaded
        )
        return StagePlan("compare", (*moments, self._scoring(tokens, loaded | held | {"copy": 0})))

    # -- moments of a stage

    def _sampling(
        self, phase: str, count: int, most_rows: int, new_tokens: int, held: Terms, top_p: float = 1.0
    ) -> tuple[Moment, ...]:
        """First the prompts are read, then every row in flight gets a token at a time."""
        rows = min(count, most_rows)
        shape, prompt, number = self.shape, self.settings.model.max_prompt_tokens, self.number
        cache = 2 * shape.layers * shape.kv_width * number * rows * (prompt + new_tokens - 1)
        reading = self._at_work(min(rows * prompt, max(_PREFILL, prompt)))
        logits = rows * shape.vocabulary * (number + (12 if top_p == 1.0 else 28))
        terms = {"cache": cache, "blocks": self._blocks(new_tokens * count // rows), **held}
        return (
            self._moment("reading prompts", phase, {"activations": reading, **terms}),
            self._moment("sampling", phase, {"logits": logits, **terms}),
        )

    def _scoring(self, tokens: int, held: Terms) -> Moment:
        """Log-probabilities without a gradient: one layer lives at a time."""
        activations = max(self._at_work(tokens), self._last_hidden(tokens))
        return self._moment("scoring", "scoring", {"activations": activations, "logits": self._logits(tokens), **held})

    def _log_probabilities(self, tokens: int, checkpointing: Checkpointing, held: Terms) -> Moment:
        """All adapted layers are kept, and the loss is being computed."""
        kept = self.adapted * tokens * (self._input() if checkpointing == "on" else self._kept_of_layer())
        terms = {"activations": kept + self._last_hidden(tokens), "logits": self._logits(tokens), **held}
        return self._moment("log-probabilities", "update", terms)

    def _backward(self, tokens: int, adapted: int, checkpointing: Checkpointing, held: Terms) -> Moment:
        """All adapted layers are kept, and the gradients of the last one come on top."""
        kept = adapted * self._kept_of_layer()
        if checkpointing == "on":
            kept = adapted * self._input() + self._kept_of_layer()
        activations = tokens * (kept + self._backwards()) + self._last_hidden(tokens)
        return self._moment("backward", "update", {"activations": activations, **held})

    # -- terms

    def _blocks(self, steps: int) -> int:
        """On the CPU the plain linear layers, the unembedding too, are laid out once more while sampling, if small."""
        if steps < _BLOCKS_WORTH:
            return 0
        linear = self.shape.linear_parameters if self.quantisation == "none" else 0
        copied = self.number * (linear + self.shape.vocabulary * self.shape.hidden)
        return copied if self.device == "cpu" and copied <= _BLOCKS_LIMIT else 0

    def _copy(self, room: int) -> int:
        """The 4-bit weights unpacked, when that is asked for, or left to choice and there is room."""
        wish = self.settings.ppo.sampling_weights
        size = self.number * self.shape.linear_parameters if self.quantisation == "nf4" else 0
        return size if wish == "copy" or (wish == "auto" and size <= room) else 0

    def _at_work(self, tokens: int) -> int:
        """One layer without a gradient: the feed-forward block, or attention where that is larger."""
        shape = self.shape
        block = 3 * shape.hidden + 4 * shape.intermediate
        attention = 2 * shape.hidden + 5 * shape.query_width + 4 * shape.kv_width
        return self.number * tokens * max(block, attention)

    def _kept_of_layer(self) -> int:
        """Bytes that one layer keeps for each token."""
        shape, rank = self.shape, self.settings.adapters.rank
        if self.quantisation == "int8":
            return self.number * (14 * shape.hidden + 5 * shape.query_width + 7 * shape.intermediate) + 28 * rank
        attention = 4 * shape.hidden + 2 * shape.query_width + 2 * shape.kv_width
        return self.number * (attention + 2 * shape.intermediate + 7 * rank)

    def _backwards(self) -> int:
        """Bytes for each token that a layer takes in the backward pass beside what it kept."""
        return self.number * (3 * self.shape.hidden + 6 * self.shape.intermediate)

    def _input(self) -> int:
        """Bytes that one layer keeps for each token when it is run again for the backward pass."""
        return self.number * self.shape.hidden

    def _last_hidden(self, tokens: int) -> int:
        """The last hidden state, the positions picked from it, and the gradients of both."""
        return 4 * self.number * tokens * self.shape.hidden

    def _held(self, new_tokens: int) -> int:
        """Bytes that one sampled completion keeps, with what the shared layers made of it, until it is done with."""
        # the policy's, and the heads' own; where they read is not known as long as it is to be chosen
        places = (self.adapted < self.shape.layers) + (self.heads_adapted < self.read and not self._reads_at_the_end())
        shared = places * self.number * self.shape.hidden
        return (self.settings.model.max_prompt_tokens + new_tokens) * (_ROLLOUT_BYTES + shared)

    def _reads_at_the_end(self) -> bool:
        return self.settings.reward.layer >= self.shape.layers

    def _kept(self, longest: int) -> int:
        """What the shared layers make of the judged candidates, kept on the CPU for all epochs."""
        if self.device != "cpu" or self.heads_adapted == self.read:
            return 0
        if self.candidates is None:
            return _KEPT_BYTES
        return min(_KEPT_BYTES, self.candidates * longest * self.number * self.shape.hidden)

    def _logits(self, tokens: int) -> int:
        return _LOGITS_BYTES * min(_CHUNK, tokens) * self.shape.vocabulary

    def _weights(self) -> int:
        each = {"nf4": _NF4_BYTES, "int8": 1.0, "none": float(self.number)}[self.quantisation]
        return int(each * self.shape.linear_parameters) + self.number * self.shape.other_parameters

    def _moment(self, name: str, phase: str, terms: Mapping[str, int]) -> Moment:
        unpacked = self.number * self.shape.hidden * self.shape.intermediate if self.quantisation != "none" else 0
        bare = Parts(weights=self._weights(), unpacked=unpacked, **terms)
        overhead = PROCESS_BYTES[self.device] + int(_SLACK * bare.total)
        return Moment(name, phase, replace(bare, overhead=overhead))
