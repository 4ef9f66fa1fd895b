"""From Home to a project and back, until the user leaves: one app after the other, never two at a time."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from rlhf_tui import projects
from rlhf_tui.app import announcing, terminal
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.keyfile import key_file, load_keymap
from rlhf_tui.app.themefile import taste, theme_file
from rlhf_tui.app.usage import MachineWatch
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.project import Project
from rlhf_tui.runs.folder import RunFolder


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
        if not run_app(project, **how):
            return
        project = None


def run_app(
    project: Project,
    *,
    follow: RunFolder | None = None,
    start: str = "",
    rater: str = "",
    rules: Rules | None = None,
    greeting: str = "",
) -> bool:
    """Show the project until the user leaves it; whether for Home, where all projects are.

    `follow` is a demo run whose stages the app moves along with; `start` names the screen to open with
    ('label', or a stage) instead of the one the project is at; `rater` and `rules` are those of labelling,
    instead of the project's own; `greeting` is said once. Raises UserError without a terminal, or for a broken
    file of keys.
    """
    terminal.require_terminal()
    machine = MachineWatch()
    app = RlhfApp(
        project,
        follow=follow,
        start=start,
        rater=rater,
        rules=rules,
        greeting=greeting,
        keymap=load_keymap(key_file()),
        taste=taste(theme_file()),
        machine=machine,
    )
    with closing(machine):
        app.run()
    if app.announced:
        print(announcing.FORMER_TITLE, end="", file=sys.__stderr__, flush=True)
    live = app.overview.live
    if live is not None and not app.going_home:
        print(f"{live.name} goes on. Come back with: rlhf-tui {shlex.quote(str(project.root))}")
    return app.going_home
