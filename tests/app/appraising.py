"""A reward report on a project of `stories`, about what is really in it: judgements to judge again, texts to read."""

from __future__ import annotations

from dataclasses import replace

from rlhf_tui.assessment.records import Choice, Disagreement, Preview, Report
from rlhf_tui.project import Project
from rlhf_tui.runs.folder import list_runs
from tests.app.conftest import FINDINGS, full_report
from tests.app.project_states import write_report
from tests.app.stories import TALKS


def appraise(project: Project, level: str = "ready") -> None:
    """Put a report of this level beside the newest training."""
    run = [run for run in list_runs(project) if run.kind == "reward"][-1]
    findings = {"ready": FINDINGS[1:], "not_yet": FINDINGS[:1]}
    more = {"findings": findings[level]} if level in findings else {}
    report = full_report(level, run=run.name, disagreements=disagreements(project), preview=previews(), **more)
    write_report(by_ann_alone(report), run)


def disagreements(project: Project) -> tuple[Disagreement, ...]:
    """Some of Ann's judgements, as if the model thought otherwise, the last one least."""
    with project.store() as store:
        judged = sorted(store.judgements(), key=lambda one: one.id)[:6]
    found = []
    for place, one in enumerate(judged):
        worse, better = one.shown
        gap, kind = -3.1 + place / 5, "heldout" if place % 2 else "crossvalidated"
        texts = (one.prompt.text, better.text, worse.text)
        found.append(Disagreement(one.id, *texts, one.rater.handle, gap, kind))
    return tuple(found)


def previews() -> tuple[Preview, ...]:
    """What it would choose for three prompts; of sixteen it is the same as of four."""
    return tuple(
        Preview(
            question,
            (Choice(1, wordy, -0.42, 118), Choice(4, brief, 0.81, 4), Choice(16, brief, 0.81, 4)),
        )
        for question, wordy, brief in TALKS[:3]
    )


def by_ann_alone(report: Report) -> Report:
    """The same, of a project in which nobody else has judged."""
    return replace(report, labels=replace(report.labels, raters=("ann",)), by_rater=report.by_rater[:1])
