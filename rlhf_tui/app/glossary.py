"""What every number of a training means, for somebody who sees it for the first time. No Textual.

Three sentences for each: what it is, what is healthy, and what to do when it is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """The words for one metric. `label` heads its chart, `short` stands where there is little room."""

    label: str
    means: str
    healthy: str
    remedy: str
    short: str = ""


_SCORE = "A score has no unit of its own: 0 is about what the base earns, 1 is one deviation of its scores."
_STEER = "Raise ppo.kl_coefficient, or lower ppo.policy_learning_rate."
_NOTHING = "There is nothing to do about it by itself."

PPO: dict[str, Entry] = {
    "score": Entry(
        "score",
        f"How much the reward model likes the completions of this update, on average. {_SCORE}",
        "It rises over tens of updates, with noise, and slows down; more than about 3 is suspicious.",
        "When it does not move, look at clip fraction and KL: near 0 means too small a learning rate. When it shoots "
        "up, read the samples: the policy may please the reward model's mistakes.",
    ),
    "score_std": Entry(
        "spread of the scores",
        "How far the scores of one update lie apart: their standard deviation.",
        "About 1 at first; PPO learns from these differences, so some must remain.",
        "Near 0 all completions score alike and nothing can be learnt: raise ppo.temperature, or judge more pairs.",
        "spread",
    ),
    "score_raw": Entry(
        "raw score",
        "What the reward model's head says, before it is brought to a common scale, limited and reduced for a missing "
        "end.",
        "It moves like the score; its absolute height means nothing.",
        "When it rises and the score does not, the limit is reached: see 'scores at the limit'.",
        "raw",
    ),
    "saturation": Entry(
        "scores at the limit",
        "The share of scores that lie at the limit of ppo.score_clip, where better cannot be told from best.",
        "0 or close to it.",
        "Stop at the best policy so far; to go on, judge completions of this policy and train the reward model again.",
        "at limit",
    ),
    "kl": Entry(
        "KL to the reference",
        "How far the policy has gone from the model it started as, in nats for a whole completion.",
        "It grows and then settles: a few nats are a clear change of style, 15 is the usual budget.",
        f"When it grows without the score growing, or passes the budget: {_STEER.lower()} Slightly below 0 is chance, "
        "for it is an estimate. Below 0 for several updates, the completions are not drawn from the policy that is "
        "scored, as when a sampler cuts off rare tokens or has another temperature: that is no fault of the reward "
        "model. This program refuses such settings; report it, and try ppo.sampling_weights as 'quantised'.",
        "KL",
    ),
    "kl_k3": Entry(
        "KL, second estimate",
        "The same distance by a formula that cannot be negative (k3): a check on the first.",
        "Close to the KL to the reference while both are small.",
        "When the two part by much, single tokens have become very unlikely: read the samples.",
        "KL (k3)",
    ),
    "kl_coefficient": Entry(
        "KL coefficient",
        "How much score a nat of distance costs: the strength of the leash.",
        "Steady, or moving slowly when ppo.kl_target steers it.",
        "When it keeps climbing, the target cannot be held: lower ppo.policy_learning_rate or raise ppo.kl_target.",
        "leash",
    ),
    "objective": Entry(
        "objective",
        "Score minus the cost of the distance: what PPO really tries to raise.",
        "It rises along with the score.",
        "When the score rises and this does not, the gain is bought with distance: raise the coefficient or stop.",
    ),
    "tokens": Entry(
        "tokens",
        "How many tokens were sampled in this update.",
        "Rollout size times the average length.",
        f"It follows the length. {_NOTHING}",
    ),
    "length": Entry(
        "length",
        "Tokens in the average completion.",
        "It may drift, but slowly, and in the direction that you want.",
        "When it runs off, the reward model may take length (or brevity) for quality: read the samples, judge pairs "
        "of unlike length, and train the reward model again.",
    ),
    "length_max": Entry(
        "longest completion",
        "Tokens in the longest completion of the update.",
        "At ppo.max_new_tokens at times; not when every completion is cut there.",
        "When completions are cut in the middle, raise ppo.max_new_tokens.",
        "longest",
    ),
    "eos_rate": Entry(
        "ended by itself",
        "The share of completions that end with the model's end sign instead of being cut.",
        "Near 1, and not falling.",
        "When it falls, raise ppo.missing_eos_penalty, or ppo.max_new_tokens if longer answers are what you want.",
        "ended",
    ),
    "repetition": Entry(
        "repetition",
        "The share of the runs of four tokens in a completion that occurred in it before.",
        "Below about 0.1 for prose; lists and code have more.",
        "When it climbs, the policy repeats what the reward model likes: raise ppo.kl_coefficient, and judge such "
        "completions.",
        "repeats",
    ),
    "entropy": Entry(
        "entropy",
        "How much choice the policy has at each token, in nats: 0 means that it always writes the same.",
        "It falls slowly and stays well above 0.1.",
        "When it collapses, the policy writes one answer to everything: raise ppo.kl_coefficient, or use an earlier "
        "policy.",
    ),
    "explained_variance": Entry(
        "explained variance",
        "How well the value head foresees what a completion will earn: 1 is perfect, 0 is no better than the average.",
        "It climbs above 0.3 within some tens of updates.",
        "Below 0 it misleads: raise ppo.value_learning_rate or ppo.critic_warmup_updates, or start the value from the "
        "reward model.",
        "foreseen",
    ),
    "policy_loss": Entry(
        "policy loss",
        "What the optimiser lowers for the policy; its height says little, because the target moves.",
        "Small and around 0.",
        "When it swings widely, lower ppo.policy_learning_rate or raise ppo.rollout_size.",
        "p.loss",
    ),
    "value_loss": Entry(
        "value loss",
        "How far the value head's forecasts are off, squared.",
        "It falls at first, then stays level.",
        "When it rises for long, lower ppo.value_learning_rate.",
        "v.loss",
    ),
    "clip_fraction": Entry(
        "clip fraction",
        "The share of tokens whose change was cut off because it went too far in one update.",
        "Between 0.02 and 0.2.",
        "Above, lower ppo.policy_learning_rate or ppo.epochs; at 0 for long, raise the learning rate.",
        "clipped",
    ),
    "approx_kl": Entry(
        "KL within the update",
        "How far the policy moved in this update alone, in nats for each token.",
        "Of the order of 0.01; beyond 1.5 times ppo.target_kl the policy skips the rest of the update.",
        "When it is always at that bound, lower ppo.policy_learning_rate.",
        "moved",
    ),
    "ratio_mean": Entry(
        "mean ratio",
        "How much likelier the policy has made its own tokens within the update, on average.",
        "Very close to 1.",
        "When it leaves 0.9 to 1.1, the updates are too large: lower ppo.policy_learning_rate.",
        "ratio",
    ),
    "ratio_min": Entry(
        "smallest ratio",
        "The token that the update made least likely, as a share of what it was.",
        "Above about 0.3.",
        "Near 0 at every update, the steps are too large: lower ppo.policy_learning_rate.",
        "min ratio",
    ),
    "ratio_max": Entry(
        "largest ratio",
        "The token that the update made likelier by the most, in times.",
        "Below about 3; a rare spike is harmless because it is clipped.",
        "Above 10 at every update, the steps are too large: lower ppo.policy_learning_rate.",
        "max ratio",
    ),
    "first_deviation": Entry(
        "deviation of the first pass",
        "How exactly the first pass of learning reproduces the sampler's log-probabilities: it should see the same "
        "model.",
        "Nearly 0: rounding only.",
        "When it grows, something differs between sampling and learning; the run stops with an error when it matters. "
        "Please report it with the model's name.",
        "deviation",
    ),
    "policy_grad_norm": Entry(
        "gradient, policy",
        "How steep the policy's slope is before it is limited: the length of its gradient.",
        "Steady, of the order of ppo.max_grad_norm or below.",
        "When it spikes again and again, lower ppo.policy_learning_rate or raise ppo.rollout_size.",
        "grad p.",
    ),
    "value_grad_norm": Entry(
        "gradient, value",
        "How steep the value head's slope is before it is limited: the length of its gradient.",
        "Large at first, then falling.",
        "When it stays large, lower ppo.value_learning_rate.",
        "grad v.",
    ),
    "policy_lr": Entry(
        "learning rate, policy",
        "The size of the policy's steps in this update.",
        "0 while only the value learns, then it warms up, and falls in a straight line to 0 at the end.",
        f"It follows the plan: ppo.policy_learning_rate and ppo.warmup_updates. {_NOTHING}",
        "rate p.",
    ),
    "value_lr": Entry(
        "learning rate, value",
        "The size of the value head's steps in this update.",
        "It warms up, then falls in a straight line to 0 at the end.",
        f"It follows the plan: ppo.value_learning_rate and ppo.warmup_updates. {_NOTHING}",
        "rate v.",
    ),
    "policy_loss_scale": Entry(
        "loss scale, policy",
        "On a card without bf16: what the policy's loss is multiplied by, so that its gradients fit into fp16.",
        "It falls in the first steps until nothing overflows, and then stays or doubles now and then.",
        "When it keeps falling, lower ppo.policy_learning_rate; some models overflow in fp16 whatever is done.",
        "scale p.",
    ),
    "value_loss_scale": Entry(
        "loss scale, value",
        "On a card without bf16: what the value's loss is multiplied by, so that its gradients fit into fp16.",
        "It falls in the first steps until nothing overflows, and then stays or doubles now and then.",
        "When it keeps falling, lower ppo.value_learning_rate; some models overflow in fp16 whatever is done.",
        "scale v.",
    ),
    "skipped_steps": Entry(
        "skipped steps",
        "On a card without bf16: steps that were not taken because a gradient overflowed in fp16.",
        "Some at the very start, then 0, and one now and then.",
        "When they go on, see the loss scale.",
        "skipped",
    ),
    "tokens_per_second": Entry(
        "tokens a second",
        "How fast completions are sampled.",
        "Steady; it depends on the card, the model and how many are sampled together.",
        "When it drops, look whether another program uses the card; raise ppo.sampling_rows if memory allows.",
        "tok/s",
    ),
    "update_tokens_per_second": Entry(
        "tokens a second in updates",
        "How fast is learnt: the completions' tokens, once for each epoch, by the seconds of the optimiser steps.",
        "Steady; policy and value each go forward and backward, so it is less than what scoring reaches.",
        "When it drops, look whether another program uses the card, and whether memory ran out: smaller "
        "micro-batches and recomputing cost speed. Fewer adapters.layers make it faster.",
        "learnt/s",
    ),
    "seconds_sampling": Entry(
        "seconds of sampling",
        "How long the update took to sample its completions.",
        "Usually the largest part of an update.",
        "Fewer ppo.max_new_tokens, or more ppo.sampling_rows, make it shorter.",
        "sampling",
    ),
    "seconds_scoring": Entry(
        "seconds of scoring",
        "How long the update took to score them: reward model, reference and values.",
        "The smallest part of an update.",
        "It grows with rollout size and length.",
        "scoring",
    ),
    "seconds_update": Entry(
        "seconds of updating",
        "How long the optimiser steps of the update took.",
        "It grows with ppo.epochs and the number of tokens.",
        "Fewer ppo.epochs make it shorter.",
        "updating",
    ),
    "heldout_score": Entry(
        "held-out score",
        "The score on prompts that the policy is never trained on. It decides which policy is kept.",
        "It rises along with the score and stays near it.",
        "When it falls while the score rises, the policy has learnt the training prompts or the reward model's "
        "mistakes: keep the best policy so far.",
        "held-out",
    ),
    "heldout_kl": Entry(
        "held-out KL",
        "How far the policy is from the reference on held-out prompts, in nats for a whole completion.",
        "Below guard.kl_budget: beyond it no policy can become the best one.",
        _STEER,
        "held KL",
    ),
    "heldout_root_kl": Entry(
        "held-out root KL",
        "The square root of that distance: against it, true quality first rises and then falls.",
        "Somewhere between 1 and 4.",
        "See the held-out KL; the window with the held-out scores draws them against it.",
        "root KL",
    ),
    "heldout_length": Entry(
        "held-out length",
        "Tokens in the average completion for held-out prompts.",
        "Like the length in training.",
        "See the length.",
        "held len.",
    ),
    "heldout_eos_rate": Entry(
        "held-out, ended by itself",
        "The share of completions for held-out prompts that end by themselves.",
        "Near 1, and not falling.",
        "See 'ended by itself'.",
        "held end",
    ),
    "heldout_repetition": Entry(
        "held-out repetition",
        "The share of repeated runs of four tokens in completions for held-out prompts.",
        "Below about 0.1 for prose, and below guard.max_repetition.",
        "See the repetition.",
        "held rep.",
    ),
    "gold_score": Entry(
        "second reward model",
        "What a second reward model, which the policy is not trained on, says of held-out completions.",
        "It rises along with the held-out score.",
        "When it falls while the other rises, the first reward model is being exploited: keep the best policy so far, "
        "and judge completions of this one.",
        "second",
    ),
}

REWARD: dict[str, Entry] = {
    "loss": Entry(
        "train loss",
        "How surprised the reward model is by your judgements in training; a coin gets 0.693.",
        "It falls below 0.69 and goes on falling slowly.",
        "At 0.69 nothing is learnt: raise reward.learning_rate. Near 0 it knows the labels by heart: fewer epochs.",
        "loss",
    ),
    "accuracy": Entry(
        "train accuracy",
        "The share of the pairs of this step in which the model prefers what the rater preferred.",
        "Above 0.5 and rising; on pairs it has seen, so it flatters.",
        "What counts is the held-out accuracy.",
        "accuracy",
    ),
    "margin": Entry(
        "margin",
        "By how much the better completion of a pair outscores the worse one, on average.",
        "Above 0 and rising.",
        "When it explodes, the model is too sure of itself: raise reward.label_smoothing or train fewer epochs.",
    ),
    "grad_norm": Entry(
        "gradient norm",
        "How steep the slope is before it is limited: the length of the gradient.",
        "Falling, with noise.",
        "When it spikes again and again, lower reward.learning_rate.",
        "gradient",
    ),
    "lr": Entry(
        "learning rate",
        "The size of the steps.",
        "It warms up, then falls to 0 along a cosine.",
        f"It follows the plan: reward.learning_rate and reward.warmup. {_NOTHING}",
        "rate",
    ),
    "loss_scale": Entry(
        "loss scale",
        "On a card without bf16: what the loss is multiplied by, so that its gradients fit into fp16.",
        "It falls in the first steps until nothing overflows, and then stays or doubles now and then.",
        "When it keeps falling, lower reward.learning_rate; some models overflow in fp16 whatever is done.",
        "scale",
    ),
    "heldout_loss": Entry(
        "held-out loss",
        "How surprised the model is by judgements it was not trained on; a coin gets 0.693.",
        "It falls, then levels off.",
        "When it rises again, the model learns by heart: reward.patience stops it there, more labels help more.",
        "held loss",
    ),
    "heldout_accuracy": Entry(
        "held-out accuracy",
        "The share of judgements on new prompts that the model agrees with: the number that counts.",
        "Above 0.6; the report says how sure it is.",
        "Near 0.5 it is a coin: judge more pairs, with a narrower guideline.",
        "held-out",
    ),
}

ENTRIES: dict[str, Entry] = {**PPO, **REWARD}


def label(name: str) -> str:
    """What heads the chart of a metric; its own name when a later version emits one that is not known here."""
    return ENTRIES[name].label if name in ENTRIES else name.replace("_", " ")


def short(name: str) -> str:
    """The same in few characters."""
    return ENTRIES[name].short or ENTRIES[name].label if name in ENTRIES else name.replace("_", " ")


def explained(name: str) -> list[tuple[str, str]]:
    """(heading, sentence) about a metric; nothing when it is not known here."""
    entry = ENTRIES.get(name)
    if entry is None:
        return []
    return [("What it is", entry.means), ("Healthy", entry.healthy), ("If not", entry.remedy)]
