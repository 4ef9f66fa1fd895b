"""The reward stage: learn a score from the judged pairs, then say whether it is good enough."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rlhf_tui.assessment.crossvalidation import learning_curve, out_of_fold_gaps
from rlhf_tui.assessment.measures import accuracy
from rlhf_tui.assessment.records import (
    Accuracy,
    Choice,
    Curve,
    Ensemble,
    Normalisation,
    Preview,
    Report,
    Scored,
    TrainingFacts,
)
from rlhf_tui.assessment.report import MARKDOWN, Evidence, build_report, save_report
from rlhf_tui.model.base import Base
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Stage
from rlhf_tui.runs.gathering import completion_ids, fitting_prompts, loaded_base, progress, seed_from
from rlhf_tui.runs.reward_fits import Fit, Work, carry_out
from rlhf_tui.runs.reward_labels import Labelled, Labels, agreements, gather_labels, scored
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import Features, base_features, invariance, score_tokens
from rlhf_tui.training.groups import candidates_of
from rlhf_tui.training.memory import measure
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.reward import PairScores

_CHOICES = (1, 4, 16)
_CHECKED = 8  # completions whose score is taken alone, in a batch and with other padding
_SCORED_PAIRS = 500  # enough to choose from; scoring takes about as long as sampling a few


def reward(context: StageContext) -> dict[str, Any]:
    """Train the reward model on judged pairs of training prompts, and judge it on what it has not seen."""
    base = loaded_base(context)
    labels = gather_labels(context, base)
    roles = Roles(base, context.settings.adapters, seed=context.settings.run.seed)
    roles.add("reward")
    features = _features(context, roles, labels)
    main, others, folds = _fits(context, roles, labels, features)
    roles.restore("reward", main.adapter)
    samples = _Samples(context, roles, main)
    evidence = _evidence(context, roles, labels, features, main, others, folds, samples)
    report = build_report(evidence)
    save_report(report, context.run.path)
    facts = _facts(context, base, labels, report)
    roles.save("reward", context.project.adapter("reward"), facts)
    _score_waiting(context, roles)
    context.emit(measure("reward", base.device))
    return facts | {
        "pairs_too_long": labels.too_long,
        "verdict": report.verdict.level,
        "headline": report.verdict.headline,
        "because": list(report.verdict.because),
        "todo": report.verdict.todo,
        "report": f"runs/{context.run.name}/{MARKDOWN}",
    }


# -- training -------------------------------------------------------------------------------------


def _features(context: StageContext, roles: Roles, labels: Labels) -> Features:
    """What the base sees in every candidate: where the head starts, and the quick cross-validation."""
    context.emit(Stage("reading the candidates"))
    sequences = candidates_of(one.pair for one in labels.train)
    sizes = MicroBatching(roles.base, context.settings.reward.micro_batch_tokens, "off")
    pooling = context.settings.reward.pooling
    return base_features(roles, sequences, pooling, sizes, progress=progress(context, 0, len(sequences), "candidates"))


def _fits(
    context: StageContext, roles: Roles, labels: Labels, features: Features
) -> tuple[Fit, list[Fit], dict[int, Fit]]:
    """The model that is used, the others of the ensemble, and one for each fold that the settings ask for."""
    settings, seed = context.settings.reward, context.settings.run.seed
    train, heldout = [one.pair for one in labels.train], [one.pair for one in labels.heldout]
    main = carry_out(context, roles, Work("member-1", "", None, train, heldout), features)
    others = []
    for number in range(2, settings.ensemble + 1):
        title = f"ensemble, model {number} of {settings.ensemble}"
        left_out = labels.folds[number % len(labels.folds)] if len(labels.folds) > 1 else None
        some = [one.pair for one in labels.train if one.row.fold != left_out]
        work = Work(f"member-{number}", title, seed_from(seed, "member", number) % 2**31, some, heldout)
        others.append(carry_out(context, roles, work, features))
    folds: dict[int, Fit] = {}
    for fold in labels.folds if settings.folds and len(labels.folds) > 1 else ():
        learnt = [one.pair for one in labels.train if one.row.fold != fold]
        unseen = [one.pair for one in labels.train if one.row.fold == fold]
        title = f"cross-validation, fold {len(folds) + 1} of {len(labels.folds)}"
        work = Work(f"fold-{fold}", title, seed_from(seed, "fold", fold) % 2**31, learnt, heldout, unseen)
        folds[fold] = carry_out(context, roles, work, features)
    return main, others, folds


# -- judging it -----------------------------------------------------------------------------------


def _evidence(
    context: StageContext,
    roles: Roles,
    labels: Labels,
    features: Features,
    main: Fit,
    others: Sequence[Fit],
    folds: dict[int, Fit],
    samples: _Samples,
) -> Evidence:
    context.emit(Stage("judging the reward model"))
    trained, pooling = main.trained, context.settings.reward.pooling
    heldout = scored(labels.heldout, trained.heldout, _spreads([main, *others]))
    curve, quick = _quick(context, labels, features)
    checked = candidates_of(one.pair for one in labels.train)[:_CHECKED]
    return Evidence(
        run=context.run.name,
        labels=labels.facts(),
        train=scored(labels.train, trained.train),
        heldout=heldout,
        cross=_of_folds(labels, folds) if folds else quick,
        cross_by="lora" if folds else "probe" if quick else "",
        ceiling=labels.ceiling,
        curve=curve,
        preview=samples.preview,
        normalisation=samples.normalisation,
        ensemble=_ensemble(labels, [main, *others]),
        training=TrainingFacts(
            epochs=trained.epochs,
            kept_epoch=trained.kept_epoch,
            stopped_early=trained.stopped_early,
            steps=trained.steps,
            back_offs=trained.back_offs,
            checkpointing=trained.checkpointing,
        ),
        agreement=agreements(labels.train + labels.heldout),
        invariance=invariance(roles, checked, pooling),
        seed=context.settings.run.seed,
        invariance_limit=1e-4 if roles.base.dtype == torch.float32 else 0.2 * samples.normalisation.deviation,
    )


def _quick(context: StageContext, labels: Labels, features: Features) -> tuple[Curve | None, tuple[Scored, ...]]:
    """The learning curve and out-of-fold scores of a head on the base's own features: seconds instead of hours."""
    if len(labels.folds) < 2:
        return None, ()
    gaps = features.gaps([one.pair for one in labels.train]).numpy()
    ties = np.array([one.row.tie for one in labels.train])
    targets = np.where(ties, 0.5, [1 - one.row.smoothing for one in labels.train])
    weights = np.array([one.row.weight for one in labels.train])
    folds = np.array([one.row.fold for one in labels.train])
    known = labels.ceiling.value if labels.ceiling is not None and labels.ceiling.enough else None
    prompts = [one.row.prompt for one in labels.train]
    curve = learning_curve(gaps, targets, weights, folds, prompts, ~ties, ceiling=known, seed=context.settings.run.seed)
    unseen = torch.from_numpy(out_of_fold_gaps(gaps, targets, weights, folds))
    return curve, scored(labels.train, PairScores(unseen / 2, -unseen / 2))  # only the gap is known


def _of_folds(labels: Labels, folds: dict[int, Fit]) -> tuple[Scored, ...]:
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


# -- completions of the base ----------------------------------------------------------------------


class _Samples:
    """Completions of the base, sampled as PPO will: the unit of the scores, and what would be chosen of 1, 4, 16."""

    def __init__(self, context: StageContext, roles: Roles, main: Fit) -> None:
        self._context, self._roles = context, roles
        self.normalisation = self._normalisation(main)
        self.preview = self._preview()

    def _normalisation(self, main: Fit) -> Normalisation:
        wanted = self._context.settings.reward.reference_completions
        trained = main.trained
        judged = 2 * len(trained.train.chosen)
        if wanted:
            self._context.emit(Stage("sampling reference completions"))
            prompts, _ = fitting_prompts(self._context, self._roles.base, "train")
            drawn = self._drawn([prompts[number % len(prompts)] for number in range(wanted)], "reference")
            scores = self._scores(drawn)
            deviation = float(scores.std(unbiased=False))
            if deviation > 1e-6:
                return Normalisation(float(scores.mean()), deviation, wanted, "reference completions")
        return Normalisation(trained.mean, trained.deviation, judged, "judged candidates")

    def _preview(self) -> tuple[Preview, ...]:
        wanted = self._context.settings.reward.preview_prompts
        with self._context.project.store() as store:
            there = bool(wanted) and bool(store.prompts("heldout"))
        if not there:
            return ()
        self._context.emit(Stage("sampling for the preview"))
        prompts, _ = fitting_prompts(self._context, self._roles.base, "heldout")
        prompts = prompts[:wanted]
        each = max(_CHOICES)
        drawn = self._drawn([prompt for prompt in prompts for _ in range(each)], "preview")
        scores = ((self._scores(drawn) - self.normalisation.mean) / self.normalisation.deviation).tolist()
        return tuple(
            Preview(prompt.text, self._choices(drawn[start : start + each], scores[start : start + each]))
            for prompt, start in zip(prompts, range(0, len(drawn), each), strict=True)
        )

    def _choices(self, drawn: Sequence[Tokens], scores: Sequence[float]) -> tuple[Choice, ...]:
        best = [max(range(count), key=lambda index: scores[index]) for count in _CHOICES]
        return tuple(
            Choice(count, self._roles.base.chat.text(drawn[i].response), scores[i], len(drawn[i].response))
            for count, i in zip(_CHOICES, best, strict=True)
        )

    def _drawn(self, prompts: Sequence[TrainPrompt], what: str) -> list[Tokens]:
        context, base = self._context, self._roles.base
        size = context.settings.generate.batch_size
        found: list[Tokens] = []
        for start in range(0, len(prompts), size):
            some = prompts[start : start + size]
            seed = seed_from(context.settings.run.seed, what, start)
            with self._roles.reference():
                completions = sample(
                    base.model,
                    [prompt.ids for prompt in some],
                    Sampling(context.settings.ppo.max_new_tokens, context.settings.ppo.temperature),
                    end_ids=base.chat.end_ids,
                    batch_size=size,
                    generator=torch.Generator(base.device).manual_seed(seed),
                    progress=progress(context, start, len(prompts)),
                )
            found += [Tokens(tuple(prompt.ids), one.ids) for prompt, one in zip(some, completions, strict=True)]
            context.control.boundary(lambda: None)
        return found

    def _scores(self, drawn: Sequence[Tokens]) -> torch.Tensor:
        settings = self._context.settings.reward
        sizes = MicroBatching(self._roles.base, settings.micro_batch_tokens, "off")
        return score_tokens(self._roles, drawn, settings.pooling, sizes)


# -- what stays -----------------------------------------------------------------------------------


def _facts(context: StageContext, base: Base, labels: Labels, report: Report) -> dict[str, Any]:
    """What the adapter's manifest says: how to read it, what it learnt from, how good it is."""
    return {
        "run": context.run.name,
        "mean": report.normalisation.mean,
        "deviation": report.normalisation.deviation,
        "normalised_on": report.normalisation.of,
        "pooling": context.settings.reward.pooling,
        "template": base.chat.fingerprint,
        "labels": labels.snapshot.labels,
        "snapshot": labels.snapshot.hash,
        "raters": list(report.labels.raters),
        "train_pairs": len(labels.train),
        "heldout": _measured(report.heldout, labels.heldout),
        "train": _measured(report.train, labels.train),
    }


def _measured(found: Accuracy | None, labelled: Sequence[Labelled]) -> dict[str, Any] | None:
    """The accuracy with its interval beside what the two rules of length reach on the same pairs."""
    if found is None or found.rate.share is None:
        return None
    decided = [one.pair for one in labelled if not one.pair.tie]
    gaps = [len(pair.rejected.response) - len(pair.chosen.response) for pair in decided]
    shorter = sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / len(gaps)
    rate = found.rate
    return {
        "n": rate.n,
        "accuracy": rate.share,
        "low": rate.low,
        "high": rate.high,
        "log_loss": found.log_loss,
        "shorter": shorter,
        "longer": 1 - shorter,
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
        settings = context.settings.reward
        sizes = MicroBatching(roles.base, settings.micro_batch_tokens, "off")
        found = score_tokens(roles, list(ids.values()), settings.pooling, sizes)
        scores = dict(zip(ids, found.tolist(), strict=True))
    with context.project.store() as store:
        store.set_scores(context.run.name, scores)  # those of an older reward model would mislead
