"""From Home to a project and back, until the user leaves: one app after the other, never two at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf_tui import projects
from rlhf_tui.app import app
from rlhf_tui.project import Project


def run_session(project: Project | None, base: Path, **how: Any) -> None:
    """Show `project`, or Home when it is None, and whatever the user opens from there.

    `how` is given to `run_app` for the first project. `base` is the folder in which Home makes new ones. Raises
    what `run_app` raises.
    """
    while True:
        if project is None:
            from rlhf_tui.app import home  # most people open a project at once

            choice = home.run_home(base)
            if choice is None:
                return
            project, how = choice.project, choice.how()
        projects.note(project.root)
        if not app.run_app(project, **how):
            return
        project = None
