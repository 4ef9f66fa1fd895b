"""Leaving the terminal in order: signals, a vanished terminal, and what is kept of a crash.

Textual handles neither SIGTERM nor SIGHUP on Linux: both would leave the alternate screen on and the
cursor off, and a terminal that hung up would leave a process spinning on the end of its input.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import signal
import sys
import termios
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from textual.drivers.linux_driver import LinuxDriver

from rlhf_tui.errors import UserError


class Driver(LinuxDriver):
    """Textual's own, for a terminal that may vanish.

    When it does, the thread that writes dies of the first write; Textual would go on filling its queue and, once that
    is full, wait for ever. (The hang-up brings a SIGCONT, too, at which Textual starts another such thread.)
    """

    def write(self, data: str) -> None:
        """Hand text to the thread that writes; nothing once that is gone."""
        self._hand_over(data)

    def close(self) -> None:
        """Let that thread write the rest and end, if it is still there."""
        self._hand_over(None)
        if self._writer_thread is not None:
            self._writer_thread.join()

    def _hand_over(self, text: str | None) -> None:
        writer = self._writer_thread
        while writer is not None and writer.is_alive():
            try:
                return writer._queue.put(text, timeout=0.1)
            except queue.Full:
                continue


def leave_on_signals(leave: Callable[[], object]) -> None:
    """Call `leave` on SIGTERM and SIGHUP. Does nothing outside the main thread, where it is impossible."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        try:
            loop.add_signal_handler(number, leave)
        except (NotImplementedError, RuntimeError, ValueError):
            return


def hung_up(fd: int = 0) -> bool:
    """Whether the terminal behind `fd` is gone: hung up, closed, or no terminal any more."""
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        events = dict(poll.poll(0)).get(fd, 0)
        if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            return True
        termios.tcgetattr(fd)
    except (OSError, termios.error, ValueError):
        return True
    return False


class Bugs:
    """What went wrong inside the app itself while it lived on: each kept in a file in `folder`, and told once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._met: set[str] = set()
        #: The file with the newest traceback, if it could be written.
        self.file: Path | None = None

    def meet(self, error: Exception) -> UserError | None:
        """What to tell of a bug; None when it is known already, as one that every look of a timer meets again."""
        trace = "".join(traceback.format_exception(error))
        if trace in self._met:
            return None
        self._met.add(trace)
        what, why = self.told(error).split("\n")
        return UserError(what, why=why, todo="Nothing else is lost: the app goes on, and so does a run.")

    def told(self, error: BaseException) -> str:
        """Keep the traceback; the bug in a line, and in a second one where it is kept."""
        self.file = keep_crash(self._folder, error)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        kept = f"Its traceback is in {self.file}" if self.file else "Its traceback could not be written."
        return f"rlhf_tui met a bug: {said}\n{kept}"


def require_terminal() -> None:
    """Raise UserError when there is no terminal to draw on."""
    if not (sys.stdin.isatty() and sys.__stderr__ is not None and sys.__stderr__.isatty()):
        raise UserError(
            "The app needs a terminal.",
            why="Its input or output is not one.",
            todo="Run it in a terminal, or use the other verbs: 'rlhf-tui --help'.",
        )


def keep_crash(folder: Path, error: BaseException) -> Path | None:
    """Write the traceback, without any values, to a file only the user can read; None when that fails."""
    path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    text = "".join(traceback.format_exception(error))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return None
    return path
