"""Asking a run to pause, go on, save or stop; and, in the worker, hearing it.

A request is a file in the run's `control/` folder, so it can come from any process, before or after
the app was closed, and asking twice changes nothing. SIGTERM and SIGINT ask for a stop, too.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.runs.events import Alert, EventSink, Stage
from rlhf_tui.runs.folder import PAUSED, WAITING, RunFolder, write_whole
from rlhf_tui.runs.versions import require_understood

Verb = Literal["pause", "resume", "save", "stop"]

_FILES = ("pause", "save", "stop")
_POLL = 0.2
_ENDED = {"finished", "stopped", "failed", "crashed"}


class StopRequested(Exception):
    """Somebody asked the run to stop; it has saved and now unwinds."""


def asked(run: RunFolder, verb: Verb) -> bool:
    """Whether the run was asked for something that it has not done yet."""
    return (run.control_dir / verb).exists()


def request(run: RunFolder, verb: Verb) -> None:
    """Ask `run` for something. It acts at its next boundary between steps; asking twice is harmless.

    `stop` also ends a pause. A run that has not begun yet acts when it does. Raises UsageError when
    the run has ended (except for `stop`, which then has nothing left to do), NewerVersion when a newer
    version's worker carries it out.
    """
    if run.status() in _ENDED:
        if verb == "stop":
            return
        raise UsageError(
            f"{run.name} is not running: it cannot {verb}.",
            why=f"Its status is '{run.status()}'.",
            todo="'rlhf-tui runs list' shows which runs are alive.",
        )
    require_understood(run.record_path, run.events_path)
    try:
        if verb == "resume":
            (run.control_dir / "pause").unlink(missing_ok=True)
        else:
            write_whole(run.control_dir / verb, b"")
    except OSError as error:
        raise UserError(
            f"{run.name} could not be asked to {verb}.", why=str(error), todo="Check the disk and the folder's rights."
        ) from None


class StopSignal:
    """SIGTERM and SIGINT in this process: the first is a request, the second ends it at once."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Take over both signals (main thread only), and ignore the terminal's hang-up."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        # Only the second raises: later ones must not interrupt the writing of Done.
        if self.count == 2:
            raise KeyboardInterrupt


stop_signal = StopSignal()


class Requests(NamedTuple):
    """What is being asked of a run right now."""

    pause: bool
    stop: bool
    save: bool


class Control:
    """The worker's ear. `folders` are control folders: the run's own, and those of the runs it is part of.

    `emit`, when given, hears Stage('paused') and Stage('resumed'). `give_back` is called before a pause, to free the
    memory: it does not return, or says why it could not (nothing where that is no matter).
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        emit: EventSink | None = None,
        signals: StopSignal = stop_signal,
        give_back: Callable[[], str] = lambda: "",
    ) -> None:
        self._folders = tuple(folders)
        self._emit = emit
        self._signals = signals
        self._give_back = give_back

    def poll(self) -> Requests:
        """What is asked now. Changes nothing. Raises UserError when the folder it listens to is gone."""
        self._require_there()
        return Requests(
            pause=self._asked("pause"),
            stop=self._signals.count > 0 or self._asked("stop"),
            save=self._asked("save"),
        )

    def _require_there(self) -> None:
        """A worker whose folder was moved hears nobody any more, and would save where nobody looks."""
        folder = self._folders[0]
        if not folder.is_dir():
            raise UserError(
                f"{folder.parent} is no longer there.",
                why="The project was moved, renamed or removed while the run was going on.",
                todo="'rlhf-tui runs resume' in its new place goes on from what is saved there.",
            )

    def boundary(self, save: Callable[[], None]) -> None:
        """Between two steps: do what is asked, and return when the run should go on.

        Every request saves first, once: a paused run may never get the chance again. While paused,
        waits. Raises StopRequested when asked to stop, UserError when the run's folder is gone.
        """
        saved = paused = False
        try:
            while any(asked := self.poll()):
                self._forget("save")
                if not saved:
                    save()
                    saved = True
                if asked.stop:
                    raise StopRequested
                if asked.pause:
                    if not paused:
                        kept = self._give_back()
                        paused = True
                        self._mark_paused(kept)
                    time.sleep(_POLL)
        finally:
            if paused:
                self._forget(PAUSED)
        if paused:
            self._say("resumed")

    def nothing_to_save(self) -> None:
        """Drop a request to save, of a run that has not begun its work."""
        self._forget("save")

    def _mark_paused(self, kept: str) -> None:
        # A mark for `RunFolder.status`. On a full disk the pause itself still holds.
        with suppress(OSError):
            for folder in self._folders:
                (folder / PAUSED).touch(mode=0o600)
        self._say("paused")
        if kept and self._emit is not None:
            message = "Paused, but the memory of the model is still taken."
            remedy = "'rlhf-tui runs stop' frees it; 'rlhf-tui runs resume' then goes on from what is saved."
            self._emit(Alert("warning", "pause-keeps-memory", message, why=kept, remedy=remedy))

    def _say(self, name: str) -> None:
        if self._emit is not None:
            self._emit(Stage(name))

    def _asked(self, name: str) -> bool:
        return any((folder / name).exists() for folder in self._folders)

    def _forget(self, name: str) -> None:
        for folder in self._folders:
            (folder / name).unlink(missing_ok=True)


def clear(run: RunFolder) -> None:
    """Drop all requests to `run` and its marks: they belonged to an execution that is over."""
    for name in (*_FILES, PAUSED, WAITING):
        (run.control_dir / name).unlink(missing_ok=True)


def clear_stale(run: RunFolder) -> None:
    """The same for a run that begins again: what was asked since this process signed its lock is kept.

    Requests of the future are dropped, too: they were made before a clock was set back.
    """
    signed, now = run.lock_path.stat().st_mtime_ns, time.time_ns()
    for name in _FILES:
        asked = run.control_dir / name
        with suppress(FileNotFoundError):
            if not signed <= asked.stat().st_mtime_ns <= now:
                asked.unlink()
    for mark in (PAUSED, WAITING):
        (run.control_dir / mark).unlink(missing_ok=True)
