"""Giving card and memory back while a run is paused.

Nothing frees a card as surely as the end of the program that used it: with it go the weights, what the allocator keeps
and the device's own context. So a worker that is asked to pause saves, and then replaces itself (exec) with itself as
it was before it had loaded anything: the same process, which holds the same locks without a gap. It waits, and when it
may go on it takes the run up from what was saved, as after a crash; on the CPU that is the same bit for bit.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.project import Project
from rlhf_tui.runs.control import Control, stop_signal
from rlhf_tui.runs.events import Event, EventSink
from rlhf_tui.runs.folder import MODEL_LOCK, RunFolder, find, held_locks, inherited_locks
from rlhf_tui.runs.modes import modes

OPTION = "--paused"
_SIGNALS = {signal.SIGTERM, signal.SIGINT}


class Replacement:
    """What this process replaces itself with to pause: nothing, until a program that is only a worker says so."""

    def __init__(self) -> None:
        self._command: tuple[str, ...] = ()

    def allow(self, module: str, arguments: Sequence[str]) -> None:
        """This process is `python -m module arguments` and nothing else: it may be replaced by the same."""
        options = sys.orig_argv[1 : sys.orig_argv.index("-m")]  # those of Python itself
        own = [text for text in arguments if not text.startswith(f"{OPTION}=")]
        self._command = (sys.executable, *options, "-m", module, *own)

    def give_back(self) -> str:
        """Replace this process by one that waits without a model, and does not return then.

        Otherwise says why that was not possible; nothing when a stop has been asked, or when this process is more than
        a worker.
        """
        if not self._command:
            return ""
        # What comes from here on stays pending, through the exec, until the waiting process can hear it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if stop_signal.count:
                return ""
            _keep_only(set(held_locks.values()))
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            handed_on = [f"{OPTION}={path.name}={fd}" for path, fd in held_locks.items()]
            with modes.usual():  # from which the next program makes its own
                os.execv(self._command[0], [*self._command, *handed_on])
        except OSError as error:
            return str(error)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


replacement = Replacement()
_woken: set[Path] = set()


def inherit(project: Project, handed_on: Sequence[str]) -> list[RunFolder]:
    """The paused runs that this process took over with their locks, the whole before its part. Call it once.

    `handed_on` are the texts `RUN=FD` of the command line; one may name the lock of the model. Raises UsageError for
    one that is malformed, or whose lock this process does not hold.
    """
    runs = []
    for text in handed_on:
        name, _, number = text.rpartition("=")
        held = lock = project.runs / MODEL_LOCK
        if name != MODEL_LOCK:
            run = find(project, name)
            held, lock = run.path, run.lock_path
            runs.append(run)
        if not number.isdecimal() or not _is_lock(int(number), lock):
            raise UsageError(f"{OPTION}={text} names no lock.", todo="Only a worker that pauses passes this option.")
        os.set_inheritable(int(number), False)
        inherited_locks[held] = int(number)
    _woken.update(run.path for run in runs)
    return runs


def wait(runs: Sequence[RunFolder], emit: EventSink) -> None:
    """Wait until these runs, the whole before its part, may go on; `emit` is the journal of the last one.

    Raises StopRequested when they shall stop, UserError when their folder is gone.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def say(event: Event) -> None:
        with suppress(UserError):  # on a full disk the pause itself still holds
            emit(event)

    Control([run.control_dir for run in reversed(runs)], emit=say).boundary(lambda: None)


def woken(run: RunFolder) -> bool:
    """Whether `run` goes on after a pause in this process: what it is asked is meant for it. True only once."""
    with suppress(KeyError):
        _woken.remove(run.path)
        return True
    return False


def let_go(run: RunFolder) -> None:
    """Release the lock of a run that this process took over and has not taken up again."""
    fd = inherited_locks.pop(run.path, -1)
    if fd >= 0:
        os.close(fd)


def _keep_only(wanted: set[int]) -> None:
    """Let the exec close all files but the standard ones and `wanted`; an open device would keep its memory."""
    for number in (int(name) for name in os.listdir("/dev/fd")):
        if number > 2:
            with suppress(OSError):  # the listing's own is closed by now
                os.set_inheritable(number, number in wanted)


def _is_lock(fd: int, path: Path) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # changes nothing for whoever holds it already
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
