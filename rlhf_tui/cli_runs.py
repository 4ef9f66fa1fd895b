"""The verbs about runs: training, exporting, and looking at and steering what goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_tui import verbs
from rlhf_tui.cli_options import HERE, Detach, Folder, Json, Out, Resume, Set, group

if TYPE_CHECKING:
    from rlhf_tui.runs.exporting import Exported

train = group("Train the reward model, then the policy.")
runs = group("Look at runs and control them.")
export = group("Write the tuned model for other programs.")

Name = Annotated[str, typer.Argument(metavar="RUN", help="Its name or number: 'rlhf-tui runs list'.")]


# -- training and exporting -----------------------------------------------------------------------


@train.command("reward")
def train_reward(
    resume: Resume = "", project: Folder = HERE, settings: Set = None, detach: Detach = False, as_json: Json = False
) -> None:
    """Train the reward model on the judged pairs, and say whether it is good enough."""
    if resume:
        verbs.resume_training(project, "reward", resume, settings or [], detach, as_json)
    else:
        verbs.run_stage(project, "reward", settings or [], {}, detach, as_json)


@train.command("ppo")
def train_ppo(
    resume: Resume = "", project: Folder = HERE, settings: Set = None, detach: Detach = False, as_json: Json = False
) -> None:
    """Move the policy towards what the reward model scores highly."""
    if resume:
        verbs.resume_training(project, "ppo", resume, settings or [], detach, as_json)
    else:
        verbs.run_stage(project, "ppo", settings or [], {}, detach, as_json)


@export.command("merged")
def export_merged(
    out: Out = None, project: Folder = HERE, settings: Set = None, detach: Detach = False, as_json: Json = False
) -> None:
    """One ordinary checkpoint of base and adapter, which transformers loads."""
    verbs.run_export(project, "merged", out, settings or [], detach, as_json)


@export.command("adapter")
def export_adapter(
    out: Out = None, project: Folder = HERE, settings: Set = None, detach: Detach = False, as_json: Json = False
) -> None:
    """The policy's LoRA adapter, as PEFT reads it."""
    verbs.run_export(project, "adapter", out, settings or [], detach, as_json)


# -- runs -----------------------------------------------------------------------------------------


@runs.command("list")
def runs_list(project: Folder = HERE, as_json: Json = False) -> None:
    """All runs, oldest first."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.ending import ending
    from rlhf_tui.runs.folder import list_runs

    rows = [(run.name, run.status(), ending(run)) for run in list_runs(open_project(project))]
    text = "\n".join(f"{name:<16} {end.label if end else status}" for name, status, end in rows) or "No runs yet."
    document = [{"run": name, "status": status, "cause": end.cause if end else ""} for name, status, end in rows]
    verbs.say(document, text, as_json)


@runs.command("show")
def runs_show(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """One run: how it fares and what it came to."""
    from rlhf_tui.project import open_project
    from rlhf_tui.reports import run_document, run_summary
    from rlhf_tui.runs.folder import find

    run = find(open_project(project), name)
    verbs.note_newer_version(run)
    verbs.say(run_document(run), run_summary(run), as_json)


@runs.command("report")
def runs_report(
    name: Name,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, to keep or to send.")] = False,
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """The report on a reward model: is it good enough, and why. 'rlhf-tui help reward' explains it."""
    from dataclasses import asdict

    from rlhf_tui.assessment.report_text import report_markdown, report_text
    from rlhf_tui.project import open_project
    from rlhf_tui.reports import reward_report
    from rlhf_tui.runs.folder import find

    found = reward_report(find(open_project(project), name))
    text = report_markdown(found) if markdown else report_text(found)
    verbs.say(asdict(found), text.rstrip("\n"), as_json)


@runs.command("export")
def runs_export(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="csv|jsonl|tensorboard", help="Which form.")] = "csv",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="A new file (tensorboard: folder); default: in exports/."),
    ] = None,
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Write a run's metrics for other programs, also while it goes on.

    csv: one row a step, one column a metric. jsonl: one object for each metric event and each sample.
    tensorboard: a folder for 'tensorboard --logdir', samples as texts. A demo leaves with its parts.
    """
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.exporting import export_metrics
    from rlhf_tui.runs.folder import find

    opened = open_project(project)
    written = export_metrics(opened, find(opened, name), to, out)
    verbs.say(asdict(written) | {"path": str(written.path)}, _exported(written), as_json)


def _exported(written: Exported) -> str:
    """What was written where, and what is not in it."""
    what = f"{_counted(written.metrics, 'metric')} over {_counted(written.steps, 'step')}"
    what += f" and {_counted(written.samples, 'sample')}" if written.samples else ""
    lines = [f"{written.path}: {what} of {', '.join(written.runs)}."]
    if written.going_on:
        lines.append("The run goes on: this is what it had told by now.")
    if written.skipped:
        lines.append(f"Left out: {_counted(written.skipped, 'broken line')} of the journal.")
    if written.missing:
        lines.append(f"Left out: {', '.join(written.missing)}, whose folder is gone.")
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@runs.command("watch")
def runs_watch(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Follow a run until it ends. Ctrl-C stops it (it saves first)."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.folder import find

    opened = open_project(project)
    verbs.follow_and_report(opened, find(opened, name), as_json)


@runs.command("pause")
def runs_pause(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Ask a run to save after its current step, give card and memory back, and wait."""
    verbs.ask(project, name, "pause", as_json)


@runs.command("save")
def runs_save(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Ask a run to save after its current step and go on."""
    verbs.ask(project, name, "save", as_json)


@runs.command("resume")
def runs_resume(name: Name, project: Folder = HERE, detach: Detach = False, as_json: Json = False) -> None:
    """Let a paused run go on, or take up one that was stopped or has crashed."""
    verbs.resume(project, name, detach, as_json)


@runs.command("stop")
def runs_stop(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Ask a run to save and stop."""
    verbs.ask(project, name, "stop", as_json)
