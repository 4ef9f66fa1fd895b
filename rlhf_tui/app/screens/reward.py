"""Stage 3, Reward: a model learns the rater's taste, and is asked whether it is good enough."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from rlhf_tui.app import keys, keytable, words
from rlhf_tui.app.appraisal import LEVELS, Appraisal, with_handles
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.plot import Level
from rlhf_tui.app.screens import reward_panels
from rlhf_tui.app.screens.ppo_charts import ChartKeys, read_line
from rlhf_tui.app.screens.reward_pictures import CALIBRATION, CURVE, captioned
from rlhf_tui.app.screens.reward_windows import BestOfDialog, DisagreementsDialog, ReportDialog
from rlhf_tui.app.screens.stage import StageScreen, progress_body
from rlhf_tui.app.widgets.chartgrid import Charted, ChartGrid, Usual
from rlhf_tui.app.widgets.panel import Body, Panel, Row, lines, rows, tinted
from rlhf_tui.assessment.records import Report
from rlhf_tui.assessment.report_sections import measured_whose
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project
from rlhf_tui.settings import Settings

#: How many lines of accuracies there are on a small terminal and where there is room.
MEASURED, MEASURED_WIDE = 5, 7
PATIENCE = 0.5  # seconds that a look at the labels waits for another program's lock


#: The charts of a training, the most telling first.
USUAL = Usual(("loss", "accuracy", "heldout_loss", "heldout_accuracy", "margin", "grad_norm"), few=2, many=6)


class RewardScreen(ChartKeys, StageScreen):
    """While it trains, curves; after that the verdict with its reasons, and what to do next."""

    STAGE = "reward"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("reward", "charts")

    class Hashed(Message):
        """The hash of the labels as they are now; empty when they could not be read."""

        def __init__(self, labels: str) -> None:
            super().__init__()
            self.labels = labels

    def __init__(self) -> None:
        super().__init__()
        self._appraisal = Appraisal()
        self._curves_of = ""  # the run whose curves are wanted although there is a report
        self._hashed: object = None
        self._labels = ""

    def compose_body(self) -> ComposeResult:
        """Two layouts: the curves while there is no report, the report once there is one."""
        with Container(id="training", classes="page"):
            yield Panel("Training", id="progress")
            yield ChartGrid(USUAL, unit="step", id="curves")
            with Container(classes="side-by-side facts"):
                yield Panel("Held-out pairs", id="result")
                yield Panel("Setup", id="setup")
            yield Panel("Whose taste", id="taste")
        with Container(id="report", classes="page"):
            yield Panel("Is it good enough?", id="verdict")
            yield Static("", id="asides", markup=False)
            with Container(classes="side-by-side", id="measures"):
                yield Panel("How often it is right", id="accuracy")
                yield Panel("What was found", id="findings", classes="only-large")
            with Container(classes="side-by-side only-large curves"):
                yield Panel(CALIBRATION, id="calibration")
                yield Panel(CURVE, id="curve")
                yield Panel("Where it is right", id="slices")
            with Container(classes="side-by-side only-large others"):
                yield Panel("Largest disagreements", id="apart")
                yield Panel("Best of n", id="best")
                yield Panel("From what", id="origin")

    @property
    def report(self) -> Report | None:
        """The report of the newest run; None while it trains, or when there is none."""
        found = self._appraisal.of(self._finished.folder) if self._finished else None
        return with_handles(found, self.overview.raters) if found else None

    @property
    def there(self) -> Sequence[keytable.When]:
        """Charts while it trains, the report after that; both where the curves are wanted again."""
        return (*super().there, *(("report",) if self.report else ()))

    @property
    def _finished(self) -> Watched | None:
        run = self.run_shown
        return run if run and run.status == "finished" else None

    @property
    def _trouble(self) -> UserError | None:
        """Why a finished run's report cannot be shown, once that has been tried."""
        return self._appraisal.trouble if self._finished else None

    @property
    def has_charts(self) -> bool:
        """The charts make room for the report, unless they are wanted."""
        run = self.run_shown
        return self.report is None or (run is not None and run.name == self._curves_of)

    def show(self, view: Overview) -> None:
        """Fill whichever layout is up."""
        report = None if self.has_charts else self.report
        self.query_one("#training").display = report is None
        self.query_one("#report").display = report is not None
        if report:
            self._show_report(report, view)
        else:
            self._show_training(view)

    def _show_training(self, view: Overview) -> None:
        run = self.run_shown
        panel = self.query_one("#progress", Panel)
        back = f"{self._key('reward.curves')} shows the report" if self.report else ""
        grid = self.grid
        read = grid.readout() if grid.lit else ""
        if read:
            panel.show(lambda width, _: read_line(read, width), note=grid.range_words())
        else:
            panel.show(progress_body(run) if run else before_start(view), note=self.beside(back or grid.range_words()))
        if run:
            grid.show(Charted(run.state.series, notes=lambda name: heldout_note(name, run), levels=coin))
        else:
            grid.show(Charted({}, levels=coin))
        result = self.query_one("#result", Panel)
        result.show(
            unreadable(self._key("reward.report")) if self._trouble else heldout(run),
            note=f"n = {heldout_result(run)['n']}" if "n" in heldout_result(run) else "",
        )
        if view.settings:
            self.query_one("#setup", Panel).show(rows(setup_rows(view, view.settings)))
        self.query_one("#taste", Panel).show(taste(view))

    def _show_report(self, report: Report, view: Overview) -> None:
        key, more = self._key, self.wide or self.roomy
        read = key("reward.report")
        parts: dict[str, Body] = {
            "verdict": lambda w, h: reward_panels.banner(report, w, h, read),
            "accuracy": lambda w, _: reward_panels.accuracy(report, w, MEASURED_WIDE if more else MEASURED),
            "findings": lambda w, h: reward_panels.findings(report.findings, w, h),
            "calibration": lambda w, h: captioned(report, CALIBRATION, w, h),
            "curve": lambda w, h: captioned(report, CURVE, w, h),
            "slices": lambda w, h: reward_panels.slices(report, w, h),
            "apart": lambda w, h: reward_panels.disagreements(report, w, h, key("reward.disagreements")),
            "best": lambda w, h: reward_panels.best_of(report, w, h, key("reward.best")),
            "origin": lambda *_: reward_panels.facts(report),
        }
        for name, body in parts.items():
            self.query_one(f"#report #{name}", Panel).show(body)
        self.query_one("#report #verdict", Panel).border_subtitle = Content(clean(report.run))
        self.query_one("#accuracy", Panel).border_subtitle = Content(reward_panels.INTERVALS)
        self.query_one("#slices", Panel).border_subtitle = Content(measured_whose(report))
        asides = []
        if self._stale(report, view):
            asides.append(tinted(f"⚠ The labels have changed since: {key('reward.start')} trains again.", "warn"))
        if report.findings and not more:
            asides.append(reward_panels.summary(report, read))
        below = self.query_one("#asides", Static)
        below.display = bool(asides)
        below.update(lines(*asides))

    def action_read_report(self) -> None:
        """The whole report in a window."""
        if report := self._report_or_say():
            self.app.push_screen(ReportDialog(report))

    def action_disagreements(self) -> None:
        """The largest disagreements, to read and to judge again."""
        report = self._report_or_say()
        if report and report.disagreements:
            self.app.push_screen(
                DisagreementsDialog(
                    report.disagreements, partial(_active, self.overview.project), self.rlhf.judge_again
                )
            )
        elif report:
            self.notify("It prefers what the raters preferred wherever that could be measured.", timeout=4)

    def action_best_of(self) -> None:
        """What it would choose of 1, 4 and 16."""
        report = self._report_or_say()
        if report and report.preview:
            self.app.push_screen(BestOfDialog(report.preview))
        elif report:
            self.notify("No completions were sampled for this (reward.preview_prompts).", timeout=4)

    def action_curves(self) -> None:
        """The training curves, or the report again."""
        run = self.run_shown
        if run and self._report_or_say():
            self._curves_of = "" if self._curves_of == run.name else run.name
            self.renew()

    def on_reward_screen_hashed(self, event: Hashed) -> None:
        """What the labels are now is known, or could not be read."""
        if not event.labels:
            self._hashed = None  # tried again when something changes
        elif event.labels != self._labels:
            self._labels = event.labels
            self.renew()

    def command(self) -> str:
        """The same on the command line: the report while it is on screen, else the training."""
        shown = self._finished if self.query_one("#report").display else None
        return f"runs report {shown.name}" if shown else "train reward"

    def _report_or_say(self) -> Report | None:
        report = self.report
        if report is None:
            if self._trouble:
                self.rlhf.show_error(self._trouble)
            else:
                self.notify("There is no report yet: it comes when a training has finished.", timeout=3)
        return report

    def _stale(self, report: Report, view: Overview) -> bool:
        """Whether the labels are others now. A thread makes their hash, only after they have been written to."""
        if view.labels_seen != self._hashed:
            self._hashed = view.labels_seen
            self.run_worker(self._hash, thread=True, exclusive=True, group="labels")
        return self._labels not in ("", report.labels.hash)

    def _hash(self) -> None:
        try:
            with Store.open(self.overview.project.database, patience=PATIENCE) as store:
                labels = store.snapshot_hash()
        except (UserError, sqlite3.Error):
            labels = ""
        self.post_message(self.Hashed(labels))


def _active(project: Project) -> frozenset[int]:
    """The judgements that count now. Raises UserError when the store cannot be read."""
    with Store.open(project.database, patience=PATIENCE) as store:
        return frozenset(fact.judgement_id for fact in store.facts())


def before_start(view: Overview) -> Content:
    """What to press when nothing has been trained."""
    missing = view.missing("reward")
    if missing:
        return tinted(str(missing).replace("\n", " "), "warn")
    return Content(f"Press ⏎ to train on {words.plural(view.counts.teaching, 'judgement')}.")


def unreadable(key: str) -> Content:
    """That there is a report, but none to show."""
    return tinted(f"⚠ The report cannot be read: {key} says why.", "warn")


def heldout_result(run: Watched | None) -> Mapping[str, Any]:
    """The 'heldout' part of a finished run's result, or nothing."""
    done = run.state.done if run else None
    found = done.result.get("heldout") if done else None
    return found if isinstance(found, Mapping) else {}


def coin(metric: str) -> tuple[Level, ...]:
    """What a coin would get, as a level in the chart."""
    guess = {"accuracy": 0.5, "heldout_accuracy": 0.5, "loss": math.log(2), "heldout_loss": math.log(2), "margin": 0.0}
    return (Level(guess[metric], "coin", always="loss" not in metric),) if metric in guess else ()


def heldout_note(metric: str, run: Watched) -> str:
    """The newest held-out value, for the border of the chart of the training value."""
    latest = run.state.latest.get(f"heldout_{metric}", math.nan)
    return f"held-out {words.number(latest)}" if math.isfinite(latest) else ""


def heldout(run: Watched | None) -> Content:
    """Accuracy on held-out pairs with its interval, beside the two rules of length, and the verdict of the run."""
    result = heldout_result(run)
    if not result:
        latest = run.state.latest if run else {}
        if run and run.alive and "heldout_accuracy" in latest:
            return rows([Row("accuracy so far", words.percent(latest["heldout_accuracy"]))])
        return tinted("Shown when the training is over.", "quiet")
    accuracy, low, high = (_float(result, name) for name in ("accuracy", "low", "high"))
    shorter, longer = _float(result, "shorter"), _float(result, "longer")
    return lines(
        rows(
            [
                Row("accuracy", words.percent(accuracy), f"{low * 100:.0f} to {words.percent(high)} (95 %)"),
                Row("'shorter'", words.percent(shorter), "always the shorter"),
                Row("'longer'", words.percent(longer), "always the longer"),
            ]
        ),
        verdict(run),
    )


def verdict(run: Watched | None) -> Content:
    """The headline of the report: that it is better than a coin is said by nothing less strict."""
    said = run.state.done.result if run and run.state.done else {}
    if said.get("verdict") not in LEVELS or not isinstance(said.get("headline"), str):
        return Content("")
    mark, tone = LEVELS[said["verdict"]]
    return tinted(f"{mark} {clean(said['headline'])}", tone)


def setup_rows(view: Overview, settings: Settings) -> list[Row]:
    """What the training is told."""
    reward = settings.reward
    return [
        Row("judgements", f"{view.counts.teaching}", f"{view.counts.ties} ties"),
        Row("epochs", f"{reward.epochs}", f"{reward.batch_pairs} a step"),
        Row("learning rate", f"{reward.learning_rate:g}", f"head {reward.head_learning_rate:g}"),
        Row("smoothing", f"{reward.label_smoothing:g}", "of the labels"),
    ]


def taste(view: Overview) -> Content:
    """The first truth, with the names of those who rated."""
    who = ", ".join(f"{rater.handle} ({rater.kind})" for rater in view.raters) or "nobody yet"
    return lines("The behaviour you see is shaped by whoever did the rating.", rows([Row("rated by", who)]))


def _float(result: Mapping[str, Any], name: str) -> float:
    found = result.get(name)
    return float(found) if isinstance(found, int | float) else float("nan")
