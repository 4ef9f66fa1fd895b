"""What the events of one run add up to: the view model of a run, free of Textual and of files.

`RunState.apply` folds one stamped event after another. The state after a journal does not depend on how
the journal was cut into reads. Everything is bounded: long runs cost no more memory than short ones.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rlhf_tui.app.series import Series
from rlhf_tui.peaks import keep_larger
from rlhf_tui.preferences.display import clean
from rlhf_tui.runs.events import (
    Alert,
    Checkpoint,
    Done,
    Event,
    Launch,
    Memory,
    Metric,
    Progress,
    Sample,
    Stage,
    Stamped,
)

SAMPLES, ALERTS, CHECKPOINTS, PROMPTS = 50, 100, 50, 1000


News = TypeVar("News")


@dataclass(frozen=True)
class Timed(Generic[News]):
    """A piece of news with the moment it was written (unix seconds)."""

    at: float
    news: News
    step: int = 0
    """the last step that had been reported then"""


@dataclass
class Comparison:
    """The completions for one prompt before and after tuning."""

    prompt: str
    before: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)


class Pace:
    """Seconds for each unit of progress, over the last reports, and what is left at that pace."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, int, int, str]] = deque(maxlen=12)

    def add(self, at: float, progress: Progress) -> None:
        """Take a report in. Another unit, another total, a step back or a clock set back starts afresh."""
        if self._reports:
            then, done, total, unit = self._reports[-1]
            if at < then or progress.done < done or (progress.total, progress.unit) != (total, unit):
                self._reports.clear()
        self._reports.append((at, progress.done, progress.total, progress.unit))

    def forget(self) -> None:
        """The clock stood still (a pause, a restart): older reports say nothing about the pace."""
        self._reports.clear()

    @property
    def seconds_each(self) -> float:
        """Seconds for each unit; NaN until two reports differ."""
        if len(self._reports) < 2:
            return math.nan
        (t0, done0, *_), (t1, done1, *_) = self._reports[0], self._reports[-1]
        return (t1 - t0) / (done1 - done0) if done1 > done0 else math.nan

    def left(self, now: float) -> float:
        """Seconds until the total is reached, seen from `now`; NaN when unknown."""
        each = self.seconds_each
        if math.isnan(each):
            return math.nan
        at, done, total, _ = self._reports[-1]
        return max(each * (total - done) - max(now - at, 0.0), 0.0)


class RunState:
    """The latest news of one run, folded from its events."""

    def __init__(self) -> None:
        self.revision = 0
        self.launch: Launch | None = None
        self.started = math.nan
        self.heard = math.nan
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        self.pace = Pace()
        self.step = 0
        self.latest: dict[str, float] = {}
        self.series: dict[str, Series] = {}
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        #: By source and prompt: the first completion for it, of the `PROMPTS` prompts that came first.
        self.firsts: dict[tuple[str, str], Sample] = {}
        self.comparisons: dict[str, Comparison] = {}
        self.memory: Memory | None = None
        #: By phase: where it was at its peak.
        self.peaks: dict[str, Memory] = {}
        self.alerts: deque[Timed[Alert]] = deque(maxlen=ALERTS)
        self.checkpoints: deque[Timed[Checkpoint]] = deque(maxlen=CHECKPOINTS)
        self.done: Done | None = None
        self._resumed = False  # and no sample has come since

    def apply(self, stamped: Stamped) -> None:
        """Fold one event. An event type of a later version changes nothing but the time last heard."""
        self.revision += 1
        self.heard = stamped.t
        match tidied(stamped.event):
            case Launch() as launch:
                self._launched(stamped.t, launch)
            case Stage(name="paused" | "resumed"):
                self.pace.forget()
            case Stage() as stage:
                self.stage = stage
            case Progress() as progress:
                self.progress = progress
                self.pace.add(stamped.t, progress)
            case Metric() as metric:
                self._measured(metric)
            case Sample() as sample:
                self._sampled(sample)
            case Memory() as memory:
                self.memory = memory
                keep_larger(self.peaks, memory)
            case Alert() as alert:
                _add_once(self.alerts, Timed(stamped.t, alert, self.step))
            case Checkpoint() as checkpoint:
                _add_once(self.checkpoints, Timed(stamped.t, checkpoint, self.step))
            case Done() as done:
                self.done = done

    def line(self, name: str) -> Series:
        """The series of a metric; an empty one when nothing was reported under that name."""
        return self.series.get(name, _EMPTY)

    def _launched(self, at: float, launch: Launch) -> None:
        if self.launch is None:
            self.started = at
        self.launch = launch
        self.done = None
        self.comparisons.clear()
        self.pace.forget()
        self._resumed = True

    def _measured(self, metric: Metric) -> None:
        self.step = metric.step
        self.latest.update(metric.values)
        for name, value in metric.values.items():
            series = self.series.get(name)
            if series is None:
                series = self.series[name] = Series()
            series.add(metric.step, value)

    def _sampled(self, sample: Sample) -> None:
        if sample.source not in ("before", "after"):
            if self._resumed:
                self._rewind_samples(sample.step)
            self.samples.append(sample)
            if len(self.firsts) < PROMPTS:
                self.firsts.setdefault((sample.source, sample.prompt), sample)
            return
        if sample.prompt not in self.comparisons and len(self.comparisons) >= PROMPTS:
            return
        comparison = self.comparisons.setdefault(sample.prompt, Comparison(sample.prompt))
        (comparison.before if sample.source == "before" else comparison.after).append(sample)

    def first_for(self, sample: Sample) -> Sample:
        """The first completion for the same prompt: the sample itself when it is that, or none has been kept."""
        return self.firsts.get((sample.source, sample.prompt), sample)

    def _rewind_samples(self, step: int) -> None:
        """A run that goes on from a checkpoint repeats its steps from `step` on."""
        self._resumed = False
        while self.samples and self.samples[-1].step >= step:
            self.samples.pop()
        for key in [key for key, first in self.firsts.items() if first.step >= step]:
            del self.firsts[key]


def tidied(event: Event) -> Event:
    """The event with every text in it safe to show.

    A sample stays as it is: screens that show it also say how much of it is hidden.
    """
    match event:
        case Sample():
            return event
        case Metric(step, values):
            return Metric(step, _clean_all(values)) if any(clean(name) != name for name in values) else event
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    cleaned = _clean_all(fields)
    return event if cleaned == fields else type(event)(**cleaned)


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_clean_all(key): _clean_all(one) for key, one in value.items()}
    return [_clean_all(one) for one in value] if isinstance(value, list) else value


def _add_once(known: deque[Timed[News]], new: Timed[News]) -> None:
    """Append a piece of news; the same one from before, of a step that is done again, makes way."""
    for old in known:
        if old.news == new.news:
            known.remove(old)
            break
    known.append(new)


_EMPTY = Series()
