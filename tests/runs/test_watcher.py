"""The parent of a worker: it knows how the worker ended, whoever had launched it and has gone since."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import launcher, watcher
from rlhf_tui.runs.ending import Ending, ending
from rlhf_tui.runs.folder import RunFolder, create_run, find
from rlhf_tui.runs.launcher import await_exit, launch

Start = Callable[..., RunFolder]
Until = Callable[..., None]


def worker_of(run: RunFolder) -> psutil.Process:
    return psutil.Process(run.holder().pid)


def end_of(run: RunFolder) -> Ending:
    await_exit(run)
    found = ending(run)
    assert found is not None
    return found


@pytest.fixture
def launched_by_another(project: Project, stages: str, start: Start) -> RunFolder:
    """A run whose launcher has ended; `start` clears up."""
    code = (
        "from pathlib import Path\n"
        "from rlhf_tui.project import open_project\n"
        "from rlhf_tui.runs.folder import create_run\n"
        "from rlhf_tui.runs.launcher import launch\n"
        f"project = open_project(Path({str(project.root)!r}))\n"
        f"launch(project, create_run(project, 'steady'), stages={stages!r})\n"
    )
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path.cwd())])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
    return find(project, "steady-0001")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_the_signal_is_known_when_the_launcher_has_gone(
    launched_by_another: RunFolder, until: Until, number: signal.Signals
) -> None:
    run = launched_by_another
    assert run.status() == "running"
    worker_of(run).send_signal(number)
    until(lambda: not run.alive, "the worker is gone")
    end = end_of(run)
    assert end.cause in ("killed", "native")  # faulthandler leaves its own word of an abort
    assert json.loads((run.path / watcher.EXIT).read_text())["signal"] == number
    if number == signal.SIGKILL:
        assert "SIGKILL" in end.what


def test_it_is_small_and_deaf_and_ends_with_the_worker(launched_by_another: RunFolder, until: Until) -> None:
    run = launched_by_another
    worker = worker_of(run)
    parent = worker.parent()
    assert parent is not None
    assert "watcher.py" in " ".join(parent.cmdline())
    assert os.getsid(parent.pid) == parent.pid != os.getsid(worker.pid)
    assert parent.memory_info().rss < 20 << 20
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        parent.send_signal(number)
    worker.kill()
    until(lambda: not parent.is_running(), "the watcher ends")
    assert end_of(run).cause == "killed"


def test_a_project_that_was_moved_has_the_note_in_its_new_place(launched_by_another: RunFolder, until: Until) -> None:
    run = launched_by_another
    worker = worker_of(run)
    root = run.path.parents[1]
    root.rename(root.with_name("moved"))
    moved = RunFolder(root.with_name("moved") / "runs" / run.name)
    worker.kill()
    until(lambda: not moved.alive, "the worker is gone")
    assert end_of(moved).cause in ("killed", "failed")  # the latter when it was quicker to notice


def test_without_its_watcher_a_worker_goes_on_and_its_end_is_unexplained(start: Start, until: Until) -> None:
    run = start("steady")
    worker = worker_of(run)
    parent = worker.parent()
    assert parent is not None
    parent.kill()
    until(lambda: not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE, "the watcher is gone")
    assert run.status() == "running"
    worker.kill()
    until(lambda: not run.alive, "the worker is gone")
    assert end_of(run).cause == "vanished"


def test_a_watcher_killed_before_the_launch_leaves_nothing_running(
    project: Project, run: RunFolder, stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = launcher._start
    workers: list[int] = []

    def killed(*given: object) -> object:
        process, pid = begin(*given)  # type: ignore[arg-type]
        process.kill()
        process.wait()
        workers.append(pid)
        return process, pid

    monkeypatch.setattr(launcher, "_start", killed)
    with pytest.raises(UserError, match="did not start") as caught:
        launch(project, run, stages=stages)
    assert "watches it was killed by signal 9" in caught.value.why
    assert run.status() == "failed"
    assert workers[0] > 0
    assert not run.alive


def test_a_worker_that_cannot_be_started_is_told_of(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "$2" "$3" "$4" /nowhere/python\n')
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(UserError, match="did not start") as caught:
        launch(project, run)
    assert "/nowhere/python cannot be started" in caught.value.why


@pytest.mark.parametrize(
    ("ending_with", "code", "noted"),
    [
        ("exit 0", 0, {"code": 0, "signal": 0}),
        ("exit 3", 3, {"code": 3, "signal": 0}),
        ("kill -9 $$", 128 + 9, {"code": 0, "signal": 9}),
        (f"exit {watcher.BUSY}", watcher.BUSY, None),
        (f"exit {watcher.TAKEN}", watcher.TAKEN, None),
    ],
)
def test_it_ends_as_the_worker_did(ending_with: str, code: int, noted: dict[str, int] | None, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", watcher.__file__, str(tmp_path), "/bin/sh", "-c", f"echo; {ending_with}"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert found.returncode == code
    pid = int(found.stdout)
    assert found.stderr == b"\n", "the worker's output goes where standard error goes"
    if noted is None:
        assert not (tmp_path / watcher.EXIT).exists()
    else:
        left = json.loads((tmp_path / watcher.EXIT).read_text())
        assert left == {"pid": pid, "oom_kills": left["oom_kills"], **noted}
        assert (tmp_path / watcher.EXIT).stat().st_mode & 0o777 == 0o600


def test_a_later_execution_forgets_how_an_earlier_one_ended(
    project: Project, start: Start, stages: str, until: Until
) -> None:
    run = create_run(project, "steady")
    watcher.note(run.path / watcher.EXIT, 1, 0, 11)
    launch(project, run, stages=stages)
    assert not (run.path / watcher.EXIT).exists()
