"""Whose turn it is to have the model: one project, one model in memory, any number of runs that want it.

The file `runs/model.lock` is locked by the worker that has the model, until its process ends; it
names the run. A worker that finds it taken puts a mark with a number into its run's `control/`
folder and waits; the lowest number among the waiting goes first. Only the lock decides who may load
the model: the numbers settle no more than the order.

A paused run keeps its turn, though its memory is free: who pauses wants the card for something else,
not for the next run of the queue, and "go on" must not mean its end. Whoever waits is told so; a run
that is stopped is as easily taken up again, and lets the others pass. So does one paused while it waits.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs.control import Control
from rlhf_tui.runs.events import EventSink, Stage
from rlhf_tui.runs.folder import (
    MODEL_LOCK,
    WAITING,
    RunFolder,
    held_locks,
    inherited_locks,
    list_runs,
    named,
    no_locks,
    write_whole,
)

#: The kinds of runs that load no model into memory: they neither wait for one that does, nor keep it waiting.
WITHOUT_MODEL = frozenset({"download"})

#: The stages a waiting run reports: when it waits (with the run it waits for), and when that is over.
WAITS, HAS_TURN = "waiting for the model", "its turn has come"

_POLL = 0.2
_TRIES, _PAUSE = 20, 0.025  # a worker that has just ended keeps the lock until its process is gone


class ModelBusy(UserError):
    """Another run has the model, and this one is not to wait (run.when_busy)."""

    def __init__(self, who: str, holder: RunFolder | None) -> None:
        other = holder.name if holder is not None else "another run"
        super().__init__(
            f"{who} was not started: {other} has the model{_though_paused(holder)}.",
            why="One project has one model in memory at a time, and run.when_busy is 'refuse'.",
            todo=f"{_way_out(holder)}; or set run.when_busy to 'wait'.",
        )


def model_holder(project: Project) -> RunFolder | None:
    """The run that has the model at this moment; None when it is free, or when it cannot be said whose it is."""
    return _holder(project.runs)


def waits_for(run: RunFolder) -> str:
    """The name of the run that has the model `run` waits for; empty when that cannot be said."""
    holder = _holder(run.path.parent)
    return holder.name if holder is not None and holder != run else ""


def _holder(runs: Path) -> RunFolder | None:
    try:
        name = (runs / MODEL_LOCK).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    run = named(runs, name)
    return run if run is not None and run.alive else None


def require_free(project: Project, kind: str, when_busy: str, who: str) -> None:
    """Raise ModelBusy when another run has the model and `when_busy` is 'refuse'. `who` is not started then."""
    if kind not in WITHOUT_MODEL and when_busy == "refuse" and (holder := model_holder(project)) is not None:
        raise ModelBusy(who, holder)


class Nothing:
    """The claim of a run that needs no model."""

    def take_or_refuse(self) -> None:
        """There is nothing to take."""

    def wait(self, control: Control, emit: EventSink) -> None:
        """There is nothing to wait for."""

    def release(self) -> None:
        """There is nothing to let go."""


def turn_of(project: Project, run: RunFolder) -> Turn | Nothing:
    """What the worker of `run` has to do with the model before it begins."""
    return Nothing() if run.kind in WITHOUT_MODEL else Turn(project, run)


class Turn:
    """The claim of one worker on the model."""

    def __init__(self, project: Project, run: RunFolder) -> None:
        self._project = project
        self._run = run
        self._path = project.runs / MODEL_LOCK
        self._fd = inherited_locks.pop(self._path, -1)  # of a run that goes on after a pause
        if self._fd >= 0:
            held_locks[self._path] = self._fd

    def take_or_refuse(self) -> None:
        """Take the model now. Raises ModelBusy when another run has it."""
        for _ in range(_TRIES):
            if self._fd >= 0 or self._try():
                return
            time.sleep(_PAUSE)
        raise ModelBusy(self._run.name, model_holder(self._project))

    def wait(self, control: Control, emit: EventSink) -> None:
        """Take the model as soon as nobody has it who came before, saying which run it waits for.

        What is asked meanwhile is done: raises StopRequested for a stop; a pause gives the place in the queue up.
        """
        if self._fd >= 0 or (not _queue(self._project) and self._try()):
            return
        told = ""
        place = self._queue_up()
        try:
            while self._ahead(place) or not self._try():
                told = self._tell(place, told, emit)
                asked = control.poll()
                if asked.save:
                    control.nothing_to_save()
                if asked.pause or asked.stop:
                    self._leave_queue()
                    control.boundary(lambda: None)  # there is nothing to save yet
                    told, place = "", self._queue_up()
                time.sleep(_POLL)
        finally:
            self._leave_queue()
        emit(Stage(HAS_TURN))

    def release(self) -> None:
        """Let the next one have it. Idempotent."""
        if self._fd >= 0:
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            held_locks.pop(self._path, None)
            self._fd = -1

    def _try(self) -> bool:
        path = self._path
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(
                f"{path} cannot be opened.", why=str(error), todo="Check the disk and the folder's rights."
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError as error:
            os.close(fd)
            raise no_locks(path, error) from None
        self._fd = held_locks[path] = fd
        with suppress(OSError):  # the name is for those who ask; on a full disk the lock holds all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, self._run.name.encode(), 0)
        return True

    def _ahead(self, place: int) -> list[RunFolder]:
        """The runs that have been waiting for longer."""
        mine = (place, self._run.number)
        return [run for number, run in _queue(self._project) if (number, run.number) < mine and run != self._run]

    def _queue_up(self) -> int:
        place = max((number for number, _ in _queue(self._project)), default=0) + 1
        with suppress(OSError):  # without the mark the others do not see it, and may go first
            write_whole(self._run.control_dir / WAITING, b"%d" % place)
        return place

    def _leave_queue(self) -> None:
        with suppress(OSError):
            (self._run.control_dir / WAITING).unlink(missing_ok=True)

    def _tell(self, place: int, told: str, emit: EventSink) -> str:
        """Report whom it waits for, if that has changed; returns what was said last."""
        holder = model_holder(self._project)
        if holder is None and told:
            return told  # it has ended this moment, and its process is about to go
        before = len(self._ahead(place))
        now = f"{holder.name if holder is not None else 'another run'} has it{_though_paused(holder)}"
        now += f"; {before} more before this one" if before else ""
        if now != told:
            emit(Stage(WAITS, now))
        return now


def _though_paused(holder: RunFolder | None) -> str:
    return ", though it is paused" if holder is not None and holder.status() == "paused" else ""


def _way_out(holder: RunFolder | None) -> str:
    if holder is None:
        return "Wait until it has ended"
    return f"Wait until it has ended, or stop it with 'rlhf-tui runs stop {holder.name}'"


def _queue(project: Project) -> list[tuple[int, RunFolder]]:
    """The waiting runs whose workers live, each with its number. A mark that cannot be read counts for nothing."""
    found = []
    for run in list_runs(project):
        number = _number(run.control_dir / WAITING)
        if number is not None and run.alive:
            found.append((number, run))
    return found


def _number(mark: Path) -> int | None:
    try:
        return int(mark.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
