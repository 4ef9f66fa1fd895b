"""TensorBoard's event files: metrics as scalars, samples as texts.

The package `tensorboard` writes the records (the extra of that name); it is imported when the first
file is made, and brings neither torch nor TensorFlow with it.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.runs.events import Alert, Event, EventSink, Metric, Sample
from rlhf_tui.settings import RunSettings

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\..*")
_HELD_BACK = 16  # samples


def require_writer() -> None:
    """Raise UserError when the package that writes the records is missing or broken."""
    _records()


def file_name(seconds: int) -> str:
    """The name of an event file; TensorBoard reads the files of a folder in the order of their names."""
    return f"events.out.tfevents.{seconds:010d}.rlhf-tui"


class EventFile:
    """One new event file. Every record is handed to the system before the call returns.

    Times are unix seconds. Raises UserError without the package, OSError when the file exists
    already or cannot be written.
    """

    def __init__(self, path: Path, t: float) -> None:
        self._proto = _records()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(fd, "wb")
        self._writer = self._proto.RecordWriter(self._file)
        self._drawn: dict[str, tuple[int, int]] = {}
        self._write(self._proto.Event(wall_time=t, file_version="brain.Event:2"))

    def metric(self, t: float, metric: Metric) -> None:
        """One point in the chart of every value."""
        proto = self._proto
        values = [proto.Summary.Value(tag=name, simple_value=value) for name, value in metric.values.items()]
        self._write(proto.Event(wall_time=t, step=metric.step, summary=proto.Summary(value=values)))

    def sample(self, t: float, sample: Sample) -> None:
        """Prompt and completion as a text of that step; those of one step and source lie under different tags."""
        step, number = self._drawn.get(sample.source, (sample.step, -1))
        number = number + 1 if step == sample.step else 0
        self._drawn[sample.source] = (sample.step, number)
        summary = self._proto.text_pb(f"{sample.source or 'sample'}/{number + 1}", _as_quoted(sample))
        self._write(self._proto.Event(wall_time=t, step=sample.step, summary=summary))

    def start(self, t: float, step: int) -> None:
        """An execution begins at `step`: what an earlier one wrote for this step and later ones does not count."""
        log = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(self._proto.Event(wall_time=t, step=step, session_log=log))

    def close(self) -> None:
        """Force the file to the disk and close it. Idempotent."""
        if not self._file.closed:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


class LiveBoard:
    """An event file that grows while a run does: one for each execution, in the same folder.

    Only metrics and samples matter to it. What an execution that crashed wrote beyond its last checkpoint
    is taken back when the next one comes to the same steps. May be called from several threads. Raises
    UserError and OSError as `EventFile` does, and cannot be used after that.
    """

    def __init__(self, folder: Path) -> None:
        require_writer()
        folder.mkdir(mode=0o700, exist_ok=True)
        now = time.time()
        # A clock that was set back must not put this file before those of earlier executions.
        seconds = max([int(now), *(earlier + 1 for earlier in _times(folder))])
        self._file = EventFile(folder / file_name(seconds), now)
        self._lock = threading.Lock()
        self._step: int | None = None
        self._held_back: list[tuple[float, Sample]] = []

    def __call__(self, event: Event) -> None:
        now = time.time()
        with self._lock:
            match event:
                case Metric():
                    self._begin(now, event.step)
                    self._file.metric(now, event)
                case Sample() if self._step is None:
                    self._hold_back(now, event)
                case Sample():
                    self._file.sample(now, event)
                case _:
                    pass

    def close(self) -> None:
        """Write what was held back and close the file. Idempotent."""
        with self._lock:
            try:
                if self._held_back:
                    self._begin(time.time(), min(sample.step for _, sample in self._held_back))
            finally:
                self._file.close()

    def _hold_back(self, now: float, sample: Sample) -> None:
        """Keep a sample until it is known where this execution begins: metrics say so, if the run has any.

        The samples of an update come before its metrics, and a start behind them would take them back, too.
        """
        self._held_back.append((now, sample))
        if len(self._held_back) == _HELD_BACK:
            self._begin(now, min(sample.step for _, sample in self._held_back))

    def _begin(self, now: float, step: int) -> None:
        """Say where this execution begins, and again when its steps go back."""
        if self._step is None or step < self._step:
            self._file.start(now, step)
        self._step = step
        for t, sample in self._held_back:
            self._file.sample(t, sample)
        self._held_back.clear()


@contextmanager
def shown_live(folder: Path, settings: RunSettings, emit: EventSink) -> Iterator[EventSink]:
    """`emit`, and a `LiveBoard` in `folder` that hears the same while the context lasts, if it is wanted.

    Trouble with the board is one alert, and the run goes on without it.
    """
    if not settings.tensorboard:
        yield emit
        return
    sink = _WithBoard(emit, folder)
    try:
        yield sink
    finally:
        sink.close()


class _WithBoard:
    def __init__(self, emit: EventSink, folder: Path) -> None:
        self._emit = emit
        self._board: LiveBoard | None = None
        try:
            self._board = LiveBoard(folder)
        except (UserError, OSError) as error:
            self._alert(error)

    def __call__(self, event: Event) -> None:
        self._emit(event)
        if self._board is not None:
            try:
                self._board(event)
            except Exception as error:
                self._give_up(error)

    def close(self) -> None:
        if self._board is not None:
            try:
                self._board.close()
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        board, self._board = self._board, None
        if board is None:  # another thread met the same trouble first
            return
        with suppress(Exception):
            board.close()
        self._alert(error)

    def _alert(self, error: Exception) -> None:
        message = "TensorBoard's file is not being written."
        why = " ".join(str(error).split("\n"))
        remedy = "The run goes on without it; 'rlhf-tui runs export RUN --to tensorboard' writes it afterwards."
        with suppress(UserError):  # the journal's own trouble shows at the next event
            self._emit(Alert("warning", "tensorboard-off", message, why=why, remedy=remedy))


class _Records:
    """What of the package `tensorboard` is used here."""

    def __init__(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.Event, self.SessionLog, self.Summary = Event, SessionLog, Summary
        self.text_pb, self.RecordWriter = text_pb, RecordWriter


def _records() -> _Records:
    try:
        return _Records()
    except Exception as error:  # protobuf raises errors of its own for generated code that does not fit
        raise UserError(
            "TensorBoard's event files cannot be written.",
            why=f"The package 'tensorboard' cannot be imported: {error}",
            todo="Install it with: pip install 'rlhf-tui[tensorboard]'.",
        ) from None


def _times(folder: Path) -> Iterable[int]:
    """The seconds in the names of the event files of a folder."""
    return (int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def _as_quoted(sample: Sample) -> str:
    """Markdown that shows both texts letter for letter: TensorBoard would follow links and pictures in them."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in sample.values.items())
    parts = ["**prompt**", _quoted(sample.prompt), "**completion**", _quoted(sample.completion)]
    return "\n\n".join([*parts, values] if values else parts)


def _quoted(text: str) -> str:
    # Indented by four a line is code, whatever stands in it; a fence could be ended by the text itself.
    return "\n".join(f"    {line}" for line in (clean(text) or " ").splitlines())
