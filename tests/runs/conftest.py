"""What the tests of runs share: a project, stages that stand in for the engine, and a patient wait."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.control import stop_signal
from rlhf_tui.runs.events import Launch, Stamped
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import launch

STAGES_FOLDER = Path(__file__).parent / "stages"

Until = Callable[..., None]
Start = Callable[..., RunFolder]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path / "project")


@pytest.fixture
def run(project: Project) -> RunFolder:
    return create_run(project, "quick")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of stand-in stages, importable here and in the workers."""
    monkeypatch.syspath_prepend(str(STAGES_FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(STAGES_FOLDER))
    return "runs_fake_stages"


@pytest.fixture
def until() -> Until:
    """`until(condition, what)` returns when the condition holds, and fails when it never does."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}"
            time.sleep(0.01)

    return wait


@pytest.fixture
def events() -> Callable[[RunFolder], list[Stamped]]:
    """All events of a run so far."""

    def read(run: RunFolder) -> list[Stamped]:
        return JournalReader(run.events_path).read(budget=60)

    return read


@pytest.fixture
def start(project: Project, stages: str, until: Until) -> Iterator[Start]:
    """`start(kind)` makes a run and launches its worker; whatever still lives at the end is killed."""

    def make(kind: str, **options: object) -> RunFolder:
        run = create_run(project, kind, options=options)
        launch(project, run, stages=stages)
        return run

    yield make
    for run in list_runs(project):
        launches = [event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Launch)]
        if run.alive:
            os.kill(launches[-1].pid, signal.SIGKILL)
            until(lambda run=run: not run.alive, f"{run.name} lets go of its lock")


@pytest.fixture(autouse=True)
def _no_stop_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signal, "count", 0)
