"""A rollout: completions sampled by the policy, and everything the update needs to know of them.

The micro-batches are cut once, here, and used unchanged by the update: the old log-probabilities
come from the same forward pass, in the same shape, as the new ones, so that the first ratio is 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.logprobs import token_logprobs, unembedding_of
from rlhf_tui.model.roles import Roles
from rlhf_tui.model.unpacked import Weights
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import objectives
from rlhf_tui.training.batching import Batch, Tokens, micro_batches, pad, pooled


@dataclass(frozen=True)
class Scoring:
    """The unit of the reward model: mean and deviation of its scores on reference completions."""

    mean: float
    deviation: float


#: Raw scores of completions from elsewhere than the reward role (a rule, a game): bigger is better.
Judge = Callable[[Sequence[Tokens]], Sequence[float]]


@dataclass
class Experience:
    """One micro-batch of a rollout. Tensors on the model's device; R is its longest response."""

    members: list[int]
    """Which completions of the rollout these rows are."""
    batch: Batch
    lower: Tensor
    """Result of the layers that policy and reference share."""
    seen: Tensor
    """Result of the layers that the roles with a head share"""
    positions: Tensor
    """(rows, R) where each response token is predicted from"""
    mask: Tensor
    """(rows, R) bool: tokens that were sampled, the end-of-turn token included"""
    targets: Tensor
    """(rows, R) the sampled ids"""
    tokens: int
    """how many tokens were sampled: those that count in `mask`"""
    ended: Tensor
    """(rows,) bool: the policy ended by itself"""
    logprobs: Tensor = field(default_factory=torch.Tensor)
    """(rows, R) of the policy that sampled"""
    entropies: Tensor = field(default_factory=torch.Tensor)
    reference: Tensor = field(default_factory=torch.Tensor)
    """(rows, R) log-probabilities with all adapters off"""
    values: Tensor = field(default_factory=torch.Tensor)
    raw_scores: Tensor = field(default_factory=torch.Tensor)
    """(rows,) as the reward model gives them"""
    scores: Tensor = field(default_factory=torch.Tensor)
    """(rows,) normalised, clipped, with the penalty for a missing end"""
    saturated: Tensor = field(default_factory=torch.Tensor)
    """(rows,) bool: the normalised score lies at or beyond the limit to which it is clipped"""
    advantages: Tensor = field(default_factory=torch.Tensor)
    returns: Tensor = field(default_factory=torch.Tensor)


@dataclass(frozen=True)
class Rollout:
    """One round of sampling, dealt into minibatches, each cut into micro-batches."""

    sequences: list[Tokens]
    minibatches: list[list[Experience]]

    @property
    def experiences(self) -> list[Experience]:
        """All micro-batches."""
        return [one for minibatch in self.minibatches for one in minibatch]

    def tokens(self, pick: Callable[[Experience], Tensor]) -> Tensor:
        """A per-token quantity of every sampled token, micro-batch after micro-batch. → (tokens,)"""
        return torch.cat([pick(one)[one.mask] for one in self.experiences])

    def rows(self, pick: Callable[[Experience], Tensor]) -> Tensor:
        """A per-completion quantity in the order of `sequences`. → (completions,) on the CPU"""
        out = torch.zeros(len(self.sequences))
        for experience in self.experiences:
            out[experience.members] = pick(experience).float().cpu()
        return out


def sample_rollout(
    roles: Roles,
    prompts: Sequence[Sequence[int]],
    settings: PpoSettings,
    *,
    seed: int,
    rows: int = 0,
    progress: Callable[[int], None] = lambda finished: None,
    weights: Weights = "quantised",
) -> tuple[list[Tokens], list[bool]]:
    """One completion of the policy for each prompt, and whether it ended by itself. Pure sampling.

    At most `rows` (0: ppo.sampling_rows) are sampled at the same time; `progress` hears how many are finished.
    """
    with roles.acting("policy"):
        completions = sample(
            roles.base.model,
            prompts,
            Sampling(settings.max_new_tokens, settings.temperature),
            end_ids=roles.base.chat.end_ids,
            rows=rows or settings.sampling_rows,
            seed=seed,
            progress=progress,
            weights=weights,
        )
    sequences = [Tokens(tuple(p), c.ids) for p, c in zip(prompts, completions, strict=True)]
    return sequences, [completion.ended for completion in completions]


@torch.no_grad()
def evaluate_rollout(
    roles: Roles,
    sequences: Sequence[Tokens],
    ended: Sequence[bool],
    settings: PpoSettings,
    scoring: Scoring,
    *,
    kl_coefficient: float,
    minibatches: Sequence[Sequence[int]] = (),
    judge: Judge | None = None,
    most_tokens: int = 0,
) -> Rollout:
    """Log-probabilities, values, scores, rewards and whitened advantages of sampled completions.

    `judge` gives the raw scores; without one the reward role does. `minibatches` says which completions make up each
    minibatch (empty: all of them in one). They are dealt before anything is cut into micro-batches of `most_tokens`
    (0: ppo.micro_batch_tokens), so that the size of these never decides who learns together.
    """
    hands, most = minibatches or [range(len(sequences))], most_tokens or settings.micro_batch_tokens
    dealt = [bare_experiences(roles, sequences, ended, most, hand) for hand in hands]
    experiences = [one for hand in dealt for one in hand]
    with roles.acting("policy"):
        for one in experiences:
            one.logprobs, one.entropies = response_logprobs(roles, one, settings.temperature)
    with roles.reference():
        for one in experiences:
            one.reference, _ = response_logprobs(roles, one, settings.temperature)
    with roles.acting("value"):
        for one in experiences:
            one.values = response_values(roles, one)
    _score(roles, sequences, experiences, judge)
    for one in experiences:
        one.saturated = normalised(one.raw_scores, scoring).abs() >= settings.score_clip
        one.scores = shaped_scores(one.raw_scores, one.ended, settings, scoring)
    _reward(experiences, settings, kl_coefficient)
    return Rollout(list(sequences), dealt)


def _reward(experiences: Sequence[Experience], settings: PpoSettings, kl_coefficient: float) -> None:
    """Token rewards, then advantages and returns; both whitenings are over the whole rollout, never a micro-batch."""
    rewards = []
    for one in experiences:
        kl = objectives.kl_k1(one.logprobs, one.reference)
        rewards.append(objectives.token_rewards(kl, one.scores, one.mask, kl_coefficient=kl_coefficient))
    if settings.reward_scaling == "rollout":
        rewards = _together(experiences, rewards, objectives.scale_to_unit_deviation)
    for one, own in zip(experiences, rewards, strict=True):
        one.advantages, one.returns = objectives.advantages_and_returns(
            own, one.values, one.mask, gamma=settings.gamma, gae_lambda=settings.gae_lambda
        )
    white = _together(experiences, [one.advantages for one in experiences], objectives.whiten)
    for one, own in zip(experiences, white, strict=True):
        one.advantages = own


def _score(roles: Roles, sequences: Sequence[Tokens], experiences: Sequence[Experience], judge: Judge | None) -> None:
    if judge is not None:
        given = torch.tensor(list(judge(sequences)), dtype=torch.float32, device=roles.base.device)
        for one in experiences:
            one.raw_scores = given[one.members]
        return
    with roles.acting("reward"):
        for one in experiences:
            one.raw_scores = roles.head("reward")(pooled(roles, one.seen, one.batch))


def bare_experiences(
    roles: Roles,
    sequences: Sequence[Tokens],
    ended: Sequence[bool],
    most_tokens: int,
    rows: Sequence[int] | None = None,
) -> list[Experience]:
    """Completions (those of `rows`, or all) cut into micro-batches and run through the shared layers.

    Those layers are the base's own, whichever role was active before: a role that is read lower has its adapter there.
    """
    chosen = range(len(sequences)) if rows is None else rows
    groups = micro_batches([len(sequences[row]) for row in chosen], most_tokens)
    with roles.reference():
        return [_bare(roles, sequences, ended, [chosen[index] for index in group]) for group in groups]


def response_logprobs(roles: Roles, experience: Experience, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of the sampled tokens under the active role, (rows, R); 0 where masked."""
    hidden = roles.decoder.upper(experience.lower)
    rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
    chosen = hidden[rows, experience.positions][experience.mask]
    logprobs, entropies = token_logprobs(
        chosen, experience.targets[experience.mask], unembedding_of(roles.base.model), temperature=temperature
    )
    shape = experience.mask.shape
    blank = torch.zeros(shape, dtype=torch.float32, device=hidden.device)
    return blank.masked_scatter(experience.mask, logprobs), blank.masked_scatter(experience.mask, entropies)


def response_values(roles: Roles, experience: Experience) -> Tensor:
    """Value of the state before each sampled token under the active value role, (rows, R); 0 where masked.

    It is read as the score of the response so far would be; before its first token, from the prompt's last one.
    """
    hidden = roles.read(experience.seen)
    rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
    states = hidden[rows, experience.positions]
    if roles.reading.pooling == "mean":
        states = means_so_far(states)
    return torch.where(experience.mask, roles.head("value")(states), 0.0)


def means_so_far(states: Tensor) -> Tensor:
    """States (rows, R, hidden) at the prompt's last token and the response's tokens → what is pooled there, in fp32.

    The first stays; each other one becomes the mean of the response's states up to it.
    """
    wide = states.float()
    count = torch.arange(1, wide.shape[1], device=wide.device)[:, None]
    return torch.cat([wide[:, :1], wide[:, 1:].cumsum(dim=1) / count], dim=1)


def normalised(raw: Tensor, scoring: Scoring) -> Tensor:
    """Raw scores in deviations of the scores of reference completions. (rows,) → (rows,)"""
    return (raw - scoring.mean) / scoring.deviation


def shaped_scores(raw: Tensor, ended: Tensor, settings: PpoSettings, scoring: Scoring) -> Tensor:
    """(raw - mean) / deviation, clipped, less the penalty where the completion never ended. (rows,) → (rows,)"""
    normal = normalised(raw, scoring).clamp(-settings.score_clip, settings.score_clip)
    return normal - settings.missing_eos_penalty * (~ended).float()


def deal(rows: int, hands: int, order: random.Random) -> list[list[int]]:
    """Shuffle row numbers into `hands` minibatches whose sizes differ by one at most; never an empty one."""
    shuffled = order.sample(range(rows), rows)
    parts = min(hands, rows)
    return [shuffled[start::parts] for start in range(parts)]


def _bare(roles: Roles, sequences: Sequence[Tokens], ended: Sequence[bool], members: list[int]) -> Experience:
    device = roles.base.device
    batch = pad([sequences[i] for i in members], device)
    positions, mask = batch.before_response(max(len(sequences[i].response) for i in members))
    targets = torch.where(mask, batch.ids.gather(1, (positions + 1).clamp(max=batch.ids.shape[1] - 1)), 0)
    lower, seen = roles.lower(batch.ids)
    return Experience(
        members=members,
        batch=batch,
        lower=lower,
        seen=seen,
        positions=positions,
        mask=mask,
        targets=targets,
        tokens=sum(len(sequences[i].response) for i in members),
        ended=torch.tensor([ended[i] for i in members], device=device),
    )


def _together(
    experiences: Sequence[Experience], quantities: Sequence[Tensor], change: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """`change(values, mask)` of a per-token quantity of all micro-batches at once; 0 where masked."""
    flat = torch.cat([own[one.mask] for one, own in zip(experiences, quantities, strict=True)])
    parts = torch.split(change(flat, torch.ones_like(flat)), [one.tokens for one in experiences])
    return [
        torch.zeros_like(own).masked_scatter(one.mask, part)
        for one, own, part in zip(experiences, quantities, parts, strict=True)
    ]
