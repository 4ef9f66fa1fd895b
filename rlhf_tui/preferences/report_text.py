"""What the judgements show, in plain words and at most 80 columns: for terminals, pipes and screen readers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rlhf_tui.preferences.agreement import Agreement, PairOfRaters
from rlhf_tui.preferences.consistency import Consistency
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.intervals import ENOUGH, Estimate, Rate
from rlhf_tui.preferences.project_report import ProjectReport, RaterReport
from rlhf_tui.preferences.selection import SelectionReport
from rlhf_tui.preferences.statistics import LabelReport

WIDTH = 80
#: Of many raters, so many are shown in full.
MOST_RATERS = 8
TOO_FEW = "too few to say"
NOTHING_YET = "nothing to count yet"

_ABOUT = {"preferences": "pairs of answers", "ratings": "rated answers", "acceptances": "answers accepted or not"}
_ESTIMATES = {
    "exact": "the same, ties included",
    "relaxed": "a tie counting half",
    "decisive": "where both see a better side",
    "alpha": "Krippendorff's alpha",
    "alpha_ordinal": "alpha, by rank",
    "alpha_interval": "alpha, by distance",
    "ac1": "Gwet's AC1",
    "ac2": "Gwet's AC2, by distance",
    "fleiss": "Fleiss' kappa",
}
_SHARES = ("exact", "relaxed", "decisive")


def project_text(report: ProjectReport) -> str:
    """Everything: how much there is, each rater, how they agree, active against random, and whose taste it is."""
    raters = report.raters[:MOST_RATERS]
    parts = [counts_text(report), *(rater_text(one) for one in raters)]
    if len(report.raters) > len(raters):
        parts.append(_wrapped(f"And {len(report.raters) - len(raters)} more raters: '--rater NAME' shows one of them."))
    parts += [agreement_text(one) for one in report.agreement]
    if report.pairs_of_raters:
        parts.append(_pairs_text(report.pairs_of_raters))
    if report.selection is not None:
        parts.append(selection_text(report.selection))
    parts.append(_truths(report.raters))
    return "\n\n".join(parts)


def counts_text(report: ProjectReport) -> str:
    """How much there is, and how the numbers below are meant."""
    counts = report.counts
    alike = f" ({counts.near_duplicates} near-identical left out)" if counts.near_duplicates else ""
    return _wrapped(
        f"{counts.prompts} prompts ({counts.train} for training, {counts.heldout} held out), {counts.completions} "
        f"candidates{alike}, {counts.pairs_waiting} pairs wait; {counts.judgements} judgements.\n"
        f"In brackets: 95 % intervals. Below n = {ENOUGH} a number is {TOO_FEW}."
    )


def rater_text(rater: RaterReport) -> str:
    """One rater: habits, pace, consistency and what it implies, nudges."""
    name = clean(rater.rater)
    lines = [f"{name} ({rater.kind})", *_habits(rater.report), _line("median time", _pace(rater.report))]
    lines += _consistency_lines(rater.report, name)
    lines += [_wrapped(nudge.text, "  ! ", "    ") for nudge in rater.nudges]
    return "\n".join(lines)


def agreement_text(agreement: Agreement) -> str:
    """How far raters agree about one kind of thing."""
    head = (
        f"Agreement about {agreement.units} {_ABOUT[agreement.about]} ({agreement.prompts} prompts) that two or more "
        f"have judged: {_names(agreement.raters)}."
    )
    lines = [
        _line(_ESTIMATES[key], (_share if key in _SHARES else _coefficient)(one))
        for key, one in agreement.estimates.items()
    ]
    return "\n".join(
        [_wrapped(head), *lines, "  Of alpha, AC and kappa 1 is full agreement and 0 what chance would give."]
    )


def selection_text(selection: SelectionReport) -> str:
    """Active against random so far."""
    rows = [("picked because the model was unsure", selection.active), ("picked at random", selection.random)]
    lines = ["Active or random so far"]
    for name, picks in rows:
        lines += [
            f"  {name}: {picks.n} pairs",
            _line("  one was better", _rate(picks.decisive)),
            _line("  the model bet on the other", _rate(picks.wrong)),
        ]
    return "\n".join([*lines, _wrapped(selection.sentence, "  ", "  ")])


def _habits(report: LabelReport) -> list[str]:
    said = [
        (report.ordered, "ordered"),
        (report.ties, "ties"),
        (report.both_bad, "all bad"),
        (report.rated, "rated"),
        (report.accepted, "accepted or rejected"),
    ]
    decided = ", ".join(f"{count} {what}" for count, what in said if count)
    head = f"{report.n} judgements{': ' if decided else ''}{decided}; {report.skipped} skipped"
    lines = [_wrapped(f"{head}, {report.discarded} discarded.", "  ", "  ")]
    rates = [
        ("the first one is better", report.first_side),
        ("the longer one is better", report.longer_wins),
        ("a refusal is better", report.refusal_wins),
        ("ties", report.tie_share),
        ("all bad", report.both_bad_share),
        ("skipped", report.skip_share),
        ("discarded", report.discard_share),
        ("in less than 2 seconds", report.too_fast),
        ("right about gold items", report.gold),
        ("the same again, ties included", report.consistency.same),
    ]
    lines += [_line(name, _rate(rate)) for name, rate in rates if rate.n and (rate.successes or name not in _NEWS)]
    return lines


def _consistency_lines(report: LabelReport, who: str) -> list[str]:
    return [_wrapped(text, "  ", "  ") for text in consistency_sentences(report.consistency, who)]


#: Worth a line only when there is any.
_NEWS = ("skipped", "discarded")


def consistency_sentences(found: Consistency, who: str) -> list[str]:
    """What the repeats say about the best any reward model can do on these labels, and where changes come from."""
    kept, best = found.self_consistency, found.ceiling
    if kept.share is None or best.value is None:
        return [f"No repeat yet tells how far {who} would say the same again; some come back by themselves later."]
    shown = (
        f"Shown again in reverse order, what {who} preferred wins again {kept.share:.0%} of {kept.n} times "
        f"[{kept.low:.0%}, {kept.high:.0%}]"
    )
    if not kept.enough:
        return [f"{shown}: {TOO_FEW} what that means for a reward model."]
    sentences = [
        f"{shown}. If the rest is chance, single labels are right {best.value:.0%} of the time "
        f"[{best.low:.0%}, {best.high:.0%}]: no reward model can agree with them more often than that."
    ]
    flips = found.flips
    if flips.n:
        sentences.append(
            f"Of {flips.n} that changed, {flips.side_habit} go with the side on screen; {flips.noise} look like chance."
        )
    return sentences


def _pairs_text(pairs: Sequence[PairOfRaters]) -> str:
    lines = ["Two by two, the same answer about pairs, and Cohen's kappa"]
    for pair in pairs:
        lines += [
            f"  {clean(pair.one)} and {clean(pair.other)}",
            _line("  the same answer", _share(pair.exact)),
            _line("  kappa", _coefficient(pair.kappa)),
        ]
    return "\n".join(lines)


def _truths(raters: Sequence[RaterReport]) -> str:
    if not raters:
        return "Nobody has judged anything yet: 'rlhf-tui label' begins."
    names = _names([rater.rater for rater in raters])
    return _wrapped(
        f"A model trained on these judgements behaves as {names} would have it: behaviour is shaped by whoever did the "
        "rating. RLHF tunes behaviour, not facts."
    )


def _names(raters: Sequence[str]) -> str:
    shown = [clean(rater) for rater in raters[:MOST_RATERS]]
    if len(raters) > MOST_RATERS:
        shown.append(f"{len(raters) - MOST_RATERS} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _pace(report: LabelReport) -> str:
    if report.median_seconds is None:
        return "unknown: no time was taken"
    pace = "" if report.per_hour is None else f"; {report.per_hour:.0f} an hour in the latest {report.sitting}"
    return f"{report.median_seconds:.1f} s{pace}"


def _rate(rate: Rate) -> str:
    if rate.share is None:
        return NOTHING_YET
    return _figure(f"{rate.share:.1%}", f"of {rate.n}", f"[{rate.low:.1%}, {rate.high:.1%}]", rate.enough)


def _share(estimate: Estimate) -> str:
    return _estimate(estimate, ".1%", "of")


def _coefficient(estimate: Estimate) -> str:
    return _estimate(estimate, ".2f", "n")


def _estimate(estimate: Estimate, form: str, of: str) -> str:
    if estimate.n == 0:
        return NOTHING_YET
    if estimate.value is None:
        return f"undefined {of} {estimate.n}: nothing differs"
    known = estimate.low is not None and estimate.high is not None
    ends = f"[{estimate.low:{form}}, {estimate.high:{form}}]" if known else "[unknown]"
    return _figure(f"{estimate.value:{form}}", f"{of} {estimate.n}", ends, estimate.enough)


def _figure(value: str, counted: str, ends: str, enough: bool) -> str:
    return f"{value:>6} {counted:<8} {ends:<16} {'' if enough else TOO_FEW}".rstrip()


def _line(name: str, text: str) -> str:
    return f"  {name:<29} {text}"


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    return "\n".join(
        textwrap.fill(line, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
        for line in text.splitlines()
    )
