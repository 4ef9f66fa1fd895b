"""How verbs work: what they say, and how those that need the model make a run, start it and follow it.

Everything is checked before a run folder is made, so that a verb that cannot work leaves nothing behind.
"""

from __future__ import annotations

import gc
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rlhf_tui.errors import UsageError

if TYPE_CHECKING:
    from rlhf_tui.project import Project
    from rlhf_tui.runs.control import Verb
    from rlhf_tui.runs.folder import RunFolder


def say(document: Any, text: str, as_json: bool) -> None:
    """Print a verb's answer: one JSON document, or the text for a person."""
    typer.echo(json.dumps(document, ensure_ascii=False) if as_json else text)


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def require_terminal(who: str) -> None:
    """Raises UsageError when there is no terminal."""
    if not is_terminal():
        raise UsageError(f"{who} needs a terminal.", todo="'rlhf-tui --help' lists the verbs that do without.")


def open_app(project: Project | None, base: Path, **how: Any) -> None:
    """Show the app until the user leaves it; see `app.session.run_session`."""
    # Of all that is made before the first screen, nothing is garbage: looking for it takes a tenth of the time to that
    # screen. `Frame.begin` turns it on again.
    gc.disable()
    from rlhf_tui.app.session import run_session

    run_session(project, base, **how)


# -- starting runs --------------------------------------------------------------------------------


def run_stage(
    folder: Path, kind: str, overrides: Sequence[str], options: Mapping[str, Any], detach: bool, as_json: bool
) -> None:
    """Make a run of `kind`, start its worker, and follow it unless detached."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.launcher import launch
    from rlhf_tui.runs.preflight import nobody_told, require_ready
    from rlhf_tui.runs.trust import trust_typed

    project = open_project(folder)
    settings = project.settings(overrides)
    trust_typed(project.root, overrides)
    require_ready(project, kind, settings)
    if detach and (warning := nobody_told(project, settings)):  # whoever follows the run hears of it there
        typer.echo(warning, err=True)
    run = create_run(project, kind, overrides=overrides, options=options)
    launch(project, run)
    attend(project, run, detach, as_json)


def run_export(
    folder: Path, form: str, out: Path | None, overrides: Sequence[str], detach: bool, as_json: bool
) -> None:
    """Start an export run; `out` None lets it choose a folder in exports/."""
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already.", todo="Choose another folder with --out.")
    options = {"format": form} | ({"out": str(out.resolve())} if out is not None else {})
    run_stage(folder, "export", overrides, options, detach, as_json)


def run_demo(directory: Path, headless: bool, overrides: Sequence[str], as_json: bool) -> None:
    """Make the demo project or take up the one that is there; follow its run in the app or on the console."""
    from rlhf_tui.demo.start import start_demo

    project, run, finished = start_demo(directory, overrides)
    if headless or as_json or not is_terminal():
        follow_and_report(project, run, as_json)
        return
    open_app(project, Path.cwd(), follow=None if finished else run)
    typer.echo(
        f"The project is in {project.root}. 'rlhf-tui {shlex.quote(str(directory))}' opens it again; "
        "runs go on by themselves."
    )


# -- runs that are there --------------------------------------------------------------------------


def note_newer_version(run: RunFolder) -> None:
    """Say on standard error when a run is a newer version's: something of it may not be shown."""
    from rlhf_tui.runs.versions import newer_version

    if why := newer_version(run.record_path, run.events_path):
        typer.echo(f"Something of {run.name} may be missing here: {why}", err=True)


def resume_training(folder: Path, kind: str, name: str, overrides: Sequence[str], detach: bool, as_json: bool) -> None:
    """Like `resume`, for a run of this kind. Raises UsageError for another kind, or with settings."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.folder import find

    run = find(open_project(folder), name)
    if overrides:
        raise UsageError("A run goes on with the settings it was started with.", todo="Leave out --set.")
    if run.kind != kind:
        raise UsageError(
            f"{run.name} is not a {kind} run.", todo=f"'rlhf-tui runs resume {run.name}' takes up any kind of run."
        )
    resume(folder, run.name, detach, as_json)


def resume(folder: Path, name: str, detach: bool, as_json: bool) -> None:
    """End the pause of a run, or start its worker again; then follow it unless detached."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.control import request
    from rlhf_tui.runs.folder import find

    project = open_project(folder)
    run = find(project, name)
    status = run.status()
    if status == "finished":
        raise UsageError(f"{run.name} has finished.", todo=f"'rlhf-tui runs show {run.name}' shows what it came to.")
    if status in ("running", "paused"):
        request(run, "resume")
    else:
        launch_or_join(project, run)
    attend(project, run, detach, as_json)


def launch_or_join(project: Project, run: RunFolder) -> None:
    """Start the worker of `run`, unless it has one already."""
    from rlhf_tui.runs.folder import RunBusy
    from rlhf_tui.runs.launcher import launch

    try:
        launch(project, run)
    except RunBusy:
        return


def attend(project: Project, run: RunFolder, detach: bool, as_json: bool) -> None:
    """Follow a run to its end, or, detached, say how to come back to it."""
    from rlhf_tui.runs.turn import waits_for

    if detach:
        other = waits_for(run)
        doing = f"begins when {other} has ended" if other else "is running"
        text = f"{run.name} {doing}; 'rlhf-tui runs watch {run.name}' shows it."
        say({"run": run.name, "path": str(run.path), "waits_for": other}, text, as_json)
    else:
        follow_and_report(project, run, as_json)


def follow_and_report(project: Project, run: RunFolder, as_json: bool) -> None:
    """Show progress on standard error until the run ends, then its report (or JSON document) on standard output."""
    from rlhf_tui.console import follow_on_console, silent, terminal_announcer
    from rlhf_tui.reports import report

    note_newer_version(run)
    done = follow_on_console(project, run, announce=silent if as_json else terminal_announcer())
    if done.status == "stopped":
        text = f"{run.name} is stopped; 'rlhf-tui runs resume {run.name}' goes on."
        say({"run": run.name, "status": "stopped"}, text, as_json)
        return
    say({"run": run.name, "status": done.status} | done.result, report(run.kind, done.result), as_json)


_NOTHING_TO_SAVE = {"queued": "queued: it has nothing to save yet.", "paused": "paused: it saved before that."}


def ask(folder: Path, name: str, verb: Verb, as_json: bool) -> None:
    """Ask a run for something and say that it was asked. Raises UsageError when it has ended."""
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.control import request
    from rlhf_tui.runs.folder import find

    run = find(open_project(folder), name)
    status = run.status()
    request(run, verb)
    asked = status in ("queued", "running", "paused")
    text = f"asked to {verb}; it does so after its current step." if asked else f"not running: it is {status}."
    if verb == "save" and status in _NOTHING_TO_SAVE:
        text = _NOTHING_TO_SAVE[status]
    say({"run": run.name, "status": status, "asked": verb if asked else ""}, f"{run.name} is {text}", as_json)
