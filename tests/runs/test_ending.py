"""How a run ended: every way out has a cause, and a worker that left no word is explained by what it left."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.reports import run_document, run_summary
from rlhf_tui.runs import ending as module
from rlhf_tui.runs import watcher, worker
from rlhf_tui.runs.ending import ago, ending
from rlhf_tui.runs.events import Done, Event, Launch, Progress, decode
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.holder import Holder, boot_id
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.launcher import await_exit, follow, launch
from rlhf_tui.runs.worker import execute

Start = Callable[..., RunFolder]
Until = Callable[..., None]
HERE = Holder(4711, platform.node(), "this boot", 3)


def crashed(run: RunFolder, holder: Holder = HERE, *events: Event) -> RunFolder:
    """A run whose worker is gone, as `holder` left it."""
    with JournalWriter(run.events_path) as journal:
        for event in (Launch(run.name, run.kind, holder.pid, holder.host, "0"), *events):
            journal(event)
    run.lock_path.write_bytes(msgspec.json.encode(holder))
    return run


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the machine says of itself."""
    facts: dict[str, object] = {"boot": "this boot"}
    monkeypatch.setattr(module, "boot_id", lambda: facts["boot"])
    return facts


def note_exit(run: RunFolder, pid: int, code: int) -> None:
    """As the watcher notes it; `code` is minus the signal when one ended the worker."""
    watcher.note(run.path / watcher.EXIT, pid, max(code, 0), max(-code, 0))


def saved(run: RunFolder, step: int) -> None:
    folder = run.checkpoints / f"step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"done": step}))


def test_nothing_has_ended_before_it_began_or_while_it_lives(run: RunFolder) -> None:
    assert ending(run) is None
    with run.lock():
        assert ending(run) is None


def test_a_crash_says_when_it_was_last_heard_of_what_is_saved_and_how_to_go_on(run: RunFolder) -> None:
    crashed(run, HERE, Progress(120, 400, "updates"))
    saved(run, 100)
    saved(run, 118)
    (run.checkpoints / "step-000120").mkdir()  # was being written
    run.log_path.write_text("a warning\n")
    end = ending(run)
    assert end is not None
    assert (end.status, end.cause, end.label) == ("crashed", "vanished", "crashed")
    assert end.what == "quick-0001 crashed: its worker vanished without a word."
    assert "120 of 400 updates" in end.why
    assert end.why.endswith("The end of its log:\na warning")
    assert end.todo.startswith("Step 118 is saved: 'rlhf-tui runs resume quick-0001' goes on from there.")
    assert end.heard == pytest.approx(time.time(), abs=60)
    assert end.what in run_summary(run)
    document = run_document(run)
    assert (document["cause"], document["last_heard"]) == ("vanished", end.heard)
    assert document["error"]["todo"] == end.todo


def test_a_restart_of_the_machine_is_seen_by_its_boot(run: RunFolder, machine: dict[str, object]) -> None:
    machine["boot"] = "another boot"
    end = ending(crashed(run))
    assert end is not None
    assert (end.cause, end.label) == ("restarted", "crashed (the machine was restarted)")


def test_memory_that_ran_out_is_seen_by_the_count_at_its_death(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed(run)
    monkeypatch.setattr(watcher, "oom_kills", lambda: 5)
    note_exit(run, HERE.pid, -9)
    end = ending(run)
    assert end is not None
    assert end.cause == "out_of_memory"
    assert "most likely" in end.what
    assert "the system ended 2 processes for lack of memory" in end.why


def test_memory_that_ran_out_elsewhere_or_later_explains_nothing(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the count at its death there is only the one of now, which any program may have raised since."""
    crashed(run)
    monkeypatch.setattr(watcher, "oom_kills", lambda: 900)
    monkeypatch.setattr(module, "oom_kills", lambda: 900, raising=False)
    end = ending(run)
    assert end is not None
    assert end.cause == "vanished"


def test_what_another_machine_says_of_itself_proves_nothing(run: RunFolder, machine: dict[str, object]) -> None:
    machine["boot"] = "another boot"
    end = ending(crashed(run, Holder(4711, "elsewhere", "its boot", 3)))
    assert end is not None
    assert end.cause == "vanished"


@pytest.mark.parametrize(
    ("code", "kills", "cause", "word"),
    [
        (-9, 3, "killed", "SIGKILL"),
        (-9, 4, "out_of_memory", "lack of memory"),
        (-15, 4, "killed", "SIGTERM"),
        (-9, -1, "killed", "SIGKILL"),
        (-11, 4, "killed", "SIGSEGV"),
        (-99, 3, "killed", "signal 99"),
        (3, 3, "vanished", "code 3"),
        (3, 4, "vanished", "code 3"),
    ],
)
def test_a_wait_status_that_somebody_saw(
    code: int,
    kills: int,
    cause: str,
    word: str,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed(run)
    monkeypatch.setattr(watcher, "oom_kills", lambda: kills)
    note_exit(run, HERE.pid, code)
    monkeypatch.setattr(watcher, "oom_kills", lambda: 50)  # what happened later is nobody's fault
    end = ending(run)
    assert end is not None
    assert end.cause == cause
    assert word in end.what


def test_the_wait_status_of_an_earlier_execution_says_nothing(run: RunFolder) -> None:
    note_exit(run, 1, -11)
    end = ending(crashed(run))
    assert end is not None
    assert end.cause == "vanished"


def test_native_code_is_named_but_not_for_what_an_earlier_execution_left(run: RunFolder) -> None:
    trace = "Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n"
    crashed(run)
    run.log_path.write_text(f"-- worker 1 --\n{trace}-- worker {HERE.pid} --\n")
    end = ending(run)
    assert end is not None
    assert end.cause == "vanished"
    assert "It left nothing in its log." in end.why
    run.log_path.write_text(f"-- worker 1 --\n-- worker {HERE.pid} --\n{trace}")
    end = ending(run)
    assert end is not None
    assert end.cause == "native"


def test_a_killed_worker_is_explained_to_whoever_had_started_it(
    start: Start, until: Until, machine: dict[str, object]
) -> None:
    machine["boot"] = boot_id()
    run = start("steady")
    until(lambda: run.holder().pid > 0, "the lock says who holds it")
    os.kill(run.holder().pid, signal.SIGKILL)
    assert follow(run, lambda stamped: None, poll=0.01) is None
    end = ending(run)
    assert end is not None
    assert end.cause in ("killed", "out_of_memory")  # the latter when this machine runs out just now
    assert json.loads((run.path / "exit.json").read_text())["signal"] == 9


def test_a_crash_in_native_code_is_found_in_the_log(
    project: Project, stages: str, until: Until, machine: dict[str, object]
) -> None:
    machine["boot"] = boot_id()
    run = create_run(project, "crash_natively")
    launch(project, run, stages=stages)
    until(lambda: not run.alive, "it is gone")
    await_exit(run)
    assert run.status() == "crashed"
    end = ending(run)
    assert end is not None
    assert end.cause == "native"
    assert "Fatal Python error" in "\n".join(run.log_tail(200))


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("user_error", "error"),
        ("bug", "bug"),
        ("card_full", "out_of_memory"),
        ("card_gone", "card_lost"),
        ("library_disk_full", "disk_full"),
        ("wrapped_memory", "out_of_memory"),
    ],
)
def test_every_failure_has_its_cause(kind: str, cause: str, project: Project, stages: str) -> None:
    run = create_run(project, kind)
    done = execute(project, run, stages=stages)
    assert (done.status, done.cause) == ("failed", cause)
    end = ending(run)
    assert end is not None
    assert (end.cause, end.what) == (cause, done.message)
    assert run_document(run)["cause"] == cause
    assert "Traceback" in run.log_path.read_text()
    if cause != "error":
        assert f"'rlhf-tui runs resume {run.name}' begins anew" in end.todo


def test_what_is_saved_goes_with_the_reason_of_a_failure(run: RunFolder) -> None:
    saved(run, 7)
    for error in (UserError("No."), RuntimeError("CUDA error: unspecified launch failure"), KeyError("x")):
        done = worker._failure(run, error)
        assert done.error is not None
        assert "Step 7 is saved: 'rlhf-tui runs resume quick-0001' goes on from there." in done.error["todo"]


def test_finished_and_stopped_say_so(project: Project, stages: str, run: RunFolder) -> None:
    execute(project, run, stages=stages)
    end = ending(run)
    assert end is not None
    assert (end.status, end.cause, end.label) == ("finished", "finished", "finished")
    with JournalWriter(run.events_path) as journal:
        journal(Done("stopped", "Stopped by a signal.", cause="signal"))
    end = ending(run)
    assert end is not None
    assert end.label == "stopped (by a signal)"


def test_a_journal_of_an_older_version_is_read(run: RunFolder) -> None:
    line = b'{"v":1,"t":17.5,"type":"done","status":"failed","message":"No.","error":{"what":"No."},"result":{}}'
    run.events_path.write_bytes(line + b"\n")
    end = ending(run)
    assert end is not None
    assert (end.cause, end.what, end.heard) == ("failed", "No.", 17.5)
    stamped = decode(line)
    assert stamped is not None
    assert stamped.event == Done("failed", "No.", {"what": "No."})


def test_a_cause_of_a_newer_version_is_read(run: RunFolder) -> None:
    run.events_path.write_bytes(b'{"v":1,"t":17.5,"type":"done","status":"failed","cause":"bored","mood":1}\n')
    reader = JournalReader(run.events_path)
    assert len(reader.read()) == 1
    assert reader.skipped == 0


def test_times_are_never_negative(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [ago(seconds) for seconds in (-5.0, 0.2, 1.0, 61.0, 7200.0, 90_000.0)] == [
        "",
        "just now",
        "1 second ago",
        "1 minute ago",
        "2 hours ago",
        "1 day ago",
    ]
    crashed(run)
    monkeypatch.setattr(module.time, "time", lambda: 0.0)  # the clock was set back
    end = ending(run)
    assert end is not None
    assert "ago" not in end.why


def test_a_broken_lock_file_is_no_obstacle(run: RunFolder) -> None:
    crashed(run)
    for content in (b"", b"{", b"\xff", b"[]"):
        run.lock_path.write_bytes(content)
        end = ending(run)
        assert end is not None
        assert end.cause == "vanished"
    Path(run.path / "exit.json").write_bytes(b"{")
    assert ending(run) is not None
