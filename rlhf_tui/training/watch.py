"""What a PPO run is watched for: numbers of updates and evaluations become alerts that name cause and remedy.

An alert comes when its condition sets in, not at every update in which it holds; after some updates without, it may
come again. Level 'stop' marks the serious ones, and with guard.act_on = 'warnings' the warnings too: what is done about
them is the run's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlhf_tui.runs.events import Alert
from rlhf_tui.settings import GuardSettings, PpoSettings
from rlhf_tui.training.heldout import Evaluation

Level = Literal["note", "warning", "stop"]

_QUIET = 3  # looks without the condition, after which its return is news again
_RARE_END = 0.05
_RUNNING = 2  # evaluations in a row in which a score must have fallen
_FIRST = ("length", "eos_rate", "repetition")


@dataclass(frozen=True)
class _Case:
    """Something to tell while it holds. Its words are made only when they are needed."""

    code: str
    holds: bool
    words: Callable[[], tuple[Level, str, str, str]]


@dataclass
class _Peak:
    """The best held-out (or gold) score so far, and what the score in training was then; None: not known yet."""

    value: float
    training: float | None = None
    below: int = 0
    """evaluations in a row that were far below"""


@dataclass
class _Seen:
    """All that later alerts need of the past."""

    first: dict[str, float] = field(default_factory=dict)
    """length, EOS rate and repetition in the first update"""
    quiet: dict[str, int] = field(default_factory=dict)
    """alerts that have been given: looks since their condition last held"""
    scores: list[float] = field(default_factory=list)
    """scores in training since the last evaluation"""
    peaks: dict[str, _Peak] = field(default_factory=dict)


class Watch:
    """The memory of a watched run. Alerts depend on the numbers alone, so that a resumed run gives the same ones."""

    def __init__(self, settings: PpoSettings, guard: GuardSettings) -> None:
        self._settings, self._guard = settings, guard
        self._seen = _Seen()

    @property
    def repetition_limit(self) -> float:
        """guard.max_repetition; where the base itself repeats more in the first update, half of what is left to 1."""
        first = self._seen.first.get("repetition", 0.0)
        limit = self._guard.max_repetition
        return limit if first <= limit else first + (1 - first) / 2

    def after_update(self, values: Mapping[str, float]) -> list[Alert]:
        """What a person should know after an update with these metrics."""
        seen = self._seen
        if not seen.first:
            seen.first = {name: values[name] for name in _FIRST}
        seen.scores.append(values["score"])
        for peak in seen.peaks.values():  # of an evaluation before the first update: this is that policy's score
            peak.training = values["score"] if peak.training is None else peak.training
        return self._new([*self._of_distance(values), *self._of_text(values), *self._of_scores(values)])

    def after_evaluation(self, found: Evaluation) -> list[Alert]:
        """What a person should know after an evaluation on held-out prompts."""
        seen, budget = self._seen, self._guard.kl_budget
        training = sum(seen.scores) / len(seen.scores) if seen.scores else None
        seen.scores = []
        cases = [_Case("kl-budget", found.kl > budget, lambda: _over_budget(found, budget))]
        for name, value in (("heldout", found.score), ("gold", found.gold)):
            if value is not None:
                cases += self._of_falls(name, value, training)
        return self._new(cases)

    def forget(self) -> None:
        """The policy is another one (it has been rolled back): what held for the one before may be told again."""
        self._seen.quiet.clear()
        self._seen.scores.clear()
        for peak in self._seen.peaks.values():
            peak.below = 0

    def state(self) -> dict[str, Any]:
        return asdict(self._seen)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on as the one that gave `state` would."""
        peaks = {name: _Peak(**peak) for name, peak in state["peaks"].items()}
        self._seen = _Seen(dict(state["first"]), dict(state["quiet"]), list(state["scores"]), peaks)

    # -- the conditions -----------------------------------------------------------------------

    def _of_distance(self, values: Mapping[str, float]) -> list[_Case]:
        guard = self._guard
        return [
            _Case("kl-runaway", values["kl"] > guard.max_kl, lambda: _runaway(values["kl"], guard.max_kl)),
            _Case("entropy-low", values["entropy"] < guard.min_entropy, lambda: _no_choice(values["entropy"])),
        ]

    def _of_text(self, values: Mapping[str, float]) -> list[_Case]:
        first, guard, settings = self._seen.first, self._guard, self._settings
        length, ends, repetition = values["length"], values["eos_rate"], values["repetition"]
        longer, shorter = length > guard.length_drift * first["length"], length * guard.length_drift < first["length"]
        drifted = guard.length_drift > 1 and (longer or shorter)
        limit = self.repetition_limit
        return [
            _Case("repetition", repetition > limit, lambda: _repeats(repetition, limit)),
            _Case("length-drift", drifted, lambda: _drifted(length, first["length"])),
            _Case(
                "eos-drop",
                ends < guard.min_eos_rate * first["eos_rate"],
                lambda: _ends_less(ends, first["eos_rate"], settings),
            ),
            _Case("never-ends", ends < _RARE_END, lambda: _never_ends(ends, settings)),
        ]

    def _of_scores(self, values: Mapping[str, float]) -> list[_Case]:
        share, limit = values["saturation"], self._guard.max_saturation
        return [_Case("saturation", share > limit, lambda: _saturated(share, self._settings.score_clip))]

    def _of_falls(self, name: str, value: float, training: float | None) -> list[_Case]:
        """A score that stays far below its best: with the score in training rising, and without."""
        peak, fall = self._seen.peaks.get(name), self._guard.heldout_fall
        if peak is None or value > peak.value:
            self._seen.peaks[name] = _Peak(value, training)
            peak = self._seen.peaks[name]
        peak.below = peak.below + 1 if fall > 0 and peak.value - value >= fall else 0
        fallen = peak.below >= _RUNNING
        rising = training is not None and peak.training is not None and training > peak.training
        best = peak.value
        return [
            _Case(f"{name}-falls", fallen and rising, lambda: _overfits(name, value, best)),
            _Case(f"{name}-worse", fallen and not rising, lambda: _worse(name, value, best)),
        ]

    def _new(self, cases: Iterable[_Case]) -> list[Alert]:
        """Alerts of the cases that have just set in."""
        alerts, quiet = [], self._seen.quiet
        for case in cases:
            if case.holds:
                if case.code not in quiet:
                    level, message, why, remedy = case.words()
                    if level == "warning" and self._guard.act_on == "warnings":
                        level = "stop"
                    alerts.append(Alert(level, case.code, message, why=why, remedy=remedy))
                quiet[case.code] = 0
            elif case.code in quiet:
                quiet[case.code] += 1
                if quiet[case.code] >= _QUIET:
                    del quiet[case.code]
        return alerts


# -- the words ------------------------------------------------------------------------------------

_Words = tuple[Level, str, str, str]
_SCORES = {"heldout": "score on held-out prompts", "gold": "score of the second reward model"}


def _runaway(kl: float, limit: float) -> _Words:
    return (
        "stop",
        f"The policy is {kl:.0f} nats from the reference; the limit is {limit:.0f}.",
        "It has found text that the reward model likes and the base model would not write.",
        "Raise ppo.kl_coefficient or lower ppo.policy_learning_rate.",
    )


def _no_choice(entropy: float) -> _Words:
    return (
        "warning",
        f"The policy has almost no choice left (entropy {entropy:.2f} nats a token).",
        "It writes nearly the same answer every time.",
        "Raise ppo.kl_coefficient, or stop here and use an earlier policy.",
    )


def _repeats(share: float, limit: float) -> _Words:
    return (
        "stop",
        f"The completions repeat themselves: {share:.0%} of their runs of four tokens are not new (limit {limit:.0%}).",
        "Usually the reward model likes a phrase, or length as such, and the policy gives it more of the same.",
        "Raise ppo.kl_coefficient, and judge some of these completions so that the reward model learns better.",
    )


def _drifted(length: float, first: float) -> _Words:
    more = length > first
    return (
        "warning",
        f"Completions have become much {'longer' if more else 'shorter'}: {first:.0f} tokens at first, {length:.0f} "
        "now.",
        f"The reward model may take {'length for quality' if more else 'brevity for quality'}; 'rlhf-tui runs show' of "
        "its run says how far its scores go with length.",
        "Read the samples. If this is not what you want, stop, judge more pairs of unlike length, and train the reward "
        "model again.",
    )


def _ends_less(rate: float, first: float, settings: PpoSettings) -> _Words:
    return (
        "warning",
        f"Fewer completions end by themselves: {first:.0%} at first, {rate:.0%} now.",
        f"The policy has learnt to go on until it is cut at {settings.max_new_tokens} tokens.",
        "Raise ppo.missing_eos_penalty, or ppo.max_new_tokens if longer answers are what you want.",
    )


def _never_ends(rate: float, settings: PpoSettings) -> _Words:
    return (
        "note",
        f"Only {rate:.0%} of the completions end by themselves.",
        f"The others are cut at {settings.max_new_tokens} tokens.",
        "Raise ppo.max_new_tokens if the answers you want are longer.",
    )


def _saturated(share: float, limit: float) -> _Words:
    return (
        "warning",
        f"{share:.0%} of the scores lie at the limit of ±{limit:g}: better can no longer be told from best.",
        "The policy has left the range in which the reward model was measured.",
        "Stop at the best policy so far; to go on, judge completions of this policy and train the reward model again.",
    )


def _over_budget(found: Evaluation, budget: float) -> _Words:
    return (
        "note",
        f"On held-out prompts the policy is {found.kl:.1f} nats from the reference; the budget is {budget:g}.",
        "While it is, it cannot become the policy that is kept, however it scores.",
        "Raise ppo.kl_coefficient to hold it nearer, or guard.kl_budget if so large a change is what you want.",
    )


def _overfits(name: str, value: float, best: float) -> _Words:
    return (
        "stop",
        f"The score in training rises, but the {_SCORES[name]} has fallen from {best:+z.2f} to {value:+z.2f}.",
        "The policy has found what the reward model overrates: the score no longer means what you meant."
        if name == "gold"
        else "The policy has learnt the training prompts, not the behaviour.",
        "Use the best policy so far. Judge some completions of this one and train the reward model again, raise "
        "ppo.kl_coefficient, or add prompts.",
    )


def _worse(name: str, value: float, best: float) -> _Words:
    return (
        "warning",
        f"The {_SCORES[name]} has fallen from {best:+z.2f} to {value:+z.2f}, and the score in training does not rise.",
        "The updates are too large, or too noisy, for the policy to learn from.",
        "Lower ppo.policy_learning_rate, or raise ppo.rollout_size.",
    )
