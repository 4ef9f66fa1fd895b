"""What the report on a reward model is made of: plain data that goes to JSON and back without a loss.

A report never holds a number that is not finite: where nothing can be said, the field is None or empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf_tui.preferences.intervals import Estimate, Rate

VERSION = 1

Level = Literal["ready", "narrow", "not_yet", "broken"]
Severity = Literal["broken", "warning", "note"]
#: Which pairs the verdict looks at: the trained model's held-out ones, or the training pairs, each scored by a model
#: that had not seen its prompt.
MeasuredOn = Literal["heldout", "crossvalidated", ""]
#: What was trained anew for each fold: the head on the base's own features, or the whole adapter.
CrossvalidatedBy = Literal["probe", "lora", ""]
#: A number and the ends of its 95 % interval.
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Scored:
    """One comparison and what the reward model said of it. Of a tie, which one is `better` is arbitrary.

    `judgement` is the uid of the judgement, `judgement_id` its id in this project's store, `prompt` the uid of
    the prompt: the cluster that intervals resample. `strength`: 1 better, 2 much better, 0 tie. Scores are raw;
    lengths are tokens of the completion. `better_ended`: it ends with the end-of-turn token, so it was not cut
    off. `better_first`: it was shown first; None when that is not known. `spread` is the standard deviation of
    the gap over the members of an ensemble.
    """

    judgement: str
    judgement_id: int
    prompt: str
    prompt_text: str
    rater: str
    strength: int
    tie: bool
    weight: float
    better_text: str
    worse_text: str
    better_score: float
    worse_score: float
    better_length: int
    worse_length: int
    better_ended: bool
    worse_ended: bool
    better_first: bool | None
    spread: float = 0.0

    @property
    def gap(self) -> float:
        """How much higher the better one scores."""
        return self.better_score - self.worse_score


@dataclass(frozen=True)
class LabelFacts:
    """Which labels the run learnt from. `hash` and `snapshot` (a path in the run's folder) name them exactly.

    `raters_filter` is empty for everybody; `ties` is what training made of them ('half' or 'drop'); `folds` of
    the cross-validation. `judgements` gave `comparisons`: `train_pairs` and, of prompts kept out of training,
    `heldout_pairs` (`heldout_ties` of them ties), over `prompts` prompts. `too_long` were left out for length.
    """

    hash: str
    snapshot: str
    raters_filter: tuple[str, ...]
    ties: str
    folds: int
    judgements: int
    comparisons: int
    train_pairs: int
    heldout_pairs: int
    heldout_ties: int
    prompts: int
    raters: tuple[str, ...]
    too_long: int


@dataclass(frozen=True)
class RaterAgreement:
    """Of the decided pairs that two raters both judged, how often they prefer the same one."""

    one: str
    other: str
    same: Rate


@dataclass(frozen=True)
class Verdict:
    """Is it good enough? `headline` says it in a line, `because` why, `todo` what to do next.

    `more_labels`: about how many more judged pairs would do, each of another prompt where it is prompts that are
    missing; None when labels are not what is missing, when they alone will not do, or when nobody can say (`todo`
    says which).
    """

    level: Level
    headline: str
    because: tuple[str, ...]
    todo: str
    more_labels: int | None


@dataclass(frozen=True)
class Accuracy:
    """How often the model scores the better one higher, over decided pairs: ties are left out and only counted.

    Equal scores count one half. The interval treats the pairs of one prompt as hanging together. `log_loss` is
    the mean of -log σ(gap) in nats: 0.693 is what a coin gets.
    """

    rate: Rate
    log_loss: float
    ties: int


@dataclass(frozen=True)
class Baseline:
    """A simple rule on the same pairs: 'longer', 'shorter' or 'bag of words'.

    `difference` is the model's share minus the rule's, paired, with a bootstrap interval over prompts.
    """

    name: str
    rate: Rate
    difference: Interval


@dataclass(frozen=True)
class Slice:
    """The accuracy on some of the pairs."""

    name: str
    rate: Rate


@dataclass(frozen=True)
class Bin:
    """Pairs of like |gap|. `predicted`: mean of σ(|gap|), which runs from `low` to `high`; `observed`: share right.

    `under` and `over`: the ends of its interval, which treats the pairs of one prompt as hanging together; 0 and 1
    in reports that were written without.
    """

    low: float
    high: float
    predicted: float
    observed: float
    n: int
    under: float = 0.0
    over: float = 1.0


@dataclass(frozen=True)
class Calibration:
    """Does it mean what it says: where it is 80 % sure, is it right four times of five?

    `bins` hold equal numbers of pairs. `ece`: mean |predicted - observed| over them, weighted by size. `brier`:
    mean of (1 - σ(gap))², ¼ for a coin. `temperature`: what to divide the gaps by to make the log-loss least;
    above 1 the model is too sure of itself.
    """

    bins: tuple[Bin, ...]
    ece: float
    brier: float
    log_loss: float
    temperature: float


@dataclass(frozen=True)
class Disagreement:
    """A decided pair where the model prefers the other one; `kind`: which model, of two with scores of other units.

    `gap` is negative, in units of the root mean square of the gaps of its kind: -3 is three times the usual gap.
    """

    judgement_id: int
    prompt_text: str
    better_text: str
    worse_text: str
    rater: str
    gap: float
    kind: Literal["heldout", "crossvalidated"]


@dataclass(frozen=True)
class CurvePoint:
    """The cross-validated accuracy when only `share` of the training prompts is used: `pairs` pairs on average."""

    share: float
    pairs: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """How accuracy grows with labels, of the head on the base's own features.

    `gain_50`: what 50 more training pairs are expected to add (in share, with its bootstrap interval);
    `asymptote`: what it grows towards; `pairs_to_ready`: training pairs in all at which it reaches what 'ready'
    asks for, None when it never does, or not before thousands.
    """

    points: tuple[CurvePoint, ...]
    gain_50: Interval | None
    asymptote: float | None
    pairs_to_ready: int | None


@dataclass(frozen=True)
class Choice:
    """The completion that scores highest among the first `n`."""

    n: int
    text: str
    score: float
    tokens: int


@dataclass(frozen=True)
class Preview:
    """What the reward model would choose for one held-out prompt, as it has more and more to choose from."""

    prompt_text: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Finding:
    """Something a detector found: `what` it saw, `why` that matters, and a `remedy`.

    `name` is one of `detectors.CATALOGUE`. One of severity 'broken' makes the verdict 'broken'.
    """

    name: str
    severity: Severity
    what: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of `n` scores, stored with the adapter: PPO subtracts and divides."""

    mean: float
    deviation: float
    n: int
    of: Literal["reference completions", "judged candidates"]


@dataclass(frozen=True)
class Ensemble:
    """Several models that differ in their seed and in the fold they leave out.

    Each one's held-out accuracy, none without held-out pairs, and how much their gaps differ.
    """

    members: int
    accuracies: tuple[float, ...]
    mean_spread: float


@dataclass(frozen=True)
class TrainingFacts:
    """How training went. `kept_epoch` is the one with the least held-out loss; `back_offs`: out-of-memory, halved.

    `stopped_early`: before all the epochs that were asked for.
    """

    epochs: int
    kept_epoch: int
    stopped_early: bool
    steps: int
    back_offs: int
    checkpointing: bool
    layer: int = 0
    """after how many layers of the model the score is read; 0: after all"""
    pooling: str = "last"
    """'last': from the completion's last token; 'mean': from the mean over its tokens"""


@dataclass(frozen=True)
class Report:
    """Everything the report on a reward model says; `report.json` in the run's folder holds it.

    `heldout` is the trained model on prompts kept out of training, `crossvalidated` models of the same kind
    (`crossvalidated_by`) on the training pairs, each on prompts it had not seen, `train` the trained model on
    what it was trained on. `measured_on` names which of the first two the verdict, the baselines, the slices
    and the calibration are of. `ceiling`: how reliable single labels of the rater are. `length_correlation`: of
    score and tokens within pairs, from -1 to 1.
    """

    run: str
    labels: LabelFacts
    verdict: Verdict
    measured_on: MeasuredOn
    heldout: Accuracy | None
    crossvalidated: Accuracy | None
    crossvalidated_by: CrossvalidatedBy
    train: Accuracy | None
    ceiling: Estimate | None
    baselines: tuple[Baseline, ...]
    by_strength: tuple[Slice, ...]
    by_rater: tuple[Slice, ...]
    by_length: tuple[Slice, ...]
    calibration: Calibration | None
    length_correlation: Estimate
    disagreements: tuple[Disagreement, ...]
    curve: Curve | None
    preview: tuple[Preview, ...]
    findings: tuple[Finding, ...]
    normalisation: Normalisation
    ensemble: Ensemble | None
    training: TrainingFacts
    v: int = VERSION

    @property
    def deciding(self) -> Accuracy | None:
        """The accuracy that the verdict rests on."""
        return {"heldout": self.heldout, "crossvalidated": self.crossvalidated, "": None}[self.measured_on]
