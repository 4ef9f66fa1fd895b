"""The watcher of a worker: its parent process, which waits for its end and writes down how it came.

    python -I -S watcher.py FOLDER PROGRAM ARGUMENT…

Only its parent learns by which signal a process died. Whoever launches a run may be gone by then (a
verb with --detach, an app that was closed, a terminal that was killed), so that the parent is this
process, which does nothing else and outlives the worker. It is a program of its own and no fork of the
launcher: the app has threads, whose locks a fork would copy in whatever state they are, and memory,
which it would hold for as long as the run goes on. Started afresh with nothing but the standard library
it takes 10 MB, of which 4 are its own. For the same reason this file imports nothing of its package.

It runs in the run's folder, which it finds again when the project was moved, and starts PROGRAM in
FOLDER, in a session of that one's own, with what is standard error here as its output. It prints the
worker's process id and closes its output; it ends as the worker did, as a shell would say it: with the
same code, or 128 and the number of the signal. If it is killed itself, the worker goes on unwatched.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

EXIT = "exit.json"
#: Exit codes of a worker that was refused and has left the run as it was (see `worker`).
BUSY, TAKEN = 75, 69  # EX_TEMPFAIL and EX_UNAVAILABLE of sysexits.h
NOT_STARTED = 71  # EX_OSERR
_DEAF_TO = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """The watching process. Returns its exit code."""
    folder, *command = arguments
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some launchers do, it would hide the exit status
    try:
        worker = os.fork()
    except OSError as error:
        print(f"The worker cannot be started: {error}", file=sys.stderr)
        return NOT_STARTED
    if worker == 0:
        _become(folder, command)
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    _tell(worker)
    # The dead worker is kept until its end is written down: while its process id is there, the note is on its way.
    found = os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    by_itself = found is not None and found.si_code == os.CLD_EXITED
    status = found.si_status if found is not None else 0
    if not (by_itself and status in (BUSY, TAKEN)):
        try:
            note(EXIT, worker, status if by_itself else 0, 0 if by_itself else status)
        except OSError as error:
            print(f"How the worker ended cannot be written down: {error}", file=sys.stderr)
    os.waitpid(worker, 0)
    return status if by_itself else 128 + status


def note(path: str | os.PathLike[str], pid: int, code: int, number: int) -> None:
    """Write how the process `pid` ended: its code, or the number of the signal that killed it (else 0).

    Raises OSError when the disk does not take it; what was there before is then still there.
    """
    beside = f"{os.fspath(path)}.partial"
    text = f'{{"pid":{pid},"code":{code},"signal":{number},"oom_kills":{oom_kills()}}}\n'
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, text.encode("ascii"))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(beside, path)


def oom_kills() -> int:
    """How many processes the system has ended for lack of memory since it booted; -1 where it does not say."""
    with suppress(OSError), open("/proc/vmstat", encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, _, count = line.strip().partition(" ")
            if name == "oom_kill" and count.isdecimal():
                return int(count)
    return -1


def _become(folder: str, command: list[str]) -> None:
    """In the child: be the worker. Does not return."""
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(2, 1)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(NOT_STARTED)


def _tell(worker: int) -> None:
    """Say the worker's process id to the launcher, which may be gone, and let go of its pipe."""
    with suppress(OSError):
        os.write(1, b"%d\n" % worker)
    os.dup2(0, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
