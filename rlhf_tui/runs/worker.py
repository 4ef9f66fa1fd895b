"""The worker: the process in which a run happens.

    python -m rlhf_tui.runs.worker PROJECT RUN [--stages MODULE]

It takes the run's lock, writes Launch, looks up the stage for the run's kind, hands it a
`StageContext`, and writes Done whatever happens. Torch comes in with the stage, after Launch.

Exit codes: 0 the run finished or was stopped, 1 it failed, 2 wrong use, 75 another worker holds it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_tui import __version__
from rlhf_tui.errors import UserError, is_out_of_memory
from rlhf_tui.project import Project, open_project
from rlhf_tui.runs.control import Control, StopRequested, clear, stop_signal
from rlhf_tui.runs.events import Done, EventSink, Launch
from rlhf_tui.runs.folder import RunBusy, RunFolder, find
from rlhf_tui.runs.journal import FULL, DiskFull, JournalWriter
from rlhf_tui.settings import Settings, from_tree

STAGES = "rlhf_tui.stages.table"
BUSY = 75  # EX_TEMPFAIL of sysexits.h

# Which settings make a stage fit into less memory, most effective first.
LIGHTER: Mapping[str, tuple[str, ...]] = {
    "generate": ("generate.batch_size", "generate.max_new_tokens"),
    "reward": ("reward.micro_batch_tokens", "adapters.rank"),
    "ppo": ("ppo.micro_batch_tokens", "ppo.rollout_size", "ppo.max_new_tokens"),
    "compare": ("ppo.max_new_tokens", "generate.batch_size"),
}
_RESERVE = 1 << 16  # bytes kept back so that Done still fits on a disk that has filled up


@dataclass(frozen=True)
class StageContext:
    """All that a stage gets: its project, its run, that run's settings, and the two ways to talk."""

    project: Project
    run: RunFolder
    settings: Settings
    emit: EventSink
    control: Control


Stage = Callable[[StageContext], Mapping[str, Any]]


def execute(project: Project, run: RunFolder, *, control_folders: Sequence[Path] = (), stages: str = STAGES) -> Done:
    """Carry out `run` in this process and return how it ended, which is also in its journal.

    `control_folders` are further folders whose requests count for this run: those of the run it is
    a part of. `stages` names the module whose STAGES maps a kind to its function. Whatever the stage
    raises becomes a Done. Raises RunBusy when another worker holds the run, UserError when the
    journal cannot be written, KeyboardInterrupt (after writing Done) on a second stop signal.
    """
    with run.lock():
        return _execute_locked(project, run, control_folders, stages)


def main(arguments: Sequence[str] | None = None) -> int:
    """The worker process. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="rlhf_tui.runs.worker", description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="the project's folder")
    parser.add_argument("run", help="the run's name")
    parser.add_argument("--stages", default=STAGES, help="module with the table of stages")
    given = parser.parse_args(arguments)
    stop_signal.install()
    try:
        project = open_project(given.project)
        run = find(project, given.run)
        with run.lock():
            _redirect(run.log_path)
            done = _execute_locked(project, run, (), given.stages)
    except RunBusy:
        return BUSY
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 1 if done.status == "failed" else 0


def _execute_locked(project: Project, run: RunFolder, control_folders: Sequence[Path], stages: str) -> Done:
    with JournalWriter(run.events_path) as journal, _room_for_done(run) as release_room:
        if not journal.empty:
            clear(run)  # left by an execution that crashed
        control = Control((run.control_dir, *control_folders), emit=journal)
        interrupted = False
        try:
            done = _carry_out(project, run, journal, control, stages)
        except KeyboardInterrupt:
            interrupted = True
            done = Done("stopped", "Stopped at once, without saving, by a second signal.")
        try:
            done = _write_done(journal, run, done, release_room)
        except KeyboardInterrupt:  # it is raised once only; here, it came while Done was being written
            interrupted = True
            done = _write_done(journal, run, done, release_room)
        clear(run)
    if interrupted:
        raise KeyboardInterrupt
    return done


def _carry_out(project: Project, run: RunFolder, emit: EventSink, control: Control, stages: str) -> Done:
    """Launch, then the stage; whatever it raises becomes a Done. Only KeyboardInterrupt passes."""
    try:
        emit(Launch(run=run.name, kind=run.kind, pid=os.getpid(), host=platform.node(), version=__version__))
        settings = from_tree(run.record.settings, origin=str(run.record_path))
        stage = _stage(stages, run.kind)
        return Done("finished", result=dict(stage(StageContext(project, run, settings, emit, control)) or {}))
    except StopRequested:
        return Done("stopped", "Stopped as asked.")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failure(run, error)


def _stage(module: str, kind: str) -> Stage:
    """The function for runs of `kind`. Raises UserError when there is none."""
    table: Mapping[str, Stage] = importlib.import_module(module).STAGES
    if kind not in table:
        raise UserError(
            f"This version cannot carry out runs of kind {kind!r}.",
            why=f"It knows {', '.join(sorted(table))}.",
            todo="Use the version of rlhf-tui that made the run.",
        )
    return table[kind]


def _write_done(journal: JournalWriter, run: RunFolder, done: Done, release_room: Callable[[], None]) -> Done:
    """Write `done`, or what is wrong with it; returns what was written."""
    try:
        journal(done)
    except DiskFull:
        release_room()
        journal(done)
    except (TypeError, ValueError, RecursionError) as error:  # a result that has no JSON form
        done = _failure(run, error)
        journal(done)
    return done


@contextmanager
def _room_for_done(run: RunFolder) -> Iterator[Callable[[], None]]:
    """Keep some bytes of the disk back while a run lives; the yielded function gives them up."""
    reserve = run.path / "reserve"
    with suppress(OSError):
        fd = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Written, not just allocated: not every file system honours posix_fallocate.
            os.write(fd, b"\0" * _RESERVE)
        finally:
            os.close(fd)

    def release() -> None:
        reserve.unlink(missing_ok=True)

    try:
        yield release
    finally:
        release()


def _failure(run: RunFolder, error: BaseException) -> Done:
    """The Done for a stage that raised `error`, whose traceback goes to worker.log."""
    _log(run, error)
    if not isinstance(error, UserError):
        error = _explained(run, error)
    return Done("failed", _encodable(error.what), {key: _encodable(text) for key, text in error.as_dict().items()})


def _explained(run: RunFolder, error: BaseException) -> UserError:
    """What a person can make of an error that no room of this package raised on purpose."""
    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFull(Path(error.filename or run.path))
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if is_out_of_memory(error):
        lighter = LIGHTER.get(run.kind, ("adapters.rank",))
        return UserError(
            "The memory was not enough.",
            why=reason,
            todo=f"Lower {' or '.join(lighter)}; 'rlhf-tui fit' shows what needs how much.",
        )
    return UserError(f"The {run.kind} run broke off.", why=reason, todo=f"The traceback is in {run.log_path}.")


def _log(run: RunFolder, error: BaseException) -> None:
    # The log is a convenience: on a full disk the reason still has a chance to reach the journal.
    with (
        suppress(OSError),
        open(run.log_path, "a", encoding="utf-8", errors="backslashreplace", opener=_private) as log,
    ):
        log.writelines(traceback.format_exception(error))


def _redirect(log_path: Path) -> None:
    """Let standard output and error go to the log and standard input come from nowhere, for libraries too."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for fd in (nowhere, log):
        if fd > 2:
            os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which file names may hold and JSON may not."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


if __name__ == "__main__":
    # Through the package, so that stages which import this module meet the same classes.
    from rlhf_tui.runs.worker import main as package_main

    sys.exit(package_main())
