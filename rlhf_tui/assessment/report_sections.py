"""What the report says and in which order, as paragraphs, points and tables; `report_text` puts it on a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhf_tui.assessment.figures import coefficient, estimated_share, percent, points, share_and_n, with_ends
from rlhf_tui.assessment.records import Accuracy, Disagreement, Ensemble, Report, Slice
from rlhf_tui.assessment.thresholds import READY
from rlhf_tui.preferences.display import clean

_BY = {"probe": "a quick head", "lora": "the whole adapter", "": ""}
#: So many disagreements and previews are written out; the app shows all of them.
MOST_SHOWN = 5


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Point:
    """One point of a list, and what belongs under it."""

    text: str
    under: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of equally many cells under a head, which may be empty."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Quote:
    """Texts of people and models, named; they are shortened to a line each."""

    texts: tuple[tuple[str, str], ...]


Part = Paragraph | Point | Table | Quote


@dataclass(frozen=True)
class Section:
    """A title and what stands under it."""

    title: str
    parts: tuple[Part, ...]


def sections(report: Report) -> list[Section]:
    """The whole report. What there is nothing to say about is left out."""
    found = [
        _verdict(report),
        _findings(report),
        _accuracy(report),
        _slices(report),
        _calibration(report),
        _curve(report),
        _disagreements(report),
        _preview(report),
        _facts(report),
    ]
    return [section for section in found if section.parts]


def _verdict(report: Report) -> Section:
    verdict = report.verdict
    because = tuple(Point(reason) for reason in verdict.because)
    return Section(verdict.headline, (*because, Paragraph(f"What next: {verdict.todo}")))


def _findings(report: Report) -> Section:
    parts = [Point(f"{one.severity}: {one.what}", (f"{one.why} {one.remedy}",)) for one in report.findings]
    return Section("What was found", tuple(parts))


def _accuracy(report: Report) -> Section:
    tried = f"cross-validated: {_BY[report.crossvalidated_by]}"
    rows = [
        ("on held-out prompts", *_accuracy_cells(report.heldout)),
        (tried, *_accuracy_cells(report.crossvalidated)),
        ("on its own training labels", *_accuracy_cells(report.train)),
    ]
    measured = Table(("the better one scores higher", "", "log-loss"), tuple(row for row in rows if row[1]))
    parts: list[Part] = [measured] if measured.rows else []
    if report.baselines:
        rules = tuple(
            (_RULES.get(one.name, one.name), share_and_n(one.rate), points(one.difference)) for one in report.baselines
        )
        parts.append(Table(("always picking", "", "the model is better by"), rules))
    if report.ceiling is not None and report.ceiling.value is not None:
        few = "" if report.ceiling.enough else ", too few to say"
        parts.append(
            Paragraph(
                f"Single labels are right about {estimated_share(report.ceiling)} of the time, going by "
                f"{report.ceiling.n} repeats{few}: no model can agree with them more often."
            )
        )
    if report.deciding is not None:
        parts.append(
            Paragraph(
                f"In brackets: 95 % intervals. Ties ({report.deciding.ties} here) are left out; equal scores count one "
                "half; a coin has a log-loss of 0.693."
            )
        )
    return Section("How often it is right", tuple(parts))


_RULES = {"longer": "the longer one", "shorter": "the shorter one", "bag of words": "by the words alone"}


def _accuracy_cells(accuracy: Accuracy | None) -> tuple[str, str]:
    return ("", "") if accuracy is None else (share_and_n(accuracy.rate), f"{accuracy.log_loss:.3f}")


def _slices(report: Report) -> Section:
    groups: tuple[tuple[str, Sequence[Slice]], ...] = (
        ("by strength", report.by_strength),
        ("by rater", report.by_rater if len(report.by_rater) > 1 else ()),
        ("by length", report.by_length),
    )
    tables = [
        Table((name, ""), tuple((clean(one.name), share_and_n(one.rate)) for one in group))
        for name, group in groups
        if group
    ]
    parts: list[Part] = [*tables]
    if tables and (whose := measured_whose(report)):
        parts.append(Paragraph(f"This is of {whose}."))
    if report.length_correlation.value is not None:
        parts.append(
            Paragraph(f"Score and length go together by {coefficient(report.length_correlation)}, from -1 to +1.")
        )
    return Section("Where it is right", tuple(parts))


def _calibration(report: Report) -> Section:
    found = report.calibration
    if found is None:
        return Section("", ())
    rows = tuple((percent(one.predicted), percent(one.observed), f"{one.n} pairs") for one in found.bins)
    whose = f"Of {measured_whose(report)}. " if measured_whose(report) else ""
    return Section(
        "Is it as sure as it should be",
        (
            Table(("it is this sure", "and right", ""), rows),
            Paragraph(
                f"{whose}Off by {percent(found.ece)} on average (ECE); Brier score "
                f"{found.brier:.3f}, a coin 0.250. {_temperature(report, found.temperature)}"
            ),
        ),
    )


def measured_whose(report: Report) -> str:
    """Of which model the slices and the calibration are, when it is not the trained one; else empty."""
    if report.measured_on != "crossvalidated":
        return ""
    return f"{_BY[report.crossvalidated_by]} in cross-validation"


def _temperature(report: Report, value: float) -> str:
    if report.deciding is None or not report.deciding.rate.enough:
        return "So few pairs do not show whether its gaps are too wide."
    if value > 1.1:
        return f"It is too sure of itself: gaps divided by {value:.1f} would fit best."
    if value < 0.9:
        return f"It is too modest: gaps divided by {value:.2f} would fit best."
    return "Its gaps are as wide as they should be."


def _curve(report: Report) -> Section:
    curve = report.curve
    if curve is None or not curve.points:
        return Section("", ())
    rows = tuple(
        (percent(one.share), f"{one.pairs:.0f} pairs", with_ends(one.accuracy, one.low, one.high))
        for one in curve.points
    )
    said = []
    if curve.gain_50 is not None:
        said.append(f"50 more pairs: {points(curve.gain_50, 1)}.")
    if curve.asymptote is not None and curve.asymptote < READY:
        said.append(f"It seems to level off at about {percent(curve.asymptote)}.")
    if curve.pairs_to_ready is None:
        said.append("It does not show when it would be where 'ready' asks.")
    elif curve.pairs_to_ready > report.labels.train_pairs:
        said.append(f"It is where 'ready' asks at about {curve.pairs_to_ready} training pairs.")
    return Section(
        "Would more labels help",
        (
            Table(("of the labels", "", "the quick head is right"), rows),
            Paragraph(" ".join(said)),
        ),
    )


def _disagreements(report: Report) -> Section:
    shown = report.disagreements[:MOST_SHOWN]
    parts: list[Part] = [_disagreement(one) for one in shown]
    if shown:
        parts.append(Paragraph("1.0x is the usual gap between two scores of the model that was asked."))
    if len(report.disagreements) > len(shown):
        parts.append(Paragraph(f"And {len(report.disagreements) - len(shown)} more in report.json."))
    return Section("Where you and the model part ways most", tuple(parts))


def _disagreement(one: Disagreement) -> Quote:
    return Quote(
        (
            (f"judgement {one.judgement_id}", one.prompt_text),
            ("the rater prefers", one.better_text),
            (f"the model, by {-one.gap:.1f}x", one.worse_text),
        )
    )


def _preview(report: Report) -> Section:
    parts = []
    for one in report.preview[:MOST_SHOWN]:
        choices = [(f"best of {choice.n} ({choice.score:+.2f})", choice.text) for choice in one.choices]
        parts.append(Quote((("prompt", one.prompt_text), *choices)))
    return Section("What it would choose", tuple(parts))


def _facts(report: Report) -> Section:
    return Section("From what", (*_label_facts(report), *_training_facts(report), Paragraph(TRUTHS)))


TRUTHS = "The behaviour you will see is shaped by whoever did the rating. RLHF tunes behaviour, not facts."


def _label_facts(report: Report) -> Iterator[Part]:
    labels = report.labels
    too_long = f" {labels.too_long} were too long and left out." if labels.too_long else ""
    yield Paragraph(
        f"{labels.judgements} judgements by {_names(labels.raters)} gave {labels.comparisons} pairs over "
        f"{labels.prompts} prompts: {labels.train_pairs} to train on, {labels.heldout_pairs} held out "
        f"({labels.heldout_ties} ties).{too_long} Run {clean(report.run)}, labels {labels.hash[:12]}."
    )


_READ_FROM = {"mean": "the mean over the completion's tokens", "last": "the completion's last token"}


def _training_facts(report: Report) -> Iterator[Part]:
    training, units, ensemble = report.training, report.normalisation, report.ensemble
    chosen = training.kept_epoch != training.epochs
    stopped = f"; kept epoch {training.kept_epoch}, the best on the held-out pairs" if chosen else ""
    times = "once" if training.back_offs == 1 else f"{training.back_offs} times"
    tight = f" Memory ran out {times}; it went on in smaller batches." if training.back_offs else ""
    yield Paragraph(
        f"Trained {training.steps} steps in {training.epochs} epochs{stopped}.{tight} PPO takes scores as "
        f"(score {_less(units.mean)}) / {units.deviation:.3g}, from {units.n} {units.of}. A score is read "
        f"{f'after layer {training.layer}' if training.layer else 'after the last layer'}, from "
        f"{_READ_FROM[training.pooling]}."
    )
    if ensemble is not None:
        yield Paragraph(f"{ensemble.members} models that differ in seed and in the fold left out {_told(ensemble)}.")


def _told(ensemble: Ensemble) -> str:
    if not ensemble.accuracies:
        return "were trained; without held-out pairs there is nothing to hold them against"
    each = ", ".join(percent(one) for one in ensemble.accuracies)
    return f"are right about {each} of held-out pairs; their gaps differ by {ensemble.mean_spread:.2g} (raw) on average"


def _less(mean: float) -> str:
    return f"{'-' if mean >= 0 else '+'} {abs(mean):.3g}"


def _names(raters: Sequence[str]) -> str:
    shown = [clean(rater) for rater in raters[:MOST_SHOWN]]
    if len(raters) > MOST_SHOWN:
        shown.append(f"{len(raters) - MOST_SHOWN} more")
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part) or "nobody"
