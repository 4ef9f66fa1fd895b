"""The reward model: a score for a completion, learnt from judged pairs (Bradley–Terry)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import EventSink, Metric, Progress, Stage
from rlhf_tui.settings import RewardSettings
from rlhf_tui.training import guards, objectives
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import Features, base_features, score_tokens
from rlhf_tui.training.groups import Chunk, Group, Pair, candidates_of, dealt, fits, grouped, parts_of
from rlhf_tui.training.memory import measure
from rlhf_tui.training.optimisation import adam, cosine, set_rate
from rlhf_tui.training.probe import head_start
from rlhf_tui.training.scaling import TOLD_AFTER, Scaling, Step, skipped_alert
from rlhf_tui.training.shared import SharedLayers

_HELDOUT = -1  # in the place of an optimiser batch's number


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
    epochs: int
    """how many were run"""
    kept_epoch: int
    """the one whose weights stand; 0: the head fitted to the base's features, the adapter untouched"""
    stopped_early: bool
    steps: int
    back_offs: int
    checkpointing: bool

    @property
    def mean(self) -> float:
        """Mean score of the training candidates."""
        return float(torch.cat([self.train.chosen, self.train.rejected]).mean())

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores of the training candidates."""
        return max(float(torch.cat([self.train.chosen, self.train.rejected]).std(unbiased=False)), 1e-6)


@dataclass(frozen=True)
class _Best:
    """The weights that did best on the held-out pairs so far."""

    epoch: int
    loss: float
    weights: Mapping[str, Tensor]


class RewardTrainer:
    """One reward model in training: its batches, its optimiser, where it stands, and the best it has been.

    Everything random is drawn from generators seeded with the seed and the epoch, so that `done`, the weights, the
    optimiser and the best weights are all the state there is.
    """

    def __init__(
        self,
        roles: Roles,
        train: Sequence[Pair],
        heldout: Sequence[Pair],
        settings: RewardSettings,
        *,
        seed: int,
        emit: EventSink,
        shared: SharedLayers | None = None,
        features: Features | None = None,
    ) -> None:
        self.roles = roles
        self.done = 0
        self._settings, self._seed, self._emit, self._features = settings, seed, emit, features
        self._shared = shared or SharedLayers(roles)
        self._train, self._heldout = list(train), list(heldout)
        usable = [index for index, pair in enumerate(train) if settings.ties == "half" or not pair.tie]
        if not usable:
            raise UserError(
                "There is no pair to learn from.",
                why="All judgements are ties, and reward.ties is 'drop'.",
                todo="Judge more pairs, or set reward.ties to 'half'.",
            )
        self._usable = usable
        self._batches = dealt(grouped(train, usable), settings.batch_pairs, seed)
        self._checked = grouped(heldout, range(len(heldout)))
        self.sizes = MicroBatching(roles.base, settings.micro_batch_tokens, settings.checkpointing)
        self.optimisers: dict[Role, torch.optim.AdamW] = {
            "reward": adam(
                roles,
                "reward",
                adapter_rate=settings.learning_rate,
                head_rate=settings.head_learning_rate,
                weight_decay=settings.weight_decay,
            )
        }
        self.scaling = Scaling(roles.base)
        self._best: _Best | None = None
        self._stale = 0
        self._stopped = False
        self._measured: PairScores | None = None  # the held-out pairs, by the weights as they are
        self._chunks: dict[int, list[Chunk]] = {}
        self._cut_for = self.sizes.most_tokens

    # -- what a checkpoint holds --------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that decides the next step beside weights and optimisers, as JSON."""
        best = {"epoch": self._best.epoch, "loss": self._best.loss} if self._best else None
        return {
            "best": best,
            "stale": self._stale,
            "stopped": self._stopped,
            "most_tokens": self.sizes.most_tokens,
            "recompute": self.sizes.recompute,
            "back_offs": self.sizes.back_offs,
            "scaling": self.scaling.state(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The best weights so far."""
        return {name: tensor.contiguous() for name, tensor in (self._best.weights if self._best else {}).items()}

    def resume(self, done: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Be where another trainer was when it gave `state` and `tensors`; weights and optimisers are the caller's."""
        self.done = done
        best = state["best"]
        self._best = _Best(best["epoch"], best["loss"], dict(tensors)) if best else None
        self._stale, self._stopped = state["stale"], state["stopped"]
        self.sizes.most_tokens, self.sizes.recompute = state["most_tokens"], state["recompute"]
        self.sizes.back_offs = state["back_offs"]
        self.scaling.resume(state.get("scaling", {}))

    # -- training -----------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        return self._settings.epochs * len(self._batches)

    def run(self, *, save: Callable[[RewardTrainer], None], boundary: Callable[[Callable[[], None]], None]) -> Trained:
        """Train to the end, from wherever it stands. Emits a Metric for each step and each epoch.

        `save` is called after every reward.save_every steps and every epoch; `boundary` between steps, with what
        saves: it may raise to stop. Raises UserError when a number is not finite or the adapter does not move.
        """
        known = candidates_of([*self._train, *self._heldout])
        self._shared.keep(known, self._settings.micro_batch_tokens)
        if self.done == 0:
            self._start()
        self._emit(Progress(self.done, self.steps, "steps"))
        while self.done < self.steps and not self._stopped:
            epoch, place = divmod(self.done, len(self._batches))
            if place == 0:
                self._emit(Stage("training", f"epoch {epoch + 1} of {self._settings.epochs}"))
            order = random.Random(self._seed * 1_000_003 + epoch).sample(range(len(self._batches)), len(self._batches))
            self._step(order[place])
            if place + 1 == len(self._batches):
                self._end_epoch(epoch + 1)
            if place + 1 == len(self._batches) or self.done % self._settings.save_every == 0:
                save(self)
            boundary(lambda: save(self))
        return self._finish()

    def _start(self) -> None:
        """Give the head the ridge Bradley–Terry weights on the base's features, which average to a score of 0."""
        if self._settings.head_start == "zero":
            return
        self._emit(Stage("fitting the head on the base's features"))
        pairs = [self._train[index] for index in self._usable]
        if self._features is None:
            sequences = candidates_of(pairs)
            reading = self.roles.reading
            with self.roles.reference():
                self._features = base_features(self.roles.base, sequences, [reading], self.sizes)[reading]
        guards.require_finite_features(self._features.values, self.roles.base.dtype)
        weight, bias = head_start(self._features, pairs, self._settings.label_smoothing)
        head = self.roles.head("reward")
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        if self._settings.patience:  # nobody asks how good the head alone is when the last epoch is kept anyway
            self._end_epoch(0)

    def _step(self, number: int) -> None:
        settings, optimiser = self._settings, self.optimisers["reward"]
        rate = set_rate(optimiser, cosine(self.done, self.steps, round(settings.warmup * self.steps)))
        first = not optimiser.state
        must_move = self.roles.reaches("reward") and not self._has_learnt()
        before = self.roles.adapter_fingerprint("reward") if must_move else ""
        with self.roles.learning("reward"):
            values = self.sizes.survive(lambda: self._gradients(number), lambda: self._sizes(self._batches[number]))
            step = self.scaling.step(optimiser, self.roles.parameters("reward"), settings.max_grad_norm)
        if step.hopeless:
            candidates = [one for group in self._batches[number] for one in group.candidates]
            guards.explain_reward_breakdown(self.roles, candidates)
        if must_move and step.taken:
            guards.require_moved(before, self.roles.adapter_fingerprint("reward"), "reward")
        self.done, self._measured = self.done + 1, None
        self._emit(Metric(self.done, values | {"lr": rate} | self._of_step(step)))
        self._emit(Progress(self.done, self.steps, "steps"))
        if first and step.taken:
            self._emit(measure("reward update", self.roles.base.device))

    def _of_step(self, step: Step) -> dict[str, float]:
        """What to show of it; tells when too many were skipped."""
        values = {"grad_norm": step.norm} if step.taken else {}
        if not self.scaling.on:
            return values
        if self.scaling.skipped == TOLD_AFTER:
            self._emit(skipped_alert("reward model", self.scaling))
        return values | {"loss_scale": self.scaling.scale, "skipped_steps": float(not step.taken)}

    def _gradients(self, number: int) -> dict[str, float]:
        """The gradients of one optimiser batch, and what to show of it. Micro-batches add up to the same sums."""
        settings = self._settings
        self.optimisers["reward"].zero_grad(set_to_none=True)
        chunks = self._cut(number, self._batches[number])
        whole = sum(float(chunk.weights.sum()) for chunk in chunks)
        loss_sum, right, gap_sum, count = 0.0, 0.0, 0.0, 0
        for chunk in chunks:

            def loss_of(scores: Tensor, chunk: Chunk = chunk) -> Tensor:
                losses = objectives.bradley_terry(
                    scores[chunk.better],
                    scores[chunk.worse],
                    ties=chunk.ties,
                    margins=settings.margin * chunk.extra,
                    label_smoothing=chunk.smoothing,
                    centre=settings.centre,
                )
                return (chunk.weights * losses).sum() / whole

            with self.sizes.forward():
                scores = chunk.learn(loss_of, self.scaling.scaled)
            loss_sum += float(loss_of(scores))
            gaps = scores[chunk.better] - scores[chunk.worse]
            right += float(_right(gaps, chunk.ties).sum())
            gap_sum += float(gaps.sum())
            count += len(chunk.members)
        return {"loss": loss_sum, "accuracy": right / count, "margin": gap_sum / count}

    def _end_epoch(self, epoch: int) -> None:
        """Measure the held-out pairs, remember the best weights, and stop when they stay behind."""
        if not self._heldout:
            return
        self._measured = self._heldout_scores()
        values = _heldout_metrics(self._measured, self._heldout)
        loss = values["heldout_loss"]
        if not math.isfinite(loss):
            guards.explain_reward_breakdown(self.roles, candidates_of(self._heldout))
        self._emit(Metric(self.done, values))
        if self._settings.patience == 0:
            return
        if self._best is None or loss < self._best.loss:
            self._best, self._stale = _Best(epoch, loss, self._weights()), 0
        else:
            self._stale += 1
            self._stopped = self._stale >= self._settings.patience

    def _finish(self) -> Trained:
        """The weights that stay, and what they say of all pairs."""
        epochs = self.done // len(self._batches)
        kept = epochs
        if self._best is not None and self._best.epoch != epochs:
            kept, self._measured = self._best.epoch, None
            self._take(self._best.weights)
        return Trained(
            train=self._train_scores(),
            heldout=self._measured or self._heldout_scores(),
            epochs=epochs,
            kept_epoch=kept,
            stopped_early=self._stopped and self.done < self.steps,
            steps=self.done,
            back_offs=self.sizes.back_offs,
            checkpointing=self.sizes.recompute,
        )

    # -- parts --------------------------------------------------------------------------------

    def _has_learnt(self) -> bool:
        """Whether a gradient has come as far as the adapter yet; Adam remembers it."""
        moments = self.optimisers["reward"].state
        return any(bool(moments[one]["exp_avg"].any()) for one in self.roles.adapter("reward") if one in moments)

    def _weights(self) -> dict[str, Tensor]:
        """A copy of adapter and head, on the CPU."""
        own = self.roles.parameters("reward")
        return {f"{place:05d}": parameter.detach().cpu().clone() for place, parameter in enumerate(own)}

    @torch.no_grad()
    def _take(self, weights: Mapping[str, Tensor]) -> None:
        for place, parameter in enumerate(self.roles.parameters("reward")):
            parameter.copy_(weights[f"{place:05d}"])

    def _train_scores(self) -> PairScores:
        """Scores of all training pairs, those of dropped ties too."""
        found: dict[Tokens, Tensor] = {}
        for number, batch in enumerate(self._batches):
            found |= self._scores(number, batch)
        rest = [one for one in candidates_of(self._train) if one not in found]
        found |= dict(zip(rest, score_tokens(self.roles, rest, self.sizes), strict=True))
        return _of_pairs(found, self._train)

    def _heldout_scores(self) -> PairScores:
        return _of_pairs(self._scores(_HELDOUT, self._checked), self._heldout)

    def _scores(self, number: int, groups: Sequence[Group]) -> dict[Tokens, Tensor]:
        """Score of each candidate of these groups, on the CPU."""

        def run() -> dict[Tokens, Tensor]:
            found: dict[Tokens, Tensor] = {}
            for chunk in self._cut(number, groups):
                found |= zip(chunk.sequences, chunk.scores().cpu(), strict=True)
            return found

        if not groups:
            return {}
        with torch.no_grad(), self.roles.acting("reward"):
            return self.sizes.survive(run, lambda: self._sizes(groups))

    def _cut(self, number: int, groups: Sequence[Group]) -> list[Chunk]:
        """The forward passes of an optimiser batch (or of the held-out pairs), cut once for each size."""
        if self._cut_for != self.sizes.most_tokens:
            self._chunks.clear()
            self._cut_for = self.sizes.most_tokens
        if number not in self._chunks:
            parts = fits(groups, self.sizes.most_tokens)
            pairs = self._heldout if number == _HELDOUT else self._train
            smoothing, most = self._settings.label_smoothing, self.sizes.most_tokens
            self._chunks[number] = [
                Chunk(self.roles, self._shared, pairs, part, smoothing=smoothing, most_tokens=most) for part in parts
            ]
        return self._chunks[number]

    def _sizes(self, groups: Sequence[Group]) -> tuple[int, int]:
        """Tokens of the largest forward pass of these groups, and of the longest candidate."""
        chunks = fits(groups, self.sizes.most_tokens)
        parts = [part for chunk in chunks for part in parts_of(chunk, self.sizes.most_tokens)]
        return max(len(part) * max(map(len, part)) for part in parts), max(group.longest for group in groups)


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
    """Train the 'reward' role on `train` in one go; `heldout` decides when to stop and is never learnt from."""
    trainer = RewardTrainer(roles, train, heldout, settings, seed=seed, emit=emit)
    return trainer.run(save=lambda trainer: None, boundary=lambda save: boundary())


def _of_pairs(scores: Mapping[Tokens, Tensor], pairs: Sequence[Pair]) -> PairScores:
    if not pairs:
        return PairScores(torch.zeros(0), torch.zeros(0))
    return PairScores(*(torch.stack([scores[getattr(p, side)] for p in pairs]) for side in ("chosen", "rejected")))


def _right(gaps: Tensor, ties: Tensor) -> Tensor:
    """1 where the order is right, ½ where the scores are equal; a judged tie has no right order: ½."""
    return torch.where(ties > 0, 0.5, (gaps > 0).float() + 0.5 * (gaps == 0).float())


def _heldout_metrics(scores: PairScores, pairs: Sequence[Pair]) -> dict[str, float]:
    ties = torch.tensor([float(pair.tie) for pair in pairs])
    decided = ties == 0
    losses = objectives.bradley_terry(
        scores.chosen, scores.rejected, ties=ties, margins=torch.zeros(len(pairs)), label_smoothing=0.0, centre=0.0
    )
    values = {"heldout_loss": float(losses.mean())}
    if decided.any():
        values["heldout_accuracy"] = float(_right(scores.gaps, ties)[decided].mean())
    return values
