"""What a run measured, written for other programs: a table, lines of JSON, or TensorBoard's event files.

A run that was taken up again after a crash has some steps twice in its journal; what counts is what was
said last. A demo leaves with its parts. The run may still be going on: then what it has written so far leaves.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from rlhf_tui.errors import UsageError, UserError, nearest
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Launch, Metric, Sample, Stage, Stamped
from rlhf_tui.runs.folder import RunFolder, find
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.tensorboard import EventFile, file_name, require_writer

#: What follows a run's name in the default target.
_ENDINGS = {"csv": ".csv", "jsonl": ".jsonl", "tensorboard": "-tensorboard"}


class Told(NamedTuple):
    """Something that leaves: unix time, its place in the journal, and in which execution it was said."""

    t: float
    place: int
    execution: int
    event: Metric | Sample


class History:
    """The metrics and samples of one journal that still count, folded from its events in order."""

    def __init__(self) -> None:
        self.parts: list[str] = []  # names of the runs that a demo is made of
        self._metrics: list[Told] = []
        self._samples: dict[str, list[Told]] = {}
        self._execution = self._place = 0

    @property
    def metrics(self) -> Sequence[Told]:
        return self._metrics

    def told(self) -> list[Told]:
        """Metrics and samples in the order in which they were written."""
        samples = (told for source in self._samples.values() for told in source)
        return sorted([*self._metrics, *samples], key=lambda told: told.place)

    def add(self, stamped: Stamped) -> None:
        """Fold one event."""
        self._place += 1
        match stamped.event:
            case Launch():
                self._execution += 1
            case Stage(_, detail) if detail and detail not in self.parts:
                self.parts.append(detail)
            case Metric() as metric:
                self._take_back(metric)
                self._metrics.append(Told(stamped.t, self._place, self._execution, metric))
            case Sample() as sample:
                earlier = self._samples.setdefault(sample.source, [])
                while earlier and earlier[-1].execution < self._execution and earlier[-1].event.step >= sample.step:
                    earlier.pop()
                earlier.append(Told(stamped.t, self._place, self._execution, sample))
            case _:
                pass

    def _take_back(self, metric: Metric) -> None:
        """Drop what was measured beyond this step, and what this one measures again at the same step."""
        while self._metrics and self._metrics[-1].event.step > metric.step:
            self._metrics.pop()
        for index in range(len(self._metrics) - 1, -1, -1):
            told = self._metrics[index]
            if told.event.step < metric.step:
                return
            left = {name: value for name, value in told.event.values.items() if name not in metric.values}
            if not left:
                del self._metrics[index]
            elif len(left) < len(told.event.values):
                self._metrics[index] = told._replace(event=Metric(metric.step, left))


@dataclass(frozen=True)
class Exported:
    """What was written where. `skipped` counts broken lines; `missing` names parts whose folder is gone."""

    path: Path
    format: str
    runs: tuple[str, ...]
    steps: int
    metrics: int
    samples: int
    skipped: int
    missing: tuple[str, ...]
    going_on: bool


def export_metrics(project: Project, run: RunFolder, form: str, out: Path | None) -> Exported:
    """Write what `run` measured to `out` (None: in the project's exports/), whole or not at all.

    `form` is csv, jsonl or tensorboard; for the last, `out` becomes a folder with one folder for each run.
    Raises UsageError for an unknown form or a target that exists, UserError when there is nothing to write,
    the disk does not take it, or the package for TensorBoard is missing.
    """
    if form not in _WRITERS:
        raise UsageError(
            f"Metrics cannot be exported as {form!r}.", why=nearest(form, _WRITERS), todo=f"Say --to {_choices()}."
        )
    target = out if out is not None else project.exports / f"{run.name}{_ENDINGS[form]}"
    _refuse_existing(target)
    if form == "tensorboard":
        require_writer()
    going_on = run.alive
    histories, skipped, missing = _histories(project, run)
    _require_content(run, histories, form)
    try:
        with _beside(target) as beside:
            _WRITERS[form](histories, beside)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written.", why=error.strerror or str(error), todo="Choose another place with --out."
        ) from None
    told = [one for history in histories.values() for one in history.told()]
    return Exported(
        path=target,
        format=form,
        runs=tuple(histories),
        steps=sum(len(_rows(history)) for history in histories.values()),
        metrics=len(_columns(histories)),
        samples=0 if form == "csv" else sum(isinstance(one.event, Sample) for one in told),
        skipped=skipped,
        missing=tuple(missing),
        going_on=going_on,
    )


# -- reading --------------------------------------------------------------------------------------

Histories = Mapping[str, History]  # by the run's name


def _histories(project: Project, run: RunFolder) -> tuple[dict[str, History], int, list[str]]:
    """What the run and its parts have told, how many lines were broken, and which parts are gone."""
    whole, skipped = _read(run)
    found, missing = {run.name: whole}, []
    for name in whole.parts if run.kind == "demo" else ():
        try:
            found[name], broken = _read(find(project, name))
        except UsageError:
            missing.append(name)
        else:
            skipped += broken
    return found, skipped, missing


def _read(run: RunFolder) -> tuple[History, int]:
    """A journal as far as it is written now. Raises UserError when it cannot be read."""
    reader, history = JournalReader(run.events_path), History()
    try:
        while True:
            resets = reader.resets
            events = reader.read()
            if reader.resets != resets:
                history = History()
            for stamped in events:
                history.add(stamped)
            if reader.caught_up:
                return history, reader.skipped
    except OSError as error:
        raise UserError(
            f"{run.events_path} cannot be read.", why=error.strerror or str(error), todo="Check the folder's rights."
        ) from None


def _require_content(run: RunFolder, histories: Histories, form: str) -> None:
    if any(history.metrics for history in histories.values()):
        return
    if not any(history.told() for history in histories.values()):
        raise UserError(
            f"{run.name} has nothing to export.",
            why=f"Its journal holds neither metrics nor samples; its status is '{run.status()}'.",
            todo="'rlhf-tui runs list' shows the other runs.",
        )
    if form == "csv":
        raise UserError(
            f"{run.name} has no metrics for a table.",
            why=f"A {run.kind} run tells samples only, or has not come to its first step yet.",
            todo="Say --to jsonl for the samples.",
        )


# -- writing --------------------------------------------------------------------------------------


def _columns(histories: Histories) -> list[str]:
    """All names of metrics, in the order in which they first appear."""
    metrics = (told.event.values for history in histories.values() for told in history.metrics)
    return list(dict.fromkeys(name for values in metrics for name in values))


def _rows(history: History) -> dict[int, tuple[float, dict[str, float]]]:
    """By step: when it was first measured, and all of its values."""
    rows: dict[int, tuple[float, dict[str, float]]] = {}
    for told in history.metrics:
        first, values = rows.get(told.event.step, (told.t, {}))
        rows[told.event.step] = first, values | told.event.values
    return rows


def _write_csv(histories: Histories, path: Path) -> None:
    columns = _columns(histories)
    with open(path, "w", encoding="utf-8", newline="", opener=_private) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "step", "time_utc", *columns])
        for name, history in histories.items():
            for step, (t, values) in _rows(history).items():
                cells = [values.get(column, math.nan) for column in columns]
                writer.writerow([name, step, _utc(t), *("" if math.isnan(cell) else cell for cell in cells)])
        _settle(file.fileno(), file.flush)


def _write_jsonl(histories: Histories, path: Path) -> None:
    with open(path, "wb", opener=_private) as file:
        for name, history in histories.items():
            for told in history.told():
                file.write(msgspec.json.encode(_document(name, told)) + b"\n")
        _settle(file.fileno(), file.flush)


def _document(run: str, told: Told) -> dict[str, object]:
    """A metric or a sample as one object; what is not a number becomes null."""
    kind = "metric" if isinstance(told.event, Metric) else "sample"
    return {"type": kind, "run": run, "time": told.t, **msgspec.structs.asdict(told.event)}


def _write_tensorboard(histories: Histories, path: Path) -> None:
    path.mkdir(mode=0o700)
    for name, history in histories.items():
        told = history.told()
        if not told:
            continue
        folder = path / name
        folder.mkdir(mode=0o700)
        file = EventFile(folder / file_name(int(told[0].t)), told[0].t)
        try:
            for t, _, _, event in told:
                if isinstance(event, Metric):
                    file.metric(t, event)
                else:
                    file.sample(t, event)
        finally:
            file.close()


_WRITERS: Mapping[str, Callable[[Histories, Path], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "tensorboard": _write_tensorboard,
}


def _choices() -> str:
    return ", ".join(_WRITERS)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, which becomes `target` at the end, or vanishes when something goes wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield beside
        _refuse_existing(target)  # somebody may have been faster
        os.rename(beside, target)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(beside) if beside.is_dir() else beside.unlink()
        raise


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already.", todo="Choose another place with --out, or remove it first.")


def _settle(fd: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(fd)


def _utc(t: float) -> str:
    """A unix time as pandas and spreadsheets read it, to the millisecond; empty for one that no calendar has."""
    try:
        return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):
        return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
