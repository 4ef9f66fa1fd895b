"""Starting the demo, for the command line and the app: its project is made or taken up, and its run is at work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rlhf_tui import projects, settings
from rlhf_tui.demo import SETTINGS, STAGES, create_demo_project
from rlhf_tui.errors import UsageError
from rlhf_tui.locate import require
from rlhf_tui.project import CONFIG, Project, open_project
from rlhf_tui.runs import launcher
from rlhf_tui.runs.folder import RunBusy, RunFolder, create_run, latest
from rlhf_tui.runs.trust import trust_typed

#: Where the demo goes when no folder is named.
FOLDER = "rlhf-demo"


class Demo(NamedTuple):
    """The demo's project and run. `finished`: the run had ended well before, and nothing was started."""

    project: Project
    run: RunFolder
    finished: bool


def start_demo(directory: Path, overrides: Sequence[str] = ()) -> Demo:
    """Make the demo project in `directory` or take up the one that is there, and have its run at work.

    Raises UsageError when the folder is no place for it, the model cannot be had, or a run that is there would
    need other settings.
    """
    project, run = _project_and_run(directory, overrides)
    projects.note(project.root, opened=False)
    finished = run.status() == "finished"
    if not finished:
        with suppress(RunBusy):  # it has a worker already
            launcher.launch(project, run)
    return Demo(project, run, finished)


def _project_and_run(directory: Path, overrides: Sequence[str]) -> tuple[Project, RunFolder]:
    options = {"stages": list(STAGES)}
    if not (directory / CONFIG).exists():
        model = settings.load(directory / CONFIG, [*SETTINGS, *overrides]).model
        require(model.name, model.revision)
        project = create_demo_project(directory, tuple(overrides))
        trust_typed(project.root, overrides)
        return project, create_run(project, "demo", options=options)
    project = open_project(directory)
    run = latest(project, "demo")
    if run is None:
        model = project.settings(overrides).model
        require(model.name, model.revision)
        trust_typed(project.root, overrides)
        return project, create_run(project, "demo", overrides=overrides, options=options)
    if overrides:
        raise UsageError(
            f"{run.name} of {project.root} goes on with the settings it was started with.",
            todo="Leave out --set, or name another folder for a new demo.",
        )
    return project, run
