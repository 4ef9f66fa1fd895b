"""Starting a run in a process of its own, and watching one from any other.

The worker gets a new session, no terminal, and a file for its output, so that closing the terminal,
losing the connection or killing the app leaves it alone. So does its parent, the `watcher`, which
notes how it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project, require_writable
from rlhf_tui.runs import watcher
from rlhf_tui.runs.ending import exit_pending
from rlhf_tui.runs.events import Done, Launch, Stamped
from rlhf_tui.runs.folder import RunBusy, RunFolder
from rlhf_tui.runs.journal import JournalReader, JournalWriter, whole_size
from rlhf_tui.runs.turn import ModelBusy, model_holder, require_free
from rlhf_tui.runs.versions import require_understood
from rlhf_tui.runs.worker import STAGES

_POLL = 0.05
_MOMENT = 0.01
_LOG_LINES = 12


def launch(project: Project, run: RunFolder, *, stages: str = STAGES, patience: float = 120.0) -> None:
    """Start the detached worker of `run`; returns once its Launch event is in the journal.

    Its turn to have the model may come later: see `turn`. Raises RunBusy when the run has a worker
    already, ModelBusy when another run has the model and this one is not to wait, NewerVersion for a
    run of a newer version, UserError with the end of its log when it dies before Launch or has not come
    that far after `patience` seconds; then nothing is left running.
    """
    require_writable(project)
    if run.alive:
        raise RunBusy(run.name)
    require_understood(run.record_path, run.events_path)
    require_free(project, run.kind, run.record.settings.get("run", {}).get("when_busy", ""), run.name)
    # Process ids come back: an earlier worker of this run, whose Launch is in the journal, may have had the same.
    reader = JournalReader(run.events_path, whole_size(run.events_path))
    process, pid = _start(project, run, stages)
    deadline = time.monotonic() + patience
    while True:
        # Asked before reading: a worker that has ended has written all it will ever write.
        code = process.poll()
        if _launched(reader, pid):
            # Collected when it ends, so that no zombie stays behind.
            threading.Thread(target=process.wait, daemon=True, name=f"reaper of {run.path}").start()
            return
        if code is not None:
            raise _ended(project, run, process, pid)
        if time.monotonic() > deadline:
            _end(process, pid)
            raise _stillborn(run, f"It had not begun after {patience:.0f} seconds and was ended.")
        time.sleep(_POLL)


def await_exit(run: RunFolder, patience: float = 5.0) -> None:
    """Wait until it is noted how the worker's process ended, if that is about to be.

    The kernel frees a dead worker's lock a moment before its watcher learns how it died.
    """
    deadline = time.monotonic() + patience
    while exit_pending(run) and time.monotonic() < deadline:
        time.sleep(_MOMENT)


def follow(run: RunFolder, on_event: Callable[[Stamped], None], *, poll: float = 0.2, start: int = 0) -> Done | None:
    """Hand every event of `run` to `on_event`, past ones first, until its worker has let go of it.

    `start` is the byte of the journal at which to begin: where a line starts. Returns how it ended, or
    None when it crashed (or never began). What `on_event` raises goes on to the caller; the run is not
    touched by it.
    """
    reader = JournalReader(run.events_path, start)
    while True:
        alive = run.alive  # asked before reading, as in `launch`
        for stamped in reader.read():
            on_event(stamped)
        if not reader.caught_up:
            continue
        if not alive:
            await_exit(run)
            return run.done()
        time.sleep(poll)


def _start(project: Project, run: RunFolder, stages: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the watcher and through it the worker, whose process id is 0 when that did not come about."""
    # -P keeps stray .py files of the current folder out of the import path; -u keeps the log current;
    # faulthandler leaves a trace of a crash in native code.
    worker = [sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "rlhf_tui.runs.worker"]
    arguments = [str(project.root), run.name, "--stages", stages]
    try:
        log = os.open(run.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", watcher.__file__, str(project.root), *worker, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=run.path,
                env=_environment(),
                start_new_session=True,
            )
        finally:
            os.close(log)
    except OSError as error:
        raise UserError(
            f"The worker of {run.name} cannot be started.", why=str(error), todo="Check the disk and the free memory."
        ) from None
    assert process.stdout is not None
    with process.stdout as told:
        return process, int(told.readline() or 0)


def _end(process: subprocess.Popen[bytes], pid: int) -> None:
    """End a worker and, with it, its watcher."""
    if pid > 0:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    """This process's environment, with an import path on which the worker finds the same package."""
    known = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    package = Path(__file__).resolve().parents[2]
    if package.name not in {"site-packages", "dist-packages"} and str(package) not in known:
        known.append(str(package))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(known)} if known else dict(os.environ)


def _launched(reader: JournalReader, pid: int) -> bool:
    while True:
        # A worker that somebody else started at the same moment writes one, too; the pid tells them apart.
        if any(isinstance(event, Launch) and event.pid == pid for _, event in reader.read()):
            return True
        if reader.caught_up:
            return False


def _ended(project: Project, run: RunFolder, process: subprocess.Popen[bytes], pid: int) -> UserError:
    """The error for a worker, or its watcher, that ended before Launch."""
    code = process.wait()
    if code == watcher.BUSY:
        return RunBusy(run.name)
    if code == watcher.TAKEN:
        return ModelBusy(run.name, model_holder(project))
    if code < 0:  # somebody killed the watcher: unwatched, the worker shall not go on
        _end(process, pid)
        return _stillborn(run, f"The process that watches it was killed by signal {-code}, and it was ended.")
    how = f"was killed by signal {code - 128}" if code > 128 else f"ended with code {code}"
    return _stillborn(run, f"Its process {how} before it began.")


def _stillborn(run: RunFolder, why: str) -> UserError:
    """The error for a worker that died before Launch; the journal gets it as well, if it takes it."""
    tail = "\n".join(run.log_tail(_LOG_LINES))
    error = UserError(
        f"{run.name} did not start.", why=f"{why}\n{tail}".strip(), todo=f"Its full output is in {run.log_path}."
    )
    try:
        with run.lock(), JournalWriter(run.events_path) as journal:
            journal(Done("failed", error.what, error.as_dict(), cause="no_start"))
    except UserError:
        pass  # busy or unwritable: the caller gets the reason either way
    return error
