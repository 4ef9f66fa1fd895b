"""The models that a reward run trains, one after the other: the one that is used, others of an ensemble, one a fold.

Each is finished before the next begins and leaves its weights and scores behind, whole or not at all, so that a run
that was cut off goes on with the one it was at, from that one's last checkpoint. One that was damaged since is trained
again, and comes out the same.

    fits/member-1/
        fit.json              what training came to, with the hash of every file and of itself
        scores.safetensors    of the pairs it learnt from, of the held-out ones, and of those of its fold
        adapter/
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from rlhf_tui.errors import UserError
from rlhf_tui.model.manifest import file_sha256
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Alert, Checkpoint, Event, EventSink, Metric, Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.reward_samples import reward_scores
from rlhf_tui.swap import heal, replacing
from rlhf_tui.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint, signed
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.reward import PairScores, RewardTrainer, Trained
from rlhf_tui.training.shared import SharedLayers

_SCORES = "scores.safetensors"
_DONE = "fit.json"
_ADAPTER = "adapter"
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
    done = _finished(context, folder)
    if done is not None:
        return done
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
    fit = Fit(trained, _score(context, roles, work.unseen), folder / _ADAPTER)
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
    trained = fit.trained
    parts = zip(_PARTS, (trained.train, trained.heldout, fit.unseen), strict=True)
    tensors = {f"{name}_{side}": getattr(scores, side) for name, scores in parts for side in ("chosen", "rejected")}
    facts = {one.name: getattr(trained, one.name) for one in fields(trained) if one.name not in _PARTS}
    with replacing(folder) as beside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside / _SCORES)
        roles.save("reward", beside / _ADAPTER, {"steps": trained.steps})
        paths = sorted(path for path in beside.rglob("*") if path.is_file())
        files = {str(path.relative_to(beside)): file_sha256(path) for path in paths}
        record = signed({"v": 2, "facts": facts, "files": files})
        (beside / _DONE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _finished(context: StageContext, folder: Path) -> Fit | None:
    """The model that an earlier execution finished; None when there is none, or it is damaged, which is said."""
    heal(folder)
    if not folder.exists():
        return None
    try:
        return _read(folder)
    except UserError as error:
        remedy = "This model is trained again, from its last checkpoint where there is one."
        context.emit(Alert("warning", "fit-damaged", error.what, why=error.why, remedy=remedy))
        return None


def _read(folder: Path) -> Fit:
    """Raises UserError when anything is not as it was written."""
    try:
        record: dict[str, Any] = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        changed = [name for name, digest in record["files"].items() if file_sha256(folder / name) != digest]
        changed += [_DONE] if signed(record)["sha256"] != record["sha256"] else []
        if changed:
            raise ValueError(f"Not as it was written: {', '.join(changed)}.")
        tensors = load_file(folder / _SCORES)
        train, heldout, unseen = (PairScores(tensors[f"{name}_chosen"], tensors[f"{name}_rejected"]) for name in _PARTS)
        return Fit(Trained(train=train, heldout=heldout, **record["facts"]), unseen, folder / _ADAPTER)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{folder} is damaged.", why=str(error)) from None
