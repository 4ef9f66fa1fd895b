"""The reward model: a score for a completion, learnt from judged pairs (Bradley–Terry, last-token pooling)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import EventSink, Metric, Progress, Stage
from rlhf_tui.settings import RewardSettings
from rlhf_tui.training import objectives
from rlhf_tui.training.batching import Batch, Tokens, last_hidden, micro_batches, pad
from rlhf_tui.training.memory import measure
from rlhf_tui.training.optimisation import adam, cosine, set_rate
from rlhf_tui.training.probe import ridge_bradley_terry, standardised

_KEPT_BYTES = 512 * 2**20  # shared layers' results kept between epochs, on the CPU


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, the better one first (a tie has no order)."""

    chosen: Tokens
    rejected: Tokens
    tie: bool
    strength: int
    """1 better, 2 much better"""
    weight: float


@dataclass(frozen=True)
class PairScores:
    """What the reward model says of a set of pairs. Tensors: (pairs,), fp32, on the CPU."""

    chosen: Tensor
    rejected: Tensor

    @property
    def gaps(self) -> Tensor:
        return self.chosen - self.rejected


@dataclass(frozen=True)
class Trained:
    """What training the reward model came to."""

    train: PairScores
    heldout: PairScores
    mean: float
    """Mean score of the training candidates: what PPO subtracts."""
    deviation: float
    """Their standard deviation: what PPO divides by."""


class _Chunk:
    """Some pairs in one forward pass: rows 0..n-1 chosen, n..2n-1 rejected, padded together."""

    def __init__(self, roles: Roles, pairs: Sequence[Pair], members: Sequence[int]) -> None:
        device = roles.base.device
        self.members = list(members)
        chosen = [pairs[i].chosen for i in members]
        self.batch: Batch = pad(chosen + [pairs[i].rejected for i in members], device)
        self.ties = torch.tensor([float(pairs[i].tie) for i in members], device=device)
        self.extra = torch.tensor([float(max(0, pairs[i].strength - 1)) for i in members], device=device)
        self.weights = torch.tensor([pairs[i].weight for i in members], device=device)
        self._roles = roles
        self._lower: Tensor | None = None

    def features(self) -> tuple[Tensor, Tensor]:
        """Last hidden states under the active role: chosen (pairs, width), rejected (pairs, width)."""
        lower = self._lower if self._lower is not None else self._roles.decoder.lower(self.batch.ids)
        hidden = last_hidden(self._roles.decoder, lower, self.batch)
        return hidden[: len(self.members)], hidden[len(self.members) :]

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the active reward role: chosen (pairs,), rejected (pairs,)."""
        chosen, rejected = self.features()
        head = self._roles.head("reward")
        return head(chosen), head(rejected)

    def keep_lower(self) -> None:
        """Keep the shared layers' result, so that later epochs start from it."""
        self._lower = self._roles.decoder.lower(self.batch.ids)


def train_reward(
    roles: Roles,
    train: Sequence[Pair],
    heldout: Sequence[Pair],
    settings: RewardSettings,
    *,
    seed: int,
    emit: EventSink,
    boundary: Callable[[], None],
) -> Trained:
    """Train the 'reward' role on `train`; `heldout` is only measured.

    Emits a Metric for each optimiser step and for each epoch; `boundary` is called between steps and
    may raise to stop. Raises UserError when a loss is not finite or the adapter did not move.
    """
    emit(Stage("running the shared layers"))
    batches = _batches(roles, train, settings, seed)
    if not batches:
        raise UserError(
            "There is no pair to learn from.",
            why="All judgements are ties, and reward.ties is 'drop'.",
            todo="Judge more pairs, or set reward.ties to 'half'.",
        )
    heldout_chunks = _chunks(roles, heldout, range(len(heldout)), settings.micro_batch_tokens)
    _keep_what_fits(roles, [chunk for batch in batches for chunk in batch] + heldout_chunks)
    if settings.probe_ridge > 0:
        emit(Stage("fitting the head on the base's features"))
        _start_head(roles, [chunk for batch in batches for chunk in batch], settings)
        emit(Metric(0, _heldout_metrics(_score(roles, heldout_chunks, len(heldout)), heldout)))
    optimiser = adam(
        roles,
        "reward",
        adapter_rate=settings.learning_rate,
        head_rate=settings.head_learning_rate,
        weight_decay=settings.weight_decay,
    )
    before = roles.fingerprint("reward")
    steps = settings.epochs * len(batches)
    heldout_scores = PairScores(torch.zeros(0), torch.zeros(0))
    order = random.Random(seed)
    step = 0
    emit(Progress(0, steps, "steps"))
    for epoch in range(settings.epochs):
        emit(Stage("training", f"epoch {epoch + 1} of {settings.epochs}"))
        for batch in order.sample(batches, len(batches)):
            rate = set_rate(optimiser, cosine(step, steps, round(settings.warmup * steps)))
            values = _step(roles, batch, optimiser, settings)
            step += 1
            emit(Metric(step, values | {"lr": rate}))
            emit(Progress(step, steps, "steps"))
            if step == 1:
                emit(measure("reward update", roles.base.device))
            boundary()
        heldout_scores = _score(roles, heldout_chunks, len(heldout))
        emit(Metric(step, _heldout_metrics(heldout_scores, heldout)))
    if roles.fingerprint("reward") == before:
        raise UserError(
            "The reward adapter did not move.",
            why="Its weights are the same after training as before.",
            todo="Raise reward.learning_rate or reward.epochs.",
        )
    used = [chunk for batch in batches for chunk in batch]
    members = {index for chunk in used for index in chunk.members}
    left_out = [index for index in range(len(train)) if index not in members]
    scored = _score(roles, used + _chunks(roles, train, left_out, settings.micro_batch_tokens), len(train))
    everything = torch.cat([scored.chosen, scored.rejected])
    return Trained(
        train=scored,
        heldout=heldout_scores,
        mean=float(everything.mean()),
        deviation=max(float(everything.std(unbiased=False)), 1e-6),
    )


def score_tokens(roles: Roles, sequences: Sequence[Tokens], *, micro_batch_tokens: int) -> Tensor:
    """Raw scores of completions by the 'reward' role. → (sequences,) fp32 on the CPU, no gradient."""
    scores = torch.zeros(len(sequences))
    with torch.no_grad(), roles.acting("reward"):
        for members in micro_batches([len(one) for one in sequences], micro_batch_tokens):
            batch = pad([sequences[i] for i in members], roles.base.device)
            hidden = last_hidden(roles.decoder, roles.decoder.lower(batch.ids), batch)
            scores[members] = roles.head("reward")(hidden).cpu()
    return scores


def _step(
    roles: Roles, batch: Sequence[_Chunk], optimiser: torch.optim.Optimizer, settings: RewardSettings
) -> dict[str, float]:
    whole = sum(float(chunk.weights.sum()) for chunk in batch)
    loss_sum, right, gap_sum, count = 0.0, 0.0, 0.0, 0
    with roles.learning("reward"):
        for chunk in batch:
            chosen, rejected = chunk.scores()
            losses = objectives.bradley_terry(
                chosen,
                rejected,
                ties=chunk.ties,
                margins=settings.margin * chunk.extra,
                label_smoothing=settings.label_smoothing,
                centre=settings.centre,
            )
            loss = (chunk.weights * losses).sum() / whole
            torch.autograd.backward(loss)
            loss_sum += float(loss.detach())
            gaps = (chosen - rejected).detach()
            right += float(_right(gaps, chunk.ties).sum())
            gap_sum += float(gaps.sum())
            count += len(chunk.members)
        norm = torch.nn.utils.clip_grad_norm_(roles.parameters("reward"), settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise UserError(
                "Training the reward model broke down: the gradient is not a finite number.",
                why="The learning rate is probably too high.",
                todo="Lower reward.learning_rate and reward.head_learning_rate.",
            )
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return {"loss": loss_sum, "accuracy": right / count, "margin": gap_sum / count, "grad_norm": float(norm)}


def _right(gaps: Tensor, ties: Tensor) -> Tensor:
    """1 where the order is right, ½ where the scores are equal; a judged tie has no right order: ½."""
    return torch.where(ties > 0, 0.5, (gaps > 0).float() + 0.5 * (gaps == 0).float())


def _start_head(roles: Roles, chunks: Sequence[_Chunk], settings: RewardSettings) -> None:
    """Give the head the ridge Bradley–Terry weights on the base's features, which average to a score of 0."""
    with torch.no_grad(), roles.acting("reward"):
        pairs = [tuple(side.float().cpu() for side in chunk.features()) for chunk in chunks]
    chosen, rejected = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
    scaled, deviation = standardised(torch.cat([chosen, rejected]))
    ties = torch.cat([chunk.ties for chunk in chunks]).cpu()
    targets = torch.where(ties > 0, 0.5, 1 - settings.label_smoothing)
    weights = torch.cat([chunk.weights for chunk in chunks]).cpu()
    gaps = scaled[: len(chosen)] - scaled[len(chosen) :]
    found = ridge_bradley_terry(gaps, targets, weights, ridge=settings.probe_ridge) / deviation
    head = roles.head("reward")
    with torch.no_grad():
        head.weight.copy_(found)
        head.bias.copy_(-(torch.cat([chosen, rejected]).double() @ found).mean())


def _score(roles: Roles, chunks: Sequence[_Chunk], count: int) -> PairScores:
    chosen, rejected = torch.zeros(count), torch.zeros(count)
    with torch.no_grad(), roles.acting("reward"):
        for chunk in chunks:
            first, second = chunk.scores()
            chosen[chunk.members], rejected[chunk.members] = first.cpu(), second.cpu()
    return PairScores(chosen, rejected)


def _heldout_metrics(scores: PairScores, pairs: Sequence[Pair]) -> dict[str, float]:
    if not pairs:
        return {}
    ties = torch.tensor([float(pair.tie) for pair in pairs])
    decided = ties == 0
    losses = objectives.bradley_terry(
        scores.chosen, scores.rejected, ties=ties, margins=torch.zeros(len(pairs)), label_smoothing=0.0, centre=0.0
    )
    values = {"heldout_loss": float(losses.mean())}
    if decided.any():
        values["heldout_accuracy"] = float(_right(scores.gaps, ties)[decided].mean())
    return values


def _batches(roles: Roles, pairs: Sequence[Pair], settings: RewardSettings, seed: int) -> list[list[_Chunk]]:
    """Optimiser batches, drawn once; each cut into forward passes of similar length."""
    kept = [i for i, pair in enumerate(pairs) if settings.ties == "half" or not pair.tie]
    shuffled = random.Random(seed).sample(kept, len(kept))
    cuts = range(0, len(shuffled), settings.batch_pairs)
    return [
        _chunks(roles, pairs, shuffled[start : start + settings.batch_pairs], settings.micro_batch_tokens)
        for start in cuts
    ]


def _chunks(roles: Roles, pairs: Sequence[Pair], members: Sequence[int], most_tokens: int) -> list[_Chunk]:
    lengths = [2 * max(len(pairs[i].chosen), len(pairs[i].rejected)) for i in members]
    return [_Chunk(roles, pairs, [members[i] for i in group]) for group in micro_batches(lengths, most_tokens)]


def _keep_what_fits(roles: Roles, chunks: Sequence[_Chunk]) -> None:
    """On the CPU, run the shared layers once for all epochs, as far as that takes little memory."""
    width = roles.base.model.config.get_text_config().hidden_size
    room = _KEPT_BYTES if roles.base.device.type == "cpu" and roles.shares_layers else 0
    for chunk in chunks:
        room -= chunk.batch.ids.numel() * width * 4
        if room < 0:
            return
        chunk.keep_lower()
