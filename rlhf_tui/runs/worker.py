"""The worker: the process in which a run happens.

    python -m rlhf_tui.runs.worker PROJECT RUN [--stages MODULE]

It takes the run's lock, writes Launch, waits for its turn to have the model, looks up the stage for
the run's kind, hands it a `StageContext`, and writes Done whatever happens. Torch comes in with the
stage, after Launch.

Exit codes: 0 the run finished or was stopped, 1 it failed, 2 wrong use, 75 another worker holds it,
69 another run has the model and this one is not to wait.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_tui import __version__
from rlhf_tui.errors import UserError, chain, is_card_lost, is_disk_full, is_out_of_memory
from rlhf_tui.project import Project, open_project
from rlhf_tui.runs import pausing
from rlhf_tui.runs.control import Control, StopRequested, clear, clear_stale, stop_signal
from rlhf_tui.runs.ending import log_header
from rlhf_tui.runs.events import Alert, Done, EventSink, Launch
from rlhf_tui.runs.folder import INPUTS, RunBusy, RunFolder, find, makers
from rlhf_tui.runs.journal import DiskFull, JournalWriter
from rlhf_tui.runs.modes import modes
from rlhf_tui.runs.notify import accompany, not_told
from rlhf_tui.runs.saved import resume_command, saved, way_on
from rlhf_tui.runs.tensorboard import shown_live
from rlhf_tui.runs.turn import ModelBusy, Nothing, Turn, turn_of
from rlhf_tui.runs.watcher import BUSY, EXIT, TAKEN
from rlhf_tui.settings import Settings, from_tree

STAGES = "rlhf_tui.stages.table"

# What needs no torch comes from a module of its own: the table brings it along, which takes seconds and memory.
_OWN_MODULES = {"download": "rlhf_tui.stages.download"}

# Which settings make a stage fit into less memory, most effective first.
LIGHTER: Mapping[str, tuple[str, ...]] = {
    "generate": ("generate.batch_size", "generate.max_new_tokens"),
    "reward": ("reward.micro_batch_tokens", "adapters.rank"),
    "ppo": ("ppo.micro_batch_tokens", "ppo.rollout_size", "ppo.max_new_tokens"),
    "compare": ("ppo.max_new_tokens", "generate.batch_size"),
    "chat": ("generate.max_new_tokens", "model.max_prompt_tokens"),
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
    a part of, which has the model for all its parts; any other run waits here for its turn. `stages`
    names the module whose STAGES maps a kind to its function. Whatever the stage raises becomes a Done.
    Raises RunBusy when another worker holds the run, ModelBusy when another run has the model and this
    one is not to wait, UserError when the journal cannot be written, KeyboardInterrupt (after writing
    Done) on a second stop signal.
    """
    turn = None if control_folders else turn_of(project, run)
    with run.lock():
        try:
            return _execute_locked(project, run, turn, control_folders, stages)
        finally:
            if turn is not None:
                turn.release()


def main(arguments: Sequence[str] | None = None) -> int:
    """The worker process. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="rlhf_tui.runs.worker", description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="the project's folder")
    parser.add_argument("run", help="the run's name")
    parser.add_argument("--stages", default=STAGES, help="module with the table of stages")
    parser.add_argument(pausing.OPTION, action="append", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    stop_signal.install()
    modes.make_private()
    try:
        project = open_project(given.project)
        run = find(project, given.run)
        paused = pausing.inherit(project, given.paused)
        with run.lock():
            _redirect(run.log_path)
            if paused and (ended := _wait_paused(paused)) is not None:
                return _exit_code(ended)
            print(log_header(os.getpid()), flush=True)
            # Never released: the next run may load its model when the memory of this process is free.
            done = _execute_locked(project, run, turn_of(project, run), (), given.stages)
    except RunBusy:
        return BUSY
    except ModelBusy:
        return TAKEN
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return _exit_code(done)


def _exit_code(done: Done) -> int:
    return 1 if done.status == "failed" else 0


def _execute_locked(
    project: Project, run: RunFolder, turn: Turn | Nothing | None, control_folders: Sequence[Path], stages: str
) -> Done:
    """`turn` is None for a part of a run: the whole has it."""
    if turn is not None and _refuses(run):
        turn.take_or_refuse()  # before anything is written: a refused run stays what it was
    with JournalWriter(run.events_path) as journal, _room_for_done(run) as release_room:
        if not pausing.woken(run):
            with modes.usual():  # what the user's own program writes is not ours
                accompany(project, run)
            (run.path / EXIT).unlink(missing_ok=True)  # an earlier worker may have had the same process id
            if not journal.empty:
                clear_stale(run)  # left by an execution that crashed
        give_back = pausing.replacement.give_back
        control = Control((run.control_dir, *control_folders), emit=journal, give_back=give_back)
        interrupted = False
        try:
            done = _carry_out(project, run, journal, control, turn, stages)
        except KeyboardInterrupt:
            interrupted = True
            done = Done("stopped", "Stopped at once, without saving, by a second signal.", cause="interrupted")
        try:
            done = _write_done(journal, run, done, release_room)
        except KeyboardInterrupt:  # it is raised once only; here, it came while Done was being written
            interrupted = True
            done = _write_done(journal, run, done, release_room)
        clear(run)
    if interrupted:
        raise KeyboardInterrupt
    return done


def _refuses(run: RunFolder) -> bool:
    """Whether the run is not to wait for the model. A record that cannot be read is a matter for `_carry_out`."""
    try:
        return bool(run.record.settings["run"]["when_busy"] == "refuse")
    except (UserError, LookupError, TypeError):
        return False


def _carry_out(
    project: Project, run: RunFolder, emit: EventSink, control: Control, turn: Turn | Nothing | None, stages: str
) -> Done:
    """Launch, then the stage; whatever it raises becomes a Done. Only KeyboardInterrupt passes."""
    try:
        emit(Launch(run=run.name, kind=run.kind, pid=os.getpid(), host=platform.node(), version=__version__))
        if turn is not None:
            turn.wait(control, emit)  # first: who has launched a run may rely on its having the model, or a place
            if refused := not_told(run):
                emit(refused)
            _tell_of_new_adapters(project, run, emit)
        settings = from_tree(run.record.settings, origin=str(run.record_path))
        stage = _stage(stages, run.kind)
        rights = modes.usual() if run.kind == "export" else nullcontext()
        with rights, shown_live(run.path / "tensorboard", settings.run, emit) as shown:
            return Done("finished", result=dict(stage(StageContext(project, run, settings, shown, control)) or {}))
    except StopRequested:
        if stop_signal.count:
            return Done("stopped", "Stopped by a signal.", cause="signal")
        return Done("stopped", "Stopped as asked.")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failure(run, error)


def _tell_of_new_adapters(project: Project, run: RunFolder, emit: EventSink) -> None:
    """A run reads the adapters that are there when its turn comes, which may not be those it was made for."""
    made_for = run.record.parents
    if (run.path / INPUTS).is_dir():
        return  # it has begun, and reads what it began with
    for kind, name in makers(project, run.kind).items():
        if kind in made_for and made_for[kind] != name:
            emit(
                Alert(
                    "note",
                    "other-adapter",
                    f"It builds on {name}, which ended after this run was made.",
                    why=f"When it was made, {made_for[kind]} was the newest {kind} run that had finished.",
                )
            )


def _wait_paused(runs: Sequence[RunFolder]) -> Done | None:
    """Wait until these runs, the whole before its part, may go on; returns how they ended instead, if they did."""
    with ExitStack() as stack:
        # Open from the start: a journal that is moved meanwhile can still be written.
        journals = [stack.enter_context(JournalWriter(run.events_path)) for run in runs]
        try:
            pausing.wait(runs, journals[-1])
            return None
        except (StopRequested, KeyboardInterrupt):
            cause = "signal" if stop_signal.count else ""
            dones = [Done("stopped", "Stopped while it was paused.", cause=cause)] * len(runs)
        except UserError as error:
            dones = [_failure(run, error) for run in runs]
        for run, journal, done in reversed(list(zip(runs, journals, dones, strict=True))):
            with _room_for_done(run) as release_room:
                try:
                    _write_done(journal, run, done, release_room)
                except KeyboardInterrupt:  # as in `_execute_locked`
                    _write_done(journal, run, done, release_room)
                clear(run)
            pausing.let_go(run)
    return dones[0]


def _stage(module: str, kind: str) -> Stage:
    """The function for runs of `kind`. Raises UserError when there is none."""
    own = _OWN_MODULES.get(kind, module) if module == STAGES else module
    table: Mapping[str, Stage] = importlib.import_module(own).STAGES
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
    cause = _cause(error)
    if not isinstance(error, UserError):
        error = _explained(run, error, cause)
    told = error.as_dict()
    # What was wrong from the start broke nothing off; what a part of a run has said already is not said again.
    if (cause != "error" or saved(run)) and resume_command(run) not in error.todo:
        told["todo"] = f"{error.todo} {way_on(run)}".strip()
    return Done("failed", _encodable(error.what), {key: _encodable(text) for key, text in told.items()}, cause=cause)


def _cause(error: BaseException) -> str:
    """The error for programs: see `Done`. What a room wrapped into a UserError is still known by its origin."""
    for link in chain(error):
        if is_out_of_memory(link):
            return "out_of_memory"
        if is_disk_full(link):
            return "disk_full"
        if is_card_lost(link):
            return "card_lost"
    return "error" if isinstance(error, UserError) else "bug"


def _explained(run: RunFolder, error: BaseException, cause: str) -> UserError:
    """What a person can make of an error that no room of this package raised on purpose."""
    reason = _reason(error)
    if cause == "disk_full":
        return DiskFull(Path(getattr(error, "filename", None) or run.path))
    if cause == "out_of_memory":
        lighter = LIGHTER.get(run.kind, ("adapters.rank",))
        return UserError(
            "The memory was not enough.",
            why=reason,
            todo=f"Lower {' or '.join(lighter)}; 'rlhf-tui fit' shows what needs how much.",
        )
    if cause == "card_lost":
        return UserError(
            "The graphics card or its driver stopped answering.",
            why=reason,
            todo="See whether 'nvidia-smi' still lists the card; if not, restart the machine. If it happens again, "
            "look at the card's temperature, power supply and driver version.",
        )
    return UserError(f"The {run.kind} run broke off.", why=reason, todo=f"The traceback is in {run.log_path}.")


def _reason(error: BaseException) -> str:
    """The type and the first line of what an error says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


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

    pausing.replacement.allow("rlhf_tui.runs.worker", sys.argv[1:])
    sys.exit(package_main())
