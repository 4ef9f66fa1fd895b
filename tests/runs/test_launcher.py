"""Real worker processes: launched, watched, asked, abandoned and killed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import launcher
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Checkpoint, Done, Launch, Metric, Progress, Stamped
from rlhf_tui.runs.folder import RunBusy, RunFolder, create_run, find, list_runs
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.launcher import follow, launch
from rlhf_tui.runs.worker import BUSY, execute

Start = Callable[..., RunFolder]
Until = Callable[..., None]
Events = Callable[[RunFolder], list[Stamped]]


def launch_event(run: RunFolder) -> Launch:
    return next(event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Launch))


def progress(run: RunFolder) -> int:
    steps = [event.done for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Progress)]
    return steps[-1] if steps else -1


def goes_on(run: RunFolder, until: Until) -> None:
    here = progress(run)
    until(lambda: progress(run) > here, f"{run.name} goes on after step {here}")


def saves(run: RunFolder) -> int:
    return sum(isinstance(event, Checkpoint) for _, event in JournalReader(run.events_path).read(60))


def test_a_launched_run_is_followed_to_its_end(start: Start, events: Events) -> None:
    run = start("quick")
    heard: list[Stamped] = []
    done = follow(run, heard.append, poll=0.01)
    assert done == Done("finished", result={"rank": 16, "options": {}})
    assert heard == events(run)
    assert isinstance(heard[0].event, Launch)
    assert [e for _, e in heard if isinstance(e, Metric)] == [Metric(s, {"loss": 1.0 / (s + 1)}) for s in range(3)]
    assert "a library says something" in run.log_tail(5)
    assert launch_event(run).pid != os.getpid()


def test_a_long_past_is_followed_to_its_end(run: RunFolder) -> None:
    """More than one time budget's worth, of a run that is over already."""
    metrics = [Metric(step, {f"m{i}": 0.5 * step for i in range(20)}) for step in range(10_000)]
    with JournalWriter(run.events_path) as journal:
        for metric in metrics:
            journal(metric)
        journal(Done("stopped"))
    heard: list[Stamped] = []
    assert follow(run, heard.append) == Done("stopped")
    assert [event for _, event in heard] == [*metrics, Done("stopped")]


def test_what_a_listener_raises_leaves_the_run_alone(start: Start, until: Until) -> None:
    run = start("steady")

    def interrupted(stamped: Stamped) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        follow(run, interrupted, poll=0.01)
    goes_on(run, until)


def test_the_worker_is_detached(start: Start) -> None:
    run = start("steady")
    pid = launch_event(run).pid
    assert os.getsid(pid) == pid != os.getsid(0)
    proc = Path(f"/proc/{pid}")
    terminal = (proc / "stat").read_text().rpartition(")")[2].split()[4]  # field 7 of proc(5), behind the name
    assert terminal == "0"
    assert os.readlink(proc / "fd/0") == os.devnull
    for stream in (1, 2):
        assert os.readlink(proc / f"fd/{stream}") == str(run.log_path)
    assert os.readlink(proc / "cwd") == str(run.path.parents[1])


def test_the_worker_survives_its_terminal_and_its_launcher(
    project: Project, stages: str, until: Until, start: Start
) -> None:
    """A launcher on a real terminal; the terminal is hung up, the launcher killed, the worker hung up on."""
    code = (
        "import fcntl, signal, sys, termios, time\n"
        # a test run under nohup hands its deafness on
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from pathlib import Path\n"
        "from rlhf_tui.project import open_project\n"
        "from rlhf_tui.runs.folder import create_run\n"
        "from rlhf_tui.runs.launcher import launch\n"
        f"project = open_project(Path({str(project.root)!r}))\n"
        f"launch(project, create_run(project, 'steady'), stages={stages!r})\n"
        "time.sleep(600)\n"
    )
    master, slave = pty.openpty()
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(Path.cwd())])},
    )
    os.close(slave)
    try:
        until(lambda: any(progress(run) >= 0 for run in list_runs(project)), "the run has begun")
        os.close(master)
        assert starter.wait(60) == -signal.SIGHUP, "the terminal's end must reach the launcher"
    finally:
        if starter.poll() is None:
            starter.kill()
            starter.wait()
    run = find(project, "steady-0001")
    goes_on(run, until)
    os.kill(launch_event(run).pid, signal.SIGHUP)
    goes_on(run, until)
    assert run.status() == "running"
    request(run, "stop")
    done = follow(run, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(start: Start, until: Until, events: Events, number: signal.Signals) -> None:
    run = start("steady")
    until(lambda: progress(run) >= 2, "some steps are done")
    os.kill(launch_event(run).pid, number)
    assert follow(run, lambda stamped: None, poll=0.01) == Done("stopped", "Stopped by a signal.", cause="signal")
    *_, before, last, done = [event for _, event in events(run)]
    assert isinstance(before, Progress)
    assert last == Checkpoint(before.done, f"step-{before.done:06d}")
    assert isinstance(done, Done)


def test_a_second_signal_ends_a_deaf_stage_at_once(start: Start, until: Until) -> None:
    run = start("deaf")
    until(lambda: progress(run) == 0, "the stage has begun")
    pid = launch_event(run).pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: progress(run) == 1, "the first signal is heard")
    assert run.status() == "running"
    os.kill(pid, signal.SIGTERM)
    done = follow(run, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == "stopped"
    assert "without saving" in done.message


def test_kill_9_shows_as_crashed_and_leaves_a_readable_journal(start: Start, until: Until, events: Events) -> None:
    run = start("steady")
    until(lambda: progress(run) >= 5, "some steps are done")
    os.kill(launch_event(run).pid, signal.SIGKILL)
    assert follow(run, lambda stamped: None, poll=0.01) is None
    assert run.status() == "crashed"
    assert run.done() is None
    reader = JournalReader(run.events_path)
    steps = [event.done for _, event in reader.read(60) if isinstance(event, Progress)]
    assert steps == list(range(len(steps)))
    assert reader.skipped == 0


def test_a_crashed_run_can_be_carried_out_again(project: Project, start: Start, stages: str, until: Until) -> None:
    run = start("steady")
    first = launch_event(run).pid
    request(run, "pause")
    until(lambda: run.status() == "paused", "the run is paused")
    os.kill(first, signal.SIGKILL)
    until(lambda: run.status() == "crashed", "the run has crashed")
    with run.events_path.open("ab") as file:
        file.write(b'{"v":1,"t":17')
    launch(project, run, stages=stages)
    launches = [event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Launch)]
    assert [event.pid == first for event in launches] == [True, False]
    goes_on(run, until)
    assert run.status() == "running"


def test_a_launch_of_an_earlier_worker_with_the_same_process_id_is_not_this_ones(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = subprocess.Popen(["sleep", "600"])
    with JournalWriter(run.events_path) as journal:
        journal(Launch(run.name, run.kind, stuck.pid, "box", "0"))
    monkeypatch.setattr(launcher, "_start", lambda *given: (stuck, stuck.pid))
    with pytest.raises(UserError, match="did not start") as caught:
        launch(project, run, patience=0.2)
    assert "had not begun" in caught.value.why
    assert stuck.returncode == -signal.SIGKILL


def test_a_stop_sent_while_a_crashed_run_begins_again_is_heard(
    project: Project, stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(project, "steady")
    with JournalWriter(run.events_path) as journal:
        journal(Launch(run.name, run.kind, 1, "box", "0"))
    monkeypatch.setattr("rlhf_tui.runs.worker.accompany", lambda project, run: request(run, "stop"))
    assert execute(project, run, stages=stages).status == "stopped"


def test_pause_resume_stop_on_a_real_worker(start: Start, until: Until) -> None:
    run = start("steady")
    goes_on(run, until)
    request(run, "pause")
    request(run, "pause")
    until(lambda: run.status() == "paused", "the run is paused")
    size = run.events_path.stat().st_size
    os.kill(launch_event(run).pid, signal.SIGHUP)
    assert run.events_path.stat().st_size == size
    request(run, "resume")
    request(run, "resume")
    goes_on(run, until)
    assert run.status() == "running"
    request(run, "save")
    until(lambda: saves(run) == 2, "the run saves")
    goes_on(run, until)  # past that step: a stop that is heard in it is saved with it
    request(run, "stop")
    request(run, "stop")
    done = follow(run, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == run.status() == "stopped"
    assert saves(run) == 3


def test_a_second_worker_is_refused(project: Project, start: Start, stages: str, until: Until) -> None:
    run = start("steady")
    with pytest.raises(RunBusy):
        launch(project, run, stages=stages)
    log = run.log_path.read_bytes()
    command = [sys.executable, "-m", "rlhf_tui.runs.worker", str(project.root), run.name, "--stages", stages]
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path.cwd())])
    second = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert second.returncode == BUSY
    assert second.stdout == second.stderr == b""
    assert run.log_path.read_bytes() == log
    launches = [event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Launch)]
    assert len(launches) == 1
    goes_on(run, until)


def test_a_worker_that_dies_before_launch_says_why(project: Project, run: RunFolder, stages: str, until: Until) -> None:
    project.config.write_text("[model\n")
    project.database.unlink()
    with pytest.raises(UserError) as caught:
        launch(project, run, stages=stages)
    assert "did not start" in caught.value.what
    assert "is not an rlhf-tui project" in caught.value.why
    assert str(run.log_path) in caught.value.todo
    assert run.status() == "failed"
    assert not run.alive


def test_a_worker_that_takes_too_long_is_ended(project: Project, run: RunFolder, stages: str) -> None:
    with pytest.raises(UserError, match="had not begun"):
        launch(project, run, stages=stages, patience=-1.0)
    assert run.status() == "failed"
    assert not run.alive


def test_a_stage_killed_from_within_ends_the_following(start: Start) -> None:
    run = start("segfault")
    assert follow(run, lambda stamped: None, poll=0.01) is None
    assert run.status() == "crashed"


def test_stray_modules_of_the_current_folder_do_not_reach_the_worker(
    start: Start, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "msgspec.py").write_text("raise RuntimeError('not me')")
    monkeypatch.chdir(project.root)
    assert follow(start("quick"), lambda stamped: None, poll=0.01) is not None


def test_a_whole_killed_with_its_part(start: Start, project: Project, until: Until) -> None:
    run = start("nested", child="steady")
    until(lambda: len(list_runs(project)) == 2 and progress(list_runs(project)[1]) > 0, "the part works")
    part = list_runs(project)[1]
    assert (run.status(), part.status()) == ("running", "running")
    request(run, "pause")
    until(lambda: part.status() == "paused", "the part is paused")
    assert run.status() == "paused"
    os.kill(launch_event(run).pid, signal.SIGKILL)
    until(lambda: not run.alive, "the worker is gone")
    assert (run.status(), part.status()) == ("crashed", "crashed")
