"""The models that a reward run trains, one after the other: the one that is used, others of an ensemble, one a fold.

Each is finished before the next begins and leaves its scores behind, so that a run that was cut off goes on with the
one it was at, from that one's last checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
from safetensors.torch import load_file, save_file

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Checkpoint, Event, EventSink, Metric, Stage
from rlhf_tui.runs.folder import write_whole
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.reward_samples import reward_scores
from rlhf_tui.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.reward import PairScores, RewardTrainer, Trained
from rlhf_tui.training.shared import SharedLayers

_SCORES = "scores.safetensors"
_DONE = "fit.json"
_PARTS = ("train", "heldout", "unseen")


@dataclass(frozen=True)
class Work:
    """One model to train. `unseen` pairs are neither learnt from nor used to choose the epoch: only scored."""

    name: str
    title: str
    seed: int | None
    """None: the adapter starts as it was made; a number: it starts again with that seed"""
    train: Sequence[Pair]
    heldout: Sequence[Pair]
    unseen: Sequence[Pair] = ()


@dataclass(frozen=True)
class Fit:
    """A trained model: how training went, what it says of the pairs nobody showed it, and where its weights lie."""

    trained: Trained
    unseen: PairScores
    adapter: Path


def carry_out(context: StageContext, roles: Roles, work: Work, shared: SharedLayers, features: Features) -> Fit:
    """Train this model, take its training up where it was left, or read what it came to."""
    folder = context.run.path / "fits" / work.name
    if (folder / _DONE).exists():
        return _read(folder)
    emit = _emitting(context.emit, work)
    if work.seed is not None:
        roles.renew("reward", work.seed)
    trainer = RewardTrainer(
        roles,
        work.train,
        work.heldout,
        context.settings.reward,
        seed=context.settings.run.seed if work.seed is None else work.seed,
        emit=emit,
        shared=shared,
        features=features,
    )
    checkpoints = context.run.checkpoints / work.name
    newest = newest_checkpoint(checkpoints, trainer.optimisers, context.emit)
    if newest is not None:
        load_checkpoint(trainer, newest)
        emit(Stage("resumed", newest.name))

    def save(training: RewardTrainer) -> None:
        saved = save_checkpoint(training, checkpoints, context.settings.run)
        context.emit(Checkpoint(training.done, str(saved.relative_to(context.run.path))))

    trained = trainer.run(save=save, boundary=context.control.boundary)
    fit = Fit(trained, _score(context, roles, work.unseen), folder / "adapter")
    _write(fit, folder, roles)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return fit


def _emitting(emit: EventSink, work: Work) -> EventSink:
    """The curves on screen are those of the model that is used; of the others only how far they are."""
    if work.seed is None:
        return emit

    def quietly(event: Event) -> None:
        if isinstance(event, Stage):
            emit(Stage(work.title, event.detail or event.name))
        elif not isinstance(event, Metric):
            emit(event)

    return quietly


def _score(context: StageContext, roles: Roles, pairs: Sequence[Pair]) -> PairScores:
    chosen, rejected = (
        reward_scores(context, roles, [getattr(pair, side) for pair in pairs]) for side in ("chosen", "rejected")
    )
    return PairScores(chosen, rejected)


def _write(fit: Fit, folder: Path, roles: Roles) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trained = fit.trained
    parts = zip(_PARTS, (trained.train, trained.heldout, fit.unseen), strict=True)
    tensors = {f"{name}_{side}": getattr(scores, side) for name, scores in parts for side in ("chosen", "rejected")}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _SCORES)
    roles.save("reward", fit.adapter, {"steps": trained.steps})
    facts = {one.name: getattr(trained, one.name) for one in fields(trained) if one.name not in _PARTS}
    write_whole(folder / _DONE, msgspec.json.encode(facts))


def _read(folder: Path) -> Fit:
    try:
        tensors = load_file(folder / _SCORES)
        train, heldout, unseen = (PairScores(tensors[f"{name}_chosen"], tensors[f"{name}_rejected"]) for name in _PARTS)
        facts = msgspec.json.decode((folder / _DONE).read_bytes())
        return Fit(Trained(train=train, heldout=heldout, **facts), unseen, folder / "adapter")
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder} is damaged.", why=str(error), todo="Remove that folder: the run then trains this model again."
        ) from None
