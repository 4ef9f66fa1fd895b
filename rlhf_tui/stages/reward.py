"""The reward stage: learn a score from the judged pairs, then say whether it is good enough."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rlhf_tui.assessment import counting
from rlhf_tui.assessment.crossvalidation import folded
from rlhf_tui.assessment.measures import accuracy
from rlhf_tui.assessment.records import Accuracy, Curve, Ensemble, Normalisation, Preview, Report, Scored, TrainingFacts
from rlhf_tui.assessment.report import MARKDOWN, Evidence, build_report, save_report
from rlhf_tui.model.base import Base
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Stage
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import completion_ids, loaded_base, memory_plan, peaks_beside, seed_from, steps
from rlhf_tui.stages.reward_fits import Fit, Work, carry_out
from rlhf_tui.stages.reward_labels import Labels, agreements, gather_labels, scored, take_snapshot
from rlhf_tui.stages.reward_reading import (
    CHOICE,
    Choice,
    choose_reading,
    pairs_to_fit,
    read_choice,
    readings,
    write_choice,
)
from rlhf_tui.stages.reward_samples import normalise, preview, reward_scores
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import Features, base_features, invariance
from rlhf_tui.training.groups import candidates_of
from rlhf_tui.training.memory import measure
from rlhf_tui.training.reward import PairScores
from rlhf_tui.training.shared import SharedLayers

_CHECKED = 8  # completions whose score is taken alone, in a batch and with other padding
_SCORED_PAIRS = 500  # enough to choose from; scoring takes about as long as sampling a few


@dataclass(frozen=True)
class _Fits:
    """Every reward model of the run: the one that is used, the ensemble's others, and one for each fold."""

    main: Fit
    others: Sequence[Fit]
    folds: Mapping[int, Fit]

    @property
    def members(self) -> list[Fit]:
        return [self.main, *self.others]


def reward(context: StageContext) -> dict[str, Any]:
    """Train the reward model on judged pairs of training prompts, and judge it on what it has not seen."""
    snapshot = take_snapshot(context)  # first: what is wrong with the labels is said before the model is loaded
    base = loaded_base(context)
    labels = gather_labels(context, base, snapshot)
    choice, features = _reading(context, base, labels)
    roles = Roles(base, context.settings.adapters, seed=context.settings.run.seed, reading=choice.reading)
    roles.add("reward")
    shared = _shared(context, roles, labels)
    planned = memory_plan(context, base, 2 * (len(labels.train) + len(labels.heldout)))
    peaks = peaks_beside(context, planned.reward if planned else None)
    peaks(measure("reading", base.device))
    fits = _fits(context, roles, labels, shared, features)
    peaks(measure("update", base.device))
    roles.restore("reward", fits.main.adapter)
    units = normalise(context, roles, fits.main.trained)
    shown = preview(context, roles, units)
    evidence = _evidence(context, roles, labels, _quick(context, labels, choice, features), fits, units, shown)
    report = build_report(evidence)
    save_report(report, context.run.path)
    facts = _facts(context, base, labels, evidence, report)
    _score_waiting(context, roles)  # first, since it can be stopped: an adapter in place is of a run that is over
    roles.save("reward", context.project.adapter("reward"), facts)
    context.emit(measure("reward", base.device))
    return facts | {
        "pairs_too_long": labels.too_long,
        "verdict": report.verdict.level,
        "headline": report.verdict.headline,
        "because": list(report.verdict.because),
        "todo": report.verdict.todo,
        "report": f"runs/{context.run.name}/{MARKDOWN}",
        "memory": peaks.result(),
    }


# -- training -------------------------------------------------------------------------------------


def _reading(context: StageContext, base: Base, labels: Labels) -> tuple[Choice, Features]:
    """Where to read, chosen once for the run, and what the base sees of every candidate there."""
    context.emit(Stage("reading the candidates"))
    settings = context.settings.reward
    sequences = candidates_of(one.pair for one in labels.train)
    sizes = MicroBatching(base, settings.micro_batch_tokens, "off")
    shown = steps(context, len(sequences), "candidates")
    path = context.run.path / CHOICE
    made = read_choice(path)
    places = [made.reading] if made else readings(settings, base)
    seen = base_features(base, sequences, places, sizes, progress=shown)
    if made is None:
        context.emit(Stage("choosing where to read a score"))
        made = choose_reading(labels, seen, steps(context, len(places), "places to read"))
        write_choice(path, made)
    return made, seen[made.reading]


def _shared(context: StageContext, roles: Roles, labels: Labels) -> SharedLayers:
    """What the layers below the adapters make of every candidate, once for all models of the run."""
    everything = candidates_of(one.pair for one in labels.train + labels.heldout)
    layers = roles.base.model.config.get_text_config().num_hidden_layers
    where = f"after layer {roles.reading.layer or layers} of {layers}"
    how = "the mean over its tokens" if roles.reading.pooling == "mean" else "its last token"
    context.emit(Stage("reading the candidates", f"a score is read {where}, from {how}"))
    shared = SharedLayers(roles)
    shown = steps(context, len(everything), "candidates")
    shared.keep(everything, context.settings.reward.micro_batch_tokens, progress=shown)
    return shared


def _fits(context: StageContext, roles: Roles, labels: Labels, shared: SharedLayers, features: Features) -> _Fits:
    settings, seed = context.settings.reward, context.settings.run.seed
    heldout = [one.pair for one in labels.heldout]

    def fit(name: str, title: str, left_out: int | None, *, scored: bool = False) -> Fit:
        learnt = [one.pair for one in labels.train if one.row.fold != left_out]
        unseen = [one.pair for one in labels.train if one.row.fold == left_out] if scored else []
        start = seed_from(seed, name) % 2**31 if title else None
        return carry_out(context, roles, Work(name, title, start, learnt, heldout, unseen), shared, features)

    several = len(labels.folds) > 1
    main = fit("member-1", "", None)
    others = [
        fit(
            f"member-{number}",
            f"ensemble, model {number} of {settings.ensemble}",
            labels.folds[number % len(labels.folds)] if several else None,
        )
        for number in range(2, settings.ensemble + 1)
    ]
    folds = {
        fold: fit(f"fold-{fold}", f"cross-validation, fold {place} of {len(labels.folds)}", fold, scored=True)
        for place, fold in enumerate(labels.folds if settings.folds and several else (), 1)
    }
    return _Fits(main, others, folds)


# -- judging it -----------------------------------------------------------------------------------


def _evidence(
    context: StageContext,
    roles: Roles,
    labels: Labels,
    quick: tuple[Curve | None, tuple[Scored, ...]],
    fits: _Fits,
    units: Normalisation,
    shown: tuple[Preview, ...],
) -> Evidence:
    context.emit(Stage("judging the reward model"))
    trained = fits.main.trained
    curve, unseen = quick
    checked = candidates_of(one.pair for one in labels.train)[:_CHECKED]
    return Evidence(
        run=context.run.name,
        labels=labels.facts(),
        train=scored(labels.train, trained.train),
        heldout=scored(labels.heldout, trained.heldout, _spreads(fits.members)),
        cross=_of_folds(labels, fits.folds) if fits.folds else unseen,
        cross_by="lora" if fits.folds else "probe" if unseen else "",
        ceiling=labels.ceiling,
        curve=curve,
        preview=shown,
        normalisation=units,
        ensemble=_ensemble(labels, fits.members),
        training=TrainingFacts(
            epochs=trained.epochs,
            kept_epoch=trained.kept_epoch,
            stopped_early=trained.stopped_early,
            steps=trained.steps,
            back_offs=trained.back_offs,
            checkpointing=trained.checkpointing,
            layer=roles.reading.layer,
            pooling=roles.reading.pooling,
        ),
        agreement=agreements(labels.train + labels.heldout),
        invariance=invariance(roles, checked),
        seed=context.settings.run.seed,
        invariance_limit=1e-4 if roles.base.dtype == torch.float32 else 0.2 * units.deviation,
    )


def _quick(
    context: StageContext, labels: Labels, choice: Choice, features: Features
) -> tuple[Curve | None, tuple[Scored, ...]]:
    """The learning curve and out-of-fold scores of a head on the base's own features: seconds instead of hours."""
    if len(labels.folds) < 2:
        return None, ()
    gaps = features.gaps([one.pair for one in labels.train]).numpy()
    targets, weights, folds = pairs_to_fit(labels.train)
    decided = ~np.array([one.row.tie for one in labels.train])
    known = labels.ceiling.value if labels.ceiling is not None and labels.ceiling.enough else None
    prompts = [one.row.prompt for one in labels.train]
    curve = folded(gaps, targets, weights, folds).curve(prompts, decided, ceiling=known, seed=context.settings.run.seed)
    unseen = torch.tensor(choice.gaps, dtype=torch.float64)
    return curve, scored(labels.train, PairScores(unseen / 2, -unseen / 2))  # only the gap is known


def _of_folds(labels: Labels, folds: Mapping[int, Fit]) -> tuple[Scored, ...]:
    """Every training pair, scored by the model that had not seen its prompt."""
    found: list[Scored] = []
    for fold, fit in folds.items():
        found += scored([one for one in labels.train if one.row.fold == fold], fit.unseen)
    return tuple(found)


def _spreads(members: Sequence[Fit]) -> list[float]:
    """How far the members' gaps lie apart on each held-out pair; nothing for a single model."""
    if len(members) < 2:
        return []
    gaps = torch.stack([fit.trained.heldout.gaps for fit in members])
    return [float(value) for value in gaps.std(dim=0, unbiased=False)]


def _ensemble(labels: Labels, members: Sequence[Fit]) -> Ensemble | None:
    if len(members) < 2:
        return None
    measured = [accuracy(scored(labels.heldout, fit.trained.heldout)) for fit in members]
    shares = tuple(one.rate.share for one in measured if one is not None and one.rate.share is not None)
    spreads = _spreads(members)
    return Ensemble(len(members), shares, statistics.fmean(spreads) if spreads else 0.0)


# -- what stays -----------------------------------------------------------------------------------


def _facts(context: StageContext, base: Base, labels: Labels, evidence: Evidence, report: Report) -> dict[str, Any]:
    """What the adapter's manifest says: how to read it, what it learnt from, how good it is."""
    return {
        "run": context.run.name,
        "mean": evidence.normalisation.mean,
        "deviation": evidence.normalisation.deviation,
        "normalised_on": evidence.normalisation.of,
        "layer": evidence.training.layer,
        "pooling": evidence.training.pooling,
        "template": base.chat.fingerprint,
        "labels": labels.snapshot.labels,
        "snapshot": labels.snapshot.hash,
        "raters": list(report.labels.raters),
        "train_pairs": len(labels.train),
        "heldout": _measured(report.heldout, evidence.heldout),
        "train": _measured(report.train, evidence.train),
    }


def _measured(found: Accuracy | None, pairs: Sequence[Scored]) -> dict[str, Any] | None:
    """The accuracy with its interval beside what the two rules of length reach on the same pairs."""
    if found is None or found.rate.share is None:
        return None
    rate, decided = found.rate, counting.decided(pairs)
    return {
        "n": rate.n,
        "accuracy": rate.share,
        "low": rate.low,
        "high": rate.high,
        "log_loss": found.log_loss,
        "shorter": counting.share(decided, counting.shorter_is_better).share,
        "longer": counting.share(decided, counting.longer_is_better).share,
    }


def _score_waiting(context: StageContext, roles: Roles) -> None:
    """Keep the scores of the candidates that wait for a judgement, so that unsure pairs can come first."""
    scores: dict[int, float] = {}
    if context.settings.label.active_share > 0:
        context.emit(Stage("scoring the pairs that wait"))
        with context.project.store() as store:
            waiting = store.waiting_pairs(_SCORED_PAIRS)
        ids: dict[int, Tokens] = {}
        for prompt, sides in waiting:
            tokens = tuple(roles.base.chat.prompt_ids(prompt.messages))
            if len(tokens) <= context.settings.model.max_prompt_tokens:
                ids |= {side.id: Tokens(tokens, completion_ids(roles.base, side)) for side in sides}
        found = reward_scores(context, roles, list(ids.values()))
        scores = dict(zip(ids, found.tolist(), strict=True))
    with context.project.store() as store:
        store.set_scores(context.run.name, scores)  # those of an older reward model would mislead
