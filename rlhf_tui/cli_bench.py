"""The verb `bench`: a run like any other; where there is no project, in one that lasts as long as the verb."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_tui import verbs
from rlhf_tui.cli_options import HERE
from rlhf_tui.errors import UsageError

if TYPE_CHECKING:
    from rlhf_tui.project import Project


def run_bench(folder: Path, model: str, overrides: Sequence[str], detach: bool, as_json: bool) -> None:
    """Start the bench and follow it, unless detached.

    `model` empty: the project's, or the default where `folder` is the current one and no project. Raises UsageError
    for an unknown model or setting, a folder that is not a project, and --detach without a project.
    """
    from rlhf_tui.locate import require
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.launcher import launch
    from rlhf_tui.runs.trust import trust_typed
    from rlhf_tui.runs.turn import require_free

    wanted = ([f"model.name={model}", "model.revision="] if model else []) + list(overrides)
    with _project(folder, detach) as project:
        settings = project.settings(wanted)
        require(settings.model.name, settings.model.revision)
        require_free(project, "bench", settings.run.when_busy, "The bench run")
        trust_typed(project.root, overrides)
        run = create_run(project, "bench", overrides=wanted)
        launch(project, run)
        verbs.attend(project, run, detach, as_json)


@contextmanager
def _project(folder: Path, detach: bool) -> Iterator[Project]:
    """The project in `folder`; where nobody named one and there is none, a new one that is removed again."""
    from rlhf_tui.project import CONFIG, create_project, open_project

    if folder != HERE or (folder / CONFIG).exists():
        yield open_project(folder)
        return
    if detach:
        raise UsageError(
            "There is no project here that a detached bench could belong to.",
            todo="Leave out --detach, or name a project with --project DIR.",
        )
    with tempfile.TemporaryDirectory(prefix="rlhf-tui-bench-") as place:
        yield create_project(Path(place) / "bench")
