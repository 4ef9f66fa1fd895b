"""What the report on a reward model looks like in panels. Pure: a report and the room there is in, text out.

What is said in sentences comes from the report itself (`assessment.report_sections`), so that the screen, the
command line and the file say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from textual.content import Content

from rlhf_tui.app import forest, words
from rlhf_tui.app.appraisal import LEVELS, SEVERITIES
from rlhf_tui.app.forest import Bar
from rlhf_tui.app.widgets.panel import Row, lines, rows, tinted
from rlhf_tui.assessment.figures import signed
from rlhf_tui.assessment.records import Baseline, Disagreement, Finding, Interval, Report, Slice
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.intervals import Estimate, Rate

#: Beneath this a plot says less than its numbers.
LEAST_PLOT = 14
#: What stands at the right ends of the forest plot.
INTERVALS = "95 % intervals · beside a rule: the model's lead in points"
_KEPT = "\u00a0"  # keeps "71 %" on one line while wrapping


# The verdict


def banner(report: Report, width: int, height: int, key: str) -> Content:
    """The verdict, why, and what to do next: in `height` lines. Reasons that do not fit are where `key` leads."""
    mark, tone = LEVELS[report.verdict.level]
    headline = [line.stylize("bold") for line in _hanging(report.verdict.headline, f"{mark} ", width, tone)]
    todo = _hanging(report.verdict.todo, "→ ", width, "accent")
    because = [_hanging(reason, "  · ", width) for reason in report.verdict.because]
    room = height - len(headline) - len(todo)
    said = [line for reason in because for line in reason]
    if len(said) > room:
        said = _as_many(because, room - 1 if room > 2 else room)
        said += [tinted(f"    {key} shows the whole report", "quiet")][: max(room - len(said), 0)]
    gap = [Content("")] if room - len(said) >= 2 else []
    return lines(*[*headline, *gap, *said, *gap, *todo][: max(height, 1)])


def _as_many(reasons: Sequence[Sequence[Content]], room: int) -> list[Content]:
    """The first reasons that fit whole."""
    kept: list[Content] = []
    for reason in reasons:
        if len(kept) + len(reason) > room:
            break
        kept += reason
    return kept


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines, made safe to show, with a number and its '%' kept together."""
    kept = clean(text).replace(" %", f"{_KEPT}%")
    return [line.replace(_KEPT, " ") for line in words.wrapped(kept, max(width, 8))]


def _hanging(text: str, first: str, width: int, tone: str = "") -> list[Content]:
    found = wrapped(text, width - len(first))
    return [tinted((first if at == 0 else " " * len(first)) + line, tone) for at, line in enumerate(found)]


def summary(report: Report, key: str) -> Content:
    """What the detectors found, by name, in one line; nothing when they found nothing."""
    found = [one for one in report.findings if one.severity != "note"] or list(report.findings)
    if not found:
        return Content("")
    mark, tone = SEVERITIES[found[0].severity]
    names = ", ".join(clean(one.name) for one in found)
    return Content.assemble(tinted(f"{mark} Found: {names}", tone), tinted(f"   {key} says what to do", "quiet"))


def findings(found: Sequence[Finding], width: int, height: int) -> Content:
    """What the detectors found and the remedy for each, as many as fit."""
    if not found:
        return tinted("✓ Nothing suspicious was found.", "good")
    parts: list[Content] = []
    for one in found:
        mark, tone = SEVERITIES[one.severity]
        parts += _hanging(one.what, f"{mark} ", width, tone)
        parts += _hanging(one.remedy, "  → ", width, "quiet")
    return lines(*_cut(parts, height))


# How often it is right


@dataclass(frozen=True)
class Measured:
    """A line of a forest plot. `note` stands at its right end; without `enough` it is drawn quiet."""

    label: str
    share: float | None
    low: float | None
    high: float | None
    note: str = ""
    tone: str = ""
    enough: bool = True


def measured(report: Report) -> list[Measured]:
    """What tells most, first: the model's accuracy (the one that decides before the other), the rater's ceiling, the
    better of the length rules, the other rules, the training labels.
    """
    both = [("held-out", report.heldout), ("cross-validated", report.crossvalidated)]
    if report.measured_on == "crossvalidated":
        both.reverse()
    found = [_share(label, one.rate) for label, one in both if one]
    found[:1] = [replace(one, tone="accent") for one in found[:1]]
    ceiling = report.ceiling
    if ceiling is not None and ceiling.value is not None:
        found.append(_estimate("rater's ceiling", ceiling, words.plural(ceiling.n, "repeat")))
    lengths = [one for one in report.baselines if one.name in ("longer", "shorter")]
    lengths.sort(key=lambda one: one.rate.share or 0.0, reverse=True)
    others = [one for one in report.baselines if one not in lengths]
    found += [_baseline(one) for one in (*lengths[:1], *others, *lengths[1:])]
    if report.train is not None:
        found.append(_share("training labels", report.train.rate))
    return found


def _share(label: str, rate: Rate) -> Measured:
    return Measured(label, rate.share, rate.low, rate.high, f"n {rate.n}", "", rate.enough)


def _estimate(label: str, found: Estimate, note: str) -> Measured:
    return Measured(label, found.value, found.low, found.high, note, "", found.enough)


def _baseline(rule: Baseline) -> Measured:
    label = f"always {rule.name}" if rule.name in ("longer", "shorter") else clean(rule.name)
    found = rule.rate
    return Measured(label, found.share, found.low, found.high, _points(rule.difference), "", found.enough)


def _points(difference: Interval) -> str:
    middle, low, high = (signed(100 * value) for value in difference)
    return f"{middle} ({low} to {high})"


def accuracy(report: Report, width: int, most: int) -> Content:
    """The forest plot of what was measured, of at most so many lines and the scale."""
    shown = measured(report)[:most]
    if not shown:
        return tinted("Nothing could be measured: there is no decided pair of a prompt that it had not seen.", "warn")
    return lines(*forest_lines(shown, width))


def forest_lines(shown: Sequence[Measured], width: int, *, with_axis: bool = True) -> list[Content]:
    """Label, share, interval drawn on one scale, note; the interval in numbers where there is no room to draw."""
    label = max(len(one.label) for one in shown) + 2
    note = max(len(one.note) for one in shown)
    plot = width - label - 6 - 2 - note
    if plot < LEAST_PLOT:
        return [_in_numbers(one, label) for one in shown]
    on = forest.scale([bar for one in shown if (bar := _bar(one))], plot)
    found = []
    for one in shown:
        bar = _bar(one)
        picture = forest.drawn(bar, on) if bar else " " * plot
        tone = one.tone or ("" if one.enough else "quiet")
        found.append(
            Content.assemble(
                tinted(one.label.ljust(label), one.tone or "quiet"),
                tinted(f"{_percent(one.share):>5} ", tone),
                tinted(picture, one.tone or "quiet"),
                tinted(f"  {one.note}", "quiet"),
            )
        )
    if with_axis:
        found.append(tinted(" " * (label + 6) + forest.axis(on), "quiet"))
    return found


def _bar(one: Measured) -> Bar | None:
    return None if one.share is None or one.low is None or one.high is None else Bar(one.share, one.low, one.high)


def _in_numbers(one: Measured, label: int) -> Content:
    bar = _bar(one)
    interval = f"  {100 * bar.low:.0f} to {_percent(bar.high)}" if bar else ""
    return Content.assemble(
        tinted(one.label.ljust(label), one.tone or "quiet"),
        tinted(f"{_percent(one.share):>5}", one.tone or ("" if one.enough else "quiet")),
        tinted(interval, "quiet"),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else words.percent(share)


def slices(report: Report, width: int, height: int) -> Content:
    """The accuracy by strength, by rater (of several) and by length, on one scale."""
    groups = [("by strength", report.by_strength), ("by length", report.by_length)]
    if len(report.by_rater) > 1:
        groups.insert(1, ("by rater", report.by_rater))
    groups = [(name, group) for name, group in groups if group]
    if not groups:
        return tinted("Nothing could be measured.", "quiet")
    drawn = iter(forest_lines([_slice(one) for _, group in groups for one in group], width, with_axis=False))
    found: list[Content] = []
    for name, group in groups:
        found.append(tinted(name, "strong"))
        found += [next(drawn) for _ in group]
    return lines(*_cut(found, height))


def _slice(one: Slice) -> Measured:
    return _share(words.one_line(clean(one.name), 28), one.rate)


# What else it says


def disagreement(one: Disagreement, names: int, width: int, *, done: str = "") -> Content:
    """A disagreement in one line: its gap in usual ones, the rater in `names` columns, the prompt, and `done`."""
    rater = words.one_line(clean(one.rater), names)
    tone, mark = ("quiet", f"  {done}") if done else ("", "")
    begin = f"{-one.gap:>4.1f}x  {rater:<{names}}  {words.one_line(clean(one.prompt_text), width)}"
    line = tinted(begin, tone).truncate(max(width - len(mark), 8), ellipsis=True)
    room = max(width - len(mark) - line.cell_length, 0) if done else 0
    return Content.assemble(line, " " * room, tinted(mark, "good"))


def names_width(found: Sequence[Disagreement]) -> int:
    """The columns that the raters' names need, at most 14."""
    return min(max((len(clean(one.rater)) for one in found), default=0), 14)


def disagreements(report: Report, width: int, height: int, key: str) -> Content:
    """The largest ones, as many as fit, and the key that opens them."""
    if not report.disagreements:
        return tinted("None: it prefers what the raters preferred.", "good")
    names = names_width(report.disagreements)
    shown = [disagreement(one, names, width) for one in report.disagreements[: max(height - 1, 1)]]
    return lines(*shown, tinted(f"{key} opens them, to judge again", "quiet"))


def best_of(report: Report, width: int, height: int, key: str) -> Content:
    """What it would choose for the first prompts, a line for each choice."""
    if not report.preview:
        return tinted("No completions were sampled (reward.preview_prompts).", "quiet")
    found: list[Content] = []
    for one in report.preview:
        if len(found) + 1 + len(one.choices) > height - 1:
            break
        found.append(Content.assemble(tinted("P ", "accent"), words.one_line(clean(one.prompt_text), width - 2)))
        before: dict[str, int] = {}
        for choice in one.choices:
            head = f"of {choice.n:<3} {choice.score:+6.2f}  "
            same = before.setdefault(choice.text, choice.n)
            text = words.one_line(clean(choice.text), max(width - len(head), 8))
            found.append(
                Content.assemble(tinted(head, "quiet"), text if same == choice.n else tinted(f"= of {same}", "quiet"))
            )
    return lines(*found, tinted(f"{key} shows them side by side", "quiet"))


def facts(report: Report) -> Content:
    """What it learnt from, how training went, the unit of its scores, and whose taste it is."""
    labels, training, units, ensemble = report.labels, report.training, report.normalisation, report.ensemble
    chosen = training.kept_epoch != training.epochs
    kept = f"kept epoch {training.kept_epoch}" if chosen else words.plural(training.steps, "step")
    found = [
        Row("judged", words.plural(labels.comparisons, "pair"), words.plural(labels.prompts, "prompt")),
        Row("learnt from", words.plural(labels.train_pairs, "pair"), f"ties: {labels.ties}"),
        Row("held out", words.plural(labels.heldout_pairs, "pair"), words.plural(labels.heldout_ties, "tie")),
        Row("trained", words.plural(training.epochs, "epoch"), kept),
        Row("read", f"layer {training.layer}" if training.layer else "last layer", _READ_FROM[training.pooling]),
        Row("scores", f"{units.mean:+.2f} ± {units.deviation:.2f}", f"{units.n} {_SCORED[units.of]}"),
        _coefficient("score and length", report.length_correlation),
    ]
    if ensemble is not None:
        each = ", ".join(f"{100 * one:.0f}" for one in ensemble.accuracies) or "-"
        found.append(Row("ensemble", f"{each} %", f"spread {words.number(ensemble.mean_spread)}"))
    who = ", ".join(clean(name) for name in labels.raters) or "nobody"
    return lines(rows(found), "", "The behaviour you see is shaped by", f"whoever did the rating: {who}.")


_READ_FROM = {"mean": "mean of tokens", "last": "last token"}
_SCORED = {"reference completions": "of the base", "judged candidates": "judged"}


def _coefficient(label: str, found: Estimate) -> Row:
    if found.value is None:
        return Row(label, "-")
    interval = "" if found.low is None or found.high is None else f"{found.low:+.2f} to {found.high:+.2f}"
    return Row(label, f"{found.value:+.2f}", interval, "" if found.enough else "quiet")


def _cut(found: Sequence[Content], height: int) -> list[Content]:
    """The first lines, with a mark where there are more."""
    if len(found) <= height:
        return list(found)
    return [*found[: max(height - 1, 0)], tinted("…", "quiet")]
