"""Runs on a plain console: what they do, told line by line while they do it."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from rlhf_tui.app import words
from rlhf_tui.app.announcing import for_run
from rlhf_tui.app.state import Pace
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.project import Project
from rlhf_tui.runs.control import request
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.events import Alert, Done, Event, Launch, Metric, Progress, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, find
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import await_exit
from rlhf_tui.runs.notify import News, alerted, began, ended
from rlhf_tui.runs.turn import WAITS

_POLL = 0.2
_BAR = 24
_QUIET_SECONDS = 15.0  # between two progress lines where no cursor can move
_SHOWN = ("loss", "accuracy", "heldout_accuracy", "score", "heldout_score", "kl", "length", "eos_rate")


class ConsoleFollower:
    """Prints what runs say. On a terminal one line is redrawn; elsewhere lines come now and then."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._open_line = False
        self._printed = 0.0
        self._numbers: dict[str, float] = {}
        self._pace = Pace()

    def show(self, run: RunFolder, t: float, event: Event) -> None:
        """Print one event of `run`, written at unix time `t`."""
        if isinstance(event, Launch) or (isinstance(event, Stage) and event.name in ("paused", "resumed")):
            self._pace.forget()
        match event:
            case Launch():
                self._numbers = {}
            case Stage(name, detail) if run.kind == "demo":
                self._line(f"\n{name}  ({detail})" if detail else name)
            case Stage(name, detail) if not detail or name == WAITS:
                self._line(f"  {name}: {detail}" if detail else f"  {name}")
            case Progress() as progress if run.kind != "demo":
                self._progress(t, progress)
            case Metric(_, values):
                known = self._numbers | values  # an evaluation comes beside an update, not in its place
                self._numbers = {name: known[name] for name in _SHOWN if name in known}
            case Alert(level, _, message, why, remedy):
                self._line(f"  {level}: {' '.join(part for part in (message, why, remedy) if part)}")
            case Sample(_, prompt, completion, _, "generate" | "policy") if self._live:
                self._line(f"  {_short(prompt, 60)} → {_short(completion, 100)}")
            case _:
                pass

    def close(self) -> None:
        """End the line that is being redrawn."""
        if self._open_line:
            self._out.write("\n")
            self._out.flush()
            self._open_line = False

    def _progress(self, t: float, progress: Progress) -> None:
        text = self._progress_text(t, progress)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[2K{text[:width]}")
            self._out.flush()
            self._open_line = True
        elif progress.done in (0, progress.total) or abs(t - self._printed) >= _QUIET_SECONDS:
            self._line(text)
            self._printed = t

    def _progress_text(self, t: float, progress: Progress) -> str:
        self._pace.add(t, progress)
        done, total, unit = progress.done, progress.total, progress.unit
        left = self._pace.left(t) if done < total else math.nan
        told = "" if math.isnan(left) else f"  {_duration(left)} left"
        filled = round(_BAR * done / total) if total else 0
        numbers = "  ".join(f"{name.replace('_', '-')} {value:.2f}" for name, value in self._numbers.items())
        return (
            f"  [{'#' * filled}{'.' * (_BAR - filled)}] {words.progress(done, total, unit)}{told}  {numbers}".rstrip()
        )

    def _line(self, text: str) -> None:
        self.close()
        self._out.write(clean(text) + "\n")
        self._out.flush()


class _Journals:
    """The journal of a run, and those of the runs that it says it is made of. `show` gets run, time and event."""

    def __init__(self, project: Project, run: RunFolder, show: Callable[[RunFolder, float, Event], None]) -> None:
        self._project = project
        self._show = show
        self._readers = {run.name: (run, JournalReader(run.events_path))}

    @property
    def caught_up(self) -> bool:
        return all(reader.caught_up for _, reader in self._readers.values())

    def read(self) -> None:
        """Show what is new in all of them."""
        for run, reader in list(self._readers.values()):
            for t, event in reader.read():
                if run.kind == "demo" and isinstance(event, Stage) and event.detail:
                    self._begin(event.detail)
                self._show(run, t, event)

    def _begin(self, name: str) -> None:
        """Show the end of the part before, so that it does not come after the next one's heading."""
        for run, reader in self._readers.values():
            if run.kind != "demo":
                self._drain(run, reader)
        child = find(self._project, name)
        self._readers.setdefault(child.name, (child, JournalReader(child.events_path)))

    def _drain(self, run: RunFolder, reader: JournalReader) -> None:
        while True:
            for t, event in reader.read():
                self._show(run, t, event)
            if reader.caught_up:
                return


Announce = Callable[[RunFolder, News], None]


def silent(run: RunFolder, news: News) -> None:
    """Announce nothing."""


def terminal_announcer(out: TextIO | None = None) -> Announce:
    """Rings and shows news on the terminal behind `out` (standard error), if standard output is a terminal, too."""
    out = out or sys.stderr
    if not (out.isatty() and sys.stdout.isatty()):
        return silent

    def announce(run: RunFolder, news: News) -> None:
        out.write(for_run(run, news))
        out.flush()

    return announce


def follow_on_console(project: Project, run: RunFolder, out: TextIO | None = None, announce: Announce = silent) -> Done:
    """Print what `run` does, and the runs it is made of, to `out` (standard error) until it ends.

    `announce` is told when it begins and ends, and of alerts from now on; nothing of a run that is over.
    Ctrl-C asks it to save and stop; a second one leaves it running. Raises UserError when the run failed,
    crashed or was never started, KeyboardInterrupt on the second Ctrl-C.
    """
    out = out or sys.stderr
    follower = ConsoleFollower(out)
    began_alive, since = run.alive, time.time()

    def show(one: RunFolder, t: float, event: Event) -> None:
        follower.show(one, t, event)
        if isinstance(event, Alert) and began_alive and t >= since:
            announce(one, alerted(project, one, event))

    journals = _Journals(project, run, show)
    if began_alive:
        announce(run, began(project, run))
    stopping = False
    while True:
        try:
            alive = run.alive  # asked before reading: a worker that has ended has written all it will ever write
            journals.read()
            if not alive and journals.caught_up:
                break
            time.sleep(_POLL if alive else 0)
        except KeyboardInterrupt:
            follower.close()
            if stopping:
                out.write(f"{run.name} goes on; 'rlhf-tui runs watch {run.name}' shows it again.\n")
                raise
            stopping = True
            request(run, "stop")
            out.write("Saving and stopping… (Ctrl-C again to leave it running)\n")
    follower.close()
    await_exit(run)
    if began_alive:
        announce(run, ended(project, run, run.done()))
    return _ended(run)


def _ended(run: RunFolder) -> Done:
    done = run.done()
    if done is None and run.status() == "new":
        raise UserError(f"{run.name} has not been started.", todo=f"Start it with 'rlhf-tui runs resume {run.name}'.")
    if done is None:
        end = ending(run)
        raise UserError(end.what, why=end.why, todo=end.todo) if end is not None else UserError(f"{run.name} goes on.")
    if done.status == "failed":
        error = done.error or {}
        raise UserError(error.get("what", done.message), why=error.get("why", ""), todo=error.get("todo", ""))
    return done


def _short(text: str, width: int) -> str:
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
