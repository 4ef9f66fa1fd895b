"""The settings of the two trainings, reward and PPO, and of what watches over them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rlhf_tui.settings.section import Section


def _not_one(folds: int) -> int:
    if folds == 1:
        raise ValueError("one fold would leave nothing to train on; choose 0 or at least 2")
    return folds


def _zero_or_above_one(limit: float) -> float:
    if 0 < limit <= 1:
        raise ValueError("it must be above 1 (3 is usual), or 0 for no limit")
    return limit


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
        "best epoch's weights are kept; epoch 0 is the head alone (reward.head_start). 0 runs all epochs and keeps "
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
    head_start: Literal["ridge", "zero"] = Field(
        "ridge",
        description="ridge: before training, the head is fitted to the base's own features (ridge Bradley–Terry, a few "
        "seconds; how much it is shrunk is chosen by cross-validation). zero: it starts from zero.",
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
    layer: int = Field(
        0,
        ge=0,
        le=10_000,
        description="After how many layers of the model the score is read; a number beyond its layers means its end. "
        "Taste for words shows early, taste for meaning in the middle. 0 chooses by cross-validation on your labels. "
        "The adapters of reward and value lie right below (adapters.layers of them): the value is read at the same "
        "place, so that it can start as a copy of the reward model.",
    )
    pooling: Literal["auto", "last", "mean"] = Field(
        "auto",
        description="Where a completion's score is read: at its last token, or from the mean over its tokens. auto "
        "chooses by cross-validation on your labels.",
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
        2,
        ge=1,
        le=10,
        description="How many reward models are trained. The first is the one that is used; each other one has another "
        "seed and does without one fold of the prompts. How far they differ says how sure it is. The second also "
        "watches PPO and never teaches it: a policy that gains by the first and loses by the second has found a fault "
        "of the first (guard.heldout_fall). It costs its own training, and in PPO one more adapter and a look at each "
        "evaluation. 1 turns the second opinion off.",
    )
    folds: Annotated[int, AfterValidator(_not_one)] = Field(
        0,
        ge=0,
        le=20,
        description="Full cross-validation: train this many more models, each without one part of the prompts, and "
        "score that part. 0 is the quick form: five folds on the base's frozen features, in seconds. Where the score "
        "is read (reward.layer) has been chosen on all labels by then; the quick form chooses it without each fold.",
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
    sampling_weights: Literal["auto", "quantised", "copy"] = Field(
        "auto",
        description="With a 4-bit base: what is multiplied with while sampling. quantised: the 4-bit weights as they "
        "lie. copy: an unpacked copy, gone again before the update; four times as large as the weights (on the CPU "
        "eight times). auto: both are timed once in a run of PPO, if a copy fits into what the update needs anyway, "
        "and the faster stays; a comparison takes the 4-bit weights then. The same model but for rounding.",
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
        description="Where the value begins: as a copy of the reward model (its first guesses are then the scores of "
        "the text so far), or as the base with a head of zeros.",
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
        "says so. Serious are: too far from the reference, repetition, a held-out score or that of the second reward "
        "model falling while the score in training rises, numbers that are not finite; and what guard.act_on says.",
    )
    act_on: Literal["serious", "warnings"] = Field(
        "serious",
        description="What guard.action is taken on. serious: the alerts that are named there. warnings: low entropy, "
        "completions that no longer end, drift of their length, scores at their limit and any fall of a held-out "
        "score, too; these change with many a behaviour that is wanted, and are warnings otherwise.",
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
