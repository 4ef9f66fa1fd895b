"""The worker in this process: whatever a stage does, the journal ends with a Done that says it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui import settings
from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import worker
from rlhf_tui.runs.control import StopSignal, request, stop_signal
from rlhf_tui.runs.events import Checkpoint, Done, Launch, Metric, Sample, Stage, Stamped
from rlhf_tui.runs.folder import RunBusy, RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalWriter
from rlhf_tui.runs.worker import execute

Events = Callable[[RunFolder], list[Stamped]]


def failed(project: Project, kind: str, stages: str) -> tuple[RunFolder, dict[str, str]]:
    run = create_run(project, kind)
    done = execute(project, run, stages=stages)
    assert done.status == run.status() == "failed"
    assert run.done() == done
    assert done.error is not None
    assert done.message == done.error["what"]
    return run, done.error


def test_a_finished_run(project: Project, stages: str, events: Events) -> None:
    run = create_run(project, "quick", overrides=["adapters.rank=8"], options={"a": [1]})
    # The project's settings may change later; the run keeps its own.
    settings.write(project.config, "adapters.rank", 2)
    done = execute(project, run, stages=stages)
    assert done == Done("finished", result={"rank": 8, "options": {"a": [1]}})
    launch, *middle, last = [event for _, event in events(run)]
    assert isinstance(launch, Launch)
    assert (launch.run, launch.kind) == ("quick-0001", "quick")
    assert middle == [Metric(step, {"loss": 1.0 / (step + 1)}) for step in range(3)]
    assert last == done
    assert run.status() == "finished"
    assert not run.alive
    assert not (run.path / "reserve").exists()


def test_an_error_for_the_user_is_kept_in_its_three_parts(project: Project, stages: str) -> None:
    run, error = failed(project, "user_error", stages)
    assert error == {"what": "No pairs to train on.", "why": "Nobody has judged any.", "todo": "Label some first."}
    assert "Traceback" in run.log_path.read_text()


def test_a_bug_leaves_its_traceback_in_the_log_only(project: Project, stages: str) -> None:
    run, error = failed(project, "bug", stages)
    assert error["why"] == "KeyError: 'missing'"
    assert str(run.log_path) in error["todo"]
    assert "Traceback" not in "".join(error.values())
    assert "in bug" in run.log_path.read_text()
    assert run.log_path.stat().st_mode & 0o777 == 0o600


def test_memory_errors_name_settings_that_exist(project: Project, stages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(worker.LIGHTER, "card_full", worker.LIGHTER["ppo"])
    _, error = failed(project, "card_full", stages)
    assert error["what"] == "The memory was not enough."
    assert error["why"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."
    assert "ppo.micro_batch_tokens" in error["todo"]
    for keys in worker.LIGHTER.values():
        for key in keys:
            settings.info(key)


def test_a_result_without_json_form_fails_the_run(project: Project, stages: str) -> None:
    _, error = failed(project, "unwritable_result", stages)
    assert "no JSON form" in error["why"]


def test_an_unknown_kind_and_a_missing_module_fail_the_run(project: Project, stages: str) -> None:
    _, error = failed(project, "juggle", stages)
    assert "juggle" in error["what"]
    assert "steady" in error["why"]
    _, error = failed(project, "quick", "no_such_module")
    assert "ModuleNotFoundError" in error["why"]


def test_settings_that_this_version_does_not_know_fail_the_run(project: Project, stages: str) -> None:
    run = create_run(project, "quick")
    run.record_path.write_text(run.record_path.read_text().replace('"rank"', '"rang"'))
    done = execute(project, RunFolder(run.path), stages=stages)
    assert done.error is not None
    assert "adapters.rang" in done.error["what"]


def test_a_held_run_is_refused_and_untouched(project: Project, run: RunFolder, stages: str) -> None:
    before = sorted(path.name for path in run.path.iterdir())
    with run.lock(), pytest.raises(RunBusy):
        execute(project, run, stages=stages)
    assert sorted(path.name for path in run.path.iterdir()) == before
    assert run.status() == "new"


def test_a_stop_asked_before_the_run_began_is_honoured_and_then_forgotten(
    project: Project, stages: str, events: Events
) -> None:
    run = create_run(project, "steady")
    request(run, "stop")
    assert execute(project, run, stages=stages).status == run.status() == "stopped"
    assert [event.step for _, event in events(run) if isinstance(event, Checkpoint)] == [0]
    assert list(run.control_dir.iterdir()) == []


def test_requests_left_by_a_crash_do_not_reach_the_next_execution(project: Project, stages: str) -> None:
    run = create_run(project, "quick")
    with JournalWriter(run.events_path) as journal:
        journal(Launch(run.name, run.kind, 1, "host", "0"))
    for name in ("stop", "pause", "paused"):
        (run.control_dir / name).touch()
    assert execute(project, run, stages=stages).status == "finished"


def test_runs_inside_a_run(project: Project, stages: str, events: Events) -> None:
    whole = create_run(project, "nested", options={"child": "quick"})
    done = execute(project, whole, stages=stages)
    assert done.result == {"child": "quick-0002", "status": "finished", "parent_alive": True}
    assert [run.status() for run in list_runs(project)] == ["finished", "finished"]
    part = list_runs(project)[1]
    assert [type(event).__name__ for _, event in events(part)] == ["Launch", "Metric", "Metric", "Metric", "Done"]
    assert [type(event).__name__ for _, event in events(whole)] == ["Launch", "Metric", "Done"]


def test_a_failing_part_keeps_its_own_log(project: Project, stages: str) -> None:
    whole = create_run(project, "nested", options={"child": "bug"})
    assert execute(project, whole, stages=stages).result["status"] == "failed"
    part = list_runs(project)[1]
    assert part.status() == "failed"
    assert "in bug" in part.log_path.read_text()


def test_stopping_the_whole_stops_the_part(project: Project, stages: str) -> None:
    whole = create_run(project, "nested", options={"child": "steady"})
    request(whole, "stop")
    assert execute(project, whole, stages=stages).status == "stopped"
    assert [run.status() for run in list_runs(project)] == ["stopped", "stopped"]


def test_a_second_signal_during_the_last_write_loses_nothing(
    project: Project, run: RunFolder, stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = JournalWriter.__call__
    interrupted: list[Done] = []

    def write(journal: JournalWriter, event: object) -> None:
        if isinstance(event, Done) and not interrupted:
            interrupted.append(event)
            raise KeyboardInterrupt
        real(journal, event)  # type: ignore[arg-type]

    monkeypatch.setattr(JournalWriter, "__call__", write)
    with pytest.raises(KeyboardInterrupt):
        execute(project, run, stages=stages)
    assert run.done() == interrupted[0]
    assert run.status() == "finished"


@pytest.fixture
def small_runs(project: Project) -> Iterator[None]:
    """A file system of 256 KiB under the project's runs."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(project.runs)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield
    subprocess.run(["umount", str(project.runs)], check=True)


def test_a_full_disk_ends_the_run_and_is_still_written_down(
    project: Project, small_runs: None, stages: str, events: Events
) -> None:
    run = create_run(project, "flood")
    done = execute(project, run, stages=stages)
    assert done.status == run.status() == "failed"
    assert done.error is not None
    assert done.error["what"] == "The disk is full."
    samples = [event.step for _, event in events(run) if isinstance(event, Sample)]
    assert samples == list(range(len(samples)))
    assert len(samples) > 50


def test_a_full_disk_met_by_a_library_is_named(run: RunFolder) -> None:
    done = worker._failure(run, OSError(28, "No space left on device", "/x/model.safetensors"))
    assert done.error is not None
    assert done.error["what"] == "The disk is full."
    assert "/x/model.safetensors" in done.error["why"]


def test_a_journal_that_cannot_be_opened_is_an_error(project: Project, run: RunFolder, stages: str) -> None:
    run.events_path.mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        execute(project, run, stages=stages)
    assert not run.alive


def test_nothing_here_imports_torch() -> None:
    code = (
        "import sys, rlhf_tui.runs.worker, rlhf_tui.runs.launcher\n"
        "print(sorted({'torch', 'transformers', 'peft', 'bitsandbytes', 'textual'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_process_wide_signal_is_what_a_run_hears(project: Project, stages: str) -> None:
    assert isinstance(stop_signal, StopSignal)
    stop_signal._received(signal.SIGTERM, None)
    run = create_run(project, "steady")
    assert execute(project, run, stages=stages) == Done("stopped", "Stopped by a signal.", cause="signal")


def test_pause_is_heard_as_stages(project: Project, stages: str, events: Events, until: Callable[..., None]) -> None:
    run = create_run(project, "steady")
    request(run, "pause")
    thread = threading.Thread(target=execute, args=(project, run), kwargs={"stages": stages})
    thread.start()
    until(lambda: run.status() == "paused", "the run is paused")
    request(run, "resume")
    until(lambda: run.status() == "running", "the run goes on")
    request(run, "stop")
    thread.join()
    assert [event for _, event in events(run) if isinstance(event, Stage)] == [Stage("paused"), Stage("resumed")]
    assert not list(Path(run.control_dir).iterdir())
