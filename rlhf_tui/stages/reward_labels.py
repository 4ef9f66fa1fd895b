"""The labels of a reward run: its snapshot, taken once, and the pairs in it as texts and ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from rlhf_tui.assessment.records import LabelFacts, RaterAgreement, Scored
from rlhf_tui.errors import UserError
from rlhf_tui.model.base import Base
from rlhf_tui.preferences import snapshot as snapshots
from rlhf_tui.preferences.consistency import ceiling, consistency
from rlhf_tui.preferences.intervals import Clusters, Estimate
from rlhf_tui.preferences.records import Completion
from rlhf_tui.preferences.snapshot import Row, Snapshot
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import completion_ids
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.reward import PairScores

SNAPSHOT = "snapshot.jsonl"
QUICK_FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """One pair of the snapshot with its texts and its ids."""

    row: Row
    pair: Pair
    prompt_text: str
    better: Completion
    worse: Completion

    def scored(self, chosen: float, rejected: float, spread: float = 0.0) -> Scored:
        """What the reward model says of it."""
        return Scored(
            judgement=self.row.judgement,
            judgement_id=self.row.judgement_id,
            prompt=self.row.prompt,
            prompt_text=self.prompt_text,
            rater=self.row.rater,
            strength=self.row.strength,
            tie=self.row.tie,
            weight=self.row.weight,
            better_text=self.better.text,
            worse_text=self.worse.text,
            better_score=chosen,
            worse_score=rejected,
            better_length=len(self.pair.chosen.response),
            worse_length=len(self.pair.rejected.response),
            better_ended=self.better.finish_reason != "length",
            worse_ended=self.worse.finish_reason != "length",
            better_first=self.row.better_first,
            spread=spread,
        )


@dataclass(frozen=True)
class Labels:
    """All pairs of a run that fit, by split."""

    snapshot: Snapshot
    train: tuple[Labelled, ...]
    heldout: tuple[Labelled, ...]
    too_long: int
    ceiling: Estimate | None

    @property
    def folds(self) -> list[int]:
        """The folds that have a training pair."""
        return sorted({one.row.fold for one in self.train})

    def facts(self) -> LabelFacts:
        """What the report says of the labels."""
        everything = self.train + self.heldout
        return LabelFacts(
            hash=self.snapshot.labels,
            snapshot=SNAPSHOT,
            raters_filter=self.snapshot.raters,
            ties=self.snapshot.ties,
            folds=len(self.folds),
            judgements=len({one.row.judgement for one in everything}),
            comparisons=len(everything),
            train_pairs=len(self.train),
            heldout_pairs=len(self.heldout),
            heldout_ties=sum(one.row.tie for one in self.heldout),
            prompts=len({one.row.prompt for one in everything}),
            raters=tuple(sorted({one.row.rater for one in everything})),
            too_long=self.too_long,
        )


def gather_labels(context: StageContext, base: Base, snapshot: Snapshot) -> Labels:
    """The snapshot with texts and ids; pairs whose prompt is too long are left out and counted."""
    with context.project.store() as store:
        wanted = {row.prompt for row in snapshot.rows}
        prompts = {prompt.uid: prompt for prompt in store.prompts() if prompt.uid in wanted}
        texts = {one.uid: one for prompt in prompts.values() for one in store.completions(prompt.id)}
        public = {rater.public_name: rater for rater in store.raters()}
        asked = sorted({public[row.rater].id for row in snapshot.rows if row.rater in public})
        repeated = consistency(fact for rater_id in asked for fact in store.facts(rater_id))
    ids = {uid: tuple(base.chat.prompt_ids(prompt.messages)) for uid, prompt in prompts.items()}
    most = context.settings.model.max_prompt_tokens
    kept: dict[str, list[Labelled]] = {"train": [], "heldout": []}
    too_long = 0
    for row in snapshot.rows:
        if len(ids[row.prompt]) > most:
            too_long += 1
            continue
        better, worse = texts[row.better], texts[row.worse]
        pair = Pair(
            Tokens(ids[row.prompt], completion_ids(base, better)),
            Tokens(ids[row.prompt], completion_ids(base, worse)),
            row.tie,
            row.strength,
            row.weight,
            row.smoothing,
        )
        kept[row.split].append(Labelled(row, pair, prompts[row.prompt].text, better, worse))
    if not kept["train"]:
        raise UserError(
            "No judged pair fits.",
            why="All their prompts are longer than model.max_prompt_tokens.",
            todo="Raise model.max_prompt_tokens, or import shorter prompts.",
        )
    measured = ceiling(repeated.self_consistency) if repeated.self_consistency.n else None
    return Labels(snapshot, tuple(kept["train"]), tuple(kept["heldout"]), too_long, measured)


def agreements(labelled: Iterable[Labelled]) -> tuple[RaterAgreement, ...]:
    """For every two raters with pairs in common: how often they prefer the same one. Ties are left out."""
    winners: dict[tuple[str, frozenset[str]], dict[str, str]] = {}
    for one in labelled:
        if not one.row.tie:
            about = (one.row.prompt, frozenset((one.row.better, one.row.worse)))
            winners.setdefault(about, {})[one.row.rater] = one.row.better
    counts: dict[tuple[str, str], dict[str, list[bool]]] = {}
    for (prompt, _), said in winners.items():
        for first, second in combinations(sorted(said), 2):
            same = counts.setdefault((first, second), {}).setdefault(prompt, [])
            same.append(said[first] == said[second])
    found = []
    for (first, second), by_prompt in sorted(counts.items()):
        clusters = Clusters()
        for same in by_prompt.values():
            clusters.add(sum(same), len(same))
        found.append(RaterAgreement(first, second, clusters.rate()))
    return tuple(found)


def scored(labelled: Sequence[Labelled], scores: PairScores, spreads: Sequence[float] = ()) -> tuple[Scored, ...]:
    """What the reward model says of these pairs, in their order."""
    values = zip(scores.chosen.tolist(), scores.rejected.tolist(), spreads or [0.0] * len(labelled), strict=True)
    return tuple(one.scored(*said) for one, said in zip(labelled, values, strict=True))


def take_snapshot(context: StageContext) -> Snapshot:
    """The labels of this run: taken now, or as they were when it began. Raises UserError when there are none."""
    settings = context.settings.reward
    path = context.run.path / SNAPSHOT
    if path.exists():
        return snapshots.read(path)
    ties: Literal["half", "drop"] = settings.ties
    with context.project.store() as store:
        snapshot = snapshots.take(
            store,
            raters=[name.strip() for name in settings.raters.split(",") if name.strip()],
            ties=ties,
            folds=settings.folds or QUICK_FOLDS,
            smoothing=settings.label_smoothing,
            seed=context.settings.run.seed,
        )
    snapshots.write(snapshot, path)
    return snapshot
