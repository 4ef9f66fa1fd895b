"""A paused run has given its memory back, still holds its lock, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.project import Project
from rlhf_tui.runs import modes, pausing, watcher
from rlhf_tui.runs.control import Control, StopSignal, request
from rlhf_tui.runs.events import Alert, Done, Event, Launch, Metric, Stage, Stamped
from rlhf_tui.runs.folder import RunBusy, RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import launch

STAGES = "pausing_fake_stages"
MODEL = 200 << 20  # bytes
STEPS = 60

Until = Callable[..., None]
Events = Callable[[RunFolder], list[Stamped]]
Launched = Callable[..., RunFolder]


@pytest.fixture
def launched(project: Project, stages: str, until: Until) -> Iterator[Launched]:
    """`launched(kind)` starts a worker that does `steps` steps and then waits for more to be allowed."""

    def make(kind: str, *, steps: int, size: int = 1 << 20) -> RunFolder:
        run = create_run(project, kind, options={"bytes": size})
        (run.path / "go").write_text(str(steps))
        launch(project, run, stages=STAGES)
        return run

    yield make
    for run in list_runs(project):
        if run.alive:
            os.kill(worker_of(run).pid, signal.SIGKILL)
            until(lambda run=run: not run.alive, f"{run.name} lets go of its lock")


def worker_of(run: RunFolder) -> psutil.Process:
    launches = [event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Launch)]
    return psutil.Process(launches[-1].pid)


def steps_of(run: RunFolder) -> list[int]:
    return [event.step for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Metric)]


def paused(run: RunFolder, until: Until) -> None:
    request(run, "pause")
    until(lambda: run.status() == "paused", "the run is paused")


def resumed(run: RunFolder) -> None:
    (run.path / "go").write_text(str(STEPS))
    request(run, "resume")


def expected() -> list[Metric]:
    value, metrics = 1, []
    for step in range(1, STEPS + 1):
        value = value * 31 % 65_537
        metrics.append(Metric(step, {"value": float(value)}))
    return metrics


def test_paused_it_has_given_back_all_that_the_model_took(launched: Launched, until: Until, events: Events) -> None:
    run = launched("heavy", steps=5, size=MODEL)
    until(lambda: 5 in steps_of(run), "five steps are done")
    worker = worker_of(run)
    held = worker.memory_info().rss
    paused(run, until)
    left = worker.memory_info().rss
    assert held - left >= 0.95 * MODEL
    assert worker.pid == worker_of(run).pid
    resumed(run)
    until(lambda: not run.alive, "the run has ended")
    assert run.result() == {"value": expected()[-1].values["value"], "bytes": MODEL}
    assert [event for _, event in events(run) if isinstance(event, Metric)] == expected()


def test_nobody_else_can_have_the_run_for_a_moment(launched: Launched, until: Until) -> None:
    run = launched("heavy", steps=3)
    until(lambda: 3 in steps_of(run), "three steps are done")
    free: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            if not run.alive:
                free.append(run.status())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(2):  # the second pause is that of a process that has replaced another
            paused(run, until)
            request(run, "resume")
            until(lambda: run.status() == "running", "the run goes on")
        with pytest.raises(RunBusy), run.lock():
            pass
    finally:
        over.set()
        watcher.join()
    assert free == []


def test_it_says_that_it_paused_and_went_on_and_leaves_no_mark(
    launched: Launched, until: Until, events: Events
) -> None:
    run = launched("heavy", steps=4)
    until(lambda: 4 in steps_of(run), "four steps are done")
    paused(run, until)
    request(run, "pause")
    request(run, "save")
    until(lambda: not (run.control_dir / "save").exists(), "the request to save is taken")
    resumed(run)
    until(lambda: not run.alive, "the run has ended")
    assert run.status() == "finished"
    said = [event for _, event in events(run)]
    assert [event.name for event in said if isinstance(event, Stage) and event.name in ("paused", "resumed")] == [
        "paused",
        "resumed",
    ]
    assert [event.pid for event in said if isinstance(event, Launch)] == 2 * [worker_pid(said)]
    assert list(run.control_dir.iterdir()) == []


def worker_pid(said: list[Event]) -> int:
    return next(event.pid for event in said if isinstance(event, Launch))


@pytest.mark.parametrize("way", ["request", "signal"])
def test_a_stop_ends_the_pause(way: str, launched: Launched, until: Until, events: Events) -> None:
    run = launched("heavy", steps=4)
    paused(run, until)
    if way == "request":
        request(run, "stop")
    else:
        worker_of(run).send_signal(signal.SIGTERM)
    until(lambda: not run.alive, "the run has ended")
    assert run.status() == "stopped"
    assert isinstance(events(run)[-1].event, Done)
    assert not (run.path / "reserve").exists()
    assert list(run.control_dir.iterdir()) == []


def test_killed_while_paused_it_is_taken_up_again(
    project: Project, launched: Launched, until: Until, events: Events
) -> None:
    run = launched("heavy", steps=4)
    until(lambda: 4 in steps_of(run), "four steps are done")
    paused(run, until)
    worker_of(run).kill()
    until(lambda: not run.alive, "the worker is gone")
    assert run.status() == "crashed"
    (run.path / "go").write_text(str(STEPS))
    launch(project, run, stages=STAGES)  # what is left of the pause does not stop it again
    until(lambda: not run.alive, "the run has ended")
    assert run.status() == "finished"
    assert [event for _, event in events(run) if isinstance(event, Metric)] == expected()


def test_the_whole_and_its_part_pause_together(
    project: Project, launched: Launched, until: Until, events: Events
) -> None:
    whole = launched("whole", steps=5, size=MODEL)
    until(lambda: len(list_runs(project)) == 2 and 5 in steps_of(list_runs(project)[1]), "the part is at work")
    part = list_runs(project)[1]
    worker = worker_of(whole)
    held = worker.memory_info().rss
    paused(whole, until)
    assert part.status() == "paused"
    assert held - worker.memory_info().rss >= 0.95 * MODEL
    for run in (whole, part):
        with pytest.raises(RunBusy), run.lock():
            pass
    (part.path / "go").write_text(str(STEPS))
    resumed(whole)
    until(lambda: not whole.alive, "the run has ended")
    assert [run.status() for run in (whole, part)] == ["finished", "finished"]
    assert [event for _, event in events(part) if isinstance(event, Metric)] == expected()


@pytest.mark.parametrize("kind", ["heavy", "whole"])
def test_moved_while_paused_it_ends_with_a_reason(
    kind: str, project: Project, launched: Launched, until: Until, events: Events
) -> None:
    first = launched(kind, steps=2)
    until(lambda: any(2 in steps_of(run) for run in list_runs(project)), "the run is at work")
    paused(first, until)
    names = [run.name for run in list_runs(project)]
    moved = project.root.with_name("moved")
    project.root.rename(moved)
    try:
        for run in (RunFolder(moved / "runs" / name) for name in names):
            until(lambda run=run: not run.alive, "the worker has ended")
            done = events(run)[-1].event
            assert isinstance(done, Done)
            assert (done.status, run.status()) == ("failed", "failed")
            assert done.message.endswith("is no longer there.")
        noted = moved / "runs" / first.name / watcher.EXIT
        until(noted.exists, "its watcher has noted the end")
        assert json.loads(noted.read_text())["code"] == 1
    finally:
        moved.rename(project.root)


def test_stopping_a_paused_whole_stops_its_part(project: Project, launched: Launched, until: Until) -> None:
    whole = launched("whole", steps=2)
    until(lambda: len(list_runs(project)) == 2 and 2 in steps_of(list_runs(project)[1]), "the part is at work")
    paused(whole, until)
    request(whole, "stop")
    until(lambda: not whole.alive, "the run has ended")
    assert [run.status() for run in list_runs(project)] == ["stopped", "stopped"]


def test_where_it_cannot_be_replaced_it_waits_as_it_is_and_says_so(run: RunFolder, until: Until) -> None:
    heard: list[Event] = []
    control = Control([run.control_dir], emit=heard.append, give_back=lambda: "no such file", signals=StopSignal())
    request(run, "pause")
    with run.lock():
        thread = threading.Thread(target=control.boundary, args=(lambda: None,))
        thread.start()
        until(lambda: run.status() == "paused", "the run is paused")
        request(run, "resume")
        thread.join()
    alert = next(event for event in heard if isinstance(event, Alert))
    assert (alert.code, alert.why) == ("pause-keeps-memory", "no such file")
    assert [event.name for event in heard if isinstance(event, Stage)] == ["paused", "resumed"]


def test_a_program_that_is_gone_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    never = pausing.Replacement()
    assert never.give_back() == ""
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setattr("sys.orig_argv", ["python", "-P", "-m", "module"])
    gone = pausing.Replacement()
    gone.allow("module", ["project", "run", "--paused=run=7"])
    monkeypatch.setattr(pausing, "_keep_only", lambda wanted: None)  # these are pytest's files
    assert "No such file" in gone.give_back()
    assert gone._command == ("/nowhere/python", "-P", "-m", "module", "project", "run")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked


def test_the_process_that_waits_begins_with_the_users_own_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it could not tell it from its own when it comes to an export."""
    seen: list[int] = []

    def current() -> int:
        mask = os.umask(0)
        os.umask(mask)
        return mask

    def execv(*given: object) -> None:
        seen.append(current())
        raise OSError("not here")

    monkeypatch.setattr(pausing.os, "execv", execv)
    monkeypatch.setattr(pausing, "_keep_only", lambda wanted: None)  # these are pytest's files
    monkeypatch.setattr("sys.orig_argv", ["python", "-P", "-m", "module"])
    replacement = pausing.Replacement()
    replacement.allow("module", [])
    before = os.umask(0o027)
    try:
        own = modes.Modes()
        own.make_private()
        monkeypatch.setattr(pausing, "modes", own)
        assert replacement.give_back() == "not here"
        assert (seen, current()) == ([0o027], 0o077)
    finally:
        os.umask(before)


def test_a_lock_that_is_not_held_is_refused(project: Project, run: RunFolder) -> None:
    with open(run.lock_path, "rb") as other, run.lock(), pytest.raises(UsageError, match="names no lock"):
        pausing.inherit(project, [f"{run.name}={other.fileno()}"])
    for wrong in (f"{run.name}=x", f"{run.name}=9999"):
        with pytest.raises(UsageError, match="names no lock"):
            pausing.inherit(project, [wrong])
