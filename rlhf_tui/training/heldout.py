"""Held-out evaluation during a PPO run: the same prompts, the same draws, by the policy of the moment.

Every evaluation samples with the same seed, so that two of them differ by what the policy has learnt and as little
as possible by chance. A second reward model, which the policy is not trained on, looks at the same completions: where
the score rises and the second opinion falls, the policy has found a fault of the first (Gao et al., 2023, plot both
against the root of the KL).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import EventSink, Metric, Sample, Stage
from rlhf_tui.training import guards
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.ppo_metrics import repeated, sequence_kl
from rlhf_tui.training.rollout import Judge, Rollout

#: A rollout of the policy for these prompts with this seed, as training draws and scores its own.
Explore = Callable[[Sequence[Sequence[int]], int], Rollout]

_SEED = 999_331  # no update has this number, so no update draws as an evaluation does
_SHOWN = 2


@dataclass(frozen=True)
class Evaluation:
    """The policy after `update` updates, on held-out prompts: means over completions."""

    update: int
    score: float
    """as in training: normalised, clipped, less the penalty for a missing end"""
    kl: float
    """nats per completion (k1), at the sampling temperature"""
    length: float
    """tokens"""
    eos_rate: float
    repetition: float
    """share of the runs of four tokens that have occurred before in the same completion"""
    gold: float | None = None
    """score of the second reward model, in deviations of its scores in the first evaluation"""

    def metrics(self) -> dict[str, float]:
        """Under the names that the journal and the charts use."""
        found = {
            "heldout_score": self.score,
            "heldout_kl": self.kl,
            "heldout_root_kl": max(self.kl, 0.0) ** 0.5,
            "heldout_length": self.length,
            "heldout_eos_rate": self.eos_rate,
            "heldout_repetition": self.repetition,
        }
        return found if self.gold is None else found | {"gold_score": self.gold}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Heldout:
    """The held-out prompts of a run, and how completions for them are drawn and judged.

    `explore` draws and scores as training does; `gold` gives raw scores of a second reward model.
    """

    def __init__(
        self,
        roles: Roles,
        prompts: Sequence[TrainPrompt],
        explore: Explore,
        *,
        seed: int,
        emit: EventSink,
        gold: Judge | None = None,
    ) -> None:
        self._roles, self._prompts, self._explore = roles, list(prompts), explore
        self._seed, self._emit, self._gold = seed * 1_000_003 + _SEED, emit, gold
        self._units: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def has_second_opinion(self) -> bool:
        """Whether a second reward model judges what is drawn."""
        return self._gold is not None

    def evaluate(self, update: int) -> Evaluation:
        """Look at the policy as it is now. Emits the numbers and two samples; raises NotFinite for NaN or infinity."""
        self._emit(Stage("evaluating", f"after update {update}"))
        rollout = self._explore([prompt.ids for prompt in self._prompts], self._seed)
        gold = self._second_opinion(rollout.sequences)
        found = Evaluation(
            update=update,
            score=float(rollout.rows(lambda e: e.scores).mean()),
            kl=float(rollout.rows(sequence_kl).mean()),
            length=statistics.fmean(len(one.response) for one in rollout.sequences),
            eos_rate=float(rollout.rows(lambda e: e.ended).mean()),
            repetition=statistics.fmean(repeated(one.response) for one in rollout.sequences),
            gold=statistics.fmean(gold) if gold else None,
        )
        guards.require_finite(found.metrics(), update)
        self._show(rollout, gold, update)
        self._emit(Metric(update, found.metrics()))
        return found

    def state(self) -> dict[str, Any]:
        """The unit of the second opinion: what later evaluations need of the first one."""
        return {"units": self._units}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on as the one that gave `state` would."""
        units = state["units"]
        self._units = (float(units[0]), float(units[1])) if units else None

    def _second_opinion(self, sequences: Sequence[Tokens]) -> list[float]:
        """Scores of the second reward model in units of the first evaluation; nothing where there is none."""
        if self._gold is None:
            return []
        raw = [float(score) for score in self._gold(sequences)]
        if self._units is None:
            centre = statistics.fmean(raw)
            deviation = statistics.fmean((score - centre) ** 2 for score in raw) ** 0.5
            self._units = (centre, deviation if deviation > 1e-6 else 1.0)
        mean, deviation = self._units
        return [(score - mean) / deviation for score in raw]

    def _show(self, rollout: Rollout, gold: Sequence[float], update: int) -> None:
        """The answers to the first two prompts: always these two, so that one sees them change."""
        scores, kl = rollout.rows(lambda e: e.scores), rollout.rows(sequence_kl)
        for index, prompt in enumerate(self._prompts[:_SHOWN]):
            tokens = rollout.sequences[index].response
            values = {"score": float(scores[index]), "kl": float(kl[index]), "length": float(len(tokens))}
            values |= {"gold": gold[index]} if gold else {}
            self._emit(Sample(update, prompt.text, self._roles.base.chat.text(tokens), values, "heldout"))


def gold_judge(roles: Roles, sizes: MicroBatching) -> Judge:
    """Raw scores by the 'gold' role: a second reward model on the same base, in passes of a size that fits."""

    def judge(sequences: Sequence[Tokens]) -> list[float]:
        scores: list[float] = score_tokens(roles, sequences, sizes, role="gold").tolist()
        return scores

    return judge
