"""The verbs about runs: training, exporting, and looking at and steering what goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf_tui import verbs
from rlhf_tui.cli_options import HERE, Detach, Folder, Json, Out, Resume, Set, group

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
    from rlhf_tui.runs.folder import list_runs

    rows = [(run.name, run.status()) for run in list_runs(open_project(project))]
    text = "\n".join(f"{name:<16} {status}" for name, status in rows) or "No runs yet."
    verbs.say([{"run": name, "status": status} for name, status in rows], text, as_json)


@runs.command("show")
def runs_show(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """One run: how it fares and what it came to."""
    from rlhf_tui.project import open_project
    from rlhf_tui.reports import run_document, run_summary
    from rlhf_tui.runs.folder import find

    run = find(open_project(project), name)
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


@runs.command("watch")
def runs_watch(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Follow a run until it ends. Ctrl-C stops it (it saves first)."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.folder import find

    opened = open_project(project)
    verbs.follow_and_report(opened, find(opened, name), as_json)


@runs.command("pause")
def runs_pause(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Ask a run to wait after its current step."""
    verbs.ask(project, name, "pause", as_json)


@runs.command("resume")
def runs_resume(name: Name, project: Folder = HERE, detach: Detach = False, as_json: Json = False) -> None:
    """Let a paused run go on, or take up one that was stopped or has crashed."""
    verbs.resume(project, name, detach, as_json)


@runs.command("stop")
def runs_stop(name: Name, project: Folder = HERE, as_json: Json = False) -> None:
    """Ask a run to save and stop."""
    verbs.ask(project, name, "stop", as_json)
